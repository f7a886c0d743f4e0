"""The demo: broker, gateway, reference platform and a whole district of simulated communities, in one go.

An hour with emergencies in it is played at speed, shown as it happens, and then held against the truth: each incident
that the platform stored is matched to its cause by community, category and place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import httpx
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from edge.ending import end
from gateway.core.moves import FINAL, State
from simulators.agents import AgentSource, give_addresses, is_unhurried, start_agents
from simulators.district import COMMUNITIES, District, generate, generate_test_communities, mark_simulated, write
from simulators.handlers import Handlers, show_stage, show_stages, tell_moment, tell_stages
from simulators.player import PlayClock, Player, Tally
from simulators.processes import ProgramEnded, Programs, read_incidents, running, stop_on_signal
from simulators.scenario import Instance, Plan, compose
from simulators.scenario_file import read_scenarios
from simulators.tables import write_tables

START_MS: Final = round(datetime(2026, 11, 23, 19, 30, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp() * 1000)
"""The first simulated hour begins at 19:30."""

YEAR_MS: Final = 365 * 86_400_000
MINUTES: Final = 60
CAUSES: Final = 36
NEAR_MISSES: Final = 260
"""What a whole district sees in an hour."""

LEAST_LEAD_S: Final = 6.0
"""Real time from the start of the gateway to the beginning of the hour, at least. Starting takes about as long as
registering did; were the hour to begin first, the simulated time in between would look like silence."""

AGENT_LEAD_S: Final = 1.0
"""More of it for each agent that is started."""

ROLES: Final = {
    "dispatcher": "调度员",
    "grid_worker": "网格员",
    "property_manager": "物业",
    "tester": "测试员",
    "wall": "大屏",
    "administrator": "系统管理员",
    "security": "安全管理员",
    "auditor": "审计管理员",
}
"""An account of each role is made for whoever looks at the demo's pages."""

REST_MS: Final = MINUTES * 60_000
"""Where something happened, nothing happens again for so long (simulated) after its end, however soon it is closed."""

UNCLEARED_REST_MS: Final = 13 * 3_600_000
"""And for so long, if the platform was not told that the condition is over: a rule may hold it for true until the
device reports as on any day, which the slowest do every twelve hours."""

BETWEEN_MS: Final = 3 * 60_000
"""Simulated time from hour to hour, in which what is under way arrives."""

DRAIN_S: Final = 30.0
PLAIN_S: Final = 10.0
"""How often the numbers are told where there is no terminal, in real seconds."""

INTERRUPTED: Final = 130
PICTURE_WIDTH: Final = 100
SHOWN: Final = 12
MOMENTS: Final = 4
"""So many of the newest cases stand on the live screen, and of what has happened to cases lately."""

LEVELS: Final = {"normal": ("一般", "cyan"), "urgent": ("紧急", "yellow"), "critical": ("特急", "bold red")}


class Outcome(Struct, frozen=True):
    """What the demo came to. ``lost`` causes have no incident; ``doubled`` incidents have no cause of their own;
    ``undelivered`` messages or deliveries still wait or were refused. Latencies are None when there was no alarm."""

    communities: int
    devices: int
    readings: int
    causes: int
    incidents: int
    lost: int
    doubled: int
    delivered: int
    p50_ms: float | None
    p99_ms: float | None
    undelivered: int = 0

    @property
    def is_good(self) -> bool:
        """Nothing lost, doubled or undelivered."""
        is_whole = self.incidents == self.causes == self.delivered
        return is_whole and not (self.lost or self.doubled or self.undelivered)

    def line(self) -> str:
        """The last line of ``--once``."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name != "undelivered"}
        return json.dumps(shown)


class Match(Struct, frozen=True):
    """The platform's incidents against the causes: how many found each other, what is left on either side."""

    matched: int
    lost: tuple[Instance, ...]
    doubled: tuple[Mapping[str, Any], ...]


def match(causes: Iterable[Instance], stored: Iterable[Mapping[str, Any]]) -> Match:
    """Each cause takes one incident of its community, category and place; what is left over is lost or doubled."""
    left: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for incident in sorted(stored, key=lambda i: (i["opened_at"], i["number"])):
        left.setdefault((incident["community"], incident["category"], incident["place"]), []).append(incident)
    matched, lost = 0, []
    for cause in causes:
        found = left.get((cause.community, cause.category, cause.place))
        if found:
            found.pop(0)
            matched += 1
        else:
            lost.append(cause)
    return Match(matched, tuple(lost), tuple(incident for rest in left.values() for incident in rest))


