"""The tester's pages: scenarios on the test stand, and draft rules tried on recorded days."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.responses import RedirectResponse

from gateway.core.catalog import CatalogError
from gateway.core.document import Problem as Fault
from gateway.core.model import Line
from gateway.runtime.access import Actor, Permission
from gateway.runtime.device_desk import Refused
from gateway.runtime.door import DoorClosed
from gateway.runtime.signals import Heard, read_latest
from gateway.runtime.stand import Run, RunWish, StandAway, StandRefused
from gateway.runtime.trial_desk import Trial
from gateway.runtime.trying import DRAFT
from gateway.web import rule_words
from gateway.web.access import authorise
from gateway.web.console import Console
from gateway.web.device_page import read_text
from gateway.web.device_view import find_community, read_key, record, words
from gateway.web.device_words import pick_word
from gateway.web.languages import choose_language, pick
from gateway.web.problems import RETRY, Problem, unknown

Tester = Annotated[Actor, Depends(authorise(Permission.SCENARIOS_PLAY))]
Watcher = Annotated[Actor, Depends(authorise(Permission.SCENARIOS_PLAY, is_passive=True))]
"""A page that asks again by itself: it keeps nobody signed in."""

Word = Annotated[str, Query(max_length=80, pattern=r"^[^\x00-\x1f]*$")]

TEXT_LIMIT: Final = 60_000
"""Characters of a draft; the longest rule file has a tenth of it."""

FINDINGS: Final = 200
"""So many findings stand on the page."""

SIGNALS: Final = 60
"""So many signals stand beside a run."""

PACES: Final = (0.5, 1.0, 2.0, 5.0)
FAULTS: Final = ("duplicate", "late", "garbage")
MOST_FAULTS: Final = 100


def route_tester(console: Console) -> APIRouter:
    """The pages of testers."""
    router = APIRouter()
    route_stand(console, router)
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
    async def show_part(request: Request, actor: Watcher, id: str) -> Response:
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
            file_faults=rule_words.FILE_FAULTS,
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
            name_note=lambda code: pick_word(rule_words.WOULD, code, language),
            findings_limit=FINDINGS,
            **values,
        )

    return router


def route_stand(console: Console, router: APIRouter) -> None:
    """The pages of the test stand."""
    stand = console.stand

    @router.get("/tester")
    async def show_stand(request: Request, actor: Tester) -> Response:
        """What can be played and where, and the run that is being played."""
        return await show_form(request, actor)

    @router.post("/tester/runs")
    async def start(request: Request, actor: Tester) -> Response:
        """Plays. The same form again is the same run."""
        form = await request.form()
        key = read_key(read_text(form, "id"))
        wish = RunWish(
            key,
            tuple(_read_words(form, "scenario")),
            tuple(_read_words(form, "community")),
            _read_number(form, "pace", 0.1, 10, float),
            {fault: _read_number(form, fault, 0, MOST_FAULTS, int) for fault in FAULTS},
        )
        if not wish.scenarios or not wish.communities:
            return await show_form(request, actor, 422, wish, "nothing")
        communities = [await find_community(console, actor, id) for id in wish.communities]
        about = " ".join(wish.communities)[:200]
        try:
            run = await stand.start(actor, wish, communities)
        except Refused as error:
            await record(request, actor, "stand.run", about, f"refused: {error.code}")
            return await show_form(request, actor, 409, wish, error.code)
        except StandRefused as error:
            await record(request, actor, "stand.run", about, f"refused: {error.code}")
            return await show_form(request, actor, 409, wish, error.code, error.words)
        except (StandAway, DoorClosed):
            return await show_form(request, actor, 503, wish, "away")
        faults = ", ".join(f"{count} {fault}" for fault, count in wish.faults.items() if count)
        await record(request, actor, "stand.run", about, "done", f"{' '.join(wish.scenarios)} {faults}".strip())
        return RedirectResponse(f"/tester/runs/{run.id}", 303)

    @router.get("/tester/runs/{id}")
    async def show_run(request: Request, actor: Tester, id: str) -> Response:
        """A run beside what the gateway makes of it."""
        return await show(request, await find_run(console, actor, id), "run.html")

    @router.get("/tester/runs/{id}/part")
    async def show_part(request: Request, actor: Watcher, id: str) -> Response:
        """The same without the page around it."""
        return await show(request, await find_run(console, actor, id), "_run.html")

    @router.post("/tester/runs/{id}/stop")
    async def stop(request: Request, actor: Tester, id: str) -> Response:
        """Plays no further."""
        run = await find_run(console, actor, id)
        try:
            await stand.stop(run.id)
        except LookupError as error:
            raise Problem(404, "unknown", "the stand has no such run") from error
        except StandAway as error:
            raise stand_away(error) from error
        await record(request, actor, "stand.stop", " ".join(run.communities)[:200])
        return RedirectResponse(f"/tester/runs/{run.id}", 303)

    async def show(request: Request, run: Run, template: str) -> Response:
        watched = await stand.watch(run)
        signals = await asyncio.to_thread(read_run_signals, console, run)
        language = choose_language(request)
        return await console.respond(
            request,
            template,
            run=run,
            watched=watched,
            signals=signals,
            rule_title=lambda id: _name_rule(console, id, language),
            name_verdict=lambda verdict: pick_word(rule_words.VERDICTS, verdict, language),
            name_fault=lambda fault: pick_word(rule_words.FAULTS, fault, language),
            tell_fault=lambda what, detail: rule_words.tell_fault(what, detail, language),
            **words(console, language),
        )

    async def show_form(
        request: Request,
        actor: Actor,
        status: int = 200,
        wish: RunWish | None = None,
        refusal: str = "",
        words: str = "",
    ) -> Response:
        view, run = None, None
        try:
            view = await stand.look() if stand.is_there else None
            run = await stand.read(view.run) if view is not None and view.run is not None else None
        except (StandAway, LookupError):
            status, refusal = (503 if refusal != "away" else status), "away"
        known = console.names.names.communities
        mine = [id for id in (view.communities if view else ()) if id in known and actor.covers(id, known[id].grids)]
        return await console.respond(
            request,
            "stand.html",
            status,
            is_there=stand.is_there,
            view=view,
            mine=mine,
            run=run if run is not None and set(run.communities) <= set(mine) else None,
            wish=wish or RunWish("", (), tuple(mine[:1]), 1.0, {}),
            refusal=refusal,
            words=words,
            faults=FAULTS,
            paces=PACES,
            most=MOST_FAULTS,
            name_fault=lambda fault: pick_word(rule_words.FAULTS, fault, choose_language(request)),
            wish_id=secrets.token_hex(16),
        )


async def find_run(console: Console, actor: Actor, id: str) -> Run:
    """A run in communities of the actor's. Raises Problem."""
    try:
        run = await console.stand.read(read_key(id))
    except LookupError as error:
        raise unknown() from error
    except StandAway as error:
        raise stand_away(error) from error
    for community in run.communities:
        await find_community(console, actor, community)
    return run


