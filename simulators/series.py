"""Plays a recorded series (a CSV file) as one device: with its own spacing, gaps and all, in its own unit.

With a number as speed it goes over MQTT, from a spool, until everything has its receipt: to a gateway that runs
already, or to one that is started for it. With ``max`` the core judges it in this process, on the recording's own
clock: exact, and as fast as it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import math
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from edge.ending import end
from gateway.core.district import JIMO
from gateway.core.engine import Engine
from gateway.core.model import (
    Community,
    Delivery,
    Device,
    Grid,
    GridLevel,
    Incident,
    Place,
    PlaceKind,
    RegistryChange,
    Step,
    Tick,
    Value,
)
from gateway.core.model import Source as RegisteredSource
from gateway.core.profile import ReadingSpec
from gateway.core.state import CommunityState
from simulators.catalog import read_catalog
from simulators.district import District, Settlement, write
from simulators.player import STEP_S, PlayClock, Source, Tally, read_passwords
from simulators.processes import ProgramEnded, Programs, running, stop_on_signal
from simulators.scenario_file import Part, Sending

LOCAL: Final = ZoneInfo("Asia/Shanghai")
"""Times without a zone are local, as everywhere in the gateway."""

FASTEST: Final = 10_000.0
"""The fastest that a gateway's clock runs (its settings say so)."""

LEAD_S: Final = 8.0
"""Real time between the start of the gateway and the first reading, at most."""

LAG_MS: Final = 30_000
"""A reading that is sent later than this after its time, on the simulated clock, is taken in that much later instead.
The gateway calls a reading late after 60 s, and what is late opens nothing: that would be the fault of the machine
that plays, not of the recording."""

DRAIN_S: Final = 60.0
INTERRUPTED: Final = 130


class SeriesError(Exception):
    """A replay that cannot begin; the text says where and what to do."""


class Sample(Struct, frozen=True):
    """One row: its time in ms UTC, and its value in the recording's unit."""

    time: int
    value: Value


class Series(Struct, frozen=True):
    """A recording in the order of its rows. ``bad`` has one line for each row that cannot be played."""

    samples: tuple[Sample, ...]
    bad: tuple[str, ...]

    @property
    def start(self) -> int:
        return self.samples[0].time

    @property
    def end(self) -> int:
        return self.samples[-1].time


class Stage(Struct, frozen=True):
    """Who plays: the community, source and device on the wire, and what of the device's profile the column is."""

    community: str
    source: str
    device: str
    profile: str
    reading: str
    unit: str | None

    def settlement(self) -> Settlement:
        """The one community, with this one device in its plant room."""
        community = Community(self.community, 1, "回放小区", (JIMO.prefix,))
        places = (
            Place(self.community, PlaceKind.COMMUNITY, "回放小区"),
            Place(f"{self.community[:40]}-room", PlaceKind.PUBLIC, "设备间", self.community),
        )
        room = places[1].id
        device = Device(self.device, self.profile, self.source, room, "回放设备")
        return Settlement(community, places, (RegisteredSource(self.source, room),), (device,))

    def sending(self, sample: Sample, taken: int) -> Sending:
        part = Part(self.device, self.reading, sample.value, self.unit)
        return Sending(taken, (part,), self.device, None, {}, 0, False)


class Opened(Struct, frozen=True):
    """A case that the recording opened: ``sort`` is ``incident`` or ``notice``."""

    at: int
    sort: str
    rule: str
    title: str
    signals: int


class Outcome(Struct, frozen=True):
    """What became of the recording. ``judged`` and ``opened`` are None where only the other gateway
    knows, ``receipted`` where nothing was published."""

    played: int
    receipted: int | None
    judged: int | None
    rejected: dict[str, int]
    opened: tuple[Opened, ...] | None
    moved: int = 0
    """Readings that were played later than recorded, because the machine could not follow; by how much at most."""
    moved_most_ms: int = 0


# --- reading ---------------------------------------------------------------------------------------------------------


