"""What one device has sent lately, as the journal has it: believed or not, and before any rule."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.model import Delivery, Device, Press, Value
from gateway.core.profile import Disbelief, Profile
from gateway.runtime.journal import JournalFault, decode_row
from gateway.runtime.ports import JournalRow, Ledger

ROWS: Final = 2_000
"""Journal rows that are looked through for one device: hours of a large community, days of a small one."""


LATEST: Final = 300
"""Journal rows that are looked through every second while somebody watches."""


class Heard(Struct, frozen=True, omit_defaults=True):
    """One reading or event of the device. ``seq`` is the journal row's, ``at`` when the gateway took it in (ms).
    ``reason`` is why a value was not believed; empty for what was."""

    seq: int
    at: int
    name: str
    value: Value = ""
    unit: str = ""
    is_event: bool = False
    reason: str = ""


def read_head(ledger: Ledger, community: str) -> int:
    """The number of the journal's last row."""
    standing = ledger.standing([community])
    return standing[community][1] if community in standing else 0


def read_signals(
    ledger: Ledger,
    catalog: Catalog,
    community: str,
    device: Device,
    after: int,
    limit: int = 500,
    until: int | None = None,
) -> tuple[list[Heard], int]:
    """What the device sent after the journal's row ``after`` (and up to the time ``until``, in ms), in order, at most
    the last ``limit``; and the last row that was looked at."""
    profile = catalog.profiles.get(device.profile)
    found: deque[Heard] = deque(maxlen=limit)
    for row in ledger.read_journal(community, after, until):
        after = row.seq
        if profile is not None and device.id.encode() in row.body:
            found.extend(_read_row(row, community, device, profile))
    return list(found), after


def read_recent(ledger: Ledger, catalog: Catalog, community: str, device: Device, limit: int = 500) -> list[Heard]:
    """What the device sent within the journal's last `ROWS` rows."""
    after = max(0, read_head(ledger, community) - ROWS)
    return read_signals(ledger, catalog, community, device, after, limit)[0]


def read_around(
    ledger: Ledger, catalog: Catalog, community: str, device: Device, since: int, until: int, limit: int = 1_000
) -> list[Heard]:
    """What the device sent from ``since`` to ``until`` (ms), at most the last ``limit``."""
    first = ledger.journal_before(community, since)
    return read_signals(ledger, catalog, community, device, first, limit, until)[0]


def read_latest(
    ledger: Ledger, catalog: Catalog, community: str, devices: Sequence[str], since: int, until: int, limit: int
) -> list[tuple[str, Heard]]:
    """What some devices of a community sent from ``since`` to ``until`` (ms), the newest first, at most ``limit``, each
    with the device's id; of a long time it is what the last `LATEST` rows of the journal hold."""
    here = {device.id: device for device in ledger.devices(community) if device.id in devices}
    after = max(ledger.journal_before(community, since), ledger.journal_before(community, until + 1) - LATEST)
    found: deque[tuple[str, Heard]] = deque(maxlen=limit)
    for row in ledger.read_journal(community, after, until):
        for id, device in here.items():
            profile = catalog.profiles.get(device.profile)
            if profile is not None and id.encode() in row.body:
                found.extend((id, heard) for heard in _read_row(row, community, device, profile))
    return sorted(found, key=lambda pair: (pair[1].at, pair[1].seq), reverse=True)


def list_points(heard: Iterable[Heard], name: str) -> list[tuple[int, float]]:
    """The believed numbers of one reading as (ms, value); true is 1."""
    return [
        (one.at, float(one.value))
        for one in heard
        if one.name == name and not one.reason and not one.is_event and isinstance(one.value, int | float)
    ]


def _read_row(row: JournalRow, community: str, device: Device, profile: Profile) -> Iterator[Heard]:
    if row.kind == "delivery" and row.source != device.source:
        return
    try:
        event = decode_row(community, row) if row.kind in ("delivery", "press") else None
    except JournalFault:
        return
    if isinstance(event, Press) and event.device == device.id:
        yield Heard(row.seq, row.at, event.kind, is_event=True)
    if not isinstance(event, Delivery):
        return
    message = event.message
    for signal in message.signals:
        if signal.device == device.id:
            known = profile.events.get(signal.kind)
            refused = known.refuse(signal.data) if known is not None else None
            reason = "unknown-event" if known is None else refused.reason if refused is not None else ""
            yield Heard(row.seq, row.at, signal.kind, is_event=True, reason=reason)
    for measured in message.measurements:
        owner, _, name = measured.name.rpartition(":")
        if owner != device.id:
            continue
        spec = profile.readings.get(name)
        value: Value | Disbelief = measured.value
        reason = "unknown-reading"
        if spec is not None:
            value = spec.believe(measured.value, measured.unit)
            reason = value.reason if isinstance(value, Disbelief) else ""
        shown = measured.value if isinstance(value, Disbelief) else value
        yield Heard(row.seq, row.at + measured.offset, name, shown, spec.unit or "" if spec else "", reason=reason)
    for bad in message.bad:
        owner, _, name = bad.name.rpartition(":")
        if owner == device.id:
            yield Heard(row.seq, row.at, name, reason=bad.reason)
