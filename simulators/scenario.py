"""What happens in the played hour: emergencies (causes) and what only looks like them (near-misses).

A scenario is a file: what its devices send, and what must come of it. `compose` gives every instance a place and a
time of its own, from a seed; the result is the ground truth that the demo is held against. Nothing here knows rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Final, Literal, Self

import yaml
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.core.district import PlaceTree
from gateway.core.model import Device, DeviceState, PlaceKind, Scalar, Value
from simulators.district import District, Settlement

FOLDER: Final = Path(__file__).parent / "scenarios"
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h)")
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
_LOCAL_MS: Final = 8 * 3_600_000
"""Asia/Shanghai is eight hours ahead of UTC, without summer time since 1991."""

_DAY_MS: Final = 24 * 3_600_000
FIRST_MS: Final = 120_000
"""Nothing happens earlier in an hour, so that the fleet reports first."""

AFTER_MS: Final = 5 * 60_000
"""How long after its last act a scenario is over at the latest: longer than the holds that its rules may still have.
So long its devices report nothing else of what they act."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Act(_File):
    """One thing that a device sends, ``at`` after the scenario begins: the value of a reading, or an event with its
    data. ``every`` and ``until`` repeat it. ``device`` names one of ``others``. ``late`` sends it so long after it was
    taken; ``twice`` sends the message again."""

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

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        for text in (self.at, self.every, self.until, self.late):
            read_duration(text)
        if (self.reading is None) == (self.event is None):
            raise ValueError("an act is a reading or an event")
        if (self.reading is None) != (self.value is None):
            raise ValueError("a reading has a value, an event has data")
        if self.event is not None and self.unit is not None:
            raise ValueError("an event has no unit")
        if (self.every is None) != (self.until is None) or self.every == "0s":
            raise ValueError("every and until go together")
        return self


class Other(_File):
    """A second device: of this profile, in the same building or household as the first."""

    profile: str
    within: Literal["building", "household"] = "building"


class Expected(_File):
    """The one incident of a cause: its category, and at which granularity of place it stands."""

    category: str
    at: Literal["device", "household", "building", "community"]


class Scenario(_File):
    """A scenario file. ``weight`` is how often it is played beside the others of its sort. ``one_message`` sends its
    readings together when the last of them is taken, with their times: what a device measured between two reports.
    ``state`` keeps its device in a drill or the like all day; ``attribute`` picks only devices that have it;
    ``hours`` (local, such as ``07:00-21:30``) are those in which it may be played."""

    id: str
    title: str
    profile: str
    acts: Annotated[list[Act], Field(min_length=1)]
    expect: Expected | None = None
    weight: Annotated[int, Field(ge=1)] = 1
    one_message: bool = False
    state: DeviceState | None = None
    attribute: str | None = None
    hours: Annotated[str, Field(pattern=_HOURS.pattern)] | None = None
    others: dict[str, Other] = {}

    @model_validator(mode="after")
    def _names_its_cast(self) -> Self:
        for act in self.acts:
            if act.device is not None and act.device not in self.others:
                raise ValueError(f"{act.device!r} is none of others")
        if self.one_message and any(act.event is not None or act.device is not None for act in self.acts):
            raise ValueError("one_message takes readings of one device together")
        if self.expect is not None and self.state is not None:
            raise ValueError("what expects an incident is not played on a device in a drill")
        return self

    @property
    def length(self) -> int:
        """From the first act to the end of the last, in ms."""
        return max(max(read_duration(a.at), read_duration(a.until)) + read_duration(a.late) for a in self.acts)


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
    """A scenario at its place and time: between ``begins`` and ``ends`` (ms) its devices report nothing but what it
    says. ``category`` and ``place`` are None for a near-miss."""

    scenario: str
    title: str
    community: str
    source: str
    device: str
    begins: int
    ends: int
    category: str | None
    place: str | None
    sendings: tuple[Sending, ...]

    @property
    def is_cause(self) -> bool:
        return self.category is not None

    @property
    def acted(self) -> set[str]:
        """The readings that it acts, as ``device:reading``."""
        return {f"{part.device}:{part.reading}" for sending in self.sendings for part in sending.parts}

    def moved(self, by: int) -> Instance:
        """The same, so many ms later."""
        sendings = tuple(replace(sending, time=sending.time + by) for sending in self.sendings)
        return replace(self, begins=self.begins + by, ends=self.ends + by, sendings=sendings)


