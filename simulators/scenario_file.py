"""A scenario as a file: what its devices send, and what must come of it. Nothing here knows the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Final, Literal, Self

import yaml
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER: Final = Path(__file__).parent / "scenarios"
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h)")
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")

_LOCAL_MS: Final = 8 * 3_600_000
"""Asia/Shanghai is eight hours ahead of UTC, without summer time since 1991."""

_DAY_MS: Final = 24 * 3_600_000
AFTER_MS: Final = 5 * 60_000
"""How long after its last act a scenario is over at the latest: longer than the holds that its rules may still have.
So long its devices report nothing else of what they act."""

Value = float | bool | str
Scalar = float | int | bool | str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Between(_File):
    """A number that is drawn anew each time it is sent."""

    low: float
    high: float

    def draw(self, rng: Random) -> float:
        return round(rng.uniform(self.low, self.high), 2)


class Act(_File):
    """One thing that a device sends, ``at`` after the scenario begins: the value of a reading, or an event with its
    data. ``every`` and ``until`` repeat it, each time ``step`` higher. With ``adds`` the value is added to what the
    reading stood at when the scenario began (a meter's total). ``device`` names one of ``others``. ``late`` sends it so
    long after it was taken; ``twice`` sends the message again."""

    at: str
    reading: str | None = None
    value: Value | Between | None = None
    unit: str | None = None
    step: float = 0.0
    adds: bool = False
    event: str | None = None
    data: dict[str, Scalar | Between] = {}
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
        if (self.step or self.adds) and not isinstance(self.value, float):
            raise ValueError("step and adds are for a number that is given as it is")
        if (self.every is None) != (self.until is None) or self.every == "0s":
            raise ValueError("every and until go together")
        return self


class Other(_File):
    """A second device: of this profile, in the same building, household or community as the first."""

    profile: str
    within: Literal["building", "household", "community"] = "building"


class Expected(_File):
    """The one incident of a cause: its category, and at which granularity of place it stands. ``within`` is how long
    after the gateway has heard the first of it somebody must be told at the latest."""

    category: str
    at: Literal["device", "household", "building", "community"]
    within: str | None = None

    @model_validator(mode="after")
    def _is_in_time(self) -> Self:
        read_duration(self.within)
        return self


class Scenario(_File):
    """A scenario file. ``weight`` is how often it is played beside the others of its sort. ``one_message`` sends its
    readings together when the last of them is taken, with their times: what a device measured between two reports.
    ``state`` keeps its device in a drill or the like meanwhile; ``attribute`` picks only devices that have it,
    themselves or by their place;
    ``hours`` (local, such as ``07:00-21:30``) are those in which it may be played. ``like`` is the category that a
    near-miss might be taken for."""

    id: str
    title: Annotated[dict[Literal["zh", "en"], str], Field(min_length=2)]
    profile: str
    acts: Annotated[list[Act], Field(min_length=1)]
    expect: Expected | None = None
    like: str | None = None
    weight: Annotated[int, Field(ge=1)] = 1
    one_message: bool = False
    state: Literal["commissioning", "drill", "maintenance"] | None = None
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
        if self.expect is not None and self.like is not None:
            raise ValueError("only what expects nothing is like something")
        return self

    @property
    def length(self) -> int:
        """From the first act to the end of the last, in ms."""
        return max(max(read_duration(a.at), read_duration(a.until)) + read_duration(a.late) for a in self.acts)

    def is_at_its_hour(self, begins: int, length: int) -> bool:
        """Whether all of so many ms from that time on lies in its hours of the day, which may go over midnight."""
        if self.hours is None:
            return True
        found = _HOURS.fullmatch(self.hours)
        assert found is not None  # noqa: S101 - the form's pattern says so
        first, last = (int(found[i]) * 3_600_000 + int(found[i + 1]) * 60_000 for i in (1, 3))
        after = (begins + _LOCAL_MS - first) % _DAY_MS
        return after + length <= (last - first) % _DAY_MS


class Part(Struct, frozen=True):
    """One reading of a message, taken ``offset`` ms before it (0 or less); for ``adds`` see `Act`."""

    device: str
    reading: str
    value: Value
    unit: str | None
    offset: int = 0
    adds: bool = False


class Sending(Struct, frozen=True):
    """One message, taken at ``time`` (ms) and sent ``late`` ms after that: readings, or one event of a device."""

    time: int
    parts: tuple[Part, ...]
    device: str
    event: str | None
    data: dict[str, Scalar]
    late: int
    twice: bool


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


def read_duration(text: str | None) -> int:
    """``500ms``, ``10s``, ``5m`` or ``1h`` in ms; 0 for None. Raises ValueError."""
    if text is None:
        return 0
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no duration; write, for example, 500ms, 10s or 5m")
    return int(found[1]) * _UNITS[found[2]]


def sendings_of(
    scenario: Scenario, cast: Mapping[str, str], begins: int, rng: Random, wanted: Sequence[str] = ()
) -> list[Sending]:
    """What the scenario sends when it begins at that time (ms), by time. ``cast`` has the device of each of its others,
    and under the empty name its own; ``{wanted}`` stands for one of the plates that are looked for."""
    has_plate = any("{wanted}" in act.data.values() for act in scenario.acts)
    plate = rng.choice(wanted) if has_plate else ""
    sendings = [
        sending for act in scenario.acts for sending in _sendings(act, cast[act.device or ""], begins, rng, plate)
    ]
    sendings.sort(key=lambda sending: sending.time)
    return [_together(sendings)] if scenario.one_message else sendings


def _sendings(act: Act, device: str, begins: int, rng: Random, plate: str) -> Iterator[Sending]:
    at, until, every = read_duration(act.at), read_duration(act.until), read_duration(act.every)
    for number, time in enumerate(range(at, max(at, until) + 1, every or 1) if every else (at,)):
        parts: tuple[Part, ...] = ()
        if act.reading is not None and act.value is not None:
            value: Value = act.value.draw(rng) if isinstance(act.value, Between) else act.value
            if act.step and isinstance(value, float):
                value = round(value + number * act.step, 3)
            parts = (Part(device, act.reading, value, act.unit, adds=act.adds),)
        data = {name: _fill(field, rng, plate) for name, field in act.data.items()}
        yield Sending(begins + time, parts, device, act.event, data, read_duration(act.late), act.twice)


def _fill(field: Scalar | Between, rng: Random, plate: str) -> Scalar:
    if isinstance(field, Between):
        return field.draw(rng)
    return plate if field == "{wanted}" else field


def _together(sendings: Sequence[Sending]) -> Sending:
    last = sendings[-1]
    parts = tuple(replace(part, offset=sending.time - last.time) for sending in sendings for part in sending.parts)
    return replace(last, parts=parts)
