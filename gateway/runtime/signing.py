"""Signing in and out: passwords, one-time codes, sessions and tokens, each attempt counted and each outcome in the
audit log. Blocking: the web calls it from threads.

A sign-in goes through stages (`Stage`); at each the browser gets a new session id, so that an id which somebody knew
before is worth nothing after. Whoever is refused is not told which part was wrong.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Collection
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.model import Role
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import MACHINES, SCREENS, Permission
from gateway.runtime.accounts import (
    TOKEN_PREFIX,
    Account,
    AccountMoved,
    Accounts,
    Deed,
    SealBroken,
    Secrets,
    Session,
    Stage,
    Token,
    Way,
    hash_secret,
    make_id,
    make_secret,
)
from gateway.runtime.ports import Clock

MINUTE_MS: Final = 60_000
STAGE_MS: Final = 10 * MINUTE_MS
"""How long a sign-in may stay half-done."""

TOUCH_MS: Final = MINUTE_MS
"""That a session or a token is in use is written down once in so long."""

RECOVERY_CODES: Final = 8
RECOVERY_BYTES: Final = 10
TRIES: Final = 5
"""How often a change is tried again that another process has overtaken."""

OFFICERS: Final = (Role.ADMINISTRATOR, Role.SECURITY, Role.AUDITOR)


class Policy(Struct, frozen=True):
    """The rules of signing in. Times in ms; ``history``: so many earlier passwords cannot be taken again.
    ``screen_ms`` is how long a session of `SCREENS` lasts, which has no idle end."""

    idle_ms: int = 30 * MINUTE_MS
    session_ms: int = 12 * 60 * MINUTE_MS
    screen_ms: int = 30 * DAY_MS
    password_ms: int = 90 * DAY_MS
    attempts: int = 5
    lock_ms: int = 15 * MINUTE_MS
    history: int = 5
    second_factor: frozenset[Role] = frozenset({*OFFICERS, Role.DISPATCHER})
    portal_has_factor: bool = False
    """The portal has asked for a second factor already."""


class Refused(Exception):
    """It was refused; ``code`` is stable: ``wrong``, ``locked``, ``no-role``, ``machine``, ``unknown-portal``,
    ``wrong-code``, ``same``, ``reused``, or one of `Secrets.judge_password`'s."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Origin(Struct, frozen=True):
    """From where: the network address, and what the browser says that it is."""

    address: str
    agent: str = ""


class Opened(Struct, frozen=True):
    """A session that was begun: ``secret`` is what the cookie holds."""

    secret: str
    session: Session
    account: Account


