"""The ledger on SQL: SQLite by default, PostgreSQL by setting. One class, one set of statements, one suite of tests.

Statements on the way of every message go to the driver as they are, in batches; everything else is as plain as it can
be. SQLite runs in WAL mode with ``synchronous=FULL``: what was committed is on the disk.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from alembic import command as alembic_command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from gateway.core.model import Answer, Command, Community, Deliver, Device, Effect, Incident, Rejected, Transition
from gateway.runtime.ports import (
    Batch,
    Checkpoint,
    Claim,
    CommitRefused,
    Entry,
    FenceLost,
    JournalRow,
    LedgerDown,
    OutboxRow,
    OutboxState,
    Outcome,
    Quarantined,
)

MIGRATIONS: Final = Path(__file__).parent / "migrations"

KEPT_CHECKPOINTS: Final = 3
"""The newest ones of each community that are kept; besides these, the last of each day."""

QUARANTINE_ROWS: Final = 1_000
"""Different payloads that are kept of one source; what comes beyond is only counted, by reason."""

PBKDF2_ROUNDS: Final = 101
"""Mosquitto's default. The passwords are 144 random bits, which no number of rounds makes harder to guess."""

DAY_MS: Final = 86_400_000
PAGE: Final = 1_000

_encode: Final = msgspec.json.encode
_effects: Final = msgspec.json.Decoder(Deliver | Command)
_incidents: Final = msgspec.json.Decoder(Incident)
_devices: Final = msgspec.json.Decoder(Device)
_communities: Final = msgspec.json.Decoder(Community)
_answers: Final = msgspec.json.Decoder(Answer)

Row = tuple[Any, ...]


def open_ledger(url: str) -> SqlLedger:
    """Opens ``sqlite:///PATH``, ``sqlite://`` (in memory) or ``postgresql+psycopg://…``. Raises ValueError."""
    backend = make_url(url).get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise ValueError(f"a ledger is sqlite:///PATH or postgresql+psycopg://…, not {backend}")
    return SqlLedger(url)


