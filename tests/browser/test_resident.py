"""A resident's telephone at 360 px: holding, waiting through outages, progress, rating; with and without its script."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from gateway.web.assets import STATIC, StaticPages
from tests.browser.test_pages import check_width, find_faults
from tests.runtime.world import World
from tests.web.wall import PHONE, Wall

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLACE = "示例一期1号楼1单元"


class Live(Wall):
    """A wall whose pages are served on a port, for a browser."""

    async def serve(self) -> None:
        self.app.mount("/static", StaticPages(directory=STATIC), name="static")
        listening = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.server_process = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", lifespan="off"))
        self.serving = asyncio.create_task(self.server_process.serve(sockets=[listening]))

    @property
    def url(self) -> str:
        return self.base + self.path

    async def close(self) -> None:
        self.server_process.should_exit = True
        await self.serving
        await super().close()


@pytest_asyncio.fixture(loop_scope="session")
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    made = Live(World(tmp_path), tmp_path)
    await made.open()
    [made.page] = await made.issue("b1-u1")
    await made.serve()
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def phone(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A small telephone. What its pages trip over, and what their policy forbids, is a fault."""
    context = await browser.new_context(viewport={"width": 360, "height": 640}, has_touch=True)
    context.set_default_timeout(15_000)
    faults: list[str] = []
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    yield context
    await context.close()
    assert faults == []


async def hold(page: Page, ms: int) -> None:
    """A finger on the button."""
    button = page.locator("#send[type=button]")  # its script is there
    await button.dispatch_event("touchstart")
    await page.wait_for_timeout(ms)
    await button.dispatch_event("touchend")


async def check_fit(page: Page) -> None:
    """No fault that axe calls serious or critical; nothing wider than the screen."""
    assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]"
    await check_width(page, 360)


@pytest.mark.parametrize(("lang", "scheme"), [("zh", "light"), ("en", "dark")])
async def test_held_for_two_seconds_it_is_one_case_and_the_receipt_follows_it_to_the_rating(
    live: Live, phone: BrowserContext, lang: str, scheme: Any
) -> None:
    page = await phone.new_page()
    await page.emulate_media(color_scheme=scheme)
    await page.goto(f"{live.url}?lang={lang}")
    await expect(page.locator(".place")).to_have_text(PLACE)
    await check_fit(page)
    await page.get_by_text({"zh": "急病、受伤", "en": "Ill or hurt"}[lang]).click()
    await page.fill("#phone", "139 0000 1111")

    await hold(page, 700)
    await expect(page.locator("#sure")).to_be_visible()
    await check_fit(page)
    assert live.cases() == []

    await hold(page, 2100)
    await expect(page.locator("#done")).to_be_visible()
    [case] = live.cases()
    await expect(page.locator("#done .number")).to_have_text(case.number)
    await expect(page.locator("#done-title")).to_be_focused()
    assert case.timeline[0].why.endswith("need medical")
    assert [call.phone for call in live.calls.calls_of(case.id)] == ["139 0000 1111"]
    assert await page.evaluate("localStorage.getItem('press:' + location.pathname)") is None
    await check_fit(page)

    await live.act("accept")
    await expect(page.locator("#steps .is-on")).to_have_count(2, timeout=10_000)
    await page.click("#receipt")
    await page.fill("#words", "三楼，门没锁")
    await page.locator("form button").click()
    await expect(page.locator("p.say")).to_be_visible()
    await check_fit(page)
    assert [call.words for call in live.calls.calls_of(case.id)] == ["三楼，门没锁"]

    for verb in ("dispatch", "arrive", "resolve", "verify", "close"):
        await live.act(verb, "已送医")
    await page.locator(".scores button").first.wait_for(timeout=15_000)  # it comes by itself
    await check_fit(page)
    await page.locator(".scores button").first.click()
    await expect(page.locator(".is-good")).to_be_visible()
    assert live.cases()[0].score == 5


async def test_who_cannot_hold_a_button_confirms_with_a_second_one_by_keyboard_alone(
    live: Live, phone: BrowserContext
) -> None:
    page = await phone.new_page()
    await page.goto(live.url)
    await page.locator("#send[type=button]").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#sure button")).to_be_focused()
    assert live.cases() == []
    await page.keyboard.press("Enter")
    await expect(page.locator("#done")).to_be_visible()
    assert [case.signals for case in live.cases()] == [1]


async def test_a_mouse_holds_too_and_leaving_the_button_is_letting_go(live: Live, phone: BrowserContext) -> None:
    page = await phone.new_page()
    await page.goto(live.url)
    await page.locator("#send[type=button]").hover()
    await page.mouse.down()
    await page.mouse.move(5, 600)
    await expect(page.locator("#sure")).to_be_visible()
    await page.mouse.up()
    assert live.cases() == []
    await page.hover("#send")
    await page.mouse.down()
    await expect(page.locator("#done")).to_be_visible()
    await page.mouse.up()
    assert [case.signals for case in live.cases()] == [1]


