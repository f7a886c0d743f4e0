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
import os
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from edge.ports import NotTaken
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
_PAGE: Final = 4096
_CHUNK: Final = 32
"""Pages. The file grows, and the ballast is thrown off, by so many at a time."""

_CHUNK_BYTES: Final = (_CHUNK - 1) * (_PAGE - 4) + 3000
"""A value that fills just so many pages: one of the table's own, in which there is no room for a second, and others
that each hold four bytes less than their size."""

_LOG_CHUNKS: Final = 8
"""The log is made so long at every start, and is checked in at half of it: it finds its room on a full disk, too."""

_PACK_PAGES: Final = 16
"""What closing a pack may need beside what it sets free."""

_GROW_AGAIN_MS: Final = 5_000
"""A disk that was full is not asked again at once."""

_APPLICATION: Final = 0x53504F4C
_VERSION: Final = 1

PACK_BYTES: Final = 32 * 1024
"""A pack is closed before it is larger, as it lies in the spool; as JSON no text is more than six times as long."""

OF_THE_PLACE: Final = frozenset({"seq-conflict", "seq-forgotten", "seq-far"})
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
        if self.max_bytes < 2 * _MIB:
            raise ValueError(f"max_bytes is {self.max_bytes}; give the spool at least {2 * _MIB}")
        if not _MIB <= self.alarm_reserve_bytes <= self.max_bytes // 2:
            raise ValueError(
                f"alarm_reserve_bytes is {self.alarm_reserve_bytes}; "
                f"give {_MIB} to half of max_bytes, {self.max_bytes // 2}"
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
    """A message as it lies in the spool. ``sends`` is how often it was sent before."""

    spool: str
    lane: Lane
    seq: int
    taken_at: int
    sends: int
    signals: tuple[Signal, ...]
    measurements: tuple[Measurement, ...]

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

    What was let go for want of room or for its age, since the file was made: ``dropped`` readings in all, in
    ``dropped_messages`` messages; ``dropped_sent`` of the readings had been sent, and may have arrived. ``repeats``
    are alarms that were one with the alarm before them."""

    depth: int
    parked: int
    floor: int
    last_seq: int
    dropped: int
    dropped_messages: int
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


class _Torn(Exception):
    """The file is no sound spool."""


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


def _sum(taken_at: int, body: bytes) -> int:
    """SQLite does not notice a bit that flips in a value; a press must not move to another button by it."""
    return zlib.crc32(body, taken_at & 0xFFFFFFFF)


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
            _check_fit(entry, *_decode(body))
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


def _check_fit(entry: Entry, signals: tuple[Signal, ...], measurements: tuple[Measurement, ...]) -> None:
    """Reads it as the gateway will. A bad record is the gateway's to see and to count; what would be no message is not
    taken."""
    stored = Stored("0" * 16, entry.lane, SEQ_LIMIT - 1, entry.taken_at, 0, signals, measurements)
    payload = encode_message(stored.stamp("c", "s", entry.taken_at, SEQ_LIMIT - 1))
    read = decode(topic_of("c", "s", entry.lane), payload)
    if isinstance(read, Quarantine):
        raise Unfit(read.reason, read.detail)


# --- the file -----------------------------------------------------------------------------------------------------

_SCHEMA: Final = f"""
CREATE TABLE spool (id TEXT NOT NULL) STRICT;
CREATE TABLE lane (
    name TEXT NOT NULL PRIMARY KEY,
    last_seq INTEGER NOT NULL DEFAULT 0,
    doubtful_from INTEGER,
    offered INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    dropped_messages INTEGER NOT NULL DEFAULT 0,
    dropped_sent INTEGER NOT NULL DEFAULT 0,
    repeats INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE message (
    lane TEXT NOT NULL,
    seq INTEGER NOT NULL,
    taken_at INTEGER NOT NULL,
    ran_at INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    sends INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0,
    crc INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (lane, seq)
) STRICT;
CREATE TABLE loose (
    id INTEGER PRIMARY KEY,
    taken_at INTEGER NOT NULL,
    ran_at INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    is_single INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE ballast (body BLOB NOT NULL) STRICT;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""
"""``loose`` are readings that no pack has yet. ``ran_at`` is the agent's running time, which age is judged by."""

_SELECT: Final = "SELECT seq, taken_at, sends, crc, body FROM message WHERE lane = ?"


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def _is_torn(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _sync_folder(path: Path) -> None:
    """Makes what was made, renamed and removed in a folder last."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _connect(path: Path) -> sqlite3.Connection:
    """The file, for this process alone: nothing is shared, so that no third file is needed beside the log."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    try:
        db.execute(f"PRAGMA page_size = {_PAGE}")
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise GatewayError(
                "spool-unusable", f"the disk takes no write-ahead log ({mode})", str(path), "put it on a local disk"
            )
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_CHUNKS * _CHUNK // 2}")
        db.execute(f"PRAGMA journal_size_limit = {2 * _LOG_CHUNKS * _CHUNK * _PAGE}")
        db.execute("PRAGMA cell_size_check = ON")
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> bool:
    """Makes the tables of a new file, or looks whether an old one is sound. Returns whether it is new. Raises _Torn."""
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
        _create(db)
        return True
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise _Torn("it is no spool")
    if version > _VERSION:
        raise GatewayError(
            "spool-newer", f"the spool is of version {version}, and this agent reads {_VERSION}", str(path),
            "start the newer agent",
        )  # fmt: skip
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _Torn(found)
    if db.execute("SELECT count(*) FROM spool").fetchone()[0] != 1:
        raise _Torn("it has no id")
    if {name for (name,) in db.execute("SELECT name FROM lane")} != set(Lane):
        raise _Torn("its lanes are gone")
    return False


def _create(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO spool VALUES (?)", (secrets.token_hex(8),))
    db.executemany("INSERT INTO lane (name) VALUES (?)", [(str(lane),) for lane in Lane])
    db.execute("COMMIT")


def _exchange(path: Path, why: str) -> None:
    """Puts a new file in the place of a torn one, with what is legible of it. At every moment either the old file or
    the complete new one is found by the next start."""
    new = _beside(path, ".new")
    with closing(_connect(new)) as db:
        _create(db)
        db.execute("BEGIN IMMEDIATE")
        saved = _salvage(path, db)
        db.execute("COMMIT")
    number = 1
    while (aside := _beside(path, f".broken-{number}")).exists():
        number += 1
    path.rename(aside)
    if (left := _beside(path, "-wal")).exists():
        left.rename(_beside(aside, "-wal"))
    new.rename(path)
    _sync_folder(path.parent)
    log.error(
        "the spool %s is torn (%s): it was moved aside to %s, and %d of its messages to a new spool; what else was in "
        "it is to be looked for there",
        path, why, aside.name, saved,
    )  # fmt: skip


def _finish_exchange(path: Path) -> None:
    """Ends an exchange that was cut off in the middle."""
    new = _beside(path, ".new")
    if not new.exists():
        return
    if path.exists():
        for ending in ("", "-wal", "-journal"):
            _beside(new, ending).unlink(missing_ok=True)
    else:
        # The old log would be taken for the new file's.
        _beside(path, "-wal").unlink(missing_ok=True)
        new.rename(path)
    _sync_folder(path.parent)


def _salvage(path: Path, into: sqlite3.Connection) -> int:
    """Copies what is legible into a new file, with numbers from 1; returns how many messages. What the gateway has
    already comes to it twice then: that is better than not at all."""
    saved = 0
    try:
        with closing(_connect(path)) as db:
            for row in _counts_of(db):
                into.execute(
                    "UPDATE lane SET dropped = ?, dropped_messages = ?, dropped_sent = ?, repeats = ? WHERE name = ?",
                    row,
                )
            for row in _legible(db, "message", "taken_at, crc, body, ran_at, readings, parked, lane"):
                if _is_sound(*row[:3]) and row[-1] in set(Lane):
                    into.execute("UPDATE lane SET last_seq = last_seq + 1 WHERE name = ?", row[-1:])
                    into.execute(
                        "INSERT INTO message (taken_at, crc, body, ran_at, readings, parked, lane, seq) "
                        "SELECT ?, ?, ?, ?, ?, ?, name, last_seq FROM lane WHERE name = ?", row,
                    )  # fmt: skip
                    saved += 1
            for row in _legible(db, "loose", "taken_at, crc, body, ran_at, readings, is_single, oldest"):
                if _is_sound(*row[:3]):
                    into.execute(
                        "INSERT INTO loose (taken_at, crc, body, ran_at, readings, is_single, oldest) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?)", row,
                    )  # fmt: skip
    except sqlite3.Error as error:
        if not _is_torn(error):
            raise
    return saved


def _counts_of(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    with suppress(sqlite3.DatabaseError):
        return db.execute("SELECT dropped, dropped_messages, dropped_sent, repeats, name FROM lane").fetchall()
    return []


def _legible(db: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table from both its ends, up to where it is torn, in their order."""
    query = f"SELECT rowid, {columns} FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid"  # noqa: S608
    last = 0
    rest: list[tuple[Any, ...]] = []
    try:
        for row in db.execute(query, (last,)):
            last = row[0]
            yield row[1:]
    except sqlite3.DatabaseError:
        with suppress(sqlite3.DatabaseError):
            # A list keeps what was read into it before the table tears.
            rest.extend(row[1:] for row in db.execute(f"{query} DESC", (last,)))
        yield from reversed(rest)


def _is_sound(taken_at: object, crc: object, body: object) -> bool:
    if not isinstance(taken_at, int) or not isinstance(body, bytes) or _sum(taken_at, body) != crc:
        return False
    try:
        _decode(body)
    except (msgspec.MsgspecError, ValueError):
        return False
    return True


# --- the spool ----------------------------------------------------------------------------------------------------


class _Repeat(Struct):
    """An alarm of the last second: its number, and when it was taken, by the agent's clock and by its running time."""

    seq: int
    taken_at: int
    ran_at: int


class Spool:
    """The spool in the file ``path``, made when it is not there. ``steady`` gives milliseconds that only go forward.

    Raises GatewayError for what a person must mend: a folder that cannot be written, a file that another process has.
    Later, `SpoolDown` says that the disk fails at the moment; the next call tries again with the file as it is then.
    ``id`` may change with any call (see the module); numbers belong to the id that a `Stored` names."""

    def __init__(self, path: Path, limits: Limits, steady: Callable[[], int]) -> None:
        self.path = path
        self.limits = limits
        self.id = ""
        self._steady = steady
        self._db: sqlite3.Connection | None = None
        self._file = -1
        self._is_lasting = True
        self._full_at: int | None = None
        self._trusted: set[Lane] = set()
        self._recent: dict[bytes, _Repeat] = {}
        self._ran = 0
        self._opened_at = 0
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_BUSY:
                raise GatewayError(
                    "spool-in-use", "another process has the spool open", str(path), "stop the other agent, or give "
                    "this one a spool of its own",
                ) from error  # fmt: skip
            raise GatewayError(
                "spool-unusable", f"the spool cannot be opened ({error})", str(path),
                "make its folder writable, with room on its disk",
            ) from error  # fmt: skip

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
            seqs = self._guard(lambda db: self._take(db, [d for part in drafts for d in part]))
        except SpoolDown as error:
            raise NotTaken(str(error)) from error
        found, index = [], 0
        for part in drafts:
            found.append(seqs[index])
            index += len(part)
        return found

    def _take(self, db: sqlite3.Connection, drafts: list[_Draft]) -> list[int]:
        alarms = _pages_for([d for d in drafts if d.lane is Lane.ALARM])
        others = _pages_for([d for d in drafts if d.lane is Lane.TELEMETRY])
        self._grow(db, alarms + others)
        full: sqlite3.OperationalError | None = None
        tries = 4
        for attempt in range(tries):
            fresh: dict[bytes, _Repeat] = {}
            try:
                with self._change(db):
                    is_last = attempt == tries - 1
                    seqs = self._insert(db, drafts, alarms << attempt, 0 if is_last else others << attempt, fresh)
            except sqlite3.OperationalError as error:
                if not _is_full(error):
                    raise
                # The log may be at its end; checked in, it begins anew, in the room that it has.
                self._check_in(db)
                full = error
            else:
                self._recent |= fresh
                return seqs
        assert full is not None  # noqa: S101
        raise full

    def _insert(
        self, db: sqlite3.Connection, drafts: list[_Draft], alarms: int, others: int, fresh: dict[bytes, _Repeat]
    ) -> list[int]:
        """In a transaction: takes drafts in, with pages made free for the alarms and for the others among them.
        ``others`` 0 is no room: telemetry is let go at once."""
        ran_at = self._run_time()
        span = self.limits.repeat_ms
        self._recent = {body: r for body, r in self._recent.items() if ran_at - r.ran_at < span}
        seqs = [0] * len(drafts)
        if alarms:
            self._make_room(db, alarms, is_alarm=True)
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
        telemetry = [draft for draft in drafts if draft.lane is Lane.TELEMETRY]
        self._drop_old(db, ran_at)
        if not telemetry:
            return seqs
        if others and self._make_room(db, others, is_alarm=False):
            db.executemany(
                "INSERT INTO loose (taken_at, ran_at, readings, is_single, oldest, crc, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (d.taken_at, ran_at, d.readings, d.is_single, d.oldest, _sum(d.taken_at, d.body), d.body)
                    for d in telemetry
                ],
            )
            self._close_packs(db, ran_at)
        else:
            for draft in telemetry:
                self._count_dropped(db, draft.readings, 0)
        return seqs

    def _stamp(self, db: sqlite3.Connection, lane: Lane, taken_at: int, ran_at: int, readings: int, body: bytes) -> int:
        """In a transaction: gives a message its number, and keeps it."""
        doubt = "" if lane in self._trusted else ", doubtful_from = coalesce(doubtful_from, last_seq + 1)"
        [(seq,)] = db.execute(
            f"UPDATE lane SET last_seq = last_seq + 1{doubt} WHERE name = ? RETURNING last_seq",  # noqa: S608
            (lane,),
        ).fetchall()
        db.execute(
            "INSERT INTO message (lane, seq, taken_at, ran_at, readings, crc, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (lane, seq, taken_at, ran_at, readings, _sum(taken_at, body), body),
        )
        return int(seq)

    # --- packing -----------------------------------------------------------------------------------------------------

    def _close_packs(self, db: sqlite3.Connection, ran_at: int) -> None:
        """In a transaction: makes messages of the loose readings whose pack is full or has waited for long enough."""
        if not self._is_pack_due(db, ran_at):
            return
        pack: list[tuple[Any, ...]] = []
        for row in db.execute(
            "SELECT id, taken_at, ran_at, readings, is_single, oldest, body, crc FROM loose"
        ).fetchall():
            if pack and not self._fits(pack, row):
                self._close_pack(db, pack)
                pack = []
            pack.append(row)
        if sum(row[3] for row in pack) >= self.limits.pack_readings or self._has_waited(pack[0][2], ran_at):
            self._close_pack(db, pack)

    def _is_pack_due(self, db: sqlite3.Connection, ran_at: int) -> bool:
        count, oldest = db.execute("SELECT total(readings), min(ran_at) FROM loose").fetchone()
        return oldest is not None and (count >= self.limits.pack_readings or self._has_waited(oldest, ran_at))

    def _has_waited(self, since: int, ran_at: int) -> bool:
        return ran_at - since >= self.limits.pack_ms

    def _fits(self, pack: list[tuple[Any, ...]], row: tuple[Any, ...]) -> bool:
        """Whether a loose row may join a pack: on the wire all its times are offsets from the pack's, never positive
        and of a day at most."""
        taken_at = row[1]
        return (
            not (pack[0][4] or row[4])
            and pack[-1][1] <= taken_at
            and min(r[1] + r[5] for r in (*pack, row)) - taken_at >= -OLDEST_S * 1000
            and sum(r[3] for r in pack) + row[3] <= self.limits.pack_readings
            and sum(len(r[6]) for r in pack) + len(row[6]) <= PACK_BYTES
        )

    def _close_pack(self, db: sqlite3.Connection, pack: list[tuple[Any, ...]]) -> None:
        taken_at = pack[-1][1]
        signals: list[Signal] = []
        measurements: list[Measurement] = []
        for row in pack:
            taken, body, crc = row[1], row[6], row[7]
            if not _is_sound(taken, crc, body):
                log.error("the spool %s has a reading that is no longer legible; it is counted as dropped", self.path)
                self._count_dropped(db, row[3], 0, 0)
                continue
            own, found = _decode(body)
            signals += own
            measurements += [replace(m, offset=m.offset + taken - taken_at) if taken < taken_at else m for m in found]
        db.executemany("DELETE FROM loose WHERE id = ?", [(row[0],) for row in pack])
        if signals or measurements:
            count = len(signals) + len(measurements)
            self._stamp(db, Lane.TELEMETRY, taken_at, pack[0][2], count, _encode(signals, measurements))

    # --- room --------------------------------------------------------------------------------------------------------

    def _make_room(self, db: sqlite3.Connection, pages: int, *, is_alarm: bool) -> bool:
        """In a transaction: frees pages; False when it could not."""
        while _ask(db, "freelist_count") < pages and self._drop_oldest(db):
            pass
        while is_alarm and _ask(db, "freelist_count") < pages and _throw_off(db):
            pass
        return _ask(db, "freelist_count") >= pages

    def _drop_old(self, db: sqlite3.Connection, ran_at: int) -> None:
        while True:
            oldest = db.execute("SELECT ran_at FROM message WHERE lane = 'telemetry' ORDER BY seq LIMIT 1").fetchone()
            if oldest is None or ran_at - oldest[0] < self.limits.max_age_ms or not self._drop_oldest(db):
                return

    def _drop_oldest(self, db: sqlite3.Connection) -> bool:
        """In a transaction: lets the oldest telemetry go, and counts it. False when there is none."""
        gone = db.execute(
            "DELETE FROM message WHERE rowid = "
            "(SELECT rowid FROM message WHERE lane = 'telemetry' ORDER BY seq LIMIT 1) RETURNING readings, sends"
        ).fetchall()
        for readings, sends in gone:
            self._count_dropped(db, readings, sends)
        return bool(gone)

    def _count_dropped(self, db: sqlite3.Connection, readings: int, sends: int, messages: int = 1) -> None:
        db.execute(
            "UPDATE lane SET dropped = dropped + ?, dropped_messages = dropped_messages + ?, "
            "dropped_sent = dropped_sent + ? WHERE name = 'telemetry'",
            (readings, messages, readings if sends else 0),
        )

    def _grow(self, db: sqlite3.Connection, pages: int) -> None:
        """Sees to it that so many pages are free and that the ballast is whole, as far as the limit and the disk allow.

        Ballast is written, so that its pages are really there; what of it is beyond the reserve is thrown off again."""
        while True:
            chunks, free = _count_ballast(db), _ask(db, "freelist_count")
            if chunks >= self._reserve and free >= pages:
                return
            if chunks > self._reserve and free + (chunks - self._reserve) * _CHUNK >= pages:
                break
            if not self._add_chunk(db, free):
                break
        if chunks > self._reserve:
            with self._change(db, is_lasting=False):
                db.execute(
                    "DELETE FROM ballast WHERE rowid IN (SELECT rowid FROM ballast ORDER BY rowid LIMIT -1 OFFSET ?)",
                    (self._reserve,),
                )

    def _add_chunk(self, db: sqlite3.Connection, free: int) -> bool:
        """One chunk of ballast more, of what is free and as much new as is needed. False at the limit, and when the
        disk is full."""
        count = _ask(db, "page_count")
        # Two more: the ballast's own tree may grow by a leaf and a root.
        new = max(0, _CHUNK + 2 - free)
        if (count + new) * _PAGE > self.limits.max_bytes:
            return False
        now = self._steady()
        if new and self._full_at is not None and now - self._full_at < _GROW_AGAIN_MS:
            return False
        try:
            if new:
                # Otherwise the log alone would hold the new pages, and could not be checked in on a full disk.
                os.posix_fallocate(self._file, 0, (count + new) * _PAGE)
                db.execute(f"PRAGMA max_page_count = {count + new}")
            with self._change(db, is_lasting=False):
                db.execute("INSERT INTO ballast VALUES (zeroblob(?))", (_CHUNK_BYTES,))
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_full(error):
                raise
            if self._full_at is None:
                log.warning("no room on the disk for the spool %s to grow in: %s", self.path, error)
            self._full_at = now
            self._check_in(db)
            return False
        finally:
            db.execute(f"PRAGMA max_page_count = {_ask(db, 'page_count')}")
        if new:
            self._full_at = None
        return True

    def _check_in(self, db: sqlite3.Connection) -> None:
        """Brings the log into the file, so that it begins anew."""
        with suppress(sqlite3.OperationalError):
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _lengthen_log(self, db: sqlite3.Connection) -> None:
        """The log is removed at every orderly end; it is made long again while the disk has room."""
        with self._change(db, is_lasting=False):
            # The newest, so that what is written again finds the same pages.
            gone = db.execute(
                "DELETE FROM ballast WHERE rowid IN (SELECT rowid FROM ballast ORDER BY rowid DESC LIMIT ?) RETURNING 1",
                (_LOG_CHUNKS,),
            ).fetchall()
            db.executemany("INSERT INTO ballast VALUES (zeroblob(?))", [(_CHUNK_BYTES,)] * len(gone))

    # --- sending and settling ----------------------------------------------------------------------------------------

    def waiting(self, lane: Lane, after_seq: int = 0, limit: int = 32) -> list[Stored]:
        """The next messages of a lane above ``after_seq``, in order. Packs whose time has come are closed first.

        While numbers are in doubt (see the module), there may be fewer than there are. Raises SpoolDown."""
        return self._guard(lambda db: self._read_waiting(db, lane, after_seq, limit))

    def _read_waiting(self, db: sqlite3.Connection, lane: Lane, after_seq: int, limit: int) -> list[Stored]:
        ran_at = self._run_time()
        if lane is Lane.TELEMETRY and self._is_pack_due(db, ran_at):
            self._grow(db, _PACK_PAGES)
            try:
                with self._change(db):
                    self._close_packs(db, ran_at)
            except sqlite3.OperationalError as error:
                if not _is_full(error):
                    raise
                self._check_in(db)
        most = self._most_known(db, lane)
        rows = db.execute(
            f"{_SELECT} AND seq > ? AND seq <= ? AND NOT parked ORDER BY seq LIMIT ?",
            (lane, after_seq, SEQ_LIMIT if most is None else most, limit),
        ).fetchall()
        found = [self._read(lane, row) for row in rows]
        for row, stored in zip(rows, found, strict=True):
            if stored is None:
                log.error(
                    "message %d of lane %s in the spool %s is no longer legible; it is put aside",
                    row[0],
                    lane,
                    self.path,
                )
                with self._change(db):
                    db.execute("UPDATE message SET parked = 1 WHERE lane = ? AND seq = ?", (lane, row[0]))
        return [stored for stored in found if stored is not None]

    def _read(self, lane: Lane, row: tuple[Any, ...]) -> Stored | None:
        seq, taken_at, sends, crc, body = row
        if not _is_sound(taken_at, crc, body):
            return None
        return Stored(self.id, lane, seq, taken_at, sends, *_decode(body))

    def _most_known(self, db: sqlite3.Connection, lane: Lane) -> int | None:
        """The highest number that the gateway may know, and that may be handed out, while numbers are in doubt; None
        when none is. Of those in doubt it is the first, and only when nothing older is left to ask the gateway by."""
        from_seq, offered = db.execute("SELECT doubtful_from, offered FROM lane WHERE name = ?", (lane,)).fetchone()
        if lane in self._trusted or from_seq is None:
            return None
        lowest = _find_lowest(db, lane) or 0
        return max(int(from_seq) - 1, lowest, int(offered))

    def note_sent(self, lane: Lane, seqs: Sequence[int]) -> None:
        """Counts a send of each message. Call it before they are published. Raises SpoolDown."""

        def note(db: sqlite3.Connection) -> None:
            # Numbers that nobody doubts need no fsync for being sent: they are known by having been appended.
            with self._change(db, is_lasting=self._most_known(db, lane) is not None):
                db.executemany(
                    "UPDATE message SET sends = sends + 1 WHERE lane = ? AND seq = ?", [(lane, seq) for seq in seqs]
                )
                db.execute("UPDATE lane SET offered = max(offered, ?) WHERE name = ?", (max(seqs), lane))

        if seqs:
            self._guard(note)

    def park(self, lane: Lane, seq: int) -> None:
        """Puts a message aside that the gateway never receipts: it stays, for a person to look at, but is handed out no
        more and does not hold up the floor. A receipt settles it all the same. Raises SpoolDown."""

        def put_aside(db: sqlite3.Connection) -> None:
            with self._change(db):
                db.execute("UPDATE message SET parked = 1 WHERE lane = ? AND seq = ?", (lane, seq))

        self._guard(put_aside)

    def settle(self, receipt: Receipt) -> Settled:
        """Takes out what a receipt settles. A receipt for another spool settles nothing. Raises SpoolDown; what it
        would have settled is receipted again when it is sent again."""
        return self._guard(lambda db: self._settle(db, receipt))

    def _settle(self, db: sqlite3.Connection, receipt: Receipt) -> Settled:
        if receipt.spool != self.id or receipt.lane not in set(Lane):
            return Settled()
        lane = Lane(receipt.lane)
        reasons = dict(receipt.rejected)
        rows = _find_covered(db, lane, receipt)
        [(last, from_seq)] = db.execute("SELECT last_seq, doubtful_from FROM lane WHERE name = ?", (lane,)).fetchall()
        most = self._most_known(db, lane)
        is_copy = max(receipt.seq, *receipt.above, 0) > (last if most is None else most)
        kept = {row[0] for row in rows if reasons.get(row[0]) in OF_THE_PLACE}
        is_copy = is_copy or bool(kept)
        kept |= {row[0] for row in rows if reasons.get(row[0]) in OF_THE_SOURCE}
        if is_copy and from_seq is not None and lane not in self._trusted:
            # What the gateway knows under these numbers is what the other copy of the file said.
            kept |= {row[0] for row in rows if row[0] >= from_seq}
        gone = [row for row in rows if row[0] not in kept]
        stored = [one for row in gone if (one := self._read(lane, row)) is not None]
        fresh_id = secrets.token_hex(8)
        with self._change(db, is_lasting=is_copy):
            db.executemany("DELETE FROM message WHERE lane = ? AND seq = ?", [(lane, row[0]) for row in gone])
            if is_copy:
                _renew(db, fresh_id)
            elif gone:
                db.execute("UPDATE lane SET doubtful_from = NULL WHERE name = ?", (lane,))
        if is_copy:
            log.error(
                "the gateway knows more of spool %s than this file ever sent, so the file %s is a copy that was put "
                "back: what it holds goes on under the new id %s",
                self.id, self.path, fresh_id,
            )  # fmt: skip
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

    def floor(self, lane: Lane) -> int:
        """The lowest number that the lane still sends; 0 when it has none. Raises SpoolDown."""
        return self._guard(lambda db: _find_lowest(db, lane) or 0)

    def depth(self, lane: Lane) -> int:
        """How many messages of the lane have no receipt; readings that no pack has yet count as one. Raises
        SpoolDown."""
        return self.describe(lane).depth

    def describe(self, lane: Lane) -> LaneState:
        """The lane in figures, for a status. Raises SpoolDown."""

        def read(db: sqlite3.Connection) -> LaneState:
            depth, parked = db.execute("SELECT count(*), total(parked) FROM message WHERE lane = ?", (lane,)).fetchone()
            if lane is Lane.TELEMETRY:
                depth += db.execute("SELECT EXISTS (SELECT 1 FROM loose)").fetchone()[0]
            counts = db.execute(
                "SELECT last_seq, dropped, dropped_messages, dropped_sent, repeats FROM lane WHERE name = ?", (lane,)
            ).fetchone()
            return LaneState(depth, int(parked), _find_lowest(db, lane) or 0, *counts)

        return self._guard(read)

    # --- the file ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends; the file is whole without its log. A spool that is closed opens again at the next call."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()
        # Not before the database: closing any descriptor of a file lets go of the locks on it.
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> sqlite3.Connection:
        _finish_exchange(self.path)
        is_new = not self.path.exists()
        try:
            db = _connect(self.path)
            try:
                is_new = _prepare(db, self.path)
            except BaseException:
                db.close()
                raise
        except (sqlite3.DatabaseError, _Torn) as error:
            if isinstance(error, sqlite3.DatabaseError) and not _is_torn(error):
                raise
            _exchange(self.path, str(error))
            db, is_new = _connect(self.path), True
        try:
            if is_new:
                _sync_folder(self.path.parent)
            [(self.id,)] = db.execute("SELECT id FROM spool").fetchall()
            self._ran = db.execute(
                "SELECT coalesce(max(ran_at), 0) FROM (SELECT ran_at FROM message UNION ALL SELECT ran_at FROM loose)"
            ).fetchone()[0]
            self._opened_at = self._steady()
            # Nobody but this file has ever heard of a new id.
            self._trusted = set(Lane) if is_new else set()
            self._recent.clear()
            self._is_lasting = True
            self._full_at = None
            self._file = os.open(self.path, os.O_RDWR)
            db.execute(f"PRAGMA max_page_count = {_ask(db, 'page_count')}")
            self._grow(db, 0)
            try:
                self._lengthen_log(db)
            except sqlite3.OperationalError as error:
                if not _is_full(error):
                    raise
                log.warning("no room on the disk for the log of the spool %s: %s", self.path, error)
        except BaseException:
            db.close()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
            raise
        self._db = db
        return db

    def _guard(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Does it, and lets go of a file that failed: the next call opens it anew, as after a crash. What memory holds
        about a file is never more than what the file says."""
        try:
            return work(self._db or self._open())
        except sqlite3.Error as error:
            if not _is_full(error):
                self.close()
            raise SpoolDown(f"the spool {self.path} cannot be used: {error}") from error
        except (OSError, GatewayError) as error:
            raise SpoolDown(str(error)) from error

    @contextmanager
    def _change(self, db: sqlite3.Connection, *, is_lasting: bool = True) -> Iterator[None]:
        """One transaction, fsynced when it is to last. One that is not lasting may be undone by a power cut, and only
        together with all that came after it."""
        if is_lasting != self._is_lasting:
            db.execute(f"PRAGMA synchronous = {'FULL' if is_lasting else 'NORMAL'}")
            self._is_lasting = is_lasting
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _run_time(self) -> int:
        """How long the agent ran, in all, since the oldest of what is held was taken in, and longer."""
        return self._ran + self._steady() - self._opened_at

    @property
    def _reserve(self) -> int:
        return -(-self.limits.alarm_reserve_bytes // (_CHUNK * _PAGE))


def _ask(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])


def _count_ballast(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM ballast").fetchone()[0])


def _throw_off(db: sqlite3.Connection) -> bool:
    return bool(db.execute("DELETE FROM ballast WHERE rowid = (SELECT max(rowid) FROM ballast) RETURNING 1").fetchall())


def _pages_for(drafts: Sequence[_Draft]) -> int:
    """Pages that suffice for them: none is less than half full, and the trees over them grow by a few."""
    if not drafts:
        return 0
    own = sum(len(draft.body) + 120 for draft in drafts) // (_PAGE // 2 - 100) + 5
    return own + _PACK_PAGES if drafts[0].lane is Lane.TELEMETRY else own


def _find_lowest(db: sqlite3.Connection, lane: Lane) -> int | None:
    found = db.execute("SELECT seq FROM message WHERE lane = ? AND NOT parked ORDER BY seq LIMIT 1", (lane,)).fetchone()
    return int(found[0]) if found is not None else None


def _find_covered(db: sqlite3.Connection, lane: Lane, receipt: Receipt) -> list[tuple[Any, ...]]:
    """The messages that a receipt settles. One that was put aside was passed over by the floor, so that all up to a
    number says nothing of it: it must be named."""
    rows = db.execute(f"{_SELECT} AND seq <= ? AND NOT parked ORDER BY seq", (lane, receipt.seq)).fetchall()
    found = {row[0] for row in rows}
    for seq in sorted({*receipt.above, *(seq for seq, _ in receipt.rejected)} - found):
        rows += db.execute(f"{_SELECT} AND seq = ?", (lane, seq)).fetchall()
    return rows


def _renew(db: sqlite3.Connection, spool: str) -> None:
    """In a transaction: a new id, under which all that is held is numbered from 1, in its order."""
    db.execute("UPDATE spool SET id = ?", (spool,))
    for lane in Lane:
        rows = db.execute("SELECT rowid FROM message WHERE lane = ? ORDER BY seq", (lane,)).fetchall()
        # In order each new number is free: it is not above the old one, and below the next.
        db.executemany(
            "UPDATE message SET seq = ?, sends = 0 WHERE rowid = ?",
            [(seq, rowid) for seq, (rowid,) in enumerate(rows, start=1)],
        )
        db.execute("UPDATE lane SET last_seq = ?, doubtful_from = NULL, offered = 0 WHERE name = ?", (len(rows), lane))
