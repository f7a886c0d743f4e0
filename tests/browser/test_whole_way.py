"""The whole way with all processes: a button from its box, its press and a neighbour's, board, dispatch, visit, close,
receipts; each person at a screen of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from gateway.core.model import Sort
from gateway.wire import Lane, Message, Receipt, Signal, decode_receipt, encode_message, topic_of
from tests.acceptance.stage import Stage, wait_for
from tests.browser.test_board import live
from tests.browser.test_devices import fill
from tests.browser.test_resident import hold
from tests.conftest import need_mosquitto
from tests.servers import Mosquitto, Process, free_port
from tests.simulators.platform_process import PlatformProcess, running_platform

pytestmark = pytest.mark.asyncio(loop_scope="session")

Enter = Callable[..., Awaitable[Page]]


class Town:
    """A community with the gateway, its web process and the central platform, and an account of each role."""

    def __init__(self, stage: Stage, platform: PlatformProcess) -> None:
        self.stage = stage
        self.platform = platform
        self.passwords: dict[str, str] = {}
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        del stage.settings["SCG_BROKER__URL"]  # the gateway's own broker, which knows each source by its password
        stage.settings |= {"SCG_WEB__PORT": str(port), "SCG_WEB__SECOND_FACTOR": ""}
        stage.use_platform(platform)
        self.hire("keeper", "property_manager", "--community", "c001")
        self.hire("li", "dispatcher", "--grid", "370215")
        self.hire("zhao", "grid_worker", "--community", "c001")
        self.broker = urlsplit(stage.start().wait_for_line(r'"broker": "([^"]+)"')[1])
        self.web = Process.module("gateway", "web", log=stage.folder / "web.log", env=stage.settings)
        self.web.wait_for_line(r'"event": "ready"')

    def hire(self, name: str, role: str, *scope: str) -> None:
        done = self.stage.run("account", "add", name, "--role", role, "--permanent", *scope)
        assert done.returncode == 0, done.stderr
        self.passwords[name] = json.loads(done.stdout)["password"]

    def print_sheet(self, place: str) -> str:
        """The address in a place's QR code."""
        folder = str(self.stage.folder / "sheets")
        done = self.stage.run("qr", "--place", place, "--url", self.url, "--out", folder)
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["url"])

    def close(self) -> None:
        self.web.close()
        self.stage.close()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    need_mosquitto()
    (tmp_path / "platform").mkdir()
    with Mosquitto() as broker, running_platform(tmp_path / "platform") as platform:
        stage = Stage(tmp_path, broker)
        stage.register()
        with closing(Town(stage, platform)) as made:
            yield made


@pytest_asyncio.fixture(loop_scope="session")
async def enter(town: Town, browser: Browser) -> AsyncIterator[Enter]:
    """Opens a browser of somebody's own, who signs in."""
    contexts: list[BrowserContext] = []

    async def sign_in(name: str, path: str, width: int, height: int) -> Page:
        context = await browser.new_context(viewport={"width": width, "height": height}, base_url=town.url)
        contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(15_000)
        await page.goto("/login")
        await page.fill("input[name=name]", name)
        await page.fill("input[name=password]", town.passwords[name])
        await page.press("input[name=password]", "Enter")
        await page.wait_for_url("**/board")
        await page.goto(path)
        return page

    yield sign_in
    for context in contexts:
        await context.close()


async def act(page: Page, verb: str, title: str, reason: str = "") -> None:
    """Somebody chooses a move on an incident's page, and is told that it is done."""
    form = page.locator(f"form:has(input[name=verb][value={verb}])")
    await expect(form).to_have_count(1)  # as soon as the page knows what others have done
    if not await form.locator("button").is_visible():
        await page.click(f"summary:has-text('{title}')")
    if reason:
        await form.locator("textarea").fill(reason)
    await form.locator("button").click()
    await expect(page.locator("#incident-told")).to_contain_text(f"「{title}」已办理")