class SqlLedger:
    """See `gateway.runtime.ports.Ledger`."""

    def __init__(self, url: str) -> None:
        self._is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._is_memory = self._is_sqlite and make_url(url).database in (None, "", ":memory:")
        self._engine = self._make_engine(url)
        self._lock = threading.RLock()
        self._sql: dict[str, str] = {}

    def _make_engine(self, url: str) -> Engine:
        if not self._is_sqlite:
            return create_engine(url, pool_pre_ping=True, pool_size=4, connect_args={"connect_timeout": 5})
        options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": 5.0}}
        if self._is_memory:
            options["poolclass"] = StaticPool
        engine = create_engine(url, **options)

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, record: object) -> None:
            # Transactions are begun by us: the driver would begin them too late to take the write lock at once.
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-32000"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    # --- life --------------------------------------------------------------------------------------------------------

    def migrate(self) -> None:
        """Brings the tables to the newest version, from any earlier one or none."""
        with self._writing() as connection:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = connection
            alembic_command.upgrade(config, "head")

    def close(self) -> None:
        with self._lock:
            self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One transaction that writes; faults come out as the port's three errors."""
        with self._lock, _translated():
            with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        lock = self._lock if self._is_memory else threading.Lock()
        with lock, _translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    def _statement(self, sql: str) -> str:
        """The statement in the driver's own notation of parameters."""
        found = self._sql.get(sql)
        if found is None:
            found = self._sql[sql] = sql if self._is_sqlite else sql.replace("?", "%s")
        return found

    def _all(self, connection: Connection, sql: str, *parameters: object) -> Sequence[Row]:
        return [tuple(row) for row in connection.exec_driver_sql(self._statement(sql), parameters)]

    def _do(self, connection: Connection, sql: str, *parameters: object) -> int:
        return connection.exec_driver_sql(self._statement(sql), parameters).rowcount

    def _do_many(self, connection: Connection, sql: str, rows: Sequence[Row]) -> int:
        if not rows:
            return 0
        return connection.exec_driver_sql(self._statement(sql), list(rows)).rowcount

    # --- communities and fences ----------------------------------------------------------------------------------------

    def add_communities(self, communities: Sequence[Community]) -> None:
        rows = [(c.id, c.serial, c.name, _encode(c)) for c in communities]
        with self._writing() as connection:
            self._do_many(connection, _ADD_COMMUNITY, rows)

    def communities(self) -> list[Community]:
        with self._reading() as connection:
            rows = self._all(connection, "SELECT document FROM community ORDER BY id")
        return [_communities.decode(document) for (document,) in rows]

    def claim(self, communities: Sequence[str], now: int) -> list[Claim]:
        with self._writing() as connection:
            names = sorted(communities)
            self._do_many(
                connection,
                "UPDATE community SET epoch = epoch + 1, claimed_at = ? WHERE id = ?",
                [(now, name) for name in names],
            )
            found = {row[0]: row for row in self._all(connection, "SELECT id, document, epoch, head FROM community")}
        missing = [name for name in names if name not in found]
        if missing:
            raise CommitRefused(f"there is no community {', '.join(missing)}")
        return [Claim(_communities.decode(found[name][1]), found[name][2], found[name][3]) for name in names]

    def standing(self, communities: Sequence[str]) -> dict[str, tuple[int, int]]:
        wanted = set(communities)
        with self._reading() as connection:
            rows = self._all(connection, "SELECT id, epoch, head FROM community")
        return {id: (epoch, head) for id, epoch, head in rows if id in wanted}

    # --- the commit ------------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        with self._writing() as connection:
            self._move_heads(connection, batch)
            if batch.entries:
                _Writing(self, connection).write(batch.entries)
            for item in batch.quarantined:
                self._write_quarantined(connection, item)
            self._write_checkpoints(connection, batch.checkpoints)
            if batch.alive_at:
                self._do(connection, _PUT_META, "alive_at", batch.alive_at)

    def _move_heads(self, connection: Connection, batch: Batch) -> None:
        fences = sorted(batch.fences, key=lambda fence: fence.community)
        rows = [(f.new, f.community, f.epoch, f.old) for f in fences]
        moved = self._do_many(connection, "UPDATE community SET head = ? WHERE id = ? AND epoch = ? AND head = ?", rows)
        if moved != len(rows):
            standing = {
                id: (epoch, head) for id, epoch, head in self._all(connection, "SELECT id, epoch, head FROM community")
            }
            lost = [f.community for f in fences if standing.get(f.community) != (f.epoch, f.new)]
            raise FenceLost(lost)

    def _write_quarantined(self, connection: Connection, item: Quarantined) -> None:
        known = self._do(
            connection,
            "UPDATE quarantine SET count = count + 1, last_at = ? WHERE source = ? AND reason = ? AND digest = ?",
            item.at,
            item.source,
            item.reason,
            item.digest,
        )
        if known:
            return
        [(rows,)] = self._all(connection, "SELECT count(*) FROM quarantine WHERE source = ?", item.source)
        is_full = rows >= QUARANTINE_ROWS
        self._do(
            connection,
            _PUT_QUARANTINED,
            item.community,
            item.source,
            item.topic,
            item.reason,
            "more payloads than are kept of one source" if is_full else item.detail,
            "" if is_full else item.digest,
            item.length,
            "" if is_full else _clean(item.head),
            item.at,
            item.at,
        )

    def _write_checkpoints(self, connection: Connection, checkpoints: Sequence[Checkpoint]) -> None:
        for c in checkpoints:
            self._do(
                connection, _PUT_CHECKPOINT, c.community, c.seq, c.at, c.schema, c.catalog, zlib.compress(c.state, 1)
            )
            kept, days = 0, set()
            rows = self._all(
                connection, "SELECT seq, at FROM checkpoint WHERE community = ? ORDER BY seq DESC", c.community
            )
            for seq, at in rows:
                kept += 1
                if kept > KEPT_CHECKPOINTS and at // DAY_MS in days:
                    self._do(connection, "DELETE FROM checkpoint WHERE community = ? AND seq = ?", c.community, seq)
                days.add(at // DAY_MS)

    # --- reading back --------------------------------------------------------------------------------------------------

    def load_checkpoint(self, community: str, before: int | None = None) -> Checkpoint | None:
        with self._reading() as connection:
            rows = self._all(
                connection,
                "SELECT seq, at, version, catalog, state FROM checkpoint "
                "WHERE community = ? AND at <= ? ORDER BY seq DESC LIMIT 1",
                community,
                before if before is not None else 2**62,
            )
        if not rows:
            return None
        [(seq, at, version, catalog, state)] = rows
        return Checkpoint(community, seq, at, version, catalog, zlib.decompress(state))

    def read_journal(self, community: str, after: int, until: int | None = None) -> Iterator[JournalRow]:
        while True:
            with self._reading() as connection:
                rows = self._all(
                    connection,
                    "SELECT seq, at, kind, catalog, body, source, lane, digest FROM journal "
                    "WHERE community = ? AND seq > ? ORDER BY seq LIMIT ?",
                    community,
                    after,
                    PAGE,
                )
            for row in rows:
                if until is not None and row[1] > until:
                    return
                yield JournalRow(*row)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def find_event(self, event_id: str) -> tuple[str, int] | None:
        with self._reading() as connection:
            rows = self._all(connection, "SELECT community, digest FROM journal WHERE event_id = ?", event_id)
        return (rows[0][0], rows[0][1]) if rows else None

    def alive_at(self) -> int | None:
        with self._reading() as connection:
            rows = self._all(connection, "SELECT value FROM meta WHERE name = 'alive_at'")
        return rows[0][0] if rows else None

    def save_catalog(self, hash: str, files: Mapping[str, str], now: int) -> None:
        document = zlib.compress(_encode(dict(files)))
        with self._writing() as connection:
            self._do(
                connection,
                "INSERT INTO catalog (hash, files, first_at) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING",
                hash,
                document,
                now,
            )

    def load_catalog(self, hash: str) -> dict[str, str] | None:
        with self._reading() as connection:
            rows = self._all(connection, "SELECT files FROM catalog WHERE hash = ?", hash)
        return msgspec.json.decode(zlib.decompress(rows[0][0]), type=dict[str, str]) if rows else None

    # --- the outbox ------------------------------------------------------------------------------------------------------

    def due_effects(self, now: int, limit: int, kind: str) -> list[OutboxRow]:
        with self._reading() as connection:
            rows = self._all(
                connection,
                "SELECT id, community, document, attempts, due_at, created_at FROM outbox "
                "WHERE state = 'waiting' AND kind = ? AND due_at <= ? ORDER BY due_at, created_at, id LIMIT ?",
                kind,
                now,
                limit,
            )
        return [OutboxRow(r[0], r[1], _effects.decode(r[2]), r[3], r[4], r[5]) for r in rows]

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        with self._writing() as connection:
            for o in outcomes:
                self._do(
                    connection,
                    # A revision that a newer one has replaced meanwhile is not sent again.
                    "UPDATE outbox SET state = CASE WHEN state = 'superseded' AND ? = 'waiting' THEN state ELSE ? END, "
                    "attempts = attempts + 1, due_at = ?, settled_at = ?, detail = ? WHERE id = ?",
                    o.state,
                    o.state,
                    o.due_at,
                    o.at if o.state is not OutboxState.WAITING else None,
                    _clean(o.detail[:300]),
                    o.id,
                )
                if o.state is not OutboxState.WAITING:
                    self._do(
                        connection,
                        "UPDATE command SET state = ?, updated_at = ? WHERE id = ? AND state = 'pending'",
                        "sent" if o.state is OutboxState.DONE else "expired",
                        o.at,
                        o.id,
                    )

    def resend_dead(self, id: str, now: int) -> bool:
        with self._writing() as connection:
            return (
                self._do(
                    connection,
                    "UPDATE outbox SET state = 'waiting', due_at = ?, attempts = 0, settled_at = NULL "
                    "WHERE id = ? AND state = 'dead'",
                    now,
                    id,
                )
                == 1
            )

    def outbox_counts(self) -> dict[str, int]:
        with self._reading() as connection:
            return {s: n for s, n in self._all(connection, "SELECT state, count(*) FROM outbox GROUP BY state")}

    # --- credentials -------------------------------------------------------------------------------------------------------

    def issue_credentials(self, names: Sequence[str], now: int) -> dict[str, str]:
        passwords = {name: secrets.token_urlsafe(18) for name in names}
        rows = [(name, hash_password(password), now) for name, password in passwords.items()]
        with self._writing() as connection:
            self._do_many(connection, _PUT_CREDENTIAL, rows)
        return passwords

    def credentials(self) -> dict[str, str]:
        with self._reading() as connection:
            return {n: h for n, h in self._all(connection, "SELECT name, hash FROM credential ORDER BY name")}

    # --- views -------------------------------------------------------------------------------------------------------------

    def incidents(self, *, open_only: bool = False, limit: int = 1000) -> list[Incident]:
        where = "WHERE state NOT IN ('closed', 'false_alarm') " if open_only else ""
        with self._reading() as connection:
            rows = self._all(
                connection, f"SELECT document FROM incident {where}ORDER BY opened_at DESC, id LIMIT ?", limit
            )
        return [_incidents.decode(document) for (document,) in rows]

    def incident(self, id: str) -> Incident | None:
        with self._reading() as connection:
            rows = self._all(connection, "SELECT document FROM incident WHERE id = ?", id)
        return _incidents.decode(rows[0][0]) if rows else None

    def devices(self, community: str | None = None) -> list[Device]:
        where, parameters = ("", ()) if community is None else ("WHERE community = ? ", (community,))
        with self._reading() as connection:
            rows = self._all(connection, f"SELECT document FROM device {where}ORDER BY id", *parameters)
        return [_devices.decode(document) for (document,) in rows]

    def counts(self) -> dict[str, dict[str, int]]:
        with self._reading() as connection:
            return {
                name: {str(key): int(number) for key, number in self._all(connection, sql)}
                for name, sql in _COUNTS.items()
            }


class _Writing:
    """Writes the steps of a batch: one pass over the entries, then one statement per table."""

    def __init__(self, ledger: SqlLedger, connection: Connection) -> None:
        self._ledger = ledger
        self._connection = connection
        self._journal: list[Row] = []
        self._cursors: dict[tuple[str, str, str, str], Row] = {}
        self._states: dict[tuple[str, str, str], Transition] = {}
        self._incidents: dict[str, Incident] = {}
        self._devices: dict[str, tuple[str, Device]] = {}
        self._rejected: dict[tuple[str, str, str, str, str], list[Any]] = {}
        self._effects: list[tuple[int, Effect, str]] = []
        self._answers: list[tuple[int, Answer]] = []

    def write(self, entries: Sequence[Entry]) -> None:
        for e in entries:
            self._journal.append(
                (e.community, e.seq, e.at, e.kind, e.source, e.lane, e.event_id, e.digest, e.catalog, e.body)
            )
            step = e.step
            move = step.cursor
            if move is not None:
                above = ",".join(map(str, move.above)) if move.above else ""
                self._cursors[e.community, move.source, move.spool, move.lane] = (move.contiguous, above, move.lost)
            if step.transitions or step.incidents or step.effects or step.rejected or step.devices:
                self._gather(e)
            if e.kind == "answer":
                self._answers.append((e.at, _answers.decode(e.body)))
        self._flush()

    def _gather(self, e: Entry) -> None:
        step = e.step
        for transition in step.transitions:
            self._states[e.community, transition.rule, transition.key] = transition
        for incident in step.incidents:
            self._incidents[incident.id] = incident
        for device in step.devices:
            self._devices[device.id] = (e.community, device)
        for effect in step.effects:
            self._effects.append((e.at, effect, e.community))
        for r in step.rejected:
            self._count_rejected(e, r)

    def _count_rejected(self, e: Entry, r: Rejected) -> None:
        key = (e.community, r.source, _clean(r.device), _clean(r.reading), r.reason)
        known = self._rejected.get(key)
        if known is None:
            self._rejected[key] = [_clean(r.value), 1, e.at, e.at]
        else:
            known[0], known[1], known[3] = _clean(r.value), known[1] + 1, e.at

    def _flush(self) -> None:
        many = self._many
        many(_INSERT_JOURNAL, self._journal)
        many(_PUT_CURSOR, [(*key, *row) for key, row in self._cursors.items()])
        if self._states:
            quiet = [key for key, t in self._states.items() if t.phase == "quiet" and not t.note]
            many("DELETE FROM rule_state WHERE community = ? AND rule = ? AND key = ?", quiet)
            many(
                _PUT_STATE,
                [
                    (*key, t.phase, t.at, t.since, t.event, t.note, t.incident)
                    for key, t in self._states.items()
                    if t.phase != "quiet" or t.note
                ],
            )
        if self._incidents:
            self._flush_incidents()
        many(
            _PUT_DEVICE,
            [
                (d.id, community, d.source, d.profile, d.place, d.state, _encode(d))
                for community, d in self._devices.values()
            ],
        )
        many(
            _COUNT_REJECTED,
            [(*key, value, count, first, last) for key, (value, count, first, last) in self._rejected.items()],
        )
        if self._effects:
            self._flush_effects()
        many(
            "UPDATE command SET state = ?, detail = ?, updated_at = ? WHERE id = ?",
            [(a.reply.outcome, _clean(a.reply.detail[:300]), at, a.reply.command) for at, a in self._answers],
        )

    def _flush_incidents(self) -> None:
        # One by one and in order: an incident that ends its joining must do so before its successor is there.
        for i in self._incidents.values():
            self._ledger._do(
                self._connection,
                _PUT_INCIDENT,
                i.id,
                i.number,
                i.community,
                i.sort,
                i.cause,
                i.key,
                i.category,
                i.level,
                i.state,
                i.joinable,
                i.opened_at,
                i.updated_at,
                i.revision,
                _encode(i),
            )
        self._many(
            _INSERT_LINE,
            [
                (i.id, n.seq, n.at, n.who, n.what, _clean(n.why), n.event, n.device, n.rule, n.late)
                for i in self._incidents.values()
                for n in i.timeline
            ],
        )

    def _flush_effects(self) -> None:
        rows: list[Row] = []
        superseding: list[Row] = []
        commands: list[Row] = []
        newest: dict[str, int] = {}
        for at, effect, community in self._effects:
            if isinstance(effect, Deliver):
                incident = effect.incident
                newest[incident.id] = max(newest.get(incident.id, 0), incident.revision)
        for at, effect, community in self._effects:
            if isinstance(effect, Deliver):
                i = effect.incident
                state = "waiting" if newest[i.id] == i.revision else "superseded"
                rows.append((effect.id, community, "deliver", i.id, i.revision, state, at, at, _encode(effect)))
                superseding.append((i.id, i.revision))
            else:
                c = effect
                rows.append((c.id, community, "command", c.incident, 0, "waiting", at, at, _encode(effect)))
                commands.append((c.id, community, c.source, c.device, c.name, c.incident, at, at, c.expires_at))
        self._many(
            "UPDATE outbox SET state = 'superseded' WHERE incident = ? AND revision < ? AND state = 'waiting' "
            "AND kind = 'deliver'",
            superseding,
        )
        self._many(_INSERT_EFFECT, rows)
        self._many(_INSERT_COMMAND, commands)

    def _many(self, sql: str, rows: Sequence[Row]) -> None:
        self._ledger._do_many(self._connection, sql, rows)


def hash_password(password: str, salt: bytes | None = None) -> str:
    """The hash that Mosquitto reads: ``$7$rounds$salt$hash``, PBKDF2 with HMAC-SHA-512."""
    salt = secrets.token_bytes(12) if salt is None else salt
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PBKDF2_ROUNDS)
    return f"$7${PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


