"""The one map: from the district down to one device, and what changes while somebody looks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.test_board import live
from tests.browser.test_pages import check_width, find_faults
from tests.runtime.world import until
from tests.web.control_room import ControlRoom, all_levels

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def room(tmp_path: Path) -> AsyncIterator[ControlRoom]:
    """In place of the small room: one with grids of all levels."""
    async with ControlRoom(tmp_path, all_levels()) as made:
        await until(lambda: made.app.state.console.atlas.spots)
        made.add("li")
        yield made


async def test_from_the_district_down_to_one_device(room: ControlRoom, visit: Visit) -> None:
    page = await visit("li", "/map")
    await live(page)
    for code in ("370215001", "370215001001", "37021500100101"):
        row = page.locator(f"[data-grid='{code}'] .grid-name")
        await row.click()
        await expect(row).to_have_attribute("aria-expanded", "true")
    base = page.locator("[data-grid='370215001001002']")
    await expect(base).to_contain_text("环秀二网格")
    await base.locator(".grid-name").click()
    await expect(base).to_have_class("grid-node depth-4 is-current")
    await expect(page.locator("path.grid-area")).to_have_count(1)
    assert await find_faults(page) == []

    await page.locator("[data-community=c001] .grid-name").click()
    marks = page.locator(".leaflet-units-pane .unit")
    await expect(marks.first).to_be_visible()
    devices = {device.id for device in room.ledger.devices("c001")}
    await marks.first.click()
    links = page.locator(".leaflet-popup .unit-row a")
    await expect(links.first).to_be_visible()
    href = await links.first.get_attribute("href")
    assert href is not None
    assert href.rsplit("/", 1)[1] in devices
    await links.first.click()
    await page.wait_for_url(f"**{href}")

    await page.goto("/map")
    await page.click("#departments .grid-name")
    await page.click("[data-grid='370215901'] .grid-name")
    await expect(page.locator("[data-grid='370215901001']")).to_be_visible()


async def test_what_one_reads_on_the_map_stays_open_while_it_is_read_again(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press("sos-1", "c001")
    page = await visit("li", "/map")
    await live(page)
    await page.click(".pin.is-critical")
    popup = page.locator(f".leaflet-popup a[href='/incidents/{pressed.id}']")
    await expect(popup).to_be_visible()
    async with page.expect_response(lambda answer: "/map/data" in answer.url, timeout=20_000):
        await room.press("sos-1", "c002")
    await expect(page.locator(".pin.is-critical, .cluster.is-critical")).not_to_have_count(1)
    await expect(popup).to_be_visible()

    await page.locator("[data-grid='370215001'] .grid-name").click()
    await page.locator("[data-grid='370215001001'] .grid-name").click()
    await page.locator("[data-community=c001] .grid-name").click()
    await page.locator(".leaflet-units-pane .unit").last.click()
    row = page.locator(".leaflet-popup .unit-row").first
    await expect(row).to_be_visible()
    async with page.expect_response(lambda answer: "/map/data" in answer.url, timeout=20_000):
        await room.press("sos-2", "c002")
    await expect(row).to_be_visible()


async def test_numbers_and_health_follow_while_somebody_looks(room: ControlRoom, visit: Visit) -> None:
    page = await visit("li", "/map")
    await live(page)
    await page.click("[data-grid='370215001'] .grid-name")
    await page.click("[data-grid='370215001001'] .grid-name")
    await page.click("[data-grid='37021500100101'] .grid-name")
    rows = [page.locator(f"[data-grid='{code}'] [data-n=critical]") for code in ("370215001", "370215001001001")]
    for row in rows:
        await expect(row).to_be_hidden()
    await room.press("sos-1", "c001")
    for row in rows:
        await expect(row).to_contain_text("1", timeout=15_000)
    await expect(page.locator("[data-grid='37021500100101']")).to_be_visible()

    room.world.send({"smoke-1:fault": True}, community="c001")
    await room.world.receipted("c001")
    await room.world.pass_time(65_000, 5_000)
    await until(lambda: any(i.sort == "notice" for i in room.world.incidents("c001")))
    await room.press("sos-1", "c002")
    await expect(page.locator("[data-community=c001] .health")).to_have_class("health is-bad", timeout=15_000)
    await expect(page.locator("[data-community=c001] [data-n=sick]")).to_contain_text("1")


@pytest.mark.parametrize("width", [360, 1366])
async def test_the_map_fits_its_screen(room: ControlRoom, visit: Visit, width: int) -> None:
    await room.press("sos-1", "c001")
    page = await visit("li", "/map", width=width, height=800)
    await live(page)
    await page.click("[data-grid='370215001'] .grid-name")
    await check_width(page, width)
    assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]"
