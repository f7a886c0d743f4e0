"""Deliveries to webhooks, with real receivers: at least once, in order, and nobody waits for anybody else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.ledger import SqlLedger, open_ledger
from gateway.adapters.receivers import HttpReceivers
from gateway.adapters.webhooks import SqlWebhooks
from gateway.core.model import Incident, Step
from gateway.core.worktime import DAY_MS
from gateway.runtime.accounts import AuditFilter, Deed
from gateway.runtime.webhook_courier import Courier
from gateway.runtime.webhooks import KINDS, State, Webhook
from tests.ports.ledger_conformance import COMMUNITIES, Hand, opened
from tests.ports.webhook_receiver import Got, WebhookReceiver
from tests.runtime.world import until

LOOPBACK = [ip_network("127.0.0.0/8")]
DEED = Deed(0, "wang", "webhook.add", "")


class Post:
    """A ledger with webhooks, and a hand that writes incidents into it. ``ahead`` moves the courier's clock."""

    def __init__(self, folder: Path) -> None:
        self.ledger: SqlLedger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.ledger.migrate()
        self.ledger.add_communities(COMMUNITIES)
        self.hand = Hand(self.ledger)
        self.webhooks = SqlWebhooks(self.ledger.database, bytes(32))
        self.ahead = 0

    def clock(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead

    def hook(self, receiver: WebhookReceiver, id: str = "hook1", kinds: tuple[str, ...] = KINDS) -> Webhook:
        hook = Webhook(id, id, receiver.url, kinds, ("370215",), (), "wang", self.clock())
        made = self.webhooks.add(hook, f"secret-of-{id}", DEED)
        assert made is not None
        return made

    def write(self, *incidents: Incident) -> None:
        self.hand.step(Step(incidents=incidents))

    def read(self, id: str = "hook1") -> Webhook:
        found = self.webhooks.webhook(id)
        assert found is not None
        return found

    @asynccontextmanager
    async def courier(self, timeout_s: float = 5.0) -> AsyncIterator[Courier]:
        receivers = HttpReceivers(LOOPBACK, timeout_s=timeout_s)
        made = Courier(self.ledger, self.webhooks, receivers, self.clock)
        task = asyncio.create_task(made.run())
        yield made
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await receivers.close()


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.ledger.close()


def case(number: int, revision: int = 1, state: str = "reported") -> Incident:
    plain = opened(number, key=f"k{number}", chain=("370215",), joinable=state != "closed")
    return replace(plain, revision=revision, state=state)


async def test_an_incidents_events_come_in_order_signed_and_each_once(post: Post) -> None:
    with WebhookReceiver() as receiver:
        post.hook(receiver)
        async with post.courier():
            post.write(case(1))
            await until(lambda: len(receiver.got) == 1)
            post.write(case(1, 2))
            post.write(case(2))
            await until(lambda: len(receiver.got) == 3)
            post.write(case(1, 3, "closed"))
            await until(lambda: len(receiver.got) == 4)
            await until(lambda: all(one.state is State.DONE for one in post.webhooks.deliveries("hook1", 9)))
        first = case(1).id
        assert [got.id for got in receiver.got if first in got.id] == [
            f"{first}/1/opened",
            f"{first}/2/changed",
            f"{first}/3/closed",
        ]
        assert all(got.is_signed_with("secret-of-hook1") for got in receiver.got)
        assert receiver.got[0].event["data"]["revision"] == 1
        assert receiver.got[0].event["specversion"] == "1.0"


async def test_a_receiver_that_fails_gets_it_again_and_later_revisions_wait_for_the_earlier(post: Post) -> None:
    fails = iter([503, 500])
    with WebhookReceiver(answer=lambda got: next(fails, 200)) as receiver:
        post.hook(receiver)
        async with post.courier() as courier:
            post.write(case(1))
            post.write(case(1, 2))
            await until(lambda: post.read().failures == 1)
            await until(lambda: len(receiver.got) >= 1)
            post.ahead += 3_600_000
            courier.kick()
            await until(lambda: len(receiver.got) >= 2)
            post.ahead += 3_600_000
            courier.kick()
            await until(lambda: post.read().ok_at is not None and len(receiver.got) == 3)
        assert {one.state for one in post.webhooks.deliveries("hook1", 9)} == {State.DONE}
        assert len(set(receiver.ids)) == 1  # revision 1 was gone before anybody looked: one opening, three times
        assert (post.read().failures, post.read().failing_since) == (0, None)


async def test_one_that_hangs_holds_nobody_back(post: Post) -> None:
    with WebhookReceiver(answer=lambda got: None) as hanging, WebhookReceiver() as good:
        post.hook(hanging, "hanging")
        post.hook(good, "good")
        async with post.courier(timeout_s=30):
            for number in range(20):
                post.write(case(number))
            await until(lambda: len(good.got) == 20)
            assert len(hanging.got) <= 4
            assert post.read("hanging").ok_at is None
            # Cancelling ends what hangs, too.
        assert len(set(good.ids)) == 20


async def test_who_says_gone_is_switched_off_and_gets_the_rest_when_switched_on(post: Post) -> None:
    with WebhookReceiver(answer=lambda got: 410) as receiver:
        post.hook(receiver)
        async with post.courier() as courier:
            post.write(case(1))
            await until(lambda: not post.read().is_on)
            assert post.read().off_why == "gone"
            post.write(case(2))
            await until(lambda: post.webhooks.cursor() == post.ledger.position())
            receiver.answer = lambda got: 200
            post.webhooks.switch("hook1", None, DEED)
            courier.kick()
            await until(lambda: len(receiver.got) == 2)
        assert len(set(receiver.ids)) == 1
        assert case(1).id in receiver.ids[0]  # what happened while it was off is not told


async def test_an_event_that_is_refused_holds_back_nothing(post: Post) -> None:
    def answer(got: Got) -> int:
        return 422 if got.id.endswith("/1/opened") else 200

    with WebhookReceiver(answer=answer) as receiver:
        post.hook(receiver)
        async with post.courier():
            post.write(case(1))
            await until(lambda: any(one.state is State.DEAD for one in post.webhooks.deliveries("hook1", 9)))
            post.write(case(1, 2))
            await until(lambda: len(receiver.got) == 2)
            await until(lambda: post.read().ok_at is not None)
        assert post.read().is_on


async def test_after_days_without_an_answer_it_is_switched_off_and_the_log_says_so(post: Post) -> None:
    with WebhookReceiver(answer=lambda got: 503) as receiver:
        post.hook(receiver)
        async with post.courier() as courier:
            post.write(case(1))
            await until(lambda: post.read().failing_since is not None)
            post.ahead += 5 * DAY_MS
            courier.kick()
            await until(lambda: not post.read().is_on)
    assert post.read().off_why == "failing"
    [line] = SqlAccounts(post.ledger.database).find_audit(AuditFilter(what="webhook.off"), 9)
    assert line.deed.detail == "failing"


async def test_a_restart_in_the_middle_loses_none_and_a_second_process_waits(post: Post) -> None:
    with WebhookReceiver() as receiver:
        post.hook(receiver)
        async with post.courier():
            for number in range(5):
                post.write(case(number))
            await until(lambda: len(receiver.got) >= 2)
        for number in range(5, 10):
            post.write(case(number))
        async with post.courier(), post.courier():
            await until(lambda: len(set(receiver.ids)) == 10)
            await until(lambda: all(one.state is State.DONE for one in post.webhooks.deliveries("hook1", 99)))
        assert set(receiver.ids) == {f"{case(number).id}/1/opened" for number in range(10)}


async def test_only_the_kinds_that_were_asked_for_come(post: Post) -> None:
    with WebhookReceiver() as receiver:
        post.hook(receiver, kinds=("incident.closed",))
        async with post.courier():
            post.write(case(1))
            post.write(case(1, 2, "closed"))
            await until(lambda: len(receiver.got) == 1)
        assert receiver.ids == [f"{case(1).id}/2/closed"]
