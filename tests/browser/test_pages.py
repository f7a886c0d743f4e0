"""Every page for everybody: small and large screens, both languages, day and night, and without a mouse or eyes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visit
from tests.web.control_room import ControlRoom

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


async def find_faults(page: Page) -> list[dict[str, Any]]:
    """What axe-core finds that is serious or worse."""
    if not AXE.exists():
        pytest.skip("axe-core is not there (npm is missing, or its registry: make setup-dev says which)")
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}}).then(r => r.violations)", RULES
    )
    return [
        {"id": fault["id"], "help": fault["help"], "nodes": [node["html"][:200] for node in fault["nodes"][:4]]}
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


async def check_width(page: Page, width: int, where: object = "") -> None:
    """Nothing is wider than the screen; a chart may take some frames to its new size."""
    wide = 0
    for _ in range(50):
        wide = await page.evaluate("document.documentElement.scrollWidth")
        if wide <= width:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{where} is {wide} pixels wide on a screen of {width}")


async def paths_of(room: ControlRoom) -> list[str]:
    pressed = await room.press()
    return ["/board", f"/incidents/{pressed.id}", "/map"]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_nothing_serious_keeps_anybody_out(room: ControlRoom, visit: Visit, theme: str) -> None:
    paths = await paths_of(room)
    page = await visit("li", color_scheme=theme)
    for path in paths:
        await page.goto(path)
        await expect(page.locator("#link-state")).to_have_class("link-state is-live")
        assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]", path
    await page.set_viewport_size({"width": 1920, "height": 1080})
    await page.goto("/board")
    await page.click(".case-title >> nth=0")
    await expect(page.locator("#pane [data-incident]")).to_be_visible()
    assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]"


async def test_a_finger_can_do_it_all_at_360_pixels(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press()
    page = await visit("li", width=360, height=740, has_touch=True)
    await page.tap(f"#case-{pressed.id} .case-title")
    await page.wait_for_url(f"**/incidents/{pressed.id}")
    await page.fill("form.is-next textarea", "已联系")
    await page.tap("form.is-next button")
    await expect(page.locator("#incident-told")).to_contain_text("「回拨核实」已办理")

    # The page follows what comes after, and what was done stays said.
    again = await room.press()
    assert again.id == pressed.id
    await expect(page.locator("#incident")).to_have_attribute("data-revision", str(again.revision))
    await expect(page.locator("#incident-told")).to_contain_text("「回拨核实」已办理")
    await expect(page.locator("#incident-told .notice")).to_be_focused()


async def test_both_languages_by_a_switch(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press()
    page = await visit("li")
    await expect(page.locator("h1")).to_have_text("治理事件")
    await page.click("details.menu > summary")
    await page.click("button[lang=en]")
    await expect(page.locator("h1")).to_have_text("Incidents")
    await expect(page.locator("html")).to_have_attribute("lang", "en")
    await expect(page.locator(f"#case-{pressed.id}")).to_contain_text("help button pressed")
    for path in ("/board", f"/incidents/{pressed.id}", "/map"):
        await page.goto(path)
        left = await page.evaluate(
            """() => [...document.querySelectorAll('h1, h2, h3, button, label, summary, th, legend, .quiet, a')]
                .filter(e => !e.closest('[lang]:not(html)'))
                .map(e => [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join(''))
                .filter(t => /[\\u4e00-\\u9fff]/.test(t))"""
        )
        # Names of places and people are no words of ours.
        named = ("示例", "号楼", "街道", "即墨区", "模拟", "大门", "单元", "室")
        assert [text for text in left if not any(name in text for name in named)] == [], path


async def test_the_night_shift_has_it_dark_and_dense_and_keeps_it(room: ControlRoom, visit: Visit) -> None:
    page = await visit("li")
    await page.click("details.menu > summary")
    await page.click("[data-theme-choice=dark]")
    await page.click("[data-density-choice=dense]")
    night = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await expect(page.locator("html")).to_have_attribute("data-density", "dense")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == night == "rgb(13, 18, 23)"


async def test_the_map_walks_down_and_shows_what_opens(room: ControlRoom, visit: Visit) -> None:
    page = await visit("li", "/map")
    await expect(page.locator("#link-state")).to_have_class("link-state is-live")
    await expect(page.locator(".spot, .cluster.is-spots").first).to_be_visible()
    pressed = await room.press()
    await expect(page.locator(".pin.is-critical")).to_have_count(1)
    await page.click(".pin.is-critical")
    await expect(page.locator(f".leaflet-popup a[href='/incidents/{pressed.id}']")).to_be_visible()
    await page.click(".depth-1 .grid-name >> nth=0")
    await expect(page.locator(".grid-node.is-current")).to_have_count(1)
    await expect(page.locator(".depth-3:visible")).to_have_count(1)


async def test_it_all_works_without_scripts(room: ControlRoom, visit: Visit) -> None:
    pressed = await room.press()
    page = await visit("li", java_script_enabled=False)
    await page.goto("/board?level=critical")
    await page.click(f"#case-{pressed.id} .case-title")
    await page.fill("form.is-next textarea", "已联系")
    await page.click("form.is-next button")
    await expect(page.locator(".timeline")).to_contain_text("已联系")
