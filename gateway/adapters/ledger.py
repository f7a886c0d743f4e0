"""The ledger on SQL: SQLite by default, PostgreSQL by setting. One class, one set of statements, one suite of tests.

How a batch is written stands in `gateway.adapters.ledger_batch`, connections and faults in
`gateway.adapters.sql_session`, the tables in `gateway.adapters.schema`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from alembic import command as alembic_command
from alembic.config import Config
from alembic.util import CommandError
from msgspec import Struct
from sqlalchemy import Connection

from gateway.adapters.ledger_batch import clip, find_lost, write_batch
from gateway.adapters.passwords import hash_password, is_password, make_password
from gateway.adapters.sql_session import BUSY_S, Database, parse_url
from gateway.core.model import (
    Command,
    Community,
    Deliver,
    Device,
    Effect,
    Grid,
    GridLevel,
    Incident,
    Level,
    Phase,
    Responsible,
)
from gateway.runtime.ports import (
    OVERRIDES,
    Batch,
    Checkpoint,
    Claim,
    CommandView,
    CommitRefused,
    Contact,
    Disbelieved,
    FenceLost,
    Finding,
    GivenCommand,
    JournalRow,
    LedgerDown,
    OutboxRow,
    OutboxState,
    Outcome,
    OverrideRow,
    PlaceTally,
    SourceView,
    Tally,
    Unanswered,
)
from gateway.wire import Status

MIGRATIONS: Final = Path(__file__).parent / "migrations"
MIGRATION_LOCK: Final = 0x5C6_1ED6E4
"""Two programs that start together on one PostgreSQL migrate one after the other. Any number serves that nobody else
uses in this database."""

ANSWER_GRACE_MS: Final = 60_000
"""An answer may come so much later than the command's time: it was done in time, and told when the link was there."""

PAGE: Final = 1_000
"""Journal rows that are read in one transaction."""


class _Spot(Struct):
    """What a map needs of an incident: the rest of its document is not read."""

    place_name: str
    chain: tuple[str, ...] = ()
    lon: float | None = None
    lat: float | None = None


_effects: Final = msgspec.json.Decoder(Effect)
_commands: Final = msgspec.json.Decoder(Command)
_incidents: Final = msgspec.json.Decoder(Incident)
_spots: Final = msgspec.json.Decoder(_Spot)
_devices: Final = msgspec.json.Decoder(Device)
_statuses: Final = msgspec.json.Decoder(Status)
_contacts: Final = msgspec.json.Decoder(Contact)
_communities: Final = msgspec.json.Decoder(Community)
_catalogs: Final = msgspec.json.Decoder(dict[str, str])
_encode: Final = msgspec.json.encode


def open_ledger(url: str) -> SqlLedger:
    """Opens ``sqlite:///PATH``, ``sqlite://`` (in memory) or ``postgresql+psycopg://…``; nothing is connected to or
    created before the first call. Raises ValueError for any other URL."""
    return SqlLedger(url)