def verify_password(password: str, hashed: str) -> bool:
    """Whether the password is that of `hash_password`'s result."""
    try:
        _, kind, rounds, salt, derived = hashed.split("$")
        found = hashlib.pbkdf2_hmac("sha512", password.encode(), base64.b64decode(salt), int(rounds))
    except ValueError:
        return False
    return kind == "7" and secrets.compare_digest(found, base64.b64decode(derived))


def _clean(text: str) -> str:
    """PostgreSQL's texts hold no NUL, and neither holds half a surrogate pair."""
    return text.replace("\x00", "�").encode("utf-8", "replace").decode()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (LedgerDown, CommitRefused, FenceLost):
        raise
    except IntegrityError as error:
        raise CommitRefused(_reason(error)) from error
    except (OperationalError, InterfaceError) as error:
        raise LedgerDown(_reason(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise LedgerDown(_reason(error)) from error
        raise CommitRefused(_reason(error)) from error
    except (SQLAlchemyError, ValueError, OverflowError, TypeError) as error:
        raise CommitRefused(f"{type(error).__name__}: {error}"[:300]) from error


def _reason(error: DBAPIError) -> str:
    """The driver's own words, without the statement and its parameters."""
    return f"{type(error.orig).__name__}: {error.orig}".splitlines()[0][:300]


_ADD_COMMUNITY: Final = (
    "INSERT INTO community (id, serial, name, document, epoch, head, claimed_at) VALUES (?, ?, ?, ?, 0, 0, 0) "
    "ON CONFLICT (id) DO UPDATE SET serial = excluded.serial, name = excluded.name, document = excluded.document"
)
_PUT_META: Final = (
    "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_PUT_CREDENTIAL: Final = (
    "INSERT INTO credential (name, hash, issued_at) VALUES (?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, issued_at = excluded.issued_at"
)
_PUT_CHECKPOINT: Final = (
    "INSERT INTO checkpoint (community, seq, at, version, catalog, state) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (community, seq) DO UPDATE SET state = excluded.state, version = excluded.version, "
    "catalog = excluded.catalog, at = excluded.at"
)
_INSERT_JOURNAL: Final = (
    "INSERT INTO journal (community, seq, at, kind, source, lane, event_id, digest, catalog, body) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PUT_CURSOR: Final = (
    "INSERT INTO cursor (community, source, spool, lane, contiguous, above, lost) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (community, source, spool, lane) DO UPDATE SET contiguous = excluded.contiguous, "
    "above = excluded.above, lost = excluded.lost"
)
_PUT_STATE: Final = (
    "INSERT INTO rule_state (community, rule, key, phase, at, since, event, note, incident) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (community, rule, key) DO UPDATE SET phase = excluded.phase, "
    "at = excluded.at, since = excluded.since, event = excluded.event, note = excluded.note, "
    "incident = excluded.incident"
)
_PUT_INCIDENT: Final = (
    "INSERT INTO incident (id, number, community, sort, cause, key, category, level, state, joinable, opened_at, "
    "updated_at, revision, document) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET level = excluded.level, state = excluded.state, joinable = excluded.joinable, "
    "updated_at = excluded.updated_at, revision = excluded.revision, document = excluded.document "
    "WHERE incident.revision < excluded.revision"
)
_INSERT_LINE: Final = (
    "INSERT INTO timeline (incident, seq, at, who, what, why, event, device, rule, late) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (incident, seq) DO NOTHING"
)
_PUT_DEVICE: Final = (
    "INSERT INTO device (id, community, source, profile, place, state, document) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET community = excluded.community, source = excluded.source, "
    "profile = excluded.profile, place = excluded.place, state = excluded.state, document = excluded.document"
)
_COUNT_REJECTED: Final = (
    "INSERT INTO rejected (community, source, device, reading, reason, value, count, first_at, last_at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (community, source, device, reading, reason) DO UPDATE SET "
    "value = excluded.value, count = rejected.count + excluded.count, last_at = excluded.last_at"
)
_INSERT_EFFECT: Final = (
    "INSERT INTO outbox (id, community, kind, incident, revision, state, attempts, created_at, due_at, detail, "
    "document) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, '', ?)"
)
_INSERT_COMMAND: Final = (
    "INSERT INTO command (id, community, source, device, name, incident, state, detail, created_at, updated_at, "
    "expires_at) VALUES (?, ?, ?, ?, ?, ?, 'pending', '', ?, ?, ?)"
)
_PUT_QUARANTINED: Final = (
    "INSERT INTO quarantine (community, source, topic, reason, detail, digest, length, head, count, first_at, "
    "last_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT (source, reason, digest) DO UPDATE SET "
    "count = quarantine.count + 1, last_at = excluded.last_at"
)
_COUNTS: Final = {
    "quarantined": "SELECT reason, sum(count) FROM quarantine GROUP BY reason",
    "rejected": "SELECT reason, sum(count) FROM rejected GROUP BY reason",
    "outbox": "SELECT state, count(*) FROM outbox GROUP BY state",
    "commands": "SELECT state, count(*) FROM command GROUP BY state",
    "lost": "SELECT source, sum(lost) FROM cursor GROUP BY source HAVING sum(lost) > 0",
    "incidents": "SELECT state, count(*) FROM incident WHERE sort = 'incident' GROUP BY state",
    "notices": "SELECT state, count(*) FROM incident WHERE sort = 'notice' GROUP BY state",
}
