"""What happens on the played day: emergencies (causes) and what only looks like them (near-misses).

A scenario is a file: what its devices send, and what must come of it. `compose` gives every instance a place and a
time of its own, from a seed; the result is the ground truth that the demo is held against. Nothing here knows rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, Literal

import yaml
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.core.district import PlaceTree
from gateway.core.model import Device, DeviceState, Scalar, Value
from simulators.district import District, Settlement

FOLDER: Final = Path(__file__).parent / "scenarios"
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h)")
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Act(_File):
    """One thing that a device sends, ``at`` after the scenario begins; ``every`` and ``until`` repeat it. ``device``
    names one of ``others``. ``late`` sends a reading so long after it was taken; ``twice`` sends the message again."""

    at: str
    reading: str | None = None
    value: Value | None = None
    unit: str | None = None
    event: str | None = None
    data: dict[str, Scalar] = {}
    device: str | None = None
    every: str | None = None
    until: str | None = None
    late: str | None = None
    twice: bool = False


class Other(_File):
    """A second device: of this profile, in the same building or household as the first."""

    profile: str
    within: Literal["building", "household"] = "building"


class Expected(_File):
    """The one incident of a cause: its category, and at which granularity of place it stands."""

    category: str
    at: Literal["device", "household", "building", "community"]


class Scenario(_File):
    """A scenario file. ``one_message`` sends its readings together when the last of them is taken, with their times:
    what a device measured between two reports. ``weight`` is how often it is
    played beside the others of its sort; ``state`` puts its device
    into a drill or the like for the whole day; ``attribute`` picks only devices that have it."""

    id: str
    title: str
    profile: str
    acts: Annotated[list[Act], Field(min_length=1)]
    expect: Expected | None = None
    weight: int = 1
    one_message: bool = False
    state: DeviceState | None = None
    attribute: str | None = None
    others: dict[str, Other] = {}


class Part(Struct, frozen=True):
    """One reading of a message, taken ``offset`` ms before it (0 or less)."""

    device: str
    reading: str
    value: Value
    unit: str | None
    offset: int = 0


class Sending(Struct, frozen=True):
    """One message, taken at ``time`` (ms) and sent ``late`` ms after that: readings, or one event of a device."""

    time: int
    parts: tuple[Part, ...]
    device: str
    event: str | None
    data: dict[str, Scalar]
    late: int
    twice: bool


class Instance(Struct, frozen=True):
    """A scenario at its place and time. ``category`` and ``place`` are None for a near-miss."""

    scenario: str
    title: str
    community: str
    source: str
    device: str
    begins: int
    category: str | None
    place: str | None
    sendings: tuple[Sending, ...]

    @property
    def is_cause(self) -> bool:
        return self.category is not None


class Plan(Struct, frozen=True):
    """The played day: instances by time, and the states that devices are registered in."""

    instances: tuple[Instance, ...]
    states: dict[str, DeviceState]

    @property
    def causes(self) -> list[Instance]:
        return [instance for instance in self.instances if instance.is_cause]

    @property
    def near_misses(self) -> list[Instance]:
        return [instance for instance in self.instances if not instance.is_cause]


def read_scenarios(folder: Path = FOLDER) -> list[Scenario]:
    """Reads every scenario file. Raises ValueError naming the file and the fault."""
    found: list[Scenario] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            documents = yaml.safe_load_all(path.read_text(encoding="utf-8"))
            found.extend(Scenario.model_validate(data) for data in documents)
        except (yaml.YAMLError, ValidationError) as error:
            raise ValueError(f"{path.name}: {error}") from error
    names = [scenario.id for scenario in found]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"scenarios of the same id: {', '.join(sorted(doubled))}")
    return found


def compose(
    seed: int,
    district: District,
    start: int,
    minutes: int = 60,
    causes: int = 30,
    near_misses: int = 240,
    scenarios: Sequence[Scenario] | None = None,
) -> Plan:
    """Places so many causes and near-misses in the district, from ``start`` (ms) on, all over before the time is out.

    No device and, for what may join in a building or household, no building is used twice, so that each cause is one
    incident by itself."""
    rng = Random(f"{seed}/scenarios")
    stage = _Stage(district, rng)
    chosen = list(scenarios) if scenarios is not None else read_scenarios()
    instances: list[Instance] = []
    states: dict[str, DeviceState] = {}
    for sort, count in (
        ([s for s in chosen if s.expect is not None], causes),
        ([s for s in chosen if s.expect is None], near_misses),
    ):
        for scenario in _deal(sort, count, rng):
            instance = stage.place(scenario, start, minutes)
            instances.append(instance)
            if scenario.state is not None:
                states[instance.device] = scenario.state
    instances.sort(key=lambda instance: (instance.begins, instance.device))
    return Plan(tuple(instances), states)


def _deal(scenarios: Sequence[Scenario], count: int, rng: Random) -> list[Scenario]:
    """Every scenario at least once, the rest by weight."""
    if not scenarios or count < len(scenarios):
        raise ValueError(f"{len(scenarios)} scenarios do not fit into {count} instances")
    rest = rng.choices(scenarios, [scenario.weight for scenario in scenarios], k=count - len(scenarios))
    return [*scenarios, *rest]


class _Stage:
    """Hands out devices, each building at most once."""

    def __init__(self, district: District, rng: Random) -> None:
        self._rng = rng
        self._trees: dict[str, PlaceTree] = {}
        self._settlements: dict[str, Settlement] = {}
        self._by_profile: dict[str, list[tuple[Settlement, Device]]] = {}
        self._used: set[str] = set()
        self._wanted = list(district.lists.get("wanted", ()))
        for settlement in district.communities:
            self._settlements[settlement.community.id] = settlement
            for device in settlement.devices:
                if device.id not in district.silent:
                    self._by_profile.setdefault(device.profile, []).append((settlement, device))
        for devices in self._by_profile.values():
            rng.shuffle(devices)

    def place(self, scenario: Scenario, start: int, minutes: int) -> Instance:
        """An instance of the scenario on devices that nothing else uses."""
        for settlement, device in self._by_profile.get(scenario.profile, ()):
            if scenario.attribute is not None and device.attributes.get(scenario.attribute) is not True:
                continue
            tree = self._tree(settlement)
            zone = tree.within(device.place, "building")
            # What is not in a building (a lift, a hydrant) may share its place with another kind of device.
            marks = {device.id, zone} if zone != device.place or scenario.others else {device.id}
            if not self._used.isdisjoint(marks):
                continue
            cast = self._cast(scenario, settlement, device, tree)
            if cast is None:
                continue
            self._used |= marks | set(cast.values())
            return self._write(scenario, settlement, device, tree, cast, start, minutes)
        raise ValueError(f"the district has no free {scenario.profile} for {scenario.id}")

    def _tree(self, settlement: Settlement) -> PlaceTree:
        id = settlement.community.id
        if id not in self._trees:
            self._trees[id] = PlaceTree(settlement.places)
        return self._trees[id]

    def _cast(
        self, scenario: Scenario, settlement: Settlement, device: Device, tree: PlaceTree
    ) -> dict[str, str] | None:
        cast: dict[str, str] = {}
        for name, other in scenario.others.items():
            around = tree.within(device.place, other.within)
            found = next(
                (
                    candidate.id
                    for candidate in settlement.devices
                    if candidate.profile == other.profile
                    and candidate.id not in self._used
                    and tree.within(candidate.place, other.within) == around
                    and candidate.id != device.id
                ),
                None,
            )
            if found is None:
                return None
            cast[name] = found
        return cast

    def _write(
        self,
        scenario: Scenario,
        settlement: Settlement,
        device: Device,
        tree: PlaceTree,
        cast: dict[str, str],
        start: int,
        minutes: int,
    ) -> Instance:
        length = max(_end_of(act) for act in scenario.acts)
        # Two minutes at the start for the fleet to report, and five at the end for the last hold to run out.
        latest = minutes * 60_000 - length - 5 * 60_000
        begins = start + self._rng.randrange(120_000, max(latest, 121_000))
        acts = [self._fill(act) for act in scenario.acts]
        sendings = sorted(
            (s for act in acts for s in _sendings(act, cast.get(act.device or "", device.id), begins)),
            key=lambda s: s.time,
        )
        if scenario.one_message:
            sendings = [_together(sendings)]
        expect = scenario.expect
        place = None
        if expect is not None:
            place = device.place if expect.at == "device" else tree.within(device.place, expect.at)
        return Instance(
            scenario.id,
            scenario.title,
            settlement.community.id,
            device.source,
            device.id,
            begins,
            expect.category if expect is not None else None,
            place,
            tuple(sendings),
        )

    def _fill(self, act: Act) -> Act:
        """``{wanted}`` stands for a plate of the district's watch list."""
        if "{wanted}" not in act.data.values():
            return act
        plate = self._rng.choice(self._wanted)
        return act.model_copy(update={"data": {k: plate if v == "{wanted}" else v for k, v in act.data.items()}})


