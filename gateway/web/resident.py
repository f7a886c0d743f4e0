"""The residents' pages: for whoever has a place's address, without a name, a password or a cookie.

A page is one answer with its style in it and is whole without its script, because it is opened in need, on old
telephones and slow networks. Programs (the page's own script among them) ask for JSON and get problem+json.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

from gateway.core.model import DeviceState
from gateway.runtime.accounts import make_secret
from gateway.runtime.calls import LONGEST_PHONE, LONGEST_WORDS, NEED_TITLES, SECRET, Need, clean
from gateway.runtime.help_pages import find_phone
from gateway.runtime.ports import LedgerDown
from gateway.runtime.receipts import Note, Receipt, Stage
from gateway.web.access import address_of, public
from gateway.web.assets import STATIC, Assets
from gateway.web.help_desk import HelpDesk, Said
from gateway.web.languages import LANGUAGES, pick
from gateway.web.pages import Pages
from gateway.web.problems import RETRY, Problem
from gateway.web.words import show_full

LONGEST_WAIT_MS: Final = 30 * 86_400_000

STAGES: Final[Mapping[Stage, Mapping[str, str]]] = {
    Stage.RECORDED: {"zh": "已记录", "en": "Recorded"},
    Stage.SEEN: {"zh": "已有人接单", "en": "Somebody has seen it"},
    Stage.COMING: {"zh": "已派人处理", "en": "Somebody is on the way"},
    Stage.CLOSED: {"zh": "已结束", "en": "Closed"},
}

NOTES: Final[Mapping[Note, Mapping[str, str]]] = {
    Note.NONE: {"zh": "", "en": ""},
    Note.SENT: {
        "zh": "系统已自动派单，还没有人应答。情况紧急请直接打电话。",
        "en": "It was sent on automatically; nobody has answered yet. If it is urgent, call by telephone.",
    },
    Note.ON_SITE: {"zh": "工作人员已到场。", "en": "Somebody is there."},
    Note.DONE: {"zh": "工作人员反馈已处理，正在核实。", "en": "Reported as done; it is being checked."},
    Note.LATER: {"zh": "已受理，需要较长时间处理。", "en": "Taken on; it will take some time."},
    Note.FALSE_ALARM: {
        "zh": "核实后按误报结束。如仍需要帮助，请再次求助或直接打电话。",
        "en": "Closed as a false alarm. If you still need help, press again or call by telephone.",
    },
    Note.TEST: {
        "zh": "本页正在调试：网关收到了这次按下，没有立案，不会有人来。",
        "en": "This page is being tested: the gateway has received the press; no case was opened and nobody comes.",
    },
}

SCORES: Final[tuple[tuple[int, Mapping[str, str]], ...]] = (
    (5, {"zh": "很满意", "en": "Very good"}),
    (4, {"zh": "满意", "en": "Good"}),
    (3, {"zh": "一般", "en": "Fair"}),
    (2, {"zh": "不满意", "en": "Poor"}),
    (1, {"zh": "很不满意", "en": "Very poor"}),
)

ADDED: Final = {"zh": "已发给处理人员。", "en": "Sent to those who handle it."}

TROUBLES: Final[Mapping[str, Mapping[str, str]]] = {
    "wrong-code": {
        "zh": "二维码无效：这个网址不是本系统发放的。",
        "en": "This code is not valid: the address was not issued here.",
    },
    "code-replaced": {
        "zh": "这个二维码已经停用，请找现场新的二维码。",
        "en": "This code is no longer in use; please look for the new one.",
    },
    "unknown-receipt": {"zh": "没有这个回执，或已过期。", "en": "There is no such receipt, or it has expired."},
    "too-many": {"zh": "访问太频繁，请稍候再试。", "en": "Too many requests; please wait a moment."},
    "gateway-away": {
        "zh": "还没有送达：系统暂时收不到。请直接打电话，也可以再按一次。",
        "en": "It has not arrived: the system cannot be reached now. Please call by telephone, or press again.",
    },
    "ledger-down": {
        "zh": "系统暂时不可用。请直接打电话。",
        "en": "The system cannot be used now. Please call by telephone.",
    },
    "over": {
        "zh": "这次求助已经结束。如仍需要帮助，请再次求助。",
        "en": "This case is over. If you still need help, press again.",
    },
    "not-to-rate": {"zh": "这次求助已经评价过，或已过评价时间。", "en": "It was rated already, or it is too late to."},
    "id-spent": {"zh": "没有送达。请再按一次。", "en": "It has not arrived. Please press again."},
    "too-often": {
        "zh": "此处求助很多，已有编号 {number} 正在处理，这一次不再另记。情况紧急请直接打电话。",
        "en": "Many have called from here: {number} is being handled and stands for this one, too. If it is urgent, "
        "call by telephone.",
    },
}

_caller: Final = Depends(public("a resident has a place's signed address and no account"))
_holder: Final = Depends(public("a receipt is seen by whoever has its secret, and tells nothing else of the case"))

Lang = Annotated[str, Query(alias="lang")]


class ResidentPages:
    """The templates' side: one style, one script, and what a receipt says in a language."""

    def __init__(self, pages: Pages) -> None:
        self._pages: Final = pages
        self._script: Final = Assets().address("js/resident.js")
        style = (STATIC / "css" / "resident.css").read_text(encoding="utf-8")
        self._style: Final = Markup(style)  # noqa: S704 - a file of ours, as it is hashed
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self._headers: Final = {
            # The hash is of the one style that stands in the page. Browsers of before 2015 know no hashes and would
            # show it bare; all others leave 'unsafe-inline' aside where a hash stands (CSP level 2).
            "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{digest}' 'unsafe-inline'; "
            "script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; "
            "base-uri 'none'",
            "Referrer-Policy": "no-referrer",
        }

    def respond(self, template: str, language: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page."""
        known = {"phone": "", "style": self._style, "script": self._script}
        html = self._pages.fragment(language, f"resident/{template}", **{**known, **values})
        return HTMLResponse(html, status, self._headers)

    def refuse(self, problem: Problem, language: str) -> HTMLResponse:
        """A page that says what is wrong, and whom to call instead."""
        response = self.respond("trouble.html", language, problem.status_code, trouble=tell_trouble(problem, language))
        response.headers.update(problem.headers or {})
        return response


def tell_trouble(problem: Problem, language: str) -> str:
    """A problem in a resident's words."""
    text = pick(TROUBLES.get(problem.code, TROUBLES["ledger-down"]), language)
    return text.format_map({"number": "", **problem.more})


def tell_receipt(receipt: Receipt, secret: str, language: str) -> dict[str, object]:
    """A receipt for programs: the number, the times, how far it is, and nothing else."""
    return {
        "number": receipt.number,
        "stage": receipt.stage,
        "steps": [(stage, show_minute(at)) for stage, at in receipt.steps],
        "note": pick(NOTES[receipt.note], language),
        "over": receipt.is_over,
        "rate": bool(receipt.target),
        "joined": receipt.has_joined,
        "receipt": f"/r/receipt/{secret}?lang={language}",
    }


def show_minute(at: int | None) -> str:
    """Month, day, hour and minute in Asia/Shanghai."""
    return "" if at is None else show_full(at)[5:16]


def read_language(lang: Lang = "") -> str:
    """The language of the address; Chinese as long as nobody has chosen."""
    return lang if lang in LANGUAGES else "zh"


Language = Annotated[str, Depends(read_language)]


async def read_said(request: Request) -> tuple[str, Said]:
    """What a form says, however odd: nothing in it may keep somebody from calling. The secret is made here where the
    page has made none."""
    try:
        form = dict(await request.form(max_files=0, max_fields=20))
    except (HTTPException, ValueError) as error:
        if isinstance(error, Problem):
            raise
        form = {}
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    secret = fields.get("id", "")
    need, waited = fields.get("need", ""), fields.get("waited", "")
    said = Said(
        need if need in set(Need) else "",
        clean(fields.get("phone", ""), LONGEST_PHONE),
        clean(fields.get("words", ""), LONGEST_WORDS),
        min(int(waited), LONGEST_WAIT_MS) if waited.isdecimal() and len(waited) < 16 else 0,
    )
    return (secret if SECRET.fullmatch(secret) else make_secret()), said


def wants_json(request: Request) -> bool:
    """Whether a program asks."""
    return "application/json" in request.headers.get("accept", "")


def route_residents(desk: HelpDesk, pages: Pages) -> APIRouter:
    """The residents' pages, and the desk's sweeping for as long as the application lives."""
    router = APIRouter(lifespan=_sweeping(desk))
    shown = ResidentPages(pages)

    @router.get("/r/{address}", dependencies=[_caller])
    async def show_page(request: Request, address: str, language: Language) -> Response:
        """A place's page."""
        try:
            desk.count_request(address_of(request))
            return await show(request, address, language)
        except Problem as problem:
            return shown.refuse(problem, language)

    @router.post("/r/{address}", dependencies=[_caller])
    async def press(request: Request, address: str, language: Language) -> Response:
        """Somebody calls for help. The same ``id`` again is the same press."""
        where = address_of(request)
        secret, said = await read_said(request)
        try:
            if not wants_json(request):
                secret = await desk.renew(secret)
            receipt = await desk.press(desk.read_address(address, where), secret, said, where)
        except (Problem, LedgerDown) as error:
            problem = to_problem(error)
            if wants_json(request) or problem.status_code != 503:
                return refuse(request, problem, language)
            # The same form again, with the same id and all that was said: its button sends the same press.
            return await show(request, address, language, secret, said, problem)
        return answer(request, secret, receipt, language)

    @router.get("/r/receipt/{secret}", dependencies=[_holder])
    async def show_receipt(request: Request, secret: str, language: Language, said: str = "") -> Response:
        """How a press stands."""
        try:
            receipt = await desk.look(secret, address_of(request))
        except (Problem, LedgerDown) as error:
            return refuse(request, to_problem(error), language)
        if wants_json(request):
            return JSONResponse(tell_receipt(receipt, secret, language))
        return shown.respond(
            "receipt.html",
            language,
            receipt=receipt,
            path=f"/r/receipt/{quote(secret)}",
            steps=_list_steps(receipt.steps, language),
            present=receipt.stage,
            note=pick(NOTES[receipt.note], language),
            message=pick(ADDED, language) if said else "",
            scores=[(score, pick(title, language)) for score, title in SCORES],
            said=Said(),
        )

    @router.post("/r/receipt/{secret}/said", dependencies=[_holder])
    async def say_more(request: Request, secret: str, language: Language) -> Response:
        """What somebody adds after the press."""
        _, said = await read_said(request)
        try:
            await desk.say_more(secret, said, address_of(request))
        except (Problem, LedgerDown) as error:
            return refuse(request, to_problem(error), language)
        return RedirectResponse(f"/r/receipt/{quote(secret)}?lang={language}&said=1", 303)

    @router.post("/r/receipt/{secret}/rating", dependencies=[_holder])
    async def rate(request: Request, secret: str, language: Language) -> Response:
        """One question, one answer."""
        try:
            try:
                form = await request.form(max_files=0, max_fields=20)
            except (HTTPException, ValueError) as error:
                raise error if isinstance(error, Problem) else Problem(422, "not-to-rate", "no form") from error
            score = str(form.get("score", ""))
            if score not in ("1", "2", "3", "4", "5"):
                raise Problem(422, "not-to-rate", "score is 1 to 5")
            receipt = await desk.rate(secret, int(score), address_of(request))
        except (Problem, LedgerDown) as error:
            return refuse(request, to_problem(error), language)
        return answer(request, secret, receipt, language)

    async def show(
        request: Request,
        address: str,
        language: str,
        secret: str = "",
        said: Said = Said(),  # noqa: B008 - it is frozen
        problem: Problem | None = None,
    ) -> HTMLResponse:
        """The page with its form. It opens also while the ledger is down: it keeps what is pressed until then."""
        code = desk.read_address(address, address_of(request))
        try:
            device = await desk.find_page(code)
        except LedgerDown:
            device = None
        return shown.respond(
            "call.html",
            language,
            200 if problem is None else problem.status_code,
            secret=secret or make_secret(),
            said=said,
            name=device.name if device is not None else "",
            phone=find_phone(device) if device is not None else "",
            is_test=device is not None and device.state is not DeviceState.ACTIVE,
            is_there=problem is not None or (device is not None and await desk.is_gateway_there()),
            trouble="" if problem is None else tell_trouble(problem, language),
            needs={need: pick(title, language) for need, title in NEED_TITLES.items()},
            steps=_list_steps([(stage, None) for stage in Stage], language),
            present="",
        )

    def answer(request: Request, secret: str, receipt: Receipt, language: str) -> Response:
        if wants_json(request):
            return JSONResponse(tell_receipt(receipt, secret, language))
        return RedirectResponse(f"/r/receipt/{quote(secret)}?lang={language}", 303)

    def refuse(request: Request, problem: Problem, language: str) -> Response:
        return problem.respond() if wants_json(request) else shown.refuse(problem, language)

    return router


def to_problem(error: Problem | LedgerDown) -> Problem:
    """What went wrong, for whoever asked."""
    if isinstance(error, Problem):
        return error
    return Problem(503, "ledger-down", "the ledger cannot be used now", headers=RETRY)


def _list_steps(steps: Sequence[tuple[Stage, int | None]], language: str) -> list[tuple[str, str, str]]:
    return [(stage, pick(STAGES[stage], language), show_minute(at)) for stage, at in steps]


def _sweeping(desk: HelpDesk) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def live(_: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(desk.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return live
