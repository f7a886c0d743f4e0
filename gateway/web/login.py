"""The pages of signing in and out: name and password, the second factor, the first password, the city's portal."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from typing import Annotated, Final, Protocol
from urllib.parse import quote

import segno
from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import RedirectResponse

from gateway.runtime.accounts import Portal, PortalAway, PortalRefused, Stage, make_secret
from gateway.runtime.signing import Opened, Refused
from gateway.web.access import (
    STAGE_PAGES,
    Gate,
    Midway,
    Visit,
    derive,
    gate_of,
    origin_of,
    public,
    safe_next,
)
from gateway.web.languages import COOKIE as LANGUAGE_COOKIE
from gateway.web.languages import LANGUAGES
from gateway.web.pages import Pages
from gateway.web.problems import Problem

log = logging.getLogger(__name__)

FIELD_LENGTH: Final = 1_000
LANGUAGE_S: Final = 365 * 24 * 3600
CALLBACK: Final = "/login/portal/callback"

_before = Depends(public("whoever comes here is about to sign in"))
_Code = Annotated[Visit, Depends(Midway(Stage.CODE))]
_Enrol = Annotated[Visit, Depends(Midway(Stage.ENROL))]
_Password = Annotated[Visit, Depends(Midway(Stage.PASSWORD))]


class _ShowLogin(Protocol):
    def __call__(
        self, request: Request, gate: Gate, visit: Visit, fault: str = "", status: int = 200, name: str = ""
    ) -> Response: ...


def route_login(pages: Pages, portal: Portal | None) -> APIRouter:
    """All of them. Without a ``portal`` there are names and passwords only."""
    router = APIRouter()
    portal_title = portal.title if portal is not None else ""

    def show(
        request: Request, gate: Gate, visit: Visit, fault: str = "", status: int = 200, name: str = ""
    ) -> Response:
        going_to = safe_next(request.query_params.get("next", "/"))
        return pages.respond_with_cookie(
            request, gate, visit, "login.html", status, fault=fault, next=going_to, name=name, portal=portal_title
        )

    @router.get("/login", dependencies=[_before])
    async def show_login(request: Request) -> Response:
        """The form for name and password."""
        gate = gate_of(request)
        visit = await gate.look(request)
        if visit.actor is not None:
            return RedirectResponse(safe_next(request.query_params.get("next", "/")), 303)
        return show(request, gate, visit)

    @router.post("/login", dependencies=[_before])
    async def sign_in(request: Request) -> Response:
        """Name and password: on to the next stage, or the form again."""
        gate = gate_of(request)
        visit = await gate.look(request)
        await gate.check_form(request, visit)
        gate.check_sign_in(request)
        form = await read_form(request)
        name = form.get("name", "")
        try:
            password, origin = form.get("password", ""), origin_of(request)
            opened = await gate.hash(lambda: gate.sign_in.sign_in(name, password, origin))
        except Refused as refused:
            return show(request, gate, visit, refused.code, 401, name)
        gate.forgive(request)
        return go_on(gate, opened, form.get("next", "/"))

    @router.get("/login/totp")
    async def show_code(request: Request, visit: _Code) -> Response:
        """The form for a one-time code."""
        return pages.respond(request, visit, "login_totp.html", fault="", next=request.query_params.get("next", "/"))

    @router.post("/login/totp")
    async def confirm(request: Request, visit: _Code) -> Response:
        """The one-time code, or a recovery code."""
        gate, session = gate_of(request), visit.session
        assert session is not None  # noqa: S101 - Midway lets nobody else in
        form = await read_form(request)
        gate.check_sign_in(request)
        try:
            opened = await asyncio.to_thread(gate.sign_in.confirm, session, form.get("code", ""), origin_of(request))
        except Refused as refused:
            return pages.respond(request, visit, "login_totp.html", 401, fault=refused.code, next=form.get("next", "/"))
        gate.forgive(request)
        return go_on(gate, opened, form.get("next", "/"))

    @router.get("/login/enrol")
    async def show_enrol(request: Request, visit: _Enrol) -> Response:
        """A new secret for one-time codes, as a QR code."""
        return await offer_factor(pages, request, visit, "login_enrol.html", next=request.query_params.get("next", "/"))

    @router.post("/login/enrol")
    async def enrol(request: Request, visit: _Enrol) -> Response:
        """The first code of the new device: then the recovery codes are shown, once."""
        gate, session = gate_of(request), visit.session
        assert session is not None  # noqa: S101
        form = await read_form(request)
        try:
            opened, codes = await asyncio.to_thread(
                gate.sign_in.enrol, session, read_sealed(form), form.get("code", ""), origin_of(request)
            )
        except Refused as refused:
            return await offer_factor(
                pages, request, visit, "login_enrol.html", 401, refused.code, next=form.get("next", "/")
            )
        going_to = next_page(opened, form.get("next", "/"))
        visit = Visit(opened.secret, opened.session, opened.account)
        response = pages.respond(request, visit, "recovery.html", codes=codes, next=going_to)
        gate.give_session(response, opened)
        return response

    @router.get("/login/password")
    async def show_password(request: Request, visit: _Password) -> Response:
        """The form for a password of one's own."""
        going_to = request.query_params.get("next", "/")
        return pages.respond(request, visit, "login_password.html", fault="", next=going_to)

    @router.post("/login/password")
    async def change_password(request: Request, visit: _Password) -> Response:
        """A password of one's own instead of the first or the old one."""
        gate, session = gate_of(request), visit.session
        assert session is not None  # noqa: S101
        form = await read_form(request)
        try:
            if form.get("new") != form.get("again"):
                raise Refused("same")
            present, new, origin = form.get("present", ""), form.get("new", ""), origin_of(request)
            opened = await gate.hash(lambda: gate.sign_in.change_password(session, present, new, origin))
        except Refused as refused:
            return pages.respond(
                request, visit, "login_password.html", 422, fault=refused.code, next=form.get("next", "/")
            )
        return go_on(gate, opened, form.get("next", "/"))

    @router.post("/logout", dependencies=[Depends(public("whoever is signed in, wholly or half, may stop"))])
    async def sign_out(request: Request) -> Response:
        """Ends this session."""
        gate = gate_of(request)
        visit = await gate.look(request)
        if visit.session is not None and visit.account is not None:
            await gate.check_form(request, visit)
            await asyncio.to_thread(gate.sign_in.sign_out, visit.session, visit.account, origin_of(request))
        response = RedirectResponse("/login", 303)
        gate.give_cookie(response, make_secret())
        return response

    @router.post("/language", dependencies=[Depends(public("it sets the language of the pages and nothing else"))])
    async def choose(request: Request) -> Response:
        """The language of the pages from now on."""
        form = await read_form(request)
        response = RedirectResponse(safe_next(form.get("next", "/")), 303)
        if form.get("language") in LANGUAGES:
            is_secure = gate_of(request).site.is_secure
            response.set_cookie(
                LANGUAGE_COOKIE, form["language"], LANGUAGE_S, secure=is_secure, httponly=True, samesite="lax"
            )
        return response

    if portal is not None:
        _route_portal(router, portal, show)
    return router


