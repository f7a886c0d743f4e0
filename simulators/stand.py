"""The test stand (试验台): plays scenarios on communities of simulated devices when a tester asks for it, with faults.

Its sources are ordinary ones with ordinary credentials: they report as on any day, and what is asked for is played on
top of that. It knows what must come of each scenario and says so; what did come of it, whoever asks compares in the
gateway. It listens on loopback, and whoever asks has its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import secrets
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from random import Random
from typing import Annotated, Any, Final, Literal

import msgspec
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from edge.ending import end
from gateway.wire import Lane, Message, topic_of
from simulators.district import District, Settlement
from simulators.habits import Stream
from simulators.player import PlayClock, Player, Source, Tally
from simulators.scenario import FIRST_MS, Instance, Plan, compose
from simulators.scenario_file import AFTER_MS, Part, Scenario, Sending, read_duration, read_scenarios

LEAD_MS: Final = 2_000
"""Real time from the wish to the first act."""

APART_MS: Final = 500
"""Real time between the beginnings of two scenarios."""

SPREAD_MS: Final = 250
"""Real time between two faults."""

LATE_MS: Final = 10 * 60_000
"""How old a late reading is: ten minutes, of which the gateway calls one late."""

LOG_LINES: Final = 300
"""All faults of a run: each kind at most a hundred times."""

RUNS: Final = 50
FOR_EVER_MS: Final = 10 * 365 * 86_400_000

GARBAGE: Final[tuple[tuple[str, bytes], ...]] = (
    ("no-text", bytes(range(128, 192))),
    ("no-json", b"smoke=1;battery=88"),
    ("no-envelope", b'{"smoke": true}'),
    ("other-version", b'{"v": 99, "spool": "x", "lane": "telemetry", "seq": 1, "floor": 1}'),
    ("half", b'{"v": 1, "spool": "stand", "lane": "telemetry", "seq": 1, "fl'),
)
"""What is thrown at the telemetry topic: in the alarm lane it might have been a press, and would open a case."""


class FaultsWish(BaseModel):
    """Faults to inject, each so often: messages that come again, readings that come late, and garbage."""

    model_config = ConfigDict(extra="forbid")

    duplicate: Annotated[int, Field(ge=0, le=100)] = 0
    late: Annotated[int, Field(ge=0, le=100)] = 0
    garbage: Annotated[int, Field(ge=0, le=100)] = 0


class RunWish(BaseModel):
    """What to play. ``pace`` is how much faster than written the acts follow each other. ``note`` is kept for whoever
    asks."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{16,64}$")]
    scenarios: Annotated[list[str], Field(min_length=1, max_length=60)]
    communities: Annotated[list[str], Field(min_length=1, max_length=20)]
    pace: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    faults: FaultsWish = FaultsWish()
    note: dict[str, Any] = {}


class Expected(Struct, frozen=True):
    """What must come of one scenario at one place, from its first message (``begins``) on. ``category`` and ``place``
    are None where nothing must come of it; ``within`` (ms) is how soon after its beginning somebody must know, None
    where the scenario does not say."""

    scenario: str
    title: dict[str, str]
    community: str
    device: str
    begins: int
    ends: int
    category: str | None = None
    place: str | None = None
    within: int | None = None


class LogLine(Struct, frozen=True):
    """What the stand did. ``what`` is ``duplicate`` (``detail`` is lane and number of the message that came again),
    ``late`` (the reading that came late, of ``device``) or ``garbage`` (which, and of how many bytes)."""

    at: int
    what: str
    source: str
    detail: str
    device: str = ""


class Run(Struct):
    """One playing. Times are ms of the simulated clock; latencies are real ms from an alarm's publishing to its
    receipt, None before there is one. ``sent`` of so many ``planned`` scenario messages; ``alarms`` counts all of the
    alarm lane."""

    id: str
    state: Literal["playing", "waiting", "done", "stopped"]
    scenarios: list[str]
    communities: list[str]
    pace: float
    faults: dict[str, int]
    note: dict[str, Any]
    started_at: int
    until: int
    now: int
    planned: int
    expected: list[Expected]
    sent: int = 0
    messages: int = 0
    alarms: int = 0
    resent: int = 0
    rejected: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    injected: dict[str, int] = {}
    log: list[LogLine] = []


