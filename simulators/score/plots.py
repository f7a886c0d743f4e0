"""What happens to whole communities: outages, chatter, storms, works, and faults of clock, link and gateway.

Each function writes one such thing into a `Town`, with the truth about it. Nothing here knows the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from simulators.scenario_file import Value
from simulators.score.corpus import Blindness, ClockStep, Deed, Device, Link, NearMiss, Outage, Quiet, StateChange
from simulators.score.town import H, M, S, Span, Town

DEVICE_DOWN: Final = "ops:01-01"
AGENT_OUT: Final = "ops:01-03"
CLOCK_OFF: Final = "ops:01-04"
STORM: Final = "ext:21-16"
PRESSED: Final = "ext:21-03"

ON_MAINS: Final = (
    "ip-speaker",
    "lift",
    "plate-camera",
    "face-camera",
    "noise-station",
    "pm-station",
    "sound-light-siren",
    "smart-valve",
)
BEHIND_PANEL: Final = ("electrical-fire", "hydrant-pressure", "fire-lane-occupancy")
RESTART_MS: Final = 100 * S
"""An agent that starts again is away for no longer."""

SMELLING: Final = ("nb-smoke", "manual-call-point")


# --- outages -------------------------------------------------------------------------------------------------------


def lose_agent(town: Town, since: int, until: int) -> None:
    """The agent has no power: one notice, and nothing of the devices behind it."""
    devices = len(town.devices) - 1
    town.outages.append(Outage(town.id, devices, since, until))
    town.label("agent-dark", "upset", AGENT_OUT, town.source.place, since, since + 5 * M, sort="notice")


def lose_power(town: Town, since: int, until: int) -> None:
    """What feeds a good part of the devices is off: one notice of it, and none of them."""
    feed, *_ = town.of_profile("electrical-fire")
    fed = [device for device in town.of_profile(*ON_MAINS) if town.is_free([device.id], since, until)]
    town.register(*(_with(device, powered_by=feed.id) for device in fed))
    _fall_silent(town, "power-lost", feed, fed, since, until)


def lose_panel(town: Town, since: int, until: int) -> None:
    """The transmission device falls silent, with all that reports through it: one notice."""
    [panel] = town.of_profile("user-transmission-device")
    feed, *_ = town.of_profile("electrical-fire")
    behind = [
        device
        for device in town.of_profile(*BEHIND_PANEL)
        if device.id != feed.id and town.is_free([device.id], since, until)
    ]
    town.register(*(_with(device, panel=panel.id) for device in behind))
    _fall_silent(town, "panel-lost", panel, behind, since, until)


def lose_device(town: Town, device: Device, since: int) -> None:
    """A dead battery: the device is never heard of again, and within a day and an hour somebody is told."""
    town.mute([device.id], since, town.end)
    marks = (device.id, f"{DEVICE_DOWN}@{device.place}")
    town.book(marks, town.start, town.end)
    latest = since + 25 * H
    town.label("device-dead", "upset", DEVICE_DOWN, device.place, since, latest, (device.id,), sort="notice")


def _fall_silent(town: Town, scenario: str, head: Device, behind: Sequence[Device], since: int, until: int) -> None:
    names = [head.id, *(device.id for device in behind)]
    town.mute(names, since, until)
    town.book(names, since - H, until + H)
    town.label(scenario, "upset", DEVICE_DOWN, head.place, since, since + 20 * M, (head.id,), sort="notice")


def _with(device: Device, **attributes: str) -> Device:
    return replace(device, attributes={**device.attributes, **attributes})


# --- what chatters -------------------------------------------------------------------------------------------------


class Chatter(Struct, frozen=True):
    """A device that comes and goes: it reports ``on`` for ``on_s`` seconds and ``off`` for ``off_s``, again and again
    (numbers and times are drawn between the two). One case must come of all of it."""

    profile: str
    reading: str
    on: bool | str | tuple[float, float]
    off: bool | str | tuple[float, float]
    on_s: tuple[int, int]
    off_s: tuple[int, int]
    category: str
    at: Literal["device", "building"] = "device"
    sort: Literal["incident", "notice"] = "incident"
    attribute: str = ""


CHATTERS: Final = (
    Chatter("manhole-cover", "tilt", (95, 170), (0, 3), (20, 60), (45, 120), "component:01-00"),
    Chatter("nb-smoke", "smoke", True, False, (20, 60), (150, 300), "ext:21-01", "building"),
    Chatter("water-immersion", "wet", True, False, (10, 40), (310, 500), "event:04-02"),
    Chatter("hydrant-pressure", "tilted", True, False, (40, 90), (70, 180), "ext:21-07"),
    Chatter("fire-lane-occupancy", "occupied", True, False, (190, 400), (70, 200), "ext:21-06"),
    Chatter("electrical-fire", "residual_current", (320, 420), (80, 200), (40, 90), (310, 400), "ext:21-08"),
    Chatter("lift", "people_trapped", True, False, (40, 90), (70, 150), "ext:21-04"),
    Chatter("household-gas", "valve", "fault", "open", (70, 150), (30, 120), "ops:01-05", sort="notice"),
    Chatter("lift", "fault", True, False, (130, 240), (130, 240), "ops:01-05", sort="notice"),
    Chatter("plate-camera", "covered", True, False, (620, 900), (310, 600), "ops:01-05", sort="notice"),
    Chatter("nb-smoke", "fault", True, False, (70, 150), (30, 150), "ops:01-05", sort="notice"),
    Chatter(
        "door-magnet", "open", True, False, (310, 500), (20, 90), "ops:01-06", sort="notice", attribute="fire_door"
    ),
)


def chatter(town: Town, what: Chatter, since: int, until: int) -> bool:
    """One device of that kind chatters in that time; False when none is free."""
    for device in town.rng.sample(town.of_profile(what.profile), len(town.of_profile(what.profile))):
        place = town.within(device.place, "building") if what.at == "building" else device.place
        marks = [device.id, f"{what.category}@{place}"]
        if what.category == "ext:21-01":
            marks.append(f"fire in {place}")
        if (what.attribute and not town.has(device, what.attribute)) or not town.is_free(marks, town.start, town.end):
            continue
        town.book(marks, town.start, town.end)
        town.mute([f"{device.id}:{what.reading}"], since, until)
        at, first = since, 0
        while at < until:
            heard = town.report(at, device.id, what.reading, _draw(town, what.on))
            first = first or heard
            at += town.rng.randrange(*what.on_s) * S
            town.report(at, device.id, what.reading, _draw(town, what.off))
            at += town.rng.randrange(*what.off_s) * S
        deeds = town.work(what.category, first, until + H) if what.sort == "incident" else ()
        # A notice is in no hurry, and waits while the agent has no link.
        latest = first + (30 * M if what.sort == "incident" else 2 * H)
        town.label(
            f"{what.profile}-chatters",
            "upset",
            what.category,
            place,
            first,
            latest,
            (device.id,),
            deeds,
            sort=what.sort,
        )
        return True
    return False


def flap_link(town: Town, since: int, until: int) -> None:
    """The agent's link is gone for less than two minutes every few: one notice."""
    at = since
    while at < until:
        gone = at + town.rng.randrange(20, 90) * S
        town.tell(Link(at, False), Link(gone, True))
        at = gone + town.rng.randrange(150, 360) * S
    town.label("link-flaps", "upset", AGENT_OUT, town.source.place, since, since + H, sort="notice")


