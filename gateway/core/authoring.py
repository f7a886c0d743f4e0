"""The form of the files that people write: profiles, the vocabulary, categories, rules and their tests.

Each model says what keys a file may have and of what type, and nothing else; what the values mean together is checked
in `catalog`. Every fault becomes a `Problem` with its line and its mend. The page for authors is docs/authoring.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from gateway.core.condition import ConditionError, parse_duration
from gateway.core.document import Document, Problem
from gateway.core.worktime import Limit, read_limit

ScopeName = Literal["device", "household", "unit", "building", "place", "source", "community"]
LevelName = Literal["normal", "urgent", "critical"]
PhaseName = Literal["quiet", "pending", "firing"]


def _refusal(what: str, mend: str) -> PydanticCustomError:
    return PydanticCustomError("wrong-value", "{what}", {"what": what, "mend": mend})


def _parse_span(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    try:
        return parse_duration(value)
    except ConditionError as error:
        raise _refusal(error.what, error.mend) from None


def _parse_heartbeat(value: object) -> object:
    return None if value == "none" else _parse_span(value)


def _parse_clock(value: object) -> tuple[int, int]:
    found = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", value) if isinstance(value, str) else None
    if found is not None:
        begin, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
        if begin < 1440 and end <= 1440 and int(found[2]) < 60 and int(found[4]) < 60 and begin != end:
            return begin, end
    raise _refusal(f"{value!r} is no span of the day", 'write "HH:MM-HH:MM", for example "22:00-06:00"')


def _parse_day(value: object) -> date:
    try:
        return date.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise _refusal(f"{value!r} is no day", "write, for example, 2026-10-01") from None


def _parse_instant(value: object) -> int:
    try:
        instant = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise _refusal(f"{value!r} is no time with its zone", "write, for example, 2026-11-23T20:00:00+08:00")
    return round(instant.timestamp() * 1000)


def _check_range(value: list[float]) -> list[float]:
    if len(value) != 2 or not all(abs(limit) <= 1e300 for limit in value) or value[0] >= value[1]:
        raise _refusal(f"{value} is no range", "write range: [lowest, highest]")
    return value


def _check_whole(low: int, high: int) -> AfterValidator:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise _refusal(f"{value} is not between {low} and {high}", f"write a whole number from {low} to {high}")
        return value

    return AfterValidator(check)


def _parse_written(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,47}", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535:
        return value
    raise _refusal(f"{_show(value)} cannot be written", "write a whole number from 0 to 65535, or an argument's name")


def _check_pattern(pattern: str, said: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise _refusal(f"{value!r} is not of the form {said}", f"write it as {said}")
        return value

    return AfterValidator(check)


def _check_title(value: dict[str, str]) -> dict[str, str]:
    for language, text in value.items():
        if not text.strip() or len(text) > 400:
            raise _refusal(f"the text in {language} is empty or longer than 400 characters", "write what people read")
    return value


Span = Annotated[int, BeforeValidator(_parse_span)]
"""Milliseconds, written ``500ms 10s 2m 12h 7d``."""

Heartbeat = Annotated[int | None, BeforeValidator(_parse_heartbeat)]
ClockSpan = Annotated[tuple[int, int], BeforeValidator(_parse_clock)]
Day = Annotated[date, BeforeValidator(_parse_day)]
Instant = Annotated[int, BeforeValidator(_parse_instant)]
Range = Annotated[list[float], AfterValidator(_check_range)]
DeviceId = Annotated[str, _check_pattern(r"[a-z0-9-]{1,48}", "a-z, 0-9 and -, at most 48")]
Name = Annotated[str, _check_pattern(r"[a-z][a-z0-9_]{0,47}", "a-z, 0-9 and _, at most 48, a letter first")]
RuleId = Annotated[str, _check_pattern(r"[a-z0-9-]{1,40}\.[a-z0-9-]{1,60}", "<domain>.<name> of a-z, 0-9 and -")]
Code = Annotated[str, _check_pattern(r"[a-z]+:\d\d-\d\d", '"<namespace>:NN-NN"')]
Word = Annotated[int, _check_whole(0, 65535)]
"""What 16 bits hold: a Modbus register's address or its content."""