def still_taken(causes: Iterable[Instance], stored: Iterable[Mapping[str, Any]], now: int) -> frozenset[str]:
    """The devices and places of causes that ended not long before ``now`` (ms), or where one of the platform's
    incidents is open: what happened there would be no incident of its own."""
    marks: set[str] = set()
    cleared: dict[str, int] = {}
    for incident in stored:
        where = f"{incident['category']}@{incident['place']}"
        cleared[where] = max(cleared.get(where, 0), incident["cleared_at"] or 0)
        if State(incident["state"]) not in FINAL:
            marks |= {*incident["devices"], where}

    def is_free(cause: Instance) -> bool:
        # What was only an event, such as a press, has no condition that could still hold.
        is_normal = not cause.acted or cleared.get(f"{cause.category}@{cause.place}", 0) >= cause.begins
        rest = REST_MS if is_normal else UNCLEARED_REST_MS
        return now >= cause.ends + rest and marks.isdisjoint(cause.marks)

    return frozenset(mark for cause in causes if not is_free(cause) for mark in cause.marks)


def run(
    *,
    once: bool,
    speed: float,
    seed: int,
    communities: int,
    agents: int = 0,
    picture: Path | None = None,
    folder: Path | None = None,
) -> int:
    """Runs the demo. The exit status: 1 when anything was lost, doubled or undelivered. So many communities go through
    real edge ``agents``; ``picture`` keeps what was printed as an SVG file; what all programs keep is in ``folder``, or
    gone afterwards."""
    width = PICTURE_WIDTH if picture is not None else None
    console = Console(highlight=False, soft_wrap=picture is None, record=picture is not None, width=width)
    try:
        return asyncio.run(
            _run(console, folder, once=once, speed=speed, seed=seed, communities=communities, agents=agents)
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("stopped")
        return INTERRUPTED if once else 0
    except (ProgramEnded, FileExistsError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 1
    finally:
        if picture is not None:
            console.save_svg(str(picture), title="make demo ONCE=1")


async def _run(
    console: Console, kept: Path | None, *, once: bool, speed: float, seed: int, communities: int, agents: int
) -> int:
    stop_on_signal()
    settings = {"SCG_CLOCK__SPEED": str(speed), "SCG_CLOCK__ANCHOR": str(START_MS)}
    with _open_folder(kept) as folder:
        async with running(folder, settings) as programs:
            demo = await _set_up(console, programs, speed, seed, communities, agents, with_accounts=not once)
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(demo.leave)
                while True:
                    outcome = await demo.play_hour(is_last=once)
                    if once:
                        print(outcome.line(), flush=True)
                        return 0 if outcome.is_good else 1


@contextlib.contextmanager
def _open_folder(kept: Path | None) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="scg-demo-") as folder:
            yield Path(folder)
    else:
        kept.mkdir(parents=True)
        yield kept


async def _set_up(
    console: Console,
    programs: Programs,
    speed: float,
    seed: int,
    communities: int,
    agents: int,
    *,
    with_accounts: bool = False,
) -> _Demo:
    """Everything started, connected and registered; the hour has not begun."""
    with _stage(console, f"a district from seed {seed}"):
        district = await asyncio.to_thread(generate, seed, communities)
        chosen = [settlement.community.id for settlement in district.communities[:agents]]
        district = give_addresses(district, chosen)
        plan = await asyncio.to_thread(compose_hour, seed, district, START_MS, None)
        tables = programs.folder / "district"
        tested = await asyncio.to_thread(generate_test_communities, seed) if with_accounts else None
        write_tables(_with_states(district, plan, tested), tables, has_desks=True)
    with _stage(console, f"registering {len(district.communities)} communities, {district.device_count} devices"):
        # Registered before the first reading: the clock all but stands still meanwhile.
        still = {"SCG_CLOCK__SPEED": "0.001", "SCG_CLOCK__ANCHOR_REAL": str(_real_ms())}
        begun = time.perf_counter()
        passwords = await programs.import_tables(tables, still)
        lead_s = max(LEAST_LEAD_S, time.perf_counter() - begun) + AGENT_LEAD_S * len(chosen)
    accounts: list[tuple[str, str, str]] = []
    shown = _choose_community(district, plan)
    if with_accounts:
        with _stage(console, "making an account of each role"):
            accounts = await _make_accounts(programs, district, shown, still)
    with _stage(console, "starting the reference platform"):
        port = programs.free_port()
        platform = await programs.start_platform(f"http://127.0.0.1:{port}/platform/callbacks")
    # The clock stands at the hour while everything starts, so that no heartbeat runs out meanwhile.
    clock = PlayClock(speed, _real_ms() + round(lead_s * 1000), START_MS)
    with _stage(console, "starting broker and gateway"):
        now = {"SCG_CLOCK__ANCHOR_REAL": str(clock.anchor_real)}
        broker = await programs.start_gateway(platform, now)
        stand = await start_stand(programs, tested, broker, clock, seed) if tested is not None else {}
        await programs.start_web(port, now | stand)
    player = Player(district, clock, seed, secrets.token_hex(3), dict.fromkeys(chosen, AgentSource))
    tasks: list[asyncio.Task[None]] = []
    try:
        with _stage(console, f"connecting {len(player.sources)} sources to {broker}"):
            through = await start_agents(programs, district.communities[:agents], broker, passwords, clock)
            tasks += await player.connect(broker, passwords, through)
            await player.wait_until_connected()
            await asyncio.sleep(max(0, START_MS - clock.now()) / speed / 1000)
    except BaseException:
        await end(tasks)
        raise
    if accounts:
        page = await programs.print_sheet(shown, shown, f"http://127.0.0.1:{port}", now)
        _show_accounts(console, port, accounts, page)
    return _Demo(console, programs, platform, now, seed, district, plan, clock, player, tasks)


async def start_stand(programs: Programs, tested: District, broker: str, clock: PlayClock, seed: int) -> dict[str, str]:
    """Starts the test stand on its communities, which were imported. Returns the settings by which it is found."""
    file = programs.folder / "stand.json"
    write(tested, file)
    return await programs.start_stand(
        file, broker, speed=clock.speed, anchor_real=clock.anchor_real, anchor=clock.anchor, seed=seed
    )


def _choose_community(district: District, plan: Plan) -> str:
    """The one whose property manager has the most to look after: silent devices, and what is played there."""
    busy = Counter(instance.community for instance in plan.instances)
    for settlement in district.communities:
        busy[settlement.community.id] += sum(device.id in district.silent for device in settlement.devices)
    return max((settlement.community.id for settlement in district.communities), key=lambda id: busy[id])


async def _make_accounts(
    programs: Programs, district: District, shown: str, settings: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """(role, name, password) of an account of each role: the property manager's and the grid worker's are of the
    community ``shown``, all others of the whole district."""
    everything = next(grid.code for grid in district.grids if grid.parent is None)
    scopes = {"property_manager": ("--community", shown), "grid_worker": ("--community", shown)}
    made = await asyncio.gather(
        *(programs.add_account(role, scopes.get(role, ("--grid", everything)), settings) for role in ROLES)
    )
    return [(role, *account) for role, account in zip(ROLES, made, strict=True)]


def _show_accounts(console: Console, port: int, accounts: Iterable[tuple[str, str, str]], page: str) -> None:
    """Where to look, and as whom; and the page that a resident's telephone opens from the QR code on a wall."""
    console.print(f" 网页 console  http://127.0.0.1:{port}/", style="bold")
    console.print(f" 求助 resident  {page}", style="bold")
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2))
    for role, name, password in accounts:
        table.add_row("", ROLES[role], name, password)
    console.print(table)


