"""Errors as problem+json (RFC 9457) with stable codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

CONTENT_TYPE: Final = "application/problem+json"
RETRY: Final = {"Retry-After": "5"}


class Problem(HTTPException):
    """No success: ``code`` is stable, ``detail`` is for people, ``more`` are further members of the answer."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: object
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.more = more

    def respond(self) -> JSONResponse:
        """The answer."""
        body = {"type": "about:blank", "status": self.status_code, "code": self.code, "detail": self.detail}
        return JSONResponse(body | self.more, self.status_code, self.headers, CONTENT_TYPE)


def unknown() -> Problem:
    """What is not there and what is not the asker's look alike from outside."""
    return Problem(404, "unknown", "there is no such thing, or it is not in your scope")


def away() -> Problem:
    """What was sent did not reach the gateway, and happens once when it is sent again."""
    return Problem(503, "gateway-away", "the gateway does not answer; send it again", headers=RETRY)
