"""What a dispatcher must not miss, whatever else goes on: alarms, rows, what was written, and where the focus is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from gateway.core.model import Device, Role
from tests.browser.conftest import Visit
from tests.browser.test_board import live
from tests.browser.test_pages import find_faults
from tests.core.worlds import DEVICES
from tests.web.control_room import ControlRoom, two_towns
from tests.web.house import PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def room(tmp_path: Path) -> AsyncIterator[ControlRoom]:
    """In place of the small room: eight communities, gas detectors among their devices, and two dispatchers."""
    gas = Device("gas-1", "household-gas", "agent-1", "b1-u1-101")
    async with ControlRoom(tmp_path, two_towns(8, (*DEVICES, gas))) as made:
        made.add("li")
        made.add("wang")
        yield made


async def rings(page: Page) -> bool:
    """Whether the title flashes."""
    titles = set()
    for _ in range(6):
        titles.add((await page.title()).startswith("【特急】"))
        await asyncio.sleep(0.4)
    return True in titles


async def test_the_last_row_that_is_shown_is_not_lost_when_it_changes(
    room: ControlRoom, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.board_page.PAGE", 2)
    cases = []
    for community in ("c001", "c002", "c003"):
        cases.append(await room.press("sos-1", community))
        room.world.clock.advance(1000)
    page = await visit("li")
    await live(page)
    await expect(page.locator(".case")).to_have_count(2)
    again = await room.press("sos-1", "c002")
    assert again.id == cases[1].id
    await expect(page.locator(f"#case-{again.id}")).to_be_visible()
    await page.click("#more a")
    await expect(page.locator(".case")).to_have_count(3)


async def test_what_was_looked_at_rings_when_it_becomes_critical(room: ControlRoom, visit: Visit) -> None:
    for _ in range(5):
        room.world.send({"gas-1:gas": 30.0})
        await room.world.pass_time(5000)
    await room.caught_up()
    [leak] = room.world.incidents()
    page = await visit("li", width=1920)
    await live(page)
    await page.click(f"#case-{leak.id} .case-title")
    await page.wait_for_selector("#pane [data-incident]")
    assert not await rings(page)
    for _ in range(3):
        room.world.send({"gas-1:gas": 70.0})
        await room.world.pass_time(4000)
    await room.caught_up()
    await expect(page.locator("#alarms .alarm")).to_have_count(1)
    assert await rings(page)


async def test_beside_other_pages_it_rings_too_until_it_was_noticed(room: ControlRoom, visit: Visit) -> None:
    own = await room.press("sos-1", "c001")
    for number, path in enumerate((f"/incidents/{own.id}", "/map", "/handover"), start=2):
        page = await visit("li", path)
        await expect(page.locator("#alarms")).not_to_have_attribute("data-ids", "")
        if path.startswith("/incidents"):
            assert not await rings(page), "whoever looks at it has a minute's quiet"
        else:
            for _ in range(number - 1):  # another browser has noticed none of them
                await page.locator("#alarms .alarm:not([hidden]) [data-heard]").first.click()
            assert not await rings(page)
        other = await room.press("sos-1", f"c00{number}")
        await expect(page.locator(f"#alarms [data-id='{other.id}']")).to_be_visible(timeout=12_000)
        assert await rings(page)
        assert await find_faults(page) == []
        await page.click(f"#alarms [data-heard='{other.id}']")
        assert not await rings(page)
        await expect(page.locator("#alarms")).to_be_hidden()


async def test_of_many_alarms_each_can_be_noticed(room: ControlRoom, visit: Visit) -> None:
    page = await visit("li")
    await live(page)
    for number in range(1, 7):
        await room.press("sos-1", f"c00{number}")
    await expect(page.locator("#alarms .alarm")).to_have_count(6)
    assert await rings(page)
    for _ in range(6):
        await page.locator("#alarms .alarm:not([hidden]) [data-heard]").first.click()
    assert not await rings(page)


async def test_what_one_has_noticed_rings_for_the_next_and_a_look_is_a_minutes_quiet(
    room: ControlRoom, visit: Visit
) -> None:
    noticed, seen = await room.press("sos-1", "c001"), await room.press("sos-1", "c002")
    page = await visit("li", width=1920)
    await live(page)
    await page.click(f"[data-heard='{noticed.id}']")
    await page.click(f"#case-{seen.id} .case-title")
    await page.wait_for_selector("#pane [data-incident]")
    assert not await rings(page)
    await page.evaluate("() => { const now = Date.now; Date.now = () => now() + 61000; }")
    await page.evaluate("alarms.check()")
    assert await rings(page)
    await page.click(f"[data-heard='{seen.id}']")
    assert not await rings(page)

    await page.click("details.menu > summary")
    await page.click("text=退出")
    await page.goto("/login")
    await page.fill("input[name=name]", "wang")
    await page.fill("input[name=password]", PASSWORD)
    await page.press("input[name=password]", "Enter")
    await page.wait_for_url("**/board")
    await live(page)
    assert await rings(page)


async def test_the_focus_stays_while_things_change(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press("sos-1", "c001")
    page = await visit("li")
    await live(page)
    await page.locator(f"[data-heard='{pressed.id}']").focus()
    await room.press("sos-1", "c002")
    await expect(page.locator("#alarms .alarm")).to_have_count(2)
    await expect(page.locator(f"[data-heard='{pressed.id}']")).to_be_focused()
    count = page.locator(".count[data-filter='level=critical']")
    await count.focus()
    await room.press("sos-1", "c003")
    await expect(count).to_contain_text("3", timeout=12_000)  # with the next pulse
    await expect(count).to_be_focused()


async def test_a_form_that_somebody_has_begun_is_kept(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press()
    page = await visit("li", f"/incidents/{pressed.id}")
    await live(page)
    await page.click("summary:has-text('派遣')")
    choice = page.locator("form:has(input[name=verb][value=dispatch]) select")
    await choice.select_option("fire-rescue")
    await page.locator("h1").click()  # the focus leaves the form
    await room.press()
    await expect(page.locator("#incident-signals")).to_contain_text("信号 2 次")
    await expect(choice).to_be_visible()
    await expect(choice).to_have_value("fire-rescue")


async def test_what_could_not_be_sent_is_said_and_kept(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press()
    page = await visit("li", f"/incidents/{pressed.id}")
    await live(page)
    await page.fill("form.is-next textarea", "已联系")
    await room.close_web()
    await page.click("form.is-next button")
    await expect(page.locator("#trouble")).to_contain_text("没有发出去")
    await expect(page.locator("form.is-next textarea")).to_have_value("已联系")
    await room.open_web()
    await page.click("form.is-next button")
    await expect(page.locator("#trouble")).to_be_hidden()
    await expect(page.locator("#incident-told")).to_contain_text("「回拨核实」已办理")


async def sign_in_again(page: Page, name: str) -> None:
    await page.wait_for_url(lambda url: "/login" in url)
    await page.fill("input[name=name]", name)
    await page.fill("input[name=password]", PASSWORD)
    await page.press("input[name=password]", "Enter")
    await page.wait_for_url(lambda url: "/login" not in url)


async def test_what_was_written_when_the_session_had_ended_is_there_after_the_sign_in(
    room: ControlRoom, visit: Visit
) -> None:
    pressed = await room.press()
    page = await visit("li", f"/incidents/{pressed.id}")
    await live(page)
    await page.fill("form.is-next textarea", "已联系家属")
    room.world.run_sql("DELETE FROM session")
    await page.click("form.is-next button")
    await sign_in_again(page, "li")
    assert page.url.endswith(f"/incidents/{pressed.id}")
    await expect(page.locator("form.is-next textarea")).to_have_value("已联系家属")
    await live(page)
    await page.click("form.is-next button")
    await expect(page.locator("#incident-told")).to_contain_text("「回拨核实」已办理")


async def test_what_one_has_written_is_not_there_for_another(room: ControlRoom, visit: Visit) -> None:
    room.add("keeper", Role.PROPERTY_MANAGER, grids=(), communities=("c001",))
    page = await visit("keeper", "/devices/new?community=c001")
    await page.fill("#code", "SN-00017")
    await page.select_option("#profile", index=1)
    await page.select_option("#place", index=1)
    room.world.run_sql("DELETE FROM session")
    await page.click(".register-end button")
    await sign_in_again(page, "keeper")
    assert "/devices/new" in page.url
    await expect(page.locator("#code")).to_have_value("SN-00017")

    room.world.run_sql("DELETE FROM session")
    await page.click(".register-end button")
    await sign_in_again(page, "wang")
    await page.goto("/devices/new?community=c001")
    assert await page.evaluate("sessionStorage.getItem('written')") is None


async def test_a_page_whose_session_ended_says_so(
    room: ControlRoom, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.stream.ADMITTED_S", 0.5)
    pressed = await room.press()
    for path in (f"/incidents/{pressed.id}", "/map"):
        page = await visit("li", path)
        await live(page)
        room.world.run_sql(f"UPDATE session SET seen_at = seen_at - {31 * 60_000}")
        await expect(page.locator("#link-state")).to_contain_text("登录已失效", timeout=20_000)
