"""What a device model reports and can do, and which of its values are believed.

A value that is not believed is *rejected with a reason*; it never becomes "normal" and never becomes a default. Units
are converted here, once, so that rules only ever see a quantity's canonical unit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final, Literal

from msgspec import Struct

from gateway.core.model import Value

ReadingType = Literal["number", "integer", "boolean", "text"]
FieldType = Literal["number", "integer", "boolean", "text", "plate"]
Lane = Literal["telemetry", "alarm"]
RegisterKind = Literal["holding", "input", "coil", "discrete"]
RegisterType = Literal["int16", "uint16", "int32", "uint32", "float32", "bit"]
RegisterOrder = Literal["abcd", "cdab", "badc", "dcba"]

TEXT_LIMIT: Final = 256
"""A text longer than this is out of range: states keep the last value of every reading."""

_LARGEST: Final = sys.float_info.max


class Disbelief(Struct, frozen=True):
    """Why a value is not believed: ``unknown-unit``, ``wrong-type`` or ``out-of-range``."""

    reason: str


UNKNOWN_UNIT: Final = Disbelief("unknown-unit")
WRONG_TYPE: Final = Disbelief("wrong-type")
OUT_OF_RANGE: Final = Disbelief("out-of-range")

Believe = Callable[[object, str | None], Value | Disbelief]
"""(value, unit or None) → the value in the canonical unit, or why not. Numbers come out as float."""


class RegisterSpec(Struct, frozen=True):
    """Where a Modbus device keeps a reading, by the names of the Modbus application protocol (V1.1b3, section 4.3).

    ``register`` is the address in the request, from 0 to 65535. The reading is what stands there times ``scale``, in
    the reading's own raw unit. ``order`` is how the four bytes of a 32-bit value lie in its two registers, the most
    significant being ``a``. ``bit`` is one bit of a 16-bit register, 0 the least significant.
    """

    register: int
    kind: RegisterKind = "holding"
    type: RegisterType = "uint16"
    scale: float = 1.0
    order: RegisterOrder = "abcd"
    bit: int | None = None


class RegisterWrite(Struct, frozen=True):
    """What a command writes to a Modbus device: a number, or the command's argument of this name."""

    register: int
    value: int | str
    kind: Literal["holding", "coil"] = "holding"


class MqttWrite(Struct, frozen=True):
    """What a command publishes to a device on a local broker. A text ``{name}`` anywhere in ``payload`` stands for the
    command's argument of this name. ``topic`` is the device's own word for the command, where it has one topic each.
    ``answered``: the device says its new state when it has done it."""

    payload: object
    topic: str = ""
    answered: bool = True


class ReadingSpec(Struct, frozen=True, dict=True):
    """One reading of a profile.

    ``raw`` is its field in the device's own messages and ``raw_unit`` the unit there (None: the canonical one).
    ``units`` are the accepted alternatives to ``unit``: canonical = value * scale + offset. ``low`` and ``high`` are
    inclusive, in the canonical unit. ``values`` are the texts that are allowed; empty allows any. ``modbus`` is where
    a device on such a bus keeps it.
    """

    id: str
    raw: str
    type: ReadingType
    unit: str | None = None
    units: dict[str, tuple[float, float]] = {}
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    lane: Lane = "telemetry"
    accumulates: Literal["total", "amount"] | None = None
    raw_unit: str | None = None
    quantity: str | None = None
    modbus: RegisterSpec | None = None

    @property
    def plain_range(self) -> tuple[float, float]:
        """The floats in the canonical unit that are believed as they are: nearly all that ever come. None of them
        (low > high) where more must be looked at."""
        if self.type != "number":
            return math.inf, -math.inf
        return -_LARGEST if self.low is None else self.low, _LARGEST if self.high is None else self.high

    @cached_property
    def believe(self) -> Believe:
        """The check of one value, made once per reading: it is called for every value that arrives."""
        match self.type:
            case "number":
                return _make_number_check(self)
            case "integer":
                return _make_integer_check(self)
            case "boolean":
                return _believe_boolean
            case "text":
                return _make_text_check(frozenset(self.values))


class FieldSpec(Struct, frozen=True):
    """One field of an event, or one argument of a command. ``plate`` is a text that is sensitive."""

    type: FieldType
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()

    def refuse(self, value: object) -> str | None:
        """``wrong-type`` or ``out-of-range``, or None when the value is as it should be."""
        match self.type:
            case "number" | "integer":
                if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
                    return "wrong-type"
                if self.type == "integer" and value != int(value):
                    return "wrong-type"
                is_low = self.low is not None and value < self.low
                is_high = self.high is not None and value > self.high
                return "out-of-range" if is_low or is_high else None
            case "boolean":
                return None if isinstance(value, bool) else "wrong-type"
            case "text" | "plate":
                if not isinstance(value, str):
                    return "wrong-type"
                if not value or len(value) > TEXT_LIMIT or (self.values and value not in self.values):
                    return "out-of-range"
                return None


class Refused(Struct, frozen=True):
    """One field of an event that is not as the profile says; ``value`` is what may be shown of it."""

    field: str
    reason: str
    value: str


