"""Delivers to webhooks: follows the ledger's changes, and sends what they mean to each receiver, at least once.

Receivers wait for each other never, and the platform, the devices and the pages wait for none of them: each has a few
attempts of its own under way, those of one incident one after the other. One process delivers at a time, whichever
holds the lease; another one goes on where it was killed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway.core.worktime import DAY_MS
from gateway.runtime.accounts import SealBroken
from gateway.runtime.backing_off import back_off
from gateway.runtime.ports import REFUSALS, Clock, CommitRefused, Ledger, LedgerDown
from gateway.runtime.webhooks import Answer, Delivery, Ended, Outcome, Receivers, Webhook, Webhooks, find_events

log = logging.getLogger(__name__)

LOOK_S: Final = 0.25
IDLE_S: Final = 1.0
"""How often the ledger is asked for changes; and for webhooks, while there is none."""

PAGE: Final = 200
PARALLEL: Final = 4
"""Attempts of one receiver that are under way at once, each of another incident."""

RETRY_FIRST_MS: Final = 2_000
RETRY_MOST_MS: Final = 3_600_000
"""A delivery's back-off doubles from two seconds to an hour, with jitter; the first good answer cuts it short."""

FAILURES: Final = 3
PAUSE_MOST_MS: Final = 60_000
"""After so many failures in a row a receiver gets one attempt at a time, with pauses that double up to a minute."""

LEASE_MS: Final = 6_000
KEPT_DONE_MS: Final = 7 * DAY_MS
KEPT_MS: Final = 30 * DAY_MS
FORGET_EVERY_MS: Final = 3_600_000

_GONE: Final = 410