def read_series(path: Path, column: str, spec: ReadingSpec) -> Series:
    """Reads the columns ``timestamp`` and ``column``. Raises SeriesError when there is nothing to play."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames
            if not names:
                raise SeriesError(f"{path}: the file is empty; its first row names the columns")
            for name in ("timestamp", column):
                if name not in names:
                    raise SeriesError(f"{path}:1: there is no column {name!r}; it has {', '.join(names)}")
            samples, bad = _read_rows(path, reader, column, spec)
    except OSError as error:
        raise SeriesError(f"{path}: cannot read it: {error.strerror}; give a CSV file") from error
    except UnicodeDecodeError as error:
        raise SeriesError(f"{path}: it is no UTF-8 text; give a CSV file") from error
    except csv.Error as error:
        raise SeriesError(f"{path}: it is no CSV: {error}") from error
    if not samples:
        more = f"; the first of {len(bad)} bad rows: {bad[0]}" if bad else ""
        raise SeriesError(f"{path}: no row can be played{more}")
    return Series(tuple(samples), tuple(bad))


def _read_rows(
    path: Path, reader: csv.DictReader[str], column: str, spec: ReadingSpec
) -> tuple[list[Sample], list[str]]:
    samples: list[Sample] = []
    bad: list[str] = []
    for row in reader:
        where = f"{path.name}:{reader.line_num}"
        try:
            at = read_time(row["timestamp"])
            value = read_value(row[column], spec)
            if samples and at < samples[-1].time:
                raise ValueError(f"{row['timestamp']} is before the row above, {_local(samples[-1].time)}")
        except ValueError as error:
            bad.append(f"{where}: {error}; the row is left out")
            continue
        samples.append(Sample(at, value))
    return samples, bad


def read_time(text: str | None) -> int:
    """ISO 8601, local where it names no zone, in ms UTC. Raises ValueError."""
    try:
        found = datetime.fromisoformat((text or "").strip())
    except ValueError:
        raise ValueError(f"{text or ''!r} is no time such as 2013-07-04 00:00:00") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=LOCAL)
    return round(found.timestamp() * 1000)


def read_value(text: str | None, spec: ReadingSpec) -> Value:
    """The value as the reading's type wants it. Raises ValueError."""
    plain = (text or "").strip()
    if spec.type == "text":
        if not plain:
            raise ValueError("there is no value")
        return plain
    if spec.type == "boolean":
        found = {"0": False, "1": True, "false": False, "true": True}.get(plain.lower())
        if found is None:
            raise ValueError(f"{plain!r} is neither 0 nor 1, true nor false")
        return found
    try:
        number = float(plain)
    except ValueError:
        raise ValueError(f"{plain!r} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{plain!r} is no finite number")
    return number


def find_reading(profile: str, reading: str | None, column: str, unit: str | None) -> ReadingSpec:
    """What the column is: the named reading, else the one of the column's name, else the profile's first.

    Raises SeriesError for an unknown profile, reading or unit, with those that there are."""
    profiles = read_catalog().profiles
    found = profiles.get(profile)
    if found is None:
        raise SeriesError(f"--profile: there is no profile {profile!r}; there are {', '.join(sorted(profiles))}")
    if not found.readings:
        raise SeriesError(f"--profile: {profile} has no readings to play")
    name = reading or (column if column in found.readings else next(iter(found.readings)))
    spec = found.readings.get(name)
    if spec is None:
        raise SeriesError(f"--reading: {profile} has no reading {name!r}; it has {', '.join(found.readings)}")
    known = [*([spec.unit] if spec.unit else []), *spec.units]
    if unit is not None and unit not in known:
        raise SeriesError(f"--unit: {name} is not measured in {unit!r}; known: {', '.join(known) or 'no unit at all'}")
    return spec


