"""From the files of `rules/` to rules and categories, and what a rule may refer to.

`make_rule` says what the file says; `check_rule` holds it against the profiles: a rule that could never hold, or that
names what nobody reports, is a fault of the file and not a quiet night.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.core.authoring import (
    CategoriesForm,
    GovernanceForm,
    HolidaysForm,
    PlatformForm,
    RuleForm,
    ScheduleForm,
    suggest,
)
from gateway.core.condition import (
    All,
    Any,
    Attribute,
    Compare,
    Condition,
    ConditionError,
    Count,
    Has,
    Listed,
    Missing,
    Named,
    Number,
    Rate,
    Reads,
    Seen,
    Sum,
    is_answerable,
    is_momentary,
    names,
    parse_condition,
    show,
)
from gateway.core.document import Document, Path, Problem
from gateway.core.model import Level, Sort
from gateway.core.moves import VERBS, State
from gateway.core.policy import STEPS, PlatformMapping, Policy
from gateway.core.profile import EventSpec, FieldSpec, FieldType, Profile, ReadingSpec
from gateway.core.rule import Response, Rule, Schedule, ScopeKind, Status
from gateway.core.worktime import Calendar, Limit

HoursOfDay = tuple[tuple[int, int], ...]
"""Spans of local minutes of the day, in order."""

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SCOPES: Final = frozenset(ScopeKind)
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_KIND_IN_WORDS: Final = {"reading": "a reading", "event": "an event"}
NOTICE_NAMESPACE: Final = "ops:"
"""Categories of maintenance notices: they are never sent to the central platform as incidents."""

FACE_KIND: Final = "face-camera"
"""A face event opens an incident only under a rule with a stated legal basis (design 4.8)."""


class Category(Struct, frozen=True):
    """What kind of case it is: how pressing, whose it is, what comes first."""

    code: str
    title: dict[str, str]
    level: Level
    body: str
    first_action: dict[str, str]
    legal: str = ""
    sources: tuple[str, ...] = ()
    limits: Mapping[str, Limit] = {}
    """The limits of its steps that differ from the policy's."""
    life_safety: bool = False
    """Lives hang on it: never swallowed by a storm, and silenced for a short while only."""
    call_back: Limit | None = None
    """How long family or property have to find out what is the matter, before it is dispatched."""
    others: tuple[str, ...] = ()
    """Who is next, in order, when the first body says that it is not theirs."""


class Shelf(Struct, frozen=True):
    """What a rule may refer to. ``is_whole``: no profile is missing because its own file is at fault; otherwise what
    is not found is not called unknown."""

    profiles: Mapping[str, Profile]
    kinds: Mapping[str, object]
    is_whole: bool = True


def make_categories(
    document: Document, form: CategoriesForm, problems: list[Problem]
) -> tuple[dict[str, Category], dict[str, dict[str, str]]]:
    """(code → category, body → its title)."""
    categories = {}
    for code, category in form.categories.items():
        if category.body not in form.bodies:
            what = f"body {category.body} is not among bodies"
            mend = suggest(category.body, form.bodies)
            problems.append(document.problem(("categories", code, "body"), "unknown-body", what, mend))
        for other in category.others or ():
            if other not in form.bodies:
                what, mend = f"body {other} is not among bodies", suggest(other, form.bodies)
                problems.append(document.problem(("categories", code, "others"), "unknown-body", what, mend))
        categories[code] = Category(
            code,
            category.title.texts(),
            Level(category.level),
            category.body,
            category.first_action.texts(),
            category.legal,
            tuple(category.sources),
            {str(step): limit for step, limit in category.limits.items()},
            category.life_safety,
            category.call_back,
            tuple(form.others if category.others is None else category.others),
        )
    for other in form.others:
        if other not in form.bodies:
            what, mend = f"body {other} is not among bodies", suggest(other, form.bodies)
            problems.append(document.problem(("others",), "unknown-body", what, mend))
    return categories, {body: title.texts() for body, title in form.bodies.items()}


