"""Performs what was committed: tells the central platform, commands devices. At least once, with idempotency keys."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from gateway.core.model import Command, Deliver, Level
from gateway.runtime.clock import RunningClock
from gateway.runtime.ports import Ledger, LedgerDown, OutboxRow, OutboxState, Outcome, Outgoing, Platform
from gateway.wire import CommandMessage, encode_command, topic_of

log = logging.getLogger(__name__)

RETRY_FIRST_MS = 1_000
RETRY_MOST_MS = 300_000
"""Back-off doubles from one second to five minutes, with jitter, and goes on for as long as it takes."""

OVERDUE_MS = 60_000
"""A critical incident that the platform has not got for so long is called out in the log."""

Run = Callable[..., "asyncio.Future[object]"]


class Outbox:
    """One loop for deliveries and commands. ``on_ledger`` runs a ledger call on the ledger's own thread."""

    def __init__(
        self,
        ledger: Ledger,
        on_ledger: Callable[..., object],
        platform: Platform | None,
        publish: Callable[[Sequence[Outgoing]], Sequence[Outgoing]],
        clock: RunningClock,
        parallel: int = 16,
    ) -> None:
        self._ledger = ledger
        self._on_ledger = on_ledger
        self._platform = platform
        self._publish = publish
        self._clock = clock
        self._slots = asyncio.Semaphore(parallel)
        self._wake = asyncio.Event()
        self._parallel = parallel
        self._called_out: set[str] = set()
        self.delivered = 0

    def kick(self) -> None:
        """New effects were committed."""
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled. A ledger that is down is asked again after a pause."""
        while True:
            self._wake.clear()
            try:
                busy = await self._perform_due()
            except LedgerDown as error:
                log.warning("outbox: ledger down: %s", error)
                busy = False
                await asyncio.sleep(1)
            if not busy:
                try:
                    await asyncio.wait_for(self._wake.wait(), 0.25)
                except TimeoutError:
                    continue

    async def _perform_due(self) -> bool:
        now = self._clock()
        commands: list[OutboxRow] = await self._on_ledger(self._ledger.due_effects, now, 256, "command")  # type: ignore[misc]
        outcomes = self._send_commands(commands, now)
        if outcomes:
            await self._on_ledger(self._ledger.settle, outcomes)  # type: ignore[misc]
        if self._platform is None:
            return bool(commands)
        rows: list[OutboxRow] = await self._on_ledger(self._ledger.due_effects, now, self._parallel * 4, "deliver")  # type: ignore[misc]
        if rows:
            settled = await asyncio.gather(*(self._deliver(self._platform, row) for row in rows))
            await self._on_ledger(self._ledger.settle, settled)  # type: ignore[misc]
            self.delivered += sum(1 for outcome in settled if outcome.state is OutboxState.DONE)
        return any(outcome.state is not OutboxState.WAITING for outcome in outcomes) or bool(rows)

    def _send_commands(self, rows: Sequence[OutboxRow], now: int) -> list[Outcome]:
        """Publishes commands. What is past its time is not given any more; what the broker link does not take waits."""
        outcomes, messages, by_topic = [], [], {}
        for row in rows:
            effect = row.effect
            if not isinstance(effect, Command):
                continue
            if now > effect.expires_at:
                outcomes.append(Outcome(row.id, OutboxState.DEAD, now, "expired"))
                continue
            message = Outgoing(
                topic_of(effect.community, effect.source, "command"),
                encode_command(CommandMessage(effect.id, effect.device, effect.name, effect.args, effect.expires_at)),
            )
            messages.append(message)
            by_topic[id(message)] = row.id
        refused = {id(message) for message in self._publish(messages)} if messages else set()
        for message in messages:
            if id(message) in refused:
                outcomes.append(
                    Outcome(
                        by_topic[id(message)], OutboxState.WAITING, now, "no broker", now + self._scaled(RETRY_FIRST_MS)
                    )
                )
            else:
                outcomes.append(Outcome(by_topic[id(message)], OutboxState.DONE, now, "sent"))
        return outcomes

    async def _deliver(self, platform: Platform, row: OutboxRow) -> Outcome:
        effect = row.effect
        if not isinstance(effect, Deliver):
            return Outcome(row.id, OutboxState.DEAD, self._clock(), "no delivery")
        async with self._slots:
            verdict = await platform.deliver(effect.id, effect.incident)
        now = self._clock()
        if verdict.accepted:
            self._called_out.discard(row.id)
            return Outcome(row.id, OutboxState.DONE, now, verdict.detail)
        if verdict.refused:
            log.error("the platform refused %s: %s; it is on the dead-letter list", row.id, verdict.detail)
            return Outcome(row.id, OutboxState.DEAD, now, verdict.detail)
        if (
            effect.incident.level is Level.CRITICAL
            and now - row.created_at > self._scaled(OVERDUE_MS)
            and row.id not in self._called_out
        ):
            self._called_out.add(row.id)
            log.error("critical incident %s is not delivered yet: %s", effect.incident.number, verdict.detail)
        pause = min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** min(row.attempts, 12))
        # Jitter keeps a platform that comes back from being met by everything at once.
        pause = round(pause * random.uniform(0.5, 1.0))  # noqa: S311
        return Outcome(row.id, OutboxState.WAITING, now, verdict.detail, now + self._scaled(pause))

    def _scaled(self, ms: int) -> int:
        """Retries and call-outs are for the world outside: they last real time, whatever speed the clock runs at."""
        return round(ms * self._clock.speed)
