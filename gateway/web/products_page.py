"""Models' secrets (一型一密), for the administrator. A secret stands in the answer to the form that made it and nowhere
else."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import RedirectResponse

from gateway.runtime.access import Actor, Permission
from gateway.runtime.products import NoProduct, ProductDesk
from gateway.web.access import address_of, authorise, gate_of
from gateway.web.console import Console
from gateway.web.device_page import read_text
from gateway.web.device_view import offer_profiles, read_key
from gateway.web.languages import choose_language
from gateway.web.problems import Problem

Keeper = Annotated[Actor, Depends(authorise(Permission.PRODUCTS_CHANGE))]


def route_products(console: Console, desk: ProductDesk) -> APIRouter:
    """``/products``."""
    router = APIRouter()

    @router.get("/products")
    async def show(request: Request, actor: Keeper) -> Response:
        """The models that have a secret, and those that may get one."""
        return await page(request)

    async def page(request: Request, profile: str = "", secret: str = "", status: int = 200) -> Response:
        products = await asyncio.to_thread(desk.products.products)
        profiles = offer_profiles(console, choose_language(request))
        titles = dict(profiles)
        known = {product.profile for product in products}
        return await console.respond(
            request,
            "products.html",
            status,
            products=products,
            titles=titles,
            profiles=[pair for pair in profiles if pair[0] not in known],
            made=profile,
            secret=secret,
            wish_id=secrets.token_hex(16),
            now=gate_of(request).sign_in.clock(),
        )

    @router.post("/products")
    async def change(request: Request, actor: Keeper) -> Response:
        """Makes, renews or switches one."""
        sent = await request.form()
        profile, key = read_text(sent, "profile"), read_key(read_text(sent, "id"))
        try:
            changed = await desk.change(actor, address_of(request), profile, read_text(sent, "verb"), key)
        except NoProduct as error:
            raise Problem(409, error.code, "there is no such model, or its secret stands otherwise") from error
        if changed.secret:
            return await page(request, profile, changed.secret, 201)
        return RedirectResponse("/products", 303)

    return router
