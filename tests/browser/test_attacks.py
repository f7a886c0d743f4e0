"""What somebody says shows up in an open board, in an open incident and on the map as text, and runs nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.conftest import Visit
from tests.web.control_room import ControlRoom
from tests.web.test_injection import NASTY, nasty_towns

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def room(tmp_path: Path) -> AsyncIterator[ControlRoom]:
    async with ControlRoom(tmp_path, nasty_towns()) as made:
        made.add("li")
        yield made


async def watch(page: Page) -> list[str]:
    """What ran in it that should not: dialogs, requests to others, errors of images."""
    ran: list[str] = []

    async def dismiss(dialog: object) -> None:
        ran.append(str(dialog))

    page.on("dialog", dismiss)
    page.on("request", lambda asked: ran.append(asked.url) if asked.url.endswith("/x") else None)
    return ran


async def test_what_a_stream_brings_into_an_open_page_is_text(room: ControlRoom, visit: Visit) -> None:
    board, map_page = await visit("li"), await visit("li", "/map")
    ran = [await watch(page) for page in (board, map_page)]
    await expect(board.locator("#link-state")).to_have_class("link-state is-live")

    pressed = await room.press()
    row = board.locator(f"#case-{pressed.id}")
    await expect(row).to_be_visible()
    await expect(row).to_contain_text("<img src=x onerror=alert(1)>")
    await expect(board.locator("#alarms")).to_contain_text("<script>alert(2)</script>")

    incident = await visit("li", f"/incidents/{pressed.id}")
    ran.append(await watch(incident))
    await incident.click("summary:has-text('立案')")
    form = incident.locator("form:has(input[name=verb][value=accept])")
    await form.locator("textarea").fill(NASTY)
    await form.locator("button").click()
    await expect(incident.locator("#incident-told")).to_contain_text("「立案」已办理")
    await expect(incident.locator("body")).to_contain_text("DROP TABLE incident")

    for page in (board, map_page, incident):
        assert await page.locator("img[src=x]").count() == 0
        assert await page.locator("[onerror], [onfocus]").count() == 0
    assert ran == [[], [], []]
