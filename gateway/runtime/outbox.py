"""Performs what was committed: tells the central platform, commands devices, tells people. At least once, with keys.

Commands and deliveries wait for each other never: a platform that hangs delays no valve. Deliveries run side by side,
those of one incident one after the other, and each is settled when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from gateway.core.model import TIMED_OUT, Answer, Command, Deliver, Level
from gateway.runtime.backing_off import back_off
from gateway.runtime.clock import ForwardClock, RunningClock
from gateway.runtime.faults import pass_point
from gateway.runtime.notifying import Teller
from gateway.runtime.ports import (
    CommitRefused,
    Inbox,
    Ledger,
    LedgerDown,
    OutboxRow,
    OutboxState,
    Outcome,
    Outgoing,
    Platform,
    Verdict,
)
from gateway.wire import CommandMessage, Reply, encode_command, topic_of

log = logging.getLogger(__name__)

RETRY_FIRST_MS: Final = 1_000
RETRY_MOST_MS: Final = 300_000
"""Back-off doubles from one second to five minutes, with jitter, and goes on for as long as it takes."""

OVERDUE_MS: Final = 60_000
"""A critical incident that the platform has not got for so long is called out in the log."""

COMMANDS: Final = 256
"""Commands that are published at a time."""

HELD: Final = "held back: it comes of simulated devices, and this platform is not declared a test"
"""Said of a delivery that is never sent."""

TOLD_AT_ONCE: Final = 64
"""Notifications that are performed side by side."""

IDLE_S: Final = 0.25
"""How often the outbox looks for what has become due, when nobody tells it of anything new."""

PUT_OFF_EVERY_S: Final = 1.0
"""How often it looks for effects whose time was written by a clock that was wrong."""

UNANSWERED_EVERY_S: Final = 5.0
"""How often it looks for commands whose time is over without an answer."""


Submit = Callable[[str, Answer, str], Awaitable[str]]


class Outbox:
    """``on_ledger`` runs a ledger call on the ledger's own thread; ``submit`` brings in that a command was not
    answered. ``is_test``: the platform is there to be tested against; nothing of simulated devices goes elsewhere."""

    def __init__(
        self,
        ledger: Ledger,
        on_ledger: Callable[..., Awaitable[Any]],
        submit: Submit,
        platform: Platform | None,
        inbox: Inbox,
        clock: RunningClock | ForwardClock,
        parallel: int = 16,
        teller: Teller | None = None,
        *,
        is_test: bool = False,
    ) -> None:
        self._ledger = ledger
        self._on_ledger = on_ledger
        self._submit = submit
        self._platform = platform
        self._inbox = inbox
        self._clock = clock
        self._parallel = parallel
        self._teller = teller
        self._is_test = is_test
        self._new_notifications = asyncio.Event()
        self._new_commands = asyncio.Event()
        self._new_deliveries = asyncio.Event()
        self._under_way: dict[str, str] = {}
        self._ended: list[Outcome] = []
        self._stuck: set[str] = set()
        """Effects whose end the ledger refuses to take: performed, and not again before the next start."""
        self._called_out: set[str] = set()
        self.delivered = 0

    def kick(self) -> None:
        """New effects were committed."""
        self._new_commands.set()
        self._new_deliveries.set()
        self._new_notifications.set()

    async def run(self) -> None:
        """Runs until cancelled. A ledger that is down is asked again after a pause."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_forever(self._send_commands, self._new_commands))
            group.create_task(self._watch_unanswered())
            group.create_task(self._watch_clock())
            if self._teller is not None:
                group.create_task(self._tell_forever(self._teller))
            if self._platform is not None:
                group.create_task(self._deliver_forever(self._platform, group))

    # --- commands --------------------------------------------------------------------------------------------

    async def _send_commands(self) -> bool:
        """Publishes the commands that are due. What is past its time is not given any more; what the broker does not
        confirm waits, and is published again: it has its id. Whether there were any."""
        now = self._clock()
        rows: list[OutboxRow] = await self._on_ledger(self._ledger.due_effects, now, COMMANDS, "command")
        outcomes: list[Outcome] = []
        messages: dict[str, Outgoing] = {}
        for row in rows:
            command = row.effect
            if row.id in self._stuck:
                continue
            if not isinstance(command, Command):
                outcomes.append(Outcome(row.id, OutboxState.DEAD, now, "no command"))
            elif now > command.expires_at:
                outcomes.append(Outcome(row.id, OutboxState.DEAD, now, "expired"))
            else:
                body = CommandMessage(command.id, command.device, command.name, command.args, command.expires_at)
                topic = topic_of(command.community, command.source, "command")
                messages[row.id] = Outgoing(topic, encode_command(body))
        if messages:
            failed = {id(message) for message in await self._inbox.publish_confirmed(list(messages.values()))}
            now = self._clock()
            later = now + self._scaled(RETRY_FIRST_MS)
            for row_id, message in messages.items():
                if id(message) in failed:
                    outcomes.append(Outcome(row_id, OutboxState.WAITING, now, "no broker", later))
                else:
                    outcomes.append(Outcome(row_id, OutboxState.DONE, now, "sent"))
        await self._settle(outcomes)
        return bool(outcomes)

    async def _watch_unanswered(self) -> None:
        """That nobody has answered a command in its time stands in its incident's timeline, like an answer: a valve
        that may still be open is somebody's business."""
        while True:
            await asyncio.sleep(UNANSWERED_EVERY_S)
            try:
                silent = await self._on_ledger(self._ledger.unanswered_commands, self._clock())
            except LedgerDown as error:
                log.warning("commands without an answer cannot be looked for now: %s", error)
                continue
            for one in silent:
                log.warning("%s of %s has not answered command %s", one.device, one.source, one.command)
                reply = Reply(one.command, one.device, TIMED_OUT)
                with contextlib.suppress(LookupError):  # another gateway holds that community
                    await self._submit(one.community, Answer(one.source, reply), f"{TIMED_OUT}/{one.command}")

    async def _watch_clock(self) -> None:
        """A clock that was ahead and was put right must not hold anything back: what it dated goes at once."""
        while True:
            now = self._clock()
            try:
                await self._on_ledger(self._ledger.bring_forward, now, now + self._scaled(RETRY_MOST_MS))
            except (LedgerDown, CommitRefused) as error:
                log.warning("what a wrong clock has put off cannot be brought forward now: %s", error)
            await asyncio.sleep(PUT_OFF_EVERY_S)

    # --- notifications ---------------------------------------------------------------------------------------

    async def _tell_forever(self, teller: Teller) -> None:
        """Tells people, many side by side: a way that hangs keeps nobody else waiting for longer than its time."""

        async def tell_due() -> bool:
            rows: list[OutboxRow] = await self._on_ledger(
                self._ledger.due_effects, self._clock(), TOLD_AT_ONCE, "notify"
            )
            rows = [row for row in rows if row.id not in self._stuck]
            await self._settle(await asyncio.gather(*(teller.perform(row) for row in rows)))
            return len(rows) == TOLD_AT_ONCE

        await _forever(tell_due, self._new_notifications)

    # --- deliveries ------------------------------------------------------------------------------------------

    async def _deliver_forever(self, platform: Platform, group: asyncio.TaskGroup) -> None:
        async def start_due() -> bool:
            await self._settle_ended()
            room = self._parallel - len(self._under_way)
            if room <= 0:
                return False
            limit = len(self._under_way) + self._parallel * 4
            rows: list[OutboxRow] = await self._on_ledger(self._ledger.due_effects, self._clock(), limit, "deliver")
            for row in rows:
                incident = row.effect.incident.id if isinstance(row.effect, Deliver) else row.id
                if room <= 0:
                    break
                # Revisions of one incident go one after the other.
                is_new = row.id not in self._under_way and row.id not in self._stuck
                if is_new and incident not in self._under_way.values():
                    self._under_way[row.id] = incident
                    group.create_task(self._deliver(platform, row))
                    room -= 1
            return False

        await _forever(start_due, self._new_deliveries)

    async def _deliver(self, platform: Platform, row: OutboxRow) -> None:
        try:
            self._ended.append(await self._attempt(platform, row))
        finally:
            self._new_deliveries.set()

    async def _settle_ended(self) -> None:
        """Writes down how deliveries ended, many at a time. Until then they count as under way."""
        ended = list(self._ended)
        if ended:
            pass_point("after-delivery")
        await self._settle(ended)
        del self._ended[: len(ended)]
        for outcome in ended:
            self._under_way.pop(outcome.id, None)
        self.delivered += sum(outcome.state is OutboxState.DONE for outcome in ended)

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Raises LedgerDown. What the ledger refuses is named, and holds nothing else back."""
        if not outcomes:
            return
        try:
            await self._on_ledger(self._ledger.settle, outcomes)
        except CommitRefused as error:
            if len(outcomes) == 1:
                log.error("how %s ended cannot be written down: %s", outcomes[0].id, error)
                self._stuck.add(outcomes[0].id)
                return
            for outcome in outcomes:
                await self._settle([outcome])

    async def _attempt(self, platform: Platform, row: OutboxRow) -> Outcome:
        effect = row.effect
        if not isinstance(effect, Deliver):
            return Outcome(row.id, OutboxState.DEAD, self._clock(), "no delivery")
        if effect.incident.simulated and not self._is_test:
            return Outcome(row.id, OutboxState.HELD, self._clock(), HELD)
        try:
            verdict = await platform.deliver(effect.id, effect.incident)
        except Exception as error:  # Whatever the adapter trips over, the incident must reach the platform.
            log.exception("the delivery of %s failed", row.id)
            verdict = Verdict(accepted=False, refused=False, detail=f"{type(error).__name__}: {error}")
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
        pause = back_off(RETRY_FIRST_MS, RETRY_MOST_MS, row.attempts)
        return Outcome(row.id, OutboxState.WAITING, now, verdict.detail, now + self._scaled(pause))

    def _scaled(self, ms: int) -> int:
        """Retries and call-outs are for the world outside: they last real time, whatever speed the clock runs at."""
        return round(ms * self._clock.speed)


async def _forever(work: Callable[[], Awaitable[bool]], wake: asyncio.Event) -> None:
    """Works whenever there is something new, and now and then. ``work`` says whether to go on at once."""
    while True:
        wake.clear()
        try:
            goes_on = await work()
        except LedgerDown as error:
            log.warning("outbox: the ledger is down: %s", error)
            goes_on = False
            await asyncio.sleep(1)
        except Exception:  # One row that we trip over must not end the outbox.
            log.exception("outbox")
            goes_on = False
            await asyncio.sleep(1)
        if not goes_on:
            try:
                async with asyncio.timeout(IDLE_S):
                    await wake.wait()
            except TimeoutError:
                continue
