"""Pictures of the console's pages for the docs: ``python -m tests.screenshots [FOLDER]``.

An hour of the demo's district is played, then the console opens on what it left, by real processes and Chromium. The
seed is fixed and all names are generated; only times of the day differ a little from run to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from msgspec import Struct
from playwright.async_api import Browser, Page, async_playwright
from rich.console import Console

from gateway.assembly import issue_help_pages, open_migrated_ledger, open_sign_in
from gateway.core.model import Incident, Level, Press, Role
from gateway.runtime.door import DoorClient
from gateway.runtime.help_pages import PageKeys
from gateway.runtime.officers import Hand, Officers
from gateway.runtime.signing import Origin
from gateway.settings import Settings, read_settings
from simulators.demo import MINUTES, START_MS, _set_up
from simulators.district import District, generate
from simulators.processes import running
from tests.servers import ROOT, Process, free_port

SEED: Final = 1
COMMUNITIES: Final = 48
SPEED: Final = 60.0
PASSWORD: Final = "Lanting-7-Willows"
DISTRICT: Final = "370215"

Prepare = Callable[[Page], Awaitable[object]]


class Shot(Struct, frozen=True):
    """One picture: of a page, in a size, a language and a light."""

    name: str
    path: str
    width: int = 1360
    height: int = 800
    language: str = "zh"
    theme: str = "light"
    density: str = "cosy"
    prepare: Prepare | None = None


async def open_first(page: Page) -> None:
    await page.click(".case-title >> nth=0")
    await page.wait_for_selector("#pane [data-incident]")


async def open_why(page: Page) -> None:
    await page.click("#incident-why > summary")
    await page.wait_for_selector(".leaf")


async def open_town(page: Page) -> None:
    await page.wait_for_selector(".cluster, .pin")
    await page.click(".depth-1 .grid-name >> nth=3")


async def call(page: Page) -> None:
    """A resident holds the button."""
    await page.locator("label").first.click()
    await page.locator("#send[type=button]").hover()
    await page.mouse.down()
    await page.wait_for_selector("#done:not([hidden])")
    await page.mouse.up()


async def hold(page: Page) -> None:
    await page.locator("#send[type=button]").hover()
    await page.mouse.down()
    await page.wait_for_timeout(600)


def list_shots(incident: Incident, help_page: str) -> list[Shot]:
    """Every page, and the board in its lights and sizes; the residents' page comes last, for it opens a case."""
    one = f"/incidents/{incident.id}"
    return [
        Shot("board", "/board", 1680, 945, prepare=open_first),
        Shot("board-night", "/board", theme="dark", density="dense"),
        Shot("board-english", "/board", language="en"),
        Shot("board-phone", "/board", 360, 740),
        Shot("incident", one, 1280, 1240, prepare=open_why),
        Shot("incident-phone", one, 360, 900, theme="dark"),
        Shot("map", "/map", prepare=open_town),
        Shot("map-night", "/map", theme="dark"),
        Shot("rules", "/rules", 1280, 1100),
        Shot("rule", "/rules/fire.smoke-persists", 1280, 1100),
        Shot("appraisal", "/appraisal", 1280, 1000),
        Shot("handover", "/handover?hours=8", 1280, 1100),
        Shot("sign-in", "/login", 1280, 640),
        Shot("account", "/account", 1280, 900),
        Shot("resident", help_page, 360, 740),
        Shot("resident-holding", f"{help_page}?lang=en", 360, 740, theme="dark", prepare=hold),
        Shot("resident-recorded", help_page, 360, 740, prepare=call),
    ]


