"""What an agent has heard and the gateway has not yet receipted, on the disk: one SQLite file, two lanes.

**Taken means durable.** When `Spool.append_all` returns, what it was given is fsynced. Each lane counts its messages,
and a number is never given out again, not even when all messages are gone. What was stamped once never changes: a
message read from here and sent again differs in ``sent_at`` and ``floor`` alone.

**Room.** The file never grows beyond ``max_bytes`` (the log beside it has some MiB more at most). It grows step by
step, and only the step can find the disk full: pages that the file has already are enough to write, to settle and to
check in, so a disk that others fill stops nothing but the growing. ``alarm_reserve_bytes`` of the file are held by
ballast that only an alarm may throw off. When there is no room, telemetry goes, oldest first, and each reading that
goes is counted in the same transaction. An alarm is never let go; when nothing is left to make room for it, it is not
taken, and the device hears so.

**Age** is counted in time that the agent ran, by a clock that only goes forward: a wall clock that jumps by years ages
nothing.

**A disk copied back.** The numbers given out since the copy was made would be given out twice, and the gateway would
take the second messages for repeats of the first. So what is appended after a start is in doubt until the gateway's
first receipt: of the messages in doubt only the first is handed out. A receipt that knows more than this file ever
offered, or that refuses a number as known with other content, proves a copy. Then the spool takes a new id and stamps
all that it still holds anew, from 1. Nothing is lost by that; what was under way at that moment may arrive twice.

**A file that is torn** is moved aside, under a name with ``.broken-``, for a person to look at; what is legible in it
goes into a new file with a new id.

Calls come one at a time, from any thread. Times are ``int`` milliseconds.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from edge.ports import NotTaken
from edge.spool_file import PAGE, RESERVE_LEAST, SpoolFile, checksum, is_full, is_sound
from gateway.errors import GatewayError
from gateway.wire import (
    OLDEST_S,
    SEQ_LIMIT,
    Lane,
    Measurement,
    Message,
    Quarantine,
    Receipt,
    Signal,
    decode,
    encode_message,
    topic_of,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_MIB: Final = 1024 * 1024

_PACK_PAGES: Final = 16
"""What closing a pack may need beside what it sets free."""

PACK_BYTES: Final = 32 * 1024
"""A pack is closed before it is larger, as it lies in the spool; as JSON no text is more than six times as long."""

FORGOTTEN: Final = "seq-forgotten"
OF_THE_PLACE: Final = frozenset({"seq-conflict", FORGOTTEN, "seq-far"})
"""Reasons to reject that speak of a message's number and not of its content: the content is kept and stamped anew."""

OF_THE_SOURCE: Final = frozenset({"too-many-spools"})
"""Reasons to reject that a person mends at the gateway: the message stays as it is, and is sent again."""


class SpoolDown(Exception):
    """The disk does not let itself be read or written at the moment. Nothing is lost by it; try again later."""


class Unfit(ValueError):
    """Content that the gateway could not read as a message: it would take its neighbours in a pack with it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Limits(Struct, frozen=True):
    """How much the spool holds, and how it packs.

    ``max_bytes`` is the most that the file takes, ``alarm_reserve_bytes`` how much of it telemetry never gets.
    Telemetry that has waited for ``max_age_ms`` of the agent's running time goes. Readings are packed into one message
    for ``pack_ms``, and ``pack_readings`` of them at most. The same alarm again within ``repeat_ms`` is one."""

    max_bytes: int = 64 * _MIB
    alarm_reserve_bytes: int = 4 * _MIB
    max_age_ms: int = 7 * 86_400_000
    pack_readings: int = 200
    pack_ms: int = 5_000
    repeat_ms: int = 1_000

    def __post_init__(self) -> None:
        if self.max_bytes < 2 * RESERVE_LEAST:
            raise ValueError(f"max_bytes is {self.max_bytes}; give the spool at least {2 * RESERVE_LEAST}")
        if not RESERVE_LEAST <= self.alarm_reserve_bytes <= self.max_bytes // 2:
            raise ValueError(
                f"alarm_reserve_bytes is {self.alarm_reserve_bytes}; "
                f"give {RESERVE_LEAST} to half of max_bytes, {self.max_bytes // 2}"
            )
        if self.max_age_ms < 1 or self.pack_ms < 0 or self.repeat_ms < 0:
            raise ValueError(
                "max_age_ms, pack_ms and repeat_ms are spans of time; give none below zero, max_age_ms above"
            )
        if not 1 <= self.pack_readings <= 1000:
            raise ValueError(f"pack_readings is {self.pack_readings}; give 1 to 1000")


class Entry(Struct, frozen=True):
    """What is to be taken in: signals and measurements that were heard at ``taken_at`` by the agent's clock."""

    lane: Lane
    taken_at: int
    signals: tuple[Signal, ...] = ()
    measurements: tuple[Measurement, ...] = ()


