"""How the ledger reaches its database: connections, transactions, and which port error a fault is.

One connection writes, under a lock; readers have connections of their own and never wait for it. Statements go to the
driver as they are, with ``?`` for parameters; SQLAlchemy keeps the connections and knows the databases apart.
"""

from __future__ import annotations

import functools
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from gateway.runtime.ports import CommitRefused, FenceLost, LedgerDown

Row = tuple[Any, ...]

BUSY_S: Final = 5.0
"""How long a writer waits for another process that writes into the same SQLite file, or for a lock of PostgreSQL's."""

READERS: Final = 4
ROWS_OF_A_STATEMENT: Final = 64
"""So many rows of ten columns stay below 999 parameters, the least that a SQLite library takes."""

REASON_LENGTH: Final = 300


def parse_url(url: str) -> URL:
    """The URL of a ledger. Raises ValueError for what is none."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Their words may hold the password.
        raise ValueError("no URL of a ledger: sqlite:///PATH or postgresql+psycopg://USER@HOST:PORT/NAME") from None
    match parsed.drivername:
        case "sqlite" | "sqlite+pysqlite":
            return parsed.set(drivername="sqlite")
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise ValueError(f"a ledger is sqlite:///PATH or postgresql+psycopg://…, not {other}")


class Session:
    """One transaction on one connection."""

    def __init__(self, connection: Connection, *, is_sqlite: bool) -> None:
        self.connection: Final = connection
        self.is_sqlite: Final = is_sqlite

    def select(self, sql: str, *parameters: object) -> list[Row]:
        found = self.connection.exec_driver_sql(self._spell(sql), _clean(parameters))
        return [tuple(row) for row in found]

    def run(self, sql: str, *parameters: object) -> int:
        """The number of rows that it changed."""
        return self.connection.exec_driver_sql(self._spell(sql), _clean(parameters)).rowcount

    def run_many(self, sql: str, rows: Sequence[Row]) -> int:
        """Runs it for each row of parameters, in order; the number of rows that it changed in all."""
        if not rows:
            return 0
        return self.connection.exec_driver_sql(self._spell(sql), list(rows)).rowcount

    def append(self, table: str, columns: Sequence[str], types: Sequence[str], rows: Sequence[Row]) -> None:
        """Inserts many rows in the fastest way that the driver has. ``types`` are PostgreSQL's."""
        if not rows:
            return
        names = ", ".join(columns)
        driver: Any = self.connection.connection.driver_connection
        if self.is_sqlite:
            # Many rows to a statement: for each, SQLite lets go of the interpreter and takes it back, and would wait
            # for it each time while the next batch is fed.
            for start in range(0, len(rows), ROWS_OF_A_STATEMENT):
                part = rows[start : start + ROWS_OF_A_STATEMENT]
                driver.execute(_insert_many(table, names, len(columns), len(part)), list(chain.from_iterable(part)))
            return
        with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def _spell(self, sql: str) -> str:
        return sql if self.is_sqlite else _with_percents(sql)


@functools.cache
def _insert_many(table: str, names: str, columns: int, rows: int) -> str:
    marks = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} ({names}) VALUES {', '.join([marks] * rows)}"  # noqa: S608 - our own names


@functools.cache
def _with_percents(sql: str) -> str:
    """The statement in psycopg's notation of parameters."""
    return sql.replace("?", "%s")


class Database:
    """A database and the transactions on it. Every fault comes out as LedgerDown, CommitRefused or FenceLost."""

    def __init__(self, url: URL, busy_s: float = BUSY_S) -> None:
        self._busy_s: Final = busy_s
        self.is_sqlite: Final = url.get_backend_name() == "sqlite"
        is_memory = self.is_sqlite and url.database in (None, "", ":memory:")
        self._lock: Final = threading.RLock()
        self._writer: Final = self._make_engine(url, writes=True, is_memory=is_memory)
        # What lives in memory has one connection only.
        self._readers: Final = self._writer if is_memory else self._make_engine(url, writes=False, is_memory=False)
        self._is_shared: Final = is_memory

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that writes. What fails in it for no known reason is refused, so that a batch which trips
        over a fault of ours is put aside like any other that cannot be written, instead of ending the gateway."""
        with self._lock, _translated(CommitRefused), self._writer.begin() as connection:
            yield Session(connection, is_sqlite=self.is_sqlite)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads."""
        if self._is_shared:
            with self._lock, _translated(LedgerDown), self._readers.begin() as connection:
                yield Session(connection, is_sqlite=self.is_sqlite)
        else:
            with _translated(LedgerDown), self._readers.begin() as connection:
                yield Session(connection, is_sqlite=self.is_sqlite)

    def close(self) -> None:
        """Closes the connections. SQLite then folds its write-ahead log into the file."""
        with self._lock:
            self._readers.dispose()
            self._writer.dispose()

    def _make_engine(self, url: URL, *, writes: bool, is_memory: bool) -> Engine:
        if not self.is_sqlite:
            return _make_postgres(url, self._busy_s, writes=writes)
        return _make_sqlite(url, self._busy_s, writes=writes, is_memory=is_memory)