def read_speed(text: str, url: str | None) -> float | None:
    """A number, or None for ``max``. Raises SeriesError."""
    if text == "max":
        if url is not None:
            raise SeriesError("--speed: max judges in this process and publishes nothing; with --url give a number")
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed <= FASTEST:
        raise SeriesError(f"--speed: {text} is neither max nor a number above 0 and up to {FASTEST:g}")
    return speed


# --- judging in this process -----------------------------------------------------------------------------------------


def judge(series: Series, stage: Stage) -> Outcome:
    """Feeds the recording to the core, each reading at its own time."""
    settlement = stage.settlement()
    engine = Engine(read_catalog(), CommunityState(settlement.community))
    change = RegistryChange("replay", settlement.places, settlement.sources, settlement.devices)
    engine.feed(change, series.start)
    source = Source(settlement, (), PlayClock(1.0, 0, 0), Tally(), "replay")
    judged, rejected = 0, Counter[str]()
    incidents: dict[str, Incident] = {}
    for sample in series.samples:
        steps = _ticks(engine, sample.time)
        message = source.take(stage.sending(sample, sample.time))
        steps.append(engine.feed(Delivery(message, b""), sample.time))
        for step in steps:
            judged += step.judged
            rejected.update(found.reason for found in step.rejected)
            incidents.update((incident.id, incident) for incident in step.incidents)
    opened = (Opened(i.opened_at, str(i.sort), i.rule, i.title["zh"], i.signals) for i in incidents.values())
    count = len(series.samples)
    return Outcome(count, None, judged, dict(rejected), _in_order(opened))


def _ticks(engine: Engine, until: int) -> list[Step]:
    """The engine's deadlines before ``until``, each at its time."""
    steps: list[Step] = []
    while (due := engine.next_deadline()) is not None and due < until:
        steps.append(engine.feed(Tick(), due))
    return steps


def _in_order(opened: Iterator[Opened]) -> tuple[Opened, ...]:
    return tuple(sorted(opened, key=lambda one: (one.at, one.rule)))


# --- playing over MQTT -----------------------------------------------------------------------------------------------


class Recorder:
    """Plays a series from one source's spool, each reading when its time has come."""

    def __init__(self, series: Series, stage: Stage, clock: PlayClock) -> None:
        self.played = 0
        self.moved = 0
        self.moved_most_ms = 0
        self.tally = Tally()
        self._series = series
        self._stage = stage
        self._clock = clock
        self.source = Source(stage.settlement(), (), clock, self.tally, f"replay-{secrets.token_hex(4)}")

    def begin(self, now: int) -> None:
        """The recording begins at ``now``, in ms of the clock."""
        self._series = _moved(self._series, now - self._series.start)

    async def play(self, progress: Progress) -> None:
        """Plays all of it. ``sent_at - taken_at`` is the gateway's measure of a reading's time, so a reading is taken
        in at its recorded time, however few real milliseconds lie between two."""
        bar = progress.add_task("", total=len(self._series.samples))
        shown = 0.0
        for sample in self._series.samples:
            await self._wait_until(sample.time)
            taken = max(sample.time, self._clock.now() - LAG_MS)
            if taken > sample.time:
                self.moved += 1
                self.moved_most_ms = max(self.moved_most_ms, taken - sample.time)
            self.source.take(self._stage.sending(sample, taken))
            self.source.send()
            self.played += 1
            if time.perf_counter() - shown > 0.2:
                shown = time.perf_counter()
                progress.update(bar, completed=self.played, description=_local(sample.time))

    async def _wait_until(self, due: int) -> None:
        while (left := (due - self._clock.now()) / self._clock.speed / 1000) > 0:
            await asyncio.sleep(min(left, STEP_S))
            self.source.send()
            self.source.resend()
        # Receipts are read even where the recording is behind and never has to wait.
        await asyncio.sleep(0)

    async def drain(self) -> None:
        """Waits until everything has its receipt. Raises SeriesError when that takes too long."""
        deadline = time.perf_counter() + DRAIN_S
        while self.source.depth:
            if time.perf_counter() > deadline:
                raise SeriesError(f"{self.source.depth} readings are without a receipt; does a gateway listen?")
            self.source.send()
            self.source.resend()
            await asyncio.sleep(STEP_S)


