"""A simulated source keeps to design 4.1 at a real broker: spooled, in lanes, until receipted."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace
from rich.console import Console

from edge.ending import end
from gateway.wire import Lane, Message, Receipt
from simulators import player
from simulators.district import District, Settlement, generate
from simulators.player import WITHOUT_RECEIPT, PlayClock, Player, Source, Tally, events_of
from simulators.scenario import compose
from simulators.scenario_file import Part, Sending
from simulators.series import Sample, Series, Stage, play_to
from tests.conftest import StartMosquitto
from tests.edge.spools import Gateway
from tests.simulators.fake_gateway import FakeGateway, fake_gateway, wait_for

START = 1_795_435_200_000


def real_clock() -> PlayClock:
    return PlayClock(1.0, 0, 0)


@pytest.fixture(scope="module")
def settlement() -> Settlement:
    return generate(1, 1, 60).communities[0]


class Stand:
    """A source, and the gateway that it talks to."""

    def __init__(self, source: Source, gateway: FakeGateway, settlement: Settlement) -> None:
        self.source = source
        self.gateway = gateway
        self._devices = {device.profile: device.id for device in settlement.devices}

    def press(self, count: int = 1, late: int = 0) -> None:
        now = real_clock().now()
        for _ in range(count):
            self.source.take(Sending(now - late, (), self._devices["fixed-sos"], "pressed", {}, late, False))

    def measure(self, count: int = 1) -> None:
        now = real_clock().now()
        for number in range(count):
            part = Part(self._devices["temperature-humidity"], "temperature", 20.0 + number % 5, None)
            self.source.take(Sending(now, (part,), part.device, None, {}, 0, False))

    async def run(self, until: Callable[[], bool], timeout_s: float = 15.0) -> None:
        """Lets the source send and send again until it is so."""

        def is_so() -> bool:
            self.source.send()
            self.source.resend()
            return until()

        await wait_for(is_so, timeout_s)

    async def rest(self, seconds: float = 0.5) -> None:
        """Lets the source send whatever it would within this time."""
        end = time.perf_counter() + seconds
        await self.run(lambda: time.perf_counter() > end)


@pytest.fixture
async def stand(start_mosquitto: StartMosquitto, settlement: Settlement) -> AsyncIterator[Stand]:
    """A connected source, and a gateway that listens and receipts nothing yet."""
    broker = start_mosquitto("max_inflight_messages 0")
    async with fake_gateway(broker.url, settlement.community.id) as gateway:
        source = Source(settlement, (), real_clock(), Tally(), "spool-1")
        task = asyncio.create_task(source.run(broker.url, None))
        try:
            await asyncio.wait_for(source.connected.wait(), 10)
            yield Stand(source, gateway, settlement)
        finally:
            await end([task])


async def test_everything_is_sent_until_it_has_its_receipt(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the receipts are lost, others come twice or in the wrong order; in the end nothing is left."""
    monkeypatch.setitem(player.RESEND_S, Lane.ALARM, 0.3)
    monkeypatch.setitem(player.RESEND_S, Lane.TELEMETRY, 0.3)
    rng = random.Random(4)
    kept: list[Receipt] = []

    def receipt(message: Message) -> list[Receipt]:
        is_third = stand.gateway.seqs(message.lane).count(message.seq) >= 3
        chance = 1.0 if is_third else rng.random()
        if chance < 0.33:
            return []
        found = stand.gateway.receipt_of(message)
        if chance < 0.5:
            kept.append(found)
            return []
        now, kept[:] = [found, *reversed(kept), found], []
        return now

    stand.gateway.on_message = receipt
    stand.press(100)
    stand.measure(60)
    await stand.run(lambda: stand.source.depth == 0)
    assert set(stand.gateway.seqs(Lane.ALARM)) == set(range(1, 101))
    assert set(stand.gateway.seqs(Lane.TELEMETRY)) == set(range(1, 61))
    assert stand.gateway.settled == {Lane.ALARM: set(range(1, 101)), Lane.TELEMETRY: set(range(1, 61))}
    before = len(stand.gateway.copies)
    await stand.rest(0.8)
    assert len(stand.gateway.copies) == before, "what has its receipt is not sent again"


