"""The dispatcher's day in a browser: what is new comes by itself, is heard, is never missed, and is dealt with once."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visit
from tests.web.control_room import ControlRoom

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def live(page: Page) -> None:
    """Until the page says that it is."""
    await expect(page.locator("#link-state")).to_have_class("link-state is-live")


async def test_a_new_incident_appears_by_itself_is_heard_and_counts_down(room: ControlRoom, visit: Visit) -> None:
    page = await visit("li")
    await live(page)
    await page.click("#sound")
    await expect(page.locator("#sound")).to_have_attribute("aria-pressed", "true")

    pressed = await room.press()

    row = page.locator(f"#case-{pressed.id}")
    await expect(row).to_be_visible()
    await expect(row).to_contain_text("一键求助")
    await expect(page.locator("#alarms")).to_be_visible()
    await expect(page).to_have_title("【特急】事件看板 · 智慧社区网关")
    await expect(page.locator("body")).to_have_attribute("data-rung", "1")
    await expect(row.locator(".clock")).to_have_text(re.compile("01:00|00:5."))

    room.world.clock.advance(50_000)
    await room.world.settle()
    await expect(row.locator(".clock")).to_have_class("clock is-warned")
    room.world.clock.advance(20_000)
    await room.world.settle()
    # Nobody has called back: the gateway has dispatched it by itself, and it waits for whoever goes there.
    await expect(row).to_contain_text("到场")


async def test_noticing_it_ends_the_noise_here_and_accepting_it_everywhere(room: ControlRoom, visit: Visit) -> None:
    li, wang = await visit("li"), await visit("wang")
    await live(li)
    await live(wang)
    pressed = await room.press()
    await expect(li).to_have_title("【特急】事件看板 · 智慧社区网关")
    await expect(wang).to_have_title("【特急】事件看板 · 智慧社区网关")

    await li.click(f"[data-heard='{pressed.id}']")
    await expect(li).to_have_title("事件看板 · 智慧社区网关")
    await expect(li.locator("#alarms")).to_be_visible()  # it still waits for somebody

    await wang.click(f"#case-{pressed.id} .case-title")
    await wang.wait_for_url(f"**/incidents/{pressed.id}")
    await wang.click("summary:has-text('立案')")
    await wang.click("form:has(input[name=verb][value=accept]) button")
    await expect(wang.locator("#incident-told")).to_contain_text("「立案」已办理")
    await expect(li.locator("#alarms")).to_be_hidden()
    await expect(li.locator(f"#case-{pressed.id}")).to_contain_text("立案")


async def test_a_connection_that_was_cut_catches_up_and_rings_for_what_it_missed(
    room: ControlRoom, visit: Visit
) -> None:
    page = await visit("li")
    await live(page)
    first = await room.press("sos-1")
    await expect(page.locator(f"#case-{first.id}")).to_be_visible()
    await page.click(f"[data-heard='{first.id}']")

    await room.close_web()
    await expect(page.locator("#link-state")).to_have_text("连接中断，正在重连")
    event = room.world.press("sos-2", "c002")
    await room.world.receipted("c002")
    await room.open_web()
    missed = await room.wait_for_incident(event)

    await expect(page.locator(f"#case-{missed.id}")).to_be_visible(timeout=20_000)
    await live(page)
    await expect(page).to_have_title("【特急】事件看板 · 智慧社区网关")
    assert await page.locator(".case").count() == 2


async def test_of_two_dispatchers_who_act_at_once_one_is_told_who_was_faster(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press()
    path = f"/incidents/{pressed.id}"
    li, wang = await visit("li", path), await visit("wang", path)
    await live(wang)
    await wang.click("summary:has-text('误报')")
    reason = wang.locator("form:has(input[name=verb][value=false_alarm]) textarea")
    await reason.fill("误碰按钮")
    await li.click("summary:has-text('立案')")
    await li.click("form:has(input[name=verb][value=accept]) button")
    await expect(li.locator("#incident-told")).to_contain_text("「立案」已办理")

    # What wang writes stays; the page says that the case has moved.
    await expect(wang.locator("#incident-moved")).to_be_visible()
    assert await reason.input_value() == "误碰按钮"
    await wang.click("form:has(input[name=verb][value=false_alarm]) button")

    await expect(wang.locator("#incident-told")).to_contain_text("li 先一步：立案")
    await expect(wang.locator("#incident-told")).to_contain_text("没有办理")
    incident = room.ledger.incident(pressed.id)
    assert incident is not None
    assert incident.state == "filed"


async def test_whoever_only_watches_is_warned_stays_by_one_key_and_otherwise_it_says_that_it_is_not_live(
    room: ControlRoom, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.stream.ADMITTED_S", 0.5)
    monkeypatch.setattr("gateway.web.stream.PULSE_S", 0.5)
    page = await visit("li")
    await live(page)
    await expect(page.locator("#staying")).to_be_hidden()

    room.world.run_sql(f"UPDATE session SET seen_at = seen_at - {28 * 60_000}")
    await expect(page.locator("#staying")).to_contain_text("后自动退出登录")
    await page.keyboard.press("s")
    await expect(page.locator("#staying")).to_be_hidden()
    await expect(page.locator("#not-live")).to_be_hidden()

    room.world.run_sql(f"UPDATE session SET seen_at = seen_at - {31 * 60_000}")
    await expect(page.locator("#not-live")).to_contain_text(re.compile(r"登录已失效.*数据停在 20:00:0\d"))
    await expect(page.locator("#not-live a")).to_be_visible()
    await expect(page).to_have_title("【非实时】事件看板 · 智慧社区网关")


async def test_it_is_worked_by_keys_alone(room: ControlRoom, visit: Visit) -> None:
    first, second = await room.press("sos-1"), await room.press("sos-2", "c002")
    page = await visit("li", width=1600)
    await live(page)
    rows = [first.id, second.id]

    await page.keyboard.press("j")
    await page.keyboard.press("j")
    focused = await page.evaluate("document.activeElement.closest('.case').dataset.id")
    assert focused == rows[1]
    await page.keyboard.press("k")
    await page.keyboard.press("Enter")
    await expect(page.locator("#pane [data-incident]")).to_have_attribute("data-incident", rows[0])
    await page.keyboard.press("Escape")
    assert await page.evaluate("document.activeElement.closest('.case').dataset.id") == rows[0]
    await page.keyboard.press("/")
    await page.keyboard.type(second.number[-7:])
    await expect(page.locator(".case")).to_have_count(1)
    await expect(page.locator(f"#case-{second.id}")).to_be_visible()


async def test_a_filter_holds_for_the_list_and_not_for_alarms(room: ControlRoom, visit: Visit) -> None:
    page = await visit("li")
    await live(page)
    await page.select_option("select[name=grid]", "370215001")
    await page.wait_for_url("**/board?grid=370215001")
    await live(page)
    hidden = await room.press("sos-1", "c001")
    shown = await room.press("sos-1", "c002")

    inside = shown if "370215001" in shown.chain else hidden
    outside = hidden if inside is shown else shown
    await expect(page.locator(f"#case-{inside.id}")).to_be_visible()
    await expect(page.locator(f"#case-{outside.id}")).to_have_count(0)
    await expect(page.locator("#alarms .alarm")).to_have_count(2)


async def test_the_pane_acts_beside_the_list(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press()
    page = await visit("li", width=1920, height=1080)
    await live(page)
    await page.click(f"#case-{pressed.id} .case-title")
    await expect(page.locator("#pane [data-incident]")).to_be_visible()
    await page.fill("#pane form.is-next textarea", "家属已接听，需要上门")
    await page.click("#pane form.is-next button")

    await expect(page.locator("#pane #incident-told")).to_contain_text("「回拨核实」已办理")
    await expect(page.locator(f"#case-{pressed.id}")).to_contain_text("立案")
    await expect(page.locator("#pane .timeline")).to_contain_text("家属已接听，需要上门")