def _draw(town: Town, value: bool | str | tuple[float, float]) -> Value:
    return round(town.rng.uniform(*value), 1) if isinstance(value, tuple) else value


# --- storms --------------------------------------------------------------------------------------------------------


def burst_clouds(town: Town, since: int) -> None:
    """Within six minutes all manholes of an estate fill, and its cellars: each is a condition of its own, all together
    are one storm."""
    ends = since + 50 * M
    for device in _one_for_each_place(town, "manhole-cover"):
        at = since + town.rng.randrange(6 * M)
        first = town.report(at, device.id, "water_level", round(town.rng.uniform(4.6, 4.95), 2))
        for minutes in range(3, 40, 3):
            town.report(at + minutes * M, device.id, "water_level", round(town.rng.uniform(4.6, 4.95), 2))
        _in_storm(town, "cloudburst", "ext:21-14", device, "water_level", first, first + 12 * M, ends)
    for device in _one_for_each_place(town, "water-immersion"):
        at = since + town.rng.randrange(10 * M, 16 * M)
        first = town.report(at, device.id, "wet", True)
        for seconds in range(20, 300, 20):
            town.report(at + seconds * S, device.id, "wet", True)
        _in_storm(town, "cloudburst", "event:04-02", device, "wet", first, first + 2 * M, ends)
    town.label("cloudburst", "upset", STORM, town.id, since, since + 30 * M, deeds=town.work(STORM, since, ends + H))


