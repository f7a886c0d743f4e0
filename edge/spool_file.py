"""The spool's file: made, opened and checked, kept in bounds, and saved from when it is torn. What its rows mean is in
`edge.spool`."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.wire import Lane

log = logging.getLogger(__name__)

PAGE: Final = 4096
_CHUNK: Final = 32
"""Pages. The file grows, and the ballast is thrown off, by so many at a time."""

_CHUNK_BYTES: Final = (_CHUNK - 1) * (PAGE - 4) + 3000
"""A value that fills just so many pages: one of the table's own, in which there is no room for a second, and others
that each hold four bytes less than their size."""

_LOG_CHUNKS: Final = 8
"""The log is made so long at every start, and is checked in at half of it: it finds its room on a full disk, too."""

RESERVE_LEAST: Final = _LOG_CHUNKS * _CHUNK * PAGE
"""Bytes. The log is made long by writing ballast again."""

_GROW_AGAIN_MS: Final = 5_000
"""A disk that was full is not asked again at once."""

_LONGEST: Final = 2**36
"""Bytes. What a torn header may say of its file's length and be believed."""

_APPLICATION: Final = 0x53504F4C
_VERSION: Final = 1

_SCHEMA: Final = f"""
CREATE TABLE spool (id TEXT NOT NULL) STRICT;
CREATE TABLE lane (
    name TEXT NOT NULL PRIMARY KEY,
    last_seq INTEGER NOT NULL DEFAULT 0,
    doubtful_from INTEGER,
    offered INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
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
"""``loose`` are readings that no pack has yet, ``oldest`` their lowest offset. ``ran_at`` is the agent's running time,
which age is judged by. ``offered`` and ``doubtful_from`` are explained in `edge.spool` under "A disk copied back"."""


class _Torn(Exception):
    """The file is no sound spool."""


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk, or the file, has no room; nothing is wrong with what is there."""
    return getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def checksum(taken_at: int, body: bytes) -> int:
    """SQLite does not notice a bit that flips in a value; a press must not move to another button by it."""
    return zlib.crc32(body, taken_at & 0xFFFFFFFF)


def is_sound(taken_at: object, crc: object, body: object) -> bool:
    """Whether a row's content is as it was written."""
    return isinstance(taken_at, int) and isinstance(body, bytes) and checksum(taken_at, body) == crc


