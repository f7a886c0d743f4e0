"""``/api/v1/trials``: a draft rule tried on a recorded day, for programs."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.core.catalog import CatalogError
from gateway.runtime.access import Actor, Permission
from gateway.runtime.device_desk import Refused
from gateway.runtime.trying import DRAFT
from gateway.web.access import authorise
from gateway.web.api_incidents import Key, respond_json
from gateway.web.console import Console
from gateway.web.device_view import find_community, record
from gateway.web.openapi import DRAFT_RULE, answers, errors
from gateway.web.problems import RETRY, Problem

Tester = Annotated[Actor, Depends(authorise(Permission.SCENARIOS_PLAY))]
Id = Annotated[str, Path(max_length=64, pattern=r"^[A-Za-z0-9-]+$", examples=["0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4"])]


class TrialBody(BaseModel):
    """A draft to try: the ``rule`` as it would stand in its file, on a local ``day`` that is recorded."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"community": "c042", "day": "2026-11-23", "rule": DRAFT_RULE}},
    )

    community: Annotated[str, Field(max_length=48)]
    day: date
    rule: Annotated[str, Field(min_length=1, max_length=60_000)]


def route_trials_api(console: Console) -> APIRouter:
    """The routes about trials of drafts."""
    router = APIRouter(prefix="/api/v1", tags=["trials"], default_response_class=Response)
    desk = console.trials

    @router.post(
        "/trials",
        status_code=202,
        responses={
            202: answers("Trial", "it is being read; ask for it until its state is done or failed")[200],
            **errors(400, 401, 403, 404, 409, 422, 429, 503),
        },
    )
    async def ask(request: Request, actor: Tester, body: TrialBody, key: Key) -> Response:
        """Reads a community's journal of that day again with the draft among its rules. Nothing is written. A draft
        that is at fault is answered 422 with every problem and its line; the same key again is the same trial."""
        community = await find_community(console, actor, body.community)
        try:
            trial = await desk.ask(actor, key, community, body.day, body.rule, DRAFT)
        except CatalogError as error:
            raise bad_rule(error) from error
        except Refused as error:
            if error.code == "busy":
                raise Problem(503, error.code, error.words, headers=RETRY) from error
            raise Problem(409, error.code, error.words, field=error.field) from error
        await record(request, actor, "rule.try", trial.rule, "asked", f"{community.id} {body.day}")
        answer = respond_json(trial, 202)
        answer.headers["Location"] = f"/api/v1/trials/{trial.id}"
        return answer

    @router.get("/trials/{id}", responses={**answers("Trial", "it"), **errors(401, 403, 404, 422, 429)})
    async def read(actor: Tester, id: Id) -> Response:
        """A trial of one's own, with its result once it is done. The web process remembers the newest ones until it
        ends."""
        try:
            return respond_json(desk.find(actor, id))
        except LookupError as error:
            raise Problem(404, "unknown", "there is no such trial of yours") from error

    return router


def bad_rule(error: CatalogError) -> Problem:
    """Every problem of a draft, with its line."""
    problems = [{"line": one.line, "code": one.code, "what": one.what, "mend": one.mend} for one in error.problems]
    first = error.problems[0]
    return Problem(422, "bad-rule", f"line {first.line}: {first.what}; {first.mend}", problems=problems)