@contextlib.asynccontextmanager
async def _connected(recorder: Recorder, url: str, password: str | None) -> AsyncIterator[None]:
    task = asyncio.create_task(recorder.source.run(url, password))
    try:
        try:
            await asyncio.wait_for(recorder.source.connected.wait(), 15)
        except TimeoutError:
            why = recorder.source.trouble or "no answer"
            raise SeriesError(f"{url}: cannot connect as {recorder.source.id}: {why}") from None
        yield
    finally:
        await end([task])


async def play_to(
    url: str, password: str | None, series: Series, stage: Stage, speed: float, console: Console
) -> Outcome:
    """Plays to a gateway that runs already, beginning now."""
    real = _real_ms()
    clock = PlayClock(speed, real, real)
    recorder = Recorder(series, stage, clock)
    async with _connected(recorder, url, password):
        recorder.begin(clock.now())  # connecting takes minutes on a clock that runs so much faster
        with _progress(console) as progress:
            await recorder.play(progress)
        await recorder.drain()
    rejected = {"message": recorder.tally.rejected} if recorder.tally.rejected else {}
    return Outcome(recorder.played, recorder.played, None, rejected, None, recorder.moved, recorder.moved_most_ms)


async def play_alone(series: Series, stage: Stage, speed: float, console: Console) -> Outcome:
    """Plays to a gateway of its own, which knows this one device and ends with it."""
    settings = {"SCG_CLOCK__SPEED": str(speed), "SCG_CLOCK__ANCHOR": str(series.start)}
    with tempfile.TemporaryDirectory(prefix="scg-replay-") as folder:
        async with running(Path(folder), settings) as programs:
            settlement = stage.settlement()
            grids = (Grid(JIMO.prefix, GridLevel.DISTRICT, "即墨区"),)
            file = Path(folder) / "district.json"
            write(District(grids, (settlement,), {}, frozenset()), file)
            # Registered at the first reading's time, at which the gateway's clock stands while it starts: no heartbeat
            # runs out meanwhile.
            still = {"SCG_CLOCK__SPEED": "0.001", "SCG_CLOCK__ANCHOR_REAL": str(_real_ms())}
            passwords = await programs.register(file, still)
            clock = PlayClock(speed, _real_ms() + round(LEAD_S * 1000), series.start)
            url = await programs.start_gateway(None, {"SCG_CLOCK__ANCHOR_REAL": str(clock.anchor_real)})
            recorder = Recorder(series, stage, clock)
            async with _connected(recorder, url, passwords[stage.source]):
                with _progress(console) as progress:
                    await recorder.play(progress)
                await recorder.drain()
                await _settled(programs)
                cases = await programs.list_cases()
    rejected = dict(programs.stats.get("rejected", {}))
    opened = _in_order(
        Opened(i["opened_at"], i["sort"], i["rule"], i["title"]["zh"], i["signals"])
        for i in cases
        # The gateway's clock runs on: that the device is silent after its last row is not in the recording.
        if i["opened_at"] <= series.end
    )
    judged = int(programs.stats.get("readings", 0))
    return Outcome(recorder.played, recorder.played, judged, rejected, opened, recorder.moved, recorder.moved_most_ms)


async def _settled(programs: Programs) -> None:
    """Returns when the gateway has counted everything. Raises SeriesError when that takes too long."""
    deadline = time.perf_counter() + DRAIN_S
    # The line that is on its way now may have been counted before the last receipt.
    for _ in range(2):
        before = programs.stats
        while programs.stats is before:
            if time.perf_counter() > deadline or programs.ended:
                raise SeriesError(f"the gateway tells no counts any more\n{programs.last_words()}")
            await asyncio.sleep(0.1)


def _moved(series: Series, by: int) -> Series:
    return replace(series, samples=tuple(Sample(s.time + by, s.value) for s in series.samples))


