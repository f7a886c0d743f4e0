"""From the files of `device_profiles/` to profiles: units resolved, examples tried, every fault with its line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from gateway.core.authoring import (
    CommandForm,
    FieldForm,
    MqttWriteForm,
    ProfileForm,
    ReadingForm,
    RegisterForm,
    RegisterWriteForm,
    VocabularyForm,
    suggest,
)
from gateway.core.condition import show, show_duration
from gateway.core.document import Document, Path, Problem
from gateway.core.profile import (
    CommandSpec,
    EventSpec,
    FieldSpec,
    MqttWrite,
    Profile,
    ReadingSpec,
    ReadingType,
    RegisterSpec,
    RegisterWrite,
    normalise,
)

EXAMPLES_NEEDED: Final = 3
"""A profile is supported only with so many examples, one of them with a rejected value (design 4.2)."""

RESERVED: Final = frozenset({"all", "any", "not", "device", "attribute"})
"""Words of the condition language: no reading or event can have them as its name."""


class Quantity(Struct, frozen=True):
    """What a number measures: its canonical unit, and unit → (scale, offset) of what else is understood."""

    unit: str
    units: dict[str, tuple[float, float]] = {}


class Vocabulary(Struct, frozen=True):
    """The closed lists that profiles choose from."""

    kinds: dict[str, dict[str, str]]
    quantities: dict[str, Quantity]


def make_vocabulary(document: Document, form: VocabularyForm, problems: list[Problem]) -> Vocabulary:
    """The vocabulary; faults of single quantities are added to ``problems``."""
    quantities = {}
    for name, quantity in form.quantities.items():
        here: Path = ("quantities", name, "units")
        for unit, factors in quantity.units.items():
            if unit == quantity.unit:
                what = f"{unit} is already the canonical unit of {name}"
                problems.append(document.problem((*here, unit), "unit-twice", what, "leave it out of units"))
            if factors.scale == 0 or not math.isfinite(factors.scale) or not math.isfinite(factors.offset):
                what = f"{unit} cannot be converted with scale {factors.scale:g} and offset {factors.offset:g}"
                mend = "write finite numbers, and a scale other than 0"
                problems.append(document.problem((*here, unit), "wrong-value", what, mend))
        units = {unit: (factors.scale, factors.offset) for unit, factors in quantity.units.items()}
        quantities[name] = Quantity(quantity.unit, units)
    return Vocabulary({kind: title.texts() for kind, title in form.kinds.items()}, quantities)


def make_profile(
    document: Document, form: ProfileForm, vocabulary: Vocabulary | None, problems: list[Problem]
) -> Profile | None:
    """The profile, or None when a fault leaves it without meaning. Without a vocabulary (it is broken itself), kinds
    and quantities are not checked and the profile cannot be made."""
    found: list[Problem] = []
    _check_names(document, form, found)
    if vocabulary is not None and form.kind not in vocabulary.kinds:
        what = f"kind {form.kind} is not in the vocabulary"
        found.append(document.problem(("kind",), "unknown-kind", what, suggest(form.kind, vocabulary.kinds)))
    readings = {
        name: spec
        for name, reading in form.readings.items()
        if (spec := _make_reading(document, name, reading, vocabulary, found)) is not None
    }
    events = {}
    for name, event in form.events.items():
        if event.press and event.lane != "alarm":
            what = f"{name} is a press and would travel in the telemetry lane"
            found.append(document.problem(("events", name), "press-lane", what, "add lane: alarm"))
        fields = _make_fields(document, ("events", name, "data"), event.data, found)
        events[name] = EventSpec(name, event.lane, event.press, fields)
    commands = {name: _make_command(document, name, command, found) for name, command in form.commands.items()}
    if form.heartbeat is not None and form.interval is not None and form.interval > form.heartbeat:
        what = (
            f"it reports every {show_duration(form.interval)} and counts as offline after "
            f"{show_duration(form.heartbeat)}"
        )
        found.append(document.problem(("interval",), "interval", what, "make the heartbeat longer than the interval"))
    for path, span in ((("heartbeat",), form.heartbeat), (("interval",), form.interval)):
        if span == 0:
            found.append(document.problem(path, "wrong-value", f"{path[0]} is 0", "write a duration such as 1h"))
    if vocabulary is None:
        problems.extend(found)
        return None
    profile = Profile(
        form.id,
        form.kind,
        form.title.texts(),
        form.status,
        readings,
        events,
        commands,
        form.heartbeat,
        form.interval,
        tuple(form.sources),
    )
    if len(readings) == len(form.readings):
        _try_examples(document, form, profile, found)
    problems.extend(found)
    return profile if not found else None


def _check_names(document: Document, form: ProfileForm, problems: list[Problem]) -> None:
    for section, names in (("readings", form.readings), ("events", form.events)):
        for name in names:
            if name in RESERVED:
                what = f"{name} is a word of the condition language"
                problems.append(document.problem((section, name), "reserved", what, "choose another name"))
    for name in form.events:
        if name in form.readings:
            what = f"{name} is a reading and an event"
            mend = "give one of them another name, or a rule cannot tell them apart"
            problems.append(document.problem(("events", name), "same-name", what, mend))
    if not (form.readings or form.events or form.commands):
        what = "the profile has no reading, no event and no command"
        problems.append(document.problem((), "empty-profile", what, "add what the device reports or can do"))


def _make_reading(
    document: Document, name: str, form: ReadingForm, vocabulary: Vocabulary | None, problems: list[Problem]
) -> ReadingSpec | None:
    here: Path = ("readings", name)
    before = len(problems)
    is_number = form.type in ("number", "integer")
    numeric = (
        ("quantity", form.quantity),
        ("unit", form.unit),
        ("range", form.range),
        ("accumulates", form.accumulates),
    )
    for key, value in numeric:
        if value is not None and not is_number:
            what = f"{name} is {_with_article(form.type)} and has {key}:"
            problems.append(
                document.problem((*here, key), "not-a-number", what, f"remove {key}:, or write type: number")
            )
    if form.values is not None and form.type != "text":
        what = f"{name} is {_with_article(form.type)} and has values:"
        problems.append(document.problem((*here, "values"), "not-a-text", what, "remove values:, or write type: text"))
    if form.unit is not None and form.quantity is None:
        what = f"{name} has a unit and no quantity"
        problems.append(document.problem((*here, "unit"), "no-quantity", what, "add quantity: from the vocabulary"))
    quantity = None
    if vocabulary is not None and form.quantity is not None:
        quantity = vocabulary.quantities.get(form.quantity)
        if quantity is None:
            what = f"quantity {form.quantity} is not in the vocabulary"
            mend = suggest(form.quantity, vocabulary.quantities)
            problems.append(document.problem((*here, "quantity"), "unknown-quantity", what, mend))
    if quantity is not None and form.unit is not None and form.unit not in (quantity.unit, *quantity.units):
        what = f"{form.unit} is no unit of {form.quantity}"
        mend = suggest(form.unit, (quantity.unit, *quantity.units))
        problems.append(document.problem((*here, "unit"), "unknown-unit", what, mend))
    modbus = None
    if form.modbus is not None:
        modbus = _make_register(document, (*here, "modbus"), form.modbus, form.type, problems)
    if len(problems) > before:
        return None
    low, high = form.range if form.range is not None else (None, None)
    return ReadingSpec(
        name,
        form.raw if form.raw is not None else name,
        form.type,
        quantity.unit if quantity is not None else None,
        quantity.units if quantity is not None else {},
        low,
        high,
        tuple(form.values or ()),
        form.lane,
        form.accumulates,
        form.unit,
        form.quantity,
        modbus,
    )


def _make_register(
    document: Document, here: Path, form: RegisterForm, reading: ReadingType, problems: list[Problem]
) -> RegisterSpec:
    """Where a Modbus device keeps the reading. A kind says nothing of the type but for coils and discrete inputs, which
    are bits; what is not written is a bit where it must be one, and otherwise an unsigned 16-bit number."""

    def add(key: str, code: str, what: str, mend: str) -> None:
        problems.append(document.problem((*here, key) if key else here, code, what, mend))

    is_bits = form.kind in ("coil", "discrete")
    type = form.type or ("bit" if is_bits or form.bit is not None else "uint16")
    is_wide = type in ("int32", "uint32", "float32")
    if reading == "text":
        add("", "not-a-number", "a register holds a number, not a text", "remove modbus:, or write type: number")
    elif type == "bit" and reading != "boolean":
        add("type", "wrong-type", "one bit is true or false, not a number", "write type: boolean for the reading")
    if is_bits and type != "bit":
        add("type", "wrong-type", f"a {form.kind} is one bit, not {type}", "remove type:, or write kind: holding")
    if is_bits and form.bit is not None:
        add("bit", "wrong-value", f"a {form.kind} is one bit itself", "remove bit:, or write kind: holding")
    if not is_bits and type == "bit" and form.bit is None:
        add("type", "missing-key", "a register has 16 bits", "add bit: from 0 (the least significant) to 15")
    if form.bit is not None and type != "bit":
        add("bit", "wrong-value", f"bit: is of a bit, and this is {type}", "remove bit:, or write type: bit")
    if form.order is not None and not is_wide:
        add("order", "wrong-value", f"{type} has no order of its registers", "remove order:, or write a 32-bit type")
    if is_wide and form.address == 65535:
        add("register", "wrong-value", f"{type} takes two registers, and 65535 is the last", "write a lower register")
    if form.scale is not None:
        if reading == "boolean":
            add("scale", "not-a-number", "what is true or false has no scale", "remove scale:")
        elif form.scale == 0 or not math.isfinite(form.scale):
            add("scale", "wrong-value", f"the scale is {form.scale:g}", "write a finite number other than 0")
    scale = 1.0 if form.scale is None else form.scale
    return RegisterSpec(form.address, form.kind, type, scale, form.order or "abcd", form.bit)


def _make_command(document: Document, name: str, form: CommandForm, problems: list[Problem]) -> CommandSpec:
    here: Path = ("commands", name)
    args = _make_fields(document, (*here, "args"), form.args, problems)
    modbus = None
    if form.modbus is not None:
        modbus = _make_register_write(document, (*here, "modbus"), form.modbus, args, problems)
    mqtt = None
    if form.mqtt is not None:
        mqtt = _make_mqtt_write(document, (*here, "mqtt"), form.mqtt, args, problems)
    return CommandSpec(name, args, modbus, mqtt)


def _make_mqtt_write(
    document: Document, here: Path, form: MqttWriteForm, args: Mapping[str, FieldSpec], problems: list[Problem]
) -> MqttWrite:
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", form.topic):
        what = f"{form.topic!r} is not one level of a topic"
        mend = "write the device's own word for the command, of A-Z, a-z, 0-9, _ and -"
        problems.append(document.problem((*here, "topic"), "wrong-value", what, mend))
    level: list[object] = [form.payload]
    while level:
        inner: list[object] = []
        for part in level:
            if isinstance(part, str) and (named := re.fullmatch(r"\{(\w+)\}", part)) and named[1] not in args:
                what = f"{named[1]} is no argument of the command"
                problems.append(document.problem((*here, "payload"), "unknown-argument", what, suggest(named[1], args)))
            inner += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        level = inner
    return MqttWrite(form.payload, form.topic, form.answered)


def _make_register_write(
    document: Document, here: Path, form: RegisterWriteForm, args: Mapping[str, FieldSpec], problems: list[Problem]
) -> RegisterWrite:
    most = 1 if form.kind == "coil" else 65535
    at: Path = (*here, "value")
    if isinstance(form.value, str):
        arg = args.get(form.value)
        if arg is None:
            what = f"{form.value} is no argument of the command"
            problems.append(document.problem(at, "unknown-argument", what, suggest(form.value, args)))
        elif arg.type == "boolean":
            pass
        elif arg.type != "integer" or arg.low is None or arg.high is None or arg.low < 0 or arg.high > most:
            what = f"not every value of {form.value} fits a {'coil' if most == 1 else 'register'}"
            mend = f"declare it as an integer with a range inside [0, {most}], or as a boolean"
            problems.append(document.problem(at, "wrong-value", what, mend))
    elif form.value > most:
        what = f"a coil is 0 or 1, not {form.value}"
        problems.append(document.problem(at, "wrong-value", what, "write 0 or 1, or kind: holding"))
    return RegisterWrite(form.address, form.value, form.kind)


def _make_fields(
    document: Document, here: Path, forms: Mapping[str, FieldForm], problems: list[Problem]
) -> dict[str, FieldSpec]:
    fields = {}
    for name, form in forms.items():
        if form.range is not None and form.type not in ("number", "integer"):
            what = f"{name} is {_with_article(form.type)} and has range:"
            problems.append(
                document.problem((*here, name), "not-a-number", what, "remove range:, or write type: number")
            )
        if form.values is not None and form.type != "text":
            what = f"{name} is {_with_article(form.type)} and has values:"
            problems.append(document.problem((*here, name), "not-a-text", what, "remove values:, or write type: text"))
        low, high = form.range if form.range is not None else (None, None)
        fields[name] = FieldSpec(form.type, low, high, tuple(form.values or ()))
    return fields


def _try_examples(document: Document, form: ProfileForm, profile: Profile, problems: list[Problem]) -> None:
    for index, example in enumerate(form.examples):
        here: Path = ("examples", index)
        for name in (*example.out, *example.rejected):
            if name not in profile.readings:
                what = f"the example names {name}, which is no reading of {profile.id}"
                problems.append(
                    document.problem((*here, "out", name), "example", what, suggest(name, profile.readings))
                )
        values, rejected = normalise(profile, example.raw)
        if not values and not rejected:
            what = "the example has no field that a reading comes from"
            mend = suggest(next(iter(example.raw), ""), (spec.raw for spec in profile.readings.values()))
            problems.append(document.problem((*here, "in"), "example", what, mend))
        for name in profile.readings:
            stated = _state(example.out.get(name), example.rejected.get(name))
            comes = _state(values.get(name), rejected.get(name))
            is_value = name not in example.rejected and name not in rejected
            if stated != comes and not (is_value and _is_close(example.out.get(name), values.get(name))):
                what = f"the example states {name}: {stated}, and it comes out as {comes}"
                mend = "correct the example, or the reading's type, unit or range"
                problems.append(document.problem((*here, "out", name), "example", what, mend))
    if form.status == "supported":
        if len(form.examples) < EXAMPLES_NEEDED:
            what = f"status is supported with {len(form.examples)} examples"
            mend = f"add examples until there are {EXAMPLES_NEEDED}, or write status: tested"
            problems.append(document.problem(("status",), "too-few-examples", what, mend))
        if form.readings and not any(example.rejected for example in form.examples):
            what = "status is supported and no example has a rejected value"
            mend = "add an example with rejected: {READING: out-of-range}, or write status: tested"
            problems.append(document.problem(("status",), "no-rejected-example", what, mend))


def _state(value: object, reason: str | None) -> str:
    if reason is not None:
        return f"rejected as {reason}"
    return "absent" if value is None else show(value) if not isinstance(value, str) else repr(value)


def _is_close(stated: object, value: object) -> bool:
    if isinstance(stated, bool) or isinstance(value, bool):
        return stated is value
    if isinstance(stated, int | float) and isinstance(value, int | float):
        return math.isclose(stated, value, rel_tol=1e-9, abs_tol=1e-9)
    return stated == value


def _with_article(type: str) -> str:
    return f"an {type}" if type == "integer" else f"a {type}"
