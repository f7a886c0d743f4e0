"""What a device says that no message can hold, taken apart: a press counts for more than its data, and nothing takes
its neighbours with it."""

from __future__ import annotations

import logging
from typing import Final

from msgspec.structs import replace

from edge.spool import Entry, Unfit, check_fit
from gateway.wire import Lane, Measurement

log = logging.getLogger(__name__)

TEXT_MOST: Final = 200
"""Characters that are left of a text that is too long; the gateway sees it, and counts it as rejected."""


def make_fit(entry: Entry) -> list[Entry]:
    """The entry, or what of it fits, each signal and each measurement by itself. A signal loses the data that do not
    fit, a text its end. Raises Unfit when an alarm does not fit even then."""
    if _fits(entry):
        return [entry]
    parts = [Entry(entry.lane, entry.taken_at, (signal,)) for signal in entry.signals]
    parts += [Entry(entry.lane, entry.taken_at, (), (measured,)) for measured in entry.measurements]
    return [fit for part in parts if (fit := _make_part_fit(part)) is not None]


def _make_part_fit(part: Entry) -> Entry | None:
    if _fits(part):
        return part
    cut = Entry(
        part.lane,
        part.taken_at,
        tuple(replace(signal, data={}) for signal in part.signals),
        tuple(_cut(measured) for measured in part.measurements),
    )
    try:
        check_fit(cut)
    except Unfit as error:
        if part.lane is Lane.ALARM:
            raise
        log.error("a device said what no message can hold, it is left out: %s", error)
        return None
    log.error("a device said what no message can hold, it was cut: %s", cut.signals or cut.measurements)
    return cut


def _cut(measured: Measurement) -> Measurement:
    value = measured.value
    if isinstance(value, str):
        value = value.encode("utf-8", "replace").decode()[:TEXT_MOST]
    return replace(measured, value=value)


def _fits(entry: Entry) -> bool:
    try:
        check_fit(entry)
    except Unfit:
        return False
    return True
