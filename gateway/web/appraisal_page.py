"""The appraisal (考核) of grids, bodies, communities, categories, rules and devices: tables, charts, and CSV."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Struct

from gateway.core.model import GridLevel
from gateway.core.worktime import DAY_MS, day_start, local_day
from gateway.errors import GatewayError
from gateway.runtime.access import Actor, Permission
from gateway.runtime.appraisal import NONE, By, Every, Figures, Question
from gateway.runtime.appraiser import LONGEST_MS, Answer
from gateway.runtime.appraising import render_csv, render_workbook
from gateway.web import rule_words
from gateway.web.access import authorise
from gateway.web.bulk_page import respond_workbook
from gateway.web.console import Console
from gateway.web.device_view import record
from gateway.web.device_words import pick_word
from gateway.web.languages import choose_language, pick
from gateway.web.problems import Problem, unknown
from gateway.web.rules_page import show_rate
from gateway.web.words import GRID_LEVELS

Seer = Annotated[Actor, Depends(authorise(Permission.APPRAISAL_SEE))]
Word = Annotated[str, Query(max_length=64, pattern=r"^[^\x00-\x1f]*$")]
CSV: Final = "text/csv; charset=utf-8"

YEARS: Final = (2000, 2999)

SHOWN: Final = 500
"""Rows that a page shows; the export has them all."""


class Export(Struct, frozen=True):
    """What a table for spreadsheets holds, and its file's name without the ending."""

    answer: Answer
    name: str


async def read_export(
    request: Request,
    actor: Seer,
    by: By,
    since: Annotated[date, Query(alias="from")],
    until: Annotated[date, Query(alias="to")],
    grid: Word = "",
    level: Word = "",
    every: Word = "",
) -> Export:
    """For a route's dependencies: answers what is asked for, and writes down who took it along."""
    console: Console = request.app.state.console
    question = make_question(console, actor, by, since, until, grid, level, every)
    answer = await ask(console, actor, question)
    await record(request, actor, "appraisal.export", str(by), detail=str(request.url.query))
    return Export(answer, f"appraisal-{by}-{since}-{until}")


Asked = Annotated[Export, Depends(read_export)]


def route_appraisal(console: Console) -> APIRouter:
    """The page, and its export."""
    router = APIRouter()

    @router.get("/appraisal")
    async def show(
        request: Request,
        actor: Seer,
        by: By | None = None,
        since: Annotated[Word, Query(alias="from")] = "",
        until: Annotated[Word, Query(alias="to")] = "",
        grid: Word = "",
        level: Word | None = None,
        every: Word = "",
    ) -> Response:
        """The appraisal of this month so far, or of what is asked for."""
        language = choose_language(request)
        today = local_day(console.clock())
        by = by or (By.GRID if actor.grids else By.COMMUNITY)
        if by is not By.GRID:
            level = ""  # The form has it still from when the rows were grids.
        if level is None and not grid and _is_of_district(console, actor):
            level = GridLevel.TOWN
        since, until = since or str(today.replace(day=1)), until or str(today)
        asked = {"by": str(by), "from": since, "to": until, "grid": grid, "level": level or "", "every": every}
        answer: Answer | None = None
        wrong = ""
        try:
            first, last = _read_day("from", since), _read_day("to", until)
            answer = await ask(console, actor, make_question(console, actor, by, first, last, grid, level or "", every))
        except Problem as problem:
            # What is no question is mended in the form; what is not there, or not one's own, is not.
            if problem.status_code != 422:
                raise
            wrong = str(problem.more.get("field", ""))
        rows = answer.appraisal.rows if answer is not None else []
        return await console.respond(
            request,
            "appraisal.html",
            200 if answer is not None else 422,
            asked=asked,
            wrong=wrong,
            query=urlencode({name: value for name, value in asked.items() if value}),
            rows=rows[:SHOWN],
            number=len(rows),
            overall=answer.appraisal.total if answer is not None else None,
            as_at=answer.as_at if answer is not None else None,
            bys=[(code, pick_word(rule_words.BYS, code, language)) for code in By],
            periods=[(code, pick_word(rule_words.PERIODS, code, language)) for code in Every],
            grid_levels=[(code, pick(title, language)) for code, title in GRID_LEVELS.items()],
            grids=console.names.names.offer_grids(actor),
            is_by_grid=by is By.GRID,
            name_row=lambda row: _name(console, by, row, language),
            show_rate=show_rate,
        )

    @router.get("/appraisal/export.csv")
    async def export(asked: Asked) -> Response:
        """All columns and rows, as a table for spreadsheets."""
        return respond_csv(asked.answer, f"{asked.name}.csv")

    @router.get("/appraisal/export.xlsx")
    async def export_workbook(asked: Asked) -> Response:
        """The same as a workbook."""
        data = await asyncio.to_thread(render_workbook, asked.answer.appraisal)
        return respond_workbook(data, f"{asked.name}.xlsx")

    return router


def make_question(
    console: Console, actor: Actor, by: By, first: date, last: date, grid: str, level: str, every: str
) -> Question:
    """The question about whole local days. Raises Problem: 404 for a grid outside the scope, 422 for what is no
    question, with the ``field`` that is at fault."""
    if level and (by is not By.GRID or level not in set(GridLevel)):
        detail = f"level goes with by=grid, and is one of {', '.join(GridLevel)}"
        raise Problem(422, "not-valid", detail, field="level")
    if every and every not in set(Every):
        raise Problem(422, "not-valid", f"every is one of {', '.join(Every)}", field="every")
    if grid:
        _demand_grid(console, actor, grid)
    if not (YEARS[0] <= first.year and last.year <= YEARS[1]):
        field = "from" if first.year < YEARS[0] else "to"
        raise Problem(422, "not-valid", f"from and to are days of the years {YEARS[0]} to {YEARS[1]}", field=field)
    since, until = day_start(first), day_start(last) + DAY_MS
    if not 0 < until - since <= LONGEST_MS:
        raise Problem(422, "not-valid", "to is not before from, and a year is the longest period", field="to")
    return Question(by, since, until, grid, GridLevel(level) if level else None, Every(every) if every else None)


async def ask(console: Console, actor: Actor, question: Question) -> Answer:
    """The answer in the actor's scope. Raises Problem."""
    try:
        return await console.appraiser.appraise(actor, question)
    except GatewayError as error:
        raise unknown() from error


def respond_csv(answer: Answer, name: str) -> Response:
    """The table; spreadsheets know UTF-8 by its mark."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(render_csv(answer.appraisal).encode("utf-8-sig"), media_type=CSV, headers=headers)


def _demand_grid(console: Console, actor: Actor, code: str) -> None:
    """Raises Problem 404 for a grid outside the scope, or that nobody knows."""
    grids = console.names.names.grids
    chain: list[str] = []
    at: str | None = code
    while at is not None and at in grids and at not in chain:
        chain.append(at)
        at = grids[at].parent
    if not actor.covers("", chain):
        raise unknown()


def _is_of_district(console: Console, actor: Actor) -> bool:
    grids = console.names.names.grids
    return any(code in grids and grids[code].level is GridLevel.DISTRICT for code in actor.grids)


def _read_day(field: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise Problem(422, "not-valid", "from and to are days, such as 2026-11-01", field=field) from error


def _name(console: Console, by: By, row: Figures, language: str) -> str:
    if row.key == NONE:
        return pick({"zh": "未定", "en": "none"}, language)
    rule: Any = console.catalog.rule(row.key) if by is By.RULE else None
    if rule is not None:
        return pick(rule.title, language)
    return console.name_category(row.key, language) if by is By.CATEGORY else row.name or row.key
