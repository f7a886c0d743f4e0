"""The one writer of a community: its engine, and the fence under which its steps are committed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.engine import Engine
from gateway.core.model import Community, Delivery, Step
from gateway.core.state import SCHEMA, CommunityState, decode_state, encode_state
from gateway.runtime.journal import SWAP, Stored, decode_row, encode_event, kind_of
from gateway.runtime.ports import Checkpoint, Claim, Entry, Fence, JournalRow, Ledger

CHECKPOINT_ROWS = 1000
"""Rows after which a checkpoint is written: a start reads at most so many of each community."""


@contextmanager
def without_collector() -> Iterator[None]:
    """Builds many long-lived objects without the cyclic garbage collector, which would walk all of them again and
    again; afterwards they are exempt from it, so that it costs the running gateway nothing either."""
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@contextmanager
def collecting_by_hand() -> Iterator[Callable[[], object]]:
    """Lets the cyclic garbage collector run only when what is given is called, and then over what came since: for work
    in parts, each of which makes many objects and drops them again."""
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield gc.collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


@contextmanager
def leaving_the_rest() -> Iterator[None]:
    """For a program that ends afterwards: no collector walks what nobody needs any more, not even at the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


Catalogs = Callable[[str], Catalog]
"""Finds a catalog by its hash; raises LookupError."""


class Writer:
    """Feeds one community's engine and gathers the entries that wait for the commit."""

    def __init__(self, claim: Claim, engine: Engine, rows_since_checkpoint: int) -> None:
        self.registered = claim.community
        self.community = claim.community.id
        self.engine = engine
        self.epoch = claim.epoch
        self.sealed = claim.head
        self.head = claim.head
        self._since_checkpoint = rows_since_checkpoint
        self._catalog_hash = engine.catalog.hash

    def feed_delivery(self, delivery: Delivery, now: int) -> tuple[Step, Entry | None]:
        """Feeds a message. No entry when the engine did not take it (a repeat): then nothing changed."""
        step = self.engine.feed(delivery, now)
        if step.cursor is None:
            return step, None
        now = self.engine.now  # It never decreases; the row keeps the time at which it was really judged.
        message = delivery.message
        self.head += 1
        event_id = None
        if message.lane == "alarm":
            event_id = f"{message.source}/{message.spool}/alarm/{message.seq}"
        return step, Entry(
            self.community,
            self.head,
            now,
            "delivery",
            self._catalog_hash,
            delivery.body,
            message.source,
            message.lane,
            event_id,
            message.digest,
            step,
        )

    def feed(self, event: Stored, now: int, event_id: str | None = None) -> tuple[Step, Entry]:
        """Feeds anything else."""
        step = self.engine.feed(event, now)
        return step, self._enter(kind_of(event), encode_event(event), now, step, event_id)

    def swap(self, catalog: Catalog, now: int) -> Entry:
        """Exchanges the catalog. The caller commits a checkpoint with it."""
        step = self.engine.swap(catalog, now)
        self._catalog_hash = catalog.hash
        self._since_checkpoint = CHECKPOINT_ROWS
        return self._enter(SWAP, b"{}", now, step, None)

    def _enter(self, kind: str, body: bytes, now: int, step: Step, event_id: str | None) -> Entry:
        self.head += 1
        now = self.engine.now
        return Entry(self.community, self.head, now, kind, self._catalog_hash, body, event_id=event_id, step=step)

    def checkpoint(self, now: int, *, force: bool = False) -> Checkpoint | None:
        """A checkpoint of the state as fed so far, when one is due (or ``force`` and anything was fed since)."""
        since = self._since_checkpoint + self.head - self.sealed
        if since < (1 if force else CHECKPOINT_ROWS):
            return None
        self._since_checkpoint = self.sealed - self.head
        state = encode_state(self.engine.snapshot())
        return Checkpoint(self.community, self.head, now, SCHEMA, self._catalog_hash, state)

    def seal(self) -> Fence | None:
        """Closes the batch: the fence for what was fed since the last one, None when nothing was."""
        if self.head == self.sealed:
            return None
        fence = Fence(self.community, self.epoch, self.sealed, self.head)
        self._since_checkpoint += self.head - self.sealed
        self.sealed = self.head
        return fence

    def stand(self) -> Fence:
        """A fence that moves nothing, but holds only while no other writer has taken over."""
        return Fence(self.community, self.epoch, self.sealed, self.sealed)


class Loaded(Struct, frozen=True):
    """An engine read back: it stands after row ``seq``; its checkpoint stood after row ``checkpoint``."""

    engine: Engine
    seq: int
    checkpoint: int


def load_engine(
    ledger: Ledger, community: Community, catalogs: Catalogs, current: Catalog, until: int | None = None
) -> Loaded:
    """The engine as it stood after the community's last row (or the last one at or before ``until``). No effect of
    these rows is performed again: their steps are dropped."""
    checkpoint = ledger.load_checkpoint(community.id, until)
    if checkpoint is not None and checkpoint.schema == SCHEMA:
        engine = Engine(catalogs(checkpoint.catalog), decode_state(checkpoint.state))
        after = checkpoint.seq
    else:
        engine, after = Engine(current, CommunityState(community)), 0
    seq = after
    for row, fed, _ in replay(ledger, community, catalogs, Loaded(engine, after, after), until):
        engine, seq = fed, row.seq
    return Loaded(engine, seq, after)


def replay(
    ledger: Ledger, community: Community, catalogs: Catalogs, loaded: Loaded, until: int | None = None
) -> Iterator[tuple[JournalRow, Engine, Step]]:
    """Goes on from where an engine was read back to: each row (at or before ``until``), the engine after it and its
    step. What an engine has fed, it has fed: ``loaded`` cannot be used again."""
    engine = loaded.engine
    for row in ledger.read_journal(community.id, loaded.seq, until):
        if row.seq == 1:
            engine = Engine(catalogs(row.catalog), CommunityState(community))
        yield row, engine, feed_row(engine, community.id, row, catalogs)


def feed_row(engine: Engine, community: str, row: JournalRow, catalogs: Catalogs) -> Step:
    """Feeds a journal row again. Raises LookupError when the journal names a catalog that nobody has."""
    if row.kind == SWAP:
        return engine.swap(catalogs(row.catalog), row.at)
    if row.catalog != engine.catalog.hash:
        raise LookupError(f"{community} row {row.seq}: judged under another catalog without a swap row")
    return engine.feed(decode_row(community, row), row.at)


def load_writer(ledger: Ledger, claim: Claim, catalogs: Catalogs, current: Catalog) -> Writer:
    """Takes up a claimed community where its journal ends."""
    loaded = load_engine(ledger, claim.community, catalogs, current)
    if loaded.seq != claim.head:
        raise LookupError(f"{claim.community.id}: the journal ends at row {loaded.seq}, but the head is {claim.head}")
    return Writer(claim, loaded.engine, loaded.seq - loaded.checkpoint)
