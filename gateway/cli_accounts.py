"""The command line's part for accounts and the audit log: ``python -m gateway account …`` and ``audit …``.

Whoever may run these on this machine is trusted with everything; what they did stands in the audit log as ``cli:USER``.
A password never stands on the command line: it is made and printed once, or read from a file or standard input.
"""

from __future__ import annotations

import contextlib
import getpass
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from gateway import assembly
from gateway.core.model import Role
from gateway.errors import GatewayError
from gateway.runtime.access import MACHINES, PERMISSIONS, ROLE_TITLES, Permission
from gateway.runtime.accounts import Account, AuditFilter
from gateway.runtime.audit import verify_log
from gateway.runtime.officers import Hand, Officers, Unfit
from gateway.runtime.signing import SignIn
from gateway.settings import read_settings

account_app = typer.Typer(no_args_is_help=True, help="Accounts: who may sign in, and as what.")
audit_app = typer.Typer(no_args_is_help=True, help="The audit log: who did what, when, from where.")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="a TOML file; SCG_… variables override it")]
NameArgument = Annotated[str, typer.Argument(help="what it signs in with: a-z, 0-9, dot, dash, underline")]
PasswordOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="the first line of this file is the password; - is standard input"),
]
RoleOption = Annotated[str, typer.Option("--role", help=", ".join(ROLE_TITLES))]
GridOption = Annotated[
    list[str] | None, typer.Option("--grid", help="a grid's code: it and all below; may be repeated")
]
CommunityOption = Annotated[list[str] | None, typer.Option("--community", help="a community's id; may be repeated")]
PortalOption = Annotated[str, typer.Option("--portal", help="its identity at the city's portal")]

_MEND: Final = {
    "name": "2 to 32 of a-z, 0-9, dot, dash and underline, the first a letter or digit",
    "taken": "choose another name, or see: gateway account list",
    "unknown-account": "see: gateway account list",
    "scope": "register the district first, and name its grids and communities",
    "weak-short": "at least 12 characters",
    "weak-plain": "small letters, capitals, digits, others: three of the four kinds",
    "weak-name": "leave the account's name and the person's out of it",
    "weak-guessable": "choose one that is less common",
}


@account_app.command()
def add(
    name: NameArgument,
    role: RoleOption,
    title: Annotated[str, typer.Option(help="the person's name, or what the machine is")] = "",
    grid: GridOption = None,
    community: CommunityOption = None,
    portal: PortalOption = "",
    password_file: PasswordOption = None,
    language: Annotated[str, typer.Option(help="zh or en")] = "zh",
    permanent: Annotated[bool, typer.Option(help="the password is the person's own: it need not be changed")] = False,
    config: ConfigOption = None,
) -> None:
    """Make an account with a role and a scope. Its first password is printed once, unless it was given."""
    with _officers(config) as (officers, hand, _):
        chosen = _read_role(role)
        given = _read_password(password_file)
        account, password = officers.add(
            hand,
            name,
            title,
            password=given,
            must_change=not permanent,
            language=language,
            is_machine=chosen in MACHINES,
        )
        try:
            officers.grant(hand, account.id, chosen, grid or (), community or (), portal)
        except Unfit:
            officers.disable(hand, account.id)
            raise
        _say({"account": account.name, "role": chosen} | ({"password": password} if given is None and password else {}))


@account_app.command("list")
def show(config: ConfigOption = None) -> None:
    """Print the accounts, one JSON object a line; no secret is among it."""
    with _officers(config) as (_, _, sign_in):
        for account in sign_in.accounts.accounts():
            _say(describe_account(account))


@account_app.command()
def grant(
    name: NameArgument,
    role: RoleOption,
    grid: GridOption = None,
    community: CommunityOption = None,
    portal: PortalOption = "",
    config: ConfigOption = None,
) -> None:
    """Give an account this role and scope instead of those that it has."""
    with _officers(config) as (officers, hand, sign_in):
        account = _find(sign_in, name)
        changed = officers.grant(hand, account.id, _read_role(role), grid or (), community or (), portal)
        _say(describe_account(changed))


@account_app.command()
def disable(name: NameArgument, config: ConfigOption = None) -> None:
    """Let nobody sign in with it any more; what it did stays known."""
    with _officers(config) as (officers, hand, sign_in):
        _say(describe_account(officers.disable(hand, _find(sign_in, name).id)))


@account_app.command()
def enable(name: NameArgument, config: ConfigOption = None) -> None:
    """Take `disable` back, and a lock after wrong passwords."""
    with _officers(config) as (officers, hand, sign_in):
        _say(describe_account(officers.enable(hand, _find(sign_in, name).id)))


@account_app.command()
def reset(name: NameArgument, password_file: PasswordOption = None, config: ConfigOption = None) -> None:
    """Give it a new first password, printed once unless it was given; its sessions end."""
    with _officers(config) as (officers, hand, sign_in):
        given = _read_password(password_file)
        account, password = officers.reset_password(hand, _find(sign_in, name).id, given, keeps_role=True)
        _say({"account": account.name} | ({"password": password} if given is None else {}))