class _Demo:
    """The running demo, hour after hour."""

    def __init__(
        self,
        console: Console,
        programs: Programs,
        platform: str,
        settings: Mapping[str, str],
        seed: int,
        district: District,
        plan: Plan,
        clock: PlayClock,
        player: Player,
        tasks: list[asyncio.Task[None]],
    ) -> None:
        self._console = console
        self._programs = programs
        self._settings = settings
        self._client = httpx.AsyncClient(base_url=platform, trust_env=False, timeout=10)
        self._seed = seed
        self._district = district
        self._plan = plan
        self._clock = clock
        self._player = player
        self._stored: list[Mapping[str, Any]] = []
        self._handlers = Handlers(self._client, clock.now, lambda: self._stored, seed)
        self._working = asyncio.create_task(self._handlers.run())
        self._tasks: list[asyncio.Task[Any]] = [*tasks, asyncio.create_task(self._read_stored()), self._working]
        self._stages = ""
        self._appraisal = ""
        self._notices: dict[str, int] = {}
        self._causes: list[Instance] = []
        self._near_misses = 0

    async def leave(self) -> None:
        """Hangs up."""
        await end(self._tasks)
        await self._client.aclose()

    async def play_hour(self, *, is_last: bool) -> Outcome:
        """Plays one hour and compares what the platform has with what was played since the beginning; if it is the
        last, when all is receipted and delivered."""
        player = self._player
        begins = self._clock.now()
        until = begins + MINUTES * 60_000
        if self._causes:
            # Incidents of earlier hours may still be open at their places.
            earlier = replace(self._plan, taken=still_taken(self._causes, self._stored, begins))
            self._plan = compose_hour(self._seed, self._district, begins, earlier)
            instances = list(self._plan.instances)
        else:
            instances = [instance.moved(begins - START_MS) for instance in self._plan.instances]
        # What must come at its second is played where the sources stamp it themselves.
        agents = self._player.others
        instances = [one for one in instances if one.community not in agents or is_unhurried(one)]
        self._causes += [instance for instance in instances if instance.is_cause]
        self._near_misses += sum(not instance.is_cause for instance in instances)
        player.cast(instances)
        view = _View(self._console, player.tally, begins, until)
        if self._plan.left_out:
            view.say(f"left out for want of a free device: {_tell(Counter(self._plan.left_out))}")
        with view.live():
            show = self._shower(view)
            await player.play(until, show)
            view.stage = "draining"
            self._stages = tell_stages(self._stored)
            self._notices = dict(self._programs.stats.get("notices", {}))
            appraising = asyncio.create_task(self._programs.appraise(_iso(begins), _iso(until), self._settings))
            self._tasks.append(appraising)
            if is_last:
                await player.drain(DRAIN_S, show)
                self._appraisal = _tell_appraisal(await appraising)
                self._working.cancel()
                view.stage = "finishing"
                view.say("收班 the hour is over, and the people finish what is open")
                await self._handlers.finish()
                await self._settle(show)
            else:
                await player.play(until + BETWEEN_MS, show)
                self._appraisal = _tell_appraisal(await appraising)
        outcome = self._judge(is_last=is_last)
        self._summarise(outcome)
        return outcome

    def _shower(self, view: _View) -> Callable[[int], None]:
        def show(now: int) -> None:
            if self._programs.ended:
                raise ProgramEnded(f"gateway or platform ended\n{self._programs.last_words()}")
            view.update(now, self._programs.stats, self._stored)

        return show

    async def _settle(self, show: Callable[[int], None]) -> None:
        """Waits until the gateway's outbox is empty and the platform's store has been read after that."""
        deadline = time.perf_counter() + DRAIN_S
        quiet = 0
        while time.perf_counter() < deadline and quiet < 3:
            await asyncio.sleep(1.0)
            show(self._clock.now())
            stats = self._programs.stats
            opened = sum(stats.get("incidents", {}).values())
            is_quiet = not stats.get("outbox", {}).get("waiting", 0) and opened <= len(self._stored)
            quiet = quiet + 1 if is_quiet else 0

    async def _read_stored(self) -> None:
        while True:
            begun = time.perf_counter()
            found = await read_incidents(self._client)
            if found is not None:
                # What testers play is no part of the hour.
                known = {settlement.community.id for settlement in self._district.communities}
                mine = (incident for incident in found if incident["sort"] == "incident")
                self._stored = [incident for incident in mine if incident["community"] in known]
            # The longer the list has become, the less often it is asked for.
            await asyncio.sleep(max(0.5, 10 * (time.perf_counter() - begun)))

    def _judge(self, *, is_last: bool) -> Outcome:
        found = match(self._causes, self._stored)
        latencies = sorted(self._player.tally.latencies)
        outbox = self._programs.stats.get("outbox", {})
        return Outcome(
            communities=len(self._district.communities),
            devices=self._district.device_count,
            readings=self._player.tally.readings,
            causes=len(self._causes),
            incidents=len(self._stored),
            lost=len(found.lost),
            doubled=len(found.doubled),
            delivered=found.matched,
            p50_ms=_quantile_ms(latencies, 0.5),
            p99_ms=_quantile_ms(latencies, 0.99),
            undelivered=outbox.get("waiting", 0) + outbox.get("dead", 0) + (self._player.waiting if is_last else 0),
        )

    def _summarise(self, outcome: Outcome) -> None:
        tally, stats = self._player.tally, self._programs.stats
        found = match(self._causes, self._stored)
        kinds = len({cause.scenario for cause in self._causes})
        left = f"{outcome.lost} lost, {outcome.doubled} doubled, {outcome.undelivered} undelivered"
        table = Table(title="小结 · summary", title_justify="left", show_header=False, box=None)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        rows = [
            ("小区 communities", f"{outcome.communities}, with {outcome.devices:,} devices"),
            (
                "读数 readings",
                f"{outcome.readings:,} in {tally.messages:,} messages, {tally.alarms:,} of them in the alarm lane",
            ),
            ("警情 causes played", f"{outcome.causes} of {kinds} kinds, among {self._near_misses} near-misses"),
            (
                "事件 incidents",
                f"{outcome.incidents} at the platform: {outcome.delivered} matched, {left}",
            ),
            (
                "报警到回执 alarm to receipt",
                f"p50 {outcome.p50_ms} ms, p99 {outcome.p99_ms} ms (real time), {tally.resent} sent again",
            ),
            ("整点办理 stages at the platform", self._stages),
            ("考核 appraisal of the hour", self._appraisal),
            ("平台回传 acts by callback", _tell(self._handlers.answers)),
            ("不可信值 values not believed", _tell(stats.get("rejected", {}))),
            ("隔离消息 quarantined", _tell(stats.get("quarantined", {}))),
            ("设备指令 commands", _tell(stats.get("commands", {}))),
            ("维护通知 maintenance notices", _tell(self._notices)),
        ]
        for name, value in rows:
            table.add_row(name, value)
        self._console.print(table)
        for cause in found.lost:
            self._console.print(
                f"lost: {cause.title['en']} ({cause.scenario}) {cause.device} {cause.category} at {cause.place}, "
                f"{_clock(cause.begins)}",
                style="red",
                markup=False,
            )
        for incident in found.doubled:
            self._console.print(
                f"without a cause of its own: {incident['number']} {incident['title']['zh']} "
                f"({incident['rule']}, {', '.join(incident['devices'])}), {_clock(incident['opened_at'])}",
                style="red",
                markup=False,
            )


