"""The pages of one's own account: password, second factor, sessions, tokens. They know no other account than the one
that has signed in: what an address names is looked for in that alone."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import JSONResponse, RedirectResponse

from gateway.runtime.access import NEVER_BY_TOKEN, Actor, Permission
from gateway.runtime.accounts import Account, Session
from gateway.runtime.officers import Unfit
from gateway.runtime.signing import Refused
from gateway.web.access import Gate, Visit, authorise, gate_of, hand_of, origin_of
from gateway.web.login import next_page, offer_factor, read_form, read_sealed
from gateway.web.pages import Pages
from gateway.web.problems import Problem

_Own = Annotated[Actor, Depends(authorise(Permission.ACCOUNT_OWN))]
_Tokens = Annotated[Actor, Depends(authorise(Permission.TOKENS_OWN))]


def route_account(pages: Pages) -> APIRouter:
    """``/account`` and what is below it."""
    router = APIRouter(prefix="/account")

    async def show(
        request: Request, visit: Visit, fault: str = "", status: int = 200, done: str = "", token: str = ""
    ) -> Response:
        gate = gate_of(request)
        session, account = _standing(visit)
        sessions = await asyncio.to_thread(gate.sign_in.sessions_of, account)
        tokens = await asyncio.to_thread(gate.sign_in.accounts.tokens, account.id)
        actor = visit.actor
        offered = sorted(actor.permissions - NEVER_BY_TOKEN) if actor is not None else []
        return pages.respond(
            request,
            visit,
            "account.html",
            status,
            account=account,
            sessions=sessions,
            present=session,
            tokens=tokens,
            offered=offered,
            fault=fault,
            done=done,
            token=token,
            now=gate.sign_in.clock(),
        )

    @router.get("")
    async def show_account(request: Request, actor: _Own) -> Response:
        """One's own account."""
        return await show(request, await gate_of(request).look(request))

    @router.post("/password")
    async def change_password(request: Request, actor: _Own) -> Response:
        """Another password; every other session ends."""
        gate = gate_of(request)
        visit = await gate.look(request)
        session, _ = _standing(visit)
        form = await read_form(request)
        try:
            if form.get("new") != form.get("again"):
                raise Refused("same")
            present, new, origin = form.get("present", ""), form.get("new", ""), origin_of(request)
            opened = await gate.hash(lambda: gate.sign_in.change_password(session, present, new, origin))
        except Refused as refused:
            return await show(request, visit, refused.code, 422)
        response = RedirectResponse("/account", 303)
        gate.give_session(response, opened)
        return response

    @router.get("/totp")
    async def show_factor(request: Request, actor: _Own) -> Response:
        """A new device for one-time codes."""
        return await offer_factor(pages, request, await gate_of(request).look(request), "account_totp.html")

    @router.post("/totp")
    async def change_factor(request: Request, actor: _Own) -> Response:
        """The first code of the new device, and one of the old."""
        gate = gate_of(request)
        visit = await gate.look(request)
        session, _ = _standing(visit)
        form = await read_form(request)
        try:
            opened, codes = await asyncio.to_thread(
                gate.sign_in.enrol,
                session,
                read_sealed(form),
                form.get("code", ""),
                origin_of(request),
                form.get("present", ""),
            )
        except Refused as refused:
            return await offer_factor(pages, request, visit, "account_totp.html", 422, refused.code)
        visit = Visit(opened.secret, opened.session, opened.account, actor)
        response = pages.respond(request, visit, "recovery.html", codes=codes, next=next_page(opened, "/account"))
        gate.give_session(response, opened)
        return response

    @router.post("/stay")
    async def stay(request: Request, actor: _Own) -> Response:
        """Somebody who only watched says that they are there: the session goes on. How long it lasts now, in s."""
        return JSONResponse({"left_s": await gate_of(request).time_left(request)})

    @router.post("/sessions/end")
    async def end_others(request: Request, actor: _Own) -> Response:
        """Ends all sessions but this."""
        await _end(gate_of(request), request)
        return RedirectResponse("/account", 303)

    @router.post("/sessions/{id}/end")
    async def end_one(request: Request, id: str, actor: _Own) -> Response:
        """Ends one other session of one's own."""
        if not await _end(gate_of(request), request, only=id):
            raise Problem(404, "unknown", "you have no such session")
        return RedirectResponse("/account", 303)

    @router.post("/tokens")
    async def make_token(request: Request, actor: _Tokens) -> Response:
        """A token for a program, shown this once."""
        gate = gate_of(request)
        visit = await gate.look(request)
        form = await read_form(request)
        wanted = [permission for permission in Permission if form.get(f"may.{permission}")]
        days = int(form["days"]) if form.get("days", "").isdecimal() and len(form["days"]) < 5 else 0
        try:
            token, _ = await asyncio.to_thread(
                gate.officers.issue_token, hand_of(request, actor), actor.id, form.get("title", ""), wanted, days
            )
        except Unfit as unfit:
            return await show(request, visit, unfit.code, 422)
        return await show(request, visit, token=token)

    @router.post("/tokens/{id}/drop")
    async def drop_token(request: Request, id: str, actor: _Tokens) -> Response:
        """Ends a token of one's own."""
        officers = gate_of(request).officers
        try:
            await asyncio.to_thread(officers.drop_token, hand_of(request, actor), actor.id, id)
        except Unfit as unfit:
            raise Problem(404, "unknown", "you have no such token") from unfit
        return RedirectResponse("/account", 303)

    return router


def _standing(visit: Visit) -> tuple[Session, Account]:
    """The session and account of a visit. A token has no session, and no business on these pages."""
    if visit.session is None or visit.account is None:
        raise Problem(403, "not-allowed", "this takes a person who has signed in")
    return visit.session, visit.account


async def _end(gate: Gate, request: Request, only: str = "") -> int:
    visit = await gate.look(request)
    session, account = _standing(visit)
    return await asyncio.to_thread(gate.sign_in.end_sessions, session, account, origin_of(request), only=only)