def make_policy(document: Document, form: GovernanceForm, problems: list[Problem]) -> Policy:
    """How the district governs; a step without a limit is a problem."""
    limits: dict[Level, Mapping[str, Limit]] = {}
    for level in Level:
        found: Mapping[str, Limit] = getattr(form.limits, level)
        for step in STEPS:
            if step not in found:
                mend = f"add {step}: and a limit, such as 30min, 2h, 4wh, 3d or 5wd"
                problems.append(
                    document.problem(("limits", str(level)), "missing-key", f"{step} has no limit for {level}", mend)
                )
        limits[level] = {str(step): limit for step, limit in found.items()}
    return Policy(
        limits,
        form.warn_share,
        {level: max(1, getattr(form.remind_every, level)) for level in Level},
        form.escalate_after,
        max(1, form.ring_every),
        form.returns_limit,
        form.reopen_within,
        form.storm.incidents,
        form.storm.window,
        form.flapping.times,
        form.flapping.window,
        form.life_safety_silence,
    )


def make_mapping(
    document: Document, form: PlatformForm, categories: Mapping[str, Category] | None, problems: list[Problem]
) -> PlatformMapping:
    """How the central platform calls things. Every state and level has its code, every action is a move."""
    for state in State:
        if state not in form.states:
            what, mend = f"state {state} has no code", f"add {state}: and the platform's code"
            problems.append(document.problem(("states",), "missing-key", what, mend))
    problems.extend(
        document.problem(("states", word), "unknown-state", f"there is no state {word}", suggest(word, State))
        for word in form.states
        if word not in set(State)
    )
    for level in Level:
        if level not in form.levels:
            what, mend = f"level {level} has no code", f"add {level}: and the platform's code"
            problems.append(document.problem(("levels",), "missing-key", what, mend))
    for code in form.categories:
        if categories is not None and code not in categories:
            what, mend = f"there is no category {code}", suggest(code, categories)
            problems.append(document.problem(("categories", code), "unknown-category", what, mend))
    for word, verb in form.actions.items():
        if verb not in VERBS:
            what, mend = f"{verb} is no move", suggest(verb, VERBS)
            problems.append(document.problem(("actions", word), "unknown-move", what, mend))
    levels = {str(level): code for level, code in form.levels.items()}
    return PlatformMapping(form.states, levels, form.categories, form.actions)


def make_calendar(document: Document, form: HolidaysForm, hours: HoursOfDay, problems: list[Problem]) -> Calendar:
    """The days on which people work."""
    for name, days, is_weekend in (("off", form.off, False), ("made_up", form.made_up, True)):
        for index, day in enumerate(days):
            if (day.weekday() >= 5) is not is_weekend:
                what = f"{day} is a {'weekday' if is_weekend else 'weekend day'}"
                mend = "off lists weekdays on which nobody works, made_up weekend days on which people work"
                problems.append(document.problem((name, index), "wrong-value", what, mend))
    return Calendar(frozenset(form.off), frozenset(form.made_up), form.known_from, form.known_until, hours)


# --- what the file says -------------------------------------------------------------------------------------


def make_rule(
    document: Document, form: RuleForm, categories: Mapping[str, Category] | None, problems: list[Problem]
) -> Rule | None:
    """The rule, or None when a fault leaves it without meaning. Without categories they are not checked."""
    before = len(problems)
    when = _parse(document, form.when, "when", problems)
    clear = None
    if form.clear is not None and form.clear.when is not None:
        clear = _parse(document, form.clear.when, "clear.when", problems)
    if (form.incident is None) == (form.notice is None):
        what = (
            "incident: and notice: stand beside each other"
            if form.incident
            else "neither incident: nor notice: is there"
        )
        mend = "write incident: for the grid, or notice: for the property manager"
        problems.append(document.problem(("incident",), "one-case", what, mend))
    respond = _make_responses(document, form, problems)
    case = form.incident or form.notice
    if case is None or when is None:
        return None
    word = "incident" if form.incident is not None else "notice"
    level = Level(case.level) if case.level is not None else Level.NORMAL
    if categories is not None:
        category = categories.get(case.category)
        if category is None:
            what = f"category {case.category} is not in rules/categories.yaml"
            mend = suggest(case.category, categories)
            problems.append(document.problem((word, "category"), "unknown-category", what, mend))
        elif case.level is None:
            level = category.level
    if (word == "notice") != case.category.startswith(NOTICE_NAMESPACE):
        what = f"{word}: has the category {case.category}"
        mend = f"a notice has a category {NOTICE_NAMESPACE}…, and an incident has none of those"
        problems.append(document.problem((word, "category"), "wrong-category", what, mend))
    title = (case.title or form.title).texts()
    for language, text in title.items():
        for name in _PLACEHOLDER.findall(text):
            if name not in ("place", "device"):
                what = f"the title has {{{name}}}"
                mend = "only {place} and {device} are filled in"
                problems.append(document.problem((word, "title", language), "placeholder", what, mend))
    if len(problems) > before:
        return None
    return Rule(
        id=form.id,
        title=form.title.texts(),
        status=Status(form.status),
        scope=ScopeKind(form.scope),
        when=when,
        sort=Sort.INCIDENT if word == "incident" else Sort.NOTICE,
        cause=case.cause,
        at=ScopeKind(case.at),
        category=case.category,
        level=level,
        incident_title=title,
        was=form.was,
        key=tuple(form.key),
        kinds=tuple(form.kinds),
        schedule=_make_schedule(form.schedule),
        hold=form.hold,
        clear=clear,
        clear_hold=form.clear.hold if form.clear is not None else 0,
        missing=form.missing,
        respond=respond,
        offline=form.offline,
        false_alarms=tuple(form.false_alarms),
        legal=form.legal,
        sources=tuple(form.sources),
    )


