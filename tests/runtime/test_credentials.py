"""A device that was just registered may connect: the embedded broker follows the ledger's passwords while it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt

from gateway.adapters.ledger import open_ledger
from gateway.assembly import open_broker
from gateway.settings import Settings
from tests.core.worlds import START


async def is_let_in(url: str, name: str, password: str) -> bool:
    parts = urlsplit(url)
    try:
        async with aiomqtt.Client(parts.hostname or "", parts.port or 0, username=name, password=password):
            return True
    except aiomqtt.MqttError:
        return False


async def until_let_in(url: str, name: str, password: str, expected: bool) -> None:
    async with asyncio.timeout(10):
        while await is_let_in(url, name, password) is not expected:  # noqa: ASYNC110 - a broker has no event
            await asyncio.sleep(0.05)


async def test_new_passwords_let_in_and_dropped_ones_do_not(tmp_path: Path) -> None:
    ledger = open_ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.migrate()
    async with open_broker(Settings(data=tmp_path), ledger, lambda: START) as (_, url):
        password = ledger.issue_credentials(["sn-7"], START)["sn-7"]
        await until_let_in(url, "sn-7", password, expected=True)
        renewed = ledger.issue_credentials(["sn-7"], START)["sn-7"]
        await until_let_in(url, "sn-7", renewed, expected=True)
        assert not await is_let_in(url, "sn-7", password)
        ledger.drop_credentials(["sn-7"])
        await until_let_in(url, "sn-7", renewed, expected=False)
    ledger.close()