@contextlib.contextmanager
def _stage(console: Console, what: str) -> Iterator[None]:
    """Says what is being set up while it is, and how long it took."""
    begun = time.perf_counter()
    with console.status(f"{what} …") if console.is_terminal else contextlib.nullcontext():
        yield
    console.print(f"[dim]· {what}: {time.perf_counter() - begun:.1f} s[/dim]")


class _View:
    """The live screen: numbers, the newest incidents, and how far the hour has come."""

    def __init__(self, console: Console, tally: Tally, begins: int, until: int) -> None:
        self.stage = "playing"
        self._console = console
        self._tally = tally
        self._begins = begins
        self._until = until
        self._plain = not console.is_terminal
        self._live: Live | None = None
        self._shown: dict[str, int] = {}
        self._moments: list[str] = []
        self._last = (time.perf_counter(), tally.readings)
        self._rate = 0.0
        self._next = 0.0
        self._told = time.perf_counter()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.percentage:>3.0f} %")
        )
        self._bar = self._progress.add_task("", total=until - begins)

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Shows the screen while this is open; plain lines where there is no terminal."""
        if self._plain:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            yield

    def say(self, words: str) -> None:
        """Tells once what comes next."""
        self._console.print(f"[dim]· {words}[/dim]")

    def update(self, now: int, stats: Mapping[str, Any], stored: list[Mapping[str, Any]]) -> None:
        """Called often; draws some times a second."""
        real = time.perf_counter()
        if real < self._next:
            return
        self._next = real + 0.2
        if real - self._last[0] >= 1:
            self._rate = (self._tally.readings - self._last[1]) / (real - self._last[0])
            self._last = (real, self._tally.readings)
        opened = sorted(stored, key=lambda i: (i["opened_at"], i["number"]))
        if self._live is not None:
            now = min(now, self._until)
            self._progress.update(self._bar, completed=now - self._begins, description=f"{_clock(now)} {self.stage}")
            self._moments = [*self._moments, *self._news(opened, with_new=False)][-MOMENTS:]
            moments = Text("\n".join(self._moments), style="dim")
            self._live.update(
                Group(self._numbers(stats, opened), _newest(opened), moments, self._progress), refresh=True
            )
            return
        for line in self._news(opened, with_new=True):
            self._console.print(line, markup=False)
        if real - self._told >= PLAIN_S:
            self._told = real
            self.say(f"{_clock(now)} {self._numbers(stats, opened).plain}")

    def _news(self, opened: list[Mapping[str, Any]], *, with_new: bool) -> list[str]:
        """What has happened to the cases since this was asked last, by time: new ones, and moments of known ones."""
        found: list[tuple[int, str]] = []
        for incident in opened:
            id, timeline = incident["id"], incident["timeline"]
            if id not in self._shown and with_new and incident["opened_at"] >= self._begins:
                found.append((incident["opened_at"], _row(incident)))
            for line in timeline[self._shown.get(id, 0) :]:
                moment = tell_moment(incident, line) if line["at"] >= self._begins else None
                if moment is not None:
                    found.append((line["at"], f"{_clock(line['at'])} {moment}"))
            self._shown[id] = len(timeline)
        return [text for _, text in sorted(found)]

    def _numbers(self, stats: Mapping[str, Any], opened: list[Mapping[str, Any]]) -> Text:
        outbox = stats.get("outbox", {})
        latencies = sorted(self._tally.latencies)
        p50, p99 = (_quantile_ms(latencies, share) or 0 for share in (0.5, 0.99))
        return Text(
            f"读数 {self._rate:,.0f}/s   报警 {self._tally.alarms:,}   事件 {len(opened)}   "
            f"已送达 {outbox.get('done', 0)}   待送 {outbox.get('waiting', 0)}   "
            f"报警→回执 p50 {p50:.0f} ms, p99 {p99:.0f} ms   办理 {show_stages(opened)}"
        )


def _newest(opened: list[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for name in ("时间", "级别", "编号", "地点", "类别", "事件", "办理"):
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
            show_stage(incident),
        )
    return table


def _row(incident: Mapping[str, Any]) -> str:
    zh, _ = LEVELS[incident["level"]]
    return f"{_clock(incident['opened_at'])} {zh} {incident['number']} {incident['category']} {incident['title']['zh']}"


def compose_hour(seed: int, district: District, start: int, earlier: Plan | None) -> Plan:
    """As many scenarios as suit the district, every one at least once; after an ``earlier`` hour, those for which
    there is a place."""
    scenarios = read_scenarios()
    share = min(1.0, len(district.communities) / COMMUNITIES)
    kinds = sum(scenario.expect is not None for scenario in scenarios)
    causes = max(kinds, round(CAUSES * share))
    near_misses = max(len(scenarios) - kinds, round(NEAR_MISSES * share))
    may_leave_out = earlier is not None
    return compose(seed, district, start, MINUTES, causes, near_misses, scenarios, earlier, may_leave_out=may_leave_out)


def _with_states(district: District, plan: Plan, tested: District | None) -> District:
    """The devices in the states that the plan plays them in, for longer than anybody watches, all marked as simulated;
    and with them the test stand's communities."""
    communities = tuple(
        replace(
            mark_simulated(settlement),
            devices=tuple(
                replace(d, state=plan.states[d.id], state_until=START_MS + YEAR_MS) if d.id in plan.states else d
                for d in settlement.devices
            ),
        )
        for settlement in district.communities
    )
    return replace(district, communities=communities + (tested.communities if tested is not None else ()))