class SignIn:
    """Who is who. ``clock`` is real time: codes and sessions are people's."""

    def __init__(self, accounts: Accounts, secrets: Secrets, clock: Clock, policy: Policy | None = None) -> None:
        self.accounts: Final = accounts
        self.secrets: Final = secrets
        self.clock: Final = clock
        self.policy: Final = policy or Policy()

    # --- signing in -----------------------------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, origin: Origin) -> Opened:
        """By name and password. Raises Refused."""
        account = self.accounts.find_account(name.strip().lower())
        counted = self._count(account) if account is not None and account.password else None
        # A name that is unknown, disabled or locked takes as long as a wrong password.
        is_right = self.secrets.is_password(counted.password if counted is not None else "", password)
        if account is None or counted is None or not is_right or account.is_disabled:
            raise self._refuse(account, origin, "wrong", "" if counted is not None else _why_not(account))
        # This attempt was none; what failed before stays counted until all of the sign-in is done.
        self._change(counted, lambda now: replace(now, failures=max(now.failures - 1, 0), locked_until=0))
        return self._enter(account, origin, Way.PASSWORD)

    def sign_in_from_portal(self, identity: str, origin: Origin) -> Opened:
        """By what the portal says of who it is. Raises Refused."""
        account = self.accounts.find_portal(identity)
        if account is None or account.is_disabled:
            raise self._refuse(account, origin, "unknown-portal", "by the portal")
        return self._enter(account, origin, Way.PORTAL, has_factor=self.policy.portal_has_factor)

    def confirm(self, opened: Session, code: str, origin: Origin) -> Opened:
        """The second factor, by a one-time code or one of the recovery codes. Raises Refused."""
        _require(opened, Stage.CODE)
        account = self._use_code(opened.account, code, origin, "sign-in")
        return self._go_on(account, opened, origin, opened.way, is_confirmed=True)

    def _enter(self, account: Account, origin: Origin, way: Way, *, has_factor: bool = False) -> Opened:
        if account.role is None or account.role in MACHINES:
            raise self._refuse(account, origin, "machine" if account.role else "no-role")
        return self._go_on(account, None, origin, way, is_confirmed=has_factor)

    def _go_on(
        self, account: Account, before: Session | None, origin: Origin, way: Way, *, is_confirmed: bool
    ) -> Opened:
        """On to the next stage, with a new session."""
        now = self.clock()
        stage = self._next_stage(account, way, is_confirmed=is_confirmed)
        deed = None
        if stage is Stage.FULL and (before is None or before.stage is not Stage.FULL):
            account = self._change(account, lambda old: replace(old, failures=0, locked_until=0, signed_in_at=now))
            deed = self._deed(account, "sign-in", origin, detail=way)
        secret = make_secret()
        session = Session(hash_secret(secret), account.id, stage, now, now, origin.address, origin.agent, way)
        # Those of screens live longer than others; what is over and still there lets nobody in (`find_session`).
        longest = max(self.policy.session_ms, self.policy.screen_ms)
        self.accounts.drop_sessions(now - longest, now - longest)
        self.accounts.open_session(session, deed, replaces=before.id if before is not None else "")
        return Opened(secret, session, account)

    def _next_stage(self, account: Account, way: Way, *, is_confirmed: bool) -> Stage:
        if account.factor and not is_confirmed:
            return Stage.CODE
        if not account.factor and not is_confirmed and account.role in self.policy.second_factor:
            return Stage.ENROL
        is_old = self.clock() - account.password_at >= self.policy.password_ms
        if way is Way.PASSWORD and (account.must_change or is_old):
            return Stage.PASSWORD
        return Stage.FULL

    # --- a session ------------------------------------------------------------------------------------------------

    def find_session(self, secret: str, *, is_passive: bool = False) -> tuple[Session, Account] | None:
        """The session of a cookie and its account as it stands now; None when it is over. A ``passive`` look (a stream
        that goes on by itself) does not keep it alive."""
        found = self.accounts.find_session(hash_secret(secret))
        if found is None:
            return None
        session, account = found
        now = self.clock()
        if now >= self.ends_at(session, account) or account.is_disabled or account.role is None:
            return None
        if not is_passive and now - session.seen_at >= TOUCH_MS:
            self.accounts.touch_session(session.id, now)
        return session, account

    def ends_at(self, session: Session, account: Account) -> int:
        """When a session ends if nobody does anything more. A screen's has no idle end."""
        if session.stage is not Stage.FULL:
            return min(session.created_at + STAGE_MS, session.seen_at + self.policy.idle_ms)
        if account.role in SCREENS:
            return session.created_at + self.policy.screen_ms
        return min(session.created_at + self.policy.session_ms, session.seen_at + self.policy.idle_ms)

    def sessions_of(self, account: Account) -> list[Session]:
        """The account's sessions that are not over, the one seen last first."""
        now = self.clock()
        return [one for one in self.accounts.sessions(account.id) if now < self.ends_at(one, account)]

    def sign_out(self, session: Session, account: Account, origin: Origin, *, everywhere: bool = False) -> None:
        """Ends this session, or all of the account's."""
        deed = self._deed(account, "sign-out", origin, detail="everywhere" if everywhere else "")
        self.accounts.end_sessions(account.id, deed, only="" if everywhere else session.id)

    # --- one's own account ----------------------------------------------------------------------------------------

    def change_password(self, session: Session, present: str, new: str, origin: Origin) -> Opened:
        """A new password; all other sessions end. Raises Refused."""
        _require(session, Stage.PASSWORD, Stage.FULL)
        account = self._get(session.account)
        counted = self._count(account)
        if counted is None or not self.secrets.is_password(counted.password, present):
            raise self._refuse(account, origin, "wrong", what="password.change")
        account = self._change(counted, lambda now: replace(now, failures=max(now.failures - 1, 0), locked_until=0))
        weak = self.secrets.judge_password(new, [account.name, *account.title.split()])
        if weak:
            raise Refused(weak)
        if any(self.secrets.is_password(hash, new) for hash in (account.password, *account.earlier)):
            raise Refused("reused")
        hash = self.secrets.hash_password(new)
        at = self.clock()
        account = self._change(
            account,
            lambda now: replace(
                now,
                password=hash,
                password_at=at,
                must_change=False,
                earlier=(now.password, *now.earlier)[: self.policy.history - 1],
            ),
            self._deed(account, "password.change", origin),
            ends_sessions=True,
        )
        return self._go_on(account, session, origin, session.way, is_confirmed=True)

    def offer_factor(self, account: Account) -> tuple[bytes, str]:
        """A new secret for one-time codes, sealed, and what its QR code holds. It is the account's only when a code of
        it has come back."""
        factor = self.secrets.make_factor(account.id)
        return factor, self.secrets.factor_uri(account.id, factor, account.name)

    def enrol(
        self, session: Session, factor: bytes, code: str, origin: Origin, present: str = ""
    ) -> tuple[Opened, list[str]]:
        """Takes a device's secret on, after a code of it and, where there was one before, a ``present`` code of that:
        the new session, and the recovery codes, which are seen this once. Raises Refused."""
        _require(session, Stage.ENROL, Stage.FULL)
        account = self._get(session.account)
        if account.factor:
            account = self._use_code(account.id, present, origin, "factor.change")
        step = self._find_step(account, factor, code)
        if step is None:
            raise self._refuse(account, origin, "wrong-code", what="factor.change")
        codes = [_make_recovery_code() for _ in range(RECOVERY_CODES)]
        account = self._change(
            account,
            lambda now: replace(now, factor=factor, factor_step=step, recovery=tuple(map(_hash_recovery, codes))),
            self._deed(account, "factor.change", origin),
        )
        return self._go_on(account, session, origin, session.way, is_confirmed=True), codes

    def end_sessions(self, session: Session, account: Account, origin: Origin, *, only: str = "") -> int:
        """Ends one other session of the account, or all others."""
        deed = self._deed(account, "session.end", origin, detail=only[:12] or "all others")
        return self.accounts.end_sessions(account.id, deed, only=only, keep=session.id)

    # --- tokens ---------------------------------------------------------------------------------------------------

    def issue_token(
        self, account: Account, title: str, permissions: Collection[Permission], days: int, deed: Deed
    ) -> tuple[str, Token]:
        """A new token for programs, and what it is: the first is seen this once. ``deed`` says who has made it."""
        secret = TOKEN_PREFIX + make_secret()
        now = self.clock()
        held = tuple(sorted(permissions))
        token = Token(make_id(), hash_secret(secret), account.id, title, held, now, now + days * DAY_MS)
        self.accounts.add_token(token, replace(deed, detail=f"{token.id}: {', '.join(held)}, {days} d"))
        return secret, token

    def find_token(self, secret: str) -> tuple[Token, Account] | None:
        """The token and its account as it stands now; None when there is none, or its time is over."""
        found = self.accounts.find_token(hash_secret(secret)) if secret.startswith(TOKEN_PREFIX) else None
        if found is None:
            return None
        token, account = found
        now = self.clock()
        if now >= token.expires_at or account.is_disabled or account.role is None:
            return None
        if token.used_at is None or now - token.used_at >= TOUCH_MS:
            self.accounts.touch_token(token.id, now)
        return token, account

    # --- within ---------------------------------------------------------------------------------------------------

    def _count(self, account: Account) -> Account | None:
        now = self.clock()
        policy = self.policy
        return self.accounts.begin_attempt(account.id, policy.attempts, now, now + policy.lock_ms)

    def _use_code(self, id: str, code: str, origin: Origin, what: str) -> Account:
        """The account, its code used up. Raises Refused."""
        account = self._count(self._get(id))
        if account is None:
            raise self._refuse(self._get(id), origin, "locked", what=what)
        step = self._find_step(account, account.factor, code)
        if step is not None and step > account.factor_step:
            used = replace(account, factor_step=step)
        elif (hash := _hash_recovery(code)) in account.recovery:
            used = replace(account, recovery=tuple(kept for kept in account.recovery if kept != hash))
        else:
            raise self._refuse(account, origin, "wrong-code", what=what)
        # At the revision that was read: of two that come with one code at once, the second is refused.
        try:
            return self.accounts.change_account(
                replace(used, failures=max(account.failures - 1, 0), locked_until=0), None
            )
        except AccountMoved:
            raise self._refuse(account, origin, "wrong-code", "used twice at once", what=what) from None

    def _find_step(self, account: Account, factor: bytes, code: str) -> int | None:
        try:
            return self.secrets.find_step(account.id, factor, code, self.clock())
        except SealBroken:
            return None

    def _get(self, id: str) -> Account:
        account = self.accounts.account(id)
        if account is None:
            raise Refused("wrong")
        return account

    def _change(
        self,
        account: Account,
        change: Callable[[Account], Account],
        deed: Deed | None = None,
        *,
        ends_sessions: bool = False,
    ) -> Account:
        """Changes the account as it stands, also when another process was faster."""
        for _ in range(TRIES):
            try:
                return self.accounts.change_account(change(account), deed, ends_sessions=ends_sessions)
            except AccountMoved:
                account = self._get(account.id)
        raise AccountMoved(f"account {account.name} is changed all the time")

    def _refuse(
        self, account: Account | None, origin: Origin, code: str, detail: str = "", what: str = "sign-in"
    ) -> Refused:
        """What to raise, after it was written down. A name that nobody has is not: it may be a password that was typed
        into the wrong field."""
        if account is not None:
            self.accounts.record(self._deed(account, what, origin, f"refused: {code}", detail))
        else:
            self.accounts.record(Deed(self.clock(), "", what, "", origin.address, f"refused: {code}", "unknown name"))
        return Refused(code)

    def _deed(self, account: Account, what: str, origin: Origin, outcome: str = "done", detail: str = "") -> Deed:
        role = str(account.role) if account.role is not None else ""
        return Deed(self.clock(), account.name, what, account.name, origin.address, outcome, detail, role)


def _require(session: Session, *stages: Stage) -> None:
    """A sign-in that waits for something does nothing else."""
    if session.stage not in stages:
        raise Refused("wrong")


def _why_not(account: Account | None) -> str:
    if account is None:
        return ""
    return "it has no password" if not account.password else "it is locked"


def _make_recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _hash_recovery(code: str) -> str:
    return hash_secret("".join(char for char in code.lower() if char.isalnum()))