class Stored(Struct, frozen=True):
    """A message as it lies in the spool. ``sends`` is how often it was sent before, ``since`` the steady time at which
    it was taken in; None for an earlier run, whose steady time was another."""

    spool: str
    lane: Lane
    seq: int
    taken_at: int
    sends: int
    signals: tuple[Signal, ...]
    measurements: tuple[Measurement, ...]
    since: int | None = None

    def stamp(self, community: str, source: str, sent_at: int, floor: int) -> Message:
        """The message as it is sent at ``sent_at``: the same content each time, to the byte."""
        return Message(
            community,
            source,
            self.lane,
            self.spool,
            self.seq,
            min(floor, self.seq),
            sent_at,
            self.taken_at,
            self.signals,
            list(self.measurements),
            (),
            0,
        )


class Settled(Struct, frozen=True):
    """What a receipt did. ``committed`` and ``rejected`` (with the reason) are out of the spool. When the spool was
    ``renewed``, all ids and numbers that were known of it are void: ask `Spool.waiting` again from 0."""

    committed: tuple[Stored, ...] = ()
    rejected: tuple[tuple[Stored, str], ...] = ()
    renewed: bool = False


class LaneState(Struct, frozen=True):
    """A lane in figures. ``depth`` counts messages without a receipt, those put aside (``parked``) among them.

    ``dropped`` readings were let go since the file was made, for want of room or for their age; ``dropped_sent`` of
    them had been sent, and may have arrived. ``repeats`` are alarms that were one with the alarm before them."""

    depth: int
    parked: int
    floor: int
    last_seq: int
    dropped: int
    dropped_sent: int
    repeats: int


class _Draft(Struct, frozen=True):
    """An entry made ready: ``is_single`` must not share a pack, ``oldest`` is its lowest offset."""

    lane: Lane
    taken_at: int
    body: bytes
    readings: int
    is_single: bool
    oldest: int


# --- content as bytes ---------------------------------------------------------------------------------------------

_Content = tuple[
    tuple[tuple[str, str, dict[str, float | int | bool | str]], ...],
    tuple[tuple[str, float | bool | str, str | None, int, float | None], ...],
]

# In a fixed order, so that the same alarm is the same bytes.
_encoder: Final = msgspec.msgpack.Encoder(order="deterministic")
_decoder: Final = msgspec.msgpack.Decoder(_Content)


def _encode(signals: Sequence[Signal], measurements: Sequence[Measurement]) -> bytes:
    return _encoder.encode(
        (
            [(s.device, s.kind, s.data) for s in signals],
            [(m.name, m.value, m.unit, m.offset, m.time) for m in measurements],
        )
    )


def _decode(body: bytes) -> tuple[tuple[Signal, ...], tuple[Measurement, ...]]:
    signals, measurements = _decoder.decode(body)
    return tuple(Signal(*s) for s in signals), tuple(Measurement(*m) for m in measurements)


def _draft(entry: Entry, pack_readings: int) -> list[_Draft]:
    """An entry's drafts: one, but for telemetry that is too much for one pack. Raises Unfit."""
    found = entry.measurements
    parts = [found]
    if entry.lane is Lane.TELEMETRY and len(found) > pack_readings:
        parts = [found[i : i + pack_readings] for i in range(0, len(found), pack_readings)]
    drafts = []
    for index, part in enumerate(parts):
        signals = entry.signals if index == 0 else ()
        try:
            body = _encode(signals, part)
            _check_message(entry, *_decode(body))
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, Unfit):
                raise
            raise Unfit("bad-content", str(error)) from None
        # An event has no time of its own on the wire, nor has a reading that shows its device's time: they keep the
        # pack's, so that they are given a pack of their own.
        is_single = bool(signals) or any(m.time is not None for m in part)
        oldest = min((m.offset for m in part), default=0)
        drafts.append(_Draft(entry.lane, entry.taken_at, body, len(signals) + len(part), is_single, oldest))
    return drafts