async def test_so_many_are_under_way_and_no_more(stand: Stand) -> None:
    stand.press(100)
    stand.measure(100)
    await stand.rest(1.0)
    assert sorted(stand.gateway.seqs(Lane.ALARM)) == list(range(1, WITHOUT_RECEIPT[Lane.ALARM] + 1))
    assert sorted(stand.gateway.seqs(Lane.TELEMETRY)) == list(range(1, WITHOUT_RECEIPT[Lane.TELEMETRY] + 1))
    assert (WITHOUT_RECEIPT[Lane.ALARM], WITHOUT_RECEIPT[Lane.TELEMETRY]) == (32, 8)
    # A receipt makes room for exactly as many more.
    first = next(message for message in stand.gateway.copies if message.lane is Lane.TELEMETRY)
    await stand.gateway.send(stand.gateway.receipt_of(first, 2, 3))
    await stand.rest(0.5)
    assert sorted(stand.gateway.seqs(Lane.TELEMETRY)) == list(range(1, 12))


async def test_alarms_go_first(stand: Stand) -> None:
    stand.measure(5)
    stand.press(5)
    await stand.run(lambda: len(stand.gateway.copies) == 10)
    assert [message.lane for message in stand.gateway.copies] == [Lane.ALARM] * 5 + [Lane.TELEMETRY] * 5


async def test_telemetry_waits_until_a_gateway_listens(stand: Stand) -> None:
    await stand.gateway.say_listening(False)
    await asyncio.sleep(0.3)
    stand.measure(3)
    stand.press(2)
    await stand.rest(0.5)
    assert [message.lane for message in stand.gateway.copies] == [Lane.ALARM] * 2
    await stand.gateway.say_listening(True)
    await stand.run(lambda: stand.gateway.seqs(Lane.TELEMETRY) == [1, 2, 3])