def _tell(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _tell_appraisal(total: Mapping[str, Any]) -> str:
    """The appraisal in a line: what a manager looks at first."""

    def minutes(name: str) -> str:
        return "none" if total[name] is None else f"{total[name] / 60_000:.1f} min"

    return (
        f"{total['number']} opened: response median {minutes('response_median_ms')}, "
        f"90 % {minutes('response_p90_ms')}; {total['closed']} closed, median {minutes('closing_median_ms')}, "
        f"{total['in_time']} of them in time; {total['steps_in_time']} of {total['steps']} steps in time; "
        f"{total['whistles_answered']} of {total['whistles']} whistles answered"
    )


def _iso(now: int) -> str:
    return datetime.fromtimestamp(now / 1000, ZoneInfo("Asia/Shanghai")).isoformat(timespec="milliseconds")


def _clock(now: int) -> str:
    return datetime.fromtimestamp(now / 1000, ZoneInfo("Asia/Shanghai")).strftime("%H:%M:%S")


def _quantile_ms(seconds: list[float], share: float) -> float | None:
    """Of sorted seconds, in ms; None of none."""
    if not seconds:
        return None
    return round(seconds[min(len(seconds) - 1, math.ceil(share * len(seconds)) - 1)] * 1000, 1)


def _real_ms() -> int:
    return time.time_ns() // 1_000_000