class StandError(Exception):
    """A wish that cannot be played now: a stable code, and why in words."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class StandSource(Source):
    """A source that remembers what of a scenario it sent, and can misbehave."""

    def __init__(
        self, settlement: Settlement, streams: Iterable[Stream], clock: PlayClock, tally: Tally, spool: str
    ) -> None:
        kept = list(streams)
        super().__init__(settlement, kept, clock, tally, spool)
        self.streams: Final = [stream for stream in kept if not stream.is_alarm]
        self.taken: list[Message] = []

    def take(self, sending: Sending) -> Message:
        """Takes one thing in at once, and remembers it."""
        message = super().take(sending)
        self.taken.append(message)
        return message

    def repeat(self, message: Message) -> None:
        """Sends a message once more as it was."""
        self._publish(message)

    def take_late(self, stream: Stream, now: int) -> None:
        """Takes in what a device measured long ago, as after an outage of its own."""
        then = now - LATE_MS
        device, _, reading = stream.name.rpartition(":")
        part = Part(device, reading, stream.value(then), None)
        super().take(Sending(then, (part,), device, None, {}, 0, False))

    async def throw(self, payload: bytes) -> None:
        """Sends bytes that nobody can understand."""
        if self._client is not None:
            await self._client.publish(topic_of(self.community, self.id, Lane.TELEMETRY), payload, qos=1)


class Stand:
    """The sources of all its communities, and the one run at a time. Use `live` around it."""

    def __init__(self, district: District, clock: PlayClock, seed: int = 1) -> None:
        self._district = district
        self._clock = clock
        self._seed = seed
        self._scenarios = {one.id: one for one in read_scenarios() if one.state is None}
        token = secrets.token_hex(3)

        def make(settlement: Settlement, streams: Iterable[Stream], clock: PlayClock, tally: Tally) -> Source:
            return StandSource(settlement, streams, clock, tally, f"{token}-{settlement.sources[0].id}")

        others = {settlement.community.id: make for settlement in district.communities}
        self._player = Player(district, clock, seed, token, others)
        self._taken: dict[str, frozenset[str]] = {}
        self._runs: dict[str, Run] = {}
        self._current: Run | None = None
        self._begun = (0, 0, 0, 0, 0)
        self._faults: list[tuple[int, str]] = []
        self._throwing: set[asyncio.Task[None]] = set()
        self._rng = Random(f"{seed}/stand")

    @contextlib.asynccontextmanager
    async def live(self, broker: str, passwords: dict[str, str]) -> AsyncIterator[None]:
        """Connects, and reports as on any day, for as long as this is open."""
        tasks = await self._player.connect(broker, passwords)
        tasks.append(asyncio.create_task(self._player.play(self._clock.now() + FOR_EVER_MS, self._look)))
        try:
            yield
        finally:
            await end(tasks)

    # --- what one may ask ------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What can be played and where, and the newest run."""
        return {
            "communities": [settlement.community.id for settlement in self._district.communities],
            "connected": sum(source.connected.is_set() for source in self._player.sources),
            "speed": self._clock.speed,
            "now": self._clock.now(),
            "scenarios": [_describe(one) for one in self._scenarios.values()],
            "run": next(reversed(self._runs)) if self._runs else None,
        }

    def read(self, id: str) -> Run:
        """A run as it stands. Raises KeyError."""
        run = self._runs[id]
        if run is self._current:
            self._count(run)
        return run

    def start(self, wish: RunWish) -> Run:
        """Begins to play; the same id again is the same run. Raises StandError."""
        if wish.id in self._runs:
            return self.read(wish.id)
        if self._current is not None:
            raise StandError("busy", "another run is being played; wait for its end, or stop it")
        unknown = [id for id in wish.scenarios if id not in self._scenarios]
        known = {settlement.community.id: settlement for settlement in self._district.communities}
        if unknown or any(id not in known for id in wish.communities):
            raise StandError("unknown", f"the stand does not have {', '.join(unknown) or 'such a community'}")
        now = self._clock.now()
        chosen = [self._scenarios[id] for id in dict.fromkeys(wish.scenarios)]
        instances: list[Instance] = []
        for id in dict.fromkeys(wish.communities):
            placed = self._place(known[id], chosen, now)
            instances += [_paced(instance, wish.pace) for instance in placed]
        # One after the other, so that each can be told from the next.
        begins = now + round(LEAD_MS * self._clock.speed)
        apart = round(APART_MS * self._clock.speed)
        instances = [
            instance.moved(begins + number * apart - instance.begins) for number, instance in enumerate(instances)
        ]
        until = max(instance.ends for instance in instances)
        run = Run(
            wish.id,
            "playing",
            [one.id for one in chosen],
            list(dict.fromkeys(wish.communities)),
            wish.pace,
            wish.faults.model_dump(),
            wish.note,
            now,
            until,
            now,
            sum(len(instance.sendings) for instance in instances),
            [self._expect(instance) for instance in instances],
        )
        self._begin(run, instances, begins)
        return run

    def stop(self, id: str) -> Run:
        """Plays no further. Raises KeyError."""
        run = self.read(id)
        if run is self._current:
            self._end("stopped")
        return run

    # --- playing -----------------------------------------------------------------------------------------------------

    def _begin(self, run: Run, instances: Sequence[Instance], begins: int) -> None:
        for source in self._sources():
            source.taken.clear()
        tally = self._player.tally
        self._begun = (tally.messages, tally.alarms, tally.resent, tally.rejected, len(tally.latencies))
        self._player.cast(instances)
        spread = round(SPREAD_MS * self._clock.speed)
        kinds = [kind for kind, count in run.faults.items() for _ in range(count)]
        self._rng.shuffle(kinds)
        self._faults = [(begins + (number + 2) * spread, kind) for number, kind in enumerate(kinds)]
        if self._faults:
            run.until = max(run.until, self._faults[-1][0] + round(LEAD_MS * self._clock.speed))
        if len(self._runs) >= RUNS:
            del self._runs[next(iter(self._runs))]
        self._runs[run.id] = self._current = run

    def _place(self, settlement: Settlement, scenarios: Sequence[Scenario], now: int) -> list[Instance]:
        """The scenarios on devices of one community, away from where earlier ones may still be open."""
        id = settlement.community.id
        for scenario in scenarios:
            if not scenario.is_at_its_hour(now, scenario.length + AFTER_MS):
                raise StandError("not-its-hour", f"{scenario.id} is played at {scenario.hours} only")
        longest = max(scenario.length for scenario in scenarios)
        minutes = math.ceil((longest + AFTER_MS + FIRST_MS) / 60_000) + 1
        alone = replace(self._district, communities=(settlement,))
        anytime = [scenario.model_copy(update={"hours": None}) for scenario in scenarios]
        causes = sum(scenario.expect is not None for scenario in scenarios)
        why = ""
        for taken in (self._taken.get(id, frozenset()), frozenset()):
            try:
                plan = compose(
                    self._seed,
                    alone,
                    now,
                    minutes,
                    causes,
                    len(scenarios) - causes,
                    anytime,
                    Plan((), {}, taken),
                )
            except ValueError as error:
                why = str(error)
                continue
            self._taken[id] = plan.taken
            return list(plan.instances)
        raise StandError("no-device", f"{id}: {why}; choose fewer scenarios")

    def _expect(self, instance: Instance) -> Expected:
        scenario = self._scenarios[instance.scenario]
        within = None
        if scenario.expect is not None and scenario.expect.within is not None:
            within = read_duration(scenario.expect.within)
        return Expected(
            instance.scenario,
            instance.title,
            instance.community,
            instance.device,
            # What is sent late is heard of late: from then on it counts.
            min(sending.time + sending.late for sending in instance.sendings),
            instance.ends,
            instance.category,
            instance.place,
            within,
        )

    def _look(self, now: int) -> None:
        """Called some dozens of times a second while it plays."""
        run = self._current
        if run is None:
            return
        while self._faults and self._faults[0][0] <= now:
            self._inject(run, self._faults.pop(0)[1], now)
        if run.state == "playing" and not self._faults and not any(source.has_sendings for source in self._sources()):
            run.state = "waiting"
        if now >= run.until and not self._faults:
            self._end("done")

    def _end(self, state: Literal["done", "stopped"]) -> None:
        run, self._current = self._current, None
        if run is not None:
            self._count(run)
            run.state = state
            self._faults.clear()
            self._player.cast(())

    def _count(self, run: Run) -> None:
        tally = self._player.tally
        messages, alarms, resent, rejected, latencies = self._begun
        run.now = self._clock.now()
        run.sent = sum(len(source.taken) for source in self._sources())
        run.messages, run.alarms = tally.messages - messages, tally.alarms - alarms
        run.resent, run.rejected = tally.resent - resent, tally.rejected - rejected
        found = sorted(tally.latencies[latencies:])
        run.p50_ms, run.p99_ms = _quantile_ms(found, 0.5), _quantile_ms(found, 0.99)

    def _inject(self, run: Run, kind: str, now: int) -> None:
        chosen = [source for source in self._sources() if source.community in run.communities]
        source = self._rng.choice(chosen)
        device = ""
        match kind:
            case "duplicate":
                candidates = [(one, message) for one in chosen for message in one.taken]
                if not candidates:  # nothing was sent yet: soon
                    self._faults.insert(0, (now + round(SPREAD_MS * self._clock.speed), kind))
                    return
                source, message = self._rng.choice(candidates)
                source.repeat(message)
                detail = f"{message.lane} {message.seq}"
            case "late":
                stream = self._rng.choice(source.streams)
                source.take_late(stream, now)
                device = stream.name.rpartition(":")[0]
                detail = stream.name
            case _:
                name, payload = GARBAGE[run.injected.get(kind, 0) % len(GARBAGE)]
                task = asyncio.ensure_future(source.throw(payload))
                self._throwing.add(task)
                task.add_done_callback(self._throwing.discard)
                detail = f"{name} {len(payload)}"
        run.injected = {**run.injected, kind: run.injected.get(kind, 0) + 1}
        run.log = [*run.log, LogLine(now, kind, source.id, detail, device)][-LOG_LINES:]

    def _sources(self) -> list[StandSource]:
        return [source for source in self._player.sources if isinstance(source, StandSource)]