def check_fit(entry: Entry) -> None:
    """Whether the gateway could read it as a message. Raises Unfit."""
    _draft(entry, max(1, len(entry.measurements)))


def _check_message(entry: Entry, signals: tuple[Signal, ...], measurements: tuple[Measurement, ...]) -> None:
    """Reads it as the gateway will. A bad record is the gateway's to see and to count; what would be no message is not
    taken."""
    stored = Stored("0" * 16, entry.lane, SEQ_LIMIT - 1, entry.taken_at, 0, signals, measurements)
    payload = encode_message(stored.stamp("c", "s", entry.taken_at, SEQ_LIMIT - 1))
    read = decode(topic_of("c", "s", entry.lane), payload)
    if isinstance(read, Quarantine):
        raise Unfit(read.reason, read.detail)


# --- the spool ----------------------------------------------------------------------------------------------------


class _Repeat(Struct):
    """An alarm of the last second: its number, and when it was taken, by the agent's clock and by its running time."""

    seq: int
    taken_at: int
    ran_at: int


class _Loose(Struct):
    """Readings that no pack has yet."""

    id: int
    taken_at: int
    ran_at: int
    readings: int
    is_single: int
    oldest: int
    crc: int
    body: bytes


_SELECT: Final = "SELECT seq, taken_at, sends, parked, ran_at, crc, body FROM message WHERE lane = ?"
_Row = tuple[int, int, int, int, int, int, bytes]


