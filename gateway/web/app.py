"""The application: health, the central platform's callbacks, and, with a gate, the pages behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway.core.catalog import Catalog
from gateway.runtime.accounts import Portal
from gateway.runtime.clock import RunningClock
from gateway.runtime.door import DoorClient
from gateway.runtime.ports import Clock, Ledger, LedgerDown
from gateway.runtime.products import ProductDesk
from gateway.runtime.stand import Stand
from gateway.runtime.webhook_desk import WebhookDesk
from gateway.runtime.writer import Catalogs
from gateway.web.access import (
    Gate,
    SignInNeeded,
    check_routes,
    lead_to_sign_in,
    list_methods,
    public,
    wants_page,
)
from gateway.web.account import route_account
from gateway.web.accounts import route_accounts
from gateway.web.api_commands import route_commands_api
from gateway.web.api_devices import route_devices_api
from gateway.web.api_incidents import route_api
from gateway.web.api_map import route_map_api
from gateway.web.api_officers import route_officers_api
from gateway.web.api_products import route_products_api
from gateway.web.api_rules import route_rules_api
from gateway.web.api_stand import route_stand_api
from gateway.web.api_trials import route_trials_api
from gateway.web.api_webhooks import route_webhooks_api
from gateway.web.appraisal_page import route_appraisal
from gateway.web.assets import STATIC, StaticPages
from gateway.web.audit import route_audit
from gateway.web.board_page import route_board
from gateway.web.bulk_page import route_bulk
from gateway.web.callbacks import route_callbacks
from gateway.web.callers import CallerDesk, route_callers, route_callers_api
from gateway.web.command_page import route_commands
from gateway.web.console import Console
from gateway.web.device_page import route_devices
from gateway.web.guard import Guard
from gateway.web.handover_page import route_handover
from gateway.web.heat import Tallies, route_heat
from gateway.web.help_desk import HelpDesk
from gateway.web.incident_page import route_incidents
from gateway.web.login import route_login
from gateway.web.map_page import route_map
from gateway.web.metrics import route_metrics
from gateway.web.openapi import route_description
from gateway.web.pages import Pages
from gateway.web.problems import RETRY, Problem
from gateway.web.products_page import route_products
from gateway.web.resident import route_residents
from gateway.web.rules_page import route_rules
from gateway.web.tester_page import route_tester
from gateway.web.wall_page import Wall, route_wall
from gateway.web.webhooks_page import route_webhooks
from gateway.web.windows_page import route_windows

BODY_LIMIT: Final = 256 * 1024
"""Bytes of one request."""

_CODES: Final = {404: "no-such-page", 405: "no-such-method"}


def create_app(
    ledger: Ledger,
    door: DoorClient,
    catalog: Catalog,
    platform_keys: Sequence[bytes] = (),
    clock: Clock | None = None,
    gate: Gate | None = None,
    portal: Portal | None = None,
    trusted_proxies: Sequence[str] = (),
    gateway_clock: RunningClock | None = None,
    catalogs: Catalogs | None = None,
    desk: HelpDesk | None = None,
    webhooks: WebhookDesk | None = None,
    stand: Stand | None = None,
    products: ProductDesk | None = None,
    *,
    is_test: bool = False,
) -> FastAPI:
    """The web process as an ASGI application. Without ``platform_keys`` no callback is taken, and without a ``gate``
    nobody signs in: then there are no pages. ``clock`` is real time, also where the gateway's runs faster: it judges
    what comes from outside; ``gateway_clock`` is the one by which incidents count. ``catalogs`` finds
    earlier ones. ``desk`` stands behind the residents' pages, ``stand`` behind the testers', ``webhooks`` behind those
    of who outside is told, ``products`` behind those of models' secrets. Of ``trusted_proxies`` it is believed who
    asks. ``is_test``: what comes of simulated devices counts in figures.

    Raises RuntimeError for a route that does not say who may come."""
    pages = Pages() if gate is not None else None
    console = None
    if pages is not None:
        known = catalogs or {catalog.hash: catalog}.__getitem__
        running = gateway_clock or RunningClock()
        console = Console(ledger, door, catalog, known, running, pages, stand, products, is_test=is_test)

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        telling = asyncio.create_task(webhooks.run()) if webhooks is not None else None
        async with console.live() if console is not None else nullcontext():
            yield
        if telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        await door.close()
        if console is not None:
            await console.stand.close()
        if gate is not None:
            gate.close()
        if portal is not None:
            await portal.close()

    app = FastAPI(title="Smart Community Gateway", openapi_url=None, docs_url=None, redoc_url=None, lifespan=live)
    app.state.gate = gate
    app.state.console = console
    app.add_middleware(Guard, limit=BODY_LIMIT, is_secure=gate is not None and gate.site.is_secure)
    if trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(trusted_proxies))
    app.include_router(
        route_callbacks(ledger, door, catalog.mapping.actions, platform_keys, clock or RunningClock()),
    )

    @app.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> Response:
        if isinstance(error, Problem):
            return await answer(request, error)
        if error.status_code == 400:
            # The framework could not read the body: bytes that are no text, JSON nested too deep, a broken form.
            return await answer(request, Problem(422, "not-valid", f"body: {error.detail}"))
        code = _CODES.get(error.status_code, "not-so")
        where = f"{request.method} {request.url.path[:200]}"
        detail = where if error.status_code in _CODES else error.detail
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # The framework names the methods of the first route alone, of those that share an address.
            headers["Allow"] = ", ".join(list_methods(app.routes, request.url.path))
        return await answer(request, Problem(error.status_code, code, detail, headers=headers))

    @app.exception_handler(RequestValidationError)
    async def explain_fields(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return await answer(request, Problem(422, "not-valid", f"{where}: {first['msg']}"))

    @app.exception_handler(LedgerDown)
    async def explain_ledger(request: Request, error: LedgerDown) -> Response:
        return await answer(request, Problem(503, "ledger-down", "the ledger cannot be used now", headers=RETRY))

    async def answer(request: Request, problem: Problem) -> Response:
        """A problem for programs, a page for people."""
        if gate is None or pages is None or not wants_page(request):
            return problem.respond()
        if isinstance(problem, SignInNeeded):
            return lead_to_sign_in(request, problem)
        try:
            visit = await gate.look(request)
        except LedgerDown:
            return problem.respond()
        page = pages.respond(request, visit, "problem.html", problem.status_code, problem=problem)
        page.headers.update(problem.headers or {})
        return page

    @app.get("/healthz", dependencies=[_watched])
    async def healthz() -> dict[str, str]:
        """This process is alive."""
        return {"status": "alive"}

    @app.get("/readyz", dependencies=[_watched])
    async def readyz() -> Response:
        """Whether the ledger can be read and the gateway stands behind the door."""
        try:
            await asyncio.to_thread(ledger.alive_at)
            is_readable = True
        except LedgerDown:
            is_readable = False
        is_open = await door.is_open()
        is_ready = is_readable and is_open
        body = {"ledger": "readable" if is_readable else "down", "gateway": "there" if is_open else "not there"}
        return JSONResponse(body, 200 if is_ready else 503, None if is_ready else RETRY)

    if gate is not None and pages is not None:
        app.include_router(route_login(pages, portal))
        app.include_router(route_account(pages))
        app.include_router(route_accounts(pages, ledger))
        app.include_router(route_audit(pages))
    more: list[APIRouter] = []
    if desk is not None:
        app.include_router(route_residents(desk, pages or Pages()))
        if pages is not None:
            callers = CallerDesk(ledger, desk.calls)
            app.include_router(route_callers(callers, pages))
            more.append(route_callers_api(callers))
    if console is not None:
        app.mount("/static", StaticPages(directory=STATIC), name="static")
        app.include_router(route_board(console))
        app.include_router(route_incidents(console))
        app.include_router(route_commands(console))
        tallies = Tallies(console.ledger, console.clock)
        app.include_router(route_map(console, tallies))
        app.include_router(route_heat(console, tallies))
        wall = Wall(console)
        app.include_router(route_wall(console, wall))
        app.include_router(route_devices(console))
        app.include_router(route_bulk(console))
        app.include_router(route_windows(console))
        app.include_router(route_handover(console))
        app.include_router(route_rules(console))
        app.include_router(route_appraisal(console))
        app.include_router(route_tester(console))
        app.include_router(route_metrics(console))
        api = [
            route_api(console),
            route_commands_api(console),
            route_devices_api(console),
            route_rules_api(console),
            route_trials_api(console),
            route_stand_api(console),
            route_map_api(console, tallies, wall),
            route_officers_api(),
            *more,
        ]
        if webhooks is not None:
            app.include_router(route_webhooks(console, webhooks))
            api.append(route_webhooks_api(webhooks))
        if products is not None:
            app.include_router(route_products(console, products))
            api.append(route_products_api(products))
        for router in (*api, route_description(api)):
            app.include_router(router)
    check_routes(app.routes)
    return app


_watched: Final = Depends(public("whoever watches this machine asks, and it tells no more than that it lives"))
