"""The corpus: which communities play what, from a seed. Nothing here knows the gateway.

A chapter is a number of communities that have the same kind of days. Each script is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

from msgspec import Struct

from simulators.scenario_file import Scenario, read_scenarios
from simulators.score import plots
from simulators.score.corpus import Device, Estate, ImportFile, Script
from simulators.score.town import H, Line, M, S, Span, Town

FOLDER: Final = Path(__file__).parent / "scenarios"

START: Final = 1_795_363_200_000
"""2026-11-23 00:00 in Jimo, a Monday."""

FULL: Final = 32
"""Emergencies of every category in a whole corpus."""

SMALL: Final = 105
OUTAGE: Final = 200
LARGE: Final = 400
"""Devices of an ordinary community, of the one whose agent goes out before all eyes, and of one that has storms."""

LIFE_SAFETY: Final = ("ext:21-01", "ext:21-02", "ext:21-03", "ext:21-04")
KEPT: Final = (
    "sos-pressed",
    "sos-pressed-in-panic",
    "wristband-pressed",
    "call-point-pressed",
    "smoke-persists",
    "fire-spreads",
    "gas-sudden",
    "lift-trapped",
)
"""Emergencies that somebody must be told of however late they arrive."""

DAY_MS: Final = 24 * H
CLOCKS: Final = (40, -900, 25_000, 95_000, -3_600_000, 3 * DAY_MS, -7 * 365 * DAY_MS, 365 * DAY_MS)
"""How far agents' clocks are off, in ms."""


class Chapter(Struct, frozen=True):
    """So many communities of so many devices in a whole corpus, and what one of them, with its number, plays."""

    name: str
    communities: int
    devices: int
    write: Callable[[Estate, int, Sequence[str], int], Script]


class Size(Struct, frozen=True):
    """How much is played: ``cases`` emergencies of every category, and in proportion to it everything else."""

    cases: int = FULL

    def share(self, full: int) -> int:
        """What of ``full`` is played at this size, at least one."""
        return max(1, round(full * self.cases / FULL))


@cache
def read_all_scenarios() -> tuple[Scenario, ...]:
    """The demo's scenarios and the score's own."""
    return (*read_scenarios(), *read_scenarios(FOLDER))


# --- ordinary days -------------------------------------------------------------------------------------------------

DAYS: Final = 24
FEWEST_DAYS: Final = 2
"""Communities of the ordinary days; in one alone there is not always room for all that is played."""


