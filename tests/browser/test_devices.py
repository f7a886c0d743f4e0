"""The property manager's day: a device from the box to the first signal, who is not well, windows; on all screens."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest
import segno
from msgspec.structs import replace
from playwright.async_api import Page, expect

from gateway.core.model import DeviceState, RegistryChange, Role, Sort
from tests.browser.conftest import Visit
from tests.browser.test_pages import check_width, find_faults
from tests.web.control_room import ControlRoom

pytestmark = pytest.mark.asyncio(loop_scope="session")


def hire(room: ControlRoom) -> None:
    room.add("keeper", Role.PROPERTY_MANAGER, (), ("c001",))


async def fill(page: Page, code: str) -> None:
    """As a scanner does it: the code, then Enter."""
    await page.goto("/devices/new?community=c001")
    await page.type("#code", code)
    await page.keyboard.press("Enter")
    await expect(page.locator("#profile")).to_be_focused()
    await page.select_option("#profile", "fixed-sos")
    await page.select_option("#source", "")
    await page.fill("[data-narrows=place]", "1号楼 102")
    await expect(page.locator("[data-shows=place]")).to_have_text("1号楼 1单元 102室")


@pytest.mark.parametrize("width", [360, 1280])
async def test_from_the_box_to_the_first_signal(room: ControlRoom, visit: Visit, width: int) -> None:
    hire(room)
    page = await visit("keeper", "/devices", width=width, height=740, has_touch=width == 360)
    began = time.monotonic()
    await page.click("text=登记设备")
    await fill(page, "SN-7")
    await page.click(".register-end button")
    await expect(page.locator("#password")).to_be_visible()
    await expect(page.locator(".qr svg")).to_be_visible()
    await check_width(page, width)
    await expect(page.locator("#trial-ask")).to_contain_text("现在按一下")
    await expect(page.locator("#link-state")).to_have_class("link-state is-live")

    pressed = time.monotonic()
    room.press_own("sn-7")
    await expect(page.locator("#trial-got")).to_contain_text("收到了 · 20:00:00按键", timeout=1000)
    assert time.monotonic() - pressed < 1.0
    await page.click("text=结束测试")
    await expect(page.locator("#told")).to_contain_text("已办理")
    assert time.monotonic() - began < 30
    device = room.ledger.device("c001", "sn-7")
    assert device is not None
    assert (device.state, device.place) == (DeviceState.ACTIVE, "b1-u1-102")
    assert [i for i in room.world.incidents() if i.sort is Sort.INCIDENT] == []
    await expect(page.locator("#password")).to_have_count(0)
    await expect(page.locator("#past")).to_contain_text("登记 SN-7")


async def test_a_code_is_read_from_a_photo(room: ControlRoom, visit: Visit) -> None:
    hire(room)
    page = await visit("keeper", "/devices/new?community=c001", width=360, height=740)
    camera = page.locator("[data-scans=code] input[type=file]")
    said = page.locator("[data-scans=code] [role=status]")

    def photo(text: str, scale: int) -> Any:
        out = io.BytesIO()
        segno.make_qr(text, error="m").save(out, kind="png", scale=scale, border=6, dark="#333", light="#ddd")
        return {"name": "photo.png", "mimeType": "image/png", "buffer": out.getvalue()}

    await camera.set_input_files({"name": "photo.png", "mimeType": "image/png", "buffer": b"no picture"})
    await expect(said).to_contain_text("没有读出")
    await camera.set_input_files(photo("x" * 200, 4))
    await expect(said).to_contain_text("太长")
    await expect(page.locator("#code")).to_have_value("")
    for text, scale, code in (
        ("SN-860001", 4, "SN-860001"),
        ("HW:2A/77-甲", 60, "HW:2A/77-甲"),
        ("https://gateway.example/devices/new?community=c001&code=SN-9", 5, "SN-9"),
    ):
        await camera.set_input_files(photo(text, scale))
        await expect(page.locator("#code")).to_have_value(code)
        await expect(said).to_have_text("")
    await check_width(page, 360)


async def test_every_page_about_devices_fits_its_screen_in_both_languages(room: ControlRoom, visit: Visit) -> None:
    hire(room)
    room.world.send({"smoke-1:battery": 88.0, "smoke-1:smoke": False, "sos-1:battery": 240.0})
    await room.world.receipted()
    page = await visit("keeper", "/devices")
    paths = ("/devices", "/devices?view=all", "/devices/new", "/devices/c001/smoke-1", "/windows", "/bulk")
    for path in paths:
        await page.goto(path)
        assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]", path
    await page.click("details.menu > summary")
    await page.click("button[lang=en]")
    await page.set_viewport_size({"width": 360, "height": 740})
    for path in paths:
        await page.goto(path)
        await check_width(page, 360, path)
        left = await page.evaluate(
            """() => [...document.querySelectorAll('h1, h2, h3, button, label, summary, legend, p, header span, dt')]
                .filter(e => !e.closest('[lang=zh]'))
                .map(e => [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join(''))
                .filter(t => /[\\u4e00-\\u9fff]/.test(t))"""
        )
        named = ("示例", "号楼", "大门", "单元", "室")
        assert [text for text in left if not any(name in text for name in named)] == [], path
    table = b"code,profile,place\nSOS-1,fixed-sos,b1\nS-2,nb-smoke,b1\n"
    await page.set_input_files("input[type=file]", {"name": "t.csv", "mimeType": "text/csv", "buffer": table})
    await page.click("form.change button")
    await expect(page.locator("#report-title")).to_have_text("1 registered, 1 rows not")
    await check_width(page, 360)
    async with page.expect_download() as saving:
        await page.click("[data-saves=report]")
    saved = (await (await saving.value).path()).read_text(encoding="utf-8")
    assert '2,SOS-1,,"This code is registered already' in saved
    assert room.ledger.device("c001", "s-2") is not None


async def test_a_place_is_chosen_on_the_map(room: ControlRoom, visit: Visit) -> None:
    hire(room)
    spread = tuple(
        replace(place, lon=120.44 + number * 0.001, lat=36.39)
        for number, place in enumerate(room.world.pipeline.look("c001").places)
    )
    await room.world.pipeline.submit("c001", RegistryChange("test", places=spread), "spread")
    page = await visit("keeper", "/devices/new?community=c001")
    marks = page.locator("#place-map path.leaflet-interactive")
    await expect(marks).to_have_count(len(spread))
    await marks.nth(2).click()
    chosen = await page.input_value("#place")
    assert chosen in {place.id for place in spread}
    await expect(page.locator("[data-shows=place]")).not_to_have_text("")
    await page.fill("[data-narrows=place]", "2号楼 101")
    await expect(page.locator("#place")).to_have_value("b2-u1-101")
