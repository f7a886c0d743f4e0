"""People who press buttons, and detectors that smell smoke: each says it again until it is acknowledged."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Final

import httpx
from msgspec import Struct

from simulators.chaos.world import Quarter

ANSWER_S: Final = 3.0
AGAIN_S: Final = (0.2, 0.8)
REFUSED: Final = frozenset({401, 404, 408, 413, 422, 503})
"""Answers of an agent that has taken nothing."""

PAUSE_S: Final = (0.15, 1.2)
"""Between two presses of one community, least and most."""


class Press(Struct, frozen=True):
    """A press that was acknowledged. Times are real, in seconds since 1970; ``heard`` is how often it was said and may
    have been heard: not counting what nobody took, or what was refused."""

    event: str
    community: str
    device: str
    pressed_at: float
    acknowledged_at: float
    heard: int


class Smoke(Struct, frozen=True):
    """A detector whose alarm was acknowledged, and which has smelt smoke ever since."""

    community: str
    device: str
    acknowledged_at: float


class Presser:
    """Everybody in one community. What was acknowledged stands in ``presses`` and ``smokes``."""

    def __init__(self, quarter: Quarter, port: int, token: str, chance: Random) -> None:
        self.presses: list[Press] = []
        self.smokes: list[Smoke] = []
        self.is_waiting = False
        """Somebody presses, and nobody has answered yet."""
        self._quarter = quarter
        self._url = f"http://127.0.0.1:{port}"
        self._token = token
        self._chance = chance
        self._is_over = asyncio.Event()

    async def press_until_over(self, smoke_every_s: float) -> None:
        """Presses until `end`, and each detector once; returns when the last press is acknowledged."""
        unlit = list(self._quarter.detectors)
        next_smoke = time.monotonic() + self._chance.uniform(0.3, 1.0) * smoke_every_s
        headers = {"Authorization": f"Bearer {self._token}"}
        async with httpx.AsyncClient(base_url=self._url, headers=headers, timeout=ANSWER_S, trust_env=False) as client:
            while not self._is_over.is_set():
                if unlit and time.monotonic() > next_smoke:
                    next_smoke = time.monotonic() + self._chance.uniform(0.5, 1.5) * smoke_every_s
                    await self._smell(client, unlit.pop())
                await self._press(client, self._chance.choice(self._quarter.buttons))
                pause = self._chance.uniform(*PAUSE_S)
                try:
                    await asyncio.wait_for(self._is_over.wait(), pause)
                except TimeoutError:
                    continue

    def end(self) -> None:
        """No new press from now on."""
        self._is_over.set()

    async def _press(self, client: httpx.AsyncClient, device: str) -> None:
        pressed_at, answer, heard = await self._insist(client, device, {"event": "pressed"})
        [event] = answer["events"]
        self.presses.append(Press(event, self._quarter.id, device, pressed_at, time.time(), heard))

    async def _smell(self, client: httpx.AsyncClient, device: str) -> None:
        await self._insist(client, device, {"smoke": True})
        self.smokes.append(Smoke(self._quarter.id, device, time.time()))

    async def _insist(
        self, client: httpx.AsyncClient, device: str, body: dict[str, object]
    ) -> tuple[float, dict[str, list[str]], int]:
        """When it was first said, the answer, and how often it may have been heard until then."""
        began, heard = time.time(), 0
        self.is_waiting = True
        while True:
            try:
                answer = await client.post(f"/{device}", json=body)
                if answer.status_code == 202:
                    self.is_waiting = False
                    return began, answer.json(), heard + 1
                heard += answer.status_code not in REFUSED
            except (httpx.ConnectError, httpx.ConnectTimeout):
                pass
            except (httpx.HTTPError, ValueError):
                heard += 1
            await asyncio.sleep(self._chance.uniform(*AGAIN_S))