def read_run_signals(console: Console, run: Run) -> list[tuple[str, str, Heard]]:
    """Community, device and signal of what the run's devices sent, the newest first."""
    found: list[tuple[str, str, Heard]] = []
    for community in run.communities:
        devices = [one.device for one in run.expected if one.community == community]
        heard = read_latest(console.ledger, console.catalog, community, devices, run.started_at, run.now, SIGNALS)
        found += [(community, device, one) for device, one in heard]
    return sorted(found, key=lambda row: row[2].at, reverse=True)[:SIGNALS]


def stand_away(error: StandAway) -> Problem:
    """To be raised where the stand does not answer."""
    return Problem(503, "stand-away", f"the test stand does not answer: {error}", headers=RETRY)


def _name_rule(console: Console, id: str, language: str) -> str:
    rule = console.catalog.rule(id)
    return pick(rule.title, language) if rule is not None else id


def _read_words(form: FormData, name: str) -> list[str]:
    """All values of a field of a form. Raises Problem."""
    found = [value for value in form.getlist(name) if isinstance(value, str)]
    if len(found) > MOST_FAULTS or any(len(value) > 80 for value in found):
        raise Problem(422, "not-valid", f"{name} are ids")
    return list(dict.fromkeys(found))


Number = TypeVar("Number", int, float)


def _read_number(form: FormData, name: str, least: float, most: float, type: Callable[[str], Number]) -> Number:
    """A number of a form. Raises Problem."""
    text = read_text(form, name) or ("1" if name == "pace" else "0")
    try:
        number = type(text)
    except ValueError:
        number = type("-1")
    if not least <= number <= most:
        raise Problem(422, "not-valid", f"{name} is a number from {least} to {most}")
    return number


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