def _parse(document: Document, data: object, path: str, problems: list[Problem]) -> Condition | None:
    try:
        return parse_condition(data, path)
    except ConditionError as error:
        problems.append(document.problem(_steps(error.path), "condition", f"{error.path}: {error.what}", error.mend))
    except RecursionError:
        problems.append(document.problem((path,), "condition", f"{path} is nested too deep", "write it flatter"))
    return None


def _steps(path: str) -> Path:
    """``when.all[1].smoke`` → ("when", "all", 1, "smoke")."""
    return tuple(int(index) if index else word for index, word in _STEP.findall(path))


def _make_schedule(form: ScheduleForm | None) -> Schedule | None:
    if form is None:
        return None
    days = tuple(range(7)) if form.days is None else tuple(sorted(_DAYS.index(day) for day in set(form.days)))
    return Schedule(tuple(form.times), days, form.only)


def _make_responses(document: Document, form: RuleForm, problems: list[Problem]) -> tuple[Response, ...]:
    found = []
    for index, item in enumerate(form.respond):
        here: Path = ("respond", index)
        if len(item) != 1:
            what = f"an item of respond: has {len(item)} commands"
            problems.append(document.problem(here, "respond", what, "write one command per item, each with its dash"))
            continue
        [(command, body)] = item.items()
        args = dict(body)
        zone = args.pop("zone", None)
        if not isinstance(zone, str) or zone not in _SCOPES:
            what = f"{command} has no zone" if zone is None else f"{command}: zone {show(zone)} is not known"
            mend = f"write zone: and one of {', '.join(ScopeKind)}"
            problems.append(document.problem((*here, command, "zone"), "respond", what, mend))
            continue
        found.append(Response(command, ScopeKind(zone), args))
    return tuple(found)


# --- what it means beside the profiles ----------------------------------------------------------------------


def check_rule(document: Document, rule: Rule, shelf: Shelf, problems: list[Problem]) -> None:
    """Whether the rule can do what it says, with these profiles. A retired rule may name what is gone."""
    if rule.status is Status.RETIRED:
        return
    for index, kind in enumerate(rule.kinds):
        if kind not in shelf.kinds:
            mend = suggest(kind, shelf.kinds)
            problems.append(
                document.problem(("kinds", index), "unknown-kind", f"kind {kind} is not in the vocabulary", mend)
            )
    _check_shape(document, rule, problems)
    fitting = {id: profile for id, profile in shelf.profiles.items() if is_fitting(rule, profile)}
    check = _Check(document, rule, shelf, fitting, problems)
    before = len(problems)
    check.names(rule.when, ("when",))
    if rule.clear is not None:
        check.names(rule.clear, ("clear", "when"))
    if len(problems) == before:
        check.together()
    check.key()
    check.silence()
    check.offline()
    check.responses()
    if FACE_KIND in {profile.kind for profile in fitting.values()} and not rule.legal and rule.sort is Sort.INCIDENT:
        seen = {named.name for named in names(rule.when) if named.kind in ("event", "reading-or-event")}
        if any(event in profile.events for event in seen for profile in fitting.values() if profile.kind == FACE_KIND):
            what = "a face opens an incident without a legal basis"
            problems.append(
                document.problem(("legal",), "no-legal-basis", what, "add legal: and the article that allows it")
            )


def is_fitting(rule: Rule, profile: Profile) -> bool:
    """Whether the rule looks at devices of this profile at all."""
    return not rule.kinds or profile.kind in rule.kinds


