"""The tests that stand beside a rule, as written: what arrives at which time, and what is expected.

The series notation has promtool's meaning: ``1x12`` is a sample and twelve repeats of it, thirteen in all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from gateway.core.authoring import DeviceForm, ExpectForm, RuleCaseForm, RuleTestForm, suggest
from gateway.core.condition import ConditionError, is_answerable, names, parse_duration, show_duration
from gateway.core.document import Document, Path, Problem
from gateway.core.model import Level, Phase, Place, PlaceKind, Scalar
from gateway.core.profile import EventSpec, Profile
from gateway.core.rule import Rule
from gateway.core.rule_file import is_fitting

DEVICE_UNDER_TEST: Final = "device"
"""The id of the device that a case's plain names belong to."""

AGENT: Final = "agent"
"""The source of a test, and the device id under which it is watched."""

HOME: Final = "household-1-1-1"
DEFAULT_START: Final = 1_795_406_400_000
"""2026-11-23 12:00 in Jimo, a Monday on which people work."""

SAMPLES_LIMIT: Final = 20_000
"""Samples of one series: a week in steps of 30 s."""

CASE_LIMIT_MS: Final = 60 * 86_400_000
"""A case goes on for 60 days at most: whatever waits for a time of day is looked at on each of them."""

_SHARED: Final = ("every", "start", "profile", "attributes", "devices")
"""What a case takes from the head of its file unless it has its own."""

_NUMBER: Final = r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_TOKEN: Final = re.compile(rf"(-?{_NUMBER})(?:([-+])({_NUMBER}))?(?:x(\d+))?")
_WORD: Final = re.compile(r"(.+?)x(\d+)")


class TrialDevice(Struct, frozen=True):
    """A device of a case."""

    id: str
    profile: str
    place: str
    attributes: dict[str, Scalar] = {}


class Sample(Struct, frozen=True):
    """A reading as fed: ``at`` ms after the start; ``value`` as a source would send it."""

    at: int
    device: str
    reading: str
    value: Scalar


class Occurrence(Struct, frozen=True):
    """An event as fed."""

    at: int
    device: str
    kind: str
    data: dict[str, Scalar] = {}


class Expectation(Struct, frozen=True):
    """What must be true ``at`` ms after the start; None is not asked."""

    at: int
    line: int
    phase: Phase | None = None
    incidents: int | None = None
    notices: int | None = None
    signals: int | None = None
    level: Level | None = None
    category: str | None = None
    commands: tuple[str, ...] | None = None
    note: str | None = None
    key: str | None = None


class Trial(Struct, frozen=True):
    """One case. ``state`` is the state in which the device under test is registered."""

    name: str
    line: int
    start: int
    devices: tuple[TrialDevice, ...]
    state: str
    samples: tuple[Sample, ...]
    occurrences: tuple[Occurrence, ...]
    presence: tuple[tuple[int, bool], ...]
    lists: dict[str, tuple[str, ...]]
    expectations: tuple[Expectation, ...]


class RuleTest(Struct, frozen=True):
    """All cases of one rule."""

    file: str
    rule: str
    trials: tuple[Trial, ...]


def make_places() -> tuple[Place, ...]:
    """The community of every test: two buildings of two units of two households, and one public place."""
    places = [Place("community", PlaceKind.COMMUNITY, "测试小区", None, "370215001001001")]
    for b in (1, 2):
        places.append(Place(f"building-{b}", PlaceKind.BUILDING, f"{b}号楼", "community"))
        for u in (1, 2):
            places.append(Place(f"unit-{b}-{u}", PlaceKind.UNIT, f"{u}单元", f"building-{b}"))
            places.extend(
                Place(f"household-{b}-{u}-{h}", PlaceKind.HOUSEHOLD, f"{h}01室", f"unit-{b}-{u}") for h in (1, 2)
            )
    places.append(Place("public-1", PlaceKind.PUBLIC, "公共区域", "community"))
    return tuple(places)


PLACES: Final = make_places()
_PLACE_IDS: Final = frozenset(place.id for place in PLACES)