def write_days(seed: int, size: Size, estates: Sequence[Estate], wanted: Sequence[str]) -> Iterator[Script]:
    """Two ordinary days, with emergencies of every category and what only looks like them, and some dead devices."""
    span = (START, START + 48 * H)
    towns = [Town("days", estate, seed, span, wanted=wanted) for estate in estates]
    rng = Random(f"{seed}/days")
    for town in towns:
        equip(town)
        for device in town.rng.sample(
            town.of_profile("nb-smoke", "door-magnet", "household-gas", "hydrant-pressure"), 3
        ):
            if town.rng.random() < 0.35 and town.is_free([f"{plots.DEVICE_DOWN}@{device.place}"], *span):
                plots.lose_device(town, device, town.start)
    causes: dict[str, list[Scenario]] = {}
    likes: dict[str, list[Scenario]] = {}
    for scenario in read_all_scenarios():
        if scenario.expect is not None:
            causes.setdefault(scenario.expect.category, []).append(scenario)
        else:
            likes.setdefault(scenario.like or "", []).append(scenario)
    for dealt, count in ((causes, size.cases), (likes, -(-size.cases // 2))):
        for category in sorted(dealt):
            for scenario in _deal(dealt[category], count, rng):
                _place(scenario, towns, rng)
    for town in towns:
        yield town.write()


def equip(town: Town) -> None:
    """Adds what the district's communities lack: a manual call point in every building, and what transmits them."""
    source = town.source
    town.register(Device(f"{town.id}-panel", "user-transmission-device", source.id, source.place, "用户信息传输装置"))
    for number, building in enumerate(town.places("building"), 1):
        town.register(Device(f"{town.id}-call-{number:02}", "manual-call-point", source.id, building, "手动报警按钮"))


def _deal(scenarios: Sequence[Scenario], count: int, rng: Random) -> list[Scenario]:
    """Every scenario at least once, the rest by weight; of more scenarios than that, some."""
    if count <= len(scenarios):
        return rng.sample(scenarios, count)
    rest = rng.choices(scenarios, [scenario.weight for scenario in scenarios], k=count - len(scenarios))
    return [*scenarios, *rest]


def _place(scenario: Scenario, towns: Sequence[Town], rng: Random) -> None:
    """In any of the towns that has room for it."""
    for town in rng.sample(towns, len(towns)):
        if town.cast(scenario, town.start + 5 * M, town.end):
            return
    raise ValueError(f"there is no room for {scenario.id} in {len(towns)} communities")


def mix(town: Town, emergencies: int, near_misses: int, span: Span) -> None:
    """Some emergencies that lives hang on, and some near-misses, between what else happens."""
    causes = [s for s in read_all_scenarios() if s.expect is not None and s.expect.category in LIFE_SAFETY]
    likes = [s for s in read_all_scenarios() if s.like in LIFE_SAFETY and s.state is None]
    for scenarios, count in ((causes, emergencies), (likes, near_misses)):
        for scenario in town.rng.choices(scenarios, k=count):
            town.cast(scenario, *span)


# --- the other chapters --------------------------------------------------------------------------------------------


def _write_outage(estate: Estate, seed: int, wanted: Sequence[str], number: int) -> Script:
    """A day without the agent, so long that every device behind it has been silent for too long."""
    rng = Random(f"{seed}/outages/{estate.community.id}")
    since = START + rng.randrange(H, 4 * H)
    until = since + rng.randrange(25 * H, 30 * H)
    town = Town("outages", estate, seed, (START, until + 4 * H), Line(dark=((since, until),)))
    plots.lose_agent(town, since, until)
    return town.write()


def _write_cascade(estate: Estate, seed: int, wanted: Sequence[str], number: int) -> Script:
    """What feeds the devices is off for some hours, and later the panel is."""
    town = Town("cascades", estate, seed, (START, START + 20 * H), wanted=wanted)
    equip(town)
    since = town.start + town.rng.randrange(H, 3 * H)
    plots.lose_power(town, since, since + town.rng.randrange(3 * H, 6 * H))
    since = town.start + town.rng.randrange(10 * H, 12 * H)
    plots.lose_panel(town, since, since + town.rng.randrange(4 * H, 7 * H))
    mix(town, 2, 1, (town.start + H, town.end))
    return town.write()


def _write_chatter(estate: Estate, seed: int, wanted: Sequence[str], number: int) -> Script:
    """Three devices chatter until somebody comes, most of a day later; in every fourth community the agent's link does
    so for hours, too."""
    town = Town("chatter", estate, seed, (START, START + 24 * H), wanted=wanted)
    for index in range(3):
        since = town.start + town.rng.randrange(H, 3 * H)
        kind = plots.CHATTERS[(3 * number + index) % len(plots.CHATTERS)]
        plots.chatter(town, kind, since, since + town.rng.randrange(12 * H, 20 * H))
    if number % 4 == 3:
        since = town.start + town.rng.randrange(H, 3 * H)
        plots.flap_link(town, since, since + town.rng.randrange(3 * H, 6 * H))
    mix(town, 1, 1, (town.start + H, town.end))
    return town.write()


def _write_storm(estate: Estate, seed: int, wanted: Sequence[str], number: int) -> Script:
    """A cloudburst or an earthquake, and people in need in the middle of it."""
    town = Town("storms", estate, seed, (START, START + 8 * H), wanted=wanted)
    since = town.start + town.rng.randrange(2 * H, 4 * H)
    (plots.shake if number % 2 else plots.burst_clouds)(town, since)
    mix(town, 6, 2, (since - 2 * M, since + 40 * M))
    return town.write()


def _write_works(estate: Estate, seed: int, wanted: Sequence[str], number: int) -> Script:
    """A drill, new devices, dust, a hydrant that is flushed, an elder who is away; and real emergencies beside them."""
    town = Town("works", estate, seed, (START, START + 24 * H), wanted=wanted)
    equip(town)
    first, second, third, *_ = town.rng.sample(town.places("building"), 3)
    plots.hold_drill(town, first, town.start + town.rng.randrange(9 * H, 11 * H))
    plots.hold_drill(town, second, town.start + town.rng.randrange(13 * H, 15 * H))
    plots.commission(town, town.start + town.rng.randrange(8 * H, 16 * H), 16)
    since = town.start + town.rng.randrange(8 * H, 10 * H)
    plots.renovate(town, third, since, since + 7 * H)
    since = town.start + town.rng.randrange(8 * H, 16 * H)
    plots.flush_hydrant(town, since, since + 3 * H)
    plots.leave_home(town, town.start + 6 * H, town.end - H)
    plots.press_twice(town, town.start + town.rng.randrange(2 * H, 20 * H))
    mix(town, 3, 2, (town.start + 2 * H, town.end))
    return town.write()


def _write_faults(estate: Estate, seed: int, wanted: Sequence[str], number: int) -> Script:
    """Clocks that are off and jump, a link that is cut, a gateway that is stopped, messages that are lost or come
    twice; and emergencies, also in the middle of it."""
    rng = Random(f"{seed}/faults/{estate.community.id}")
    start = START
    cuts = (_draw_span(rng, start + 3 * H, (6 * M, 70 * M)), _draw_span(rng, start + 9 * H, (6 * M, 70 * M)))
    restart = _draw_span(rng, start + H, (30 * S, plots.RESTART_MS))
    blind = (_draw_span(rng, start + 6 * H, (2 * M, 45 * M)),)
    town = Town("faults", estate, seed, (start, start + 16 * H), Line(cut=(restart, *cuts), blind=blind), wanted)
    equip(town)
    plots.cut_off(town)
    plots.stop_gateway(town)
    steps = [(start, rng.choice(CLOCKS)), (start + 8 * H + rng.randrange(H), rng.choice((0, *CLOCKS)))]
    plots.set_clock(town, steps)
    # The spool was too small for the second cut: what it began with was let go.
    town.lost.append((cuts[1][0], rng.randrange(*cuts[1])))
    town.repeated.append((start + 13 * H, start + 15 * H))
    kept = [scenario for scenario in read_all_scenarios() if scenario.id in KEPT]
    for since, until in (*cuts, *blind):
        for scenario in rng.sample(kept, 2):
            town.cast(scenario, since, until + 8 * M, anyway=True)
    mix(town, 4, 3, (start + H, town.end))
    return town.write()


def _draw_span(rng: Random, since: int, lengths: Span) -> Span:
    """A time of such a length that begins within an hour."""
    begins = since + rng.randrange(H)
    return begins, begins + rng.randrange(*lengths)


CHAPTERS: Final = (
    Chapter("outages", 40, SMALL, _write_outage),
    Chapter("cascades", 8, SMALL, _write_cascade),
    Chapter("chatter", 24, SMALL, _write_chatter),
    Chapter("works", 16, SMALL, _write_works),
    Chapter("faults", 16, SMALL, _write_faults),
    Chapter("storms", 2, LARGE, _write_storm),
)


def count_estates(size: Size) -> dict[int, int]:
    """How many communities of how many devices the corpus is played in, by the number of devices."""
    counts = {SMALL: _count_days(size), OUTAGE: 1, LARGE: 0}
    for chapter in CHAPTERS:
        counts[chapter.devices] += size.share(chapter.communities)
    return counts


def _count_days(size: Size) -> int:
    return max(FEWEST_DAYS, size.share(DAYS))


def compose(seed: int, size: Size, districts: dict[int, ImportFile]) -> Iterator[Script]:
    """The whole corpus, community by community, in districts as `count_estates` asks for them. Raises ValueError when
    there is no room for it."""
    estates = {devices: iter(district.communities) for devices, district in districts.items()}
    wanted = districts[SMALL].lists["wanted"]
    days = [next(estates[SMALL]) for _ in range(_count_days(size))]
    yield from write_days(seed, size, days, wanted)
    yield _write_outage(next(estates[OUTAGE]), seed, wanted, 0)
    for chapter in CHAPTERS:
        for number in range(size.share(chapter.communities)):
            yield chapter.write(next(estates[chapter.devices]), seed, wanted, number)
