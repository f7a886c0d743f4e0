"""Rules for people: how each stands, what it found, what its tests show, and setting its status below the file's."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import Struct
from starlette.responses import RedirectResponse

from gateway.core.model import Level, Phase, Sort
from gateway.core.rule import Status
from gateway.runtime.access import Actor, Permission
from gateway.runtime.board import Filter
from gateway.runtime.device_desk import Refused
from gateway.runtime.door import DoorClosed
from gateway.runtime.rule_desk import Ruling, Standing
from gateway.web import rule_words
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.device_page import read_text
from gateway.web.device_view import read_key, record
from gateway.web.device_words import pick_word
from gateway.web.languages import choose_language
from gateway.web.problems import Problem

Seer = Annotated[Actor, Depends(authorise(Permission.RULES_SEE))]
Ruler = Annotated[Actor, Depends(authorise(Permission.RULES_OVERRIDE))]
Word = Annotated[str, Query(max_length=80, pattern=r"^[^\x00-\x1f]*$")]

OFFERED: Final = (Status.SHADOW, Status.RETIRED)
"""To what the page lowers a rule; a draft is one that is being written."""

FILE: Final = "file"
"""In a form: take the override back, so that the file's status holds."""

HIGH_RATE: Final = 0.3
FEW: Final = 3
"""So many false alarms, and such a part of all, are marked."""

FINDINGS: Final = 50


class Told(Struct, frozen=True):
    """What the page says about what has just been done. ``kind``: ``refused``, ``away``, ``missed``."""

    kind: str
    code: str = ""
    missed: tuple[str, ...] = ()


def route_rules(console: Console) -> APIRouter:
    """The pages about rules."""
    router = APIRouter()

    @router.get("/rules")
    async def show_rules(request: Request, actor: Seer, text: Word = "", status: Word = "") -> Response:
        """All rules, by what they watch over."""
        language = choose_language(request)
        standings = await console.rules.list_standing(actor)
        wanted = text.strip().casefold()
        shown = [
            one
            for one in standings
            if (not status or (one.is_lowered if status == "lowered" else status in one.in_force))
            and wanted
            in f"{one.id} {' '.join(one.title.values())} {console.name_category(one.category, language)}".casefold()
        ]
        return await respond(
            request,
            "rules.html",
            groups=_group(shown),
            number=len(shown),
            total=len(standings),
            text=text.strip(),
            chosen=status,
            statuses=[status for status in reversed(Status) if any(status in one.in_force for one in standings)],
            is_lowered=any(one.is_lowered for one in standings),
        )

    @router.get("/rules/{id}")
    async def show_rule(request: Request, actor: Seer, id: str) -> Response:
        """All about one."""
        return await show(request, actor, id)

    @router.post("/rules/{id}/status")
    async def set_status(request: Request, actor: Ruler, id: str) -> Response:
        """Lowers its status, or takes that back. The same form again changes nothing."""
        form = await request.form()
        fields = {name: read_text(form, name) for name in ("id", "status", "reason")}
        key, wanted = read_key(fields["id"]), fields["status"]
        if wanted not in (FILE, *Status):
            raise Problem(422, "not-valid", f"status is one of {', '.join((FILE, *Status))}")
        wish = Ruling(key, id, None if wanted == FILE else Status(wanted), fields["reason"])
        detail = f"{wanted}: {wish.reason}"
        try:
            ruled = await console.rules.decide(actor, wish)
        except LookupError as error:
            raise Problem(404, "unknown", "there is no such rule") from error
        except Refused as error:
            await record(request, actor, "rule.override", id, f"refused: {error.code}", detail)
            return await show(request, actor, id, 409, Told("refused", error.code), fields)
        except DoorClosed:
            await record(request, actor, "rule.override", id, "no answer", detail)
            return await show(request, actor, id, 503, Told("away"), fields)
        await record(request, actor, "rule.override", id, "done", f"{ruled.communities} communities, {detail}")
        if ruled.missed:
            return await show(request, actor, id, 200, Told("missed", missed=tuple(ruled.missed)))
        return RedirectResponse(f"/rules/{id}", 303)

    async def show(
        request: Request,
        actor: Actor,
        id: str,
        status: int = 200,
        told: Told | None = None,
        fields: dict[str, str] | None = None,
    ) -> Response:
        rule, test = console.catalog.rule(id), console.catalog.tests.get(id)
        if rule is None:
            raise Problem(404, "unknown", "there is no such rule")
        account = await console.rules.read(actor, id)
        standing = account.standing
        notices = [i for i in console.board.select(actor.covers, Filter(Sort.NOTICE)) if i.rule == id]
        offered = [wanted for wanted in OFFERED if wanted.rank < rule.status.rank]
        return await respond(
            request,
            "rule.html",
            status,
            rule=rule,
            account=account,
            standing=standing,
            findings=account.findings[:FINDINGS],
            notices=notices if rule.sort is Sort.NOTICE else [],
            report=await console.rules.read_report(id),
            trials=test.trials if test is not None else (),
            is_vital=rule.level is Level.CRITICAL,
            offered=offered,
            may_rule=actor.may(Permission.RULES_OVERRIDE) and bool(standing.in_force),
            sees_cases=actor.may(Permission.INCIDENTS_SEE),
            speaker=console.speaker(choose_language(request)),
            told=told,
            fields=fields or {"status": "", "reason": ""},
            # A form that got no answer is sent again with its own id.
            wish_id=fields["id"] if fields and told is not None and told.kind == "away" else secrets.token_hex(16),
        )

    async def respond(request: Request, template: str, status: int = 200, **values: Any) -> Response:
        return await console.respond(request, template, status, **words(choose_language(request)), **values)

    return router


def words(language: str) -> dict[str, Any]:
    """What templates about rules call things."""
    return {
        "name_status": lambda code: pick_word(rule_words.STATUSES, code, language),
        "name_effect": lambda code: pick_word(rule_words.EFFECTS, code, language),
        "name_domain": lambda code: pick_word(rule_words.DOMAINS, code, language),
        "name_scope": lambda code: pick_word(rule_words.SCOPES, code, language),
        "name_phase": lambda code: pick_word(rule_words.PHASES, code, language),
        "name_note": lambda code: pick_word(rule_words.NOTES, code, language),
        "show_rate": show_rate,
        "is_often_false": is_often_false,
        "Phase": Phase,
        "FILE": FILE,
    }


def show_rate(rate: float | None) -> str:
    """A part of a whole, for people; a dash of nothing."""
    return "—" if rate is None else f"{100 * rate:.1f}%"


def is_often_false(standing: Standing) -> bool:
    """Whether so much of it was false that somebody should look at the rule."""
    rate = standing.false_alarm_rate
    return standing.false_alarms >= FEW and rate is not None and rate >= HIGH_RATE


def _group(standings: list[Standing]) -> list[tuple[str, list[Standing]]]:
    """By folder, those with a word of their own first."""
    groups: dict[str, list[Standing]] = {domain: [] for domain in rule_words.DOMAINS}
    for one in standings:
        groups.setdefault(one.id.partition(".")[0], []).append(one)
    return [(domain, found) for domain, found in groups.items() if found]
