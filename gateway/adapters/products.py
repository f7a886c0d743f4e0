"""Models' secrets and awaited devices in the ledger's database (`gateway.runtime.products.Products`)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from gateway.adapters.accounts import append_deed
from gateway.adapters.ledger_batch import clip
from gateway.adapters.passwords import hash_password, make_password
from gateway.adapters.sql_session import Database, Row
from gateway.runtime.accounts import Deed, SealBroken
from gateway.runtime.products import Awaited, Product

NONCE_BYTES: Final = 12
FIRST_VERSION: Final = b"\x01"
ADDRESS_LENGTH: Final = 60


class SqlProducts:
    """See `gateway.runtime.products.Products`. ``key`` (32 bytes) seals the secrets; it lies outside the ledger."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database: Final = database
        self._seal: Final = AESGCM(key)

    def products(self) -> list[Product]:
        with self._database.reading() as session:
            rows = session.select(f"SELECT {_PRODUCT} FROM product ORDER BY profile")  # noqa: S608
        return [Product(*row) for row in rows]

    def product(self, profile: str) -> Product | None:
        return next((one for one in self.products() if one.profile == profile), None)

    def renewal(self, profile: str) -> str:
        with self._database.reading() as session:
            rows = session.select("SELECT renewal FROM product WHERE profile = ?", profile)
        return str(rows[0][0]) if rows else ""

    def put(self, profile: str, secret: str, renewal: str, earlier_until: int, deed: Deed) -> bool:
        sealed = self._close(profile, secret)
        with self._database.writing() as session:
            written = session.run(
                "INSERT INTO product (profile, created_at, renewed_at, secret, renewal) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (profile) DO UPDATE SET earlier = product.secret, earlier_until = ?, "
                "secret = excluded.secret, renewed_at = excluded.renewed_at, renewal = excluded.renewal "
                "WHERE product.renewal <> excluded.renewal",
                profile,
                deed.at,
                deed.at,
                sealed,
                renewal,
                earlier_until,
            )
            if written:
                append_deed(session, deed)
        return written == 1

    def switch(self, profile: str, off_at: int | None, deed: Deed) -> None:
        with self._database.writing() as session:
            session.run("UPDATE product SET off_at = ? WHERE profile = ?", off_at, profile)
            append_deed(session, deed)

    def keys(self, profile: str, now: int) -> list[bytes]:
        with self._database.reading() as session:
            rows = session.select(
                "SELECT secret, earlier, earlier_until FROM product WHERE profile = ? AND off_at IS NULL",
                clip(profile),
            )
        if not rows:
            return []
        secret, earlier, until = rows[0]
        found = [self._open(profile, bytes(secret))]
        if earlier is not None and now < (until or 0):
            found.append(self._open(profile, bytes(earlier)))
        return found

    def expect(self, awaited: Sequence[Awaited], *, again: bool = False) -> None:
        with self._database.writing() as session:
            if again:
                ids = [(one.device,) for one in awaited]
                session.run_many("DELETE FROM awaited WHERE device = ?", ids)
                session.run_many("DELETE FROM credential WHERE name = ?", ids)
            session.run_many(
                "INSERT INTO awaited (device, code, community, profile, until, granted_to, refused, refused_from) "
                "VALUES (?, ?, ?, ?, ?, '', 0, '') ON CONFLICT DO NOTHING",
                [(one.device, one.code, one.community, one.profile, one.until) for one in awaited],
            )

    def awaited(self, device: str) -> Awaited | None:
        with self._database.reading() as session:
            rows = session.select(f"SELECT {_AWAITED} FROM awaited WHERE device = ?", clip(device))  # noqa: S608
        return _read(rows[0]) if rows else None

    def asking(self, code: str) -> Awaited | None:
        with self._database.reading() as session:
            rows = session.select(f"SELECT {_AWAITED} FROM awaited WHERE code = ?", clip(code))  # noqa: S608
        return _read(rows[0]) if rows else None

    def list_refused(self, community: str, since: int) -> list[Awaited]:
        with self._database.reading() as session:
            rows = session.select(
                f"SELECT {_AWAITED} FROM awaited WHERE community = ? AND refused_at >= ? "  # noqa: S608
                "ORDER BY refused_at DESC, device",
                community,
                since,
            )
        return [_read(row) for row in rows]

    def grant(self, device: str, profile: str, now: int, deed: Deed) -> str:
        password = make_password()
        hashed = hash_password(password)
        where = clip(deed.where, ADDRESS_LENGTH)
        with self._database.writing() as session:
            granted = session.run(
                "UPDATE awaited SET granted_at = ?, granted_to = ? "
                "WHERE device = ? AND profile = ? AND granted_at IS NULL AND until > ?",
                now,
                where,
                device,
                profile,
                now,
            )
            if granted:
                session.run(
                    "INSERT INTO credential (name, hash, issued_at) VALUES (?, ?, ?) "
                    "ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, issued_at = excluded.issued_at",
                    device,
                    hashed,
                    now,
                )
                append_deed(session, deed)
            else:
                session.run(
                    "UPDATE awaited SET refused = refused + 1, refused_at = ?, refused_from = ? WHERE device = ?",
                    now,
                    where,
                    device,
                )
                append_deed(session, replace(deed, outcome="refused: not-granted"))
        return password if granted else ""

    def forget(self, device: str) -> None:
        with self._database.writing() as session:
            session.run("DELETE FROM awaited WHERE device = ?", device)

    def record(self, deed: Deed) -> None:
        with self._database.writing() as session:
            append_deed(session, deed)

    def _close(self, profile: str, secret: str) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return FIRST_VERSION + nonce + self._seal.encrypt(nonce, secret.encode(), profile.encode())

    def _open(self, profile: str, sealed: bytes) -> bytes:
        nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._seal.decrypt(nonce, body, profile.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken("the secret of a model cannot be opened") from error


_PRODUCT: Final = "profile, created_at, renewed_at, earlier_until, off_at"
_AWAITED: Final = "device, code, community, profile, until, granted_at, granted_to, refused, refused_at, refused_from"


def _read(row: Row) -> Awaited:
    return Awaited(*row)
