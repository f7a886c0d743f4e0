"""``/api/v1/webhooks``: who outside is told of incidents, for programs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import ConfigDict, Field

from gateway.runtime.access import Actor, Permission
from gateway.runtime.webhook_desk import Hooked, Unfit, WebhookDesk, WebhookWish
from gateway.runtime.webhooks import Delivery
from gateway.web.access import address_of, authorise
from gateway.web.api_incidents import Body, Key, Limit, respond_json
from gateway.web.openapi import answers, errors
from gateway.web.problems import Problem, unknown

Keeper = Annotated[Actor, Depends(authorise(Permission.WEBHOOKS_CHANGE))]
Id = Annotated[str, Path(max_length=32, pattern=r"^[0-9a-f]+$", examples=["0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4"])]
Code = Annotated[str, Field(max_length=48)]


class WebhookBody(Body):
    """An address to tell. ``grids`` are codes of the grid, each with all below it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "title": "街道大屏",
                "url": "https://receiver.example/events",
                "kinds": ["incident.opened", "incident.closed"],
                "grids": ["370215001"],
            }
        },
    )

    title: Annotated[str, Field(max_length=60)]
    url: Annotated[str, Field(max_length=500)]
    kinds: Annotated[list[Annotated[str, Field(max_length=20)]], Field(min_length=1, max_length=6)]
    grids: Annotated[list[Code], Field(max_length=100, default_factory=list)]
    communities: Annotated[list[Code], Field(max_length=300, default_factory=list)]


class WebhookChangeBody(Body):
    """Switches a webhook off or on, makes it another secret, sends a test event, or takes it away."""

    model_config = ConfigDict(json_schema_extra={"example": {"verb": "test"}})

    verb: Literal["off", "on", "renew", "test", "drop"]


class AgainBody(Body):
    """A delivery to send again, by its event's id."""

    model_config = ConfigDict(json_schema_extra={"example": {"id": "7d9f3a52-0f4e-5b53-9f0e-3d2f0c9f5a11/3/closed"}})

    id: Annotated[str, Field(max_length=120)]


def route_webhooks_api(desk: WebhookDesk) -> APIRouter:
    """The routes about webhooks."""
    router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"], default_response_class=Response)

    @router.get("", responses={**answers("WebhookList", "they"), **errors(401, 403, 429, 503)})
    async def list_webhooks(actor: Keeper) -> Response:
        """The webhooks whose scope lies inside one's own."""
        return respond_json({"items": await desk.list_all(actor)})

    @router.post("", responses={**answers("Hooked", "it is made"), **errors(400, 401, 403, 409, 422, 429, 503)})
    async def add(request: Request, actor: Keeper, body: WebhookBody, key: Key) -> Response:
        """Makes a webhook. ``secret`` is told this once; the same key again makes no second one, and tells none."""
        wish = WebhookWish(key, body.title, body.url, tuple(body.kinds), tuple(body.grids), tuple(body.communities))
        try:
            return respond_json(await desk.add(actor, address_of(request), wish))
        except Unfit as error:
            raise _refused(error) from error

    @router.get("/{id}", responses={**answers("Webhook", "it"), **errors(401, 403, 404, 422, 429, 503)})
    async def read_one(actor: Keeper, id: Id) -> Response:
        """One webhook, and how it goes."""
        try:
            return respond_json(await desk.find(actor, id))
        except LookupError as error:
            raise unknown() from error

    @router.post(
        "/{id}/changes", responses={**answers("Hooked", "it is done"), **errors(400, 401, 403, 404, 409, 422, 429, 503)}
    )
    async def change(request: Request, actor: Keeper, id: Id, body: WebhookChangeBody, key: Key) -> Response:
        """Changes a webhook. A new secret is told this once; the one before signs along for a day."""
        try:
            settled: Hooked = await desk.alter(actor, address_of(request), id, body.verb, key)
        except LookupError as error:
            raise unknown() from error
        except Unfit as error:
            raise _refused(error) from error
        return respond_json(settled)

    @router.get(
        "/{id}/deliveries", responses={**answers("DeliveryPage", "a page"), **errors(401, 403, 404, 422, 429, 503)}
    )
    async def list_deliveries(
        actor: Keeper,
        id: Id,
        limit: Limit = 100,
        cursor: Annotated[
            int | None, Query(ge=0, le=2**62, description="`next` of the page before", examples=[17])
        ] = None,
    ) -> Response:
        """The newest deliveries with the outcome of their last attempt; what was sent is not told."""
        try:
            found = await desk.list_deliveries(actor, id, limit + 1, cursor)
        except LookupError as error:
            raise unknown() from error
        # Those that were made in one moment stay together.
        shown = found[:limit]
        while len(found) > limit and len(shown) > 1 and shown[-1].created_at == found[limit].created_at:
            shown.pop()
        after = shown[-1].created_at if len(found) > len(shown) else None
        return respond_json({"items": [tell(one) for one in shown], "next": after})

    @router.post(
        "/{id}/deliveries/again",
        responses={**answers("Hooked", "it is sent again"), **errors(400, 401, 403, 404, 422, 429, 503)},
    )
    async def send_again(request: Request, actor: Keeper, id: Id, body: AgainBody, key: Key) -> Response:
        """Sends one again that was delivered or given up; one that waits goes on waiting, and the same key does it
        once."""
        try:
            await desk.send_again(actor, address_of(request), id, body.id, key)
            return respond_json(Hooked(await desk.find(actor, id)))
        except LookupError as error:
            raise unknown() from error

    return router


def tell(one: Delivery) -> dict[str, Any]:
    """A delivery as programs see it."""
    return {
        "id": one.id,
        "kind": one.kind,
        "state": one.state,
        "attempts": one.attempts,
        "created_at": one.created_at,
        "due_at": one.due_at,
        "settled_at": one.settled_at,
        "outcome": one.outcome,
    }


def _refused(error: Unfit) -> Problem:
    return Problem(409, error.code, error.words, field=error.field)