def _route_portal(router: APIRouter, portal: Portal, show: _ShowLogin) -> None:
    """Out to the portal and back. What must be known again at the return is derived from a fresh cookie: state, nonce
    and verifier fit this browser and this one time."""

    @router.get("/login/portal", dependencies=[_before])
    async def leave(request: Request) -> Response:
        """Off to the portal."""
        gate = gate_of(request)
        visit = await gate.look(request)
        going_to = safe_next(request.query_params.get("next", "/"))
        if visit.actor is not None:
            return RedirectResponse(going_to, 303)
        gate.check_sign_in(request)
        secret = make_secret()
        redirect = gate.site.origin(request) + CALLBACK
        state = _make_state(secret, going_to)
        try:
            away = await portal.begin(redirect, state, derive(secret, "nonce"), derive(secret, "verifier"))
        except (PortalAway, PortalRefused) as fault:
            log.warning("portal: %s", fault)
            return show(request, gate, visit, "portal-away", 502)
        gate.forgive(request)
        response = RedirectResponse(away, 303)
        gate.give_cookie(response, secret)
        return response

    @router.get(CALLBACK, dependencies=[_before])
    async def come_back(request: Request) -> Response:
        """Back from the portal."""
        gate = gate_of(request)
        visit = await gate.look(request)
        state, code = request.query_params.get("state", ""), request.query_params.get("code", "")
        going_to = _read_state(visit.cookie, state) if visit.cookie and visit.session is None else None
        if "error" in request.query_params:
            # Some portals leave the state out here; nothing happens but that the form is shown again.
            log.warning("portal: it says no (%r)", request.query_params["error"][:60])
            return show(request, gate, visit, "portal-refused", 401)
        if going_to is None or not code:
            return show(request, gate, visit, "portal-state", 400)
        gate.check_sign_in(request)
        redirect = gate.site.origin(request) + CALLBACK
        try:
            identity = await portal.finish(
                redirect, code, derive(visit.cookie, "nonce"), derive(visit.cookie, "verifier")
            )
            opened = await asyncio.to_thread(gate.sign_in.sign_in_from_portal, identity, origin_of(request))
        except PortalAway as fault:
            log.warning("portal: %s", fault)
            return show(request, gate, Visit(), "portal-away", 502)
        except PortalRefused as fault:
            log.warning("portal: %s", fault)
            return show(request, gate, Visit(), "portal-refused", 401)
        except Refused as refused:
            return show(request, gate, Visit(), refused.code, 401)
        gate.forgive(request)
        return go_on(gate, opened, going_to)


