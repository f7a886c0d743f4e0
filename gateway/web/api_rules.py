"""``/api/v1/rules`` and ``/api/v1/appraisal``: what the pages about rules and the appraisal do, for programs."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BeforeValidator, ConfigDict, Field

from gateway.core.model import GridLevel
from gateway.core.rule import Status
from gateway.runtime.access import Actor, Permission
from gateway.runtime.appraisal import By, Every
from gateway.runtime.appraising import render_csv, render_json
from gateway.runtime.device_desk import Refused
from gateway.runtime.door import DoorClosed
from gateway.runtime.rule_desk import Ruling
from gateway.web.access import authorise
from gateway.web.api_incidents import Body, Key, respond_json
from gateway.web.appraisal_page import ask, make_question, respond_csv
from gateway.web.console import Console
from gateway.web.device_view import record
from gateway.web.openapi import APPRAISED, answers, errors
from gateway.web.problems import Problem, away

Seer = Annotated[Actor, Depends(authorise(Permission.RULES_SEE))]
Ruler = Annotated[Actor, Depends(authorise(Permission.RULES_OVERRIDE))]
Appraiser = Annotated[Actor, Depends(authorise(Permission.APPRAISAL_SEE))]
Id = Annotated[str, Path(max_length=80, pattern=r"^[a-z0-9.-]+$", examples=["fire.smoke-persists"])]


def read_day(value: object) -> date:
    """A day as ISO 8601 writes it. Raises ValueError for all else, numbers among it."""
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise ValueError("must be a day such as 2026-11-23")
    return date.fromisoformat(value)


Day = Annotated[date, BeforeValidator(read_day), Query(examples=["2026-11-23"])]

FILE: Final = "file"


class RulingBody(Body):
    """A status to hold a rule at, below its file's; ``file`` takes that back, so that the file's status holds."""

    model_config = ConfigDict(json_schema_extra={"example": {"status": "shadow", "reason": "施工扬尘，误报太多"}})

    status: Literal["file", "shadow", "draft", "retired", "active"]
    reason: Annotated[str, Field(min_length=1, max_length=200)]


def route_rules_api(console: Console) -> APIRouter:
    """The routes about rules and the appraisal."""
    router = APIRouter(prefix="/api/v1", tags=["rules"], default_response_class=Response)

    @router.get("/rules", responses={**answers("RuleList", "all of them"), **errors(401, 403, 422, 429, 503)})
    async def list_rules(actor: Seer) -> Response:
        """Every rule by id: its status in the communities of one's scope, what its tests show, and what it found in
        the last 30 days."""
        return respond_json({"items": await console.rules.list_standing(actor)})

    @router.get("/rules/{id}", responses={**answers("RuleAccount", "it"), **errors(401, 403, 404, 422, 429, 503)})
    async def read_rule(actor: Seer, id: Id) -> Response:
        """One rule, with what it finds now, its newest incidents, who set its status, and its file."""
        try:
            return respond_json(await console.rules.read(actor, id))
        except LookupError as error:
            raise _unknown() from error

    @router.post(
        "/rules/{id}/override",
        responses={**answers("Ruled", "it holds"), **errors(400, 401, 403, 404, 409, 422, 429, 503)},
    )
    async def override(request: Request, actor: Ruler, id: Id, body: RulingBody, key: Key) -> Response:
        """Sets the status in every community of one's scope. After a 503 it may hold in some of them: send it again
        with the same key."""
        detail = f"{body.status}: {body.reason}"
        wish = Ruling(key, id, None if body.status == FILE else Status(body.status), body.reason)
        try:
            ruled = await console.rules.decide(actor, wish)
        except LookupError as error:
            raise _unknown() from error
        except Refused as error:
            await record(request, actor, "rule.override", id, f"refused: {error.code}", detail)
            raise Problem(409, error.code, error.words, field=error.field) from error
        except DoorClosed as error:
            await record(request, actor, "rule.override", id, "no answer", detail)
            raise away() from error
        await record(request, actor, "rule.override", id, "done", f"{ruled.communities} communities, {detail}")
        return respond_json(ruled)

    @router.get("/appraisal", responses={**_reports(), **errors(401, 403, 404, 422, 429, 503)})
    async def read_appraisal(
        actor: Appraiser,
        by: Annotated[By, Query(description="what has a row of its own", examples=["grid"])],
        since: Annotated[Day, Query(alias="from", description="the first local day")],
        until: Annotated[Day, Query(alias="to", description="the last local day, which counts as a whole")],
        grid: Annotated[str, Query(max_length=48, pattern=r"^[A-Za-z0-9-]*$", examples=["370215001"])] = "",
        level: Annotated[
            GridLevel | None, Query(description="with by=grid: only rows of this level", examples=["town"])
        ] = None,
        every: Annotated[Every | None, Query(description="a row for each of these periods", examples=["day"])] = None,
        format: Annotated[
            Literal["json", "csv"], Query(description="csv for spreadsheets", examples=["json"])
        ] = "json",
    ) -> Response:
        """The appraisal of the incidents of one's scope that were opened in a period of at most a year. What counts,
        docs/appraisal.md says."""
        question = make_question(console, actor, by, since, until, grid, level or "", every or "")
        answer = await ask(console, actor, question)
        if format == "csv":
            return respond_csv(answer, f"appraisal-{by}-{since}-{until}.csv")
        return Response(render_json(answer.appraisal, question, answer.as_at), media_type="application/json")

    return router


def _reports() -> dict[int | str, dict[str, Any]]:
    found = answers("Report", "the figures")
    found[200]["content"]["text/csv"] = {"schema": {"type": "string"}, "example": render_csv(APPRAISED)}
    return found


def _unknown() -> Problem:
    return Problem(404, "unknown", "there is no such rule")