class SeriesError(ValueError):
    """A series that cannot be read, and which part of it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what, self.mend = what, mend


def parse_series(text: str, is_number: bool) -> list[Scalar | None]:
    """The samples of a series, None for a step without one. Words other than true and false are texts; for a number a
    word is what a broken probe sends. Raises SeriesError."""
    samples: list[Scalar | None] = []
    for token in text.split():
        samples.extend(_parse_token(token, is_number))
        if len(samples) > SAMPLES_LIMIT:
            raise SeriesError(
                f"the series has more than {SAMPLES_LIMIT} samples", "make every: longer, or the case shorter"
            )
    return samples


def _parse_token(token: str, is_number: bool) -> list[Scalar | None]:
    found = _TOKEN.fullmatch(token)
    if found is not None and (found[2] is None or found[4] is not None):
        repeats = _count(found[4])
        first = _to_number(found[1])
        step = _to_number(found[3] or "0") * (-1 if found[2] == "-" else 1)
        # A sum of decimals is rounded so that 20+0.1x3 ends at 20.3 and not a hair above it.
        return [first if step == 0 else round(first + step * i, 9) for i in range(repeats + 1)]
    if is_number and re.match(r"[-+.]?\d", token):
        raise SeriesError(f"{token!r} is no part of a series", "write a value, VALUExN, START+STEPxN or START-STEPxN")
    word, repeats = token, 0
    repeated = _WORD.fullmatch(token)
    if repeated is not None:
        word, repeats = repeated[1], _count(repeated[2])
    value: Scalar | None = None if word == "_" else {"true": True, "false": False}.get(word, word)
    return [value] * (repeats + 1)


def _count(text: str | None) -> int:
    if text is not None and len(text) > 6:
        raise SeriesError(f"{text} repeats are too many", f"at most {SAMPLES_LIMIT} samples")
    return min(int(text or 0), SAMPLES_LIMIT + 1)


def _to_number(text: str) -> float | int:
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def make_test(
    document: Document, form: RuleTestForm, rule: Rule, profiles: Mapping[str, Profile], problems: list[Problem]
) -> RuleTest:
    """The tests of ``rule``; faults of single cases are problems, and those cases are left out."""
    trials = []
    seen: dict[str, int] = {}
    for index, case in enumerate(form.cases):
        found: list[Problem] = []
        here: Path = ("cases", index)
        if case.name in seen:
            what = f"another case is called {case.name!r}"
            found.append(document.problem((*here, "name"), "duplicate-case", what, "name each case for what it shows"))
        seen[case.name] = index
        trial = _Reader(document, form, case, index, rule, profiles, found).read()
        problems.extend(found)
        if trial is not None and not found:
            trials.append(trial)
    return RuleTest(document.file, rule.id, tuple(trials))


class _Reader:
    """Reads one case."""

    def __init__(
        self,
        document: Document,
        form: RuleTestForm,
        case: RuleCaseForm,
        index: int,
        rule: Rule,
        profiles: Mapping[str, Profile],
        problems: list[Problem],
    ) -> None:
        self.document = document
        self.form = form
        self.case = case
        self.here: Path = ("cases", index)
        self.rule = rule
        self.profiles = profiles
        self.problems = problems
        self.every = form.every if case.every is None else case.every
        self.devices: dict[str, TrialDevice] = {}

    def add(self, path: Path, code: str, what: str, mend: str) -> None:
        is_of_file = path[0] in _SHARED and path[0] not in self.case.model_fields_set
        self.problems.append(self.document.problem(path if is_of_file else (*self.here, *path), code, what, mend))

    def read(self) -> Trial | None:
        if self.every <= 0:
            self.add(("every",), "wrong-value", "every: is 0", "write how long a step is, for example 5s")
            return None
        self.devices = self.read_devices()
        if self.problems:
            return None
        start = self.form.start if self.case.start is None else self.case.start
        trial = Trial(
            self.case.name,
            self.document.line(self.here),
            DEFAULT_START if start is None else start,
            tuple(self.devices.values()),
            self.case.state,
            tuple(sorted(self.read_feed(), key=lambda sample: sample.at)),
            tuple(sorted(self.read_events(), key=lambda event: event.at)),
            tuple(
                sorted((self.span(("presence", at), at), word == "online") for at, word in self.case.presence.items())
            ),
            {name: tuple(entries) for name, entries in self.case.lists.items()},
            tuple(sorted(self.read_expectations(), key=lambda expectation: expectation.at)),
        )
        return trial if not self.problems else None

    def span(self, path: Path, text: object) -> int:
        if text in (0, "0"):
            return 0
        try:
            return parse_duration(text)
        except ConditionError as error:
            self.add(path, "wrong-value", error.what, error.mend)
            return 0

    def read_devices(self) -> dict[str, TrialDevice]:
        attributes = self.form.attributes if self.case.attributes is None else self.case.attributes
        under_test = self.case.profile or self.form.profile
        if under_test is None:
            under_test = self.first_fitting()
            if under_test is None:
                what = "no supported profile fits the rule, and the test names none"
                self.add(("profile",), "unknown-profile", what, "add profile: and the id of a profile")
                return {}
        devices = {}
        if under_test not in self.profiles:
            self.unknown_profile(under_test, ("profile",))
        elif self.profiles[under_test].kind != "edge-agent":
            devices[DEVICE_UNDER_TEST] = TrialDevice(DEVICE_UNDER_TEST, under_test, HOME, dict(attributes))
        agent = under_test if not devices and under_test in self.profiles else self.agent_profile()
        if agent is not None:
            own = dict(attributes) if agent == under_test else {}
            devices[AGENT] = TrialDevice(AGENT, agent, "public-1", own)
        forms: dict[str, DeviceForm] = self.form.devices if self.case.devices is None else self.case.devices
        for id, form in forms.items():
            if id in (DEVICE_UNDER_TEST, AGENT):
                self.add(("devices", id), "reserved", f"{id} is always there", "give this device another name")
            if form.profile not in self.profiles:
                self.unknown_profile(form.profile, ("devices", id, "profile"))
            if form.place not in _PLACE_IDS:
                what = f"place {form.place} is not in the test community"
                self.add(("devices", id, "place"), "unknown-place", what, suggest(form.place, _PLACE_IDS))
            devices[id] = TrialDevice(id, form.profile, form.place, dict(form.attributes))
        return devices

    def unknown_profile(self, profile: str, path: Path) -> None:
        self.add(path, "unknown-profile", f"there is no profile {profile}", suggest(profile, self.profiles))

    def agent_profile(self) -> str | None:
        return next((id for id in sorted(self.profiles) if self.profiles[id].kind == "edge-agent"), None)

    def first_fitting(self) -> str | None:
        for id in sorted(self.profiles):
            profile = self.profiles[id]
            if profile.status != "supported" or not is_fitting(self.rule, profile):
                continue
            known = frozenset(profile.readings) | frozenset(profile.events)
            used = {named.name for named in names(self.rule.when) if named.kind not in ("attribute", "device")}
            if used & known and (self.rule.scope != "device" or is_answerable(self.rule.when, known)):
                return id
        return None

    def owner(self, name: str, path: Path, section: str) -> tuple[TrialDevice, str] | None:
        """``heat.temperature`` → the device heat and temperature; a plain name belongs to the device under test."""
        device, _, what = name.rpartition(".")
        default = DEVICE_UNDER_TEST if DEVICE_UNDER_TEST in self.devices else AGENT
        found = self.devices.get(device or default)
        if found is None:
            self.add(path, "unknown-device", f"the test has no device {device}", suggest(device, self.devices))
            return None
        profile = self.profiles[found.profile]
        known: Iterable[str] = profile.readings if section == "feed" else profile.events
        if what not in known:
            word = "reading" if section == "feed" else "event"
            self.add(path, "unknown-name", f"{profile.id} has no {word} {what}", suggest(what, known))
            return None
        return found, what

    def read_feed(self) -> list[Sample]:
        samples: list[Sample] = []
        for name, text in self.case.feed.items():
            owner = self.owner(name, ("feed", name), "feed")
            if owner is None:
                continue
            device, reading = owner
            is_number = self.profiles[device.profile].readings[reading].type in ("number", "integer")
            try:
                values = parse_series(_as_text(text), is_number)
            except SeriesError as error:
                self.add(("feed", name), "series", f"{name}: {error.what}", error.mend)
                continue
            samples.extend(
                Sample(index * self.every, device.id, reading, value)
                for index, value in enumerate(values)
                if value is not None
            )
        return samples

    def read_events(self) -> list[Occurrence]:
        found = []
        for name, items in self.case.events.items():
            owner = self.owner(name, ("events", name), "events")
            if owner is None:
                continue
            device, kind = owner
            spec = self.profiles[device.profile].events[kind]
            for index, item in enumerate(items):
                path: Path = ("events", name, index)
                data = dict(item)
                if "at" not in data:
                    self.add(path, "missing-key", "an event without its time", "add at: 5s")
                    continue
                at = self.span((*path, "at"), data.pop("at"))
                self.check_fields(spec, data, path)
                found.append(Occurrence(at, device.id, kind, data))
        return found

    def check_fields(self, spec: EventSpec, data: Mapping[str, Scalar], path: Path) -> None:
        for field in data:
            if field not in spec.data:
                self.add((*path, field), "unknown-field", f"{spec.id} has no field {field}", suggest(field, spec.data))

    def read_expectations(self) -> list[Expectation]:
        found = []
        for text, form in self.case.expect.items():
            path: Path = ("expect", text)
            if not form.model_fields_set:
                self.add(path, "wrong-value", "nothing is expected here", "write, for example, quiet")
            at = self.span(path, text)
            if at > CASE_LIMIT_MS:
                what = f"a case of {text} is longer than {show_duration(CASE_LIMIT_MS)}"
                self.add(path, "wrong-value", what, "expect it sooner")
            found.append(_make_expectation(at, self.document.line((*self.here, *path)), form))
        return found


def _make_expectation(at: int, line: int, form: ExpectForm) -> Expectation:
    return Expectation(
        at,
        line,
        None if form.phase is None else Phase(form.phase),
        form.incidents,
        form.notices,
        form.signals,
        None if form.level is None else Level(form.level),
        form.category,
        None if form.commands is None else tuple(form.commands),
        form.note,
        form.key,
    )


def _as_text(value: Scalar) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