# --- the command -----------------------------------------------------------------------------------------------------


def run(
    file: Path,
    column: str,
    stage: Stage,
    spec: ReadingSpec,
    speed: float | None,
    url: str | None = None,
    password_file: Path | None = None,
) -> int:
    """Plays and tells. The exit status: 0, or 130 when it was interrupted. Raises SeriesError."""
    console = Console(soft_wrap=True, highlight=False)
    series = read_series(file, column, spec)
    for line in series.bad:
        print(line, file=sys.stderr)
    password = _password_of(stage.source, password_file)
    began = time.perf_counter()
    hours = (series.end - series.start) / 3_600_000
    pace = "in this process" if speed is None else f"at speed {speed:g}, for {_span(hours * 3600 / speed)}"
    console.print(f"[dim]· {len(series.samples):,} readings of {hours:,.1f} h, {pace}[/dim]")
    if speed is None:
        outcome = judge(series, stage)
    else:
        try:
            outcome = asyncio.run(_over_mqtt(series, stage, speed, console, url, password))
        except (asyncio.CancelledError, KeyboardInterrupt):
            console.print("stopped")
            return INTERRUPTED
        except ProgramEnded as error:
            raise SeriesError(str(error)) from error
    _tell(console, series, outcome)
    print(_last_line(file, series, outcome, speed, time.perf_counter() - began), flush=True)
    return 0


async def _over_mqtt(
    series: Series, stage: Stage, speed: float, console: Console, url: str | None, password: str | None
) -> Outcome:
    stop_on_signal()
    if url is None:
        return await play_alone(series, stage, speed, console)
    return await play_to(url, password, series, stage, speed, console)


def _password_of(source: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        found = read_passwords(path.read_text(encoding="utf-8")).get(source)
    except OSError as error:
        raise SeriesError(f"{path}: cannot read it: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise SeriesError(f"{path}: it is no file of passwords as `gateway register` writes it") from error
    if found is None:
        raise SeriesError(f"{path}: it has no password for {source}; name the source with --source")
    return found


def _tell(console: Console, series: Series, outcome: Outcome) -> None:
    for one in outcome.opened or ():
        mark = "事件 incident" if one.sort == "incident" else "通知 notice  "
        console.print(f"{_local(one.at)}  {mark}  {one.rule:<28} {one.title}  ({one.signals} signals)")
    if outcome.opened is not None and not outcome.opened:
        console.print("nothing was opened")
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(outcome.rejected.items())) or "none rejected"
    judged = "judged by the other gateway" if outcome.judged is None else f"{outcome.judged:,} judged"
    receipted = "" if outcome.receipted is None else f"{outcome.receipted:,} receipted, "
    console.print(
        f"[dim]· {_local(series.start)} to {_local(series.end)}: {outcome.played:,} played, {receipted}{judged}, "
        f"{rejected}, {len(series.bad)} bad rows[/dim]"
    )
    if outcome.moved:
        console.print(
            f"[yellow]{outcome.moved:,} readings were played later than recorded, by up to "
            f"{_span(outcome.moved_most_ms / 1000)}: choose a lower --speed, or max[/yellow]"
        )


def _last_line(file: Path, series: Series, outcome: Outcome, speed: float | None, seconds: float) -> str:
    opened = outcome.opened
    return json.dumps(
        {
            "file": file.name,
            "speed": "max" if speed is None else speed,
            "readings": outcome.played,
            "bad_rows": len(series.bad),
            "receipted": outcome.receipted,
            "judged": outcome.judged,
            "rejected": sum(outcome.rejected.values()),
            "incidents": None if opened is None else sum(one.sort == "incident" for one in opened),
            "notices": None if opened is None else sum(one.sort == "notice" for one in opened),
            "moved": outcome.moved,
            "seconds": round(seconds, 1),
        }
    )


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _local(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, LOCAL).strftime("%Y-%m-%d %H:%M:%S")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _real_ms() -> int:
    return time.time_ns() // 1_000_000