def _make_sqlite(url: URL, busy_s: float, *, writes: bool, is_memory: bool) -> Engine:
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": busy_s}}
    if is_memory:
        options["poolclass"] = StaticPool
    elif writes:
        options |= {"pool_size": 1, "max_overflow": 0}
    else:
        options |= {"pool_size": READERS, "max_overflow": READERS, "pool_timeout": busy_s}
    engine = create_engine(url, **options)
    # FULL: what is committed is on the disk. A writer's cache holds the newest pages of every community's journal.
    pragmas = ["synchronous=FULL", "foreign_keys=ON"]
    pragmas += ["cache_size=-32000", f"journal_size_limit={64 << 20}"] if writes else ["query_only=ON"]

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        # Transactions are begun by us: the driver would begin them too late to take the write lock at once.
        connection.isolation_level = None
        _use_write_ahead_log(connection, busy_s)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _use_write_ahead_log(connection: Any, busy_s: float) -> None:
    """Where several programs open a new file at once, all but one find it locked for a moment: to change the journal's
    mode, SQLite does not wait as it does for a statement."""
    deadline = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _make_postgres(url: URL, busy_s: float, *, writes: bool) -> Engine:
    # A server that vanished without a word is noticed within half a minute, not after the system's two hours.
    alive = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    size = 1 if writes else READERS
    engine = create_engine(
        url,
        connect_args={**alive, "tcp_user_timeout": 30_000},
        pool_pre_ping=True,
        pool_size=size,
        max_overflow=0 if writes else READERS,
        pool_timeout=busy_s,
    )
    settings = [f"SET lock_timeout = {round(busy_s * 1000)}"]
    if writes:
        # A server set to answer before its disk has is asked to wait for it; a stricter setting stays.
        settings.append(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
    else:
        settings.append("SET default_transaction_read_only = on")

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        with connection.cursor() as cursor:
            for setting in settings:
                cursor.execute(setting)
        connection.commit()

    return engine


# --- faults -------------------------------------------------------------------------------------------------------


@contextmanager
def _translated(unknown: type[LedgerDown] | type[CommitRefused]) -> Iterator[None]:
    """Faults of the database come out as the port's errors; whatever else fails comes out as ``unknown``."""
    try:
        yield
    except (LedgerDown, CommitRefused, FenceLost):
        raise
    except DBAPIError as error:
        raise _classify(error.orig, is_link_lost=error.connection_invalidated) from error
    except (psycopg.Error, sqlite3.Error) as error:
        raise _classify(error, is_link_lost=False) from error
    except (TimeoutError, SQLAlchemyError, OSError) as error:
        raise LedgerDown(_shorten(error)) from error
    except Exception as error:
        # The port promises three errors and no other.
        raise unknown(_shorten(error)) from error


def _classify(error: BaseException | None, *, is_link_lost: bool) -> LedgerDown | CommitRefused:
    """Whether the fault lies in what was to be written, or with the database."""
    reason = _shorten(error)
    if is_link_lost:
        return LedgerDown(reason)
    if isinstance(error, psycopg.Error):
        # Classes of SQLSTATE: 22 data, 23 integrity, 54 a limit of the server's that no later attempt escapes (a key
        # too long for an index). No SQLSTATE and no operational fault: the driver could not encode a value.
        state = error.sqlstate or ""
        is_unencodable = not state and isinstance(error, psycopg.ProgrammingError | psycopg.DataError)
        return CommitRefused(reason) if state[:2] in ("22", "23", "54") or is_unencodable else LedgerDown(reason)
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError):
        return CommitRefused(reason)
    return LedgerDown(reason)


def _shorten(error: BaseException | None) -> str:
    """The driver's own words, without the statement and its parameters."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:REASON_LENGTH]


def _clean(parameters: tuple[object, ...]) -> tuple[object, ...]:
    """PostgreSQL's texts hold no NUL, and refuse a question that has one, too: it finds nothing then, on both
    databases."""
    return tuple(
        value.replace("\x00", "\ufffd") if isinstance(value, str) and "\x00" in value else value for value in parameters
    )
