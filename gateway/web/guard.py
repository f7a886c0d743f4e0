"""What stands before every page: headers, a limit of what is taken in, and an answer also when we trip."""

from __future__ import annotations

import logging
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.web.problems import Problem

log = logging.getLogger(__name__)

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # "no-referrer" would take the Origin from our own forms, too, by which they are known.
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
"""Of every answer; a page that says otherwise keeps its own. No script and no style stands in a page itself."""

ALWAYS_TLS: Final = "max-age=31536000"
"""``Strict-Transport-Security`` where people reach us by https: for a year a browser tries nothing else."""


class Guard:
    """ASGI around ``app``: a body of more than ``limit`` bytes is answered 413, whether its length was told or not."""

    def __init__(self, app: ASGIApp, limit: int, *, is_secure: bool = False) -> None:
        self._app = app
        self._limit = limit
        self._headers = HEADERS | ({"Strict-Transport-Security": ALWAYS_TLS} if is_secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0
        has_begun = False
        too_large = Problem(413, "too-large", f"a request has at most {self._limit} bytes")

        async def take() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise too_large
            return message

        async def give(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        told = Headers(scope=scope).get("content-length", "0")
        if not told.isdecimal() or int(told) > self._limit:
            await too_large.respond()(scope, receive, give)
            return
        try:
            await self._app(scope, take, give)
        except Exception:  # Whatever we trip over, whoever asks gets an answer, and none of our insides.
            log.exception("%s %s", scope["method"], scope["path"])
            if has_begun:
                raise
            await Problem(500, "fault", "the fault is in the log of the web process").respond()(scope, receive, give)