def _needs_event(condition: Condition) -> bool:
    """Whether the condition can hold only at the moment of an event."""
    match condition:
        case All(parts):
            return any(_needs_event(part) for part in parts)
        case Any(parts):
            return all(_needs_event(part) for part in parts)
        case Seen(within=None):
            return True
        case _:
            return False


def _check_shape(document: Document, rule: Rule, problems: list[Problem]) -> None:
    if rule.clear is not None and is_momentary(rule.clear):
        mend = "write seen: with a duration, or a reading"
        problems.append(document.problem(("clear", "when"), "momentary", "clear: cannot ask for seen: true", mend))
    if not rule.is_momentary:
        if rule.key:
            what = "key: is for rules about one event (seen: true)"
            problems.append(document.problem(("key",), "momentary", what, "remove key:, or write seen: true"))
        return
    for is_there, key in (
        (rule.hold > 0, "hold"),
        (rule.clear is not None or rule.clear_hold > 0, "clear"),
        (rule.missing != "keep", "missing"),
    ):
        if is_there:
            what = f"a rule about one event (seen: true) is over at once and has no {key}:"
            mend = f"remove {key}:, or write seen: with a duration such as 10m"
            problems.append(document.problem((key,), "momentary", what, mend))
    if not _needs_event(rule.when):
        what = "the condition can hold without the event that seen: true asks for"
        mend = "put seen: true and the rest together under all:, or write seen: with a duration"
        problems.append(document.problem(("when",), "momentary", what, mend))


