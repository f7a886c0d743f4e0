"""What a community's engine knows, as plain values: the content of a checkpoint, and the cursors of its sources."""

from __future__ import annotations

from array import array
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.model import (
    Community,
    CursorMove,
    Device,
    Grid,
    Incident,
    Place,
    Responsible,
    Silence,
    Source,
)
from gateway.core.rule import WatchState

SCHEMA: Final = 2
"""Version of this encoding. A checkpoint of another version is not read: the journal before it is fed again."""

REMEMBERED: Final = 512
"""Digests that a cursor remembers: many times the 32 alarm or 8 telemetry messages that a source has in flight."""

GAP_LIMIT: Final = 100_000
"""A seq further ahead than this is no gap but a forgery or a fault of the source."""

OPEN_LIMIT: Final = 256
"""More messages than this above a gap, and the gap is closed as a loss: no source has so many in flight."""


class CellState(Struct, array_like=True):
    """A reading's last two values, and its windows as dumped."""

    name: str
    at: int
    value: float | bool | str | None
    prev: float | bool | str | None
    windows: dict[str, list[object]]


class EventCellState(Struct, array_like=True):
    """When an event was last seen, and its windows as dumped."""

    device: str
    kind: str
    at: int
    windows: dict[str, list[object]]


class HeardState(Struct, array_like=True):
    """When a device was last heard of."""

    device: str
    at: int
    excused: int


class CursorState(Struct, array_like=True):
    """A cursor, with the digests that it remembers by seq."""

    source: str
    spool: str
    lane: str
    contiguous: int
    above: list[int]
    lost: int
    digests: dict[int, int]


class SourceState(Struct, array_like=True):
    """``former`` are earlier connections; ``out_since`` is when the source went out of reach; ``hidden``
    are the devices whose silence that explains; ``outage`` is its incident; for ``lag`` and ``behind_until`` see the
    registry."""

    source: str
    connection: str
    former: list[str]
    out_since: int | None
    hidden: list[str]
    outage: str | None
    lag: int | None = None
    behind_until: int = 0


class Held(Struct, array_like=True):
    """The last value that a device not yet registered sent, fed when it is."""

    source: str
    name: str
    value: float | bool | str
    unit: str | None
    at: int


class Swelling(Struct, array_like=True):
    """An incident that has changed silently: when it is written, and how it stood when that began."""

    incident: str
    flush_at: int
    members: int
    flaps: int


class CommunityState(Struct, omit_defaults=True):
    """Everything that an engine needs to go on exactly where it stood."""

    community: Community
    now: int = 0
    grace_until: int = 0
    blind_since: int = 0
    places: list[Place] = []
    sources: list[Source] = []
    devices: list[Device] = []
    lists: dict[str, list[str]] = {}
    grids: list[Grid] = []
    responsible: list[Responsible] = []
    silences: list[Silence] = []
    away: list[str] = []
    overrides: dict[str, str] = {}
    heard: list[HeardState] = []
    cells: list[CellState] = []
    events: list[EventCellState] = []
    watches: list[WatchState] = []
    incidents: list[Incident] = []
    commands: dict[str, str] = {}
    swelling: list[Swelling] = []
    clears: dict[str, list[int]] = {}
    openings: list[int] = []
    presence: list[SourceState] = []
    cursors: list[CursorState] = []
    held: list[Held] = []
    presses: list[str] = []
    day: str = ""
    number: int = 0


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(CommunityState)


def encode_state(state: CommunityState) -> bytes:
    """The bytes of a checkpoint."""
    return _encoder.encode(state)


def decode_state(data: bytes) -> CommunityState:
    """A checkpoint's bytes, read back."""
    return _decoder.decode(data)


class Cursor:
    """Which messages of one (source, spool, lane) are in: all up to ``contiguous``, and those in ``above``.

    The digests of the newest ones tell a repeat (the same content again) from a conflict (a restored disk)."""

    __slots__ = ("_digests", "_seqs", "above", "contiguous", "lane", "lost", "source", "spool")

    def __init__(self, source: str, spool: str, lane: str) -> None:
        self.source = source
        self.spool = spool
        self.lane = lane
        self.contiguous = 0
        self.above: set[int] = set()
        self.lost = 0
        self._seqs = array("q", bytes(8 * REMEMBERED))
        self._digests = array("q", bytes(8 * REMEMBERED))

    def admit(self, seq: int, digest: int, floor: int) -> str:
        """``fresh``, ``repeat``, ``conflict`` (known, other content), ``forgotten`` (known, content not remembered),
        or ``far`` (implausibly far ahead of what the source holds)."""
        if seq > self.contiguous and seq not in self.above:
            return "fresh" if seq - max(self.contiguous, floor) <= GAP_LIMIT else "far"
        slot = seq % REMEMBERED
        if self._seqs[slot] != seq:
            return "forgotten"
        return "repeat" if self._digests[slot] == digest else "conflict"

    def take(self, seq: int, digest: int, floor: int) -> None:
        """Marks a fresh message as in, and closes the gaps that the source no longer holds, as losses."""
        slot = seq % REMEMBERED
        self._seqs[slot] = seq
        self._digests[slot] = digest
        if seq == self.contiguous + 1 and not self.above and floor <= seq:
            self.contiguous = seq
            return
        self.above.add(seq)
        if len(self.above) > OPEN_LIMIT:
            floor = max(floor, min(self.above))
        if floor > self.contiguous + 1:
            closed = min(floor, seq + 1) - 1
            known = {s for s in self.above if s <= closed}
            self.lost += closed - self.contiguous - len(known)
            self.above -= known
            self.contiguous = closed
        while self.contiguous + 1 in self.above:
            self.contiguous += 1
            self.above.discard(self.contiguous)

    def move(self) -> CursorMove:
        above = tuple(sorted(self.above)) if self.above else ()
        return CursorMove(self.source, self.spool, self.lane, self.contiguous, above, self.lost)

    def dump(self) -> CursorState:
        digests = {seq: self._digests[i] for i, seq in enumerate(self._seqs) if seq}
        return CursorState(self.source, self.spool, self.lane, self.contiguous, sorted(self.above), self.lost, digests)

    @classmethod
    def load(cls, state: CursorState) -> Cursor:
        cursor = cls(state.source, state.spool, state.lane)
        cursor.contiguous = state.contiguous
        cursor.above = set(state.above)
        cursor.lost = state.lost
        for seq, digest in state.digests.items():
            cursor._seqs[seq % REMEMBERED] = seq
            cursor._digests[seq % REMEMBERED] = digest
        return cursor
