"""From what a device said to measurements, by its profile. Pure: no I/O, no clock."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.core.profile import ABSENT, EventSpec, FieldSpec, Profile, ReadingSpec, find_raw
from gateway.wire import TEXT_LIMIT, Measurement

_UNFIT: Final = re.compile("[\0\ud800-\udfff]")
"""What the wire carries in no text."""

_SHOWN: Final = 40
"""Characters of a value that cannot be carried as it is."""


class NotJson(ValueError):
    """Bytes that are no JSON."""


def read_json(payload: bytes) -> object:
    """The payload as JSON. Raises NotJson, for whatever is wrong with it."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotJson(str(error)) from None


def read_fields(
    device: str, profile: Profile, raw: Mapping[str, object], units: Mapping[str, str] | None = None
) -> list[Measurement]:
    """The readings in a device's own message, by the fields that its profile names. ``units`` are the units of fields
    of which the message itself says them."""
    found = []
    for spec in profile.readings.values():
        value = find_raw(raw, spec.raw)
        if value is ABSENT:
            continue
        one = measure(device, spec, value, units.get(spec.raw) if units else None)
        if one is not None:
            found.append(one)
    return found


def select_data(
    spec: EventSpec, raw: Mapping[str, object]
) -> tuple[dict[str, float | int | bool | str], dict[str, str]]:
    """What of an event's data may leave the edge: the fields that the profile declares, as far as they are as it says.
    And of each other one why not. A picture or a vector is in no profile, so it goes nowhere."""
    data: dict[str, float | int | bool | str] = {}
    refused: dict[str, str] = {}
    for field, value in raw.items():
        declared = spec.data.get(field)
        reason = "unknown-field" if declared is None else _refuse(declared, value)
        if reason is not None:
            refused[field] = reason
        elif isinstance(value, str | int | float):
            data[field] = value
    return data, refused


def _refuse(spec: FieldSpec, value: object) -> str | None:
    if isinstance(value, str) and _UNFIT.search(value):
        return "wrong-type"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "out-of-range"
    return spec.refuse(value)


def measure(device: str, spec: ReadingSpec, value: object, unit: str | None = None) -> Measurement | None:
    """The value and its unit as the device gave them; None for null, which says that there is no value. Without a
    ``unit`` it is the one that the profile says.

    What the wire cannot carry (a list, NaN, a text as long as a picture) becomes a value of a wrong type: the gateway
    must see, reject and count it, and must never take it for another value.
    """
    if value is None:
        return None
    name = f"{device}:{spec.id}"
    unit = (unit or spec.raw_unit or spec.unit) if spec.type in ("number", "integer") else None
    match value:
        case bool():
            return Measurement(name, value)
        case int() | float():
            number = to_float(value)
            if math.isfinite(number):
                return Measurement(name, number, unit)
        case str() if len(value) <= TEXT_LIMIT and _UNFIT.search(value) is None:
            return Measurement(name, value)
        case _:
            pass
    # A truth value is no text, and a text is nothing else.
    return Measurement(name, True if spec.type == "text" else _show(value))


def to_float(value: float) -> float:
    """The number as a float, an integer beyond every float as an infinite one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _show(value: object) -> str:
    match value:
        case str():
            return _UNFIT.sub("?", value[:_SHOWN])
        case float():
            return str(value)
        case int():
            return "beyond every number"
        case _:
            return f"a {type(value).__name__}"
