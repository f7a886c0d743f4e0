"""From what a device said to measurements, by its profile. Pure: no I/O, no clock."""

from __future__ import annotations

import math
import re
from typing import Final

from gateway.core.profile import ReadingSpec
from gateway.wire import TEXT_LIMIT, Measurement

_UNFIT: Final = re.compile("[\0\ud800-\udfff]")
"""What the wire carries in no text."""

_SHOWN: Final = 40
"""Characters of a value that cannot be carried as it is."""


def measure(device: str, spec: ReadingSpec, value: object) -> Measurement | None:
    """The value and its unit as the device gave them; None for null, which says that there is no value.

    What the wire cannot carry (a list, NaN, a text as long as a picture) becomes a value of a wrong type: the gateway
    must see, reject and count it, and must never take it for another value.
    """
    if value is None:
        return None
    name = f"{device}:{spec.id}"
    unit = spec.raw_unit or spec.unit
    match value:
        case bool():
            return Measurement(name, value)
        case int() | float():
            number = _to_float(value)
            if math.isfinite(number):
                return Measurement(name, number, unit)
        case str() if len(value) <= TEXT_LIMIT and _UNFIT.search(value) is None:
            return Measurement(name, value)
        case _:
            pass
    # A truth value is no text, and a text is nothing else.
    return Measurement(name, True if spec.type == "text" else _show(value))


def _to_float(value: float) -> float:
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
