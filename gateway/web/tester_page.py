"""The tester's pages: draft rules tried on recorded days."""

from __future__ import annotations

import secrets
from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.responses import RedirectResponse

from gateway.core.catalog import CatalogError
from gateway.core.document import Problem as Fault
from gateway.core.model import Line
from gateway.runtime.access import Actor, Permission
from gateway.runtime.device_desk import Refused
from gateway.runtime.trial_desk import Trial
from gateway.runtime.trying import DRAFT
from gateway.web import rule_words
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.device_page import read_text
from gateway.web.device_view import find_community, read_key, record
from gateway.web.device_words import pick_word
from gateway.web.languages import choose_language
from gateway.web.problems import Problem

Tester = Annotated[Actor, Depends(authorise(Permission.SCENARIOS_PLAY))]
Word = Annotated[str, Query(max_length=80, pattern=r"^[^\x00-\x1f]*$")]

TEXT_LIMIT: Final = 60_000
"""Characters of a draft; the longest rule file has a tenth of it."""

FINDINGS: Final = 200
"""So many findings stand on the page."""


def route_tester(console: Console) -> APIRouter:
    """The pages of testers."""
    router = APIRouter()
    desk = console.trials

    @router.get("/tester/rules")
    async def show_drafts(request: Request, actor: Tester, rule: Word = "", again: Word = "") -> Response:
        """The form for a draft, and the trials of whoever asks. It begins with the file of a ``rule``, or with the
        draft of an earlier trial (``again``)."""
        text, community, day = "", "", ""
        if rule:
            path = f"rules/{rule.replace('.', '/', 1)}.yaml"
            text = console.catalog.files.get(path, "")
        if again:
            trial = find(actor, again)
            text, community, day = desk.text_of(actor, again), trial.community, str(trial.day)
        return await show_form(request, actor, {"text": text, "community": community, "day": day})

    @router.get("/tester/rules/days")
    async def show_days(request: Request, actor: Tester, community: Word = "") -> Response:
        """From when to when the community's journal is there, in words."""
        here = await find_community(console, actor, community)
        return await console.respond(request, "_trial_days.html", days=await desk.list_days(here.id))

    @router.post("/tester/rules")
    async def ask(request: Request, actor: Tester) -> Response:
        """Tries a draft. The same form again is the same trial."""
        async with request.form() as form:
            fields = {name: read_text(form, name) for name in ("id", "community", "day")}
            text, file = await _read_draft(form)
        key = read_key(fields["id"])
        values = {**fields, "text": text}
        if not text.strip():
            return await show_form(request, actor, values, 422, refusal="no-draft")
        community = await find_community(console, actor, fields["community"])
        try:
            day = date.fromisoformat(fields["day"])
        except ValueError:
            return await show_form(request, actor, values, 422, refusal="no-journal")
        try:
            trial = await desk.ask(actor, key, community, day, text, file)
        except CatalogError as error:
            return await show_form(request, actor, values, 422, faults=error.problems)
        except Refused as error:
            return await show_form(request, actor, values, 409, refusal=error.code)
        await record(request, actor, "rule.try", trial.rule, "asked", f"{community.id} {day}")
        return RedirectResponse(f"/tester/rules/{trial.id}", 303)

    @router.get("/tester/rules/{id}")
    async def show_trial(request: Request, actor: Tester, id: str) -> Response:
        """A trial of one's own."""
        return await respond(request, "trial.html", trial=find(actor, id))

    @router.get("/tester/rules/{id}/part")
    async def show_part(request: Request, actor: Tester, id: str) -> Response:
        """The same without the page around it."""
        return await respond(request, "_trial.html", trial=find(actor, id))

    def find(actor: Actor, id: str) -> Trial:
        try:
            return desk.find(actor, id)
        except LookupError as error:
            raise Problem(404, "unknown", "there is no such trial of yours") from error

    async def show_form(
        request: Request,
        actor: Actor,
        fields: dict[str, str],
        status: int = 200,
        faults: tuple[Fault, ...] = (),
        refusal: str = "",
    ) -> Response:
        offered = console.names.names.offer_communities(actor)
        chosen = fields["community"] or (offered[0][0] if offered else "")
        days = await desk.list_days(chosen) if chosen in dict(offered) else []
        return await respond(
            request,
            "drafts.html",
            status,
            fields={**fields, "community": chosen, "day": fields["day"] or (str(days[0]) if days else "")},
            communities=offered,
            days=days,
            faults=faults,
            refusal=refusal,
            trials=desk.list_own(actor),
            wish_id=secrets.token_hex(16),
            most=TEXT_LIMIT,
        )

    async def respond(request: Request, template: str, status: int = 200, **values: Any) -> Response:
        language = choose_language(request)
        speaker = console.speaker(language)

        def say(why: str) -> str:
            return speaker.why(Line(0, 0, "gateway", "opened", why))

        return await console.respond(
            request,
            template,
            status,
            say=say,
            name_note=lambda code: pick_word(rule_words.NOTES, code, language),
            findings_limit=FINDINGS,
            **values,
        )

    return router


async def _read_draft(form: FormData) -> tuple[str, str]:
    """The draft that a form has, as a file or as a text, and what it is called. Raises Problem."""
    sent = form.get("file")
    if isinstance(sent, UploadFile) and sent.filename:
        text, name = (await sent.read()).decode("utf-8", errors="surrogateescape"), sent.filename[:60]
    else:
        pasted = form.get("text", "")
        if not isinstance(pasted, str):
            raise Problem(422, "not-valid", "text is a text")
        text, name = pasted, DRAFT
    if len(text) > TEXT_LIMIT:
        raise Problem(422, "not-valid", f"a draft has at most {TEXT_LIMIT} characters")
    return text.replace("\r\n", "\n"), name