@account_app.command("totp-reset")
def reset_factor(name: NameArgument, config: ConfigOption = None) -> None:
    """Forget the device that makes its one-time codes: a new one is asked for at the next sign-in."""
    with _officers(config) as (officers, hand, sign_in):
        _say(describe_account(officers.reset_factor(hand, _find(sign_in, name).id)))


@account_app.command()
def token(
    name: NameArgument,
    title: Annotated[str, typer.Option(help="what it is for")],
    permission: Annotated[list[str] | None, typer.Option(help="only these; all of the role's otherwise")] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="how long it is good")] = 90,
    config: ConfigOption = None,
) -> None:
    """Make an API token for a machine's account, printed once."""
    with _officers(config) as (officers, hand, sign_in):
        account = _find(sign_in, name)
        held = PERMISSIONS.get(account.role, frozenset()) if account.role is not None else frozenset()
        unknown = [given for given in permission or () if given not in set(Permission)]
        if unknown:
            raise GatewayError("permissions", f"there is no {unknown[0]}", "--permission", "see: gateway permissions")
        wanted = [Permission(given) for given in permission] if permission else sorted(held)
        secret, made = officers.issue_token(hand, account.id, title, wanted, days)
        _say({"account": account.name, "token": secret, "permissions": made.permissions, "expires_at": made.expires_at})


@audit_app.command("verify")
def check(
    head: Annotated[str, typer.Option(help="SEQ:HASH of a line that was noted down earlier")] = "",
    config: ConfigOption = None,
) -> None:
    """Check the whole log; says which line was changed, taken out or put in. Exit status 1 when one was.

    Note down what it prints as ``head`` where nobody who can write to the ledger gets at it: a log that was written
    anew as a whole is found by that alone."""
    seq, _, hash = head.partition(":")
    if head and not (seq.isdecimal() and len(hash) == 64):
        raise GatewayError("head", f"{head!r} is no SEQ:HASH", "--head", "give what an earlier verify printed")
    with _officers(config) as (_, _, sign_in):
        verdict = verify_log(sign_in.accounts, (int(seq), hash) if head else None)
    for flaw in verdict.flaws:
        typer.echo(flaw.what)
    _say({"lines": verdict.lines, "flaws": len(verdict.flaws), "head": f"{verdict.seq}:{verdict.hash}"})
    raise typer.Exit(1 if verdict.flaws else 0)


@audit_app.command("list")
def show_audit(
    who: Annotated[str, typer.Option(help="only of this account's name")] = "",
    what: Annotated[str, typer.Option(help="only codes that begin so, such as account.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="only what was refused")] = False,
    limit: Annotated[int, typer.Option(min=1, help="at most so many, the newest")] = 100,
    config: ConfigOption = None,
) -> None:
    """Print lines of the log, the newest first, one JSON object a line."""
    with _officers(config) as (_, _, sign_in):
        for row in sign_in.accounts.find_audit(AuditFilter(who=who, what=what, refused_only=refused), limit):
            _say({"seq": row.seq, **msgspec.to_builtins(row.deed), "hash": row.hash})


def describe_account(account: Account) -> dict[str, Any]:
    """An account without its secrets."""
    return {
        "account": account.name,
        "title": account.title,
        "role": account.role,
        "grids": account.grids,
        "communities": account.communities,
        "portal": account.portal,
        "has_password": bool(account.password),
        "has_second_factor": bool(account.factor),
        "disabled_at": account.disabled_at,
        "locked_until": account.locked_until or None,
        "signed_in_at": account.signed_in_at,
    }


@contextlib.contextmanager
def _officers(config: Path | None) -> Iterator[tuple[Officers, Hand, SignIn]]:
    settings = read_settings(config)
    ledger = assembly.open_migrated_ledger(settings)
    try:
        sign_in = assembly.open_sign_in(settings, ledger)
        yield Officers(sign_in, ledger), Hand(f"cli:{getpass.getuser()}"), sign_in
    except Unfit as unfit:
        mend = _MEND.get(unfit.code, "see: gateway account --help")
        raise GatewayError(unfit.code, str(unfit), "account", mend) from unfit
    finally:
        ledger.close()


def _find(sign_in: SignIn, name: str) -> Account:
    account = sign_in.accounts.find_account(name.strip().lower())
    if account is None:
        raise GatewayError("unknown-account", f"there is no account {name}", "account", _MEND["unknown-account"])
    return account


def _read_role(text: str) -> Role:
    if text not in ROLE_TITLES:
        raise GatewayError("role", f"there is no role {text}", "--role", f"one of {', '.join(ROLE_TITLES)}")
    return Role(text)


def _read_password(file: Path | None) -> str | None:
    if file is None:
        return None
    if str(file) == "-":
        return sys.stdin.readline().rstrip("\r\n")
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError("password-file", f"cannot read it: {error}", str(file), "give a readable file") from error


def _say(value: dict[str, Any]) -> None:
    typer.echo(msgspec.json.encode(value).decode())