@asynccontextmanager
async def connect(town: Town, name: str, password: str) -> AsyncIterator[aiomqtt.Client]:
    """A connection that hears receipts. The broker learns of a new source within moments; a device tries again."""
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        client = aiomqtt.Client(town.broker.hostname or "", town.broker.port or 0, username=name, password=password)
        try:
            await client.__aenter__()
        except aiomqtt.MqttError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            break
    try:
        await client.subscribe(topic_of("c001", name, "receipt"), qos=1)
        yield client
    finally:
        await client.__aexit__(None, None, None)


class Button:
    """A button that speaks for itself, with the credentials that the register's page has shown."""

    def __init__(self, client: aiomqtt.Client, name: str, now: Callable[[], int]) -> None:
        self._client = client
        self._name = name
        self._now = now
        self._seq = 0

    async def press(self) -> None:
        self._seq += 1
        now = self._now()
        signals = (Signal(self._name, "pressed"),)
        message = Message("c001", self._name, Lane.ALARM, "own1", self._seq, 1, now, now, signals, [], (), 0)
        await self._client.publish(topic_of("c001", self._name, Lane.ALARM), encode_message(message), qos=1)

    async def wait_for_receipt(self) -> None:
        """Until the gateway has receipted all presses."""
        async with asyncio.timeout(15):
            async for told in self._client.messages:
                receipt = decode_receipt(bytes(told.payload))
                if isinstance(receipt, Receipt) and receipt.seq >= self._seq:
                    return


async def test_register_press_board_dispatch_close_receipt(town: Town, enter: Enter) -> None:
    # The property manager takes a button from its box and tries it.
    keeper = await enter("keeper", "/devices", 1280, 800)
    await fill(keeper, "SN-7")
    await keeper.click(".register-end button")
    password = await keeper.locator("#password").inner_text()
    await live(keeper)
    async with connect(town, "sn-7", password) as client:
        button = Button(client, "sn-7", town.stage.now)
        await button.press()
        await button.wait_for_receipt()
        await expect(keeper.locator("#trial-got")).to_contain_text("按键")
        await keeper.click("text=结束测试")
        await expect(keeper.locator("#told")).to_contain_text("已办理")
        assert town.stage.incidents() == []

        # Somebody presses it; a neighbour without one uses the sheet in the stairwell. The board shows both.
        board = await enter("li", "/board", 1920, 1080)
        await live(board)
        await button.press()
        await button.wait_for_receipt()
    await expect(board.locator(".case")).to_have_count(1)
    phone = await (await board.context.browser.new_context(viewport={"width": 360, "height": 640})).new_page()  # type: ignore[union-attr]
    await phone.goto(town.print_sheet("b2-u1"))
    await hold(phone, 2100)
    number = await phone.locator("#done .number").inner_text()
    await expect(board.locator(".case")).to_have_count(2)
    by_device, by_page = sorted(town.stage.incidents(), key=lambda case: case.number == number)
    assert (by_device.place, by_page.place) == ("b1-u1-102", "b2-u1")

    # The dispatcher takes both on and sends the grid worker, who is there with a telephone.
    zhao = await enter("zhao", "/board", 360, 740)
    for case in (by_device, by_page):
        await board.goto(f"/incidents/{case.id}")
        await act(board, "accept", "立案")
        await act(board, "dispatch", "派遣")
        await zhao.goto(f"/incidents/{case.id}")
        await act(zhao, "arrive", "到场")
        await act(zhao, "resolve", "反馈", "老人已扶起，无大碍")
        await act(board, "verify", "核查", "已回访")
        await act(board, "close", "结案", "老人平安")

    # The neighbour sees it on the same page and says how it was; the platform has it all.
    await phone.locator("#receipt").click()
    await phone.locator(".scores button").first.click()
    await expect(phone.locator(".is-good")).to_be_visible()
    await phone.context.close()
    cases = [case for case in town.stage.incidents() if case.sort is Sort.INCIDENT]
    assert sorted(case.state for case in cases) == ["closed", "rated"]
    expected = {case.id: case.revision for case in cases}
    await asyncio.to_thread(wait_for, lambda: _held(town.platform) == expected)


def _held(platform: PlatformProcess) -> dict[str, int]:
    """Incident → revision, as the platform has them."""
    return {item["incident"]["id"]: item["revision"] for item in platform.get("/incidents")}
