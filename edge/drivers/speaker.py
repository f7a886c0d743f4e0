"""What is spoken aloud: an HTTP speaker, a text-to-speech program, or a recorded file, in this order of preference.

It is a bus without inputs. Commands ``broadcast`` and ``speak`` say their ``text``; ``sound`` plays the recorded file
for so many ``seconds``. One thing is said at a time: who comes second waits, within the command's own time.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Annotated, Final, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from edge.ports import Carried, Desk, Lamp, Order, Outcome
from gateway.errors import GatewayError

SPEAK: Final = ("espeak-ng", "-v", "cmn", "--stdin")
"""Debian's espeak-ng, in Mandarin; the text comes by its standard input, never by its arguments."""

PLAY: Final = ("aplay", "--quiet")
ANSWER_MOST: Final = 200


class Settings(BaseModel):
    """``url`` of a speaker that takes ``{"text": …, "address": …}`` by POST; or ``speak``, a program that reads the
    text from its standard input; or ``recording``, a sound file that ``play`` plays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: Literal["speaker"]
    bus: str
    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")] | None = None
    token_file: Path | None = None
    speak: tuple[str, ...] = SPEAK
    play: tuple[str, ...] = PLAY
    recording: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=10)] = 8


class SpeakerDriver:
    """Implements `edge.ports.Driver`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        self._token = _read_token(settings.token_file)

    async def run(self, desk: Desk) -> None:
        settings = self._settings
        has_voice = settings.url is not None or shutil.which(settings.speak[0]) is not None
        if not has_voice and settings.recording is None:
            desk.tell("", f"nothing to speak with: install {settings.speak[0]}, or give url or recording")
        await asyncio.Event().wait()

    async def perform(self, order: Order) -> Outcome:
        text = order.args.get("text")
        seconds = order.args.get("seconds")
        async with self._turn:
            if isinstance(text, str):
                return await self._say(text, order.device)
            if isinstance(seconds, int | float):
                return await self._sound(float(seconds))
        return Outcome("refused", f"a speaker knows no {order.name}")

    async def show(self, device: Carried, lamp: Lamp) -> None:
        """A speaker has no lamps."""

    async def _say(self, text: str, device: Carried) -> Outcome:
        settings = self._settings
        if settings.url is not None:
            return await self._post(settings.url, text, device)
        if shutil.which(settings.speak[0]) is not None:
            return await self._start(settings.speak, text.encode(), settings.timeout_s)
        if settings.recording is not None:
            return await self._play(settings.recording, "the text was not spoken: a recording was played")
        return Outcome("failed", f"{settings.speak[0]} is not installed")

    async def _post(self, url: str, text: str, device: Carried) -> Outcome:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token is not None else {}
        try:
            async with httpx.AsyncClient(timeout=self._settings.timeout_s, trust_env=False) as client:
                answer = await client.post(url, json={"text": text, "address": device.address}, headers=headers)
        except httpx.HTTPError as error:
            return Outcome("failed", f"{type(error).__name__}: {error}")
        if answer.is_success:
            return Outcome("done", f"{answer.status_code}")
        return Outcome("failed", f"{answer.status_code} {answer.text[:ANSWER_MOST]}")

    async def _sound(self, seconds: float) -> Outcome:
        recording = self._settings.recording
        if recording is None:
            return Outcome("refused", "there is no recording to play")
        until, outcome = time.monotonic() + min(seconds, self._settings.timeout_s), Outcome("failed", "")
        while time.monotonic() < until:
            outcome = await self._play(recording, "")
            if outcome.outcome != "done":
                break
        return outcome

    async def _play(self, recording: Path, detail: str) -> Outcome:
        played = await self._start((*self._settings.play, str(recording)), b"", self._settings.timeout_s)
        return Outcome("done", detail) if played.outcome == "done" else played

    async def _start(self, command: tuple[str, ...], text: bytes, timeout_s: float) -> Outcome:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            return Outcome("failed", f"{command[0]}: {error.strerror}")
        try:
            async with asyncio.timeout(timeout_s):
                _, errors = await process.communicate(text)
        except TimeoutError:
            # It began to speak, and is left to end: half a sentence is worse than a late one.
            return Outcome("done", f"still speaking after {timeout_s:g} s")
        if process.returncode == 0:
            return Outcome("done")
        words = errors.decode(errors="replace").strip().splitlines()
        return Outcome("failed", f"{command[0]} ended with {process.returncode}: {' '.join(words[-1:])[:ANSWER_MOST]}")


def _read_token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError("token-unreadable", str(error), str(file), "give a readable file") from error