def _make_state(secret: str, going_to: str) -> str:
    target = base64.urlsafe_b64encode(going_to.encode()).decode()
    return f"{derive(secret, f'state {target}')}.{target}"


def _read_state(secret: str, state: str) -> str | None:
    """Where to go on to; None for a state that is not this browser's."""
    _, _, target = state.partition(".")
    try:
        going_to = base64.urlsafe_b64decode(target.encode()).decode()
    except (binascii.Error, ValueError):
        return None
    return safe_next(going_to) if state == _make_state(secret, going_to) else None


# --- for these pages and those of one's own account ---------------------------------------------------------------


def next_page(opened: Opened, going_to: str) -> str:
    """Where a sign-in goes on: to its next stage, or to where the person wanted."""
    page = STAGE_PAGES.get(opened.session.stage)
    target = safe_next(going_to)
    if page is None:
        return target
    return page if target == "/" else f"{page}?next={quote(target, safe='/')}"


def go_on(gate: Gate, opened: Opened, going_to: str) -> Response:
    """To the next page, with the new session."""
    response = RedirectResponse(next_page(opened, going_to), 303)
    gate.give_session(response, opened)
    return response


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the last of each name. Raises Problem for a field that is too long."""
    fields = {name: value for name, value in (await request.form()).multi_items() if isinstance(value, str)}
    for name, value in fields.items():
        if len(value) > FIELD_LENGTH:
            raise Problem(422, "not-valid", f"{name[:40]}: at most {FIELD_LENGTH} characters")
    return fields


def read_sealed(form: dict[str, str]) -> bytes:
    """The sealed secret that an enrolment's form carries; it opens for the account alone that it was made for."""
    try:
        return base64.urlsafe_b64decode(form.get("factor", "").encode())
    except (binascii.Error, ValueError):
        return b""


async def offer_factor(
    pages: Pages, request: Request, visit: Visit, template: str, status: int = 200, fault: str = "", next: str = "/"
) -> Response:
    """A page with a new secret for one-time codes, as a QR code and as text."""
    account = visit.account
    assert account is not None  # noqa: S101 - nobody comes here without
    factor, uri = await asyncio.to_thread(gate_of(request).sign_in.offer_factor, account)
    secret = uri.partition("secret=")[2].partition("&")[0]
    return pages.respond(
        request,
        visit,
        template,
        status,
        fault=fault,
        next=next,
        factor=base64.urlsafe_b64encode(factor).decode(),
        qr=segno.make(uri, error="m").svg_inline(scale=5, border=2, dark="#000", light="#fff"),
        secret=" ".join(secret[start : start + 4] for start in range(0, len(secret), 4)),
    )