async def test_a_gateway_that_begins_is_sent_at_once_what_came_to_nobody(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(player.RESEND_S, Lane.ALARM, 60.0)
    await stand.gateway.say_listening(False)
    stand.press(2)
    await stand.run(lambda: stand.gateway.seqs(Lane.ALARM) == [1, 2])
    stand.gateway.on_message = lambda message: [stand.gateway.receipt_of(message)]
    await stand.gateway.say_listening()
    await stand.run(lambda: stand.source.depth == 0, 5)


async def test_no_gap_grows_until_the_gateway_closes_it(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(player.RESEND_S, Lane.ALARM, 0.3)
    gateway = Gateway()

    def receipt(message: Message) -> list[Receipt]:
        is_missed = message.seq == 1 and stand.gateway.seqs(Lane.ALARM).count(1) < 4
        return [] if is_missed else [gateway.take(message)]

    stand.gateway.on_message = receipt
    stand.press(400)
    await stand.run(lambda: stand.source.depth == 0)
    assert (len(gateway.events), gateway.lost) == (400, 0)


async def test_a_resend_changes_only_when_it_was_sent(stand: Stand) -> None:
    stand.press(late=5000)
    stand.measure()
    await stand.run(lambda: len(stand.gateway.seqs(Lane.ALARM)) == 3)
    first, *again = [message for message in stand.gateway.copies if message.lane is Lane.ALARM]
    assert [replace(copy, sent_at=0) for copy in again] == [replace(first, sent_at=0)] * 2
    assert first.sent_at < again[0].sent_at < again[1].sent_at
    # It lay at the source before it was sent, and the gateway can tell for how long.
    assert 5000 <= first.sent_at - first.taken_at < 7000
    waits = [later.sent_at - earlier.sent_at for earlier, later in zip([first, *again], again, strict=False)]
    assert waits[0] >= 1900
    assert waits[1] >= 3800, "each wait is longer than the one before"
    assert stand.gateway.seqs(Lane.TELEMETRY) == [1], "telemetry waits longer"


async def test_the_floor_is_the_lowest_that_is_still_held(stand: Stand) -> None:
    stand.press(3)
    await stand.run(lambda: len(stand.gateway.copies) == 3)
    second = stand.gateway.copies[1]
    await stand.gateway.send(stand.gateway.receipt_of(second))
    await stand.rest(0.2)
    stand.press()
    await stand.run(lambda: stand.gateway.copies[-1].seq == 4)
    assert stand.gateway.copies[-1].floor == 1, "the first is held"
    await stand.gateway.send(stand.gateway.receipt_of(stand.gateway.copies[0]))
    await stand.rest(0.2)
    stand.press()
    await stand.run(lambda: stand.gateway.copies[-1].seq == 5)
    assert stand.gateway.copies[-1].floor == 3
    assert all(0 < message.floor <= message.seq for message in stand.gateway.copies)


async def test_a_rejected_message_is_settled_too(stand: Stand) -> None:
    stand.gateway.on_message = lambda message: [Receipt(message.lane, message.spool, 0, (), ((message.seq, "poison"),))]
    stand.press(3)
    await stand.run(lambda: stand.source.depth == 0)
    assert stand.gateway.seqs(Lane.ALARM) == [1, 2, 3]


async def test_a_receipt_for_another_spool_settles_nothing(stand: Stand) -> None:
    stand.gateway.on_message = lambda message: [Receipt(message.lane, "another", 99)]
    stand.press(2)
    await stand.run(lambda: len(stand.gateway.copies) == 2)
    await stand.rest(0.3)
    assert stand.source.depth == 2


async def test_what_a_lost_broker_carried_is_sent_again(
    start_mosquitto: StartMosquitto, settlement: Settlement
) -> None:
    broker = start_mosquitto()
    source = Source(settlement, (), real_clock(), Tally(), "spool-1")
    task = asyncio.create_task(source.run(broker.url, None))
    try:
        await asyncio.wait_for(source.connected.wait(), 10)
        now = real_clock().now()
        button = next(device.id for device in settlement.devices if device.profile == "fixed-sos")
        for _ in range(3):
            source.take(Sending(now, (), button, "pressed", {}, 0, False))
        source.send()
        await asyncio.sleep(0.3)
        broker.kill()
        await wait_for(lambda: not source.connected.is_set())
        source.take(Sending(now, (), button, "pressed", {}, 0, False))
        broker.start()
        async with fake_gateway(broker.url, settlement.community.id) as gateway:
            gateway.on_message = lambda message: [gateway.receipt_of(message)]
            await asyncio.wait_for(source.connected.wait(), 10)
            await Stand(source, gateway, settlement).run(lambda: source.depth == 0)
            assert set(gateway.seqs(Lane.ALARM)) == {1, 2, 3, 4}
    finally:
        await end([task])


async def test_a_whole_community_is_played_and_receipted(start_mosquitto: StartMosquitto) -> None:
    """Ten minutes in four seconds: every reading arrives, in the lane that its profile says."""
    broker = start_mosquitto("max_inflight_messages 0\nmax_queued_messages 0")
    district = generate(1, 1, 60)
    clock = PlayClock(150.0, time.time_ns() // 1_000_000, START)
    async with fake_gateway(broker.url, "c001") as gateway:
        gateway.on_message = lambda message: [gateway.receipt_of(message)]
        playing = Player(district, clock, 1)
        tasks = [asyncio.create_task(source.run(broker.url, None)) for source in playing.sources]
        try:
            await playing.wait_until_connected()
            await playing.play(clock.now() + 600_000)
            assert await playing.drain(10)
        finally:
            await end(tasks)
    once = {(message.lane, message.seq): message for message in gateway.copies}
    assert sum(len(message.measurements) for message in once.values()) == playing.tally.readings > 100
    smoke = {m.name for message in once.values() if message.lane is Lane.ALARM for m in message.measurements}
    assert all(name.rpartition(":")[2] != "battery" for name in smoke)
    assert len(playing.tally.latencies) == playing.tally.alarms


async def test_a_series_is_played_to_a_gateway_that_runs_already(start_mosquitto: StartMosquitto) -> None:
    broker = start_mosquitto()
    stage = Stage("c009", "agent-009", "probe-1", "temperature-humidity", "temperature", "degF")
    offsets = [0, 10_000, 20_000, 120_000]
    series = Series(tuple(Sample(START + offset, 70.0 + index) for index, offset in enumerate(offsets)), ())
    async with fake_gateway(broker.url, "c009") as gateway:
        gateway.on_message = lambda message: [gateway.receipt_of(message)]
        outcome = await play_to(broker.url, None, series, stage, 60.0, Console(quiet=True))
    assert (outcome.played, outcome.receipted, outcome.moved) == (4, 4, 0)
    [first, *_] = gateway.copies
    assert [message.taken_at - first.taken_at for message in gateway.copies] == offsets
    [measured] = first.measurements
    assert (measured.name, measured.value, measured.unit) == ("probe-1:temperature", 70.0, "degF")


# --- without a broker ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def district() -> District:
    return generate(2, 30)


def test_events_come_in_the_order_of_their_arrival_with_seqs_of_their_own(district: District) -> None:
    plan = compose(2, district, START, 60, 40, 60)
    events = list(events_of(district, plan.instances))
    arrivals = [arrival for arrival, _ in events]
    assert arrivals == sorted(arrivals)
    assert all(message.sent_at == arrival for arrival, message in events)
    sendings = [sending for instance in plan.instances for sending in instance.sendings]
    assert len(events) == len(sendings) + sum(sending.twice for sending in sendings)
    copies = Counter((message.source, message.lane, message.seq) for _, message in events)
    twice = sum(sending.twice for sending in sendings)
    assert Counter(copies.values()) == {1: len(sendings) - twice, 2: twice}
