"""The administrator's pages about what lies outside: webhooks, and the secrets of models."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import expect

from gateway.core.model import Role
from gateway.runtime.webhooks import Ended, Outcome
from tests.browser.conftest import Visit
from tests.browser.test_pages import check_width, find_faults
from tests.web.control_room import ControlRoom

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_receiver_and_a_models_secret_are_set_up_by_hand_in_both_languages(
    room: ControlRoom, visit: Visit
) -> None:
    room.add("boss", Role.ADMINISTRATOR)
    page = await visit("boss", "/webhooks")
    assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]"
    await page.fill("input[name=title]", "街道大屏")
    await page.fill("input[name=url]", "https://10.0.0.1/events")
    await page.fill("input[name=grids]", "370215001")
    await page.click("text=新增 >> nth=-1")
    await expect(page.locator("[role=alert]:not([hidden])")).to_contain_text("内部地址")
    await page.fill("input[name=url]", "https://203.0.114.1/events/of-a-receiver")
    await page.click("form.change button.is-main")
    await expect(page.locator(".webhook-secret")).to_have_text(room.webhooks.keys(*held(room))[0].decode())
    await page.click("text=发送测试事件")
    await expect(page.locator("#deliveries")).to_contain_text("等待送达")
    [hook] = room.webhooks.webhooks()
    [sent] = room.webhooks.deliveries(hook.id, 9)
    now = room.sign_in.clock()
    room.webhooks.settle([Outcome(hook.id, sent.id, Ended.REFUSED, now, "422 no such event is known here")])
    await expect(page.locator("#deliveries")).to_contain_text("422 no such event")
    assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]"
    await page.click("button:has-text('再次发送')")
    await expect(page.locator("#deliveries")).to_contain_text("等待送达")
    room.webhooks.settle([Outcome(hook.id, sent.id, Ended.GONE, now, "410")])
    await page.goto("/products")
    await page.select_option("select[name=profile]", "fixed-sos")
    await page.click("form.change button.is-main")
    await expect(page.locator(".webhook-secret")).to_have_text(room.products.keys("fixed-sos", now)[0].decode())
    assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]"
    await page.click("details.menu > summary")
    await page.click("button[lang=en]")
    await page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/webhooks", f"/webhooks/{hook.id}", "/products"):
        await page.goto(path)
        await check_width(page, 360, path)
    await page.goto(f"/webhooks/{hook.id}")
    await expect(page.locator(".figures-head")).to_contain_text("answered 410")


def held(room: ControlRoom) -> tuple[str, int]:
    [hook] = room.webhooks.webhooks()
    return hook.id, room.sign_in.clock()
