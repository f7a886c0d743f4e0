"""The application: health, and the central platform's callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from gateway.core.catalog import Catalog
from gateway.runtime.clock import RunningClock
from gateway.runtime.door import DoorClient
from gateway.runtime.ports import Clock, Ledger, LedgerDown
from gateway.web.callbacks import RETRY, route_callbacks
from gateway.web.guard import Guard
from gateway.web.problems import Problem

BODY_LIMIT: Final = 256 * 1024
"""Bytes of one request."""

_CODES: Final = {404: "no-such-page", 405: "no-such-method"}


def create_app(
    ledger: Ledger,
    door: DoorClient,
    catalog: Catalog,
    platform_keys: Sequence[bytes] = (),
    clock: Clock | None = None,
) -> FastAPI:
    """The web process as an ASGI application. Without ``platform_keys`` no callback is taken. ``clock`` is real time,
    also where the gateway's runs faster: it judges what comes from outside."""

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        yield
        await door.close()

    app = FastAPI(title="Smart Community Gateway", openapi_url=None, docs_url=None, redoc_url=None, lifespan=live)
    app.add_middleware(Guard, limit=BODY_LIMIT)
    app.include_router(
        route_callbacks(ledger, door, catalog.mapping.actions, platform_keys, clock or RunningClock()),
    )

    @app.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> Response:
        if isinstance(error, Problem):
            return error.respond()
        code = _CODES.get(error.status_code, "not-so")
        where = f"{request.method} {request.url.path[:200]}"
        detail = where if error.status_code in _CODES else error.detail
        return Problem(error.status_code, code, detail, headers=error.headers).respond()

    @app.exception_handler(RequestValidationError)
    async def explain_fields(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Problem(422, "not-valid", f"{where}: {first['msg']}").respond()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This process is alive."""
        return {"status": "alive"}

    @app.get("/readyz")
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

    return app
