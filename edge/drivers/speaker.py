"""What is spoken aloud: an HTTP speaker, a text-to-speech program, or a recorded file, in this order of preference.

It is a bus without inputs. Commands ``broadcast`` and ``speak`` say their ``text``; ``sound`` plays the recorded file
again and again for so many ``seconds``, and is answered when it has begun. One thing is said at a time: who comes
second waits, within the command's own time. A voice cuts a sound short, which goes on after it: what to do is worth
more than a siren.
"""

from __future__ import annotations

import asyncio
import contextlib
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
BEGUN_S: Final = 1.0
"""A sound that has not failed by then has begun."""

BETWEEN_S: Final = 0.1
"""Between two playings."""

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
        self._desk: Desk | None = None
        self._sounding: asyncio.Task[Outcome] | None = None
        self._sound_until = 0.0
        self._player: asyncio.subprocess.Process | None = None
        self._is_cut = False
        """Whether what plays was cut short by us: players have different ways to say so."""
        self._token = _read_token(settings.token_file)

    async def run(self, desk: Desk) -> None:
        self._desk, settings = desk, self._settings
        has_voice = settings.url is not None or shutil.which(settings.speak[0]) is not None
        if not has_voice and settings.recording is None:
            desk.tell("", f"nothing to speak with: install {settings.speak[0]}, or give url or recording")
        try:
            await asyncio.Event().wait()
        finally:
            if self._sounding is not None:
                self._sounding.cancel()
                await asyncio.gather(self._sounding, return_exceptions=True)

    async def perform(self, order: Order) -> Outcome:
        text = order.args.get("text")
        seconds = order.args.get("seconds")
        if isinstance(text, str):
            self._cut_sound()
            async with self._turn:
                return await self._say(text, order.device)
        if isinstance(seconds, int | float):
            return await self._sound(float(seconds))
        return Outcome("refused", f"a speaker knows no {order.name}")

    def _cut_sound(self) -> None:
        if self._player is not None:
            self._is_cut = True
            _end(self._player)

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
        self._sound_until = max(self._sound_until, time.monotonic() + seconds)
        if self._sounding is None or self._sounding.done():
            self._sounding = asyncio.create_task(self._sound_on(recording))
        sounding = self._sounding
        await asyncio.wait({sounding}, timeout=BEGUN_S)
        if sounding.done() and not sounding.cancelled():
            return sounding.result()
        return Outcome("done", f"it sounds for {seconds:g} s")

    async def _sound_on(self, recording: Path) -> Outcome:
        """Plays until the time is over."""
        outcome = Outcome("done")
        while (left_s := self._sound_until - time.monotonic()) > 0 and outcome.outcome == "done":
            async with self._turn:
                outcome = await self._play_for(recording, left_s)
            await asyncio.sleep(BETWEEN_S)
        if outcome.outcome != "done" and self._desk is not None:
            self._desk.tell("", f"a sound broke off: {outcome.detail}")
        return outcome

    async def _play_for(self, recording: Path, most_s: float) -> Outcome:
        """Plays once, until somebody wants to speak or the time is over."""
        command = (*self._settings.play, str(recording))
        try:
            process = await _run(command)
        except OSError as error:
            return Outcome("failed", f"{command[0]}: {error.strerror}")
        self._player, self._is_cut = process, False
        try:
            async with asyncio.timeout(most_s):
                _, errors = await process.communicate()
        except TimeoutError:
            return Outcome("done")
        finally:
            self._player = None
            if process.returncode is None:
                _end(process)
                await process.wait()
        if self._is_cut:
            return Outcome("done")
        return _read_end(command, process.returncode, errors)

    async def _play(self, recording: Path, detail: str) -> Outcome:
        played = await self._start((*self._settings.play, str(recording)), b"", self._settings.timeout_s)
        return Outcome("done", detail) if played.outcome == "done" else played

    async def _start(self, command: tuple[str, ...], text: bytes, timeout_s: float) -> Outcome:
        try:
            process = await _run(command)
        except OSError as error:
            return Outcome("failed", f"{command[0]}: {error.strerror}")
        try:
            async with asyncio.timeout(timeout_s):
                _, errors = await process.communicate(text)
        except TimeoutError:
            # It began to speak, and is left to end: half a sentence is worse than a late one.
            return Outcome("done", f"still speaking after {timeout_s:g} s")
        return _read_end(command, process.returncode, errors)


async def _run(command: tuple[str, ...]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


def _read_end(command: tuple[str, ...], status: int | None, errors: bytes) -> Outcome:
    """What a program's end says."""
    if status == 0:
        return Outcome("done")
    words = errors.decode(errors="replace").strip().splitlines()
    return Outcome("failed", f"{command[0]} ended with {status}: {' '.join(words[-1:])[:ANSWER_MOST]}")


def _read_token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError("token-unreadable", str(error), str(file), "give a readable file") from error