class Spool:
    """The spool in the file ``path``, made when it is not there. ``steady`` gives milliseconds that only go forward.

    Raises GatewayError for what a person must mend: a folder that cannot be written, a file that another process has.
    Later, `SpoolDown` says that the disk fails at the moment; the next call tries again with the file as it is then.
    ``id`` may change with any call (see the module); a number belongs to the id that its `Stored` names."""

    def __init__(self, path: Path, limits: Limits, steady: Callable[[], int]) -> None:
        self.path = path
        self.limits = limits
        self.id = ""
        self._steady = steady
        self._file = SpoolFile(path, limits.max_bytes, limits.alarm_reserve_bytes, steady)
        self._trusted: set[Lane] = set()
        self._recent: dict[bytes, _Repeat] = {}
        self._ran = 0
        self._opened_at = 0
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise GatewayError(
                    "spool-in-use",
                    "another process has the spool open",
                    str(path),
                    "stop the other agent, or give this one a spool of its own",
                ) from error
            raise GatewayError(
                "spool-unusable",
                f"the spool cannot be opened ({error})",
                str(path),
                "make its folder writable, with room on its disk",
            ) from error

    def close(self) -> None:
        """Ends in good order. A spool that is closed opens again at the next call."""
        self._file.close()

    # --- taking in ---------------------------------------------------------------------------------------------------

    def append(
        self,
        lane: Lane,
        taken_at: int,
        signals: tuple[Signal, ...] = (),
        measurements: tuple[Measurement, ...] = (),
    ) -> int:
        """`append_all` of one entry."""
        return self.append_all([Entry(lane, taken_at, signals, measurements)])[0]

    def append_all(self, entries: Sequence[Entry]) -> list[int]:
        """Takes entries in, all or none; they are on the disk when it returns.

        Returns each alarm's number; a repeat of an alarm within ``repeat_ms`` is counted and gets the number of the
        alarm that it repeats. Telemetry gets its number with its pack; here it is 0. Raises NotTaken when the disk is
        full or fails, and Unfit for content that the gateway could not read; then nothing of all is taken."""
        drafts = [_draft(entry, self.limits.pack_readings) for entry in entries]
        try:
            seqs = self._guard(lambda: self._take([draft for parts in drafts for draft in parts]))
        except SpoolDown as error:
            raise NotTaken(str(error)) from error
        found, index = [], 0
        for parts in drafts:
            found.append(seqs[index])
            index += len(parts)
        return found

    def _take(self, drafts: list[_Draft]) -> list[int]:
        alarms = _count_pages([draft for draft in drafts if draft.lane is Lane.ALARM])
        others = _count_pages([draft for draft in drafts if draft.lane is Lane.TELEMETRY])
        self._file.grow(alarms + others)
        for attempt in range(4):
            # An estimate that was too low is doubled. In the end an alarm must not fail for the telemetry beside it.
            room = None if attempt == 3 else others << attempt
            fresh: dict[bytes, _Repeat] = {}
            try:
                with self._file.change() as db:
                    seqs = self._insert(db, drafts, alarms << attempt, room, fresh)
            except sqlite3.OperationalError as error:
                if not is_full(error) or attempt == 3:
                    raise
                # The log may have come to the end of its room.
                self._file.check_in()
            else:
                self._recent |= fresh
                return seqs
        raise AssertionError("unreachable")

    def _insert(
        self,
        db: sqlite3.Connection,
        drafts: list[_Draft],
        alarm_pages: int,
        other_pages: int | None,
        fresh: dict[bytes, _Repeat],
    ) -> list[int]:
        """In a transaction: takes drafts in, in so many pages for the alarms and for the others among them. Telemetry
        without room, or with None, is let go at once. What was stamped is put into ``fresh``."""
        ran_at, span = self._run_time(), self.limits.repeat_ms
        self._recent = {body: alarm for body, alarm in self._recent.items() if ran_at - alarm.ran_at < span}
        seqs = [0] * len(drafts)
        if alarm_pages:
            self._make_room(db, alarm_pages, is_alarm=True)
        for index, draft in enumerate(drafts):
            if draft.lane is not Lane.ALARM:
                continue
            first = fresh.get(draft.body) or self._recent.get(draft.body)
            if first is not None and abs(draft.taken_at - first.taken_at) < span:
                db.execute("UPDATE lane SET repeats = repeats + 1 WHERE name = 'alarm'")
                seqs[index] = first.seq
                continue
            seqs[index] = self._stamp(db, Lane.ALARM, draft.taken_at, ran_at, draft.readings, draft.body)
            fresh[draft.body] = _Repeat(seqs[index], draft.taken_at, ran_at)
        self._drop_old(db, ran_at)
        telemetry = [draft for draft in drafts if draft.lane is Lane.TELEMETRY]
        if not telemetry:
            return seqs
        if other_pages is None or not self._make_room(db, other_pages, is_alarm=False):
            for draft in telemetry:
                _count_dropped(db, draft.readings, 0)
            return seqs
        db.executemany(
            "INSERT INTO loose (taken_at, ran_at, readings, is_single, oldest, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (d.taken_at, ran_at, d.readings, d.is_single, d.oldest, checksum(d.taken_at, d.body), d.body)
                for d in telemetry
            ],
        )
        if self._is_pack_due(db, ran_at):
            self._close_packs(db, ran_at)
        return seqs

    def _stamp(self, db: sqlite3.Connection, lane: Lane, taken_at: int, ran_at: int, readings: int, body: bytes) -> int:
        """In a transaction: gives a message its number, and keeps it."""
        seq = self._next_seq(db, lane)
        db.execute(
            "INSERT INTO message (lane, seq, taken_at, ran_at, readings, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (lane, seq, taken_at, ran_at, readings, checksum(taken_at, body), body),
        )
        return seq

    def _next_seq(self, db: sqlite3.Connection, lane: Lane) -> int:
        """In a transaction: the next number of a lane."""
        doubt = "" if lane in self._trusted else ", doubtful_from = coalesce(doubtful_from, last_seq + 1)"
        [(seq,)] = db.execute(
            f"UPDATE lane SET last_seq = last_seq + 1{doubt} WHERE name = ? RETURNING last_seq",  # noqa: S608
            (lane,),
        ).fetchall()
        return int(seq)

    # --- packing -----------------------------------------------------------------------------------------------------

    def _is_pack_due(self, db: sqlite3.Connection, ran_at: int) -> bool:
        readings, since = db.execute("SELECT total(readings), min(ran_at) FROM loose").fetchone()
        return since is not None and self._is_due(readings, since, ran_at)

    def _is_due(self, readings: int, since: int, ran_at: int) -> bool:
        return readings >= self.limits.pack_readings or ran_at - since >= self.limits.pack_ms

    def _close_packs(self, db: sqlite3.Connection, ran_at: int) -> None:
        """In a transaction: makes messages of the loose readings, but of the last ones only when their pack is full or
        has waited for long enough."""
        pack: list[_Loose] = []
        rows = db.execute("SELECT id, taken_at, ran_at, readings, is_single, oldest, crc, body FROM loose ORDER BY id")
        for row in rows.fetchall():
            loose = _Loose(*row)
            if pack and not self._is_one_pack([*pack, loose]):
                self._close_pack(db, pack)
                pack = []
            pack.append(loose)
        if pack and self._is_due(sum(loose.readings for loose in pack), pack[0].ran_at, ran_at):
            self._close_pack(db, pack)

    def _is_one_pack(self, pack: list[_Loose]) -> bool:
        """Whether they may share a pack: on the wire all times are offsets from the pack's own, never positive and of a
        day at most."""
        last = pack[-1].taken_at
        return (
            not any(loose.is_single for loose in pack)
            and pack[-2].taken_at <= last
            and min(loose.taken_at + loose.oldest for loose in pack) >= last - OLDEST_S * 1000
            and sum(loose.readings for loose in pack) <= self.limits.pack_readings
            and sum(len(loose.body) for loose in pack) <= PACK_BYTES
        )

    def _close_pack(self, db: sqlite3.Connection, pack: list[_Loose]) -> None:
        last = pack[-1].taken_at
        signals: list[Signal] = []
        measurements: list[Measurement] = []
        for loose in pack:
            if not is_sound(loose.taken_at, loose.crc, loose.body):
                log.error(
                    "%d readings in the spool %s are no longer legible; they are dropped", loose.readings, self.path
                )
                _count_dropped(db, loose.readings, 0)
                continue
            own, found = _decode(loose.body)
            signals += own
            shift = loose.taken_at - last
            measurements += [replace(m, offset=m.offset + shift) for m in found] if shift else found
        db.executemany("DELETE FROM loose WHERE id = ?", [(loose.id,) for loose in pack])
        count = len(signals) + len(measurements)
        if count:
            self._stamp(db, Lane.TELEMETRY, last, pack[-1].ran_at, count, _encode(signals, measurements))

    # --- room --------------------------------------------------------------------------------------------------------

    def _make_room(self, db: sqlite3.Connection, pages: int, *, is_alarm: bool) -> bool:
        """In a transaction: frees pages; False when it could not."""
        while self._file.count_free() < pages and _drop_oldest(db):
            pass
        while is_alarm and self._file.count_free() < pages and self._file.throw_off():
            pass
        return self._file.count_free() >= pages

    def _drop_old(self, db: sqlite3.Connection, ran_at: int) -> None:
        """In a transaction: lets telemetry go that has waited for too long."""
        while True:
            oldest = db.execute("SELECT ran_at FROM message WHERE lane = 'telemetry' ORDER BY seq LIMIT 1").fetchone()
            if oldest is None or ran_at - oldest[0] < self.limits.max_age_ms:
                return
            _drop_oldest(db)

    # --- sending and settling ----------------------------------------------------------------------------------------

    def waiting(self, lane: Lane, after_seq: int = 0, limit: int = 32) -> list[Stored]:
        """The next messages of a lane above ``after_seq``, in order. Packs whose time has come are closed first.

        While numbers are in doubt (see the module), there may be fewer than there are. Raises SpoolDown."""
        return self._guard(lambda: self._find_waiting(self._file.db, lane, after_seq, limit))

    def _find_waiting(self, db: sqlite3.Connection, lane: Lane, after_seq: int, limit: int) -> list[Stored]:
        ran_at = self._run_time()
        if lane is Lane.TELEMETRY and self._is_pack_due(db, ran_at):
            self._file.grow(_PACK_PAGES)
            try:
                with self._file.change():
                    self._close_packs(db, ran_at)
            except sqlite3.OperationalError as error:
                # The messages that there are can be sent all the same.
                if not is_full(error):
                    raise
                self._file.check_in()
        most = self._find_most_known(db, lane)
        rows: list[_Row] = db.execute(
            f"{_SELECT} AND seq > ? AND seq <= ? AND NOT parked ORDER BY seq LIMIT ?",
            (lane, after_seq, SEQ_LIMIT if most is None else most, limit),
        ).fetchall()
        found = [self._read(lane, row) for row in rows]
        for row, stored in zip(rows, found, strict=True):
            if stored is None:
                log.error("message %d of %s in the spool %s is not legible; it is put aside", row[0], lane, self.path)
                self._put_aside(lane, row[0])
        return [stored for stored in found if stored is not None]

    def _read(self, lane: Lane, row: _Row) -> Stored | None:
        seq, taken_at, sends, _, ran_at, crc, body = row
        if not is_sound(taken_at, crc, body):
            return None
        since = self._opened_at + ran_at - self._ran if ran_at >= self._ran else None
        return Stored(self.id, lane, seq, taken_at, sends, *_decode(body), since)

    def _find_most_known(self, db: sqlite3.Connection, lane: Lane) -> int | None:
        """While numbers are in doubt: the highest that may be handed out, and that the gateway can know of this file.
        Of those in doubt it is the first, and only when nothing older is left to ask the gateway by."""
        doubtful_from, offered = db.execute(
            "SELECT doubtful_from, offered FROM lane WHERE name = ?", (lane,)
        ).fetchone()
        if lane in self._trusted or doubtful_from is None:
            return None
        return max(int(doubtful_from) - 1, _find_lowest(db, lane), int(offered))

    def note_sent(self, lane: Lane, seqs: Sequence[int]) -> None:
        """Counts a send of each message. Call it before they are published. Raises SpoolDown."""

        def note() -> None:
            is_in_doubt = self._find_most_known(self._file.db, lane) is not None
            # A power cut may take the count back, but never what the gateway can know of this file.
            with self._file.change(is_lasting=is_in_doubt) as db:
                db.executemany(
                    "UPDATE message SET sends = sends + 1 WHERE lane = ? AND seq = ?", [(lane, seq) for seq in seqs]
                )
                db.execute("UPDATE lane SET offered = max(offered, ?) WHERE name = ?", (max(seqs), lane))

        if seqs:
            self._guard(note)

    def park(self, lane: Lane, seq: int) -> None:
        """Puts a message aside that the gateway does not receipt, and gives up its place: the floor passes it, and it
        is handed out by `parked` alone. Raises SpoolDown."""
        self._guard(lambda: self._put_aside(lane, seq))

    def parked(self, lane: Lane, limit: int = 32) -> list[Stored]:
        """Messages that were put aside, those first that were sent least often: to ask the gateway for each by sending
        it once. When it answers that it never had it, the message takes a new place at the end of its lane (`settle`).
        None while numbers are in doubt. Raises SpoolDown."""
        return self._guard(lambda: self._find_parked(self._file.db, lane, limit))

    def _find_parked(self, db: sqlite3.Connection, lane: Lane, limit: int) -> list[Stored]:
        if self._find_most_known(db, lane) is not None:
            return []
        rows: list[_Row] = db.execute(f"{_SELECT} AND parked ORDER BY sends, seq LIMIT ?", (lane, limit)).fetchall()
        return [stored for row in rows if (stored := self._read(lane, row)) is not None]

    def _put_aside(self, lane: Lane, seq: int) -> None:
        with self._file.change() as db:
            db.execute("UPDATE message SET parked = 1 WHERE lane = ? AND seq = ?", (lane, seq))

    def settle(self, receipt: Receipt) -> Settled:
        """Takes out what a receipt settles; one for another spool settles nothing. Raises SpoolDown: then all stays,
        and is receipted again when it is sent again."""
        if receipt.spool != self.id or receipt.lane not in set(Lane):
            return Settled()
        return self._guard(lambda: self._settle(self._file.db, Lane(receipt.lane), receipt))

    def _settle(self, db: sqlite3.Connection, lane: Lane, receipt: Receipt) -> Settled:
        if receipt.spool != self.id:
            return Settled()
        reasons = dict(receipt.rejected)
        rows = _find_covered(db, lane, receipt)
        [(last, doubtful_from)] = db.execute(
            "SELECT last_seq, doubtful_from FROM lane WHERE name = ?", (lane,)
        ).fetchall()
        most = self._find_most_known(db, lane)
        # What the floor passed and the gateway never had.
        passed = {row[0] for row in rows if row[3] and reasons.get(row[0]) == FORGOTTEN}
        misplaced = {row[0] for row in rows if reasons.get(row[0]) in OF_THE_PLACE} - passed
        is_copy = bool(misplaced) or max(receipt.seq, *receipt.above, 0) > (last if most is None else most)
        kept = misplaced | passed | {row[0] for row in rows if reasons.get(row[0]) in OF_THE_SOURCE}
        if is_copy and most is not None:
            # What the gateway knows under these numbers was said by the file of which this is a copy.
            kept |= {row[0] for row in rows if row[0] >= doubtful_from}
        gone = [row for row in rows if row[0] not in kept]
        stored = [one for row in gone if (one := self._read(lane, row)) is not None]
        fresh_id = secrets.token_hex(8)
        # A number that was given out must not be given out again.
        with self._file.change(is_lasting=is_copy or bool(passed)):
            db.executemany("DELETE FROM message WHERE lane = ? AND seq = ?", [(lane, row[0]) for row in gone])
            if is_copy:
                _renew(db, fresh_id)
            elif passed:
                self._move_to_end(db, lane, sorted(passed))
            if gone and not is_copy and lane not in self._trusted:
                db.execute("UPDATE lane SET doubtful_from = NULL WHERE name = ?", (lane,))
        if is_copy:
            log.error(
                "the gateway knows more of spool %s than the file %s ever sent, so it is a copy that was put back; "
                "what it holds goes on under the new id %s",
                self.id,
                self.path,
                fresh_id,
            )
            self.id = fresh_id
            self._trusted = set(Lane)
            self._recent.clear()
        elif gone:
            self._trusted.add(lane)
        return Settled(
            tuple(one for one in stored if one.seq not in reasons),
            tuple((one, reasons[one.seq]) for one in stored if one.seq in reasons),
            is_copy,
        )

    def _move_to_end(self, db: sqlite3.Connection, lane: Lane, seqs: Sequence[int]) -> None:
        """In a transaction: gives messages the next numbers of their lane, in place of their own."""
        for seq in seqs:
            fresh = self._next_seq(db, lane)
            db.execute(
                "UPDATE message SET seq = ?, sends = 0, parked = 0 WHERE lane = ? AND seq = ?", (fresh, lane, seq)
            )
            log.warning("message %d of %s never reached the gateway; it is sent again as %d", seq, lane, fresh)

    def lain(self, stored: Stored) -> int | None:
        """For how many steady ms a message has lain here; None when it was taken in by an earlier run."""
        return None if stored.since is None else self._steady() - stored.since

    # --- figures -----------------------------------------------------------------------------------------------------

    def floor(self, lane: Lane) -> int:
        """The lowest number that the lane still sends; 0 when it has none. Raises SpoolDown."""
        return self._guard(lambda: _find_lowest(self._file.db, lane))

    def depth(self, lane: Lane) -> int:
        """How many messages of the lane have no receipt. Raises SpoolDown."""
        return self.describe(lane).depth

    def describe(self, lane: Lane) -> LaneState:
        """The lane in figures, for a status. Raises SpoolDown."""
        return self._guard(lambda: self._describe(self._file.db, lane))

    def _describe(self, db: sqlite3.Connection, lane: Lane) -> LaneState:
        depth, parked = db.execute("SELECT count(*), total(parked) FROM message WHERE lane = ?", (lane,)).fetchone()
        if lane is Lane.TELEMETRY:
            depth += db.execute("SELECT EXISTS (SELECT 1 FROM loose)").fetchone()[0]
        counts = db.execute(
            "SELECT last_seq, dropped, dropped_sent, repeats FROM lane WHERE name = ?", (lane,)
        ).fetchone()
        return LaneState(depth, int(parked), _find_lowest(db, lane), *counts)

    # --- the file ----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Memory holds of a file only what is lost without harm: this makes it anew."""
        is_new = self._file.open()
        db = self._file.db
        [(self.id,)] = db.execute("SELECT id FROM spool").fetchall()
        [(self._ran,)] = db.execute(
            "SELECT coalesce(max(ran_at) + 1, 0) FROM (SELECT ran_at FROM message UNION ALL SELECT ran_at FROM loose)"
        ).fetchall()
        self._opened_at = self._steady()
        # Of a new id nobody but this file has ever heard.
        self._trusted = set(Lane) if is_new else set()
        self._recent.clear()

    def _guard(self, work: Callable[[], T]) -> T:
        """Does it, and lets go of a file that failed: the next call opens it anew, as after a crash."""
        try:
            if not self._file.is_open:
                self._open()
            return work()
        except sqlite3.Error as error:
            if not is_full(error):
                self._file.close()
            raise SpoolDown(f"the spool {self.path} cannot be used: {error}") from error
        except (OSError, GatewayError, UnicodeDecodeError) as error:
            self._file.close()
            raise SpoolDown(str(error)) from error

    def _run_time(self) -> int:
        """For how long the agent has run while there was anything in the spool, and somewhat longer."""
        return self._ran + self._steady() - self._opened_at


