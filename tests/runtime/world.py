"""A gateway in one process: pipeline, ledger in a file, inbox in memory, and a clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import create_engine, text

from gateway.adapters.ledger import SqlLedger
from gateway.adapters.memory_inbox import MemoryInbox
from gateway.assembly import open_catalogs, plate_fields
from gateway.core.catalog import Catalog
from gateway.core.model import Community, Device, Incident, Place, Scalar, Source
from gateway.core.state import encode_state
from gateway.runtime.clock import RunningClock
from gateway.runtime.pipeline import Pipeline
from gateway.runtime.plates import PlateSeal
from gateway.runtime.ports import Ledger
from gateway.runtime.registrar import CommunityFile, DistrictFile, register
from gateway.runtime.writer import load_engine
from gateway.wire import (
    Lane,
    Measurement,
    Message,
    Receipt,
    Reply,
    Signal,
    Status,
    decode_receipt,
    encode_message,
    encode_reply,
    encode_status,
    topic_of,
)
from tests.core.worlds import DEVICES, PLACES, START, real_catalog

KEY = bytes(32)
BUSY_S = 0.05


class HandClock(RunningClock, frozen=True):
    """A clock that stands still until a test moves it. It says that it is fast, so that no step of up to 16 hours
    counts as a jump."""

    moment: list[int] = msgspec.field(default_factory=lambda: [START])

    def __call__(self) -> int:
        return self.moment[0]

    def advance(self, ms: int) -> int:
        self.moment[0] += ms
        return self.moment[0]


def district_of(
    communities: int, devices: Iterable[Device] = DEVICES, lists: Mapping[str, tuple[str, ...]] | None = None
) -> DistrictFile:
    """So many copies of the small community of tests/core/worlds.py: ``c001`` with ``agent-1``, ``c002`` …"""
    return DistrictFile((), tuple(_community(n, devices) for n in range(1, communities + 1)), dict(lists or {}))


def _community(number: int, devices: Iterable[Device]) -> CommunityFile:
    id, agent = f"c{number:03d}", f"agent-{number}"
    places = tuple(
        replace(place, id=id) if place.id == "c001" else replace(place, parent=_rename(place, id)) for place in PLACES
    )
    return CommunityFile(
        Community(id, number, f"示例{number}期", ("370215", "370215001")),
        places,
        (Source(agent, "gate", agent),),
        tuple(replace(d, id=agent if d.id == "agent-1" else d.id, source=agent) for d in devices),
    )


def _rename(place: Place, community: str) -> str | None:
    return community if place.parent == "c001" else place.parent


class World:
    """The ledger's file and the broker outlive the gateway, which runs between `start` and `stop` or `crash`."""

    def __init__(self, folder: Path, district: DistrictFile | None = None, catalog: Catalog | None = None) -> None:
        self.url = f"sqlite:///{folder}/ledger.db"
        self.path = folder / "ledger.db"
        self.catalog = catalog or real_catalog()
        self.clock = HandClock(speed=1000.0)
        self.ledger: Ledger = SqlLedger(self.url, BUSY_S)
        self.ledger.migrate()
        self.inbox = MemoryInbox(self.clock)
        self.seal = PlateSeal(KEY, plate_fields(self.catalog))
        self.effects = 0
        self._seqs: dict[tuple[str, Lane], int] = {}
        self._running: asyncio.Task[None] | None = None
        self.pipeline = self.new_pipeline()
        self.register(district or district_of(1))

    def register(self, district: DistrictFile) -> None:
        catalogs = open_catalogs(self.ledger, self.catalog)
        now = self.clock()
        register(self.ledger, district, self.catalog, catalogs, self.seal, now, now, "test")

    def new_pipeline(self, inbox: MemoryInbox | None = None, ledger: Ledger | None = None) -> Pipeline:
        return Pipeline(
            ledger or self.ledger,
            inbox or self.inbox,
            self.clock,
            self.catalog,
            open_catalogs(self.ledger, self.catalog),
            self.seal,
            on_effects=self._count_effects,
            tick_s=0.0,
        )

    def _count_effects(self) -> None:
        self.effects += 1

    # --- the gateway's life ----------------------------------------------------------------------------------

    async def start(self) -> Pipeline:
        self.pipeline = self.new_pipeline()
        self.inbox = self.pipeline._inbox  # type: ignore[assignment]
        self.inbox.on_link(self.pipeline.link_changed)
        await self.inbox.start()
        await self.pipeline.start()
        self._running = asyncio.create_task(self.pipeline.run())
        return self.pipeline

    async def stop(self) -> None:
        """A clean stop."""
        assert self._running is not None
        await self.pipeline.stop()
        await asyncio.wait_for(self._running, 10)
        await self.pipeline.close()
        self.forget_gateway()

    async def crash(self) -> None:
        """It is gone from one moment to the next; what it was writing is written or not."""
        assert self._running is not None
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        self.pipeline._thread.shutdown(wait=True)
        self.forget_gateway()

    def forget_gateway(self) -> None:
        """The broker takes back what was not acknowledged; nobody listens to the link any more."""
        self.inbox._listeners.clear()
        self.inbox.cut()
        self._running = None

    @property
    def is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    async def close(self) -> None:
        if self._running is not None:
            with contextlib.suppress(Exception):
                await self.crash()
        self.ledger.close()

    # --- what happens ----------------------------------------------------------------------------------------

    def send(
        self,
        readings: Mapping[str, float | bool | str] | None = None,
        signals: Iterable[tuple[str, str] | tuple[str, str, dict[str, Scalar]]] = (),
        lane: Lane = Lane.ALARM,
        *,
        community: str = "c001",
        seq: int | None = None,
        waited: int = 0,
        floor: int = 1,
    ) -> str:
        """A message of the community's agent reaches the broker now; returns its event id without the index."""
        source = f"agent-{int(community[1:])}"
        if seq is None:
            seq = self._seqs[source, lane] = self._seqs.get((source, lane), 0) + 1
        now = self.clock()
        message = Message(
            community,
            source,
            lane,
            "spool1",
            seq,
            floor,
            now,
            now - waited,
            tuple(Signal(s[0], s[1], s[2] if len(s) == 3 else {}) for s in signals),
            [Measurement(name, value) for name, value in (readings or {}).items()],
            (),
            0,
        )
        self.inbox.send(topic_of(community, source, lane), encode_message(message))
        return f"{source}/spool1/{lane}/{seq}"

    def press(self, device: str = "sos-1", community: str = "c001") -> str:
        """Returns the press's event id."""
        return self.send(signals=[(device, "pressed")], community=community) + "/0"

    def say_status(self, *, online: bool, connection: str = "k1", community: str = "c001") -> None:
        source = f"agent-{int(community[1:])}"
        self.inbox.send(topic_of(community, source, "status"), encode_status(Status(online, connection)))

    def say_reply(self, reply: Reply, community: str = "c001") -> None:
        self.inbox.send(topic_of(community, f"agent-{int(community[1:])}", "reply"), encode_reply(reply))

    async def pass_time(self, ms: int, step: int = 1_000) -> None:
        """The clock goes on in steps, and the gateway has time to look at each."""
        for _ in range(ms // step):
            self.clock.advance(step)
            await self.settle()

    async def settle(self) -> None:
        """Until the gateway has looked at what waits, and what it found is committed."""
        for _ in range(2):
            self.inbox._arrival.set()
            for _ in range(5):
                await asyncio.sleep(0)
            await self.pipeline.on_ledger(lambda: None)
        await asyncio.sleep(0)

    # --- what came of it -------------------------------------------------------------------------------------

    def receipts(self, community: str = "c001", lane: Lane = Lane.ALARM) -> list[Receipt]:
        topic = topic_of(community, f"agent-{int(community[1:])}", "receipt")
        found = [decode_receipt(one.payload) for one in self.inbox.published if one.topic == topic]
        return [receipt for receipt in found if isinstance(receipt, Receipt) and receipt.lane == lane]

    def is_receipted(self, seq: int, community: str = "c001", lane: Lane = Lane.ALARM) -> bool:
        return any(r.seq >= seq or seq in r.above or seq in dict(r.rejected) for r in self.receipts(community, lane))

    def last_seq(self, community: str = "c001", lane: Lane = Lane.ALARM) -> int:
        return self._seqs.get((f"agent-{int(community[1:])}", lane), 0)

    async def receipted(self, community: str = "c001", lane: Lane = Lane.ALARM) -> None:
        """Until the community's last message of the lane has its receipt."""
        await until(lambda: self.is_receipted(self.last_seq(community, lane), community, lane))

    def incidents(self, community: str | None = None, cause: str | None = None) -> list[Incident]:
        found = self.ledger.incidents(limit=10_000)
        return [i for i in found if community in (None, i.community) and cause in (None, i.cause)]

    def counts(self) -> dict[str, dict[str, int]]:
        return self.ledger.counts()

    def state(self, community: str = "c001") -> bytes:
        """The state of the running engine."""
        return encode_state(self.pipeline.writers[community].engine.snapshot())

    def read_back(self, community: str = "c001") -> bytes:
        """The state that a start would read back from the ledger."""
        [found] = [c for c in self.ledger.communities() if c.id == community]
        catalogs = open_catalogs(self.ledger, self.catalog)
        return encode_state(load_engine(self.ledger, found, catalogs, self.catalog).engine.snapshot())

    def run_sql(self, *statements: str) -> None:
        """Into the ledger, past the gateway."""
        engine = create_engine(self.url)
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()


POISON = (
    "CREATE TRIGGER poison BEFORE INSERT ON journal WHEN instr(NEW.body, CAST('66.6' AS BLOB)) > 0 "
    "AND NEW.kind = 'delivery' BEGIN SELECT RAISE(ABORT, 'poison'); END"
)
"""A message that holds 66.6 makes every commit fail."""


async def until(is_so: Callable[[], Any], timeout_s: float = 10.0) -> None:
    """Until something is so."""
    async with asyncio.timeout(timeout_s):
        while not is_so():  # noqa: ASYNC110 - what it waits for has no event of its own
            await asyncio.sleep(0.005)
