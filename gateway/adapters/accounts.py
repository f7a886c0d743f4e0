"""Accounts, sessions, tokens and the audit log in the ledger's database (`gateway.runtime.accounts.Accounts`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.adapters.ledger_batch import clip
from gateway.adapters.sql_session import Database, Row, Session
from gateway.runtime import accounts as values
from gateway.runtime.accounts import Account, AccountMoved, AccountTaken, AuditFilter, AuditRow, Deed, Stage, Token, Way
from gateway.runtime.audit import START, chain_hash

PAGE: Final = 1_000
"""Lines of the audit log that are read in one transaction."""

SHORT: Final = 200
LONG: Final = 2_000
"""Characters of a deed's fields: what came from outside is cut."""

_accounts: Final = msgspec.json.Decoder(Account)
_tokens: Final = msgspec.json.Decoder(Token)
_encode: Final = msgspec.json.encode


class SqlAccounts:
    """See `gateway.runtime.accounts.Accounts`. Safe to call from any thread."""

    def __init__(self, database: Database) -> None:
        self._database: Final = database

    # --- accounts -------------------------------------------------------------------------------------------------

    def accounts(self) -> list[Account]:
        with self._database.reading() as session:
            return [_accounts.decode(row[0]) for row in session.select("SELECT document FROM account ORDER BY name")]

    def account(self, id: str) -> Account | None:
        return self._find("id", id)

    def find_account(self, name: str) -> Account | None:
        return self._find("name", name)

    def find_portal(self, portal: str) -> Account | None:
        return self._find("portal", portal)

    def _find(self, column: str, value: str) -> Account | None:
        if clip(value, len(value)) != value:
            return None  # What no database holds is in none.
        with self._database.reading() as session:
            rows = session.select(f"SELECT document FROM account WHERE {column} = ?", value)  # noqa: S608
        return _accounts.decode(rows[0][0]) if rows else None

    def add_account(self, account: Account, deed: Deed) -> None:
        with self._database.writing() as session:
            _refuse_taken(session, account)
            session.run(
                "INSERT INTO account (id, name, portal, revision, document) VALUES (?, ?, ?, ?, ?)",
                account.id,
                account.name,
                account.portal,
                account.revision,
                _encode(account),
            )
            append_deed(session, deed)

    def change_account(
        self, account: Account, deed: Deed | None, *, ends_sessions: bool = False, ends_tokens: bool = False
    ) -> Account:
        with self._database.writing() as session:
            changed = _write(session, account)
            if ends_sessions:
                session.run("DELETE FROM session WHERE account = ?", account.id)
            if ends_tokens:
                session.run("DELETE FROM token WHERE account = ?", account.id)
            if deed is not None:
                append_deed(session, deed)
        return changed

    def begin_attempt(self, id: str, limit: int, now: int, locked_until: int) -> Account | None:
        with self._database.writing() as session:
            lock = "" if session.is_sqlite else " FOR UPDATE"
            rows = session.select(f"SELECT document FROM account WHERE id = ?{lock}", id)  # noqa: S608
            if not rows:
                return None
            account = _accounts.decode(rows[0][0])
            if now < account.locked_until:
                return None
            # A lock that has run out begins a new count.
            failures = (0 if account.locked_until else account.failures) + 1
            until = locked_until if failures >= limit else 0
            return _write(session, replace(account, failures=failures, locked_until=until))

    # --- sessions -------------------------------------------------------------------------------------------------

    def open_session(self, session: values.Session, deed: Deed | None, *, replaces: str = "") -> None:
        with self._database.writing() as writing:
            writing.run("DELETE FROM session WHERE id = ?", replaces)
            writing.run(
                "INSERT INTO session (id, account, stage, created_at, seen_at, address, agent, way) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                session.id,
                session.account,
                session.stage,
                session.created_at,
                session.seen_at,
                clip(session.address, SHORT),
                clip(session.agent, SHORT),
                session.way,
            )
            if deed is not None:
                append_deed(writing, deed)

    def find_session(self, id: str) -> tuple[values.Session, Account] | None:
        with self._database.reading() as session:
            rows = session.select(
                f"SELECT {_SESSION}, a.document FROM session AS s JOIN account AS a ON a.id = s.account "  # noqa: S608
                "WHERE s.id = ?",
                id,
            )
        return (_read_session(rows[0]), _accounts.decode(rows[0][-1])) if rows else None

    def touch_session(self, id: str, now: int) -> None:
        with self._database.writing() as session:
            session.run("UPDATE session SET seen_at = ? WHERE id = ? AND seen_at < ?", now, id, now)

    def sessions(self, account: str) -> list[values.Session]:
        with self._database.reading() as session:
            rows = session.select(
                f"SELECT {_SESSION} FROM session AS s WHERE s.account = ? ORDER BY s.seen_at DESC, s.id",  # noqa: S608
                account,
            )
        return [_read_session(row) for row in rows]

    def end_sessions(self, account: str, deed: Deed, *, only: str = "", keep: str = "") -> int:
        with self._database.writing() as session:
            ended = session.run(
                "DELETE FROM session WHERE account = ? AND (? = '' OR id = ?) AND id <> ?", account, only, only, keep
            )
            append_deed(session, deed)
        return ended

    def drop_sessions(self, created_before: int, seen_before: int) -> None:
        with self._database.writing() as session:
            session.run("DELETE FROM session WHERE created_at < ? OR seen_at < ?", created_before, seen_before)

    # --- tokens ---------------------------------------------------------------------------------------------------

    def add_token(self, token: Token, deed: Deed) -> None:
        with self._database.writing() as session:
            session.run(
                "INSERT INTO token (id, hash, account, created_at, document) VALUES (?, ?, ?, ?, ?)",
                token.id,
                token.hash,
                token.account,
                token.created_at,
                _encode(token),
            )
            append_deed(session, deed)

    def find_token(self, hash: str) -> tuple[Token, Account] | None:
        with self._database.reading() as session:
            rows = session.select(
                "SELECT t.document, t.used_at, a.document FROM token AS t JOIN account AS a ON a.id = t.account "
                "WHERE t.hash = ?",
                hash,
            )
        return (_read_token(rows[0]), _accounts.decode(rows[0][2])) if rows else None

    def touch_token(self, id: str, now: int) -> None:
        with self._database.writing() as session:
            session.run("UPDATE token SET used_at = ? WHERE id = ?", now, id)

    def tokens(self, account: str) -> list[Token]:
        with self._database.reading() as session:
            rows = session.select(
                "SELECT document, used_at FROM token WHERE account = ? ORDER BY created_at DESC, id", account
            )
        return [_read_token(row) for row in rows]

    def drop_token(self, account: str, id: str, deed: Deed) -> bool:
        with self._database.writing() as session:
            is_gone = session.run("DELETE FROM token WHERE account = ? AND id = ?", account, id) == 1
            if is_gone:
                append_deed(session, deed)
        return is_gone

    # --- the audit log --------------------------------------------------------------------------------------------

    def record(self, deed: Deed) -> None:
        with self._database.writing() as session:
            append_deed(session, deed)

    def read_audit(self, after: int = 0) -> Iterator[AuditRow]:
        while True:
            with self._database.reading() as session:
                rows = session.select(f"SELECT {_AUDIT} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", after, PAGE)  # noqa: S608
            yield from map(_read_audit, rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def find_audit(self, wanted: AuditFilter, limit: int, before: int | None = None) -> list[AuditRow]:
        conditions = {
            "who = ?": wanted.who or None,
            "substr(what, 1, length(?)) = ?": wanted.what or None,
            "about = ?": wanted.about or None,
            "address = ?": wanted.where or None,
            "at >= ?": wanted.since,
            "at < ?": wanted.until,
            "seq < ?": before,
        }
        given = {sql: value for sql, value in conditions.items() if value is not None}
        where = " AND ".join([*given, "outcome <> 'done'"] if wanted.refused_only else [*given, "1 = 1"])
        values = [value for sql, value in given.items() for _ in range(sql.count("?"))]
        with self._database.reading() as session:
            rows = session.select(
                f"SELECT {_AUDIT} FROM audit WHERE {where} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - our own words
                *(clip(value, SHORT) if isinstance(value, str) else value for value in values),
                limit,
            )
        return [_read_audit(row) for row in rows]

    def audit_head(self) -> tuple[int, str]:
        with self._database.reading() as session:
            rows = session.select("SELECT seq, hash FROM audit_head WHERE id = 1")
        return (rows[0][0], rows[0][1]) if rows and rows[0][0] else (0, "")


def _write(session: Session, account: Account) -> Account:
    _refuse_taken(session, account)
    changed = replace(account, revision=account.revision + 1)
    written = session.run(
        "UPDATE account SET name = ?, portal = ?, revision = ?, document = ? WHERE id = ? AND revision = ?",
        changed.name,
        changed.portal,
        changed.revision,
        _encode(changed),
        account.id,
        account.revision,
    )
    if written != 1:
        raise AccountMoved(f"account {account.name} was changed meanwhile")
    return changed


def _refuse_taken(session: Session, account: Account) -> None:
    if session.select(
        "SELECT 1 FROM account WHERE id <> ? AND (name = ? OR portal = ?)", account.id, account.name, account.portal
    ):
        raise AccountTaken(f"another account has the name {account.name} or its portal identity")


def append_deed(session: Session, deed: Deed) -> None:
    """Adds a line. The head's row is held from here to the end of the transaction: one appends at a time."""
    session.run("INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, ?) ON CONFLICT (id) DO NOTHING", START)
    session.run("UPDATE audit_head SET seq = seq + 1 WHERE id = 1")
    [(seq, before)] = session.select("SELECT seq, hash FROM audit_head WHERE id = 1")
    clean = replace(
        deed,
        who=clip(deed.who, SHORT),
        what=clip(deed.what, SHORT),
        about=clip(deed.about, SHORT),
        where=clip(deed.where, SHORT),
        outcome=clip(deed.outcome, SHORT),
        detail=clip(deed.detail, LONG),
    )
    hash = chain_hash(before, seq, clean)
    session.run(
        f"INSERT INTO audit ({_AUDIT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        seq,
        clean.at,
        clean.who,
        clean.role,
        clean.what,
        clean.about,
        clean.where,
        clean.outcome,
        clean.detail,
        hash,
    )
    session.run("UPDATE audit_head SET hash = ? WHERE id = 1", hash)


_SESSION: Final = "s.id, s.account, s.stage, s.created_at, s.seen_at, s.address, s.agent, s.way"
_AUDIT: Final = "seq, at, who, role, what, about, address, outcome, detail, hash"


def _read_session(row: Row) -> values.Session:
    return values.Session(row[0], row[1], Stage(row[2]), row[3], row[4], row[5], row[6], Way(row[7]))


def _read_token(row: Row) -> Token:
    return replace(_tokens.decode(row[0]), used_at=row[1])


def _read_audit(row: Row) -> AuditRow:
    seq, at, who, role, what, about, address, outcome, detail, hash = row
    return AuditRow(seq, Deed(at, who, what, about, address, outcome, detail, role), hash)
