"""Accounts, sessions, tokens and the audit log: the values, and the port to where they are kept.

Secrets are kept as hashes: passwords by Argon2id, session ids and tokens (256 random bits each) by SHA-256. The one
exception is the secret of one-time codes, which must be computed with: it is sealed with a key outside the ledger.
All times are ``int`` milliseconds UTC.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct

from gateway.core.model import Role
from gateway.runtime.access import NEVER_BY_TOKEN, Actor, Permission
from gateway.runtime.ports import CommitRefused

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,31}")
"""What an account signs in with: small letters, digits, dot, dash and underline, 2 to 32 of them."""

TOKEN_PREFIX: Final = "scg_"  # noqa: S105 - what every token begins with, so that a lost one is recognised


class AccountTaken(CommitRefused):
    """Another account has this name, or this identity at the portal."""


class AccountMoved(CommitRefused):
    """Somebody changed the account since it was read: read it again."""


class Account(Struct, frozen=True, omit_defaults=True):
    """An account. Without a ``role`` nobody may sign in with it; without ``password`` only by the portal (``portal``:
    its identity there). A machine (``is_machine``, from its first day on) has neither: officers make tokens for it.

    ``factor`` is the sealed secret of its one-time codes, ``factor_step`` the last time step whose code was used, and
    ``recovery`` the hashes of the codes for when the device is lost, each good once."""

    id: str
    name: str
    title: str = ""
    role: Role | None = None
    grids: tuple[str, ...] = ()
    communities: tuple[str, ...] = ()
    language: str = "zh"
    password: str = ""
    password_at: int = 0
    must_change: bool = False
    earlier: tuple[str, ...] = ()
    """Hashes of the passwords before, the newest first."""
    factor: bytes = b""
    factor_step: int = 0
    recovery: tuple[str, ...] = ()
    portal: str | None = None
    disabled_at: int | None = None
    failures: int = 0
    """Attempts since the last good one; each is counted before it is looked at."""
    locked_until: int = 0
    created_at: int = 0
    signed_in_at: int | None = None
    revision: int = 0
    is_machine: bool = False

    @property
    def is_disabled(self) -> bool:
        return self.disabled_at is not None

    def actor(self, limits: frozenset[Permission] | None = None) -> Actor | None:
        """Who acts with it now; None while it is disabled or has no role."""
        if self.role is None or self.is_disabled:
            return None
        return Actor(self.id, self.name, self.role, self.grids, self.communities, self.language, self.title, limits)


class Stage(StrEnum):
    """How far a sign-in has come: ``full``, or what it waits for: a one-time code, the enrolment of a device that makes
    them, or a password of the person's own."""

    FULL = "full"
    CODE = "code"
    ENROL = "enrol"
    PASSWORD = "password"  # noqa: S105 - a stage's name


class Way(StrEnum):
    """How a session began: by the account's password, or by the city's unified portal (OpenID Connect)."""

    PASSWORD = "password"  # noqa: S105 - a way's name
    PORTAL = "portal"


class Session(Struct, frozen=True):
    """A sign-in of a browser. ``id`` is the hash of what its cookie holds."""

    id: str
    account: str
    stage: Stage
    created_at: int
    seen_at: int
    address: str
    agent: str = ""
    way: Way = Way.PASSWORD


class Token(Struct, frozen=True, omit_defaults=True):
    """A key for programs. ``hash`` is of what was shown once; ``permissions`` are the only ones that it carries, of
    those that its account's role has at the time."""

    id: str
    hash: str
    account: str
    title: str
    permissions: tuple[Permission, ...]
    created_at: int
    expires_at: int
    used_at: int | None = None

    @property
    def limits(self) -> frozenset[Permission]:
        return frozenset(self.permissions) - NEVER_BY_TOKEN


class Deed(Struct, frozen=True, omit_defaults=True):
    """What stands in the audit log: who did what, to what, from where, and what came of it.

    ``who`` is an account's name, ``cli:USER`` for the command line, or empty for nobody known. ``what`` is a stable
    code (``sign-in``, ``account.disable`` …). ``outcome`` is ``done`` or why it was refused. No secret stands here."""

    at: int
    who: str
    what: str
    about: str = ""
    where: str = ""
    outcome: str = "done"
    detail: str = ""
    role: str = ""


class AuditRow(Struct, frozen=True):
    """A line of the audit log: ``hash`` covers the line before it, ``seq`` and the deed (`gateway.runtime.audit`)."""

    seq: int
    deed: Deed
    hash: str


class AuditFilter(Struct, frozen=True, omit_defaults=True):
    """What to show of the audit log: each given field must fit; ``what`` is the beginning of a code."""

    who: str = ""
    what: str = ""
    about: str = ""
    where: str = ""
    refused_only: bool = False
    since: int | None = None
    until: int | None = None


