"""Errors as problem+json (RFC 9457) with stable codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

CONTENT_TYPE: Final = "application/problem+json"


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