class Plan(Struct, frozen=True):
    """The played hour: instances by time. ``states`` are those that devices are registered in, ``taken`` the devices
    and places of which an incident may be open from now on."""

    instances: tuple[Instance, ...]
    states: dict[str, DeviceState]
    taken: frozenset[str] = frozenset()

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
    causes: int = 36,
    near_misses: int = 260,
    scenarios: Sequence[Scenario] | None = None,
    earlier: Plan | None = None,
) -> Plan:
    """Places so many causes and near-misses in the district, from ``start`` (ms) on, all over before the time is out.

    No device, and for what may join in a building or household, no building is used twice, so that each cause is one
    incident by itself. After an ``earlier`` plan the places of its causes are left alone, because their incidents are
    still open, and only devices that are in a drill already are in one. Raises ValueError when the district is too
    small for that."""
    rng = Random(f"{seed}/{start}/scenarios")
    stage = _Stage(district, rng, start, minutes, earlier)
    chosen = [s for s in (read_scenarios() if scenarios is None else scenarios) if stage.has_time_for(s)]
    dealt = [
        *_deal([s for s in chosen if s.expect is not None], causes, rng),
        *_deal([s for s in chosen if s.expect is None], near_misses, rng),
    ]
    if earlier is not None:
        # The devices in drills are few by now, and have to be where they are.
        dealt.sort(key=lambda scenario: scenario.state is None)
    instances: list[Instance] = []
    for scenario in dealt:
        instance = stage.place(scenario)
        if instance is not None:
            instances.append(instance)
        elif scenario.state is None or earlier is None:
            raise ValueError(f"the district has no free {scenario.profile} for {scenario.id}")
    instances.sort(key=lambda instance: (instance.begins, instance.device))
    return Plan(tuple(instances), stage.states, frozenset(stage.taken))


def _deal(scenarios: Sequence[Scenario], count: int, rng: Random) -> list[Scenario]:
    """Every scenario at least once, the rest by weight; of more scenarios than instances, some."""
    if not scenarios and count:
        raise ValueError("there is no scenario that fits into this hour")
    if count <= len(scenarios):
        return rng.sample(scenarios, count)
    rest = rng.choices(scenarios, [scenario.weight for scenario in scenarios], k=count - len(scenarios))
    return [*scenarios, *rest]


