"""A web process that is killed while it tells a receiver of incidents: whoever goes on tells the rest."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec.structs import replace

from gateway.adapters.ledger import open_ledger
from gateway.adapters.webhooks import SqlWebhooks
from gateway.core.model import Step
from gateway.runtime.accounts import Deed
from gateway.runtime.plates import load_key
from gateway.runtime.webhooks import KINDS, State, Webhook
from tests.ports.ledger_conformance import COMMUNITIES, Hand, opened
from tests.ports.webhook_receiver import Got, WebhookReceiver
from tests.runtime.world import until
from tests.servers import Process

NUMBER = 12


async def test_nothing_is_lost_when_the_web_process_is_killed(tmp_path: Path) -> None:
    settings = {
        "SCG_DATA": str(tmp_path / "data"),
        "SCG_WEB__PORT": "0",
        "SCG_WEB__WEBHOOKS__NETWORKS": "127.0.0.0/8",
    }
    (tmp_path / "data").mkdir()
    ledger = open_ledger(f"sqlite:///{tmp_path}/data/ledger.db")
    ledger.migrate()
    ledger.add_communities(COMMUNITIES)
    webhooks = SqlWebhooks(ledger.database, load_key(tmp_path / "data" / "webhooks.key"))
    hand = Hand(ledger)

    def is_slow(got: Got) -> int:
        time.sleep(0.05)
        return 200

    with WebhookReceiver(answer=is_slow) as receiver:
        hook = Webhook("hook1", "大屏", receiver.url, KINDS, ("370215",), (), "wang", time.time_ns() // 1_000_000)
        webhooks.add(hook, "a-secret-of-a-receiver-of-events-01", Deed(0, "wang", "webhook.add", "hook1"))
        first = Process.module("gateway", "web", log=tmp_path / "web-1.log", env=settings)
        first.wait_for_line(r'"event": "ready"', 60)
        for number in range(NUMBER):
            hand.step(Step(incidents=(replace(opened(number, key=f"k{number}"), chain=("370215",)),)))
            if number == NUMBER // 2:
                await until(lambda: len(receiver.got) >= 2, timeout_s=30)
                first.kill()
        with Process.module("gateway", "web", log=tmp_path / "web-2.log", env=settings) as second:
            second.wait_for_line(r'"event": "ready"', 60)
            await until(
                lambda: [one.state for one in webhooks.deliveries("hook1", 99)] == [State.DONE] * NUMBER, timeout_s=60
            )
        first.close()
    assert set(receiver.ids) == {f"{opened(number).id}/1/opened" for number in range(NUMBER)}
    assert all(got.is_signed_with("a-secret-of-a-receiver-of-events-01") for got in receiver.got)
    ledger.close()