async def test_while_the_gateway_is_away_the_page_says_so_and_sends_the_same_press_until_it_arrives(
    live: Live, phone: BrowserContext
) -> None:
    page = await phone.new_page()
    await page.goto(live.url)
    await live.stop_gateway()
    await hold(page, 2100)
    await expect(page.locator("#say")).to_contain_text("系统暂时收不到")
    await expect(page.locator("#dial")).to_have_class(re.compile("is-urgent"))
    await expect(page.locator(f"a[href='tel:{PHONE}']")).to_be_visible()
    await check_fit(page)
    kept = await page.evaluate("JSON.parse(localStorage.getItem('press:' + location.pathname)).id")
    assert re.fullmatch("[0-9a-f]{32}", kept)

    # The telephone is put away and taken out again: the page goes on where it was.
    await page.close()
    page = await phone.new_page()
    await page.goto(live.url)
    await expect(page.locator("#say")).to_contain_text("还没有送达")
    await live.open()
    await expect(page.locator("#done")).to_be_visible(timeout=15_000)
    [case] = live.cases()
    assert case.signals == 1
    call = live.calls.calls_of(case.id)[0]
    assert call.waited > 1000
    # Whoever opens the page again finds the receipt.
    await page.goto(live.url)
    await page.click("#last a")
    await expect(page.locator("h1 .number")).to_have_text(case.number)


async def test_an_answer_that_is_lost_on_the_way_is_asked_for_again_and_is_no_second_press(
    live: Live, phone: BrowserContext
) -> None:
    page = await phone.new_page()
    await page.goto(live.url)
    sent: list[str] = []

    async def lose(route: Route) -> None:
        if route.request.method != "POST":
            await route.fallback()
            return
        sent.append(route.request.post_data or "")
        if len(sent) == 1:
            await route.fetch()  # it arrives, and its answer does not come back
            await route.abort()
        elif len(sent) == 2:
            await route.fulfill(status=200, content_type="text/html", body="<h1>login to this network</h1>")
        else:
            await route.fallback()

    await page.route("**/r/**", lose)
    await hold(page, 2100)
    await expect(page.locator("#done")).to_be_visible(timeout=15_000)
    assert len({re.findall("id=([0-9a-f]{32})", body)[0] for body in sent}) == 1
    assert len(sent) == 3
    assert [case.signals for case in live.cases()] == [1]


async def test_a_press_that_was_kept_too_long_is_asked_about_and_not_sent_by_itself(
    live: Live, phone: BrowserContext
) -> None:
    page = await phone.new_page()
    await page.goto(live.url)
    old = "{id: '%s', at: Date.now() - 3600000, need: 'fire', phone: '', words: ''}" % ("ab" * 16)
    await page.evaluate(f"localStorage.setItem('press:' + location.pathname, JSON.stringify({old}))")
    await page.reload()
    await expect(page.locator("#earlier")).to_contain_text("还需要帮助吗")
    await check_fit(page)
    assert live.cases() == []
    await page.click("#never")
    await expect(page.locator("#earlier")).to_be_hidden()

    await page.evaluate(f"localStorage.setItem('press:' + location.pathname, JSON.stringify({old}))")
    await page.reload()
    await page.click("#still")
    await expect(page.locator("#done")).to_be_visible()
    [case] = live.cases()
    assert live.calls.calls_of(case.id)[0].waited >= 3_600_000


async def test_a_sheet_that_was_replaced_while_the_page_was_open_is_told(live: Live, phone: BrowserContext) -> None:
    page = await phone.new_page()
    await page.goto(live.url)
    await live.issue("b1-u1", renew=True)
    await hold(page, 2100)
    await expect(page.locator("#say")).to_contain_text("已经停用")
    await expect(page.locator("#stop")).to_be_hidden()
    await page.goto(live.url)
    await expect(page.locator("h1")).to_contain_text("已经停用")
    await check_fit(page)


async def test_without_a_script_it_is_a_plain_form(live: Live, browser: Browser) -> None:
    context = await browser.new_context(viewport={"width": 360, "height": 640}, java_script_enabled=False)
    page = await context.new_page()
    await page.goto(f"{live.url}?lang=en")
    await page.locator("label", has_text="Fire or smoke").click()
    await page.get_by_role("button", name="Call for help now").click()
    await expect(page.locator("h1 .number")).to_have_text(re.compile("JM"))
    [case] = live.cases()
    await expect(page.locator("h1 .number")).to_have_text(case.number)
    assert case.timeline[0].why.endswith("need fire")
    await live.act("accept")
    await page.reload()
    await expect(page.locator("#steps .is-on")).to_have_count(2)
    await context.close()
