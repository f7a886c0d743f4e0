"""Webhooks in the ledger's database (`gateway.runtime.webhooks.Webhooks`); their secrets are sealed with AES-256-GCM.

The cursor is a row of the table ``meta`` that is moved by comparing: of two processes that follow the ledger, one takes
each step. The lease of whoever delivers is another such row.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from gateway.adapters.accounts import append_deed
from gateway.adapters.ledger_batch import clip
from gateway.adapters.sql_session import Database, Row, Session
from gateway.runtime.accounts import Deed, SealBroken
from gateway.runtime.webhooks import MOST, Delivery, Ended, Outcome, State, Webhook

NONCE_BYTES: Final = 12
FIRST_VERSION: Final = b"\x01"
OUTCOME_LENGTH: Final = 300
CURSOR: Final = "webhooks"
LEASE: Final = "webhooks.lease"
IDS_OF_A_STATEMENT: Final = 500


class _Document(Struct, omit_defaults=True):
    """What people said of a webhook."""

    title: str
    url: str
    kinds: tuple[str, ...]
    grids: tuple[str, ...]
    communities: tuple[str, ...]
    made_by: str


_documents: Final = msgspec.json.Decoder(_Document)


class SqlWebhooks:
    """See `gateway.runtime.webhooks.Webhooks`. ``key`` (32 bytes) seals the secrets; it lies outside the ledger."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database: Final = database
        self._seal: Final = AESGCM(key)

    # --- webhooks -------------------------------------------------------------------------------------------------

    def webhooks(self) -> list[Webhook]:
        with self._database.reading() as session:
            rows = session.select(f"SELECT {_WEBHOOK} FROM webhook ORDER BY created_at, id")  # noqa: S608
        return [_read_webhook(row) for row in rows]

    def webhook(self, id: str) -> Webhook | None:
        with self._database.reading() as session:
            rows = session.select(f"SELECT {_WEBHOOK} FROM webhook WHERE id = ?", id)  # noqa: S608
        return _read_webhook(rows[0]) if rows else None

    def add(self, webhook: Webhook, secret: str, deed: Deed) -> Webhook | None:
        document = _Document(
            webhook.title, webhook.url, webhook.kinds, webhook.grids, webhook.communities, webhook.made_by
        )
        with self._database.writing() as session:
            [(count,)] = session.select("SELECT count(*) FROM webhook")
            if count >= MOST:
                return None
            since = _read_meta(session, "position") or 0
            if count == 0:
                # What is open now was opened before anybody was told.
                session.run("DELETE FROM webhook_case")
                session.run(
                    "INSERT INTO webhook_case (incident, is_open, at) SELECT id, is_open, ? FROM incident "
                    "WHERE is_open",
                    webhook.created_at,
                )
                _put_meta(session, CURSOR, since)
            session.run(
                "INSERT INTO webhook (id, created_at, since, off_why, failures, renewal, secret, document) "
                "VALUES (?, ?, ?, '', 0, '', ?, ?)",
                webhook.id,
                webhook.created_at,
                since,
                self._close(webhook.id, secret),
                msgspec.json.encode(document),
            )
            append_deed(session, deed)
        return msgspec.structs.replace(webhook, since=since)

    def renew(self, id: str, secret: str, renewal: str, earlier_until: int, deed: Deed) -> bool:
        with self._database.writing() as session:
            is_first = session.run(
                "UPDATE webhook SET earlier = secret, earlier_until = ?, secret = ?, renewal = ? "
                "WHERE id = ? AND renewal <> ?",
                earlier_until,
                self._close(id, secret),
                renewal,
                id,
                renewal,
            )
            if is_first:
                append_deed(session, deed)
        return is_first == 1

    def switch(self, id: str, off_at: int | None, deed: Deed) -> None:
        with self._database.writing() as session:
            if off_at is not None:
                session.run(
                    "UPDATE webhook SET off_at = ?, off_why = 'by-hand' WHERE id = ? AND off_at IS NULL", off_at, id
                )
            elif session.run(
                "UPDATE webhook SET off_at = NULL, off_why = '', failures = 0, failing_since = NULL, since = ? "
                "WHERE id = ? AND off_at IS NOT NULL",
                _read_meta(session, "position") or 0,
                id,
            ):
                _bring_forward(session, id, deed.at)
            append_deed(session, deed)

    def drop(self, id: str, deed: Deed) -> None:
        with self._database.writing() as session:
            session.run("DELETE FROM webhook_delivery WHERE webhook = ?", id)
            session.run("DELETE FROM webhook WHERE id = ?", id)
            if not session.select("SELECT 1 FROM webhook LIMIT 1"):
                session.run("DELETE FROM webhook_case")
                session.run("DELETE FROM meta WHERE name = ?", CURSOR)
            append_deed(session, deed)

    def keys(self, id: str, now: int) -> list[bytes]:
        with self._database.reading() as session:
            rows = session.select("SELECT secret, earlier, earlier_until FROM webhook WHERE id = ?", id)
        if not rows:
            return []
        secret, earlier, until = rows[0]
        found = [self._open(id, bytes(secret))]
        if earlier is not None and now < (until or 0):
            found.append(self._open(id, bytes(earlier)))
        return found

    # --- what has changed -----------------------------------------------------------------------------------------

    def cursor(self) -> int | None:
        with self._database.reading() as session:
            return _read_meta(session, CURSOR)

    def open_cases(self, incidents: Sequence[str]) -> dict[str, bool]:
        if not incidents:
            return {}
        found: dict[str, bool] = {}
        with self._database.reading() as session:
            for start in range(0, len(incidents), IDS_OF_A_STATEMENT):
                part = incidents[start : start + IDS_OF_A_STATEMENT]
                marks = ", ".join("?" * len(part))
                rows = session.select(
                    f"SELECT incident, is_open FROM webhook_case WHERE incident IN ({marks})",  # noqa: S608
                    *part,
                )
                found |= {id: bool(is_open) for id, is_open in rows}
        return found

    def take(
        self, before: int, after: int, cases: Mapping[str, bool], deliveries: Sequence[Delivery], now: int
    ) -> bool:
        with self._database.writing() as session:
            if session.run("UPDATE meta SET value = ? WHERE name = ? AND value = ?", after, CURSOR, before) != 1:
                return False
            session.run_many(_PUT_CASE, [(id, is_open, now) for id, is_open in cases.items()])
            # A webhook that was taken away meanwhile gets nothing any more.
            known = {row[0] for row in session.select("SELECT id FROM webhook")}
            session.run_many(_PUT_DELIVERY, [_write(one) for one in deliveries if one.webhook in known])
        return True

    # --- deliveries -----------------------------------------------------------------------------------------------

    def due(self, webhook: str, now: int, limit: int) -> list[Delivery]:
        with self._database.reading() as session:
            rows = session.select(
                f"SELECT {_DELIVERY}, d.body FROM webhook_delivery AS d "  # noqa: S608
                "WHERE d.webhook = ? AND d.state = 'waiting' AND d.due_at <= ? AND NOT EXISTS (SELECT 1 FROM "
                "webhook_delivery AS e WHERE e.webhook = d.webhook AND e.incident = d.incident "
                "AND e.state = 'waiting' AND e.seq < d.seq) ORDER BY d.due_at, d.seq LIMIT ?",
                webhook,
                now,
                limit,
            )
        return [_read_delivery(row, bytes(row[-1])) for row in rows]

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        with self._database.writing() as session:
            for one in sorted(outcomes, key=lambda outcome: outcome.webhook):
                _settle(session, one)

    def deliveries(self, webhook: str, limit: int, before: int | None = None) -> list[Delivery]:
        with self._database.reading() as session:
            rows = session.select(
                f"SELECT {_DELIVERY} FROM webhook_delivery AS d WHERE d.webhook = ? AND d.created_at < ? "  # noqa: S608
                "ORDER BY d.created_at DESC, d.seq DESC LIMIT ?",
                webhook,
                before if before is not None else 2**62,
                limit,
            )
        return [_read_delivery(row) for row in rows]

    def send(self, delivery: Delivery, most: int, deed: Deed) -> bool:
        with self._database.writing() as session:
            [(waiting,)] = session.select(
                "SELECT count(*) FROM webhook_delivery WHERE webhook = ? AND state = 'waiting' AND kind = ?",
                delivery.webhook,
                delivery.kind,
            )
            if waiting >= most:
                return False
            session.run(_PUT_DELIVERY, *_write(delivery))
            append_deed(session, deed)
        return True

    def send_again(self, webhook: str, id: str, key: str, now: int, deed: Deed) -> bool:
        with self._database.writing() as session:
            found = session.run(
                "UPDATE webhook_delivery SET state = 'waiting', attempts = 0, due_at = ?, settled_at = NULL, "
                "again = ? WHERE webhook = ? AND id = ? AND state <> 'waiting' AND again <> ?",
                now,
                key,
                webhook,
                clip(id),
                key,
            )
            if found:
                append_deed(session, deed)
        return found == 1

    def forget(self, done_before: int, before: int) -> int:
        with self._database.writing() as session:
            gone = session.run(
                "DELETE FROM webhook_delivery WHERE created_at < ? OR (state = 'done' AND settled_at < ?)",
                before,
                done_before,
            )
            session.run("DELETE FROM webhook_case WHERE at < ? AND NOT is_open", before)
        return gone

    def hold(self, mine: int, until: int, now: int) -> bool:
        with self._database.writing() as session:
            session.run("INSERT INTO meta (name, value) VALUES (?, 0) ON CONFLICT (name) DO NOTHING", LEASE)
            held = session.run(
                "UPDATE meta SET value = ? WHERE name = ? AND (value = ? OR value <= ?)", until, LEASE, mine, now
            )
        return held == 1

    # --- the seal -------------------------------------------------------------------------------------------------

    def _close(self, id: str, secret: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return FIRST_VERSION + nonce + self._seal.encrypt(nonce, secret.encode(), id.encode())

    def _open(self, id: str, sealed: bytes) -> bytes:
        nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._seal.decrypt(nonce, body, id.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken("the secret of a webhook cannot be opened") from error


def _settle(session: Session, one: Outcome) -> None:
    detail = clip(one.detail, OUTCOME_LENGTH)
    state = {Ended.DONE: State.DONE, Ended.REFUSED: State.DEAD}.get(one.ended, State.WAITING)
    session.run(
        "UPDATE webhook_delivery SET state = ?, attempts = attempts + 1, outcome = ?, settled_at = ?, due_at = "
        "CASE WHEN ? > 0 THEN ? ELSE due_at END WHERE webhook = ? AND id = ?",
        state,
        detail,
        one.at if state is not State.WAITING else None,
        one.due_at,
        one.due_at,
        one.webhook,
        one.id,
    )
    match one.ended:
        case Ended.DONE:
            session.run(
                "UPDATE webhook SET ok_at = ?, failures = 0, failing_since = NULL WHERE id = ?", one.at, one.webhook
            )
            # It is there: what was put off because it was not goes at once.
            _bring_forward(session, one.webhook, one.at)
        case Ended.AGAIN:
            session.run(
                "UPDATE webhook SET failures = failures + 1, failing_since = coalesce(failing_since, ?) WHERE id = ?",
                one.at,
                one.webhook,
            )
            if one.gives_up:
                _switch_off(session, one, "failing")
        case Ended.GONE:
            _switch_off(session, one, "gone")
        case Ended.REFUSED:
            pass  # It answers: that one event is at fault.


def _switch_off(session: Session, one: Outcome, why: str) -> None:
    found = session.run(
        "UPDATE webhook SET off_at = ?, off_why = ? WHERE id = ? AND off_at IS NULL", one.at, why, one.webhook
    )
    if found:
        append_deed(session, Deed(one.at, "", "webhook.off", one.webhook, detail=why, role="gateway"))


def _bring_forward(session: Session, webhook: str, now: int) -> None:
    session.run(
        "UPDATE webhook_delivery SET due_at = ? WHERE webhook = ? AND state = 'waiting' AND due_at > ? "
        "AND attempts > 0",
        now,
        webhook,
        now,
    )


def _read_meta(session: Session, name: str) -> int | None:
    rows = session.select("SELECT value FROM meta WHERE name = ?", name)
    return int(rows[0][0]) if rows else None


def _put_meta(session: Session, name: str, value: int) -> None:
    session.run(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        name,
        value,
    )


_WEBHOOK: Final = (
    "id, created_at, since, off_at, off_why, failures, failing_since, ok_at, renewal, earlier_until, document"
)
_DELIVERY: Final = (
    "d.webhook, d.id, d.kind, d.incident, d.seq, d.created_at, d.due_at, d.state, d.attempts, d.settled_at, d.outcome"
)
_PUT_CASE: Final = (
    "INSERT INTO webhook_case (incident, is_open, at) VALUES (?, ?, ?) "
    "ON CONFLICT (incident) DO UPDATE SET is_open = excluded.is_open, at = excluded.at"
)
_PUT_DELIVERY: Final = (
    "INSERT INTO webhook_delivery (webhook, id, kind, incident, seq, state, attempts, created_at, due_at, outcome, "
    "body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (webhook, id) DO NOTHING"
)


def _read_webhook(row: Row) -> Webhook:
    id, created_at, since, off_at, off_why, failures, failing_since, ok_at, renewal, earlier_until, document = row
    said = _documents.decode(document)
    return Webhook(
        id,
        said.title,
        said.url,
        said.kinds,
        said.grids,
        said.communities,
        said.made_by,
        created_at,
        since,
        off_at,
        off_why,
        failures,
        failing_since,
        ok_at,
        earlier_until,
        renewal,
    )


def _read_delivery(row: Row, body: bytes = b"") -> Delivery:
    webhook, id, kind, incident, seq, created_at, due_at, state, attempts, settled_at, outcome = row[:11]
    return Delivery(
        webhook, id, kind, incident, seq, created_at, due_at, body, State(state), attempts, settled_at, outcome
    )


def _write(one: Delivery) -> Row:
    return (
        one.webhook,
        one.id,
        one.kind,
        one.incident,
        one.seq,
        one.state,
        one.attempts,
        one.created_at,
        one.due_at,
        one.outcome,
        one.body,
    )