class SpoolFile:
    """One file and the one connection to it.

    Pages are what there is a limit of. The file takes ``max_bytes`` at most, and ``reserve_bytes`` of them are ballast:
    rows of zeros. It grows by whole chunks that are allocated on the disk before they are used, so that whatever is
    written into free pages afterwards finds its room, on a full disk too. ``steady`` gives milliseconds that only go
    forward."""

    def __init__(self, path: Path, max_bytes: int, reserve_bytes: int, steady: Callable[[], int]) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._reserve = -(-reserve_bytes // (_CHUNK * PAGE))
        self._steady = steady
        self._db: sqlite3.Connection | None = None
        self._descriptor = -1
        self._is_lasting = True
        self._full_at: int | None = None

    @property
    def is_open(self) -> bool:
        return self._db is not None

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, of an open file."""
        assert self._db is not None  # noqa: S101 - the caller opened it
        return self._db

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Opens the file; returns whether it is a new one, made because there was none, or because the old one was torn
        and moved aside. Raises sqlite3.Error, OSError, and GatewayError for what a person must mend."""
        _finish_exchange(self.path)
        try:
            self._db, is_new = _open_sound(self.path)
        except _Torn as torn:
            _exchange(self.path, str(torn))
            self._db, _ = _open_sound(self.path)
            is_new = True
        try:
            if is_new:
                _sync_folder(self.path.parent)
            self._is_lasting = True
            self._full_at = None
            self._descriptor = os.open(self.path, os.O_RDWR)
            self._hold_size()
            # What a start that was cut off in the middle of growing has left is thrown off, too.
            self.grow(0)
            self._lengthen_log()
        except BaseException:
            self.close()
            raise
        return is_new

    def close(self) -> None:
        """Brings the log into the file, and lets go of it."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()
        # Not before the database: closing any descriptor of a file lets go of all locks on it.
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # --- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def change(self, *, is_lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction, fsynced when it is to last. One that is not may be undone by a power cut, and only together
        with all that came after it."""
        db = self.db
        if is_lasting != self._is_lasting:
            db.execute(f"PRAGMA synchronous = {'FULL' if is_lasting else 'NORMAL'}")
            self._is_lasting = is_lasting
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def check_in(self) -> None:
        """Brings the log into the file, so that it begins anew in the room that it has."""
        with suppress(sqlite3.OperationalError):
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # --- room --------------------------------------------------------------------------------------------------------

    def count_free(self) -> int:
        """Pages that can be written without the file growing."""
        return self._ask("freelist_count")

    def throw_off(self) -> bool:
        """In a transaction: frees a chunk of ballast. False when there is none."""
        gone = self.db.execute("DELETE FROM ballast WHERE rowid = (SELECT max(rowid) FROM ballast) RETURNING 1")
        return bool(gone.fetchall())

    def grow(self, pages: int) -> None:
        """Sees to it that so many pages are free and that the ballast is whole, as far as the limit and the disk
        allow."""
        while True:
            spare, free = self._count_ballast() - self._reserve, self.count_free()
            if spare >= 0 and free + spare * _CHUNK >= pages:
                break
            if not self._add_chunk(free):
                break
        if spare > 0:
            with self.change(is_lasting=False) as db:
                db.execute(
                    "DELETE FROM ballast WHERE rowid IN (SELECT rowid FROM ballast ORDER BY rowid LIMIT -1 OFFSET ?)",
                    (self._reserve,),
                )

    def _add_chunk(self, free: int) -> bool:
        """One chunk of ballast more, of what is free and as much new as is needed. False at the limit, and when the
        disk is full."""
        count = self._ask("page_count")
        # Two more: the tree above the ballast may grow.
        new = max(0, _CHUNK + 2 - free)
        now = self._steady()
        is_waiting = self._full_at is not None and now - self._full_at < _GROW_AGAIN_MS
        if new and (is_waiting or (count + new) * PAGE > self._max_bytes):
            return False
        try:
            if new:
                # Otherwise the log alone would hold the new pages, and could not be checked in on a full disk.
                os.posix_fallocate(self._descriptor, 0, (count + new) * PAGE)
                self.db.execute(f"PRAGMA max_page_count = {count + new}")
            with self.change(is_lasting=False) as db:
                db.execute("INSERT INTO ballast VALUES (zeroblob(?))", (_CHUNK_BYTES,))
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.OperationalError) and not is_full(error):
                raise
            if self._full_at is None:
                log.warning("no room on the disk for the spool %s to grow in: %s", self.path, error)
            self._full_at = now
            self.check_in()
            return False
        finally:
            self._hold_size()
        if new:
            self._full_at = None
        return True

    def _lengthen_log(self) -> None:
        """The log is removed at every orderly end; it is made long again while the disk has room."""
        try:
            with self.change(is_lasting=False) as db:
                # The newest, so that what is written again finds just the same pages.
                gone = db.execute(
                    "DELETE FROM ballast WHERE rowid IN (SELECT rowid FROM ballast ORDER BY rowid DESC LIMIT ?) "
                    "RETURNING 1",
                    (_LOG_CHUNKS,),
                ).fetchall()
                db.executemany("INSERT INTO ballast VALUES (zeroblob(?))", [(_CHUNK_BYTES,)] * len(gone))
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
            log.warning("no room on the disk for the log of the spool %s: %s", self.path, error)

    def _hold_size(self) -> None:
        self.db.execute(f"PRAGMA max_page_count = {self._ask('page_count')}")

    def _count_ballast(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM ballast").fetchone()[0])

    def _ask(self, pragma: str) -> int:
        return int(self.db.execute(f"PRAGMA {pragma}").fetchone()[0])


# --- a sound file ---------------------------------------------------------------------------------------------------


def _open_sound(path: Path) -> tuple[sqlite3.Connection, bool]:
    """The connection to a spool that is as it should be, and whether it was made just now. Raises _Torn."""
    try:
        db = _connect(path)
        try:
            return db, _prepare(db, path)
        except BaseException:
            db.close()
            raise
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if _is_torn(error, path):
            raise _Torn(str(error)) from error
        raise


def _is_torn(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> bool:
    """Whether it speaks of what the file says. SQLITE_ERROR is said of a table that is not there, SQLITE_READONLY of a
    header that asks for a later SQLite, and Python itself says when a text is none."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code == sqlite3.SQLITE_READONLY:
        return os.access(path, os.W_OK)
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


@cache
def _expected_schema() -> frozenset[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        return _read_schema(db)


def _read_schema(db: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    return frozenset(db.execute("SELECT name, coalesce(sql, '') FROM sqlite_schema").fetchall())


def _connect(path: Path) -> sqlite3.Connection:
    """The file, for this process alone: nothing is shared, so that no third file is needed beside the log."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
    try:
        db.execute(f"PRAGMA page_size = {PAGE}")
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise GatewayError(
                "spool-unusable", f"the disk takes no write-ahead log ({mode})", str(path), "put it on a local disk"
            )
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_CHUNKS * _CHUNK // 2}")
        db.execute(f"PRAGMA journal_size_limit = {2 * _LOG_CHUNKS * _CHUNK * PAGE}")
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
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION or not 0 < version < 100:
        raise _Torn("it is no spool")
    if version > _VERSION:
        raise GatewayError(
            "spool-newer",
            f"the spool is of version {version}, and this agent reads {_VERSION}",
            str(path),
            "start the newer agent",
        )
    if _read_schema(db) != _expected_schema():
        raise _Torn("its tables are not a spool's")
    # The quick check would pass over an index in which an alarm is missing.
    found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise _Torn(found)
    if db.execute("SELECT count(*) FROM spool").fetchone()[0] != 1:
        raise _Torn("it has no id")
    if {name for (name,) in db.execute("SELECT name FROM lane").fetchall()} != set(Lane):
        raise _Torn("its lanes are gone")
    # A header can forbid to write, and says so only then.
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE lane SET last_seq = last_seq")
    db.execute("ROLLBACK")
    return False


def _create(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO spool VALUES (?)", (secrets.token_hex(8),))
    db.executemany("INSERT INTO lane (name) VALUES (?)", [(str(lane),) for lane in Lane])
    db.execute("COMMIT")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _sync_folder(path: Path) -> None:
    """Makes lasting what was made, renamed and removed in a folder."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- a torn file ----------------------------------------------------------------------------------------------------


def _exchange(path: Path, why: str) -> None:
    """Puts a new file in the place of a torn one, with what is legible of it. At every moment the next start finds
    either the old file or the complete new one."""
    _make_whole(path)
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
        "the spool %s is torn (%s): it was moved aside to %s, and %d messages that are legible went to a new spool; "
        "look there for what else was in it",
        path,
        why,
        aside.name,
        saved,
    )


def _make_whole(path: Path) -> None:
    """A file that was cut short gets the length that its header tells: of one that is shorter SQLite reads nothing."""
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(b"SQLite format 3\0"):
        length = PAGE * int.from_bytes(head[28:32], "big")
        if path.stat().st_size < length <= _LONGEST:
            os.truncate(path, length)


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
    """Copies what is legible into a new file, with numbers from 1; returns how many messages. What the gateway has of
    it already comes to it twice: better than not at all."""
    last = dict.fromkeys(map(str, Lane), 0)
    try:
        with closing(_connect(path)) as db:
            for row in _read_legible(db, "message", "taken_at, crc, body, ran_at, readings, lane"):
                if is_sound(*row[:3]) and row[-1] in last:
                    with suppress(sqlite3.IntegrityError):
                        into.execute(
                            "INSERT INTO message (taken_at, crc, body, ran_at, readings, lane, seq) "
                            "VALUES (?, ?, ?, ?, ?, ?, ?)",
                            (*row, last[row[-1]] + 1),
                        )
                        last[row[-1]] += 1
            for row in _read_legible(db, "loose", "taken_at, crc, body, ran_at, readings, is_single, oldest"):
                if is_sound(*row[:3]):
                    with suppress(sqlite3.IntegrityError):
                        into.execute(
                            "INSERT INTO loose (taken_at, crc, body, ran_at, readings, is_single, oldest) "
                            "VALUES (?, ?, ?, ?, ?, ?, ?)",
                            row,
                        )
            for row in _read_legible(db, "lane", "dropped, dropped_sent, repeats, name"):
                with suppress(sqlite3.IntegrityError):
                    into.execute("UPDATE lane SET dropped = ?, dropped_sent = ?, repeats = ? WHERE name = ?", row)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if not _is_torn(error, path):
            raise
    into.executemany("UPDATE lane SET last_seq = ? WHERE name = ?", [(seq, name) for name, seq in last.items()])
    return sum(last.values())


def _read_legible(db: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table from both its ends, up to where it is torn, in their order."""
    query = f"SELECT rowid, {columns} FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid"  # noqa: S608
    last = 0
    rest: list[tuple[Any, ...]] = []
    try:
        for row in db.execute(query, (last,)):
            last = row[0]
            yield row[1:]
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
            # A list keeps what was read into it before the table tears.
            rest.extend(row[1:] for row in db.execute(f"{query} DESC", (last,)))
        yield from reversed(rest)
