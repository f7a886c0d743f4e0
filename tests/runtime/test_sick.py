"""Who is not well, and whom it hurts: laws of the order, and what each kind of ailment rests on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Device, DeviceState, Place, PlaceKind, Source
from gateway.core.present import DevicePresent, Present, SourcePresent
from gateway.runtime.ports import Disbelieved
from gateway.runtime.sick import Ailment, list_sick
from tests.core.worlds import DEVICES, PLACES, START, real_catalog

HOUR = 3_600_000


def present(*devices: DevicePresent, out_since: int | None = None) -> Present:
    return Present(START, devices, (SourcePresent(Source("agent-1", "gate", "agent-1"), out_since),), PLACES)


def known(id: str, **more: object) -> DevicePresent:
    [device] = [d for d in DEVICES if d.id == id]
    return DevicePresent(device, **{"heard_at": START, **more})  # type: ignore[arg-type]


def sick(shown: Present, *disbelieved: Disbelieved) -> list[tuple[str, tuple[Ailment, ...], bool, int]]:
    found = list_sick(shown, [], disbelieved, real_catalog())
    return [(p.device.id, tuple(s.ailment for s in p.symptoms), p.is_life_safety, p.homes) for p in found]


def refused(device: str, last_at: int) -> Disbelieved:
    return Disbelieved(device, "battery", "out-of-range", "240", 3, last_at - HOUR, last_at)


def test_who_is_well_is_not_listed() -> None:
    assert sick(present(known("smoke-1"), known("room-1"))) == []


def test_silence_is_told_apart_from_an_agent_that_is_away_and_from_never() -> None:
    shown = present(
        known("smoke-1", silent_since=START - HOUR),
        known("smoke-2", is_cut_off=True),
        known("sos-1", heard_at=None, silent_since=START - HOUR),
        known("sos-2", heard_at=None),
    )
    assert {id: ailments for id, ailments, _, _ in sick(shown)} == {
        "smoke-1": (Ailment.OFFLINE,),
        "smoke-2": (Ailment.CUT_OFF,),
        "sos-1": (Ailment.UNHEARD,),
    }


def test_what_is_tried_or_repaired_may_be_silent() -> None:
    [device] = [d for d in DEVICES if d.id == "smoke-1"]
    tried = Device(device.id, device.profile, device.source, device.place, state=DeviceState.COMMISSIONING)
    assert sick(present(DevicePresent(tried, None, START - HOUR))) == []


def test_a_value_that_was_not_believed_counts_for_a_day() -> None:
    shown = present(known("smoke-1"), known("smoke-2"))
    listed = sick(shown, refused("smoke-1", START - 23 * HOUR), refused("smoke-2", START - 25 * HOUR))
    assert [(id, ailments) for id, ailments, _, _ in listed] == [("smoke-1", (Ailment.IMPLAUSIBLE,))]


def test_an_agent_stands_for_all_that_speak_through_it() -> None:
    shown = present(known("agent-1"), known("smoke-1"), known("smoke-3"), known("room-1"))
    listed = sick(shown, refused("agent-1", START), refused("room-1", START), refused("smoke-3", START))
    # The gate belongs to the whole community, and the thermometer there to nobody's life.
    assert [(id, is_vital, homes) for id, _, is_vital, homes in listed] == [
        ("agent-1", True, 3),
        ("smoke-3", True, 1),
        ("room-1", False, 3),
    ]


IDS = [d.id for d in DEVICES]


@given(st.lists(st.sampled_from(IDS), unique=True, min_size=2), st.data())
def test_lives_come_first_then_homes(ids: list[str], data: st.DataObject) -> None:
    shown = present(*(known(id, silent_since=data.draw(st.sampled_from([None, START - HOUR]))) for id in ids))
    listed = sick(shown, *(refused(id, START) for id in data.draw(st.permutations(ids))))
    assert sorted(id for id, _, _, _ in listed) == sorted(ids)
    order = [(not is_vital, -homes) for _, _, is_vital, homes in listed]
    assert order == sorted(order)


def test_places_that_run_in_a_circle_end_nothing() -> None:
    places = (Place("a", PlaceKind.UNIT, "a", "b"), Place("b", PlaceKind.HOUSEHOLD, "b", "a"))
    [device] = [d for d in DEVICES if d.id == "smoke-1"]
    moved = Device(device.id, device.profile, device.source, "a")
    shown = Present(START, (DevicePresent(moved, START, START - HOUR),), (), places)
    assert [homes for _, _, _, homes in sick(shown)] == [1]