def _end_of(act: Act) -> int:
    return max(_ms(act.at), _ms(act.until)) + _ms(act.late)


def _ms(text: str | None) -> int:
    if text is None:
        return 0
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no duration; write, for example, 500ms, 10s or 5m")
    return int(found[1]) * _UNITS[found[2]]


def _sendings(act: Act, device: str, begins: int) -> Iterable[Sending]:
    at, until, every = _ms(act.at), _ms(act.until), _ms(act.every)
    for time in range(at, max(at, until) + 1, every or 1) if every else (at,):
        value = act.value if act.value is not None else 0.0
        parts = (Part(device, act.reading, value, act.unit),) if act.reading is not None else ()
        yield Sending(begins + time, parts, device, act.event, dict(act.data), _ms(act.late), act.twice)


def _together(sendings: Sequence[Sending]) -> Sending:
    last = sendings[-1]
    parts = tuple(replace(part, offset=sending.time - last.time) for sending in sendings for part in sending.parts)
    return replace(last, parts=parts)


def read_plan_note(plan: Plan) -> dict[str, Any]:
    """How many of each scenario the plan has, for people."""
    counts: dict[str, int] = {}
    for instance in plan.instances:
        counts[instance.scenario] = counts.get(instance.scenario, 0) + 1
    return counts
