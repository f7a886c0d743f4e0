"""What was done to one device since it was registered, as the journal has it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from gateway.core.cameras import CAMERA_ATTRIBUTES
from gateway.core.model import Device, DeviceState, RegistryChange, SilenceChange
from gateway.runtime.device_desk import SERIAL
from gateway.runtime.journal import JournalFault, decode_row
from gateway.runtime.ports import Ledger


class Chapter(Struct, frozen=True):
    """One thing that was done: when, by whom, ``what`` (``register``, ``move``, ``replace``, ``rename``, ``test``,
    ``end_test``, ``change``, ``retire``, or the kind of a silence), and from what to what."""

    at: int
    who: str
    what: str
    before: str = ""
    after: str = ""


def read_history(ledger: Ledger, community: str, device: str) -> list[Chapter]:
    """The newest first. Raises LedgerDown."""
    chapters: list[Chapter] = []
    known: Device | None = None
    for row in reversed(ledger.registry_rows(community)):
        if device.encode() not in row.body:
            continue
        try:
            event = decode_row(community, row)
        except JournalFault:
            continue
        if isinstance(event, RegistryChange):
            if device in event.retired:
                chapters.append(Chapter(row.at, event.actor, "retire"))
                known = None
            for made in event.devices:
                if made.id == device:
                    chapters.extend(_compare(row.at, event.actor, known, made))
                    known = made
        elif isinstance(event, SilenceChange) and event.silence is not None and event.silence.device == device:
            silence = event.silence
            chapters.append(Chapter(row.at, event.actor, silence.kind, "", silence.reason))
    return chapters[::-1]


def _compare(at: int, who: str, before: Device | None, after: Device) -> Iterator[Chapter]:
    """What differs, most telling first. A change that changed nothing (a new password) is none."""
    if before is None:
        yield Chapter(at, who, "register", "", str(after.attributes.get(SERIAL, "")) or after.profile)
        if after.state is DeviceState.COMMISSIONING:
            yield Chapter(at, who, "test")
        return
    old, new = (str(device.attributes.get(SERIAL, "")) for device in (before, after))
    if old != new or before.profile != after.profile:
        yield Chapter(at, who, "replace", old or before.profile, new or after.profile)
    if before.place != after.place:
        yield Chapter(at, who, "move", before.place, after.place)
    if before.name != after.name:
        yield Chapter(at, who, "rename", before.name, after.name)
    if before.address != after.address or before.source != after.source:
        yield Chapter(at, who, "change", f"{before.source} {before.address}", f"{after.source} {after.address}")
    if any(before.attributes.get(name) != after.attributes.get(name) for name in CAMERA_ATTRIBUTES):
        yield Chapter(at, who, "camera")  # how it is reached is not for all who see its history
    if after.state is DeviceState.COMMISSIONING and before.state_until != after.state_until:
        yield Chapter(at, who, "test")
    elif before.state is not after.state and after.state is DeviceState.ACTIVE:
        yield Chapter(at, who, "end_test")
