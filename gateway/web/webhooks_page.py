"""Who outside is told of incidents, for the administrator: addresses, how each goes, and what was sent. A secret stands
in the answer to the form that made it and nowhere else."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import RedirectResponse

from gateway.core.model import Text
from gateway.runtime.access import Actor, Permission
from gateway.runtime.webhook_desk import SHOWN, Hooked, Unfit, WebhookDesk, WebhookWish
from gateway.runtime.webhooks import KINDS, TEST, State, Webhook
from gateway.web.access import address_of, authorise, gate_of
from gateway.web.accounts import split_words
from gateway.web.console import Console
from gateway.web.device_page import read_text
from gateway.web.device_view import read_key
from gateway.web.device_words import pick_word
from gateway.web.languages import choose_language
from gateway.web.problems import Problem, unknown

Keeper = Annotated[Actor, Depends(authorise(Permission.WEBHOOKS_CHANGE))]
Looker = Annotated[Actor, Depends(authorise(Permission.WEBHOOKS_CHANGE, is_passive=True))]
Word = Annotated[str, Query(max_length=20, pattern=r"^[a-z-]*$")]

LONGEST_URL: Final = 500
FIELDS: Final = ("title", "grids", "communities")

KIND_NAMES: Final[dict[str, Text]] = {
    "incident.opened": {"zh": "事件发生", "en": "incident opened"},
    "incident.changed": {"zh": "事件变化", "en": "incident changed"},
    "incident.closed": {"zh": "事件办结", "en": "incident closed"},
    "notice.opened": {"zh": "设备异常", "en": "device not well"},
    "notice.changed": {"zh": "设备异常变化", "en": "device still not well, changed"},
    "notice.closed": {"zh": "设备恢复", "en": "device well again"},
    TEST: {"zh": "测试", "en": "test"},
}
STATE_NAMES: Final[dict[str, Text]] = {
    State.WAITING: {"zh": "等待送达", "en": "waiting"},
    State.DONE: {"zh": "已送达", "en": "delivered"},
    State.DEAD: {"zh": "未送达", "en": "given up"},
}
OFF_NAMES: Final[dict[str, Text]] = {
    "by-hand": {"zh": "人工停用", "en": "switched off by hand"},
    "gone": {
        "zh": "已自动停用：对方答复 410，不再接收",
        "en": "switched off: the receiver answered 410, it wants no more",
    },
    "failing": {"zh": "已自动停用：连续多日没有成功送达", "en": "switched off: no good answer for days"},
}
FAULTS: Final[dict[str, Text]] = {
    "title": {"zh": "请填写名称，不超过 60 字", "en": "Give it a title of at most 60 characters"},
    "kinds": {"zh": "请至少选择一种事件", "en": "Choose at least one kind of event"},
    "scope": {
        "zh": "请填写网格或小区，且都在你的管辖范围内",
        "en": "Name grids or communities, each inside your own scope",
    },
    "too-many": {
        "zh": "已达上限，请先移除不用的，或等测试事件送完",
        "en": "There are too many already; take one away first",
    },
    "off": {"zh": "已停用，不会发送；请先启用", "en": "It is switched off; switch it on first"},
    "bad-address": {
        "zh": "地址应为 https://主机/路径，不含用户名、密码和 #",
        "en": "An address is https://HOST/PATH, without a user, a password or #",
    },
    "plain-http": {"zh": "地址须以 https:// 开头", "en": "An address begins with https://"},
    "unknown-host": {"zh": "这个主机名解析不到地址，请核对", "en": "This host has no address; look at its name again"},
    "private-address": {
        "zh": "这是内部地址，默认不允许；确需推送到内网，请在配置 web.webhooks.networks 中列出其网段",
        "en": "It lies inside and is not sent to; to allow an intranet's network, name it in web.webhooks.networks",
    },
}


def route_webhooks(console: Console, desk: WebhookDesk) -> APIRouter:
    """The pages about webhooks."""
    router = APIRouter()

    async def respond(request: Request, template: str, status: int = 200, **values: Any) -> Response:
        language = choose_language(request)
        names = {
            "name_kind": lambda code: pick_word(KIND_NAMES, code, language),
            "name_delivery": lambda code: pick_word(STATE_NAMES, code, language),
            "name_off": lambda code: pick_word(OFF_NAMES, code, language),
            "name_fault": lambda code: pick_word(FAULTS, code, language),
            "wish_id": secrets.token_hex(16),
            # Of real time, also where the gateway's clock runs faster: these are other people's machines.
            "now": gate_of(request).sign_in.clock(),
        }
        return await console.respond(request, template, status, **{**names, **values})

    @router.get("/webhooks")
    async def show_all(request: Request, actor: Keeper) -> Response:
        """All of one's scope, and the form for one more."""
        return await page(request, actor, {})

    async def page(request: Request, actor: Actor, fields: dict[str, Any], fault: str = "") -> Response:
        return await respond(
            request,
            "webhooks.html",
            422 if fault else 200,
            webhooks=await desk.list_all(actor),
            kinds=KINDS,
            chosen=fields.get("kinds", KINDS[:3]),
            fields={**dict.fromkeys(("url", *FIELDS), ""), **fields},
            grids=console.names.names.offer_grids(actor),
            fault=fault,
        )

    @router.post("/webhooks")
    async def add(request: Request, actor: Keeper) -> Response:
        """One more; the page that comes back shows its secret, once."""
        sent = await request.form()
        url = sent.get("url", "")
        if not isinstance(url, str) or len(url) > LONGEST_URL:
            raise Problem(422, "not-valid", f"url is a text of at most {LONGEST_URL} characters")
        fields: dict[str, Any] = {name: read_text(sent, name) for name in FIELDS}
        fields |= {"url": url.strip(), "kinds": tuple(kind for kind in KINDS if sent.get(f"kind.{kind}"))}
        wish = WebhookWish(
            read_key(read_text(sent, "id")),
            fields["title"],
            fields["url"],
            fields["kinds"],
            tuple(split_words(fields["grids"])),
            tuple(split_words(fields["communities"])),
        )
        try:
            made = await desk.add(actor, address_of(request), wish)
        except Unfit as error:
            return await page(request, actor, fields, error.code)
        if made.is_repeat:
            return RedirectResponse(f"/webhooks/{made.webhook.id}", 303)
        return await one(request, actor, made.webhook, secret=made.secret, status=201)

    @router.get("/webhooks/{id}")
    async def show_one(request: Request, actor: Keeper, id: str, done: Word = "") -> Response:
        """One, with what was sent last."""
        return await one(request, actor, await find(actor, id), done=done)

    @router.get("/webhooks/{id}/deliveries")
    async def show_deliveries(request: Request, actor: Looker, id: str) -> Response:
        """What was sent last, without the page around it."""
        webhook = await find(actor, id)
        found = await desk.list_deliveries(actor, id)
        return await respond(request, "_deliveries.html", webhook=webhook, deliveries=found)

    async def one(
        request: Request,
        actor: Actor,
        webhook: Webhook,
        *,
        secret: str = "",
        fault: str = "",
        done: str = "",
        status: int = 200,
    ) -> Response:
        return await respond(
            request,
            "webhook.html",
            status,
            webhook=webhook,
            deliveries=await desk.list_deliveries(actor, webhook.id),
            most=SHOWN,
            secret=secret,
            fault=fault,
            done=done,
        )

    @router.post("/webhooks/{id}/changes")
    async def change(request: Request, actor: Keeper, id: str) -> Response:
        """Off, on, another secret, a test event, or away."""
        sent = await request.form()
        verb, key = read_text(sent, "verb"), read_key(read_text(sent, "id"))
        webhook = await find(actor, id)
        try:
            settled: Hooked = await desk.alter(actor, address_of(request), id, verb, key)
        except LookupError as error:
            raise unknown() from error
        except Unfit as error:
            return await one(request, actor, webhook, fault=error.code, status=409)
        if settled.secret:
            return await one(request, actor, settled.webhook, secret=settled.secret, done=verb, status=201)
        return RedirectResponse("/webhooks" if verb == "drop" else f"/webhooks/{id}?done={verb}", 303)

    @router.post("/webhooks/{id}/again")
    async def send_again(request: Request, actor: Keeper, id: str) -> Response:
        """Sends one event again."""
        sent = await request.form()
        key = read_key(read_text(sent, "id"))
        await find(actor, id)
        await desk.send_again(actor, address_of(request), id, read_text(sent, "delivery"), key)
        return RedirectResponse(f"/webhooks/{id}?done=again", 303)

    async def find(actor: Actor, id: str) -> Webhook:
        try:
            return await desk.find(actor, id)
        except LookupError as error:
            raise unknown() from error

    return router
