"""Chromium on a control room: pages as people use them."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.web.control_room import ControlRoom
from tests.web.house import PASSWORD

CHROMIUM = "chromium (Debian and Ubuntu: apt-get install chromium)"


def find_chromium() -> str:
    """The browser's program. Without one the test is skipped; in CI it fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CHROMIUM} is not installed", pytrace=False)
        pytest.skip(f"{CHROMIUM} is not installed")
    return found


# All tests of this folder run in one event loop, because a browser takes seconds to start and belongs to the loop that
# it was started in.


@pytest_asyncio.fixture(loop_scope="session")
async def room(tmp_path: Path) -> AsyncIterator[ControlRoom]:
    """A gateway with two communities and its web process, and the dispatchers ``li`` and ``wang``."""
    async with ControlRoom(tmp_path) as made:
        made.add("li")
        made.add("wang")
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests; each person has a profile of their own in it."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(
            executable_path=find_chromium(),
            args=["--no-sandbox", "--disable-gpu", "--autoplay-policy=user-gesture-required"],
        )
        yield launched
        await launched.close()


class Visit(Protocol):
    """What the fixture `visit` is."""

    async def __call__(
        self, name: str, path: str = "/board", *, width: int = 1280, height: int = 800, **more: Any
    ) -> Page: ...


@pytest_asyncio.fixture(loop_scope="session")
async def visit(room: ControlRoom, browser: Browser) -> AsyncIterator[Visit]:
    """Opens a page for somebody who signs in first. What its scripts trip over, and what its policy forbids, fails the
    test."""
    faults: list[str] = []
    contexts: list[BrowserContext] = []

    async def open_page(name: str, path: str = "/board", *, width: int = 1280, height: int = 800, **more: Any) -> Page:
        context = await browser.new_context(viewport={"width": width, "height": height}, base_url=room.url, **more)
        contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: faults.append(f"{page.url}: {error}"))
        page.on(
            "console",
            lambda message: faults.append(message.text) if "Content Security Policy" in message.text else None,
        )
        await page.goto("/login")
        await page.fill("input[name=name]", name)
        await page.fill("input[name=password]", PASSWORD)
        await page.press("input[name=password]", "Enter")
        await page.wait_for_url(lambda url: "/login" not in url)
        if path != "/board":
            await page.goto(path)
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert faults == []
