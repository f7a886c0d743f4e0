"""The pages of the audit log, for the auditor: filters, a check of the whole chain, and export. Looking is written
down, too."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import StreamingResponse

from gateway.core.worktime import DAY_MS, SHANGHAI_MS
from gateway.runtime.access import Actor, Permission
from gateway.runtime.accounts import AuditFilter, AuditRow
from gateway.runtime.audit import verify_log
from gateway.runtime.district_tables import guard
from gateway.web.access import authorise, gate_of
from gateway.web.pages import Pages, show_time

PAGE: Final = 100
EXPORT_PAGE: Final = 1_000
FIELD_LENGTH: Final = 100
COLUMNS: Final = ("seq", "time", "who", "role", "what", "about", "where", "outcome", "detail", "hash")

_See = Annotated[Actor, Depends(authorise(Permission.AUDIT_SEE))]


def route_audit(pages: Pages) -> APIRouter:
    """``/audit`` and what is below it."""
    router = APIRouter(prefix="/audit")

    @router.get("")
    async def show(request: Request, actor: _See) -> Response:
        """The newest lines that fit the filter."""
        gate = gate_of(request)
        wanted = _read_filter(request)
        before = request.query_params.get("before", "")
        cursor = int(before) if before.isdecimal() and len(before) < 19 else None
        rows = await asyncio.to_thread(gate.sign_in.accounts.find_audit, wanted, PAGE + 1, cursor)
        await gate.record(request, actor, "audit.see", detail=str(request.url.query))
        asked = {name: value for name, value in request.query_params.items() if name != "before"}
        return pages.respond(
            request,
            await gate.look(request),
            "audit.html",
            rows=rows[:PAGE],
            asked=asked,
            older=rows[PAGE - 1].seq if len(rows) > PAGE else None,
        )

    @router.post("/verify")
    async def check(request: Request, actor: _See) -> Response:
        """Checks the whole log."""
        gate = gate_of(request)
        verdict = await asyncio.to_thread(verify_log, gate.sign_in.accounts)
        outcome = "done" if not verdict.flaws else f"{len(verdict.flaws)} flaws"
        await gate.record(request, actor, "audit.verify", outcome=outcome)
        return pages.respond(request, await gate.look(request), "audit_verified.html", verdict=verdict)

    @router.get("/export.csv")
    async def export(request: Request, actor: _See) -> Response:
        """All lines that fit the filter, the newest first, as a table for Excel."""
        gate = gate_of(request)
        wanted = _read_filter(request)
        await gate.record(request, actor, "audit.export", detail=str(request.url.query))
        accounts = gate.sign_in.accounts

        def lines() -> Iterator[str]:
            yield "\ufeff" + _write(COLUMNS)
            before: int | None = None
            while rows := accounts.find_audit(wanted, EXPORT_PAGE, before):
                yield "".join(_write(_cells(row)) for row in rows)
                before = rows[-1].seq

        headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
        return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)

    return router


def _read_filter(request: Request) -> AuditFilter:
    asked = {name: value.strip()[:FIELD_LENGTH] for name, value in request.query_params.items()}
    until = _read_day(asked.get("until", ""))
    return AuditFilter(
        who=asked.get("who", ""),
        what=asked.get("what", ""),
        about=asked.get("about", ""),
        where=asked.get("where", ""),
        refused_only=bool(asked.get("refused")),
        since=_read_day(asked.get("since", "")),
        until=until + DAY_MS if until is not None else None,
    )


def _read_day(text: str) -> int | None:
    """The beginning of a day in Asia/Shanghai; None for what is no day."""
    try:
        return round(datetime.fromisoformat(text[:10]).replace(tzinfo=UTC).timestamp() * 1000) - SHANGHAI_MS
    except ValueError:
        return None


def _cells(row: AuditRow) -> tuple[str, ...]:
    deed = row.deed
    texts = (deed.who, deed.role, deed.what, deed.about, deed.where, deed.outcome, deed.detail)
    return (str(row.seq), show_time(deed.at), *map(guard, texts), row.hash)


def _write(cells: tuple[str, ...]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
