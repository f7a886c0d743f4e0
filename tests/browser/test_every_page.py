"""Every page that an account can open: nobody is kept out, nothing is wider than its screen, nothing is left in the
other language; and each has its pictures in the docs. `tests.console_pages` is the table."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, expect
from playwright.async_api import Page as Tab

from gateway.web.access import list_routes
from tests.browser.foreign import find_foreign
from tests.browser.test_pages import check_width, find_faults
from tests.console_pages import PAGES, PARTS, PHONE, Page, Scene, set_scene
from tests.servers import ROOT
from tests.web.house import CLI

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCS = ROOT / "docs"
WIDE = 1920


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Two days of six communities; one console for the module."""
    made = await set_scene(tmp_path_factory.mktemp("scene"), 6, 2, 14)
    yield made
    await made.room.__aexit__()


@pytest_asyncio.fixture(loop_scope="session")
async def faults() -> AsyncIterator[list[str]]:
    """What scripts trip over, and what the policy forbids."""
    found: list[str] = []
    yield found
    assert found == []


async def come(browser: Browser, scene: Scene, who: str, faults: list[str], **cookies: str) -> BrowserContext:
    """Somebody's browser."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800}, base_url=scene.room.url)
    context.set_default_timeout(20_000)
    # The first look at the rules runs all their tests.
    context.set_default_navigation_timeout(90_000)
    held = {**cookies, **({"scg": scene.secrets[who]} if who else {})}
    await context.add_cookies([{"name": name, "value": value, "url": scene.room.url} for name, value in held.items()])
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    return context


async def settle(tab: Tab) -> None:
    """Until a page that is live says so."""
    if await tab.query_selector("#link-state, #wall-link") is not None:
        await expect(tab.locator("#link-state.is-live, #wall-link.is-live")).to_be_visible()


async def check_widths(tab: Tab, page: Page) -> None:
    for width in (PHONE, WIDE):
        await tab.set_viewport_size({"width": width, "height": 1080 if width == WIDE else 740})
        await check_width(tab, width, page.route)


async def test_the_table_has_every_page(scene: Scene) -> None:
    read = {route.path for route in list_routes(scene.room.app.routes) if route.method == "GET"}
    read = {path for path in read if not path.startswith("/api/")}
    pages = {page.route for page in PAGES}

    assert pages | set(PARTS) >= read, "a new page stands in PAGES of tests/console_pages.py, anything else in PARTS"
    assert pages <= read
    assert not pages & set(PARTS)


async def test_every_picture_is_there_is_shown_and_is_small() -> None:
    wanted = {shot.name for page in PAGES for shot in page.shots}
    there = {path.stem: path.stat().st_size for path in (DOCS / "console").glob("*.png")}
    shown = set(re.findall(r"\(console/([\w-]+)\.png\)", "".join(path.read_text() for path in DOCS.glob("*.md"))))

    assert set(there) == wanted, "python -m tests.screenshots makes them"
    assert shown <= set(there)
    assert {page.route for page in PAGES if not any(shot.name in shown for shot in page.shots)} == {
        "/map/heat/{community}",  # the page without scripts; with them it stands beside the map
    }
    assert {name: size for name, size in there.items() if size >= 200_000} == {}


# Those of the test stand are walked in test_tester.py, beside one.
@pytest.mark.parametrize("page", [page for page in PAGES if not page.has_stand], ids=lambda page: page.route)
@pytest.mark.parametrize("language", ["zh", "en"])
async def test_each_page_is_in_one_language(
    browser: Browser, scene: Scene, faults: list[str], page: Page, language: str
) -> None:
    context = await come(browser, scene, page.who, faults, language=language)
    tab = await context.new_page()
    await tab.goto(scene.url(page) + (f"?lang={language}" if page.is_own_look else ""))
    await settle(tab)
    assert await find_foreign(tab, language, scene.list_data()) == []
    await context.close()


@pytest.mark.parametrize("page", [page for page in PAGES if not page.has_stand], ids=lambda page: page.route)
async def test_nobody_is_kept_out(browser: Browser, scene: Scene, faults: list[str], page: Page) -> None:
    for look in ({"language": "zh", "theme": "light"}, {"language": "en", "theme": "dark"}):
        context = await come(browser, scene, page.who, faults, **look)
        tab = await context.new_page()
        answer = await tab.goto(scene.url(page))
        assert answer is not None
        assert answer.status == 200, page.route
        await settle(tab)
        assert json.dumps(await find_faults(tab), ensure_ascii=False, indent=1) == "[]", (page.route, look)
        await check_widths(tab, page)
        await context.close()


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_what_is_folded_and_what_goes_wrong_is_in_the_language_too(
    browser: Browser, scene: Scene, faults: list[str], language: str
) -> None:
    data = scene.list_data()
    context = await come(browser, scene, "dispatcher", faults, language=language)
    tab = await context.new_page()
    # The longest histories, which have the most kinds of sentences.
    told = sorted(scene.room.world.incidents(), key=lambda one: -len(one.timeline))[:4]
    for path in (
        *(f"/incidents/{one.id}" for one in told),
        "/appraisal?from=2026-11-25&to=2026-11-01",
        "/appraisal?every=hour",
        "/audit",
        "/nothing",
        "/incidents/nothing",
        "/board?level=purple",
        "/r/nothing?lang=" + language,
        "/r/receipt/nothing?lang=" + language,
    ):
        await tab.goto(path)
        assert await find_foreign(tab, language, data) == [], path
    await context.close()


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_what_comes_of_a_draft_is_in_the_language_too(
    browser: Browser, scene: Scene, faults: list[str], language: str
) -> None:
    data = scene.list_data()
    context = await come(browser, scene, "tester", faults, language=language)
    tab = await context.new_page()
    await tab.goto("/tester/rules?rule=fire.smoke-persists")
    text = tab.locator("textarea[name=text]")
    good = await text.input_value()
    await tab.select_option("[name=community]", scene.names["community"])
    await text.fill(good.replace("hold: 10s", "hold: soon").replace("scope: device", "scope: moon"))
    await tab.click("button.is-main")
    await expect(tab.locator(".faults li").first).to_be_visible()
    assert await find_foreign(tab, language, data) == []

    await text.fill(good)
    await tab.fill("[name=day]", "2020-01-01")
    await tab.click("button.is-main")
    await expect(tab.locator("main .notice.is-grave:not(.trouble)")).to_be_visible()
    assert await find_foreign(tab, language, data) == []

    await tab.fill("[name=day]", "2026-11-24")
    await tab.click("button.is-main")
    await expect(tab.locator("#came-title")).to_be_visible()
    assert await find_foreign(tab, language, data) == []
    await context.close()


# --- main paths ---------------------------------------------------------------------------------------------------


async def test_a_rule_is_lowered_with_a_reason_and_taken_back(
    browser: Browser, scene: Scene, faults: list[str]
) -> None:
    context = await come(browser, scene, "administrator", faults)
    tab = await context.new_page()
    await tab.goto("/rules")
    await tab.click("a[href='/rules/fire.smoke-persists']")
    await tab.select_option("select[name=status]", "shadow")
    await tab.fill("[name=reason]", "浴室蒸汽误报多，先试运行")
    await tab.click("form[action$='/status'] button")
    await expect(tab.locator("main")).to_contain_text("浴室蒸汽误报多，先试运行")
    await tab.goto("/rules")
    await expect(tab.locator("tr:has(a[href='/rules/fire.smoke-persists']) .status-shadow")).to_be_visible()

    await tab.click("a[href='/rules/fire.smoke-persists']")
    await tab.select_option("select[name=status]", "file")
    await tab.fill("[name=reason]", "换了烟感")
    await tab.click("form[action$='/status'] button")
    await expect(tab.locator("main")).to_contain_text("换了烟感")
    await tab.goto("/rules")
    await expect(tab.locator("tr:has(a[href='/rules/fire.smoke-persists']) .status-active")).to_be_visible()
    await context.close()


async def test_the_appraisal_is_a_table_a_chart_and_a_file(browser: Browser, scene: Scene, faults: list[str]) -> None:
    context = await come(browser, scene, "dispatcher", faults)
    tab = await context.new_page()
    await tab.goto("/appraisal")
    await tab.select_option("[name=by]", "community")
    await tab.click(".figures-filter button")
    await tab.wait_for_url("**/appraisal?by=community*")
    rows = tab.locator("#figures tbody tr")
    numbers = [int(await row.get_attribute("data-number") or "0") for row in await rows.all()]
    opened = [one for one in scene.room.world.incidents() if one.sort == "incident"]
    assert sum(numbers) == len(opened) > 5
    for chart in ("#chart-number canvas", "#chart-rate canvas"):  # what is told of a bar is drawn, without a fault
        await tab.hover(chart, position={"x": 150, "y": 120})
        await tab.hover(chart, position={"x": 160, "y": 130})
    async with tab.expect_download() as saving:
        await tab.click("a[href^='/appraisal/export.csv']")
    saved = (await (await saving.value).path()).read_text(encoding="utf-8-sig")
    assert len(saved.splitlines()) == len(numbers) + 2  # names of columns, and the total
    await context.close()


async def test_the_hand_over_sheet_is_printed(browser: Browser, scene: Scene, faults: list[str]) -> None:
    context = await come(browser, scene, "dispatcher", faults)
    tab = await context.new_page()
    await tab.goto("/handover?hours=24")
    await expect(tab.locator("[data-prints]")).to_be_visible()
    await tab.emulate_media(media="print")
    await expect(tab.locator(".bar")).to_be_hidden()
    await expect(tab.locator(".handover-tools")).to_be_hidden()
    await expect(tab.locator(".signatures")).to_be_visible()
    assert (await tab.pdf(format="A4")).startswith(b"%PDF")
    await context.close()


async def test_a_window_is_opened_and_ended_early(browser: Browser, scene: Scene, faults: list[str]) -> None:
    context = await come(browser, scene, "keeper", faults)
    tab = await context.new_page()
    await tab.goto("/windows")
    form = tab.locator("form[action='/windows']").first
    await form.locator("[name=device]").select_option(scene.names["device"])
    await form.locator("[name=reason]").fill("更换电池")
    await form.locator("button").click()
    row = tab.locator("li, tr").filter(has_text=scene.names["device"]).filter(has_text="更换电池")
    await expect(row).to_be_visible()
    await row.locator("button").click()
    await expect(row).to_have_count(0)
    await context.close()


async def test_the_heat_of_the_last_days_is_circles_and_a_table(
    browser: Browser, scene: Scene, faults: list[str]
) -> None:
    context = await come(browser, scene, "dispatcher", faults)
    tab = await context.new_page()
    await tab.goto("/map")
    await settle(tab)
    await expect(tab.locator(".heat-spot")).to_have_count(0)
    await tab.check("#heat input[value='30']")
    rows = tab.locator("#heat .heat-table[data-days='30'] tbody tr")
    await expect(rows.first).to_be_visible()
    shown = await rows.count()
    await expect(tab.locator(".heat-spot")).to_have_count(shown)
    totals = [int(await row.get_attribute("data-number") or "0") for row in await rows.all()]
    assert sum(totals) == len([one for one in scene.room.world.incidents() if one.sort == "incident"])
    assert tab.url.endswith("/map?days=30&category=")
    await expect(tab.locator("#grids")).to_be_hidden()

    await tab.keyboard.press("Tab")
    await rows.first.locator("a").focus()
    await tab.keyboard.press("Enter")
    await expect(tab.locator("#heat-places tbody tr").first).to_be_visible()
    await expect(tab.locator("#heat-places")).to_be_focused()
    await tab.select_option("#heat select", "ext:21-03")
    await expect(rows.first.locator(".is-critical")).to_be_visible()
    await expect(tab.locator(".heat-table td.is-urgent")).to_have_count(0)
    await tab.check("#heat input[value='']")
    await expect(tab.locator(".heat-spot")).to_have_count(0)
    await expect(tab.locator("#grids")).to_be_visible()
    await context.close()


# The wall is the last one: what happens here is seen by no other.


async def test_the_wall_follows_says_when_it_stands_still_and_comes_back(
    browser: Browser, scene: Scene, faults: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = scene.room
    monkeypatch.setattr("gateway.web.stream.ADMITTED_S", 1.0)
    context = await come(browser, scene, "wall", faults)
    tab = await context.new_page()
    await tab.goto("/")
    await tab.wait_for_url("**/wall")
    await settle(tab)
    critical = tab.locator(".wall-levels .is-critical dd")
    before = int(await critical.inner_text())
    await scene.days.call(3, "fire")
    await expect(critical).to_have_text(str(before + 1))
    await expect(tab.locator(".wall-alarms")).to_contain_text("着火、冒烟")
    for width, height in ((1920, 1080), (3840, 2160)):
        await tab.set_viewport_size({"width": width, "height": height})
        assert await tab.evaluate("document.documentElement.scrollHeight") <= height
        least = await tab.evaluate(
            """() => Math.min(...[...document.querySelectorAll('.wall *')]
                .filter(e => e.offsetWidth && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
                .map(e => parseFloat(getComputedStyle(e).fontSize)))"""
        )
        assert least >= height * 0.022, "letters that are read from ten metres"

    stood_at = await tab.locator("#wall-time").inner_text()
    await room.close_web()
    await expect(tab.locator("#wall-stopped")).to_contain_text("数据停在 " + stood_at[:5])
    await expect(tab.locator(".wall")).to_have_class("wall is-stopped")
    await room.open_web()
    await expect(tab.locator("#wall-stopped")).to_be_hidden(timeout=30_000)
    await settle(tab)

    account = room.accounts.find_account("wall")
    assert account is not None
    room.officers.disable(CLI, account.id)
    await expect(tab.locator("#wall-stopped")).to_contain_text("登录已失效", timeout=60_000)
    await context.close()