class _Check:
    """One rule beside the profiles that it fits."""

    def __init__(
        self, document: Document, rule: Rule, shelf: Shelf, fitting: Mapping[str, Profile], problems: list[Problem]
    ) -> None:
        self.document = document
        self.rule = rule
        self.shelf = shelf
        self.fitting = fitting
        self.problems = problems

    def add(self, path: Path, code: str, what: str, mend: str) -> None:
        self.problems.append(self.document.problem(path, code, what, mend))

    def names(self, condition: Condition, prefix: Path) -> None:
        for named in names(condition):
            here = (*prefix, *_steps(named.path))
            readings = [p.readings[named.name] for p in self.fitting.values() if named.name in p.readings]
            events = [p.events[named.name] for p in self.fitting.values() if named.name in p.events]
            match named.kind:
                case "attribute":
                    self.attribute(named, here)
                case "device":
                    pass
                case "event" if not events:
                    self.unknown(named, here, is_other=bool(readings), other="a reading: test it by is:, above: …")
                case "reading" if not readings:
                    self.unknown(named, here, is_other=bool(events), other="an event: write seen: or count:")
                case "reading-or-event" if not readings and not events:
                    self.unknown(named, here, is_other=False, other="")
                case _:
                    self.leaf(named, here, readings, events)

    def unknown(self, named: Named, here: Path, *, is_other: bool, other: str) -> None:
        if is_other:
            self.add(here, "wrong-test", f"{named.name} is not {_KIND_IN_WORDS[named.kind]}", f"it is {other}")
            return
        if not self.shelf.is_whole:
            return
        elsewhere = [p for p in self.shelf.profiles.values() if named.name in p.readings or named.name in p.events]
        if elsewhere:
            what = f"no profile of kind {' or '.join(self.rule.kinds)} has {named.name}"
            owners = ", ".join(sorted({p.kind for p in elsewhere}))
            self.add(here, "unknown-name", what, f"add {owners} to kinds:, or name another reading")
            return
        known = {name for p in self.fitting.values() for name in (*p.readings, *p.events)}
        what = f"no profile has a reading or an event {named.name}"
        self.add(here, "unknown-name", what, suggest(named.name, known))

    def leaf(self, named: Named, here: Path, readings: Sequence[ReadingSpec], events: Sequence[EventSpec]) -> None:
        match named.leaf:
            case Reads(_, tests, _):
                self.compares(tests, _fields_of(readings), here, named.name)
            case Rate(name, _, _):
                if not any(spec.type in ("number", "integer") for spec in readings):
                    self.add(
                        (*here, "rate"), "wrong-type", f"{name} is no number and has no rate", "use is: or changed:"
                    )
            case Sum(name, _, _):
                if not any(spec.accumulates for spec in readings):
                    what = f"{name} does not accumulate"
                    self.add(
                        (*here, "sum"), "wrong-type", what, "add accumulates: to the profile, or use above: or below:"
                    )
            case Count(name, _, _, where):
                if not events and not any(spec.type == "boolean" for spec in readings):
                    what = f"{name} is neither an event nor true or false: it cannot be counted"
                    self.add((*here, "count"), "wrong-type", what, "count an event or a boolean reading")
                if where and not events:
                    self.add((*here, "where"), "wrong-type", f"{name} is a reading and has no fields", "remove where:")
                elif where:
                    self.where(where, events, here, name)
            case Missing(name, None):
                if not any(p.heartbeat for p in self.fitting.values() if name in p.readings):
                    what = f"no profile with {name} has a heartbeat: it is never missing"
                    self.add((*here, "missing"), "never", what, "write how long, for example missing: 26h")
            case Seen(name, _, where):
                self.where(where, events, here, name)
            case _:
                pass

    def where(
        self, where: Mapping[str, tuple[Compare, ...]], events: Sequence[EventSpec], here: Path, name: str
    ) -> None:
        for field, tests in where.items():
            specs = [event.data[field] for event in events if field in event.data]
            if not specs:
                known = {known for event in events for known in event.data}
                self.add(
                    (*here, "where", field), "unknown-field", f"{name} has no field {field}", suggest(field, known)
                )
                continue
            self.compares(tests, specs, (*here, "where", field), field)

    def compares(self, tests: Iterable[Compare], specs: Sequence[FieldSpec], here: Path, name: str) -> None:
        """Each test must be of a type that one of the specs has, and must be able to hold for one of them."""
        types = sorted({spec.type for spec in specs})
        for test in tests:
            path = (*here, test.op)
            suited = [spec for spec in specs if _suits(test, spec)]
            if not suited:
                what = f"{name} is {' or '.join(types)}, and the test is {_describe_test(test)}"
                self.add(path, "wrong-type", what, _mend_test(specs[0]))
            elif not any(_can_hold(test, spec) for spec in suited):
                what = f"{name} can never be {_describe_test(test)}: {_describe_values(suited[0])}"
                self.add(path, "never", what, "correct the limit, or the profile")

    def attribute(self, named: Named, here: Path) -> None:
        leaf = named.leaf
        if isinstance(leaf, Has) and leaf.default is not None:
            spec = FieldSpec(_type_of(leaf.default))
            self.compares(leaf.tests, [spec], here, f"the default of {leaf.name}")

    def together(self) -> None:
        """A rule for one device needs one model that can answer the whole condition."""
        for condition, path in ((self.rule.when, "when"), (self.rule.clear, "clear")):
            if condition is None or self.rule.scope is not ScopeKind.DEVICE or not self.shelf.is_whole:
                continue
            offers = [frozenset(p.readings) | frozenset(p.events) for p in self.fitting.values()]
            if not any(is_answerable(condition, offer) for offer in offers):
                what = "no profile has all the readings and events that the condition needs of one device"
                self.add((path,), "unanswerable", what, "widen scope: to a place, or use the names of one profile")

    def key(self) -> None:
        fields = {
            field
            for named in names(self.rule.when)
            if isinstance(named.leaf, Seen)
            for profile in self.fitting.values()
            if named.name in profile.events
            for field in profile.events[named.name].data
        }
        for index, field in enumerate(self.rule.key):
            if self.rule.is_momentary and field not in fields and self.shelf.is_whole:
                self.add(("key", index), "unknown-field", f"the event has no field {field}", suggest(field, fields))

    def silence(self) -> None:
        """Silence can only be noticed where something is expected."""
        if self.rule.missing == "keep" or not self.fitting or self.rule.is_momentary:
            return
        used = {named.name for named in names(self.rule.when) if named.kind != "attribute"}
        looked_at = [p for p in self.fitting.values() if used & {"device", *p.readings, *p.events}]
        if looked_at and not any(p.heartbeat for p in looked_at):
            what = f"missing: {self.rule.missing}, and no profile that the rule looks at has a heartbeat"
            self.add(("missing",), "never", what, "write missing: keep, or give the profile a heartbeat")

    def offline(self) -> None:
        """An agent judges by the alarm lane, whose messages have their numbers when they are taken in."""
        if not self.rule.offline:
            return
        if not self.rule.respond:
            what = "offline: true, and nothing to respond with"
            self.add(
                ("offline",), "offline", what, "write what the agent shall do under respond:, or leave offline out"
            )
        used = {named.name for named in names(self.rule.when) if named.kind in ("reading", "event")}
        late = sorted(
            name
            for name in used
            for lanes in [{spec.lane for p in self.fitting.values() for spec in _specs_of(p, name)}]
            if lanes == {"telemetry"}
        )
        if late:
            what = f"offline: true, and {late[0]} comes by telemetry"
            self.add(("offline",), "offline", what, f"give {late[0]} lane: alarm in its profile, or leave offline out")

    def responses(self) -> None:
        for index, response in enumerate(self.rule.respond):
            here: Path = ("respond", index, response.command)
            able = [p for p in self.shelf.profiles.values() if response.command in p.commands]
            if not able:
                if self.shelf.is_whole:
                    known = {command for p in self.shelf.profiles.values() for command in p.commands}
                    what = f"no profile has the command {response.command}"
                    self.add(here, "unknown-command", what, suggest(response.command, known))
                continue
            for profile in able:
                self.arguments(response, profile, here)

    def arguments(self, response: Response, profile: Profile, here: Path) -> None:
        specs = profile.commands[response.command].args
        for name, value in response.args.items():
            if name not in specs:
                what = f"{response.command} of {profile.id} has no argument {name}"
                self.add((*here, name), "unknown-argument", what, suggest(name, specs))
                continue
            reason = _refuse_argument(specs[name], value)
            if reason is not None:
                what = f"{response.command} of {profile.id}: {name} is {reason}"
                self.add((*here, name), "wrong-argument", what, f"write {_describe_values(specs[name])}")
        for name in specs:
            if name not in response.args:
                what = f"{response.command} of {profile.id} needs {name}"
                self.add(here, "missing-argument", what, f"add {name}:")


