"""``/api/v1/products`` and ``/api/v1/provision``: models' secrets, and devices that fetch their own passwords."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ConfigDict, Field

from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor, Permission
from gateway.runtime.products import Ask, NoProduct, NotGranted, ProductDesk
from gateway.runtime.signing import MINUTE_MS
from gateway.web.access import address_of, authorise, gate_of, network_of, public
from gateway.web.api_incidents import Body, Key, respond_json
from gateway.web.limits import Limiter, Rate
from gateway.web.openapi import answers, errors
from gateway.web.problems import Problem

Keeper = Annotated[Actor, Depends(authorise(Permission.PRODUCTS_CHANGE))]
Profile = Annotated[str, Path(max_length=48, pattern=r"^[a-z0-9-]+$", examples=["fixed-sos"])]

ASKS: Final = Rate(30, 10 * MINUTE_MS)
"""Of one address: a site with many devices switches them on one after the other."""

IN_VAIN: Final = Rate(500, DAY_MS)
"""Asks, signed with one model's secret, that were refused: beyond that somebody tries codes one after the other."""


class ProductChangeBody(Body):
    """Makes a model a secret, renews it, or switches it off or on."""

    model_config = ConfigDict(json_schema_extra={"example": {"verb": "make"}})

    verb: Literal["make", "renew", "off", "on"]


class AskBody(Body):
    """What a device asks with (docs/devices.md)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"product": "fixed-sos", "code": "SN-2026/0042", "at": 1795435200, "signature": "0" * 64}
        },
    )

    product: Annotated[str, Field(max_length=48, pattern=r"^[a-z0-9-]+$")]
    code: Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\x00-\x1f]+$")]
    at: Annotated[int, Field(ge=0, le=2**40)]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def route_products_api(desk: ProductDesk) -> APIRouter:
    """The routes about models' secrets."""
    router = APIRouter(prefix="/api/v1", tags=["products"], default_response_class=Response)
    asks, in_vain = Limiter(ASKS), Limiter(IN_VAIN)

    @router.get("/products", responses={**answers("ProductList", "they"), **errors(401, 403, 429, 503)})
    async def list_products(actor: Keeper) -> Response:
        """The models that have a secret."""
        return respond_json({"items": await asyncio.to_thread(desk.products.products)})

    @router.post(
        "/products/{profile}/changes",
        responses={**answers("ProductChanged", "it is done"), **errors(400, 401, 403, 404, 409, 422, 429, 503)},
    )
    async def change(request: Request, actor: Keeper, profile: Profile, body: ProductChangeBody, key: Key) -> Response:
        """Makes, renews or switches a model's secret, which is told this once; the same key again makes none."""
        try:
            changed = await desk.change(actor, address_of(request), profile, body.verb, key)
        except NoProduct as error:
            status = 404 if error.code in ("unknown-profile", "no-product") else 409
            raise Problem(status, error.code, "there is no such model, or its secret stands otherwise") from error
        return respond_json(changed)

    @router.post(
        "/provision",
        responses={**answers("Granted", "its password"), **errors(401, 403, 422, 429, 503)},
        dependencies=[Depends(public("a device has no account yet: it signs with its model's secret"))],
        openapi_extra={"security": []},
    )
    async def provision(request: Request, body: AskBody) -> Response:
        """A device fetches its own password, once: it was registered beforehand, and is awaited. The answer is told
        this once; a device that lost it is let in again by its property manager."""
        now = gate_of(request).sign_in.clock()
        _limit(asks, network_of(request), now)
        _limit(in_vain, body.product, now)
        try:
            granted = await desk.grant(Ask(body.product, body.code, body.at, body.signature), address_of(request))
        except NotGranted as error:
            if error.code != "not-granted":
                # Whoever does not hold the secret uses up nobody's share.
                in_vain.give_back(body.product, now)
            status = 401 if error.code == "wrong-signature" else 403
            raise Problem(status, error.code, _WORDS[error.code]) from error
        in_vain.give_back(body.product, now)
        return respond_json(granted)

    return router


_WORDS: Final = {
    "wrong-signature": "the signature is not that of a model whose secret is switched on",
    "wrong-time": "its clock is off by more than ten minutes; the answer's Date header says what time it is",
    "not-granted": "no such device is awaited now; its property manager can let it in",
}


def _limit(limiter: Limiter, key: str, now: int) -> None:
    wait = limiter.take(key, now)
    if wait:
        seconds = str(-(-wait // 1000))
        raise Problem(429, "too-often", f"too many requests; wait {seconds} s", headers={"Retry-After": seconds})
