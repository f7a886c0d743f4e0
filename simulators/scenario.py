"""What happens in the played hour: emergencies (causes) and what only looks like them (near-misses).

A scenario is a file: what its devices send, and what must come of it. `compose` gives every instance a place and a
time of its own, from a seed; the result is the ground truth that the demo is held against. Nothing here knows rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.district import PlaceTree
from gateway.core.model import Device, DeviceState, PlaceKind
from simulators.district import District, Settlement
from simulators.scenario_file import AFTER_MS, Scenario, Sending, read_scenarios, sendings_of

FIRST_MS: Final = 120_000
"""Nothing happens earlier in an hour, so that the fleet reports first."""


class Instance(Struct, frozen=True):
    """A scenario at its place and time: between ``begins`` and ``ends`` (ms) its devices report nothing but what it
    says. ``category`` and ``place`` are None for a near-miss. ``marks`` are its devices, its building, and
    ``category@place``: while its incident is open, nothing else is to happen there."""

    scenario: str
    title: dict[str, str]
    community: str
    source: str
    device: str
    begins: int
    ends: int
    category: str | None
    place: str | None
    sendings: tuple[Sending, ...]
    marks: frozenset[str] = frozenset()

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
    and places of which an incident may be open from now on, ``left_out`` the scenarios for which there was no place,
    each as often as there was none."""

    instances: tuple[Instance, ...]
    states: dict[str, DeviceState]
    taken: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()

    @property
    def causes(self) -> list[Instance]:
        return [instance for instance in self.instances if instance.is_cause]

    @property
    def near_misses(self) -> list[Instance]:
        return [instance for instance in self.instances if not instance.is_cause]


def compose(
    seed: int,
    district: District,
    start: int,
    minutes: int = 60,
    causes: int = 36,
    near_misses: int = 260,
    scenarios: Sequence[Scenario] | None = None,
    earlier: Plan | None = None,
    *,
    may_leave_out: bool = False,
) -> Plan:
    """Places so many causes and near-misses in the district, from ``start`` (ms) on, all over before the time is out.

    No device, and for what may join in a building or household, no building is used twice, so that each cause is one
    incident by itself. After an ``earlier`` plan the places of its causes are left alone, because their incidents are
    still open, and only devices that are in a drill already are in one. Raises ValueError when the district is too
    small for that, unless what finds no place may be left out."""
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
    left_out: list[str] = []
    for scenario in dealt:
        instance = stage.place(scenario)
        if instance is not None:
            instances.append(instance)
        elif may_leave_out:
            left_out.append(scenario.id)
        elif scenario.state is None or earlier is None:
            raise ValueError(f"the district has no free {scenario.profile} for {scenario.id}")
    instances.sort(key=lambda instance: (instance.begins, instance.device))
    return Plan(tuple(instances), stage.states, frozenset(stage.taken), tuple(left_out))


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
        is_at_its_hour = scenario.is_at_its_hour(self._start, self._minutes * 60_000)
        return self._latest(scenario) > FIRST_MS and is_at_its_hour

    def place(self, scenario: Scenario) -> Instance | None:
        """An instance of the scenario on devices that nothing else uses; None when there are none left."""
        for settlement, device in self._by_profile.get(scenario.profile, ()):
            tree = self._tree(settlement)
            if scenario.attribute is not None and not _has(device, scenario.attribute, tree):
                continue
            if not self._fits_state(scenario, device):
                continue
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
                self.states[device.id] = DeviceState(scenario.state)
            return self._write(scenario, settlement, device, place, cast, frozenset(marks))
        return None

    def _fits_state(self, scenario: Scenario, device: Device) -> bool:
        state = self.states.get(device.id)
        return state == scenario.state or (state is None and self._may_set_states)

    def _latest(self, scenario: Scenario) -> int:
        """The latest beginning, in ms from the start of the hour."""
        return self._minutes * 60_000 - scenario.length - AFTER_MS

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
        self,
        scenario: Scenario,
        settlement: Settlement,
        device: Device,
        place: str | None,
        cast: dict[str, str],
        marks: frozenset[str],
    ) -> Instance:
        begins = self._start + self._rng.randrange(FIRST_MS, self._latest(scenario))
        sendings = sendings_of(scenario, {**cast, "": device.id}, begins, self._rng, self._wanted)
        return Instance(
            scenario.id,
            {str(language): title for language, title in scenario.title.items()},
            settlement.community.id,
            device.source,
            device.id,
            begins,
            begins + scenario.length + AFTER_MS,
            scenario.expect.category if scenario.expect is not None else None,
            place,
            tuple(sendings),
            marks,
        )


def _has(device: Device, attribute: str, tree: PlaceTree) -> bool:
    own = device.attributes.get(attribute)
    return (tree.attribute(device.place, attribute) if own is None else own) is True