class Accounts(Protocol):
    """Where accounts are kept. Every method is one transaction; a change and its deed stand together or not at all.
    Raises LedgerDown and CommitRefused besides what is named."""

    def accounts(self) -> list[Account]:
        """All, by name."""

    def account(self, id: str) -> Account | None: ...
    def find_account(self, name: str) -> Account | None: ...
    def find_portal(self, portal: str) -> Account | None: ...

    def add_account(self, account: Account, deed: Deed) -> None:
        """Raises AccountTaken."""

    def change_account(
        self, account: Account, deed: Deed | None, *, ends_sessions: bool = False, ends_tokens: bool = False
    ) -> Account:
        """Writes an account that was read at its ``revision``, which rises by one; the account as it stands now.
        Raises AccountMoved, AccountTaken."""

    def begin_attempt(self, id: str, limit: int, now: int, locked_until: int) -> Account | None:
        """Counts an attempt to sign in before it is looked at, so that a hundred at once count as a hundred: the
        account, or None while it is locked. The attempt after the ``limit``-th failure is the first of a new count and
        finds it locked."""

    def open_session(self, session: Session, deed: Deed | None, *, replaces: str = "") -> None:
        """Begins a session; the one that it ``replaces`` ends, and so do all that have no time left."""

    def find_session(self, id: str) -> tuple[Session, Account] | None: ...
    def touch_session(self, id: str, now: int) -> None: ...
    def sessions(self, account: str) -> list[Session]:
        """Of an account, the one seen last first."""

    def end_sessions(self, account: str, deed: Deed, *, only: str = "", keep: str = "") -> int:
        """Ends the sessions of an account: all, or ``only`` one, or all but ``keep``. How many there were."""

    def drop_sessions(self, created_before: int, seen_before: int) -> None:
        """Forgets sessions that are over."""

    def add_token(self, token: Token, deed: Deed) -> None: ...
    def find_token(self, hash: str) -> tuple[Token, Account] | None: ...
    def touch_token(self, id: str, now: int) -> None: ...
    def tokens(self, account: str) -> list[Token]:
        """Of an account, the newest first."""

    def drop_token(self, account: str, id: str, deed: Deed) -> bool: ...

    def record(self, deed: Deed) -> None:
        """A line of the audit log for what changed nothing here."""

    def read_audit(self, after: int = 0) -> Iterator[AuditRow]:
        """All lines with a greater ``seq``, in order, as they stand in the table."""

    def find_audit(self, wanted: AuditFilter, limit: int, before: int | None = None) -> list[AuditRow]:
        """The newest that fit, with a smaller ``seq`` than ``before``."""

    def audit_head(self) -> tuple[int, str]:
        """``seq`` and hash of the last line, as kept beside the log; (0, "") when nothing was ever written."""


def make_id() -> str:
    """128 random bits: an account's or a token's id."""
    return secrets.token_hex(16)


def make_secret() -> str:
    """256 random bits in 43 characters that need no quoting anywhere."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """How a session's id, a token or a recovery code is kept. What has that many random bits needs no stretching."""
    return hashlib.sha256(secret.encode()).hexdigest()


def scope_text(grids: Sequence[str], communities: Sequence[str]) -> str:
    """A scope as it stands in the audit log."""
    return f"grids [{', '.join(grids)}] communities [{', '.join(communities)}]"


class Secrets(Protocol):
    """Passwords, one-time codes, and the seal of what must be read again. Hashing takes a while on purpose."""

    def hash_password(self, password: str) -> str: ...
    def is_password(self, hash: str, password: str) -> bool:
        """Whether the password is that of the hash; for no hash at all it takes as long, and is not."""

    def judge_password(self, password: str, words: Sequence[str]) -> str:
        """Why it is too weak, as a stable code: ``short``, ``long``, ``plain`` (too few kinds of characters), ``name``
        (it holds one of ``words``: the account's name or the person's) or ``guessable``; "" when it is good."""

    def make_password(self) -> str:
        """A random one that is good."""

    def make_factor(self, account: str) -> bytes:
        """A new secret for one-time codes, sealed for this account."""

    def factor_uri(self, account: str, factor: bytes, name: str) -> str:
        """What the person's device reads from the QR code. Raises SealBroken."""

    def find_step(self, account: str, factor: bytes, code: str, now: int) -> int | None:
        """The time step whose code this is: the present one or a neighbour. None for a wrong code. Raises
        SealBroken."""


class SealBroken(Exception):
    """A sealed secret cannot be opened: it is another account's or installation's, or was changed."""


class PortalAway(Exception):
    """The portal cannot be asked now; ``str()`` says why, for the log."""


class PortalRefused(Exception):
    """What came from the portal is not to be believed, or it says no; ``str()`` says why, for the log."""


class Portal(Protocol):
    """The city's unified portal, which says who somebody is (OpenID Connect)."""

    title: str

    async def begin(self, redirect: str, state: str, nonce: str, verifier: str) -> str:
        """Where to send the browser. Raises PortalAway."""

    async def finish(self, redirect: str, code: str, nonce: str, verifier: str) -> str:
        """Who it is, by the configured claim. Raises PortalAway, PortalRefused."""

    async def close(self) -> None: ...