def _specs_of(profile: Profile, name: str) -> list[ReadingSpec | EventSpec]:
    return [specs[name] for specs in (profile.readings, profile.events) if name in specs]


def _fields_of(readings: Iterable[ReadingSpec]) -> list[FieldSpec]:
    return [FieldSpec(spec.type, spec.low, spec.high, spec.values) for spec in readings]


def _type_of(value: object) -> FieldType:
    return "boolean" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _suits(test: Compare, spec: FieldSpec) -> bool:
    is_number, is_text = spec.type in ("number", "integer"), spec.type in ("text", "plate")
    match test.op:
        case "above" | "below" | "between":
            return is_number
        case "changed":
            return True
        case _:
            return all(
                is_text
                if isinstance(arg, Listed | str)
                else spec.type == "boolean"
                if isinstance(arg, bool)
                else is_number
                for arg in test.args
            )


def _can_hold(test: Compare, spec: FieldSpec) -> bool:
    """False only when no value of the range, or none of the texts, can pass. What an attribute says is not known."""
    low, high = spec.low, spec.high
    match test.op, test.args:
        case "above", (float(limit),):
            return high is None or limit < high
        case "below", (float(limit),):
            return low is None or limit > low
        case "between", (float(a), float(b)):
            return a <= b and (high is None or a <= high) and (low is None or b >= low)
        case (("is" | "in"), args):
            return any(_is_possible(arg, spec) for arg in args)
        case _:
            return True


def _is_possible(arg: Number | bool | str | Listed, spec: FieldSpec) -> bool:
    match arg:
        case Listed() | Attribute() | bool():
            return True
        case str():
            return not spec.values or arg in spec.values
        case _:
            return (spec.low is None or arg >= spec.low) and (spec.high is None or arg <= spec.high)


def _describe_test(test: Compare) -> str:
    shown = ", ".join(
        "an attribute" if isinstance(arg, Attribute) else f"list {arg.name}" if isinstance(arg, Listed) else show(arg)
        for arg in test.args
    )
    return f"{test.op}: {shown}" if shown else test.op


def _describe_values(spec: FieldSpec) -> str:
    if spec.values:
        return f"one of {', '.join(spec.values)}"
    if spec.low is not None and spec.high is not None:
        return f"a {spec.type} from {spec.low:g} to {spec.high:g}"
    return "true or false" if spec.type == "boolean" else f"a {spec.type}"


def _mend_test(spec: FieldSpec) -> str:
    match spec.type:
        case "boolean":
            return "write is: true or is: false"
        case "number" | "integer":
            return "write above:, below:, between: or is: with a number"
        case _:
            return "write is: or in: with texts"


def _refuse_argument(spec: FieldSpec, value: object) -> str | None:
    """A text may be given by language; then each of them must be one."""
    if isinstance(value, Mapping) and spec.type == "text" and not spec.values:
        if "zh" not in value or not all(isinstance(text, str) and text.strip() for text in value.values()):
            return "wrong-type"
        return None
    return spec.refuse(value)