def _describe(scenario: Scenario) -> dict[str, Any]:
    expected = scenario.expect
    return {
        "id": scenario.id,
        "title": scenario.title,
        "profile": scenario.profile,
        "length": scenario.length,
        "hours": scenario.hours,
        "like": scenario.like,
        "category": expected.category if expected is not None else None,
        "at": expected.at if expected is not None else None,
        "within": read_duration(expected.within) if expected is not None and expected.within is not None else None,
    }


def _paced(instance: Instance, pace: float) -> Instance:
    """The same with its acts so many times as close."""
    if pace == 1:
        return instance
    begins = instance.begins
    sendings = tuple(replace(one, time=begins + round((one.time - begins) / pace)) for one in instance.sendings)
    ends = begins + round((instance.ends - AFTER_MS - begins) / pace) + AFTER_MS
    return replace(instance, sendings=sendings, ends=ends)


def _quantile_ms(seconds: Sequence[float], share: float) -> float | None:
    if not seconds:
        return None
    return round(seconds[min(len(seconds) - 1, math.ceil(share * len(seconds)) - 1)] * 1000, 1)


# --- the server ----------------------------------------------------------------------------------------------------


def create_app(stand: Stand, key: bytes) -> FastAPI:
    """The stand as an ASGI application. Whoever asks sends ``Authorization: Bearer KEY``."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def demand_key(request: Request, go_on: Any) -> Response:
        """Nobody without the key learns anything."""
        told = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(told, b"Bearer " + key):
            return JSONResponse({"code": "no-key", "detail": "send the stand's key"}, 401)
        answer: Response = await go_on(request)
        return answer

    @app.get("/stand")
    async def describe() -> Response:
        """What can be played."""
        return _json(stand.describe())

    @app.post("/runs")
    async def start(wish: RunWish) -> Response:
        """Begins a run."""
        try:
            return _json(stand.start(wish))
        except StandError as error:
            return JSONResponse({"code": error.code, "detail": error.words}, 409)

    @app.get("/runs/{id}")
    async def read(id: str) -> Response:
        """A run as it stands."""
        return _json(_find(stand.read, id))

    @app.post("/runs/{id}/stop")
    async def stop(id: str) -> Response:
        """Ends a run."""
        return _json(_find(stand.stop, id))

    return app


def _find(ask: Any, id: str) -> Run:
    try:
        found: Run = ask(id)
    except KeyError as error:
        raise HTTPException(404, "there is no such run") from error
    return found


def _json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


class _AnnouncingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)


async def serve(stand: Stand, key: bytes, port: int, broker: str, passwords: dict[str, str]) -> None:
    """Serves the stand on 127.0.0.1 until SIGINT or SIGTERM; prints its address on stdout when it answers."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        config = uvicorn.Config(
            create_app(stand, key), log_level="warning", access_log=False, timeout_graceful_shutdown=1
        )
        async with stand.live(broker, passwords):
            await _AnnouncingServer(config).serve(sockets=[listening])