def configure_migrations(connection: Connection) -> Config:
    """Alembic's configuration for migrating over this connection, in its transaction."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


class SqlLedger:
    """See `gateway.runtime.ports.Ledger`. Safe to call from any thread: writers take turns, readers do not wait."""

    def __init__(self, url: str, busy_s: float = BUSY_S) -> None:
        """``busy_s``: how long to wait, in seconds, for another program that writes into the same ledger."""
        self.database: Final = Database(parse_url(url), busy_s)

    # --- life -----------------------------------------------------------------------------------------------------

    def migrate(self) -> None:
        """Brings the tables to the newest version, from any earlier one or none, whole or not at all."""
        with self.database.writing() as session:
            if not session.is_sqlite:
                session.run("SELECT pg_advisory_xact_lock(?)", MIGRATION_LOCK)
            try:
                alembic_command.upgrade(configure_migrations(session.connection), "head")
            except CommandError as error:
                raise LedgerDown(f"its tables are not of a version that this program knows ({error})") from error

    def close(self) -> None:
        self.database.close()

    # --- communities and fences -----------------------------------------------------------------------------------

    def add_communities(self, communities: Sequence[Community]) -> None:
        with self.database.writing() as session:
            session.run_many(_ADD_COMMUNITY, [(c.id, c.serial, c.name, _encode(c)) for c in communities])

    def communities(self) -> list[Community]:
        with self.database.reading() as session:
            rows = session.select("SELECT document FROM community ORDER BY id")
            return [_communities.decode(document) for (document,) in rows]

    def claim(self, communities: Sequence[str], now: int) -> list[Claim]:
        names = sorted(set(communities))
        with self.database.writing() as session:
            session.run_many(
                "UPDATE community SET epoch = epoch + 1, claimed_at = ? WHERE id = ?", [(now, name) for name in names]
            )
            rows = session.select("SELECT id, document, epoch, head FROM community")
            found = {id: Claim(_communities.decode(document), epoch, head) for id, document, epoch, head in rows}
            missing = [name for name in names if name not in found]
            if missing:
                raise CommitRefused(f"there is no community {', '.join(missing)}")
        return [found[name] for name in names]

    def standing(self, communities: Sequence[str]) -> dict[str, tuple[int, int]]:
        wanted = set(communities)
        with self.database.reading() as session:
            rows = session.select("SELECT id, epoch, head FROM community")
        return {id: (epoch, head) for id, epoch, head in rows if id in wanted}

    # --- the commit -----------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> None:
        try:
            with self.database.writing() as session:
                write_batch(session, batch)
        except FenceLost as fault:
            lost = find_lost(batch.fences, self.standing(fault.communities))
            if not lost:
                raise CommitRefused("a community is fenced twice in one batch") from None
            raise FenceLost(lost) from None

    # --- reading back ---------------------------------------------------------------------------------------------

    def load_checkpoint(self, community: str, before: int | None = None) -> Checkpoint | None:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT community, seq, at, version, catalog, state FROM checkpoint "
                "WHERE community = ? AND at <= ? ORDER BY seq DESC LIMIT 1",
                community,
                _LATEST if before is None else before,
            )
            if not rows:
                return None
            [(name, seq, at, version, catalog, state)] = rows
            return Checkpoint(name, seq, at, version, catalog, zlib.decompress(state))

    def read_journal(
        self, community: str, after: int, until: int | None = None, kinds: Sequence[str] = ()
    ) -> Iterator[JournalRow]:
        """Stops at the first row that is later than ``until``: what is fed again has no holes."""
        wanted = f"AND kind IN ({', '.join('?' * len(kinds))}) " if kinds else ""
        sql = (
            "SELECT seq, at, kind, catalog, body, source, lane, digest FROM journal "  # noqa: S608 - our own words
            f"WHERE community = ? AND seq > ? {wanted}ORDER BY seq LIMIT ?"
        )
        while True:
            with self.database.reading() as session:
                rows = session.select(sql, community, after, *kinds, PAGE)
            for row in rows:
                if until is not None and row[1] > until:
                    return
                yield JournalRow(*row)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def journal_before(self, community: str, at: int) -> int:
        """Rows stand in the order of time: looked for from the newest back, because who asks mostly asks of lately."""
        with self.database.reading() as session:
            rows = session.select(
                "SELECT seq FROM journal WHERE community = ? AND at < ? ORDER BY seq DESC LIMIT 1", community, at
            )
        return rows[0][0] if rows else 0

    def find_event(self, event_id: str) -> tuple[str, int] | None:
        if clip(event_id, len(event_id)) != event_id:
            return None  # What no database holds is in none.
        with self.database.reading() as session:
            rows = session.select("SELECT community, digest FROM journal WHERE event_id = ?", event_id)
        return (rows[0][0], rows[0][1]) if rows else None

    def alive_at(self) -> int | None:
        with self.database.reading() as session:
            rows = session.select("SELECT value FROM meta WHERE name = 'alive_at'")
        return int(rows[0][0]) if rows else None

    def save_catalog(self, hash: str, files: Mapping[str, str], now: int) -> None:
        with self.database.writing() as session:
            session.run(
                "INSERT INTO catalog (hash, files, first_at) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING",
                hash,
                zlib.compress(_encode(dict(files))),
                now,
            )

    def load_catalog(self, hash: str) -> dict[str, str] | None:
        with self.database.reading() as session:
            rows = session.select("SELECT files FROM catalog WHERE hash = ?", hash)
            return _catalogs.decode(zlib.decompress(rows[0][0])) if rows else None

    # --- the outbox -----------------------------------------------------------------------------------------------

    def due_effects(self, now: int, limit: int, kind: str) -> list[OutboxRow]:
        """What cannot be read (a step back to an older program, a fault of ours) becomes a dead letter and holds
        nothing back."""
        with self.database.reading() as session:
            rows = session.select(
                "SELECT id, community, document, attempts, due_at, created_at FROM outbox "
                "WHERE state = 'waiting' AND kind = ? AND due_at <= ? ORDER BY due_at, created_at, id LIMIT ?",
                kind,
                now,
                limit,
            )
        due: list[OutboxRow] = []
        unreadable: list[Outcome] = []
        for id, community, document, attempts, due_at, created_at in rows:
            try:
                due.append(OutboxRow(id, community, _effects.decode(document), attempts, due_at, created_at))
            except msgspec.MsgspecError as error:
                unreadable.append(Outcome(id, OutboxState.DEAD, now, f"it cannot be read: {error}"))
        if unreadable:
            self.settle(unreadable)
        return due

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """What is settled for good stays so. A revision that a newer one has superseded meanwhile is not sent again,
        but its own last attempt may still end well or badly."""
        waiting = [(o.due_at, clip(o.detail), o.id) for o in outcomes if o.state is OutboxState.WAITING]
        final = [o for o in outcomes if o.state is not OutboxState.WAITING]
        with self.database.writing() as session:
            session.run_many(
                "UPDATE outbox SET attempts = attempts + 1, due_at = ?, detail = ? WHERE id = ? AND state = 'waiting'",
                waiting,
            )
            session.run_many(
                "UPDATE outbox SET state = ?, attempts = attempts + 1, settled_at = ?, detail = ? "
                "WHERE id = ? AND state IN ('waiting', 'superseded')",
                [(o.state, o.at, clip(o.detail), o.id) for o in final],
            )
            # An answer may have come before this: then the command is further than that already.
            session.run_many(
                "UPDATE command SET state = 'sent', updated_at = ? WHERE id = ? AND state = 'pending'",
                [(o.at, o.id) for o in final if o.state is OutboxState.DONE],
            )
            session.run_many(
                "UPDATE command SET state = CASE WHEN expires_at < ? THEN 'expired' ELSE 'failed' END, detail = ?, "
                "updated_at = ? WHERE id = ? AND state = 'pending'",
                [(o.at, clip(o.detail), o.at, o.id) for o in final if o.state is OutboxState.DEAD],
            )

    def bring_forward(self, now: int, latest: int) -> None:
        with self.database.writing() as session:
            session.run(
                "UPDATE outbox SET due_at = ? WHERE state = 'waiting' AND kind IN ('deliver', 'command', 'notify') "
                "AND due_at > ? AND (attempts = 0 OR due_at > ?)",
                now,
                now,
                latest,
            )

    def unanswered_commands(self, now: int, limit: int = 100) -> list[Unanswered]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT id, community, source, device FROM command "
                "WHERE state = 'sent' AND expires_at < ? ORDER BY expires_at LIMIT ?",
                now - ANSWER_GRACE_MS,
                limit,
            )
            return [Unanswered(*row) for row in rows]

    def resend_dead(self, id: str, now: int) -> bool:
        with self.database.writing() as session:
            changed = session.run(
                "UPDATE outbox SET state = 'waiting', due_at = ?, attempts = 0, settled_at = NULL "
                "WHERE id = ? AND state = 'dead'",
                now,
                id,
            )
        return changed == 1

    def deliver_again(self, incident: str, now: int) -> bool:
        with self.database.writing() as session:
            rows = session.select("SELECT document FROM incident WHERE id = ? AND sort = 'incident'", incident)
            if not rows:
                return False
            newest = _incidents.decode(rows[0][0])
            effect = Deliver(f"{newest.id}/{newest.revision}", newest)
            session.run(
                "UPDATE outbox SET state = 'superseded' "
                "WHERE incident = ? AND revision < ? AND state = 'waiting' AND kind = 'deliver'",
                newest.id,
                newest.revision,
            )
            session.run(
                _DELIVER_AGAIN, effect.id, newest.community, newest.id, newest.revision, now, now, _encode(effect)
            )
        return True

    def outbox_state(self, id: str) -> OutboxState | None:
        with self.database.reading() as session:
            rows = session.select("SELECT state FROM outbox WHERE id = ?", id)
            return OutboxState(rows[0][0]) if rows else None

    def outbox_counts(self) -> dict[str, int]:
        with self.database.reading() as session:
            return dict(session.select(_COUNTS["outbox"]))

    # --- the district ---------------------------------------------------------------------------------------------

    def put_district(
        self, grids: Sequence[Grid], responsible: Sequence[Responsible], contacts: Sequence[Contact]
    ) -> None:
        with self.database.writing() as session:
            session.run_many(_PUT_GRID, [(g.code, g.level, g.name, g.parent) for g in grids])
            session.run_many(_PUT_RESPONSIBLE, [(r.body, r.grid, r.name) for r in responsible])
            session.run_many(_PUT_CONTACT, [(c.id, c.rank, _encode(c)) for c in contacts])

    def drop_district(
        self, grids: Sequence[str], responsible: Sequence[tuple[str, str]], contacts: Sequence[str]
    ) -> None:
        with self.database.writing() as session:
            session.run_many("DELETE FROM grid WHERE code = ?", [(code,) for code in grids])
            session.run_many("DELETE FROM responsible WHERE body = ? AND grid = ?", list(responsible))
            session.run_many("DELETE FROM contact WHERE id = ?", [(id,) for id in contacts])

    def grids(self) -> list[Grid]:
        with self.database.reading() as session:
            rows = session.select("SELECT code, level, name, parent FROM grid ORDER BY code")
            return [Grid(code, GridLevel(level), name, parent) for code, level, name, parent in rows]

    def responsible(self) -> list[Responsible]:
        with self.database.reading() as session:
            rows = session.select("SELECT body, grid, name FROM responsible ORDER BY body, grid")
            return [Responsible(*row) for row in rows]

    def contacts(self) -> list[Contact]:
        with self.database.reading() as session:
            rows = session.select("SELECT document FROM contact ORDER BY rank, id")
            return [_contacts.decode(document) for (document,) in rows]

    # --- credentials ----------------------------------------------------------------------------------------------

    def issue_credentials(self, names: Sequence[str], now: int) -> dict[str, str]:
        passwords = {name: make_password() for name in names}
        rows = [(name, hash_password(password), now) for name, password in passwords.items()]
        with self.database.writing() as session:
            session.run_many(_PUT_CREDENTIAL, rows)
        return passwords

    def credentials(self) -> dict[str, str]:
        with self.database.reading() as session:
            return dict(session.select("SELECT name, hash FROM credential ORDER BY name"))

    def drop_credentials(self, names: Sequence[str]) -> None:
        with self.database.writing() as session:
            session.run_many("DELETE FROM credential WHERE name = ?", [(name,) for name in names])

    def list_beforehand(self, secrets: Mapping[str, str], now: int) -> list[str]:
        rows = {name: (name, hash_password(secret), now) for name, secret in secrets.items()}
        known: list[str] = []
        with self.database.writing() as session:
            for name, row in rows.items():
                is_known = any(session.select(sql, name) for sql in _HOLDERS)
                # One statement, so that an identity that is issued beside this is never overwritten.
                if is_known or session.run(_LIST_CREDENTIAL, *row) == 0:
                    known.append(name)
        return known

    def is_unclaimed(self, name: str, password: str) -> bool:
        with self.database.reading() as session:
            rows = session.select("SELECT hash FROM credential WHERE name = ?", name)
            is_held = any(session.select(sql, name) for sql in _HOLDERS)
        return bool(rows) and not is_held and is_password(password, rows[0][0])

    def is_identity_taken(self, name: str) -> bool:
        with self.database.reading() as session:
            return any(session.select(sql, name) for sql in _IDENTITIES)

    # --- views ----------------------------------------------------------------------------------------------------

    def incidents(self, *, open_only: bool = False, limit: int = 1000) -> list[Incident]:
        where = "WHERE is_open " if open_only else ""
        with self.database.reading() as session:
            rows = session.select(
                f"SELECT document FROM incident {where}ORDER BY opened_at DESC, id LIMIT ?",  # noqa: S608
                limit,
            )
            return [_incidents.decode(document) for (document,) in rows]

    def incident(self, id: str) -> Incident | None:
        with self.database.reading() as session:
            rows = session.select("SELECT document FROM incident WHERE id = ?", id)
            return _incidents.decode(rows[0][0]) if rows else None

    def incident_of(self, event: str) -> Incident | None:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT i.document FROM timeline AS t JOIN incident AS i ON i.id = t.incident WHERE t.event = ? "
                "ORDER BY t.at, t.seq LIMIT 1",
                event,
            )
        return _incidents.decode(rows[0][0]) if rows else None

    def open_at(self, community: str, key: str) -> Incident | None:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT document FROM incident WHERE is_open AND community = ? AND key = ? "
                "ORDER BY opened_at DESC, id LIMIT 1",
                community,
                key,
            )
        return _incidents.decode(rows[0][0]) if rows else None

    def changed_incidents(self, since: int, after: str = "", limit: int = 500) -> list[Incident]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT document FROM incident WHERE sort = 'incident' AND updated_at >= ? AND id > ? "
                "ORDER BY id LIMIT ?",
                since,
                after,
                limit,
            )
            return [_incidents.decode(document) for (document,) in rows]

    def opened_incidents(self, since: int, until: int, after: str = "", limit: int = 500) -> list[Incident]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT document FROM incident WHERE sort = 'incident' AND opened_at >= ? AND opened_at < ? "
                "AND (opened_at > ? OR id > ?) ORDER BY opened_at, id LIMIT ?",
                since,
                until,
                since,
                after,
                limit,
            )
            return [_incidents.decode(document) for (document,) in rows]

    def tally_opened(self, since: int, until: int) -> list[Tally]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT community, grid, category, level, count(*) FROM incident "
                "WHERE sort = 'incident' AND opened_at >= ? AND opened_at < ? "
                "GROUP BY community, grid, category, level ORDER BY community, grid, category, level",
                since,
                until,
            )
        return [Tally(in_, grid, category, Level(level), number) for in_, grid, category, level, number in rows]

    def tally_places(self, community: str, since: int, until: int) -> list[PlaceTally]:
        with self.database.reading() as session:
            # Numbers of incidents rise with time: the place is called as in (about) the newest of each group.
            rows = session.select(
                "SELECT t.place, t.category, t.level, t.number, i.document FROM "
                "(SELECT place, grid, category, level, count(*) AS number, max(number) AS newest FROM incident "
                "WHERE community = ? AND sort = 'incident' AND opened_at >= ? AND opened_at < ? "
                "GROUP BY place, grid, category, level) AS t JOIN incident AS i ON i.number = t.newest "
                "ORDER BY t.place, t.grid, t.category, t.level",
                community,
                since,
                until,
            )
        found = []
        for place, category, level, number, document in rows:
            spot = _spots.decode(document)
            found.append(
                PlaceTally(place, spot.place_name, category, Level(level), number, spot.chain, spot.lon, spot.lat)
            )
        return found

    def position(self) -> int:
        with self.database.reading() as session:
            rows = session.select("SELECT value FROM meta WHERE name = 'position'")
        return int(rows[0][0]) if rows else 0

    def changes(self, after: int, limit: int = 500, *, open_only: bool = False) -> list[tuple[int, Incident]]:
        where = "AND is_open " if open_only else ""
        with self.database.reading() as session:
            rows = session.select(
                f"SELECT position, document FROM incident WHERE position > ? {where}ORDER BY position LIMIT ?",  # noqa: S608
                after,
                limit,
            )
        return [(position, _incidents.decode(document)) for position, document in rows]

    def devices(self, community: str | None = None) -> list[Device]:
        with self.database.reading() as session:
            if community is None:
                rows = session.select("SELECT document FROM device ORDER BY community, id")
            else:
                rows = session.select("SELECT document FROM device WHERE community = ? ORDER BY id", community)
            return [_devices.decode(document) for (document,) in rows]

    def device(self, community: str, id: str) -> Device | None:
        if clip(id, len(id)) != id:
            return None  # What no database holds is in none.
        with self.database.reading() as session:
            rows = session.select("SELECT document FROM device WHERE community = ? AND id = ?", community, id)
            return _devices.decode(rows[0][0]) if rows else None

    def disbelieved(self, community: str, device: str | None = None) -> list[Disbelieved]:
        sql = (
            "SELECT device, reading, reason, value, count, first_at, last_at FROM rejected "
            "WHERE community = ? AND ? IN ('', device) ORDER BY last_at DESC, device, reading, reason"
        )
        with self.database.reading() as session:
            return [Disbelieved(*row) for row in session.select(sql, community, device or "")]

    def commands(self, community: str, device: str, limit: int = 50) -> list[CommandView]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT id, name, state, detail, created_at, updated_at, incident FROM command "
                "WHERE community = ? AND device = ? ORDER BY created_at DESC, id LIMIT ?",
                community,
                device,
                limit,
            )
            return [CommandView(*row) for row in rows]

    def commands_for(self, incident: str, limit: int = 200) -> list[GivenCommand]:
        """By way of the outbox: its rows are found by their incident, and keep what was asked with all it said."""
        with self.database.reading() as session:
            rows = session.select(
                "SELECT c.id, c.device, c.name, o.document, c.state, c.detail, c.created_at, c.updated_at, "
                "c.expires_at FROM outbox o JOIN command c ON c.id = o.id "
                "WHERE o.incident = ? AND o.kind = 'command' ORDER BY c.created_at DESC, c.id LIMIT ?",
                incident,
                limit,
            )
        return [
            GivenCommand(id, device, name, _commands.decode(document).args, *outcome)
            for id, device, name, document, *outcome in rows
        ]

    def incidents_of(self, community: str, device: str, limit: int = 50) -> list[Incident]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT document FROM incident WHERE community = ? AND id IN "
                "(SELECT incident FROM timeline WHERE device = ?) ORDER BY opened_at DESC, id LIMIT ?",
                community,
                device,
                limit,
            )
            return [_incidents.decode(document) for (document,) in rows]

    def registry_rows(self, community: str, limit: int = 5000) -> list[JournalRow]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT seq, at, kind, catalog, body, source, lane, digest FROM journal "
                "WHERE community = ? AND kind IN ('registry', 'silence') ORDER BY seq DESC LIMIT ?",
                community,
                limit,
            )
            return [JournalRow(*row) for row in rows]

    def override_rows(self, rule: str = "") -> list[OverrideRow]:
        first = f"{OVERRIDES}{rule}/" if rule else OVERRIDES
        # The index of event ids tells all that begin so: "0" comes after "/" in every collation.
        last = first[:-1] + "0"
        with self.database.reading() as session:
            rows = session.select(
                "SELECT community, seq, at, event_id, body FROM journal "
                "WHERE event_id >= ? AND event_id < ? AND kind = 'override' ORDER BY community, seq",
                first,
                last,
            )
            return [OverrideRow(*row) for row in rows]

    def findings(self, rule: str, limit: int = 500) -> list[Finding]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT community, key, phase, at, since, note, incident FROM rule_state WHERE rule = ? "
                "ORDER BY at DESC, community, key LIMIT ?",
                rule,
                limit,
            )
            return [Finding(in_, key, Phase(phase), *rest) for in_, key, phase, *rest in rows]

    def finding_counts(self) -> list[tuple[str, str, Phase, int]]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT community, rule, phase, count(*) FROM rule_state GROUP BY community, rule, phase "
                "ORDER BY community, rule, phase"
            )
            return [(community, rule, Phase(phase), number) for community, rule, phase, number in rows]

    def quarantine_counts(self) -> list[tuple[str, str, int]]:
        with self.database.reading() as session:
            rows = session.select(
                "SELECT community, reason, sum(count) FROM quarantine GROUP BY community, reason "
                "ORDER BY community, reason"
            )
            return [(community, reason, int(number)) for community, reason, number in rows]

    def sources(self, community: str | None = None) -> list[SourceView]:
        sql = "SELECT community, id, seen_at, document FROM source WHERE ? IN ('', community) ORDER BY community, id"
        with self.database.reading() as session:
            rows = session.select(sql, community or "")
        return [SourceView(in_, id, at, _statuses.decode(document)) for in_, id, at, document in rows]

    def counts(self) -> dict[str, dict[str, int]]:
        """Besides what the port names: ``incidents`` and ``notices`` by state."""
        with self.database.reading() as session:
            return {
                name: {str(key): int(number) for key, number in session.select(sql)} for name, sql in _COUNTS.items()
            }


_LATEST: Final = 2**62

_ADD_COMMUNITY: Final = (
    "INSERT INTO community (id, serial, name, document, epoch, head, claimed_at) VALUES (?, ?, ?, ?, 0, 0, 0) "
    "ON CONFLICT (id) DO UPDATE SET serial = excluded.serial, name = excluded.name, document = excluded.document"
)
_DELIVER_AGAIN: Final = (
    "INSERT INTO outbox (id, community, kind, incident, revision, state, attempts, created_at, due_at, detail, "
    "document) VALUES (?, ?, 'deliver', ?, ?, 'waiting', 0, ?, ?, '', ?) "
    "ON CONFLICT (id) DO UPDATE SET state = 'waiting', attempts = 0, created_at = excluded.created_at, "
    "due_at = excluded.due_at, settled_at = NULL, detail = '', document = excluded.document"
)
_PUT_GRID: Final = (
    "INSERT INTO grid (code, level, name, parent) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (code) DO UPDATE SET level = excluded.level, name = excluded.name, parent = excluded.parent"
)
_PUT_RESPONSIBLE: Final = (
    "INSERT INTO responsible (body, grid, name) VALUES (?, ?, ?) "
    "ON CONFLICT (body, grid) DO UPDATE SET name = excluded.name"
)
_PUT_CONTACT: Final = (
    "INSERT INTO contact (id, rank, document) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET rank = excluded.rank, document = excluded.document"
)
_PUT_CREDENTIAL: Final = (
    "INSERT INTO credential (name, hash, issued_at) VALUES (?, ?, ?) "
    "ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, issued_at = excluded.issued_at"
)
_LIST_CREDENTIAL: Final = (
    "INSERT INTO credential (name, hash, issued_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING"
)
_HOLDERS: Final = ("SELECT 1 FROM device WHERE source = ? LIMIT 1", "SELECT 1 FROM cursor WHERE source = ? LIMIT 1")
"""Whose an identity is. One that nobody has claimed may have said its status all the same."""

_IDENTITIES: Final = (
    "SELECT 1 FROM credential WHERE name = ? LIMIT 1",
    "SELECT 1 FROM source WHERE id = ? LIMIT 1",
    *_HOLDERS,
)
_COUNTS: Final = {
    "quarantined": "SELECT reason, sum(count) FROM quarantine GROUP BY reason",
    "rejected": "SELECT reason, sum(count) FROM rejected GROUP BY reason",
    "outbox": "SELECT state, count(*) FROM outbox WHERE kind <> 'notify' GROUP BY state",
    "notifications": "SELECT state, count(*) FROM outbox WHERE kind = 'notify' GROUP BY state",
    "commands": "SELECT state, count(*) FROM command GROUP BY state",
    "repeats": "SELECT substr(name, 9), value FROM meta WHERE substr(name, 1, 8) = 'repeats/'",
    "clocks": "SELECT substr(name, 8), value FROM meta WHERE substr(name, 1, 7) = 'clocks/'",
    "lost": "SELECT source, sum(lost) FROM cursor GROUP BY source HAVING sum(lost) > 0",
    "incidents": "SELECT state, count(*) FROM incident WHERE sort = 'incident' GROUP BY state",
    "notices": "SELECT state, count(*) FROM incident WHERE sort = 'notice' GROUP BY state",
}
