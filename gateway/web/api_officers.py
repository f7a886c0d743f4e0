"""``/api/v1/audit`` and ``/api/v1/accounts``: what the officers' pages show, for programs that keep or compare it. A
token changes no account, so nothing is written here; looking stands in the audit log as it does from the pages."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BeforeValidator

from gateway.core.worktime import DAY_MS, day_start
from gateway.runtime.access import Actor, Permission
from gateway.runtime.accounts import Account, AuditFilter, AuditRow
from gateway.runtime.audit import verify_log
from gateway.web.access import authorise, gate_of
from gateway.web.api_incidents import Limit, respond_json
from gateway.web.api_rules import read_day
from gateway.web.api_values import AccountLine, AccountPage, AuditLine, AuditPage
from gateway.web.device_view import record
from gateway.web.openapi import answers, errors

Auditor = Annotated[Actor, Depends(authorise(Permission.AUDIT_SEE))]
Officer = Annotated[Actor, Depends(authorise(Permission.ACCOUNTS_SEE))]
Word = Annotated[str, Query(max_length=100, pattern=r"^[^\x00-\x1f]*$")]
Day = Annotated[date | None, BeforeValidator(lambda value: None if value is None else read_day(value))]


def route_officers_api() -> APIRouter:
    """The routes about accounts and the audit log."""
    router = APIRouter(prefix="/api/v1", tags=["officers"], default_response_class=Response)

    @router.get("/audit", responses={**answers("AuditPage", "a page"), **errors(422)})
    async def list_audit(
        request: Request,
        actor: Auditor,
        who: Annotated[Word, Query(description="the account", examples=["wang"])] = "",
        what: Annotated[Word, Query(description="the act, or how its name begins", examples=["device."])] = "",
        about: Annotated[Word, Query(description="stands in what it was about", examples=["c042"])] = "",
        where: Annotated[Word, Query(description="the network address", examples=["10.1.1.1"])] = "",
        since: Annotated[Day, Query(description="the first local day", examples=["2026-11-23"])] = None,
        until: Annotated[
            Day, Query(description="the last local day, which counts as a whole", examples=["2026-11-23"])
        ] = None,
        refused: Annotated[bool, Query(description="only what was refused, or failed", examples=[True])] = False,
        limit: Limit = 100,
        cursor: Annotated[
            str, Query(pattern=r"^[0-9]{0,18}$", description="`next` of the page before", examples=["4711"])
        ] = "",
    ) -> Response:
        """The lines of the audit log that fit, the newest first."""
        begin = day_start(since) if since is not None else None
        end = day_start(until) + DAY_MS if until is not None else None
        wanted = AuditFilter(who, what, about, where, refused, begin, end)
        accounts = gate_of(request).sign_in.accounts
        before = int(cursor) if cursor else None
        rows = await asyncio.to_thread(accounts.find_audit, wanted, limit + 1, before)
        await record(request, actor, "audit.see", "", detail=str(request.url.query))
        more = str(rows[limit - 1].seq) if len(rows) > limit else None
        return respond_json(AuditPage([_tell_line(row) for row in rows[:limit]], more))

    @router.get("/audit/verdict", responses={**answers("Verdict", "what came of it"), **errors()})
    async def check_audit(request: Request, actor: Auditor) -> Response:
        """Checks the whole log from its first line. Whoever keeps ``seq`` and ``hash`` elsewhere can show later that
        nothing before them was changed."""
        verdict = await asyncio.to_thread(verify_log, gate_of(request).sign_in.accounts)
        outcome = "done" if not verdict.flaws else f"{len(verdict.flaws)} flaws"
        await record(request, actor, "audit.verify", "", outcome)
        return respond_json(verdict)

    @router.get("/accounts", responses={**answers("AccountPage", "a page"), **errors(422)})
    async def list_accounts(
        request: Request,
        actor: Officer,
        limit: Limit = 100,
        cursor: Annotated[
            str, Query(pattern=r"^[a-z0-9._-]{0,32}$", description="`next` of the page before", examples=["wang"])
        ] = "",
    ) -> Response:
        """All accounts by name: what they may do and where, and how they stand; nothing that they sign in with."""
        sign_in = gate_of(request).sign_in
        known = sorted(await asyncio.to_thread(sign_in.accounts.accounts), key=lambda account: account.name)
        found = [account for account in known if account.name > cursor]
        more = found[limit - 1].name if len(found) > limit else None
        return respond_json(AccountPage([_tell_account(account, sign_in.clock()) for account in found[:limit]], more))

    return router


def _tell_line(row: AuditRow) -> AuditLine:
    deed = row.deed
    return AuditLine(
        row.seq, deed.at, deed.who, deed.role, deed.what, deed.about, deed.where, deed.outcome, deed.detail, row.hash
    )


def _tell_account(account: Account, now: int) -> AccountLine:
    return AccountLine(
        account.id,
        account.name,
        account.title,
        account.role,
        account.grids,
        account.communities,
        account.created_at,
        account.signed_in_at,
        is_disabled=account.is_disabled,
        is_locked=account.locked_until > now,
        has_second_factor=bool(account.factor),
    )
