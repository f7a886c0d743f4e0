"""The edge agent of one community: drivers → spool → link, commands back; offline it judges by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from msgspec import Struct

from edge.config import AgentConfig
from edge.directory import Directory
from edge.ending import end
from edge.fitting import make_fit
from edge.judgement import Judgement, select_offline
from edge.keeper import Keeper
from edge.link import Link
from edge.orders import Orders
from edge.ports import Carried, Driver, Lamp, NotTaken, Order, Report
from edge.ports import Outcome as Done
from edge.spool import Entry, Spool, SpoolDown, Stored, Unfit
from gateway.core.model import Command
from gateway.errors import GatewayError
from gateway.runtime.catalog_files import read_catalog
from gateway.runtime.clock import RunningClock
from gateway.runtime.faults import pass_point
from gateway.wire import SICK_LIMIT, CommandMessage, Lane, Measurement, Message, Reply, Signal, Status

log = logging.getLogger(__name__)

T = TypeVar("T")

VERSION: Final = "0.1.0"
PERFORM_S: Final = 10.0
"""A driver has so long to do what it was asked."""

TICK_S: Final = 0.25
DOUBT_S: Final = 60.0
"""For so long a link that is lost may not have been noticed: what our own judgement asks for meanwhile is kept."""


class _Kept(Struct, frozen=True):
    """A command that our own judgement gave while the gateway seemed to hear. ``alarm`` is the spool and the number of
    the alarm that it follows from at once; none when it comes from time passing."""

    command: Command
    alarm: tuple[str, int] | None
    at: float


class BusDesk:
    """Implements `edge.ports.Desk` for one bus."""

    def __init__(self, bus: str, agent: Agent) -> None:
        self.bus = bus
        self._agent = agent

    def now(self) -> int:
        return self._agent.clock()

    def find(self, address: str) -> Carried | None:
        return self._agent.directory.find(self.bus, address)

    def carried(self) -> Sequence[Carried]:
        return self._agent.directory.on(self.bus)

    async def take(self, *reports: Report) -> tuple[str, ...]:
        return await self._agent.take(reports)

    def tell(self, address: str, trouble: str) -> None:
        self._agent.tell(f"{self.bus}/{address}", trouble)


class Agent:
    """`run` serves until cancelled."""

    def __init__(self, config: AgentConfig, drivers: dict[str, Driver]) -> None:
        self.config = config
        self.clock = RunningClock(config.clock.speed, config.clock.anchor_real, config.clock.anchor)
        catalog = read_catalog(config.profiles, config.rules)
        try:
            config.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise GatewayError(
                "data-unusable", str(error), str(config.data), "give a folder that can be made"
            ) from error
        self.directory = Directory(config.data / "devices.json", catalog.profiles)
        self.directory.load()
        self._keeper = Keeper(Spool(config.data / "spool.db", config.spool.limits, _read_steady))
        self._orders = Orders(config.data / "orders.db")
        self._order_thread = ThreadPoolExecutor(1, thread_name_prefix="orders")
        self._drivers = drivers
        self._judgement = Judgement(
            select_offline(catalog), config.community, config.source, self.clock, self.clock.speed
        )
        self._judgement.renew(self.directory.config)
        self._kept: list[_Kept] = []
        self._sick: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._link = Link(
            config,
            self._keeper,
            self.clock,
            self._describe,
            self._take_receipt,
            self._take_command,
            self._take_config,
            self._hearing_changed,
        )

    async def run(self) -> None:
        """Serves until cancelled. Raises what no waiting mends."""
        desks = {bus: BusDesk(bus, self) for bus in self._drivers}
        running = [asyncio.create_task(driver.run(desks[bus]), name=bus) for bus, driver in self._drivers.items()]
        running += [
            asyncio.create_task(self._link.run(), name="link"),
            asyncio.create_task(self._judge_forever(), name="judgement"),
            asyncio.create_task(self._report_forever(), name="status"),
            asyncio.create_task(self._tell_forever(), name="outcomes"),
        ]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end((*running, *self._tasks))
            await self._keeper.close()
            self._order_thread.shutdown()
            self._orders.close()

    # --- taking in ---------------------------------------------------------------------------------------------------

    async def take(self, reports: Iterable[Report]) -> tuple[str, ...]:
        """Makes reports durable; gives the ids of their events. Raises NotTaken."""
        entries = self._enter(reports)
        if not entries:
            return ()
        try:
            spool, seqs = await self._keeper.take(entries)
        except Unfit:
            entries = _make_all_fit(entries)
            if not entries:
                return ()
            spool, seqs = await self._keeper.take(entries)
        pass_point("after-taking")
        ids: list[str] = []
        for entry, seq in zip(entries, seqs, strict=True):
            source, lane = self.config.source, entry.lane
            ids += [f"{source}/{spool}/{lane}/{seq}/{index}" for index in range(len(entry.signals))]
            if lane is Lane.ALARM:
                self._judge(entry, spool, seq)
        self._link.wake(tuple(seq for entry, seq in zip(entries, seqs, strict=True) if entry.lane is Lane.ALARM))
        return tuple(ids)

    def _enter(self, reports: Iterable[Report]) -> list[Entry]:
        """What goes into the spool: an alarm is a message of its own, the rest one entry of telemetry."""
        now = self.clock()
        entries: list[Entry] = []
        signals: list[Signal] = []
        measured: list[Measurement] = []
        for report in reports:
            urgent: list[Measurement] = []
            for one in report.measurements:
                device, _, reading = one.name.rpartition(":")
                lane = self.directory.lane_of(device, reading, is_event=False, value=one.value)
                (urgent if lane is Lane.ALARM else measured).append(one)
            pressing: list[Signal] = []
            for signal in report.signals:
                lane = self.directory.lane_of(signal.device, signal.kind, is_event=True)
                (pressing if lane is Lane.ALARM else signals).append(signal)
            entries += [Entry(Lane.ALARM, now, (signal,)) for signal in pressing]
            if urgent:
                entries.append(Entry(Lane.ALARM, now, (), tuple(urgent)))
        if signals or measured:
            entries.append(Entry(Lane.TELEMETRY, now, tuple(signals), tuple(measured)))
        return entries

    def tell(self, address: str, trouble: str) -> None:
        """What is wrong with a device or a bus; empty when it is well again."""
        if trouble == self._sick.get(address, ""):
            return
        if trouble:
            self._sick[address] = trouble
            log.warning("%s: %s", address, trouble)
        else:
            del self._sick[address]
            log.info("%s is well again", address)

    # --- judging while nobody hears ----------------------------------------------------------------------------------

    def _judge(self, entry: Entry, spool: str, seq: int) -> None:
        config = self.config
        message = Message(
            config.community,
            config.source,
            entry.lane,
            spool,
            seq,
            0,
            entry.taken_at,
            entry.taken_at,
            entry.signals,
            list(entry.measurements),
            (),
            seq,
        )
        self._act_on(self._judgement.take(message), (spool, seq))

    async def _judge_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._act_on(self._judgement.tick())

    def _act_on(self, commands: list[Command], alarm: tuple[str, int] | None = None) -> None:
        """Gives the commands, if nobody hears. As long as somebody seems to, they are the gateway's to give; but they
        are kept, because a link that is lost is noticed late. What is done under an id of the gateway's own is done
        once, whoever comes first."""
        now = time.monotonic()
        if self._link.is_hearing:
            self._kept = [kept for kept in self._kept if now - kept.at < DOUBT_S]
            self._kept += [_Kept(command, alarm, now) for command in commands]
            return
        for command in commands:
            log.warning("nobody hears: %s %s by ourselves", command.device, command.name)
            self._start(self._perform(command.id, command.device, command.name, command.args, command.incident or ""))

    def _hearing_changed(self, is_hearing: bool) -> None:
        log.info("the gateway %s", "hears" if is_hearing else "does not hear")
        if is_hearing:
            self._judgement.renew(self.directory.config)
            return
        now = time.monotonic()
        kept, self._kept = self._kept, []
        self._act_on([one.command for one in kept if now - one.at < DOUBT_S])

    async def _take_receipt(self, settled: tuple[Stored, ...]) -> None:
        """Alarms are the gateway's from here on: it judges them, and their buttons show that they are recorded."""
        alarms = {(stored.spool, stored.seq) for stored in settled if stored.lane is Lane.ALARM}
        self._kept = [kept for kept in self._kept if kept.alarm not in alarms]
        self._light_recorded(settled)

    # --- commands ----------------------------------------------------------------------------------------------------

    def _take_command(self, command: CommandMessage) -> None:
        self._start(self._obey(command))

    async def _obey(self, command: CommandMessage) -> None:
        if self._link.to_gateway_time(self.clock()) > command.expires_at:
            if await self._on_orders(self._orders.begin, command.id, command.device, self.clock()):
                await self._on_orders(self._orders.end, command.id, "expired", "it came too late")
            return
        await self._perform(command.id, command.device, command.name, command.args, "")

    async def _perform(self, id: str, device: str, name: str, args: dict[str, object], incident: str) -> None:
        if not await self._on_orders(self._orders.begin, id, device, self.clock(), incident):
            return
        done = await self._do(id, device, name, args)
        detail = f"{done.detail} (by the agent itself, the link was down)" if incident else done.detail
        await self._on_orders(self._orders.end, id, done.outcome, detail.strip())
        log.info("%s %s: %s %s", device, name, done.outcome, detail)

    async def _do(self, id: str, device: str, name: str, args: dict[str, object]) -> Done:
        carried = self.directory.get(device)
        if carried is None:
            return Done("refused", "this agent carries no such device")
        spec = carried.profile.commands.get(name)
        if spec is None:
            return Done("refused", f"{carried.profile.id} has no command {name}")
        args = {argument: self._in_our_language(value) for argument, value in args.items()}
        for argument, field in spec.args.items():
            if argument not in args or (reason := field.refuse(args[argument])) is not None:
                what = "is missing" if argument not in args else f"is {reason}"
                return Done("refused", f"the argument {argument} {what}")
        driver = self._drivers.get(carried.bus)
        if driver is None:
            return Done("refused", f"this agent has no bus {carried.bus or '(none is registered)'}")
        try:
            async with asyncio.timeout(PERFORM_S):
                return await driver.perform(Order(id, carried, name, args))
        except TimeoutError:
            return Done("failed", f"no answer within {PERFORM_S:g} s")
        except Exception as error:  # A driver's fault must not end the agent.
            log.exception("the driver of %s failed", carried.bus)
            return Done("failed", f"{type(error).__name__}: {error}")

    def _in_our_language(self, value: object) -> object:
        """A text that is given by language, in ours; everything else as it is."""
        if isinstance(value, dict) and value:
            return value.get(self.config.language, next(iter(value.values())))
        return value

    async def _tell_forever(self) -> None:
        """Tells outcomes; those of our own acts when the alarms before them are receipted, so that their incident is
        there to take them."""
        while True:
            await asyncio.sleep(TICK_S)
            if not self._link.is_hearing:
                continue
            for outcome in await self._on_orders(self._orders.untold):
                if outcome.incident and await self._has_alarms():
                    continue
                reply = Reply(outcome.id, outcome.device, outcome.outcome, outcome.detail, outcome.incident)
                if await self._link.publish_reply(reply):
                    await self._on_orders(self._orders.told, outcome.id)

    async def _has_alarms(self) -> bool:
        try:
            return await self._keeper.call(self._keeper.spool.depth, Lane.ALARM) > 0
        except SpoolDown:
            return True

    # --- lamps -------------------------------------------------------------------------------------------------------

    def _light_recorded(self, settled: tuple[Stored, ...]) -> None:
        """The receipt lights the first lamp at the buttons that were pressed."""
        for stored in settled:
            if stored.lane is not Lane.ALARM:
                continue
            for signal in stored.signals:
                carried = self.directory.get(signal.device)
                spec = carried.profile.events.get(signal.kind) if carried is not None else None
                if carried is not None and spec is not None and spec.press and carried.bus in self._drivers:
                    self._start(self._show(carried, Lamp.RECORDED))

    async def _show(self, carried: Carried, lamp: Lamp) -> None:
        try:
            async with asyncio.timeout(PERFORM_S):
                await self._drivers[carried.bus].show(carried, lamp)
        except Exception:  # A lamp that fails must not end the agent.
            log.exception("the lamp %s of %s cannot be lit", lamp, carried.id)

    # --- registry and state ------------------------------------------------------------------------------------------

    def _take_config(self, payload: bytes) -> None:
        if self.directory.renew(payload):
            for id, problem in self.directory.problems.items():
                log.error("device %s: %s", id, problem)
            self._judgement.renew(self.directory.config)

    async def _describe(self) -> Status:
        depth, dropped, parked = 0, 0, 0
        with contextlib.suppress(SpoolDown):
            for lane in Lane:
                state = await self._keeper.call(self._keeper.spool.describe, lane)
                depth += state.depth
                dropped += state.dropped
                parked += state.parked + self._link.count_aside(lane)
        sick = dict(list({**self.directory.problems, **self._sick}.items())[:SICK_LIMIT])
        sick = {address[:64]: trouble[:256] for address, trouble in sick.items()}
        return Status(True, self._link.connection, VERSION, depth, self.clock(), dropped, sick, parked)

    async def _report_forever(self) -> None:
        """Tells the agent's state, and its depth and skew as readings of the device under which it is watched."""
        while True:
            await asyncio.sleep(self.config.status_s / self.clock.speed)
            if not await self._link.publish_status():
                continue
            own, status = self.directory.own(), await self._describe()
            if own is not None:
                measured = [Measurement(f"{own.id}:spool_depth", float(status.depth), "count")]
                if self._link.offset is not None:
                    measured.append(Measurement(f"{own.id}:clock_skew", -self._link.offset / 1000, "s"))
                with contextlib.suppress(NotTaken):
                    await self.take([Report(own.id, (), tuple(measured))])

    async def _on_orders(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._order_thread, call, *args)

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _make_all_fit(entries: Iterable[Entry]) -> list[Entry]:
    """What of them messages can hold. Raises NotTaken for an alarm that none can: its device must not hear that it was
    taken."""
    try:
        return [fit for entry in entries for fit in make_fit(entry)]
    except Unfit as error:
        log.error("an alarm that no message can hold is not taken: %s", error)
        raise NotTaken(str(error)) from error


def _read_steady() -> int:
    """Milliseconds that only go forward, and on while the machine sleeps, where it can tell."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000
