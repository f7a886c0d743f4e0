"""The application: health, and the central platform's callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

from gateway.core.catalog import Catalog
from gateway.runtime.door import DoorClient, DoorClosed, DoorRefused
from gateway.runtime.ports import Ledger, LedgerDown
from gateway.web.callbacks import BODY_LIMIT, SIGNATURE_HEADER, is_signed, make_action, read_callback
from gateway.web.problems import Problem

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Cache-Control": "no-store",
}
_RETRY: Final = {"Retry-After": "5"}


def create_app(ledger: Ledger, door: DoorClient, catalog: Catalog, platform_keys: Sequence[bytes] = ()) -> FastAPI:
    """The web process as an ASGI application. Without ``platform_keys`` no callback is taken."""

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        yield
        await door.close()

    app = FastAPI(title="Smart Community Gateway", openapi_url=None, docs_url=None, redoc_url=None, lifespan=live)

    @app.middleware("http")
    async def secure(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await go_on(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(Problem)
    async def explain(request: Request, problem: Problem) -> Response:
        return problem.respond()

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def explain_missing(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        code = "no-such-method" if status == 405 else "no-such-page"
        return Problem(status, code, f"{request.method} {request.url.path[:200]}").respond()

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
        return JSONResponse(body, 200 if is_ready else 503, None if is_ready else _RETRY)

    @app.post("/platform/callbacks")
    async def take_callback(request: Request) -> Response:
        """An act of the platform's people on an incident: done, or in words why not."""
        body = await _read_body(request)
        if not is_signed(request.headers.get(SIGNATURE_HEADER, ""), body, platform_keys):
            raise Problem(401, "wrong-signature", f"{SIGNATURE_HEADER} must be v1= and the HMAC-SHA256 of the body")
        callback = read_callback(body)
        action = make_action(callback, catalog.mapping.actions)
        try:
            incident = await asyncio.to_thread(ledger.incident, action.incident)
            if incident is None:
                raise Problem(404, "unknown-incident", "no incident of this id was ever opened here")
            answer = await door.submit(incident.community, action, action.id)
        except (DoorClosed, LedgerDown) as error:
            raise Problem(
                503, "gateway-away", "the gateway cannot be reached; send it again", headers=_RETRY
            ) from error
        except DoorRefused as error:
            raise Problem(503, str(error), "the gateway does not hold this community now", headers=_RETRY) from error
        if answer not in ("done", "repeat"):
            known = await asyncio.to_thread(ledger.incident, action.incident) or incident
            raise Problem(409, "conflict", answer, id=callback.id, state=known.state, revision=known.revision)
        return JSONResponse({"id": callback.id, "answer": answer})

    return app


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise Problem(413, "too-large", f"a callback has at most {BODY_LIMIT} bytes")
    return bytes(body)
