"""Calls in the ledger's database (`gateway.runtime.calls.Calls`); what was said is sealed with AES-256-GCM."""

from __future__ import annotations

import secrets
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from gateway.adapters.accounts import append_deed
from gateway.adapters.ledger_batch import clip
from gateway.adapters.sql_session import Database, Row
from gateway.runtime.accounts import Deed
from gateway.runtime.calls import Call, CallElsewhere

NONCE_BYTES: Final = 12
FIRST_VERSION: Final = b"\x01"


class SqlCalls:
    """See `gateway.runtime.calls.Calls`. ``key`` (32 bytes) seals what was said; it lies outside the ledger."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database: Final = database
        self._seal: Final = AESGCM(key)

    def keep(self, call: Call) -> Call:
        with self._database.writing() as session:
            session.run(
                "INSERT INTO call (id, community, place, device, at, waited, need) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO NOTHING",
                call.id,
                call.community,
                call.place,
                call.device,
                call.at,
                call.waited,
                call.need,
            )
            lock = "" if session.is_sqlite else " FOR UPDATE"
            [row] = session.select(f"SELECT {_CALL} FROM call WHERE id = ?{lock}", call.id)  # noqa: S608
            known = self._read(row)
            if (known.community, known.device) != (call.community, call.device):
                raise CallElsewhere("a press with this id was made at another place")
            kept = replace(
                known, need=call.need or known.need, phone=call.phone or known.phone, words=call.words or known.words
            )
            if known.entered_at is None:
                kept = replace(kept, at=call.at, waited=call.waited)
            if kept != known:
                session.run(
                    "UPDATE call SET at = ?, waited = ?, need = ?, said = ? WHERE id = ?",
                    kept.at,
                    kept.waited,
                    kept.need,
                    self._close(kept) if kept.has_said else None,
                    call.id,
                )
        return kept

    def find(self, id: str) -> Call | None:
        with self._database.reading() as session:
            rows = session.select(f"SELECT {_CALL} FROM call WHERE id = ?", id)  # noqa: S608
        return self._read(rows[0]) if rows else None

    def enter(self, id: str, now: int, deed: Deed) -> bool:
        with self._database.writing() as session:
            is_first = session.run("UPDATE call SET entered_at = ? WHERE id = ? AND entered_at IS NULL", now, id) == 1
            if is_first:
                append_deed(session, deed)
        return is_first

    def record(self, deed: Deed) -> None:
        with self._database.writing() as session:
            append_deed(session, deed)

    def calls_of(self, incident: str) -> list[Call]:
        with self._database.reading() as session:
            rows = session.select(
                f"SELECT {_OF_CALL} FROM timeline AS t JOIN call AS c ON c.id = t.event "  # noqa: S608
                "WHERE t.incident = ? ORDER BY t.seq",
                incident,
            )
        return [self._read(row) for row in rows]

    def unsettled(self, before: int) -> list[Call]:
        with self._database.reading() as session:
            rows = session.select(
                f"SELECT {_CALL} FROM call WHERE entered_at IS NULL AND at < ? ORDER BY at, id",  # noqa: S608
                before,
            )
        return [self._read(row) for row in rows]

    def drop(self, id: str) -> None:
        with self._database.writing() as session:
            session.run("DELETE FROM call WHERE id = ? AND entered_at IS NULL", id)

    def forget(self, said_before: int, before: int) -> int:
        with self._database.writing() as session:
            forgotten = session.run(
                "UPDATE call SET said = NULL WHERE said IS NOT NULL AND at < ? AND NOT EXISTS (SELECT 1 FROM timeline "
                "AS t JOIN incident AS i ON i.id = t.incident WHERE t.event = call.id AND i.is_open)",
                said_before,
            )
            return forgotten + session.run("DELETE FROM call WHERE at < ? AND said IS NULL", before)

    def _close(self, call: Call) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = msgspec.json.encode([clip(call.phone), clip(call.words)])
        return FIRST_VERSION + nonce + self._seal.encrypt(nonce, plain, call.id.encode())

    def _read(self, row: Row) -> Call:
        id, community, place, device, at, waited, need, said, entered_at = row
        call = Call(id, community, place, device, at, waited, need, entered_at=entered_at)
        if said is None:
            return call
        body = bytes(said)
        try:
            plain = self._seal.decrypt(body[1 : 1 + NONCE_BYTES], body[1 + NONCE_BYTES :], id.encode())
        except (InvalidTag, ValueError):
            return replace(call, is_unreadable=True)
        phone, words = msgspec.json.decode(plain, type=tuple[str, str])
        return replace(call, phone=phone, words=words)


_COLUMNS: Final = ("id", "community", "place", "device", "at", "waited", "need", "said", "entered_at")
_CALL: Final = ", ".join(_COLUMNS)
_OF_CALL: Final = ", ".join(f"c.{column}" for column in _COLUMNS)