def main(folder: Path) -> None:
    """Plays, opens and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="scg-pictures-") as scratch:
        data = Path(scratch)
        (data / "data").mkdir()
        (data / "play").mkdir()
        asyncio.run(_play(data))
        asyncio.run(_picture(data, generate(SEED, COMMUNITIES), folder))


async def _play(folder: Path) -> None:
    """An hour of the district, and its ledger as it stood at the end. What comes after is cut off: at this speed the
    seconds in which all stops are half an hour in which every device is silent."""
    settings = {"SCG_CLOCK__SPEED": str(SPEED), "SCG_CLOCK__ANCHOR": str(START_MS)}
    async with running(folder / "play", settings) as programs:
        demo = await _set_up(Console(stderr=True), programs, SPEED, SEED, COMMUNITIES, 0)
        playing = asyncio.create_task(demo.play_hour(is_last=False))
        while demo._clock.now() < START_MS + MINUTES * 60_000:  # noqa: ASYNC110 - time is what it waits for
            await asyncio.sleep(0.1)
        await asyncio.to_thread(_copy, folder / "play" / "data" / "ledger.db", folder / "data" / "ledger.db")
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await demo.leave()


def _copy(ledger: Path, to: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as live, contextlib.closing(sqlite3.connect(to)) as copy:
        live.backup(copy)


async def _picture(folder: Path, district: District, target: Path) -> None:
    port = free_port()
    with contextlib.closing(sqlite3.connect(folder / "data" / "ledger.db")) as ledger:
        [(now,)] = ledger.execute("SELECT max(at) FROM journal")
    environ = {
        "SCG_DATA": str(folder / "data"),
        "SCG_PROFILES": str(ROOT / "device_profiles"),
        "SCG_RULES": str(ROOT / "rules"),
        "SCG_WEB__PORT": str(port),
        "SCG_WEB__SECOND_FACTOR": "auditor",
        "SCG_CLOCK__ANCHOR": str(now),
        "SCG_CLOCK__ANCHOR_REAL": str(time.time_ns() // 1_000_000),
    }
    settings = read_settings(None, environ)
    cookie = _sign_in(settings)
    with (
        Process.module("gateway", "serve", "--log-level", "error", log=folder / "serve.log", env=environ) as gateway,
        Process.module("gateway", "web", log=folder / "page.log", env=environ) as web,
    ):
        gateway.wait_for_line('"event": "ready"', 120)
        web.wait_for_line('"event": "ready"', 60)
        incident = await _press_and_choose(settings, district)
        first = district.communities[0].community.id
        [page] = await issue_help_pages(settings, first, (first,), "000-0000-0000", "screenshots", renew=False)
        help_page = f"/r/{PageKeys(settings.data).sign(page.code)}"
        async with async_playwright() as playwright:
            program = shutil.which("chromium") or shutil.which("google-chrome")
            browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            for shot in list_shots(incident, help_page):
                await _take(browser, f"http://127.0.0.1:{port}", cookie, shot, target)
            await browser.close()


def _sign_in(settings: Settings) -> str:
    """A dispatcher of the whole district; the secret of a session."""
    ledger = open_migrated_ledger(settings)
    sign_in = open_sign_in(settings, ledger)
    officers, hand = Officers(sign_in, ledger), Hand("cli:screenshots")
    account, _ = officers.add(hand, "dispatcher", "调度一席", password=PASSWORD, must_change=False, has_password=True)
    officers.grant(hand, account.id, Role.DISPATCHER, (DISTRICT,), ())
    secret = sign_in.sign_in("dispatcher", PASSWORD, Origin("127.0.0.1", "Chromium")).secret
    ledger.close()
    return secret


async def _press_and_choose(settings: Settings, district: District) -> Incident:
    """Two buttons are pressed now, so that something rings; the incident to show is one that is being handled."""
    door = DoorClient(settings.door_path)
    for settlement in district.communities[-2:]:
        button = next(device for device in settlement.devices if device.profile == "fixed-sos")
        await door.submit(settlement.community.id, Press(f"pressed-{button.id}", button.id), f"pressed-{button.id}")
    await door.close()
    ledger = open_migrated_ledger(settings)
    found = ledger.incidents(open_only=True)
    ledger.close()
    shown = [i for i in found if i.level is Level.CRITICAL and i.state == "handling" and i.cause in ("fire", "gas")]
    return (shown or found)[0]


async def _take(browser: Browser, url: str, secret: str, shot: Shot, target: Path) -> None:
    context = await browser.new_context(
        viewport={"width": shot.width, "height": shot.height}, color_scheme="dark" if shot.theme == "dark" else "light"
    )
    cookies = {"language": shot.language, "theme": shot.theme, "density": shot.density}
    if shot.path != "/login":
        cookies["scg"] = secret
    await context.add_cookies([{"name": name, "value": value, "url": url} for name, value in cookies.items()])
    page = await context.new_page()
    await page.goto(url + shot.path)
    if await page.query_selector("#link-state") is not None:
        await page.wait_for_selector("#link-state.is-live")
    if shot.prepare is not None:
        await shot.prepare(page)
    await page.wait_for_timeout(600)
    path = target / f"{shot.name}.png"
    await page.screenshot(path=path)
    await context.close()
    await asyncio.to_thread(_shrink, path)
    print(path)


def _shrink(path: Path) -> None:
    """To a third, where pngquant is installed: 256 colours are enough for a page."""
    program = shutil.which("pngquant")
    if program is not None:
        subprocess.run([program, "--force", "--skip-if-larger", "--strip", "--ext", ".png", "--", path], check=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "console")