def _count_pages(drafts: Sequence[_Draft]) -> int:
    """Pages that suffice for them: those of the table are half full at least, and the trees grow by a few."""
    if not drafts:
        return 0
    pages = sum(len(draft.body) + 120 for draft in drafts) // (PAGE // 2 - 100) + 5
    return pages + _PACK_PAGES if drafts[0].lane is Lane.TELEMETRY else pages


def _drop_oldest(db: sqlite3.Connection) -> bool:
    """In a transaction: lets the oldest telemetry go, and counts it. False when there is none."""
    gone = db.execute(
        "DELETE FROM message WHERE rowid = "
        "(SELECT rowid FROM message WHERE lane = 'telemetry' ORDER BY seq LIMIT 1) RETURNING readings, sends"
    ).fetchall()
    for readings, sends in gone:
        _count_dropped(db, readings, sends)
    return bool(gone)


def _count_dropped(db: sqlite3.Connection, readings: int, sends: int) -> None:
    db.execute(
        "UPDATE lane SET dropped = dropped + ?, dropped_sent = dropped_sent + ? WHERE name = 'telemetry'",
        (readings, readings if sends else 0),
    )


def _find_lowest(db: sqlite3.Connection, lane: Lane) -> int:
    """The lowest number that is not put aside; 0 when there is none."""
    found = db.execute("SELECT seq FROM message WHERE lane = ? AND NOT parked ORDER BY seq LIMIT 1", (lane,)).fetchone()
    return int(found[0]) if found is not None else 0