class _Stage:
    """Hands out devices, each building at most once."""

    def __init__(self, district: District, rng: Random, start: int, minutes: int, earlier: Plan | None) -> None:
        self.states: dict[str, DeviceState] = dict(earlier.states) if earlier is not None else {}
        self.taken: set[str] = set(earlier.taken) if earlier is not None else set()
        self._may_set_states = earlier is None
        self._rng = rng
        self._start = start
        self._minutes = minutes
        self._trees: dict[str, PlaceTree] = {}
        self._by_profile: dict[str, list[tuple[Settlement, Device]]] = {}
        self._used = set(self.taken)
        self._silent = district.silent
        self._wanted = list(district.lists.get("wanted", ()))
        self._buildings = {p.id for s in district.communities for p in s.places if p.kind is PlaceKind.BUILDING}
        for settlement in district.communities:
            for device in settlement.devices:
                if device.id not in district.silent:
                    self._by_profile.setdefault(device.profile, []).append((settlement, device))
        for devices in self._by_profile.values():
            rng.shuffle(devices)

    def has_time_for(self, scenario: Scenario) -> bool:
        """Whether a scenario can be played in this hour, by its length and by the hours of the day."""
        return self._latest(scenario) > FIRST_MS and self._in_hours(scenario)

    def place(self, scenario: Scenario) -> Instance | None:
        """An instance of the scenario on devices that nothing else uses; None when there are none left."""
        for settlement, device in self._by_profile.get(scenario.profile, ()):
            if scenario.attribute is not None and device.attributes.get(scenario.attribute) is not True:
                continue
            if not self._fits_state(scenario, device):
                continue
            tree = self._tree(settlement)
            building = tree.within(device.place, "building")
            # What is in no building (a hydrant, a gate) may share its place with another kind of device.
            marks = {device.id, building} if building in self._buildings else {device.id}
            place: str | None = None
            if scenario.expect is not None:
                place = (
                    device.place if scenario.expect.at == "device" else tree.within(device.place, scenario.expect.at)
                )
                marks.add(f"{scenario.expect.category}@{place}")
            if not self._used.isdisjoint(marks):
                continue
            cast = self._cast(scenario, settlement, device, tree)
            if cast is None:
                continue
            marks |= set(cast.values())
            self._used |= marks
            if place is not None:
                self.taken |= marks
            if scenario.state is not None:
                self.states[device.id] = scenario.state
            return self._write(scenario, settlement, device, place, cast)
        return None

    def _fits_state(self, scenario: Scenario, device: Device) -> bool:
        state = self.states.get(device.id)
        return state is scenario.state or (state is None and self._may_set_states)

    def _latest(self, scenario: Scenario) -> int:
        """The latest beginning, in ms from the start of the hour."""
        return self._minutes * 60_000 - scenario.length - AFTER_MS

    def _in_hours(self, scenario: Scenario) -> bool:
        if scenario.hours is None:
            return True
        found = _HOURS.fullmatch(scenario.hours)
        assert found is not None  # noqa: S101 - the form's pattern says so
        first, last = (int(found[i]) * 3_600_000 + int(found[i + 1]) * 60_000 for i in (1, 3))
        begins = (self._start + _LOCAL_MS) % _DAY_MS
        return first <= begins and begins + self._minutes * 60_000 <= last

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
                    and candidate.id not in self.states
                    and candidate.id not in self._silent
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
        self, scenario: Scenario, settlement: Settlement, device: Device, place: str | None, cast: dict[str, str]
    ) -> Instance:
        begins = self._start + self._rng.randrange(FIRST_MS, self._latest(scenario))
        acts = [self._fill(act) for act in scenario.acts]
        sendings = sorted(
            (s for act in acts for s in _sendings(act, cast.get(act.device or "", device.id), begins)),
            key=lambda s: s.time,
        )
        if scenario.one_message:
            sendings = [_together(sendings)]
        return Instance(
            scenario.id,
            scenario.title,
            settlement.community.id,
            device.source,
            device.id,
            begins,
            begins + scenario.length + AFTER_MS,
            scenario.expect.category if scenario.expect is not None else None,
            place,
            tuple(sendings),
        )

    def _fill(self, act: Act) -> Act:
        """``{wanted}`` stands for a plate of the district's watch list."""
        if "{wanted}" not in act.data.values():
            return act
        plate = self._rng.choice(self._wanted)
        return act.model_copy(update={"data": {k: plate if v == "{wanted}" else v for k, v in act.data.items()}})


def read_duration(text: str | None) -> int:
    """``500ms``, ``10s``, ``5m`` or ``1h`` in ms; 0 for None. Raises ValueError."""
    if text is None:
        return 0
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no duration; write, for example, 500ms, 10s or 5m")
    return int(found[1]) * _UNITS[found[2]]


def _sendings(act: Act, device: str, begins: int) -> Iterable[Sending]:
    at, until, every = read_duration(act.at), read_duration(act.until), read_duration(act.every)
    for time in range(at, max(at, until) + 1, every or 1) if every else (at,):
        parts: tuple[Part, ...] = ()
        if act.reading is not None and act.value is not None:
            parts = (Part(device, act.reading, act.value, act.unit),)
        yield Sending(begins + time, parts, device, act.event, dict(act.data), read_duration(act.late), act.twice)


def _together(sendings: Sequence[Sending]) -> Sending:
    last = sendings[-1]
    parts = tuple(replace(part, offset=sending.time - last.time) for sending in sendings for part in sending.parts)
    return replace(last, parts=parts)
