"""A tester plays a scenario with faults on the test stand to its verdict: gateway, platform, stand and pages as real
processes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from msgspec import Struct
from playwright.async_api import APIResponse, Browser, BrowserContext, Page, expect

from simulators.demo import START_MS, start_stand
from simulators.district import generate_test_communities
from simulators.player import PlayClock
from simulators.processes import Programs, read_incidents
from simulators.tables import write_tables
from tests.browser.foreign import find_foreign
from tests.browser.test_pages import find_faults
from tests.web.fuzz import run_schemathesis

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


async def test_a_program_plays_a_scenario_to_its_verdict_and_another_tester_sees_none_of_it(
    site: Site, browser: Browser
) -> None:
    tester, other = await browser.new_context(base_url=site.url), await browser.new_context(base_url=site.url)
    asked = {}
    for context, account in ((tester, site.tester), (other, site.other)):
        page = await context.new_page()
        await enter(page, account)
        asked[context] = await page.locator("meta[name=csrf]").get_attribute("content")

    async def send(context: BrowserContext, path: str, key: str, body: Any = None) -> APIResponse:
        headers = {"X-CSRF-Token": asked[context] or "", "Idempotency-Key": key}
        return await context.request.post(f"/api/v1/stand{path}", headers=headers, data=body)

    view = await (await tester.request.get("/api/v1/stand")).json()
    community = view["communities"][0]
    assert len(view["communities"]) == 2
    wish = {"scenarios": ["sos-pressed"], "communities": [community], "faults": {"duplicate": 1}}
    begun = await send(tester, "/runs", "a" * 32, wish)
    again = await send(tester, "/runs", "a" * 32, wish)
    assert (begun.status, again.status) == (201, 201)
    run = await begun.json()
    assert (await again.json())["run"]["id"] == run["run"]["id"]
    path = f"/runs/{run['run']['id']}"
    assert begun.headers["location"] == f"/api/v1/stand{path}"

    async with asyncio.timeout(90):
        while run["run"]["state"] not in ("done", "stopped"):
            await asyncio.sleep(1)
            run = await (await tester.request.get(f"/api/v1/stand{path}")).json()
    signals = (await (await tester.request.get(f"/api/v1/stand{path}/signals")).json())["items"]

    assert run["is_good"] is True, run
    assert [one["verdict"] for one in run["judged"]] == ["opened"]
    assert [one["signal"]["name"] for one in signals] == ["pressed"]
    assert (await send(tester, f"{path}/stop", "b" * 32)).status == 200
    assert (await send(tester, "/runs", "c" * 32, {**wish, "scenarios": ["none"]})).status == 409
    for answer in (
        await other.request.get(f"/api/v1/stand{path}"),
        await other.request.get(f"/api/v1/stand{path}/signals"),
        await send(other, f"{path}/stop", "d" * 32),
        await send(other, "/runs", "e" * 32, wish),
    ):
        assert answer.status == 404
    theirs = await (await other.request.get("/api/v1/stand")).json()
    assert community not in theirs["communities"]
    for context in (tester, other):
        await context.close()


async def test_whatever_a_program_asks_the_stand_is_answered_as_the_document_says(
    site: Site, browser: Browser, tmp_path: Path
) -> None:
    context = await browser.new_context(base_url=site.url)
    page = await context.new_page()
    await enter(page, site.tester)
    csrf = await page.locator("meta[name=csrf]").get_attribute("content")
    wanted: dict[str, str | float | bool] = {
        "csrf": csrf or "",
        "title": "fuzz",
        "days": "1",
        "may.scenarios.play": "on",
    }
    made = await context.request.post("/account/tokens", form=wanted)
    found = re.search(r"scg_[\w-]+", await made.text())
    assert found is not None
    settings = f"""
continue-on-failure = true
warnings = false
headers = {{ Authorization = "Bearer {found[0]}" }}
[generation]
with-security-parameters = false
[phases.coverage]
unexpected-methods = ["DELETE"]
[dictionaries.community]
values = ["c998", "c999"]
[dictionaries.scenario]
values = ["sos-pressed", "smoke-puff"]
[[operations]]
include-name = "POST /api/v1/stand/runs"
[operations.parameters]
"body.communities[*]" = {{ dictionary = "community", probability = 0.7 }}
"body.scenarios[*]" = {{ dictionary = "scenario", probability = 0.7 }}
"""
    status, said = await run_schemathesis(
        site.url, settings, tmp_path, "--include-tag=stand", "--seed=7", "--max-examples=3"
    )
    assert status == 0, said
    await context.close()


async def test_a_scenario_with_faults_is_played_to_its_verdict(site: Site, browser: Browser) -> None:
    context = await browser.new_context(base_url=site.url, viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(30_000)
    await enter(page, site.tester)

    await page.goto("/tester")
    assert await find_faults(page) == []
    assert await find_foreign(page, "zh", ()) == []
    await choose(page)
    await play(page)

    assert await find_faults(page) == []
    assert await find_foreign(page, "zh", ()) == []
    table = page.locator("#run table")
    run = page.url
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

    names = {place.name for made in generate_test_communities(7, 2).communities for place in made.places}
    await context.add_cookies([{"name": "language", "value": "en", "url": site.url}])
    for path in (run, "/tester"):
        await page.goto(path)
        assert await find_foreign(page, "en", names) == [], path
    await context.close()
