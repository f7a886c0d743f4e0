"""A dispatcher reaches into a community from the incident's page: real gateway, broker, agent and browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from edge.ports import Outcome
from gateway.adapters.ledger import open_ledger
from gateway.core.model import Device, Incident
from gateway.runtime.clock import RunningClock
from tests.acceptance.stage import Stage
from tests.browser.conftest import Visit
from tests.browser.test_pages import check_width, find_faults
from tests.conftest import StartMosquitto
from tests.core.worlds import real_catalog
from tests.edge.agents import BUS_DEVICES, AgentHouse
from tests.runtime.world import until
from tests.web.control_room import GRIDS, ControlRoom

pytestmark = pytest.mark.asyncio(loop_scope="session")

CAMERA = Device(
    "cam-gate",
    "ip-camera",
    "agent-1",
    "gate",
    "大门相机",
    "wall/cam-gate",
    attributes={"gb28181": "37021501001320000001", "rtsp": "rtsp://10.1.2.3:554/main"},
)


class Outpost(ControlRoom):
    """The web process beside a gateway that runs by itself, with a real agent whose bus is the test's."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.house = AgentHouse(stage, stage.folder / "agent")
        self.world: Any = SimpleNamespace(catalog=real_catalog())
        ledger = open_ledger(stage.ledger_url)
        ledger.put_district(GRIDS, [], [])
        self.clock: Any = RunningClock()
        self.furnish(stage.folder / "data", ledger)

    async def __aenter__(self) -> Outpost:
        await asyncio.to_thread(self.stage.start)
        await self.open_web()
        await self.house.start()
        await self.house.wait_linked()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.house.stop()
        await self.close_web()
        self.ledger.close()

    async def call_for_help(self) -> Incident:
        """Somebody presses the button of 101; the incident, once it is on the board."""
        await self.house.wall.read("sos-1", "battery", 88.0)
        await self.house.wall.press("sos-1")

        def look() -> list[Incident]:
            found = [i for i in self.ledger.incidents() if i.cause == "sos"]
            return found if found and self.board.position >= self.ledger.position() else []

        await until(look)
        return look()[0]


@pytest_asyncio.fixture(loop_scope="session")
async def room(tmp_path: Path, start_mosquitto: StartMosquitto) -> AsyncIterator[Outpost]:
    """In place of the control room in memory: the whole of it, and the dispatcher ``li``."""
    with closing(Stage(tmp_path, start_mosquitto("max_inflight_messages 0"))) as stage:
        stage.register(devices=(*BUS_DEVICES, CAMERA))
        async with Outpost(stage) as made:
            made.add("li")
            yield made


async def choose(page: Page, command: str, **fields: str) -> None:
    """Fills a command's form in, up to the question."""
    form = page.locator(f"form.order:has(input[name=command][value={command}])").first
    await page.locator("details.move-more", has=form).first.locator("summary").click()
    for name, value in fields.items():
        await form.locator(f"[name={name}]").fill(value)
    await form.locator("button").click()
    await expect(page.locator("#order-question")).to_be_focused()


async def test_from_the_click_to_what_the_device_did(room: Outpost, visit: Visit) -> None:
    called = await room.call_for_help()
    page = await visit("li", f"/incidents/{called.id}")
    await expect(page.locator("#link-state")).to_have_class("link-state is-live")
    await expect(page.locator("#evidence-chart canvas")).to_be_visible()
    await expect(page.locator("#incident-signals .values")).to_contain_text("88")

    await page.click("#incident-desk > summary")
    await choose(page, "close_valve", reason="家属说闻到燃气味")
    await expect(page.locator("#order-question")).to_contain_text(
        "对「1号楼1单元101室 家用可燃气体探测器」下发「关阀」？"
    )
    assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]"
    assert room.house.wall.orders == []
    await page.click("#order-confirm button")
    await expect(page.locator("#incident-told")).to_contain_text("「关阀」已下发")
    await expect(page.locator("#incident-given")).to_contain_text("已执行")
    [order] = room.house.wall.orders
    assert (order.device.id, order.name) == ("gas-1", "close_valve")
    await expect(page.locator("#incident-given")).to_contain_text("li · 家属说闻到燃气味")
    await expect(page.locator("#incident-timeline")).to_contain_text("关阀 → gas-1：家属说闻到燃气味")
    await expect(page.locator("#incident-timeline")).to_contain_text("已执行 as asked")

    # What fails is told as it was, and the page is small, English and dark.
    room.house.wall.answer = Outcome("failed", "no power")
    await page.click("details.menu > summary")
    await page.click("button[lang=en]")
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.emulate_media(color_scheme="dark")
    await page.click("#incident-desk > summary")
    await choose(page, "broadcast", arg_text="请沿楼梯撤离", reason="drill of the desk")
    await expect(page.locator("#order-question")).to_contain_text("“Broadcast” to “")
    await check_width(page, 360)
    assert json.dumps(await find_faults(page), ensure_ascii=False, indent=1) == "[]"
    await page.click("#order-confirm button")
    await expect(page.locator("#incident-given")).to_contain_text("no power")
    assert {o.args.get("text") for o in room.house.wall.orders[1:]} == {"请沿楼梯撤离"}

    await page.click("#incident-cameras > summary")
    await expect(page.locator(".sights")).to_contain_text("37021501001320000001")
    await page.click("[data-copies]")
    await expect(page.locator("[data-copies]")).to_have_text("Copied")
    await check_width(page, 360)


async def test_that_nobody_hears_is_said_and_what_was_written_stays(room: Outpost, visit: Visit) -> None:
    called = await room.call_for_help()
    page = await visit("li", f"/incidents/{called.id}")
    await page.click("#incident-desk > summary")
    await choose(page, "close_valve", reason="家属说闻到燃气味")
    await room.house.stop()
    await page.click("#order-confirm button")
    await expect(page.locator("#incident-given")).to_contain_text("已发送")

    await page.click("#incident-desk > summary")
    form = page.locator("form.order:has(input[name=command][value=close_valve])").first
    await page.locator("details.move-more", has=form).first.locator("summary").click()
    await form.locator("[name=reason]").fill("再关一次")
    await asyncio.to_thread(room.stage.kill)
    await form.locator("button").click()
    await expect(page.locator("#order-step [role=alert]")).to_contain_text("网关没有应答")
    assert await form.locator("[name=reason]").input_value() == "再关一次"