def shake(town: Town, since: int) -> None:
    """Within four minutes doors spring open, hydrants are hit and manhole covers jump, all over an estate."""
    ends = since + 30 * M
    for profile, kind, category in (
        ("door-magnet", "door_forced", "ext:21-12"),
        ("hydrant-pressure", "hit", "ext:21-07"),
    ):
        for device in _one_for_each_place(town, profile):
            at = since + town.rng.randrange(4 * M)
            first = town.press(at, device.id, kind)
            for number in range(1, town.rng.randrange(2, 6)):
                town.press(at + number * 20 * S, device.id, kind)
            if profile == "door-magnet":
                town.report(at - M, device.id, "open", False)
            _in_storm(town, "quake", category, device, "open", first, first + 3 * M, ends)
    for device in _one_for_each_place(town, "manhole-cover"):
        at = since + town.rng.randrange(4 * M)
        first = town.report(at, device.id, "tilt", round(town.rng.uniform(12, 80), 1))
        for seconds in range(10, 120, 10):
            town.report(at + seconds * S, device.id, "tilt", round(town.rng.uniform(12, 80), 1))
        _in_storm(town, "quake", "component:01-00", device, "tilt", first, first + 3 * M, ends)
    town.label("quake", "upset", STORM, town.id, since, since + 30 * M, deeds=town.work(STORM, since, ends + H))


def _one_for_each_place(town: Town, profile: str) -> list[Device]:
    """At each place the first device of the profile that is free all the time."""
    by_place: dict[str, Device] = {}
    for device in town.of_profile(profile):
        if town.is_free([device.id], town.start, town.end):
            by_place.setdefault(device.place, device)
    return list(by_place.values())


def _in_storm(
    town: Town, scenario: str, category: str, device: Device, reading: str, since: int, until: int, ends: int
) -> None:
    """The condition is a label of its own, which may stand in the storm's list."""
    town.mute([f"{device.id}:{reading}"], since - M, ends)
    town.book([device.id, f"{category}@{device.place}"], town.start, town.end)
    deeds = town.work(category, since, ends + H)
    town.label(scenario, "emergency", category, device.place, since, until, (device.id,), deeds, in_storm=True)


# --- works ---------------------------------------------------------------------------------------------------------


def hold_drill(town: Town, building: str, since: int) -> None:
    """A fire drill of an hour: every detector of the building is tested, and every call point pressed. One detector
    goes on smelling smoke when it is over: that is real."""
    until = since + H
    tested = [
        d for d in town.inside(building, *SMELLING, "fixed-sos") if town.is_free([d.id], since - H, until + 4 * H)
    ]
    if not tested:
        return
    town.book([*(d.id for d in tested), f"fire in {building}", f"ext:21-01@{building}"], since - H, until + 4 * H)
    town.tell(StateChange(since, tuple(d.id for d in tested), "drill", until))
    for device in tested:
        for _ in range(town.rng.randrange(1, 5)):
            at = since + town.rng.randrange(5 * M, 50 * M)
            if device.profile == "nb-smoke":
                town.report(at, device.id, "smoke", True)
                town.report(at + town.rng.randrange(15, 60) * S, device.id, "smoke", False)
            else:
                town.press(at, device.id)
        town.near_misses.append(NearMiss("drill", _likeness(device), since, device.id))
    smokes = [device for device in tested if device.profile == "nb-smoke"]
    if smokes:
        _outlast(town, town.rng.choice(smokes), building, until)


