"""The faults: what there are, which of them a seed draws, and how each is done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import httpx
from msgspec import Struct

from simulators.chaos.disk import Disk
from simulators.chaos.programs import Program, ProgramFailed
from simulators.chaos.proxy import Mode, Proxy
from simulators.chaos.stage import Stage

AT_A_TIME: Final = 3
"""Faults that last at a time, on different parts."""
BETWEEN_S: Final = (0.3, 0.9)
POINT_S: Final = 8.0
ALONE_S: Final = 3.0
"""An agent that is hurt was without its link for so long before, at most."""
CALM_S: Final = 0.7
"""A part that was hurt is left in peace for so long."""


class Fault(Struct, frozen=True):
    """``part`` is what it is done to, and no other fault at the same time; ``last_s`` how long it lasts; ``number`` is
    drawn for what else there is to choose."""

    kind: str
    part: str
    last_s: float
    number: float


GATEWAY_POINTS: Final = ("before-commit", "after-commit", "after-acknowledge", "after-delivery")
AGENT_POINTS: Final = ("after-taking", "mid-drain", "before-settling")

KINDS: Final[dict[str, tuple[str, float, float]]] = {
    "gateway-killed": ("gateway", 0.1, 1.5),
    **{f"gateway-killed-{point}": ("gateway", 0.1, 0.5) for point in GATEWAY_POINTS},
    "gateway-power-lost": ("gateway", 0.1, 0.5),
    "gateway-disk-full": ("gateway", 1.0, 3.0),
    "gateway-clock-jumped": ("gateway", 1.0, 2.5),
    "gateway-frozen": ("gateway", 0.5, 3.0),
    "agent-killed": ("agent", 0.1, 1.5),
    **{f"agent-killed-{point}": ("agent", 0.1, 0.5) for point in AGENT_POINTS},
    "agent-power-lost": ("agent", 0.1, 0.5),
    "agent-disk-full": ("agent", 1.0, 3.0),
    "agent-clock-jumped": ("agent", 0.5, 1.5),
    "broker-killed": ("broker", 0.1, 1.5),
    "broker-forgot": ("broker", 0.1, 1.0),
    "platform-killed": ("platform", 0.5, 2.5),
    "platform-503": ("platform", 1.0, 2.5),
    "platform-hung": ("platform", 1.0, 2.5),
    "platform-garbage": ("platform", 1.0, 2.5),
    "platform-recorded-unanswered": ("platform", 1.0, 2.5),
    "agent-link-cut": ("agent-link", 0.5, 2.5),
    "agent-link-half-open": ("agent-link", 1.0, 4.0),
    "agent-link-slow": ("agent-link", 1.0, 3.0),
    "agent-link-repeating": ("agent-link", 2.0, 4.0),
    "agent-link-mixing": ("agent-link", 2.0, 4.0),
    "gateway-link-cut": ("gateway-link", 0.5, 2.5),
    "gateway-link-half-open": ("gateway-link", 1.0, 4.0),
    "gateway-link-slow": ("gateway-link", 1.0, 3.0),
    "gateway-link-repeating": ("gateway-link", 2.0, 4.0),
    "gateway-link-mixing": ("gateway-link", 2.0, 4.0),
    "platform-link-cut": ("platform-link", 0.5, 2.5),
    "platform-link-half-open": ("platform-link", 1.0, 3.0),
}
"""Kind → the part that it is done to, and how many seconds it lasts, least and most."""

NEED_DISKS: Final = frozenset(kind for kind in KINDS if kind.endswith(("-power-lost", "-disk-full", "-clock-jumped")))
JUMPS_S: Final = (-259_200, -10_800, -600, -90, 90, 600, 10_800, 259_200)


def draw_plan(count: int, seed: int, communities: int, *, has_disks: bool) -> list[Fault]:
    """The faults of a seed, in order. Every kind comes before any comes again."""
    chance = Random(seed)
    kinds = [kind for kind in KINDS if has_disks or kind not in NEED_DISKS]
    plan: list[Fault] = []
    while len(plan) < count:
        chance.shuffle(kinds)
        for kind in kinds[: count - len(plan)]:
            part, least, most = KINDS[kind]
            if part.startswith("agent"):
                part += f"-{chance.randrange(communities)}"
            plan.append(Fault(kind, part, round(chance.uniform(least, most), 2), chance.random()))
    return plan


class Injector:
    """Does what a plan says to a stage, and writes it down in ``log``.

    ``struck`` counts the faults that were done, by kind; ``missed`` says which points were not come by."""

    def __init__(self, stage: Stage, log: Path) -> None:
        self.struck: Counter[str] = Counter()
        self.missed: list[str] = []
        self.now = ""
        self._stage = stage
        self._log = log
        self._locks: dict[str, asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(AT_A_TIME)
        self._chance = Random(0)

    async def inject_all(self, plan: list[Fault]) -> None:
        """All faults, one begun after the other; returns when the last has ended. Raises ProgramFailed."""
        try:
            await self._inject_all(plan)
        except* ProgramFailed as group:
            raise group.exceptions[0] from None

    async def _inject_all(self, plan: list[Fault]) -> None:
        async with asyncio.TaskGroup() as group:
            for fault in plan:
                await self._slots.acquire()
                lock = self._locks.setdefault(fault.part, asyncio.Lock())
                await lock.acquire()
                group.create_task(self._inject(fault, lock))
                await asyncio.sleep(BETWEEN_S[0] + fault.number * (BETWEEN_S[1] - BETWEEN_S[0]))

    async def mend_all(self) -> None:
        """Everything is whole again."""
        for link in self._stage.links:
            link.heal(resets=True)
        for program in self._stage.programs:
            program.freeze(is_frozen=False)
            if program.disk is not None:
                program.disk.fill(is_full=False)
                program.disk.set_clock(0)
            program.release()
        await self._ask_platform(None)

    async def _inject(self, fault: Fault, lock: asyncio.Lock) -> None:
        self.now = f"{fault.kind} {fault.part}"
        self._note(f"{fault.kind} on {fault.part} for {fault.last_s} s ({fault.number:.3f})")
        try:
            kind = fault.kind
            if await self._find(fault)(fault) is False:
                # It did not come by the point in time, and was killed wherever it was.
                kind, _, point = kind.partition("-killed-")
                kind += "-killed"
                self.missed.append(f"{fault.part} did not come by {point} in {POINT_S:g} s; counted as {kind}")
            self.struck[kind] += 1
            self._note(f"{fault.kind} on {fault.part} is over")
            await asyncio.sleep(CALM_S)
        finally:
            lock.release()
            self._slots.release()

    def _find(self, fault: Fault) -> Callable[[Fault], Awaitable[bool | None]]:
        kind = fault.kind
        for ending, does in (
            ("-killed", self._kill),
            ("-power-lost", self._cut_power),
            ("-disk-full", self._fill_disk),
            ("-clock-jumped", self._move_clock),
            ("-frozen", self._freeze),
            ("-forgot", self._forget),
            ("-cut", self._cut),
            ("-half-open", self._half_open),
            ("-slow", self._slow),
            ("-repeating", self._repeat),
            ("-mixing", self._mix),
        ):
            if kind.endswith(ending):
                return does
        return self._kill_at_point if "-killed-" in kind else self._fail_platform

    # --- programs ----------------------------------------------------------------------------------------------------

    async def _kill(self, fault: Fault) -> None:
        program = self._program(fault)
        async with self._alone(fault):
            await program.kill()
        await self._bring_back(program, fault)

    async def _kill_at_point(self, fault: Fault) -> bool:
        program = self._program(fault)
        _, _, point = fault.kind.partition("-killed-")
        async with self._alone(fault):
            await program.kill()
        has_struck = await program.run_to_point(f"{point}:{1 + int(fault.number * 4)}", POINT_S)
        await self._bring_back(program, fault)
        return has_struck

    async def _cut_power(self, fault: Fault) -> None:
        program = self._program(fault)
        async with self._alone(fault):
            await program.kill()
        lost = await asyncio.to_thread(self._disk(program).cut_power)
        self._note(f"{program.name} has {lost} files otherwise than they were")
        await self._bring_back(program, fault)

    @asynccontextmanager
    async def _alone(self, fault: Fault) -> AsyncIterator[None]:
        """An agent is cut off for a while before what is done to it, so that its spool holds what nobody else has."""
        if not fault.part.startswith("agent-"):
            yield
            return
        index = int(fault.part.rpartition("-")[2])
        link = self._stage.agent_links[index]
        async with self._locks.setdefault(f"agent-link-{index}", asyncio.Lock()):
            link.set(Mode.CUT)
            try:
                await asyncio.sleep(ALONE_S * fault.number)
                yield
            finally:
                link.heal(resets=True)

    async def _fill_disk(self, fault: Fault) -> None:
        disk = self._disk(self._program(fault))
        disk.fill(is_full=True)
        await asyncio.sleep(fault.last_s)
        disk.fill(is_full=False)

    async def _move_clock(self, fault: Fault) -> None:
        program = self._program(fault)
        disk = self._disk(program)
        disk.set_clock(JUMPS_S[int(fault.number * len(JUMPS_S))])
        await asyncio.sleep(fault.last_s)
        if program is self._stage.gateway:
            # A server's clock is put right again; an agent's stays wrong until its next jump.
            disk.set_clock(0)

    async def _freeze(self, fault: Fault) -> None:
        program = self._program(fault)
        program.freeze(is_frozen=True)
        await asyncio.sleep(fault.last_s)
        program.freeze(is_frozen=False)

    async def _forget(self, fault: Fault) -> None:
        broker = self._stage.broker
        await broker.kill()
        broker.forget()
        await self._bring_back(broker, fault)

    async def _bring_back(self, program: Program, fault: Fault) -> None:
        await asyncio.sleep(fault.last_s)
        program.release()
        await program.wait_ready()

    # --- lines -------------------------------------------------------------------------------------------------------

    async def _cut(self, fault: Fault) -> None:
        await self._disturb(fault, Mode.CUT)

    async def _half_open(self, fault: Fault) -> None:
        modes = (Mode.DEAD, Mode.DEAF, Mode.MUTE)
        await self._disturb(fault, modes[int(fault.number * 3)])

    async def _slow(self, fault: Fault) -> None:
        await self._disturb(fault, Mode.SLOW, 0.2 + fault.number)

    async def _repeat(self, fault: Fault) -> None:
        await self._disturb(fault, Mode.REPEATING)

    async def _mix(self, fault: Fault) -> None:
        await self._disturb(fault, Mode.MIXING)

    async def _disturb(self, fault: Fault, mode: Mode, delay_s: float = 0.0) -> None:
        link = self._link(fault)
        link.set(mode, delay_s)
        await asyncio.sleep(fault.last_s)
        # One in three stays dead until its ends notice.
        link.heal(resets=(fault.number * 7) % 1 > 0.33)

    # --- the platform ------------------------------------------------------------------------------------------------

    async def _fail_platform(self, fault: Fault) -> None:
        asked: dict[str, object] = {
            "platform-503": {"mode": "status", "status": 503},
            "platform-hung": {"mode": "hang", "probability": 0.7},
            "platform-garbage": {"mode": "garbage"},
            "platform-recorded-unanswered": {"mode": "recorded-but-not-answered"},
        }
        await self._ask_platform(asked[fault.kind])
        await asyncio.sleep(fault.last_s)
        await self._ask_platform(None)

    async def _ask_platform(self, fault: object) -> None:
        url = f"http://127.0.0.1:{self._stage.platform_port}/faults"
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await (client.delete(url) if fault is None else client.post(url, json=fault))
        answer.raise_for_status()

    # --- parts -------------------------------------------------------------------------------------------------------

    def _program(self, fault: Fault) -> Program:
        stage = self._stage
        named = {"gateway": stage.gateway, "broker": stage.broker, "platform": stage.platform}
        return named.get(fault.part) or stage.agents[int(fault.part.rpartition("-")[2])]

    def _link(self, fault: Fault) -> Proxy:
        stage = self._stage
        named = {"gateway-link": stage.gateway_link, "platform-link": stage.platform_link}
        return named.get(fault.part) or stage.agent_links[int(fault.part.rpartition("-")[2])]

    def _disk(self, program: Program) -> Disk:
        assert program.disk is not None  # noqa: S101 - gateway and agents have one
        return program.disk

    def _note(self, text: str) -> None:
        now = time.time()
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now % 1 * 1000):03} {text}\n")