class Courier:
    """One for a process. ``clock`` is real time; after ``give_up_ms`` without a good answer a receiver is switched
    off."""

    def __init__(
        self,
        ledger: Ledger,
        webhooks: Webhooks,
        receivers: Receivers,
        clock: Clock,
        give_up_ms: int = 5 * DAY_MS,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._ledger = ledger
        self._webhooks = webhooks
        self._receivers = receivers
        self._clock = clock
        self._give_up_ms = give_up_ms
        self._lease_ms = lease_ms
        self._held = 0
        self._under_way: dict[str, dict[str, str]] = {}
        """Webhook → delivery → incident."""
        self._ended: list[Outcome] = []
        self._pauses: dict[str, int] = {}
        self._forgot_at = 0
        self._wake = asyncio.Event()

    def kick(self) -> None:
        """There is something new to send."""
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled. What was under way then is sent again by whoever goes on."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._go_on(group)
        finally:
            await self._let_go()

    async def _go_on(self, group: asyncio.TaskGroup) -> None:
        is_down = False
        while True:
            self._wake.clear()
            pause = LOOK_S
            try:
                if not await self.look(group):
                    pause = IDLE_S
                is_down = False
            except LedgerDown as error:
                if not is_down:
                    log.warning("webhooks wait: %s", error)
                is_down, pause = True, IDLE_S
            except Exception:  # One thing that we trip over must not end all deliveries.
                log.exception("webhooks")
                pause = IDLE_S
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self, group: asyncio.TaskGroup) -> bool:
        """Takes in what has changed, and begins what is due. Whether this process delivers. Raises LedgerDown."""
        # First: one that has just been switched off by its own answer is not tried again.
        await self._settle()
        webhooks = await asyncio.to_thread(self._webhooks.webhooks)
        if not webhooks or not await self._hold():
            return False
        await self._follow(webhooks)
        for webhook in webhooks:
            if webhook.is_on:
                await self._begin_due(webhook, group)
        await self._forget()
        return True

    # --- who delivers --------------------------------------------------------------------------------------------

    async def _hold(self) -> bool:
        now = self._clock()
        if self._held - now > self._lease_ms // 2:
            return True
        until = now + self._lease_ms
        is_mine = await asyncio.to_thread(self._webhooks.hold, self._held, until, now)
        self._held = until if is_mine else 0
        return is_mine

    async def _let_go(self) -> None:
        if self._held:
            try:
                await asyncio.to_thread(self._webhooks.hold, self._held, 0, self._clock())
            except (LedgerDown, CommitRefused) as error:
                log.warning("who delivers to webhooks is decided in a moment: %s", error)

    # --- what has changed ----------------------------------------------------------------------------------------

    async def _follow(self, webhooks: list[Webhook]) -> None:
        cursor = await asyncio.to_thread(self._webhooks.cursor)
        if cursor is None:
            return
        position = await asyncio.to_thread(self._ledger.position)
        while cursor < position:
            moved = await asyncio.to_thread(self._take, cursor, position, webhooks)
            if moved is None:
                return
            cursor = moved

    def _take(self, cursor: int, position: int, webhooks: list[Webhook]) -> int | None:
        page = self._ledger.changes(cursor, PAGE)
        # The last position may be of a revision that was there already: nothing lies on it.
        after = page[-1][0] if len(page) == PAGE else max(position, page[-1][0] if page else 0)
        known = self._webhooks.open_cases([incident.id for _, incident in page])
        now = self._clock()
        deliveries, cases = find_events(page, known, webhooks, now)
        return after if self._webhooks.take(cursor, after, cases, deliveries, now) else None

    # --- sending -------------------------------------------------------------------------------------------------

    async def _begin_due(self, webhook: Webhook, group: asyncio.TaskGroup) -> None:
        now = self._clock()
        under_way = self._under_way.setdefault(webhook.id, {})
        is_failing = webhook.failures >= FAILURES
        room = (1 if is_failing else PARALLEL) - len(under_way)
        if room <= 0 or (is_failing and now < self._pauses.get(webhook.id, 0)):
            return
        for delivery in await asyncio.to_thread(self._webhooks.due, webhook.id, now, room + len(under_way)):
            if room > 0 and delivery.id not in under_way and delivery.incident not in under_way.values():
                under_way[delivery.id] = delivery.incident
                group.create_task(self._attempt(webhook, delivery))
                room -= 1

    async def _attempt(self, webhook: Webhook, delivery: Delivery) -> None:
        try:
            now = self._clock()
            try:
                keys = await asyncio.to_thread(self._webhooks.keys, webhook.id, now)
                answer = await self._receivers.post(webhook.url, delivery.id, delivery.body, keys, now)
            except LedgerDown as error:
                answer = Answer(0, str(error))
            except SealBroken:
                log.error("the secret of webhook %s cannot be opened: renew it", webhook.id)
                answer = Answer(0, "its secret cannot be opened here: renew it")
            except Exception as error:  # Whatever the way trips over, this one waits, and the others go on.
                log.exception("the delivery of %s to webhook %s failed", delivery.id, webhook.id)
                answer = Answer(0, type(error).__name__)
            self._ended.append(self._judge(webhook, delivery, answer))
        finally:
            self._wake.set()

    def _judge(self, webhook: Webhook, delivery: Delivery, answer: Answer) -> Outcome:
        now = self._clock()
        detail = f"{answer.status} {answer.detail}".strip() if answer.status else answer.detail
        if 200 <= answer.status < 300:
            self._pauses.pop(webhook.id, None)
            return Outcome(webhook.id, delivery.id, Ended.DONE, now, detail)
        if answer.status == _GONE:
            log.error("webhook %s is switched off: its receiver says 410", webhook.id)
            return Outcome(webhook.id, delivery.id, Ended.GONE, now, detail)
        if answer.status in REFUSALS:
            return Outcome(webhook.id, delivery.id, Ended.REFUSED, now, detail)
        self._pauses[webhook.id] = now + back_off(1_000, PAUSE_MOST_MS, webhook.failures + 1 - FAILURES)
        since = webhook.failing_since if webhook.failing_since is not None else now
        gives_up = now - since >= self._give_up_ms
        if gives_up:
            log.error("webhook %s is switched off: no good answer for %d days", webhook.id, (now - since) // DAY_MS)
        elif now - delivery.created_at >= self._give_up_ms:
            return Outcome(webhook.id, delivery.id, Ended.REFUSED, now, detail)
        due_at = now + back_off(RETRY_FIRST_MS, RETRY_MOST_MS, delivery.attempts)
        return Outcome(webhook.id, delivery.id, Ended.AGAIN, now, detail, due_at, gives_up)

    async def _settle(self) -> None:
        """Writes down how attempts ended; until then they count as under way."""
        ended = list(self._ended)
        if not ended:
            return
        try:
            await asyncio.to_thread(self._webhooks.settle, ended)
        except CommitRefused:
            log.exception("how %d deliveries ended cannot be written down: they are made again", len(ended))
        del self._ended[: len(ended)]
        for outcome in ended:
            self._under_way.get(outcome.webhook, {}).pop(outcome.id, None)

    async def _forget(self) -> None:
        now = self._clock()
        if now - self._forgot_at >= FORGET_EVERY_MS:
            await asyncio.to_thread(self._webhooks.forget, now - KEPT_DONE_MS, now - KEPT_MS)
            self._forgot_at = now
