"""From the broker to the commit: take what waits, feed it, commit it in one transaction, then acknowledge.

While a commit runs on the ledger's thread, the next batch gathers at the broker's sockets and is fed: group commit
without a timer. Only after its commit are a batch's deliveries acknowledged to the broker and receipted to their
sources, and its effects performed. Whatever fails, nothing was acknowledged, so nothing is lost: engines that were fed
what is not committed are thrown away, read back, and fed again.

Whatever the gateway cannot see (no broker, no ledger, a jump of the clock) is told to the engines as `Blind`, and no
deadline fires meanwhile: what waits comes first.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.model import (
    Answer,
    Blind,
    Delivery,
    Presence,
    Refusal,
    RegistryChange,
    Step,
    Tick,
)
from gateway.core.present import Present
from gateway.errors import GatewayError
from gateway.runtime.clock import ForwardClock, RunningClock, read_steady
from gateway.runtime.faults import pass_point
from gateway.runtime.firsts import Firsts
from gateway.runtime.journal import JournalFault, Stored
from gateway.runtime.plates import PlateSeal
from gateway.runtime.ports import (
    STOPPING,
    UNFIT,
    Arrived,
    Batch,
    Claim,
    CommitRefused,
    Entry,
    FenceLost,
    Inbox,
    Ledger,
    LedgerDown,
    Outgoing,
    Quarantined,
)
from gateway.runtime.writer import Catalogs, Writer, load_writer, without_collector
from gateway.wire import (
    PAYLOAD_LIMIT,
    DeviceConfig,
    Message,
    PlaceConfig,
    Quarantine,
    Receipt,
    ReplyFrom,
    SourceConfig,
    Stamp,
    StatusFrom,
    decode,
    encode_config,
    encode_receipt,
    parse_topic,
    topic_of,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_S: Final = 0.03
"""How long a batch of telemetry may take to feed, so that a press that comes meanwhile waits no longer."""

BATCH_MOST: Final = 1_000
BATCH_LEAST: Final = 16
TICK_S: Final = 0.05
"""How often, in real seconds, the communities are asked for deadlines that are due."""

ALIVE_EVERY_MS: Final = 2_000
JUMP_MS: Final = 60_000
"""A wall clock that moves so far against the steady one has jumped: the gateway could not see meanwhile."""

OUTAGE_MS: Final = 10_000
"""A ledger that was down for longer counts as a time in which the gateway could not see: beyond that, what it had not
read yet may have waited at the broker."""

AHEAD_MS: Final = 60_000
"""A source whose clock is ahead of ours by more is told, as rules/ops/agent-clock.yaml has it for agents."""

FENCES_S: Final = 2.0
"""How often, in real seconds, the gateway looks whether another one has taken its communities."""

HEAD_CHARACTERS: Final = 64


class Item(Struct, eq=False):
    """One thing to feed: a message (with its delivery), or an event (perhaps with somebody who waits for it)."""

    community: str
    message: Message | None = None
    body: bytes = b""
    event: Stored | None = None
    event_id: str | None = None
    arrived: Arrived | None = None
    quarantine: Quarantine | None = None
    waiter: asyncio.Future[str] | None = None
    at: int | None = None
    """The time at which an event is fed, where that is neither its arrival nor now."""


class NotFed(Exception):
    """Our own code tripped over something while it was fed."""


Failure = CommitRefused | FenceLost | NotFed


class Counters(Struct):
    """What went through since the start."""

    messages: int = 0
    readings: int = 0
    repeats: int = 0
    quarantined: int = 0
    rejected: int = 0
    batches: int = 0
    actions: int = 0
    elsewhere: int = 0
    """Messages of communities that another gateway holds."""
    refused_commits: int = 0
    ledger_down: int = 0


class Work(Struct, eq=False):
    """A fed batch on its way to the ledger."""

    items: list[Item]
    touched: dict[str, Writer]
    entries: list[Entry]
    quarantined: list[Quarantined]
    done: list[Arrived]
    receipts: dict[tuple[str, str, str, str], list[tuple[int, str]]]
    answers: list[tuple[asyncio.Future[str], str]]
    configs: set[tuple[str, str]]
    tallies: Counter[str]
    effects: bool = False
    batch: Batch = Batch()
    outgoing: list[Outgoing] = []


class Pipeline:
    """The gateway's heart. `start` takes the communities up, `run` goes on until `stop`."""

    def __init__(
        self,
        ledger: Ledger,
        inbox: Inbox,
        clock: RunningClock | ForwardClock,
        catalog: Catalog,
        catalogs: Catalogs,
        seal: PlateSeal,
        on_effects: Callable[[], None] = lambda: None,
        tick_s: float = TICK_S,
    ) -> None:
        self._ledger = ledger
        self._inbox = inbox
        self._clock = clock
        self._catalog = catalog
        self._catalogs = catalogs
        self._plates = seal
        self._on_effects = on_effects
        self._tick_s = tick_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._writers: dict[str, Writer] = {}
        self._elsewhere: set[str] = set()
        self._submitted: list[Item] = []
        self._waiters: dict[str, asyncio.Future[str]] = {}
        self._firsts = Firsts()
        self._limit = 256
        self._stopping = False
        self._waiting = 0
        self._next_tick = 0.0
        self._written_at = 0
        self._steady_offset: int | None = None
        self._blind_since: int | None = None
        self.counters = Counters()

    async def on_ledger(self, call: Callable[..., T], *args: object) -> T:
        """Runs a ledger call on the ledger's one thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    # --- starting and stopping -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Claims every community, reads it back, exchanges the catalog where it changed, and says how long the
        gateway could not see. Raises GatewayError when another gateway takes them at the same time."""
        now = self._clock()
        alive = await self.on_ledger(self._ledger.alive_at)
        await self.on_ledger(self._ledger.save_catalog, self._catalog.hash, self._catalog.files, now)
        communities = [community.id for community in await self.on_ledger(self._ledger.communities)]
        claims = await self.on_ledger(self._ledger.claim, communities, now)
        with without_collector():
            for claim in claims:
                await self._take_up(claim)
        work = self._new_work()
        for writer in self._writers.values():
            work.touched[writer.community] = writer
            if writer.engine.catalog.hash != self._catalog.hash:
                self._refuse_orphans(writer)
                work.entries.append(writer.swap(self._catalog, now))
            if alive is not None and writer.head > 0:
                blind = Blind(min(alive, now), now, "the gateway was stopped")
                work.entries.append(writer.feed(blind, now)[1])
            work.configs.update((writer.community, source.id) for source in writer.engine.sources())
        self._seal(work)
        try:
            await self._write(work)
        except FenceLost as error:
            raise GatewayError("replaced", str(error), "the ledger", "run one gateway on one ledger") from error
        self._settle(work)
        log.info("%d communities taken up", len(self._writers))

    def _refuse_orphans(self, writer: Writer) -> None:
        orphans = writer.engine.orphans_of(self._catalog)
        if orphans:
            device = orphans[0]
            more = f" and {len(orphans) - 1} more" if len(orphans) > 1 else ""
            raise GatewayError(
                "profile-in-use",
                f"device {device.id}{more} of {writer.community} has profile {device.profile}, which is gone",
                "device_profiles",
                "put the profile's file back; a profile goes when no device has it",
            )

    async def _take_up(self, claim: Claim) -> None:
        """Reads a community back. One that is damaged is left where it is, with its messages at their sources, and
        holds nothing else back."""
        try:
            writer = await self.on_ledger(load_writer, self._ledger, claim, self._catalogs, self._catalog)
        except (LookupError, JournalFault) as error:
            log.critical("community %s cannot be taken up, restore it from a backup: %s", claim.community.id, error)
            self._elsewhere.add(claim.community.id)
            return
        self._writers[writer.community] = writer

    async def run(self) -> None:
        """Feeds and commits until `stop` is called, or until another gateway holds everything (`has_lost_all`). One
        batch is at the ledger while the next one is fed."""
        watching = asyncio.create_task(self._watch_fences())
        try:
            await self._run()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for item in self._submitted:
                _answer(item, STOPPING)

    async def _run(self) -> None:
        committing: asyncio.Task[Failure | None] | None = None
        before = self._new_work()
        while not (self._stopping or self.has_lost_all):
            if committing is not None and self._waiting:
                # Whatever came meanwhile is judged after the `Blind` that this outage becomes.
                await asyncio.wait([committing])
            items = None if self._waiting else self._gather()
            if items is None:
                if committing is not None and committing.done():
                    # That it failed must be noticed though nothing comes.
                    await self._conclude(before, await committing)
                    committing = None
                else:
                    await self._inbox.wait(max(self._tick_s, 0.01))
                continue
            work = self._feed_timed(items)
            error = await committing if committing is not None else None
            committing = None
            if error is not None:
                await self._conclude(before, error, items)
                await self._process(items)
            elif isinstance(work, NotFed):
                await self._reload(_communities_of(items))
                await self._recover(items, work)
            else:
                before, committing = work, asyncio.create_task(self._commit(work))
        if committing is not None:
            await self._conclude(before, await committing)

    async def _conclude(self, work: Work, error: Failure | None, fed: Sequence[Item] = ()) -> None:
        """After a commit: where it failed, reads back what was fed with it and after it, and feeds it again."""
        if error is not None:
            await self._reload({*work.touched, *_communities_of(fed)})
            await self._recover(work.items, error)

    async def _commit(self, work: Work) -> Failure | None:
        """Commits a batch and settles it, or gives back why it was not written."""
        try:
            await self._write(work)
        except (CommitRefused, FenceLost) as error:
            return error
        self._settle(work)
        return None

    async def stop(self) -> None:
        """Finishes what was begun, and writes checkpoints, so that the next start is fast."""
        self._stopping = True

    async def close(self) -> None:
        """After `run` has returned: checkpoints, then the ledger's thread ends."""
        try:
            now = self._clock()
            checkpoints = [c for w in self._writers.values() if (c := w.checkpoint(now, force=True)) is not None]
            # Fenced like everything else: whoever has taken a community over is further on than this state.
            fences = [self._writers[checkpoint.community].stand() for checkpoint in checkpoints]
            await self.on_ledger(self._ledger.commit, Batch(fences, (), (), checkpoints, self._seen_until(now)))
        except (LedgerDown, CommitRefused, FenceLost) as error:
            log.warning("stopped without checkpoints: %s", error)
        self._thread.shutdown(wait=True)

    async def submit(self, community: str, event: Stored, event_id: str) -> str:
        """Feeds an event from a person or another process; answers after the commit. The same ``event_id`` again is
        answered ``repeat`` and changes nothing. Raises LookupError for a community that this writer does not hold."""
        if community not in self._writers:
            raise LookupError(f"community {community} is not here")
        first = self._waiters.get(event_id)
        if first is not None:
            answer = await asyncio.shield(first)
            return "repeat" if answer == "done" else answer
        waiter = self._waiters[event_id] = asyncio.get_running_loop().create_future()
        try:
            if await self._ask(self._ledger.find_event, event_id) is not None:
                waiter.set_result("done")
                return "repeat"
            self._submitted.append(Item(community, event=event, event_id=event_id, waiter=waiter))
            return await asyncio.shield(waiter)
        finally:
            del self._waiters[event_id]

    def look(self, community: str, device: str = "") -> Present:
        """What a community's devices show now, or what one shows. Raises LookupError for one that is not held here."""
        writer = self._writers.get(community)
        if writer is None:
            raise LookupError(f"community {community} is not here")
        return writer.engine.present(self._clock(), device)

    def link_changed(self, is_up: bool) -> None:
        """The broker link was lost or came back: between the two, silence means nothing, and no deadline fires."""
        if not is_up:
            self._blind_since = self._blind_since or self._clock()
        elif self._blind_since is not None:
            since, self._blind_since = self._blind_since, None
            self._blind_all(since, self._clock(), "the broker link was lost")

    @property
    def writers(self) -> Mapping[str, Writer]:
        return self._writers

    @property
    def has_lost_all(self) -> bool:
        """Whether everything that this gateway held was taken by another one, or could not be read back."""
        return bool(self._elsewhere) and not self._writers

    # --- gathering -------------------------------------------------------------------------------------------

    def _gather(self) -> list[Item] | None:
        """What waits now; None when nothing does."""
        now = self._clock()
        self._watch_clock(now)
        arrived = self._inbox.take(self._limit)
        submitted, self._submitted = self._submitted, []
        ticks = self._find_ticks(now, arrived)
        if not (arrived or ticks or submitted) and now - self._written_at < ALIVE_EVERY_MS * self._clock.speed:
            return None
        # A `Blind` comes before what waited meanwhile, and deadlines after it: what has arrived came before now.
        return [*submitted, *(Item("", arrived=one) for one in arrived), *ticks]

    def _find_ticks(self, now: int, arrived: Sequence[Arrived]) -> list[Item]:
        """The communities with a deadline that is due, up to the time by which everything that arrived is fed."""
        steady = asyncio.get_running_loop().time()
        if self._blind_since is not None or steady < self._next_tick:
            return []
        self._next_tick = steady + self._tick_s
        is_all = sum(one.session != 0 for one in arrived) < self._limit
        until = now if is_all else min(now, arrived[-1].received_at)
        return [Item(w.community, event=Tick(), at=until) for w in self._writers.values() if w.engine.is_due(until)]

    def _watch_clock(self, now: int) -> None:
        offset = now - round(read_steady() * self._clock.speed)
        if self._steady_offset is not None and abs(offset - self._steady_offset) > JUMP_MS * self._clock.speed:
            log.warning("the wall clock jumped by %d s", (offset - self._steady_offset) // 1000)
            if offset > self._steady_offset:
                self._blind_all(now - (offset - self._steady_offset), now, "the clock jumped", has_jumped=True)
        self._steady_offset = offset

    def _blind_all(self, since: int, until: int, why: str, *, has_jumped: bool = False) -> None:
        blind = Blind(since, until, why, has_jumped)
        self._submitted[:0] = [Item(community, event=blind) for community in self._writers]

    def _seen_until(self, now: int) -> int:
        """Up to when the gateway could see: what a later start takes for the beginning of its blindness."""
        return now if self._blind_since is None else min(now, self._blind_since)

    # --- feeding ---------------------------------------------------------------------------------------------

    async def _process(self, items: Sequence[Item]) -> None:
        """Feeds, commits and settles; what makes that fail is found and put aside."""
        if (error := await self._attempt(items)) is not None:
            await self._recover(items, error)

    async def _attempt(self, items: Sequence[Item]) -> Failure | None:
        """Feeds, commits and settles; or gives back why not, with the engines read back."""
        work = self._feed(items)
        error = work if isinstance(work, NotFed) else await self._commit(work)
        if error is not None:
            await self._reload(_communities_of(items))
        return error

    async def _recover(self, items: Sequence[Item], error: Failure) -> None:
        """After a failure, its engines read back and what another gateway has taken let go: once more as a whole, for
        the reason may have passed; then in parts, until what makes it fail is found."""
        if isinstance(error, CommitRefused):
            self.counters.refused_commits += 1
        again = await self._attempt(items)
        if isinstance(again, FenceLost):
            await self._recover(items, again)
        elif again is not None:
            await self._isolate(items, again)

    def _feed_timed(self, items: Sequence[Item]) -> Work | NotFed:
        """Feeds a batch, and fits the size of the next one to the time that it took."""
        started = asyncio.get_running_loop().time()
        work = self._feed(items)
        fed = asyncio.get_running_loop().time() - started
        if isinstance(work, Work) and len(work.done) >= BATCH_LEAST:
            ideal = int(self._limit * BATCH_S / max(fed, 1e-4))
            self._limit = max(BATCH_LEAST, min(BATCH_MOST, (self._limit + ideal) // 2))
        return work

    def _new_work(self) -> Work:
        return Work([], {}, [], [], [], {}, [], set(), Counter())

    def _feed(self, items: Iterable[Item]) -> Work | NotFed:
        """Feeds a batch. When our own code trips over something in it, the engines are in no state to go on."""
        work = self._new_work()
        try:
            for item in items:
                self._feed_item(item, work)
            self._seal(work)
        except Exception as error:  # One message must not end the gateway, whatever the fault is.
            log.exception("a batch cannot be fed")
            return NotFed(f"{type(error).__name__}: {error}")
        self.counters.batches += 1
        return work

    def _feed_item(self, item: Item, work: Work) -> None:
        if item.arrived is not None and item.message is None and item.event is None and item.quarantine is None:
            self._open(item)
        if item.message is not None:
            self._feed_message(item, work)
        elif item.event is not None:
            self._feed_event(item, work)
        elif item.quarantine is not None and item.arrived is not None:
            self._feed_quarantined(item.quarantine, item.arrived, work)
        if item.arrived is not None:
            work.done.append(item.arrived)
        work.items.append(item)

    def _seal(self, work: Work) -> None:
        """Makes up what is committed and sent for this batch, from the engines as they stand now: soon they will have
        been fed the next one, and what of that is in must not be receipted with this."""
        now = self._clock()
        checkpoints = [c for w in work.touched.values() if (c := w.checkpoint(now)) is not None]
        fences = [fence for w in work.touched.values() if (fence := w.seal()) is not None]
        fences.sort(key=lambda fence: fence.community)
        work.batch = Batch(fences, work.entries, work.quarantined, checkpoints, self._seen_until(now), work.tallies)
        for (community, source, lane, spool), rejected in work.receipts.items():
            cursor = self._writers[community].engine.cursor(source, spool, lane)
            receipt = Receipt(
                lane,
                spool,
                cursor.contiguous if cursor is not None else 0,
                tuple(sorted(cursor.above)) if cursor is not None else (),
                tuple(rejected),
                now,
            )
            work.outgoing.append(Outgoing(topic_of(community, source, "receipt"), encode_receipt(receipt)))
        work.outgoing.extend(self._config(community, source) for community, source in sorted(work.configs))

    def _open(self, item: Item) -> None:
        """Decodes a delivery into what it is; what cannot be decoded stays bare and is quarantined."""
        arrived = item.arrived
        assert arrived is not None  # noqa: S101 - the caller looked
        found = decode(arrived.topic, arrived.payload)
        match found:
            case Message():
                item.community = found.community
                item.message, item.body = self._plates.apply(found, arrived.payload)
                if len(item.body) > PAYLOAD_LIMIT:
                    # Sealed and written out, it has grown beyond what the journal could be read back with.
                    place = Stamp(found.community, found.source, found.lane, found.spool, found.seq)
                    item.message = None
                    item.quarantine = Quarantine(
                        "too-large", "a pack beside a plate is too large; send it by itself", place
                    )
            case StatusFrom(community, source, status):
                item.community, item.event = community, Presence(source, status)
            case ReplyFrom(community, source, reply):
                item.community, item.event = community, Answer(source, reply)
            case Quarantine(stamp=stamp):
                item.quarantine = found
                item.community = stamp.community if stamp is not None else ""

    def _feed_quarantined(self, found: Quarantine, arrived: Arrived, work: Work) -> None:
        """What cannot be read is put aside. Where at least its place in its lane can be read, the cursor passes it and
        its source is told, so that it is not sent again."""
        self._put_aside(arrived, found.reason, found.detail, work)
        stamp = found.stamp
        writer = self._writers.get(stamp.community) if stamp is not None else None
        if stamp is None or writer is None or not any(s.id == stamp.source for s in writer.engine.sources()):
            return
        cursor = writer.engine.cursor(stamp.source, stamp.spool, stamp.lane)
        if cursor is None or cursor.admit(stamp.seq, 0, 0) == "fresh":
            refusal = Refusal(stamp.source, stamp.spool, stamp.lane, stamp.seq, found.reason, found.detail[:200])
            self._feed_event(Item(stamp.community, event=refusal), work)
        receipt = (stamp.community, stamp.source, str(stamp.lane), stamp.spool)
        work.receipts.setdefault(receipt, []).append((stamp.seq, found.reason))

    def _feed_message(self, item: Item, work: Work) -> None:
        message, arrived = item.message, item.arrived
        assert message is not None  # noqa: S101
        assert arrived is not None  # noqa: S101
        writer = self._writers.get(message.community)
        if writer is None:
            self._pass_by(item, work)
            return
        step, entry = writer.feed_delivery(Delivery(message, item.body), max(arrived.received_at, 0))
        receipt = (message.community, message.source, message.lane, message.spool)
        if entry is not None:
            work.touched[writer.community] = writer
            work.entries.append(entry)
            work.receipts.setdefault(receipt, [])
            work.effects |= bool(step.effects)
            self.counters.messages += 1
            self.counters.readings += step.judged
            self.counters.rejected += len(step.rejected)
            self._tell_faults(message, arrived.received_at, step, work)
            return
        match step.answer:
            case "repeat":
                self._count_repeat(message, work)
                work.receipts.setdefault(receipt, [])
            case "forgotten":
                self._settle_forgotten(item, message, work)
            case "unknown-source":
                # Not receipted: when the source is registered, what it keeps is taken in.
                self._put_aside(
                    arrived, "unknown-source", f"{message.source} is no source of {message.community}", work
                )
            case answer:
                self._refuse_message(item, message, answer if "-" in answer else f"seq-{answer}", work)

    def _count_repeat(self, message: Message, work: Work) -> None:
        """Sources send again what has no receipt: that is no fault, and only counted."""
        self.counters.repeats += 1
        work.tallies[f"repeats/{message.source}"] += 1
        log.debug("%s %s/%s/%d came again", message.source, message.spool, message.lane, message.seq)

    def _tell_faults(self, message: Message, received_at: int, step: Step, work: Work) -> None:
        """What is wrong with a message that was taken in: each kind of fault gets a line when it is first seen."""
        source, is_first = message.source, self._firsts.is_first
        for one in step.rejected:
            if is_first(message.community, source, one.device, one.reading, one.reason):
                what = "%s %s of %s in %s is not believed: %s; the next ones are only counted"
                log.warning(what, one.device or "?", one.reading, source, message.community, one.reason)
        ahead = max(message.sent_at, message.taken_at) - received_at
        if ahead > AHEAD_MS:
            work.tallies[f"clocks/{source}"] += 1
            if is_first(message.community, source, "clock"):
                log.warning("the clock of %s is %d s ahead of ours; rules go by ours", source, ahead // 1000)
        move = step.cursor
        if move is not None and move.lost and is_first(source, move.spool, move.lane, str(move.lost)):
            what = "%s has lost %d messages of its %s lane in all: it holds none of them any more"
            log.warning(what, source, move.lost, move.lane)

    def _settle_forgotten(self, item: Item, message: Message, work: Work) -> None:
        """A seq that is known but whose content is no longer remembered: the journal knows it for alarms."""
        event_id = f"{message.source}/{message.spool}/alarm/{message.seq}"
        found = self._ledger.find_event(event_id) if message.lane == "alarm" else None
        if found is not None and found[1] == message.digest:
            self._count_repeat(message, work)
            work.receipts.setdefault((message.community, message.source, message.lane, message.spool), [])
            return
        self._refuse_message(item, message, "seq-conflict" if found is not None else "seq-forgotten", work)

    def _refuse_message(self, item: Item, message: Message, reason: str, work: Work) -> None:
        """Quarantined, and receipted as rejected; in the alarm lane an operator must look."""
        arrived = item.arrived
        assert arrived is not None  # noqa: S101
        detail = f"seq {message.seq} of spool {message.spool} is known with other content; was the disk restored?"
        if reason == "too-many-spools":
            detail = f"spool {message.spool} is one too many of this source; register it under a new id"
        elif reason == "seq-far":
            detail = f"seq {message.seq} is far beyond what the source says it holds"
        self._put_aside(arrived, reason, detail, work)
        work.receipts.setdefault((message.community, message.source, message.lane, message.spool), []).append(
            (message.seq, reason)
        )
        if message.lane == "alarm":
            refusal = Refusal(message.source, message.spool, message.lane, message.seq, reason, detail)
            self._feed_event(Item(message.community, event=refusal), work)

    def _feed_event(self, item: Item, work: Work) -> None:
        event = item.event
        assert event is not None  # noqa: S101
        writer = self._writers.get(item.community)
        if writer is None:
            self._pass_by(item, work)
            return
        now = item.at if item.at is not None else self._clock()
        if item.arrived is not None:
            now = item.arrived.received_at
        if isinstance(event, Tick) and not writer.engine.is_due(now):
            return  # What arrived has put it off, or was judged so late that it has fired already.
        step, entry = writer.feed(event, now, item.event_id)
        work.touched[writer.community] = writer
        work.entries.append(entry)
        work.effects |= bool(step.effects)
        if item.waiter is not None:
            work.answers.append((item.waiter, step.answer or "done"))
            self.counters.actions += 1
        if isinstance(event, RegistryChange) or step.devices:
            work.configs.update((item.community, source.id) for source in writer.engine.sources())
        if isinstance(event, Presence) and step.answer == "unknown-source" and item.arrived is not None:
            self._put_aside(item.arrived, "unknown-source", f"{event.source} is no source of {item.community}", work)

    def _pass_by(self, item: Item, work: Work) -> None:
        """What belongs to a community that is not held here. Another gateway receipts what it holds; without a receipt
        the source keeps it, so nothing is lost."""
        if item.waiter is not None:
            work.answers.append((item.waiter, "unknown-community"))
        if item.community in self._elsewhere:
            self.counters.elsewhere += 1
        elif item.arrived is not None:
            self._put_aside(item.arrived, "unknown-community", f"{item.community} is not a community here", work)

    def _put_aside(self, arrived: Arrived, reason: str, detail: str, work: Work) -> None:
        topic = parse_topic(arrived.topic)
        payload = arrived.payload
        work.quarantined.append(
            Quarantined(
                arrived.received_at,
                topic.community if topic is not None else "",
                topic.source if topic is not None else "",
                arrived.topic[:200],
                reason,
                detail[:300],
                hashlib.sha256(payload).hexdigest(),
                len(payload),
                payload[:HEAD_CHARACTERS].decode("utf-8", "replace"),
            )
        )
        self.counters.quarantined += 1
        log.warning("quarantined %s from %s: %s", reason, arrived.topic[:100], detail[:200])

    # --- committing ------------------------------------------------------------------------------------------

    async def _write(self, work: Work) -> None:
        """Commits a batch. While the ledger is down it waits and tries again: nothing is read or acknowledged
        meanwhile. Raises CommitRefused or FenceLost."""
        batch, downs = work.batch, self.counters.ledger_down
        pass_point("before-commit")
        try:
            await self._ask(self._ledger.commit, batch)
        except FenceLost:
            # A commit whose answer was lost has moved the heads under our own epoch: then it is done.
            if self.counters.ledger_down == downs or not await self._is_written(batch):
                raise
        self._written_at = self._clock()

    async def _ask(self, call: Callable[..., T], *args: object) -> T:
        """A ledger call that waits for as long as the ledger is down; nothing is read meanwhile."""
        since, pause, is_waiting = self._clock(), 0.1, False
        try:
            while True:
                try:
                    return await self.on_ledger(call, *args)
                except LedgerDown as error:
                    self._waiting += not is_waiting
                    is_waiting = True
                    self.counters.ledger_down += 1
                    log.error("the ledger is down, nothing is read until it is back: %s", error)
                    await asyncio.sleep(pause)
                    pause = min(5.0, pause * 2)
        finally:
            self._waiting -= is_waiting
            now = self._clock()
            if is_waiting and now - since > OUTAGE_MS * self._clock.speed:
                self._blind_all(since, now, "the ledger was down")

    async def _is_written(self, batch: Batch) -> bool:
        standing = await self._ask(self._ledger.standing, [fence.community for fence in batch.fences])
        return all(standing.get(fence.community) == (fence.epoch, fence.new) for fence in batch.fences)

    def _settle(self, work: Work) -> None:
        """After the commit: acknowledge, receipt, answer, publish, and let the effects be performed."""
        pass_point("after-commit")
        self._inbox.acknowledge(work.done)
        pass_point("after-acknowledge")
        if work.outgoing:
            self._inbox.publish(work.outgoing)
        for waiter, answer in work.answers:
            if not waiter.done():
                waiter.set_result(answer)
        if work.effects:
            self._on_effects()

    def _config(self, community: str, source: str) -> Outgoing:
        devices = self._writers[community].engine.devices_of(source)
        listed = tuple(
            DeviceConfig(d.id, d.profile, d.address, d.place, d.name, d.state, d.attributes) for d in devices
        )
        places = tuple(
            PlaceConfig(place.id, place.kind, place.name, place.parent, place.attributes)
            for place in self._writers[community].engine.places_of(source)
        )
        version = int.from_bytes(
            hashlib.blake2b(encode_config(SourceConfig(0, listed, places)), digest_size=6).digest()
        )
        config = encode_config(SourceConfig(version, listed, places))
        return Outgoing(topic_of(community, source, "config"), config, retain=True)

    # --- when a commit is refused ----------------------------------------------------------------------------

    async def _isolate(self, items: Sequence[Item], error: CommitRefused | NotFed) -> None:
        """Feeds the batch again in ever smaller parts, until what cannot be committed stands alone."""
        if len(items) == 1:
            await self._quarantine_poison(items[0], error)
            return
        by_community: dict[str, list[Item]] = {}
        for item in items:
            by_community.setdefault(item.community, []).append(item)
        parts: Iterable[list[Item]] = by_community.values() if len(by_community) > 1 else ([item] for item in items)
        for part in parts:
            await self._process(part)

    async def _quarantine_poison(self, item: Item, error: CommitRefused | NotFed) -> None:
        """The one item that the ledger refuses, or that our own code trips over: told apart, counted, and passed by the
        cursor, in a transaction of its own. In the alarm lane it becomes an operator's incident."""
        reason = "commit-refused" if isinstance(error, CommitRefused) else "not-fed"
        log.error("a single item cannot be taken in, %s: %s", reason, error)
        _answer(item, f"{UNFIT}: {error}")
        if item.arrived is None:
            return
        work = self._new_work()
        work.done.append(item.arrived)
        self._put_aside(item.arrived, reason, str(error), work)
        message = item.message or decode(item.arrived.topic, item.arrived.payload)
        if isinstance(message, Message):
            refusal = Refusal(
                message.source, message.spool, message.lane, message.seq, reason, str(error)[:200], message.digest
            )
            work.receipts[message.community, message.source, str(message.lane), message.spool] = [(message.seq, reason)]
            self._feed_event(Item(message.community, event=refusal), work)
        self._seal(work)
        again = await self._commit(work)
        if again is not None:
            # Not acknowledged: it stays with the broker and its source, and is seen again after the next reconnect.
            log.error("and it cannot be put aside either: %s", again)
            await self._reload(set(work.touched))

    # --- who holds what --------------------------------------------------------------------------------------

    async def _reload(self, communities: Iterable[str]) -> None:
        """Throws engines away that were fed what is not committed, and reads them back where the ledger stands. What
        another gateway has taken is let go: to claim it again would take it from that one in turn."""
        names = [name for name in communities if name in self._writers]
        standing = await self._ask(self._ledger.standing, names)
        for name in names:
            old = self._writers[name]
            epoch, head = standing.get(name, (0, 0))
            if epoch != old.epoch:
                self._let_go(name)
                continue
            claim = Claim(old.registered, epoch, head)
            try:
                self._writers[name] = await self._ask(load_writer, self._ledger, claim, self._catalogs, self._catalog)
            except (LookupError, JournalFault) as error:
                log.critical("community %s cannot be read back, restore it from a backup: %s", name, error)
                self._let_go(name)

    async def _watch_fences(self) -> None:
        """Notices, also when nothing is committed, that another gateway has taken a community."""
        while True:
            await asyncio.sleep(FENCES_S)
            standing = await self._ask(self._ledger.standing, list(self._writers))
            for name, writer in list(self._writers.items()):
                if standing.get(name, (0, 0))[0] != writer.epoch:
                    self._let_go(name)

    def _let_go(self, community: str) -> None:
        del self._writers[community]
        self._elsewhere.add(community)
        log.error("another gateway has taken %s; this one lets it go", community)


def _answer(item: Item, text: str) -> None:
    if item.waiter is not None and not item.waiter.done():
        item.waiter.set_result(text)


def _communities_of(items: Iterable[Item]) -> set[str]:
    return {item.community for item in items}
