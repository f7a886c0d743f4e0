"""The pages of all accounts: the administrator makes, disables and resets them, the security administrator says what
they may do. What is shown once (a first password, a token) stands in the answer to the form and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import RedirectResponse

from gateway.core.model import GridLevel, Role
from gateway.runtime.access import MACHINES, NEVER_BY_TOKEN, PERMISSIONS, ROLE_TITLES, Actor, Permission
from gateway.runtime.accounts import Account
from gateway.runtime.officers import Hand, Officers, Unfit
from gateway.runtime.ports import Ledger
from gateway.web.access import authorise, gate_of, hand_of
from gateway.web.languages import LANGUAGES
from gateway.web.login import read_form
from gateway.web.pages import Pages
from gateway.web.problems import Problem

_See = Annotated[Actor, Depends(authorise(Permission.ACCOUNTS_SEE))]
_Change = Annotated[Actor, Depends(authorise(Permission.ACCOUNTS_CHANGE))]
_Grant = Annotated[Actor, Depends(authorise(Permission.ACCOUNTS_GRANT))]

UPPER: Final = (GridLevel.DISTRICT, GridLevel.TOWN, GridLevel.DEPARTMENT, GridLevel.CENTRE)
"""Grids that are offered by name; the many below are given by code."""


def route_accounts(pages: Pages, ledger: Ledger) -> APIRouter:
    """``/accounts`` and what is below it."""
    router = APIRouter(prefix="/accounts")

    async def show_all(
        request: Request, fault: str = "", status: int = 200, made: Account | None = None, password: str = ""
    ) -> Response:
        gate = gate_of(request)
        accounts = await asyncio.to_thread(gate.sign_in.accounts.accounts)
        return pages.respond(
            request,
            await gate.look(request),
            "accounts.html",
            status,
            accounts=accounts,
            fault=fault,
            made=made,
            password=password,
            now=gate.sign_in.clock(),
        )

    async def show_one(
        request: Request, id: str, fault: str = "", status: int = 200, password: str = "", token: str = ""
    ) -> Response:
        gate = gate_of(request)
        account = await asyncio.to_thread(gate.sign_in.accounts.account, id)
        if account is None:
            raise Problem(404, "unknown", "there is no such account")
        grids = await asyncio.to_thread(ledger.grids)
        return pages.respond(
            request,
            await gate.look(request),
            "account_of.html",
            status,
            account=account,
            roles=[role for role in ROLE_TITLES if (role in MACHINES) == account.is_machine],
            grids=[grid for grid in grids if grid.level in UPPER],
            communities=await asyncio.to_thread(ledger.communities),
            is_machine=account.is_machine,
            offered=sorted(PERMISSIONS.get(account.role, frozenset()) - NEVER_BY_TOKEN) if account.role else [],
            tokens=await asyncio.to_thread(gate.sign_in.accounts.tokens, id),
            fault=fault,
            password=password,
            token=token,
            now=gate.sign_in.clock(),
        )

    async def act(request: Request, id: str, actor: Actor, change: Callable[[Officers, Hand], object]) -> Response:
        """One act of an officer, and the account's page again."""
        try:
            await asyncio.to_thread(change, gate_of(request).officers, hand_of(request, actor))
        except Unfit as unfit:
            return await show_one(request, id, unfit.code, 422)
        return RedirectResponse(f"/accounts/{id}", 303)

    @router.get("")
    async def list_accounts(request: Request, actor: _See) -> Response:
        """All accounts."""
        return await show_all(request)

    @router.post("")
    async def add(request: Request, actor: _Change) -> Response:
        """A new account, which may do nothing yet; its first password is shown this once."""
        form = await read_form(request)
        language = form.get("language", "")
        try:
            account, password = await gate_of(request).hash(
                lambda: gate_of(request).officers.add(
                    hand_of(request, actor),
                    form.get("name", ""),
                    form.get("title", ""),
                    language=language if language in LANGUAGES else "zh",
                    is_machine=bool(form.get("machine")),
                )
            )
        except Unfit as unfit:
            return await show_all(request, unfit.code, 422)
        return await show_all(request, made=account, password=password)

    @router.get("/{id}")
    async def show_account(request: Request, id: str, actor: _See) -> Response:
        """One account."""
        return await show_one(request, id)

    @router.post("/{id}/disable")
    async def disable(request: Request, id: str, actor: _Change) -> Response:
        """Nobody signs in with it any more."""
        return await act(request, id, actor, lambda officers, hand: officers.disable(hand, id))

    @router.post("/{id}/enable")
    async def enable(request: Request, id: str, actor: _Change) -> Response:
        """Takes that back, and a lock, too."""
        return await act(request, id, actor, lambda officers, hand: officers.enable(hand, id))

    @router.post("/{id}/reset")
    async def reset(request: Request, id: str, actor: _Change) -> Response:
        """A new first password, shown this once."""
        gate, hand = gate_of(request), hand_of(request, actor)
        try:
            _, password = await gate.hash(lambda: gate.officers.reset_password(hand, id))
        except Unfit as unfit:
            return await show_one(request, id, unfit.code, 422)
        return await show_one(request, id, password=password)

    @router.post("/{id}/factor")
    async def reset_factor(request: Request, id: str, actor: _Grant) -> Response:
        """Forgets its device for one-time codes."""
        return await act(request, id, actor, lambda officers, hand: officers.reset_factor(hand, id))

    @router.post("/{id}/grant")
    async def grant(request: Request, id: str, actor: _Grant) -> Response:
        """What it may do, where, and who it is at the portal."""
        form = await read_form(request)
        given = form.get("role", "")
        role = Role(given) if given in ROLE_TITLES else None
        if given and role is None:
            return await show_one(request, id, "role", 422)
        grids, communities = split_words(form.get("grids", "")), split_words(form.get("communities", ""))
        portal = form.get("portal", "").strip()
        return await act(
            request, id, actor, lambda officers, hand: officers.grant(hand, id, role, grids, communities, portal)
        )

    @router.post("/{id}/tokens")
    async def make_token(request: Request, id: str, actor: _Grant) -> Response:
        """A token for a machine's account, shown this once."""
        form = await read_form(request)
        wanted = [permission for permission in Permission if form.get(f"may.{permission}")]
        days = int(form["days"]) if form.get("days", "").isdecimal() and len(form["days"]) < 5 else 0
        officers = gate_of(request).officers
        try:
            token, _ = await asyncio.to_thread(
                officers.issue_token, hand_of(request, actor), id, form.get("title", ""), wanted, days
            )
        except Unfit as unfit:
            return await show_one(request, id, unfit.code, 422)
        return await show_one(request, id, token=token)

    @router.post("/{id}/tokens/{token}/drop")
    async def drop_token(request: Request, id: str, token: str, actor: _Grant) -> Response:
        """Ends a token."""
        return await act(request, id, actor, lambda officers, hand: officers.drop_token(hand, id, token))

    return router


def split_words(text: str) -> list[str]:
    """Codes and ids as people list them: with commas, spaces or lines between them."""
    for mark in ",，、;；":
        text = text.replace(mark, " ")
    return text.split()
