"""The demo: broker, gateway, reference platform and a whole district of simulated communities, in one go.

An hour with emergencies in it is played at speed, shown as it happens, and then held against the truth: each incident
that the platform stored is matched to its cause by community, category and place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from simulators.district import District, generate, write
from simulators.player import PlayClock, Player, Tally, read_passwords
from simulators.scenario import Instance, Plan, compose

START: Final = datetime(2026, 11, 23, 19, 30, tzinfo=UTC) - timedelta(hours=8)
"""The simulated hour begins at 19:30 in Jimo."""

MINUTES: Final = 60
DRAIN_S: Final = 30.0
LEAD_MS: Final = 8_000
"""Real time between the start of the gateway and the beginning of the hour, at least."""

SHOWN: Final = 12
LEVELS: Final = {"normal": ("一般", "cyan"), "urgent": ("紧急", "yellow"), "critical": ("特急", "bold red")}


class Outcome(Struct, frozen=True):
    """What the demo came to. ``lost`` causes have no incident; ``doubled`` incidents have no cause of their own."""

    communities: int
    devices: int
    readings: int
    causes: int
    incidents: int
    lost: int
    doubled: int
    delivered: int
    p50_ms: float
    p99_ms: float
    near_misses: int = 0
    kinds: int = 0
    waiting: int = 0

    @property
    def is_good(self) -> bool:
        """Nothing lost, doubled or undelivered."""
        return not (self.lost or self.doubled or self.waiting) and self.incidents == self.causes == self.delivered

    def line(self) -> str:
        """The last line of ``--once``."""
        return json.dumps(
            {
                name: getattr(self, name)
                for name in (
                    "communities",
                    "devices",
                    "readings",
                    "causes",
                    "incidents",
                    "lost",
                    "doubled",
                    "delivered",
                    "p50_ms",
                    "p99_ms",
                )
            }
        )


def match(causes: list[Instance], stored: list[Mapping[str, Any]]) -> tuple[int, int, int]:
    """(causes with an incident of their own, lost causes, doubled incidents), by community, category and place."""
    wanted = Counter((cause.community, cause.category, cause.place) for cause in causes)
    found = Counter((i["community"], i["category"], i["place"]) for i in stored)
    matched = wanted & found
    return matched.total(), (wanted - found).total(), (found - wanted).total()


def run(*, once: bool, speed: float, seed: int, communities: int, picture: Path | None = None) -> int:
    """Runs the demo. The exit status: 1 when anything was lost, doubled or undelivered. ``picture`` keeps what was
    printed as an SVG file."""
    console = Console(record=picture is not None, width=100 if picture is not None else None)
    try:
        return asyncio.run(_run(console, once=once, speed=speed, seed=seed, communities=communities))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped")
        return 0
    finally:
        if picture is not None:
            console.save_svg(str(picture), title="make demo ONCE=1")


async def _run(console: Console, *, once: bool, speed: float, seed: int, communities: int) -> int:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, task.cancel if task is not None else loop.stop)
    with tempfile.TemporaryDirectory(prefix="scg-demo-") as folder:
        demo = _Demo(console, Path(folder), speed, seed, communities)
        async with demo.running():
            number = 0
            while True:
                outcome = await demo.play_hour(number, is_last=once)
                if once:
                    print(outcome.line(), flush=True)
                    return 0 if outcome.is_good else 1
                number += 1


class _Demo:
    """The processes of the demo and what is known of them."""

    def __init__(self, console: Console, folder: Path, speed: float, seed: int, communities: int) -> None:
        self._console = console
        self._folder = folder
        self._speed = speed
        self._seed = seed
        self._plain = not console.is_terminal
        self._stats: dict[str, Any] = {}
        self._stored: list[Mapping[str, Any]] = []
        self._platform_url = ""
        self._player: Player | None = None
        self._said: set[str] = set()
        self._stage("a district from seed", seed)
        self._district: District = generate(seed, communities)
        self._anchor = round(START.timestamp() * 1000)
        self._plan = self._compose(0)

    def _compose(self, number: int) -> Plan:
        many = len(self._district.communities)
        share = min(1.0, many / 277)
        start = self._anchor + number * MINUTES * 60_000
        return compose(
            self._seed + number, self._district, start, MINUTES, max(18, round(30 * share)), max(24, round(240 * share))
        )

    def _stage(self, what: str, detail: object = "") -> None:
        self._console.print(f"[dim]· {what} {detail}[/dim]", highlight=False)

    # --- processes ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything started, and stopped again in any case."""
        processes: list[asyncio.subprocess.Process] = []
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self._start(processes, tasks)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
            for process in processes:
                try:
                    await asyncio.wait_for(process.wait(), 15)
                except TimeoutError:
                    process.kill()

    async def _start(self, processes: list[asyncio.subprocess.Process], tasks: list[asyncio.Task[Any]]) -> None:
        key = self._folder / "platform.key"
        key.write_text(secrets.token_hex(32))
        key.chmod(0o600)
        district = self._folder / "district.json"
        states = self._plan.states
        write(_with_states(self._district, states), district)
        settings = {
            "SCG_DATA": str(self._folder / "data"),
            "SCG_CLOCK__SPEED": str(self._speed),
            "SCG_CLOCK__ANCHOR": str(self._anchor),
        }
        devices = sum(len(settlement.devices) for settlement in self._district.communities)
        self._stage("registering", f"{len(self._district.communities)} communities, {devices} devices")
        register = await self._spawn(
            ["-m", "gateway", "register", str(district), "--credentials", str(self._folder / "secrets.json")],
            # Registered before the first reading: the clock stands still meanwhile.
            settings | {"SCG_CLOCK__SPEED": "0.001", "SCG_CLOCK__ANCHOR_REAL": str(_real_ms())},
        )
        if await register.wait() != 0:
            raise SystemExit((self._folder / "register.log").read_text()[-2000:] or "register failed")
        self._stage("starting the reference platform")
        platform = await self._spawn(
            ["-m", "simulators", "platform", "--store", str(self._folder / "platform.db"), "--key-file", str(key)],
            {},
        )
        processes.append(platform)
        found = await self._wait_for(platform, "listening on ")
        self._platform_url = found.rsplit(" ", 1)[-1]
        tasks.append(asyncio.create_task(_drop_output(platform)))
        self._stage("starting the gateway")
        # The clock runs up to the hour while everything starts, so that no heartbeat runs out meanwhile.
        self._clock = PlayClock(self._speed, _real_ms() + LEAD_MS, self._anchor)
        gateway = await self._spawn(
            ["-m", "gateway", "serve", "--stats", "--log-level", "warning"],
            settings
            | {
                "SCG_CLOCK__ANCHOR_REAL": str(self._clock.anchor_real),
                "SCG_PLATFORM__URL": f"{self._platform_url}/events",
                "SCG_PLATFORM__KEY_FILE": str(key),
            },
        )
        processes.append(gateway)
        ready = json.loads(await self._wait_for(gateway, '"event": "ready"'))
        tasks.append(asyncio.create_task(self._read_stats(gateway)))
        self._stage("connecting", f"{len(self._district.communities)} sources to {ready['broker']}")
        self._player = Player(self._district, self._clock, self._seed, secrets.token_hex(3))
        passwords = read_passwords((self._folder / "secrets.json").read_text())
        tasks += await self._player.connect(str(ready["broker"]), passwords)
        tasks.append(asyncio.create_task(self._read_stored()))
        await self._player.wait_until_connected()

    async def _spawn(self, arguments: list[str], env: Mapping[str, str]) -> asyncio.subprocess.Process:
        log = (self._folder / f"{arguments[2]}.log").open("wb")
        inherited = {name: value for name, value in os.environ.items() if name.startswith("SCG_BROKER__EMBEDDED")}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SCG_")}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=clean | inherited | dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            # Ctrl-C goes to the demo alone, which stops the others in order.
            start_new_session=True,
        )

    async def _wait_for(self, process: asyncio.subprocess.Process, words: str) -> str:
        assert process.stdout is not None  # noqa: S101 - piped above
        while line := (await process.stdout.readline()).decode():
            if words in line:
                return line.strip()
        logs = "\n".join(path.read_text()[-1500:] for path in sorted(self._folder.glob("*.log")))
        raise SystemExit(f"a process of the demo ended early:\n{logs}")

    async def _read_stats(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - piped above
        while line := await process.stdout.readline():
            with contextlib.suppress(ValueError):
                self._stats = json.loads(line)

    async def _read_stored(self) -> None:
        async with httpx.AsyncClient(base_url=self._platform_url, trust_env=False, timeout=10) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError, ValueError):
                    answer = await client.get("/incidents")
                    self._stored = [entry["incident"] for entry in answer.json()]
                await asyncio.sleep(0.5)

    # --- playing -----------------------------------------------------------------------------------------------------

    async def play_hour(self, number: int, *, is_last: bool) -> Outcome:
        """Plays one hour, waits until all is receipted and delivered, and compares."""
        player = self._player
        assert player is not None  # noqa: S101 - made by running()
        await asyncio.sleep(max(0.0, (self._anchor - self._clock.now()) / self._speed / 1000))
        begins = self._clock.now()
        until = begins + MINUTES * 60_000
        player.cast(_shifted(self._plan.instances, begins - self._anchor))
        view = _View(self._console, self._plan, player.tally, begins, until, plain=self._plain)
        with view.live():
            show = self._shower(view)
            await player.play(until, show)
            view.stage = "draining"
            drained = await player.drain(DRAIN_S, show)
            await self._settle(show)
        outcome = self._judge(player, drained=drained)
        self._summarise(outcome)
        return outcome

    def _shower(self, view: _View) -> Callable[[int], None]:
        def show(now: int) -> None:
            view.update(now, self._stats, self._stored)

        return show

    async def _settle(self, show: Callable[[int], None]) -> None:
        """Waits until the gateway's outbox is empty and the platform's store has been read after that."""
        deadline = time.perf_counter() + DRAIN_S
        quiet = 0
        while time.perf_counter() < deadline and quiet < 3:
            await asyncio.sleep(1.0)
            show(self._clock.now())
            waiting = self._stats.get("outbox", {}).get("waiting", 0)
            expected = self._stats.get("incidents", {})
            quiet = quiet + 1 if not waiting and sum(expected.values()) <= len(self._stored) else 0

    def _judge(self, player: Player, *, drained: bool) -> Outcome:
        stored = [incident for incident in self._stored if incident["sort"] == "incident"]
        matched, lost, doubled = match(self._plan.causes, stored)
        latencies = sorted(player.tally.latencies)
        outbox = self._stats.get("outbox", {})
        waiting = player.waiting + outbox.get("waiting", 0) + outbox.get("dead", 0) + (0 if drained else 1)
        return Outcome(
            communities=len(self._district.communities),
            devices=sum(len(settlement.devices) for settlement in self._district.communities),
            readings=player.tally.readings,
            causes=len(self._plan.causes),
            incidents=len(stored),
            lost=lost,
            doubled=doubled,
            delivered=matched,
            p50_ms=round(_quantile(latencies, 0.5) * 1000, 1),
            p99_ms=round(_quantile(latencies, 0.99) * 1000, 1),
            near_misses=len(self._plan.near_misses),
            kinds=len({cause.category for cause in self._plan.causes}),
            waiting=waiting,
        )

    def _summarise(self, outcome: Outcome) -> None:
        player = self._player
        assert player is not None  # noqa: S101 - made by running()
        tally = player.tally
        table = Table(title="一小时小结 · the hour in numbers", title_justify="left", show_header=False, box=None)
        rows = [
            ("小区 communities", f"{outcome.communities}, {outcome.devices} devices"),
            (
                "读数 readings",
                f"{outcome.readings:,} in {tally.messages:,} messages ({tally.alarms:,} in the alarm lane)",
            ),
            (
                "警情 emergencies played",
                f"{outcome.causes} of {outcome.kinds} categories, among {outcome.near_misses} near-misses",
            ),
            (
                "事件 incidents at the platform",
                f"{outcome.incidents}: {outcome.delivered} matched, {outcome.lost} lost, {outcome.doubled} doubled",
            ),
            (
                "报警到回执 alarm to receipt",
                f"p50 {outcome.p50_ms} ms, p99 {outcome.p99_ms} ms, {tally.resent} sent again",
            ),
            ("未信值 values not believed", _tell(self._stats.get("rejected", {}))),
            ("隔离消息 quarantined", _tell(self._stats.get("quarantined", {}))),
            ("设备指令 commands", _tell(self._stats.get("commands", {}))),
            ("维护通知 maintenance notices", _tell(self._stats.get("notices", {}))),
        ]
        for name, value in rows:
            table.add_row(name, value)
        self._console.print(table)
        for cause in _unmatched(self._plan.causes, self._stored):
            self._console.print(f"[red]lost[/red] {cause.title} {cause.community} {cause.place} {cause.category}")
        for incident in _without_cause(self._plan.causes, self._stored):
            self._console.print(f"[red]without a cause[/red] {incident['number']} {incident['title']['zh']}")


