"""What the officers do to accounts: the administrator makes, disables and resets them, the security administrator says
what they may do and resets second factors. Nobody does it to their own, and each act stands in the audit log.

That one resets passwords and the other second factors is the point: neither can become somebody else alone. An account
without a second factor loses its role with its password, until the second officer gives it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.model import Role
from gateway.runtime.access import MACHINES, NEVER_BY_TOKEN, PERMISSIONS, ROLE_TITLES, Permission
from gateway.runtime.accounts import NAME, Account, AccountMoved, AccountTaken, Deed, Token, make_id, scope_text
from gateway.runtime.ports import Ledger
from gateway.runtime.signing import TRIES, SignIn

LONGEST_TITLE: Final = 40
LONGEST_TOKEN_DAYS: Final = 366


class Unfit(Exception):
    """It cannot be done; ``code`` is stable (``name``, ``title``, ``taken``, ``unknown-account``, ``own-account``,
    ``role``, ``scope``, ``permissions``, ``days``, ``weak-…``), ``detail`` says which."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class Hand(Struct, frozen=True):
    """Who acts, by name and role, and from where."""

    who: str
    role: str = ""
    where: str = ""


def always(account: Account) -> bool:
    """Whatever the account."""
    return True


class Officers:
    """Changes to other people's accounts. Whether somebody may make them, the caller has asked already."""

    def __init__(self, sign_in: SignIn, ledger: Ledger) -> None:
        self._sign_in: Final = sign_in
        self._accounts: Final = sign_in.accounts
        self._ledger: Final = ledger

    def add(
        self,
        hand: Hand,
        name: str,
        title: str,
        *,
        password: str | None = None,
        must_change: bool = True,
        language: str = "zh",
        is_machine: bool = False,
    ) -> tuple[Account, str]:
        """A new account, which may do nothing yet, and its first password ("" for a machine's). Raises Unfit."""
        name, title = name.strip().lower(), title.strip()
        if not NAME.fullmatch(name):
            raise Unfit("name", name)
        if len(title) > LONGEST_TITLE:
            raise Unfit("title", title)
        password = self._choose(password, name, title) if not is_machine else ""
        now = self._sign_in.clock()
        account = Account(
            make_id(),
            name,
            title,
            is_machine=is_machine,
            language=language if language in ("zh", "en") else "zh",
            password=self._sign_in.secrets.hash_password(password) if password else "",
            password_at=now,
            must_change=must_change,
            created_at=now,
        )
        try:
            self._accounts.add_account(account, self._deed(hand, "account.add", account))
        except AccountTaken as error:
            raise Unfit("taken", name) from error
        return account, password

    def grant(
        self,
        hand: Hand,
        id: str,
        role: Role | None,
        grids: Collection[str],
        communities: Collection[str],
        portal: str = "",
    ) -> Account:
        """Says what an account may do and where, and who it is at the portal. Its sessions end, and with another role
        its tokens. A person never becomes a machine, for whose account others make tokens, nor a machine a person.
        Raises Unfit."""
        is_machine = self._get(id).is_machine
        if role is not None and (role not in ROLE_TITLES or (role in MACHINES) != is_machine):
            raise Unfit("role", role)
        if portal and is_machine:
            raise Unfit("role", "a machine does not sign in")
        held_grids, held = tuple(sorted(set(grids))), tuple(sorted(set(communities)))
        unknown = {*held_grids} - {grid.code for grid in self._ledger.grids()}
        unknown |= {*held} - {community.id for community in self._ledger.communities()}
        if unknown:
            raise Unfit("scope", ", ".join(sorted(unknown)))
        detail = f"{role or 'no role'}, {scope_text(held_grids, held)}" + (f", portal {portal}" if portal else "")
        return self._change(
            hand,
            id,
            "account.grant",
            lambda now: replace(now, role=role, grids=held_grids, communities=held, portal=portal or None),
            detail,
            ends_tokens=lambda now: now.role != role,
        )

    def disable(self, hand: Hand, id: str) -> Account:
        """Nobody signs in with it, and its sessions and tokens are worth nothing. Raises Unfit."""
        at = self._sign_in.clock()
        return self._change(hand, id, "account.disable", lambda now: replace(now, disabled_at=at), ends_tokens=always)

    def enable(self, hand: Hand, id: str) -> Account:
        """Takes `disable` back, and a lock, too. Raises Unfit."""
        return self._change(
            hand, id, "account.enable", lambda now: replace(now, disabled_at=None, failures=0, locked_until=0)
        )

    def reset_password(
        self, hand: Hand, id: str, password: str | None = None, *, keeps_role: bool = False
    ) -> tuple[Account, str]:
        """A new first password, which must be changed at the next sign-in; a lock is taken off. Its tokens end, as its
        sessions do: a password is reset when somebody else may have it. Without a second factor nothing but this
        password would stand between whoever reset it and the account: its role goes, unless it ``keeps_role``, and the
        security administrator gives it again. Raises Unfit."""
        account = self._get(id)
        if account.is_machine:
            raise Unfit("role", "a machine does not sign in")
        password = self._choose(password, account.name, account.title)
        hash = self._sign_in.secrets.hash_password(password)
        at = self._sign_in.clock()
        is_open = account.role is not None and not account.factor and not keeps_role
        changed = self._change(
            hand,
            id,
            "account.reset",
            lambda now: replace(
                now,
                role=now.role if now.factor or keeps_role else None,
                password=hash,
                password_at=at,
                must_change=True,
                failures=0,
                locked_until=0,
                earlier=tuple(filter(None, (now.password, *now.earlier)))[: self._sign_in.policy.history - 1],
            ),
            f"no second factor: {account.role} until it is granted again" if is_open else "",
            ends_tokens=always,
        )
        return changed, password

    def reset_factor(self, hand: Hand, id: str) -> Account:
        """Forgets the device that makes its one-time codes, and the recovery codes. Raises Unfit."""
        return self._change(hand, id, "factor.reset", lambda now: replace(now, factor=b"", factor_step=0, recovery=()))

    def issue_token(
        self, hand: Hand, id: str, title: str, permissions: Collection[Permission], days: int
    ) -> tuple[str, Token]:
        """A token for a machine's account, or by its own holder. Raises Unfit."""
        account = self._get(id)
        title = title.strip()
        if account.role is None or not (account.is_machine or hand.who == account.name):
            raise Unfit("role", "only machines' accounts get tokens from others")
        if not title or len(title) > LONGEST_TITLE:
            raise Unfit("title", title)
        allowed = PERMISSIONS[account.role] - NEVER_BY_TOKEN
        if not permissions or not set(permissions) <= allowed:
            raise Unfit("permissions", ", ".join(sorted(set(permissions) - allowed)))
        if not 1 <= days <= LONGEST_TOKEN_DAYS:
            raise Unfit("days", str(days))
        return self._sign_in.issue_token(account, title, permissions, days, self._deed(hand, "token.add", account))

    def drop_token(self, hand: Hand, id: str, token: str) -> None:
        """Ends a token. Raises Unfit."""
        account = self._get(id)
        if not self._accounts.drop_token(id, token, self._deed(hand, "token.drop", account, token)):
            raise Unfit("unknown-token", token)

    def _choose(self, password: str | None, name: str, title: str) -> str:
        if password is None:
            return self._sign_in.secrets.make_password()
        weak = self._sign_in.secrets.judge_password(password, [name, *title.split()])
        if weak:
            raise Unfit(f"weak-{weak}")
        return password

    def _get(self, id: str) -> Account:
        account = self._accounts.account(id)
        if account is None:
            raise Unfit("unknown-account", id[:64])
        return account

    def _change(
        self,
        hand: Hand,
        id: str,
        what: str,
        change: Callable[[Account], Account],
        detail: str = "",
        ends_tokens: Callable[[Account], bool] = lambda now: False,
    ) -> Account:
        for _ in range(TRIES):
            account = self._get(id)
            deed = self._deed(hand, what, account, detail)
            if account.name == hand.who:
                self._accounts.record(replace(deed, outcome="refused: own-account"))
                raise Unfit("own-account", account.name)
            try:
                ends = ends_tokens(account)
                return self._accounts.change_account(change(account), deed, ends_sessions=True, ends_tokens=ends)
            except AccountMoved:
                continue
            except AccountTaken as error:
                raise Unfit("taken", account.name) from error
        raise Unfit("busy", "somebody else changes this account at the same time")

    def _deed(self, hand: Hand, what: str, account: Account, detail: str = "") -> Deed:
        return Deed(self._sign_in.clock(), hand.who, what, account.name, hand.where, role=hand.role, detail=detail)