def _find_covered(db: sqlite3.Connection, lane: Lane, receipt: Receipt) -> list[_Row]:
    """The messages that a receipt settles. One that was put aside was passed over by the floor, so that all up to a
    number says nothing of it: it must be named."""
    rows: list[_Row] = db.execute(f"{_SELECT} AND seq <= ? AND NOT parked ORDER BY seq", (lane, receipt.seq)).fetchall()
    found = {row[0] for row in rows}
    for seq in sorted({*receipt.above, *(seq for seq, _ in receipt.rejected)} - found):
        rows += db.execute(f"{_SELECT} AND seq = ?", (lane, seq)).fetchall()
    return rows


def _renew(db: sqlite3.Connection, spool: str) -> None:
    """In a transaction: a new id, under which all that is held is numbered from 1, in its order."""
    db.execute("UPDATE spool SET id = ?", (spool,))
    for lane in Lane:
        rows = db.execute("SELECT rowid FROM message WHERE lane = ? ORDER BY seq", (lane,)).fetchall()
        # In this order each new number is free: it is not above the old one, and below the next.
        db.executemany(
            "UPDATE message SET seq = ?, sends = 0, parked = 0 WHERE rowid = ?",
            [(seq, rowid) for seq, (rowid,) in enumerate(rows, start=1)],
        )
        db.execute("UPDATE lane SET last_seq = ?, doubtful_from = NULL, offered = 0 WHERE name = ?", (len(rows), lane))