class _View:
    """The live screen: numbers, the newest incidents, and how far the hour has come."""

    def __init__(self, console: Console, plan: Plan, tally: Tally, begins: int, until: int, *, plain: bool) -> None:
        self.stage = "playing"
        self._console = console
        self._plan = plan
        self._tally = tally
        self._begins = begins
        self._until = until
        self._plain = plain
        self._live: Live | None = None
        self._shown: dict[str, None] = {}
        self._last = (time.perf_counter(), tally.readings)
        self._rate = 0.0
        self._next = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.percentage:>3.0f} %")
        )
        self._bar = self._progress.add_task("19:30", total=until - begins)

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Shows the screen while this is open; plain lines where there is no terminal."""
        if self._plain:
            yield
            return
        with Live(console=self._console, refresh_per_second=8, transient=True) as self._live:
            yield

    def update(self, now: int, stats: Mapping[str, Any], stored: list[Mapping[str, Any]]) -> None:
        """Called often; draws some times a second."""
        real = time.perf_counter()
        if real < self._next:
            return
        self._next = real + 0.2
        if real - self._last[0] >= 1:
            self._rate = (self._tally.readings - self._last[1]) / (real - self._last[0])
            self._last = (real, self._tally.readings)
        opened = sorted((i for i in stored if i["sort"] == "incident"), key=lambda i: (i["opened_at"], i["number"]))
        for incident in opened:
            if incident["id"] not in self._shown:
                self._shown[incident["id"]] = None
                if self._plain:
                    self._console.print(_row(incident), highlight=False)
        if self._live is not None:
            self._progress.update(
                self._bar, completed=min(now, self._until) - self._begins, description=f"{_clock(now)} {self.stage}"
            )
            self._live.update(Group(self._numbers(stats, len(opened)), _newest(opened), self._progress))

    def _numbers(self, stats: Mapping[str, Any], opened: int) -> Text:
        outbox = stats.get("outbox", {})
        latencies = sorted(self._tally.latencies[-2000:])
        p99 = f"{_quantile(latencies, 0.99) * 1000:.0f} ms" if latencies else "–"
        return Text(
            f"读数 {self._rate:,.0f}/s   报警 {self._tally.alarms:,}   事件 {opened}   "
            f"已送达 {outbox.get('done', 0)}   待送 {outbox.get('waiting', 0)}   回执 p99 {p99}"
        )


def _newest(opened: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for name in ("时间", "级别", "编号", "地点", "类别", "事件"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for incident in opened[-SHOWN:]:
        zh, style = LEVELS[incident["level"]]
        table.add_row(
            _clock(incident["opened_at"]),
            Text(zh, style=style),
            incident["number"],
            incident["place_name"],
            incident["category"],
            incident["title"]["zh"].removeprefix(incident["place_name"]).strip(),
        )
    return table


def _row(incident: Mapping[str, Any]) -> str:
    zh, _ = LEVELS[incident["level"]]
    return f"{_clock(incident['opened_at'])} {zh} {incident['number']} {incident['category']} {incident['title']['zh']}"


def _unmatched(causes: list[Instance], stored: list[Mapping[str, Any]]) -> list[Instance]:
    found = {(i["community"], i["category"], i["place"]) for i in stored if i["sort"] == "incident"}
    return [cause for cause in causes if (cause.community, cause.category, cause.place) not in found]


def _without_cause(causes: list[Instance], stored: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    left = Counter((cause.community, cause.category, cause.place) for cause in causes)
    extra = []
    for incident in sorted(stored, key=lambda i: str(i["number"])):
        slot = (incident["community"], incident["category"], incident["place"])
        if incident["sort"] == "incident":
            left[slot] -= 1
            if left[slot] < 0:
                extra.append(incident)
    return extra


def _shifted(instances: tuple[Instance, ...], by: int) -> list[Instance]:
    return [
        replace(
            instance,
            begins=instance.begins + by,
            sendings=tuple(replace(sending, time=sending.time + by) for sending in instance.sendings),
        )
        for instance in instances
    ]


def _with_states(district: District, states: Mapping[str, Any]) -> District:
    communities = tuple(
        replace(
            settlement,
            devices=tuple(replace(d, state=states[d.id]) if d.id in states else d for d in settlement.devices),
        )
        for settlement in district.communities
    )
    return replace(district, communities=communities)


async def _drop_output(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None  # noqa: S101 - piped by the demo
    while await process.stdout.readline():
        pass


def _tell(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _clock(now: int) -> str:
    return datetime.fromtimestamp(now / 1000 + 8 * 3600, UTC).strftime("%H:%M:%S")


def _quantile(values: list[float], share: float) -> float:
    if not values:
        return math.nan
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=1000, method="inclusive")[max(0, round(share * 1000) - 1)]


def _real_ms() -> int:
    return time.time_ns() // 1_000_000
