"""A tester plays a scenario with faults on the test stand to its verdict: gateway, platform, stand and pages as real
processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from msgspec import Struct
from playwright.async_api import Browser, Page, expect

from simulators.demo import START_MS, start_stand
from simulators.district import generate_test_communities
from simulators.player import PlayClock
from simulators.processes import Programs, read_incidents
from simulators.tables import write_tables
from tests.browser.test_pages import find_faults

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPEED = 150.0
STARTING_S = 6.0


class Site(Struct, frozen=True):
    """Where the pages are, the platform behind them, and the accounts (name, password) of a tester and of one who may
    play in the second community alone."""

    url: str
    platform: str
    tester: tuple[str, str]
    other: tuple[str, str]


@asynccontextmanager
async def open_site(folder: Path) -> AsyncIterator[Site]:
    """Two communities of simulated devices, played by a stand, at a test platform."""
    programs = Programs(folder, {"SCG_CLOCK__SPEED": str(SPEED), "SCG_CLOCK__ANCHOR": str(START_MS)})
    try:
        tested = generate_test_communities(7, 2)
        write_tables(tested, folder / "tables")
        still = {"SCG_CLOCK__SPEED": "0.001", "SCG_CLOCK__ANCHOR_REAL": str(time.time_ns() // 1_000_000)}
        _, platform = await asyncio.gather(programs.import_tables(folder / "tables", still), programs.start_platform())
        second = ("--community", tested.communities[1].community.id)
        tester = await programs.add_account("tester", ("--grid", "370215"), still)
        other = await programs.add_account("tester", second, still, "other")
        clock = PlayClock(SPEED, time.time_ns() // 1_000_000 + round(STARTING_S * 1000), START_MS)
        now = {"SCG_CLOCK__ANCHOR_REAL": str(clock.anchor_real)}
        broker = await programs.start_gateway(platform, now)
        stand = await start_stand(programs, tested, broker, clock, 7)
        port = programs.free_port()
        await programs.start_web(port, now | stand)
        yield Site(f"http://127.0.0.1:{port}", platform, tester, other)
    finally:
        await programs.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as made:
        yield made


async def enter(page: Page, account: tuple[str, str]) -> None:
    """Somebody signs in."""
    name, password = account
    await page.goto("/login")
    await page.fill("input[name=name]", name)
    await page.fill("input[name=password]", password)
    await page.press("input[name=password]", "Enter")
    await page.wait_for_url("**/board")


async def choose(page: Page) -> None:
    """A scenario that must open a case, one that must not, and two of each fault."""
    await page.check("input[value=sos-pressed]")
    await page.check("input[value=smoke-puff]")
    for fault in ("duplicate", "late", "garbage"):
        await page.fill(f"input[name={fault}]", "2")


async def play(page: Page) -> None:
    """Until the verdict."""
    await page.click("text=开始播放")
    await page.wait_for_url("**/tester/runs/*")
    await expect(page.locator("#run")).to_have_attribute("data-state", "done", timeout=60_000)


async def test_a_scenario_with_faults_is_played_to_its_verdict(site: Site, browser: Browser) -> None:
    context = await browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(30_000)
    await enter(page, site.tester)

    await page.goto("/tester")
    assert await find_faults(page) == []
    await choose(page)
    await play(page)

    assert await find_faults(page) == []
    table = page.locator("#run table")
    assert await page.inner_text("#state-title") == "✓ 与预期一致", await page.inner_text("#run")
    await expect(table.locator(".verdict-opened")).to_have_count(1)
    await expect(table.locator(".verdict-quiet")).to_have_count(1)
    await expect(page.locator("#run")).to_contain_text("隔离 2")
    signals = page.locator("[aria-labelledby=signals-title] .signal")
    await expect(signals.filter(has_text="按键").first).to_be_visible()
    stranger = await browser.new_context(base_url=site.url)
    theirs = await stranger.new_page()
    await enter(theirs, site.other)
    for path in (page.url, f"{page.url}/part"):
        assert (await stranger.request.get(path)).status == 404, "what is played elsewhere is nobody else's to see"
    await theirs.goto("/tester")
    await expect(theirs.locator(f"a[href$='{page.url.rsplit('/', 1)[1]}']")).to_have_count(0)
    await expect(theirs.locator("main")).not_to_contain_text("试验小区1")
    await stranger.close()
    await page.click(".verdict-opened a[href^='/incidents/']")
    await expect(page.locator("#incident-head .is-simulated")).to_be_visible()

    # A platform that is declared a test has it, marked.
    async with httpx.AsyncClient(base_url=site.platform, trust_env=False) as client:
        stored = await read_incidents(client)
    assert stored is not None
    assert [incident["simulated"] for incident in stored] == [True]
    await context.close()