class EventSpec(Struct, frozen=True):
    """One kind of event of a profile. ``press``: somebody asks for help; it is in exactly one incident, always."""

    id: str
    lane: Lane = "telemetry"
    press: bool = False
    data: dict[str, FieldSpec] = {}

    def refuse(self, data: Mapping[str, object]) -> Refused | None:
        """The first field that is not as the profile says. A declared field may be absent; one that is not declared
        is refused, and nothing of it is shown: it may be what must not leave the edge."""
        for field, value in data.items():
            spec = self.data.get(field)
            if spec is None:
                return Refused(field, "unknown-field", f"{type(value).__name__} not shown")
            reason = spec.refuse(value)
            if reason is not None:
                return Refused(field, reason, "not shown" if spec.type == "plate" else str(value))
        return None

    def tell(self, data: Mapping[str, object]) -> tuple[str, ...]:
        """What a press says of itself, for the timeline: its fields that are one of a few words, never free text."""
        if not self.press:
            return ()
        return tuple(f"{field} {data[field]}" for field, spec in self.data.items() if spec.values and field in data)


class CommandSpec(Struct, frozen=True):
    """One command of a profile, with its arguments; all of them must be given. ``modbus`` and ``mqtt`` are what it
    writes or publishes to a device on such a bus."""

    id: str
    args: dict[str, FieldSpec] = {}
    modbus: RegisterWrite | None = None
    mqtt: MqttWrite | None = None

    def refuse(self, args: Mapping[str, object]) -> str | None:
        """Why the command cannot be given with these arguments, in words; None when it can."""
        for name in args:
            if name not in self.args:
                return f"{self.id} has no argument {name[:48]}"
        for name, spec in self.args.items():
            reason = spec.refuse(args[name]) if name in args else "missing"
            if reason is not None:
                return f"the argument {name} of {self.id} is {reason}"
        return None


class Profile(Struct, frozen=True):
    """A device model. ``heartbeat`` (ms): silent for longer, and it is offline; None for a device that never reports
    by itself. ``interval`` (ms) is how often it reports by itself, where that is known."""

    id: str
    kind: str
    title: dict[str, str]
    status: str
    readings: dict[str, ReadingSpec] = {}
    events: dict[str, EventSpec] = {}
    commands: dict[str, CommandSpec] = {}
    heartbeat: int | None = None
    interval: int | None = None
    sources: tuple[str, ...] = ()


ABSENT: Final = object()
"""What `find_raw` gives for a field that is not there."""


def find_raw(raw: Mapping[str, object], field: str) -> object:
    """A field of a device's own message, or ABSENT. A dot goes into an object: ``AM2301.Temperature`` is Temperature in
    AM2301, unless the message has a field of that whole name."""
    if field in raw:
        return raw[field]
    found: object = raw
    for step in field.split("."):
        if not isinstance(found, Mapping) or step not in found:
            return ABSENT
        found = found[step]
    return found


def normalise(profile: Profile, raw: Mapping[str, object]) -> tuple[dict[str, Value], dict[str, str]]:
    """A device's own message → (believed values, rejected reading → reason), by reading.

    Fields that the profile does not name are nobody's reading and are left out; a reading without a field is absent
    from both.
    """
    values: dict[str, Value] = {}
    rejected: dict[str, str] = {}
    for spec in profile.readings.values():
        found = find_raw(raw, spec.raw)
        if found is ABSENT:
            continue
        value = spec.believe(found, spec.raw_unit)
        if isinstance(value, Disbelief):
            rejected[spec.id] = value.reason
        else:
            values[spec.id] = value
    return values, rejected


# --- the checks ---------------------------------------------------------------------------------------------


def _make_number_check(spec: ReadingSpec) -> Believe:
    # NaN and infinities fail every comparison with finite limits, so the common way needs no test of its own for them.
    low = -_LARGEST if spec.low is None else spec.low
    high = _LARGEST if spec.high is None else spec.high
    canonical, units = spec.unit, spec.units

    def believe(value: object, unit: str | None) -> Value | Disbelief:
        if unit is not None and unit != canonical:
            known = units.get(unit)
            if known is None:
                return UNKNOWN_UNIT
            value = _convert(value, known)
        if value.__class__ is float:
            if low <= value <= high:
                return value
        elif value.__class__ is int:
            if low <= value <= high:
                return float(value)
        else:
            return WRONG_TYPE
        return OUT_OF_RANGE if _is_finite(value) else WRONG_TYPE

    return believe


def _make_integer_check(spec: ReadingSpec) -> Believe:
    number = _make_number_check(spec)

    def believe(value: object, unit: str | None) -> Value | Disbelief:
        found = number(value, unit)
        if found.__class__ is float and not found.is_integer():
            return WRONG_TYPE
        return found

    return believe


def _believe_boolean(value: object, unit: str | None) -> Value | Disbelief:
    if value is True or value is False:
        return value  # a truth value has no unit: a pack's base unit does not touch it
    if unit is not None:
        return UNKNOWN_UNIT
    if isinstance(value, int | float) and (value == 0 or value == 1):
        return value == 1
    return WRONG_TYPE


def _make_text_check(values: frozenset[str]) -> Believe:
    def believe(value: object, unit: str | None) -> Value | Disbelief:
        if not isinstance(value, str):
            return WRONG_TYPE
        if len(value) > TEXT_LIMIT or (values and value not in values):
            return OUT_OF_RANGE
        return value

    return believe


def _convert(value: object, factors: tuple[float, float]) -> object:
    """In the canonical unit, to nine decimals: 302 degF is 150 Cel, not a hair above it. Not a number: as it is."""
    if value.__class__ is not float and value.__class__ is not int:
        return value
    scale, offset = factors
    try:
        return round(value * scale + offset, 9)
    except OverflowError:
        return value  # an integer beyond every float is out of every range too


def _is_finite(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and -_LARGEST <= value <= _LARGEST)