def _outlast(town: Town, device: Device, building: str, until: int) -> None:
    began, ends = until - 4 * M, until + 8 * M
    town.mute([f"{device.id}:smoke"], began - H, ends)
    for seconds in range(0, (ends - began) // S, 30):
        town.report(began + seconds * S, device.id, "smoke", True)
    town.report(ends, device.id, "smoke", False)
    deeds = town.work("ext:21-01", until, ends)
    town.label("smoke-outlasts-drill", "emergency", "ext:21-01", building, until, until + 2 * M, (device.id,), deeds)


def commission(town: Town, since: int, count: int) -> None:
    """New devices are tried out one after the other, half an hour at most."""
    chosen = [
        device
        for device in town.of_profile("fixed-sos", "sos-wristband", "nb-smoke", "door-magnet", "manual-call-point")
        if town.is_free([device.id], since - H, since + 4 * H)
    ]
    tried = town.rng.sample(chosen, min(count, len(chosen)))
    town.tell(StateChange(since, tuple(device.id for device in tried), "commissioning", since + 30 * M))
    for device in tried:
        town.book([device.id], since - H, since + 4 * H)
        for _ in range(town.rng.randrange(2, 7)):
            at = since + town.rng.randrange(M, 28 * M)
            match device.profile:
                case "nb-smoke":
                    town.report(at, device.id, "smoke", True)
                    town.report(at + 20 * S, device.id, "smoke", False)
                case "door-magnet":
                    town.press(at, device.id, "door_forced")
                case _:
                    town.press(at, device.id)
        town.near_misses.append(NearMiss("commissioning", _likeness(device), since, device.id))


def renovate(town: Town, building: str, since: int, until: int) -> None:
    """Dust in a building that has a maintenance window: its smoke detectors say so again and again. A press there
    counts all the same; what else happened there would be silenced, too, so nothing does."""
    dusty = [d for d in town.inside(building, "nb-smoke") if town.is_free([d.id], since - H, until + 4 * H)]
    pressed = [d for d in town.inside(building, "manual-call-point") if town.is_free([d.id], since - H, until + 4 * H)]
    if not dusty or not pressed:
        return
    town.book([f"fire in {building}", f"ext:21-01@{building}"], since - H, until + 4 * H)
    town.book([device.id for device in town.inside(building)], since - H, until + 4 * H)
    town.tell(Quiet(since, until, "maintenance", "装修", place=building))
    for device in dusty:
        town.mute([f"{device.id}:smoke"], since, until)
        at = since + town.rng.randrange(M, 20 * M)
        while at < until - 10 * M:
            town.report(at, device.id, "smoke", True)
            town.report(at + town.rng.randrange(20, 90) * S, device.id, "smoke", False)
            at += town.rng.randrange(5 * M, 20 * M)
        town.near_misses.append(NearMiss("renovation", "ext:21-01", since, device.id))
    heard = town.press(since + town.rng.randrange(20 * M, (until - since) // 2), pressed[0].id)
    deeds, place, latest = town.work("ext:21-01", heard, until), building, heard + 5 * S
    town.label("press-amid-works", "emergency", "ext:21-01", place, heard, latest, (pressed[0].id,), deeds)


def flush_hydrant(town: Town, since: int, until: int) -> None:
    """A hydrant is flushed while it is silenced."""
    free = [d for d in town.of_profile("hydrant-pressure") if town.is_free([d.id], town.start, town.end)]
    if not free:
        return
    device = town.rng.choice(free)
    town.book([device.id, f"ext:21-07@{device.place}"], town.start, town.end)
    town.tell(Quiet(since, until, "silence", "管网冲洗", device=device.id))
    town.mute([device.id], since, until)
    for minute in range(5, (until - since) // M - 40):
        town.report(since + minute * M, device.id, "flowing", minute % 7 < 3)
        town.report(since + minute * M, device.id, "pressure", 90.0 if minute % 30 < 15 else 300.0)
    town.report(until - 30 * M, device.id, "flowing", False)
    town.report(until - 30 * M, device.id, "pressure", 300.0)
    town.near_misses.append(NearMiss("hydrant-flushed", "ext:21-07", since, device.id))


def leave_home(town: Town, since: int, until: int) -> None:
    """An elder has told that nobody will be at home: the meter stands still, and nobody is sent."""
    homes = [
        device
        for device in town.of_profile("cold-water-meter")
        if town.has(device, "elder_alone") and not town.has(device, "away")
        if town.is_free([device.id], town.start, town.end)
    ]
    if not homes:
        return
    device = town.rng.choice(homes)
    town.book([device.id, f"ext:21-09@{device.place}"], town.start, town.end)
    town.tell(Quiet(since, until, "away", "探亲", place=device.place))
    town.stop_meter(device, since, until)
    town.near_misses.append(NearMiss("elder-away", "ext:21-09", since, device.id))


def _likeness(device: Device) -> str:
    return {"fixed-sos": PRESSED, "sos-wristband": PRESSED, "door-magnet": "ext:21-12"}.get(device.profile, "ext:21-01")


# --- faults --------------------------------------------------------------------------------------------------------


def cut_off(town: Town) -> None:
    """Of each time without a link that is longer than a restart there is one notice."""
    for since, until in town.line.cut:
        if until - since > RESTART_MS:
            town.label("link-cut", "upset", AGENT_OUT, town.source.place, since, since + 5 * M, sort="notice")


def stop_gateway(town: Town) -> None:
    """The gateway was stopped for a while."""
    town.tell(*(Blindness(until, since) for since, until in town.line.blind))


def set_clock(town: Town, steps: Sequence[tuple[int, int]]) -> None:
    """The agent's clock is off from these times on by so many ms, and the agent says how far."""
    town.clock.extend(ClockStep(at, offset) for at, offset in steps)
    agent = town.source.device
    town.mute([f"{agent}:clock_skew"], town.start, town.end)
    told: Span | None = None
    for at in range(town.start + 5 * M, town.end, 5 * M):
        offset = next((offset for begin, offset in reversed(steps) if begin <= at), 0)
        if town.line.is_whole(at - M, at + M):
            heard = town.report(at, agent, "clock_skew", round(offset / 1000, 3))
            if told is None and abs(offset) > 60 * S:
                told = (heard, heard + 2 * H)
    if told is not None:
        town.label("clock-off", "upset", CLOCK_OFF, town.devices[agent].place, *told, (agent,), sort="notice")


def press_twice(town: Town, since: int) -> None:
    """Somebody presses, is visited, and presses again soon after: the second is a case of its own."""
    free = [
        d for d in town.of_profile("fixed-sos") if town.is_free([d.id, f"{PRESSED}@{d.place}"], town.start, town.end)
    ]
    if not free:
        return
    device = town.rng.choice(free)
    town.book([device.id, f"{PRESSED}@{device.place}"], town.start, town.end)
    first = town.press(since, device.id)
    second = town.press(first + town.rng.randrange(5 * M, 9 * M), device.id)
    quick = (
        Deed(first + 30 * S, "call_back", "dispatcher", "通话"),
        Deed(first + 4 * M, "arrive", "property_manager"),
        Deed(first + 20 * M, "resolve", "property_manager", "已扶起"),
        Deed(first + 30 * M, "verify", "grid_worker"),
        Deed(first + 31 * M, "close", "dispatcher", "核查属实"),
    )
    slow = town.work(PRESSED, second, second)
    town.label("pressed", "emergency", PRESSED, device.place, first, first + 5 * S, (device.id,), quick)
    town.label("pressed-after-visit", "emergency", PRESSED, device.place, second, second + 5 * S, (device.id,), slow)