Bit = Annotated[int, _check_whole(0, 15)]
Written = Annotated[int | str, BeforeValidator(_parse_written)]
Plain = str | int | float | bool


class Form(BaseModel):
    """A file, or a part of one: no key that is not named, no type that only resembles the right one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TitleForm(Form):
    """A text for people by language."""

    zh: str = Field(description="zh: the text in Chinese")
    en: str | None = None

    def texts(self) -> dict[str, str]:
        return {"zh": self.zh} if self.en is None else {"zh": self.zh, "en": self.en}


def _check_title_form(value: TitleForm) -> TitleForm:
    _check_title(value.texts())
    return value


Title = Annotated[TitleForm, AfterValidator(_check_title_form)]


# --- vocabulary and categories ------------------------------------------------------------------------------


class FactorsForm(Form):
    """canonical = raw * scale + offset."""

    scale: float = Field(description="scale: 1")
    offset: float = 0.0


class QuantityForm(Form):
    """A quantity: its canonical unit, and what else is understood."""

    unit: str = Field(description="unit: and the canonical unit")
    units: dict[str, FactorsForm] = {}


class VocabularyForm(Form):
    """device_profiles/vocabulary.yaml."""

    kinds: dict[DeviceId, Title] = Field(description="kinds:")
    quantities: dict[Name, QuantityForm] = Field(description="quantities:")


def _parse_limit(value: object) -> Limit:
    try:
        return read_limit(value)
    except ValueError as error:
        raise _refusal(str(error), "write, for example, 30min, 2h, 4wh, 3d or 5wd") from None


LimitText = Annotated[Any, BeforeValidator(_parse_limit)]
StepName = Literal["accept", "dispatch", "arrive", "resolve", "verify", "close", "rate", "report_in"]
LimitsForm = dict[StepName, LimitText]


class StormForm(Form):
    """How many new incidents in how long are a storm."""

    incidents: int = Field(description="incidents: 20", ge=1)
    window: Span = Field(description="window: 10m")


class FlappingForm(Form):
    """How many changes in how long are flapping."""

    times: int = Field(description="times: 5", ge=2)
    window: Span = Field(description="window: 1h")


class LevelSpansForm(Form):
    """A span for each level."""

    critical: Span = Field(description="critical: 5m")
    urgent: Span = Field(description="urgent: 30m")
    normal: Span = Field(description="normal: 24h")


class LevelLimitsForm(Form):
    """The limits of each level."""

    critical: LimitsForm = Field(description="critical: {accept: 1min, …}")
    urgent: LimitsForm = Field(description="urgent: {accept: 10min, …}")
    normal: LimitsForm = Field(description="normal: {accept: 1wh, …}")


class GovernanceForm(Form):
    """rules/governance.yaml."""

    limits: LevelLimitsForm = Field(description="limits:")
    working_hours: list[ClockSpan] = Field(description='working_hours: ["09:00-12:00", "13:00-17:00"]', min_length=1)
    warn_share: float = Field(description="warn_share: 0.75", gt=0, lt=1)
    remind_every: LevelSpansForm = Field(description="remind_every:")
    escalate_after: int = Field(description="escalate_after: 2", ge=1)
    ring_every: Span = Field(description="ring_every: 1m")
    returns_limit: int = Field(description="returns_limit: 2", ge=0)
    reopen_within: Span = Field(description="reopen_within: 7d")
    storm: StormForm = Field(description="storm: {incidents: 20, window: 10m}")
    flapping: FlappingForm = Field(description="flapping: {times: 5, window: 1h}")
    life_safety_silence: Span = Field(description="life_safety_silence: 8h")


class HolidaysForm(Form):
    """rules/holidays.yaml."""

    known_from: Day = Field(description="known_from: 2025-01-01")
    known_until: Day = Field(description="known_until: 2026-12-31")
    off: list[Day] = Field(description="off: the weekdays on which nobody works")
    made_up: list[Day] = Field(description="made_up: the weekend days on which people work")


class PlatformForm(Form):
    """rules/platform.yaml."""

    states: dict[str, str] = Field(description="states: our state and its code")
    levels: dict[LevelName, str] = Field(description="levels: {normal: …, urgent: …, critical: …}")
    categories: dict[Code, str] = {}
    actions: dict[str, str] = Field(description="actions: its word and our move")


class CategoryForm(Form):
    """One category of incidents."""

    title: Title = Field(description="title: {zh: …, en: …}")
    level: LevelName = Field(description="level: normal, urgent or critical")
    body: str = Field(description="body: one of bodies")
    first_action: Title = Field(description="first_action: {zh: …}")
    limits: LimitsForm = {}
    life_safety: bool = False
    call_back: LimitText | None = None
    others: list[str] | None = None
    legal: str = ""
    sources: list[str] = []


class CategoriesForm(Form):
    """rules/categories.yaml."""

    bodies: dict[DeviceId, Title] = Field(description="bodies:")
    others: list[str] = []
    categories: dict[Code, CategoryForm] = Field(description="categories:")


# --- profiles -----------------------------------------------------------------------------------------------


class RegisterForm(Form):
    """Where a Modbus device keeps a reading."""

    address: Word = Field(alias="register", description="register: the address in the request, counted from 0")
    kind: Literal["holding", "input", "coil", "discrete"] = "holding"
    type: Literal["int16", "uint16", "int32", "uint32", "float32", "bit"] | None = None
    scale: float | None = None
    order: Literal["abcd", "cdab", "badc", "dcba"] | None = None
    bit: Bit | None = None


class RegisterWriteForm(Form):
    """What a command writes to a Modbus device."""

    address: Word = Field(alias="register", description="register: the address in the request, counted from 0")
    kind: Literal["holding", "coil"] = "holding"
    value: Written = Field(description="value: what to write, or the name of an argument")


class MqttWriteForm(Form):
    """What a command publishes to a device on a local broker."""

    payload: object = Field(description="payload: what is published, as JSON")
    topic: str = ""
    answered: bool = True


class ReadingForm(Form):
    """One reading of a profile."""

    raw: str | None = Field(default=None, alias="from")
    type: Literal["number", "integer", "boolean", "text"] = Field(description="type: number, integer, boolean or text")
    quantity: str | None = None
    unit: str | None = None
    range: Range | None = None
    values: list[str] | None = None
    lane: Literal["telemetry", "alarm"] = "telemetry"
    accumulates: Literal["total", "amount"] | None = None
    modbus: RegisterForm | None = None


class FieldForm(Form):
    """One field of an event or one argument of a command."""

    type: Literal["number", "integer", "boolean", "text", "plate"] = Field(
        description="type: number, integer, boolean, text or plate"
    )
    range: Range | None = None
    values: list[str] | None = None


class EventForm(Form):
    """One kind of event."""

    lane: Literal["telemetry", "alarm"] = "telemetry"
    press: bool = False
    data: dict[Name, FieldForm] = {}


class CommandForm(Form):
    """One command."""

    args: dict[Name, FieldForm] = {}
    modbus: RegisterWriteForm | None = None
    mqtt: MqttWriteForm | None = None


class ExampleForm(Form):
    """What a message of the device comes out as."""

    raw: dict[str, object] = Field(alias="in", description="in: {…}, a message of the device")
    out: dict[str, Plain] = {}
    rejected: dict[str, Literal["unknown-unit", "wrong-type", "out-of-range"]] = {}


class ProfileForm(Form):
    """device_profiles/<kind>/<model>.yaml."""

    id: DeviceId = Field(description="id: the file's name without .yaml")
    kind: str = Field(description="kind: one of the vocabulary's kinds")
    title: Title = Field(description="title: {zh: …, en: …}")
    status: Literal["draft", "tested", "supported"] = Field(description="status: draft, tested or supported")
    sources: list[str] = []
    readings: dict[Name, ReadingForm] = {}
    events: dict[Name, EventForm] = {}
    commands: dict[Name, CommandForm] = {}
    heartbeat: Heartbeat = Field(description="heartbeat: 24h, or heartbeat: none if it never reports by itself")
    interval: Span | None = None
    examples: list[ExampleForm] = []


# --- rules --------------------------------------------------------------------------------------------------


class ScheduleForm(Form):
    """When a rule judges."""

    times: list[ClockSpan] = Field(default=[(0, 1440)], min_length=1)
    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] | None = Field(default=None, min_length=1)
    only: Literal["workdays", "holidays"] | None = None


class ClearForm(Form):
    """When a rule is over."""

    when: object = None
    hold: Span = 0


class CaseForm(Form):
    """What a rule opens."""

    cause: DeviceId = Field(description="cause: one word for what happened, such as fire")
    at: ScopeName = Field(description="at: the place of one cause, such as device or building")
    category: str = Field(description='category: a code of rules/categories.yaml, such as "ext:21-01"')
    level: LevelName | None = None
    title: Title | None = None


class RuleForm(Form):
    """rules/<domain>/<rule>.yaml."""

    id: RuleId = Field(description="id: <domain>.<file name>")
    was: RuleId | None = None
    title: Title = Field(description="title: {zh: …, en: …}")
    status: Literal["draft", "shadow", "active", "retired"] = Field(
        description="status: draft, shadow, active or retired"
    )
    scope: ScopeName = Field(description="scope: device, or a wider one such as building")
    key: list[str] = []
    kinds: list[str] = []
    schedule: ScheduleForm | None = None
    when: object = Field(description="when: and the condition")
    hold: Span = 0
    clear: ClearForm | None = None
    missing: Literal["keep", "clear", "alarm"] = "keep"
    incident: CaseForm | None = None
    notice: CaseForm | None = None
    respond: list[dict[str, dict[str, object]]] = []
    offline: bool = False
    false_alarms: list[str] = []
    legal: str = ""
    sources: list[str] = []


# --- rule tests ---------------------------------------------------------------------------------------------


class DeviceForm(Form):
    """One more device of a test."""

    profile: DeviceId = Field(description="profile: the id of a profile")
    place: DeviceId = "household-1-1-1"
    attributes: dict[str, Plain] = {}


def _expand_event(value: object) -> object:
    return {"at": value} if isinstance(value, str | int) else value


def _expand_expect(value: object) -> object:
    return {"phase": value} if isinstance(value, str) else value


class ExpectForm(Form):
    """What must be true at one time of a case."""

    phase: PhaseName | None = None
    incidents: int | None = None
    notices: int | None = None
    signals: int | None = None
    level: LevelName | None = None
    category: str | None = None
    commands: list[str] | None = None
    note: str | None = None
    key: str | None = None


class RuleCaseForm(Form):
    """One case: what arrives, and what is expected."""

    name: str = Field(description="name: what the case shows")
    every: Span | None = None
    start: Instant | None = None
    profile: DeviceId | None = None
    attributes: dict[str, Plain] | None = None
    devices: dict[DeviceId, DeviceForm] | None = None
    state: Literal["active", "commissioning", "drill", "maintenance"] = "active"
    feed: dict[str, Plain] = {}
    events: dict[str, list[Annotated[dict[str, Plain], BeforeValidator(_expand_event)]]] = {}
    presence: dict[str, Literal["online", "offline"]] = {}
    lists: dict[str, list[str]] = {}
    expect: dict[str, Annotated[ExpectForm, BeforeValidator(_expand_expect)]] = Field(
        min_length=1, description="expect: {30s: quiet}"
    )


class RuleTestForm(Form):
    """rules/<domain>/<rule>.test.yaml."""

    every: Span = Field(default=1000)
    start: Instant | None = None
    profile: DeviceId | None = None
    attributes: dict[str, Plain] = {}
    devices: dict[DeviceId, DeviceForm] = {}
    cases: list[RuleCaseForm] = Field(min_length=1, description="cases: and at least one case")


# --- reading a document into a form -------------------------------------------------------------------------

SomeForm = TypeVar("SomeForm", bound=Form)


def read_form(document: Document, form: type[SomeForm]) -> tuple[SomeForm | None, list[Problem]]:
    """The document as the form, or every fault of it."""
    try:
        return form.model_validate(document.data), []
    except ValidationError as error:
        problems = {_explain(document, form, details): None for details in error.errors(include_url=False)}
        return None, list(problems)


def suggest(word: str, known: Iterable[str]) -> str:
    """A mend: the known word that is meant, or all that there are."""
    words = sorted(set(known))
    close = difflib.get_close_matches(word, words, 1, 0.6)
    if close:
        return f"did you mean {close[0]}?"
    if not words:
        return "there is none; add it first, or leave this out"
    shown = ", ".join(words[:12])
    return f"known here: {shown}" + (f" and {len(words) - 12} more" if len(words) > 12 else "")


_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "a text",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "list_type": "a list",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}


def _explain(document: Document, form: type[Form], details: ErrorDetails) -> Problem:
    path = tuple(step for step in details["loc"] if step != "[key]")
    kind, found, context = details["type"], details["input"], details.get("ctx", {})
    name = path[-1] if path else "the file"
    label = "/".join(map(str, path)) or "the file"
    where = f" in {'/'.join(map(str, path[:-1]))}" if path[:-1] else ""
    match kind:
        case "missing":
            owner = _find_form(form, path[:-1])
            field = next((f for n, f in owner.model_fields.items() if (f.alias or n) == name), None) if owner else None
            mend = f"add {field.description}" if field is not None and field.description else f"add {name}:"
            return document.problem(path, "missing-key", f"{name} is missing{where}", mend)
        case "extra_forbidden":
            owner = _find_form(form, path[:-1])
            known = [f.alias or n for n, f in owner.model_fields.items()] if owner else []
            return document.problem(path, "unknown-key", f"unknown key {name!r}{where}", suggest(str(name), known))
        case "literal_error":
            words = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            what = f"{label}: {_show(found)} is not allowed"
            return document.problem(path, "wrong-value", what, suggest(str(found), words))
        case "wrong-value":
            return document.problem(path, kind, f"{label}: {context['what']}", str(context["mend"]))
        case "too_short":
            return document.problem(path, "wrong-value", f"{label} is empty", "add at least one, or leave it out")
        case _:
            # A union reports each of its types; all of them are plain values.
            is_union = len(path) > 1 and path[-1] in ("str", "int", "float", "bool")
            expected = "a text, a number, true or false" if is_union else _EXPECTED.get(kind, details["msg"])
            steps = path[:-1] if is_union else path
            what = f"{'/'.join(map(str, steps)) or 'the file'}: {_show(found)} is not {expected}"
            return document.problem(steps, "wrong-type", what, f"write {expected}")


def _show(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return repr(value)[:60]


def _find_form(form: type[Form], path: Iterable[str | int]) -> type[Form] | None:
    """The form of the part of a file at ``path``."""
    annotation: Any = form
    for step in path:
        annotation = _unwrap(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Form):
            field = next((f for n, f in annotation.model_fields.items() if (f.alias or n) == step), None)
            if field is None:
                return None
            annotation = field.annotation
        else:
            arguments = get_args(annotation)
            if not arguments:
                return None
            annotation = arguments[-1]
    annotation = _unwrap(annotation)
    return annotation if isinstance(annotation, type) and issubclass(annotation, Form) else None


def _unwrap(annotation: Any) -> Any:
    """Without Annotated and without "or None"."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        annotation = inner[0]
    return annotation
