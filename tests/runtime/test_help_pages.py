"""Addresses of help pages that nobody can make up, and what must be registered for a page."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import Community, DeviceState, Press, RegistryChange
from gateway.core.state import CommunityState
from gateway.errors import GatewayError
from gateway.runtime.calls import Need, clean, event_of
from gateway.runtime.help_pages import (
    LONGEST_ID,
    HelpPage,
    PageCode,
    PageKeys,
    is_in_force,
    name_device,
    name_source,
    plan_pages,
)
from tests.core.worlds import START, new_engine, real_catalog

IDS = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=48)
CODES = st.builds(PageCode, IDS, IDS, st.integers(100_000, 999_999))
ON_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@ON_ONE_FOLDER
@given(CODES)
def test_an_address_says_what_it_was_made_for(tmp_path: Path, code: PageCode) -> None:
    keys = PageKeys(tmp_path)
    assert keys.read(keys.sign(code)) == code


@ON_ONE_FOLDER
@given(CODES, st.data())
def test_an_address_with_anything_changed_is_none(tmp_path: Path, code: PageCode, data: st.DataObject) -> None:
    keys = PageKeys(tmp_path)
    address = keys.sign(code)
    index = data.draw(st.integers(0, len(address) - 1))
    other = data.draw(st.characters(min_codepoint=32, max_codepoint=0x2FFF).filter(lambda c: c != address[index]))
    changed = address[:index] + other + address[index + 1 :]
    assert keys.read(changed) is None
    assert keys.read(address[:-1]) is None
    assert keys.read(address + other) is None


def test_a_signature_is_for_nothing_else_and_of_no_other_installation(tmp_path: Path) -> None:
    here, there = PageKeys(tmp_path / "a"), PageKeys(tmp_path / "b")
    signed = here.sign(PageCode("c001", "b1", 123456)).rpartition(".")[2]
    there.sign(PageCode("c001", "b1", 123456))
    for prefix in ("c001.b2.123456", "c002.b1.123456", "c001.b1.123457", "c001b1.b1.123456"):
        assert here.read(f"{prefix}.{signed}") is None
    assert here.read(f"c001.b1.123456.{signed}") == PageCode("c001", "b1", 123456)
    assert there.read(f"c001.b1.123456.{signed}") is None


def test_keys_are_private_files_and_change_with_an_overlap(tmp_path: Path) -> None:
    keys, code = PageKeys(tmp_path), PageCode("c001", "b1", 123456)
    first = keys.sign(code)
    assert keys.rotate() == 2
    second = keys.sign(code)
    # Another process has the same keys at once.
    assert [PageKeys(tmp_path).read(address) for address in (first, second)] == [code, code]
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "page-1.key": 0o600,
        "page-2.key": 0o600,
    }
    assert keys.end_overlap() == [1]
    assert [keys.read(address) for address in (first, second)] == [None, code]
    assert keys.end_overlap() == []


@given(IDS, IDS)
def test_what_is_registered_for_a_page_has_ids_of_the_wires(community: str, place: str) -> None:
    for id in (name_device(community, place), name_source(community)):
        assert len(id) <= LONGEST_ID
        assert set(id) <= set(string.ascii_lowercase + string.digits + "-")
    assert name_device(community, place) != name_device(community, place[:-1] + ("a" if place[-1] != "a" else "b"))


# --- registering ------------------------------------------------------------------------------------------------------


def take(engine: Engine, change: RegistryChange | None) -> None:
    assert change is not None
    assert engine.feed(change, START).answer == "done"


def plan(engine: Engine, *places: str, **options: object) -> tuple[list[HelpPage], RegistryChange | None]:
    return plan_pages(engine.snapshot(), places, **{"actor": "cli:chen", **options})  # type: ignore[arg-type]


def test_a_whole_community_gets_a_page_for_each_building_unit_and_public_spot_but_for_no_home() -> None:
    pages, change = plan(new_engine(), phone="0532-5550100")
    assert [page.code.place for page in pages] == ["c001", "b1", "b2", "b1-u1", "b2-u1", "gate"]
    assert change is not None
    assert {page.phone for page in pages} == {"0532-5550100"}
    assert [source.id for source in change.sources] == ["pages-c001"]
    home, _ = plan(new_engine(), "b1-u1-101")
    assert [page.place_name for page in home] == ["示例一期1号楼1单元101室"]


def test_the_engine_takes_the_pages_and_a_press_on_each(tmp_path: Path) -> None:
    engine = new_engine()
    pages, change = plan(engine)
    take(engine, change)
    for number, page in enumerate(pages):
        event = event_of(f"{number:032d}")
        [case] = [i for i in engine.feed(Press(event, page.device), START).incidents if i.revision == 1]
        assert (case.place, case.cause) == (page.code.place, "sos")


def test_asked_again_nothing_changes_and_sheets_stay_good() -> None:
    engine = new_engine()
    pages, change = plan(engine, "b1", phone="0532-5550100")
    take(engine, change)
    assert plan(engine, "b1") == (pages, None)
    other, change = plan(engine, "b1", phone="")
    assert [(page.code, page.phone) for page in other] == [(pages[0].code, "")]
    take(engine, change)


def test_a_renewed_page_has_another_address_and_one_that_is_tried_goes_on_being_tried() -> None:
    engine = new_engine()
    [page], change = plan(engine, "b1")
    take(engine, change)
    assert change is not None
    [device] = change.devices
    take(engine, RegistryChange("test", devices=(replace(device, state=DeviceState.DRILL, state_until=START + 1),)))
    [renewed], change = plan(engine, "b1", renew=True)
    assert change is not None
    assert renewed.code.issue != page.code.issue
    assert change.devices[0].state is DeviceState.DRILL
    assert not is_in_force(change.devices[0], page.code)
    assert is_in_force(change.devices[0], renewed.code)
    others: list[dict[str, Any]] = [
        {"state": DeviceState.RETIRED},
        {"place": "b2"},
        {"profile": "fixed-sos"},
        {"attributes": {}},
    ]
    for other in others:
        assert not is_in_force(replace(change.devices[0], **other), renewed.code)


@pytest.mark.parametrize(
    ("places", "phone", "code"),
    [(("nowhere",), None, "unknown-place"), ((), "call me", "bad-phone"), ((), "<1>", "bad-phone")],
)
def test_what_cannot_be_is_told(places: tuple[str, ...], phone: str | None, code: str) -> None:
    with pytest.raises(GatewayError) as refused:
        plan(new_engine(), *places, phone=phone)
    assert refused.value.code == code


def test_a_community_without_places_has_no_pages() -> None:
    with pytest.raises(GatewayError, match="no places"):
        plan_pages(CommunityState(Community("c009", 9, "新建")), actor="cli:chen")


# --- words ------------------------------------------------------------------------------------------------------------


def test_the_profile_and_the_page_know_the_same_kinds_of_help() -> None:
    spec = real_catalog().profiles["resident-page"].events["pressed"].data["need"]
    assert spec.values == tuple(Need)


@given(st.text())
def test_what_somebody_typed_is_one_line_that_can_be_seen(text: str) -> None:
    kept = clean(text, 20)
    assert len(kept) <= 20
    assert kept.isprintable()
    assert clean(kept, 20) == kept.strip()
