"""Resolves SenML packs as RFC 8428 section 4.6 says: for drivers of devices that speak SenML, and as the measure for
the wire's own fast reading of packs.

A resolved record stands alone: its name, unit, value and sum have their base applied, and its time is absolute.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

VERSION: Final = 10
"""The version that RFC 8428 defines, and the highest that is understood."""

ABSOLUTE_TIME: Final = 2**28
"""Section 4.5.3: a time below counts from now, any other from 1970."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")

_BASES: Final = ("bver", "bn", "bt", "bu", "bv", "bs")
_OWN: Final = ("n", "u", "v", "vb", "vs", "vd", "s", "t", "ut")
_VALUES: Final = ("v", "vb", "vs", "vd")
_TEXTS: Final = frozenset({"bn", "bu", "n", "u", "vs", "vd"})
_NUMBERS: Final = frozenset({"bt", "bv", "bs", "v", "s", "t", "ut"})

Record = dict[str, float | int | bool | str]


class SenmlFault(ValueError):
    """A pack that is no SenML, or a version of it that is not understood: ``index`` is the record at fault, or None."""

    def __init__(self, index: int | None, what: str) -> None:
        super().__init__(f"the pack {what}" if index is None else f"record {index} {what}")
        self.index = index
        self.what = what


def resolve(records: Sequence[Mapping[str, Any]], now: float) -> list[Record]:
    """The resolved records of a pack. Those of one name are in chronological order; names keep their places.

    ``records`` is the pack as parsed from JSON, ``now`` the seconds since 1970 from which relative times count.
    Unknown labels are passed over, unless they end in ``_``. Raises SenmlFault for a pack that must not be used."""
    if isinstance(records, (str, bytes, Mapping)) or not isinstance(records, Sequence):
        raise SenmlFault(None, "is no array of records")
    if not records:
        raise SenmlFault(None, "is empty; it needs at least one record")
    bases: dict[str, Any] = {}
    resolved: list[Record] = []
    version = VERSION
    for index, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise SenmlFault(index, "is no object")
        _check_labels(index, record)
        if index == 0:
            version = record.get("bver", VERSION)
        elif record.get("bver", version) != version:
            raise SenmlFault(index, f"has bver {record['bver']}, but the pack is of version {version}")
        bases |= {label: record[label] for label in _BASES if label in record}
        if any(label in record for label in _OWN):
            resolved.append(_resolve_record(index, record, bases, now))
    return _order(resolved)


def _order(resolved: list[Record]) -> list[Record]:
    # The RFC asks for chronological order, its published examples keep a pack's own order across names. Both agree on
    # the order within a name, which is the one that a series needs.
    by_name: dict[object, deque[Record]] = {}
    for record in sorted(resolved, key=lambda record: record["t"]):
        by_name.setdefault(record["n"], deque()).append(record)
    return [by_name[record["n"]].popleft() for record in resolved]


def _check_labels(index: int, record: Mapping[str, Any]) -> None:
    """Refuses unknown labels that must be understood, values of a wrong type, and versions that are too new."""
    for label, value in record.items():
        if not isinstance(label, str):
            raise SenmlFault(index, "has a label that is no string")
        if label in _TEXTS:
            if not isinstance(value, str):
                raise SenmlFault(index, f"has a {label} that is no string")
        elif label in _NUMBERS:
            if not _is_number(value):
                raise SenmlFault(index, f"has a {label} that is no finite number")
        elif label == "vb":
            if not isinstance(value, bool):
                raise SenmlFault(index, "has a vb that is neither true nor false")
        elif label == "bver":
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SenmlFault(index, "has a bver that is no positive integer")
            if value > VERSION:
                raise SenmlFault(index, f"has bver {value}; versions above {VERSION} are not understood")
        elif label.endswith("_"):
            raise SenmlFault(index, f"has the unknown label {label[:64]!r}, which must be understood")
    if not record:
        raise SenmlFault(index, "is empty")


def _resolve_record(index: int, record: Mapping[str, Any], bases: Mapping[str, Any], now: float) -> Record:
    name = bases.get("bn", "") + record.get("n", "")
    if not _NAME.fullmatch(name):
        raise SenmlFault(index, "has a name that is empty or has characters outside A-Z a-z 0-9 - : . / _")
    resolved: Record = {"n": name}
    unit = record.get("u", bases.get("bu"))
    if unit is not None:
        resolved["u"] = unit
    given = [label for label in _VALUES if label in record]
    if len(given) > 1:
        raise SenmlFault(index, f"has {' and '.join(given)}; a record has one value")
    if given and given[0] != "v":
        resolved[given[0]] = record[given[0]]
        if given[0] == "vd":
            _check_data(index, record["vd"])
    elif given or "bv" in bases:
        # Section 4.5.4: if only one of base value and value is there, the other counts as zero.
        resolved["v"] = _add(index, "value", bases.get("bv"), record.get("v"))
    if "s" in record or "bs" in bases:
        resolved["s"] = _add(index, "sum", bases.get("bs"), record.get("s"))
    if not any(label in resolved for label in (*_VALUES, "s")):
        raise SenmlFault(index, "has neither a value nor a sum")
    time = _add(index, "time", bases.get("bt"), record.get("t"))
    resolved["t"] = time if time >= ABSOLUTE_TIME else _add(index, "time", now, time)
    if "ut" in record:
        resolved["ut"] = record["ut"]
    return resolved


def _add(index: int, what: str, base: float | None, own: float | None) -> float:
    if base is None or own is None:
        # Not added to zero, so that an integer stays one and -0.0 keeps its sign.
        return (own if base is None else base) or 0
    total = base + own
    if not _is_number(total):
        raise SenmlFault(index, f"has a {what} that is not finite with its base")
    return total


def _is_number(value: object) -> bool:
    """Whether it is a number that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False
    return number - number == 0


def _check_data(index: int, data: str) -> None:
    # Section 5: base64 with the URL-safe alphabet and without padding. One character alone encodes no octet.
    if not _BASE64URL.fullmatch(data) or len(data) % 4 == 1:
        raise SenmlFault(index, "has a vd that is no base64url without padding")
