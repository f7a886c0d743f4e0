"""Speaking aloud: by a real program, a recorded file, or a speaker at the other end of HTTP."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from edge.drivers.speaker import Settings, SpeakerDriver
from edge.ports import Carried, Order
from tests.edge.desk import ListDesk, shipped

SPEAKER = Carried("speaker-1", shipped().profiles["ip-speaker"], "hall", "7", "b1")


def order(name: str = "broadcast", **args: object) -> Order:
    return Order("o-1", SPEAKER, name, args or {"text": "发现火情，请沿安全通道撤离"})


def driver(**settings: object) -> SpeakerDriver:
    return SpeakerDriver(Settings(driver="speaker", bus="hall", **settings))  # type: ignore[arg-type]


def writes_to(path: Path) -> tuple[str, ...]:
    """A program that writes down what it is told by its standard input."""
    return (sys.executable, "-c", f"import sys; open({str(path)!r}, 'ab').write(sys.stdin.buffer.read())")


class Speaker:
    """A network speaker: a real server that remembers what it was asked to say."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.tokens: list[str | None] = []
        self.status = 200
        self.app = FastAPI()
        self.app.post("/say")(self._say)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    async def _say(self, request: Request) -> Response:
        self.said.append(await request.json())
        self.tokens.append(request.headers.get("authorization"))
        return Response("the amplifier is off" if self.status != 200 else "", self.status)


@pytest.fixture
async def speaker() -> AsyncIterator[Speaker]:
    made = Speaker()
    server = uvicorn.Server(uvicorn.Config(made.app, port=made.port, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event of its own
        await asyncio.sleep(0.01)
    yield made
    server.should_exit = True
    await serving


async def test_a_network_speaker_is_told_what_to_say(speaker: Speaker, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-7\n")
    hall = driver(url=f"http://127.0.0.1:{speaker.port}/say", token_file=token)
    assert await hall.perform(order()) == (await hall.perform(order()))
    assert speaker.said[0] == {"text": "发现火情，请沿安全通道撤离", "address": "7"}
    assert speaker.tokens[0] == "Bearer secret-7"
    speaker.status = 503
    failed = await hall.perform(order())
    assert (failed.outcome, failed.detail) == ("failed", "503 the amplifier is off")


async def test_a_speaker_that_is_gone_is_a_failure_with_its_reason() -> None:
    failed = await driver(url="http://127.0.0.1:9/say").perform(order())
    assert failed.outcome == "failed"
    assert "Connect" in failed.detail


async def test_a_program_is_given_the_text_and_never_as_an_argument(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    hall = driver(speak=writes_to(heard))
    text = "-w /etc/passwd; $(reboot) 请撤离"
    assert (await hall.perform(order(text=text))).outcome == "done"
    assert heard.read_text() == text


async def test_one_thing_is_said_at_a_time(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    hall = driver(speak=writes_to(heard))
    await asyncio.gather(*(hall.perform(order(text=f"{n}" * 2000)) for n in range(5)))
    assert sorted(heard.read_text()[i * 2000 : (i + 1) * 2000] for i in range(5)) == [f"{n}" * 2000 for n in range(5)]


async def test_a_program_that_fails_or_is_not_there_is_told(tmp_path: Path) -> None:
    failing = (sys.executable, "-c", "import sys; sys.exit('no sound card')")
    assert "no sound card" in (await driver(speak=failing).perform(order())).detail
    desk = ListDesk("hall", SPEAKER)
    silent = driver(speak=("no-such-program",))
    running = asyncio.create_task(silent.run(desk))
    await desk.wait_until(lambda: "install no-such-program" in desk.troubles.get("", ""))
    assert (await silent.perform(order())).outcome == "failed"
    running.cancel()


async def test_a_recording_stands_in_for_a_voice(tmp_path: Path) -> None:
    heard, recording = tmp_path / "heard", tmp_path / "alarm.wav"
    recording.write_bytes(b"RIFF")
    play = (sys.executable, "-c", f"import sys; open({str(heard)!r}, 'a').write(sys.argv[1] + chr(10))")
    hall = driver(speak=("no-such-program",), play=play, recording=recording)
    done = await hall.perform(order())
    assert (done.outcome, "a recording was played" in done.detail) == ("done", True)
    assert heard.read_text().split() == [str(recording)]


def plays_for(seconds: float, heard: Path) -> tuple[str, ...]:
    """A player that writes down when it begins, and when it ends by itself."""
    note = f"open({str(heard)!r}, 'a').write"
    # As aplay does: stopped, it says so by its status.
    stop = "signal.signal(signal.SIGTERM, lambda *_: sys.exit('Aborted by signal Terminated'))"
    play = f"import signal, sys, time; {stop}; {note}('begins '); time.sleep({seconds}); {note}('ends ')"
    return (sys.executable, "-c", play)


@asynccontextmanager
async def hanging(hall: SpeakerDriver) -> AsyncIterator[ListDesk]:
    desk = ListDesk("hall", SPEAKER)
    task = asyncio.create_task(hall.run(desk))
    await asyncio.sleep(0)
    yield desk
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_sound_goes_on_for_its_time_and_is_answered_at_once(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    # It is one that a command may wait for no longer than half a second.
    hall = driver(play=plays_for(0.05, heard), recording=tmp_path / "alarm.wav", timeout_s=0.5)
    async with hanging(hall) as desk:
        asked = time.monotonic()
        done = await hall.perform(order("sound", seconds=300))
        assert (done.outcome, done.detail) == ("done", "it sounds for 300 s")
        assert time.monotonic() - asked < 8
        before = heard.read_text().count("ends")
        await desk.wait_until(lambda: heard.read_text().count("ends") > before + 3)
    after = heard.read_text()
    await asyncio.sleep(0.3)
    assert heard.read_text() == after, "it ends with the agent"


async def test_a_sound_ends_when_its_time_is_over(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    hall = driver(play=plays_for(60, heard), recording=tmp_path / "alarm.wav")
    async with hanging(hall) as desk:
        assert (await hall.perform(order("sound", seconds=2))).detail == "it sounds for 2 s"
        await desk.wait_until(lambda: hall._sounding is not None and hall._sounding.done())
    assert heard.read_text() == "begins "


async def test_a_voice_cuts_a_sound_short_and_it_goes_on_after(tmp_path: Path) -> None:
    heard, spoken = tmp_path / "heard", tmp_path / "spoken"
    hall = driver(play=plays_for(60, heard), speak=writes_to(spoken), recording=tmp_path / "alarm.wav")
    async with hanging(hall) as desk:
        assert (await hall.perform(order("sound", seconds=300))).outcome == "done"
        await desk.wait_until(heard.exists)
        assert (await hall.perform(order(text="请撤离"))).outcome == "done"
        assert spoken.read_text() == "请撤离"
        await desk.wait_until(lambda: heard.read_text() == "begins begins ")


async def test_a_sound_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.drivers.speaker.BEGUN_S", 10.0)
    failing = (sys.executable, "-c", "import sys; sys.exit('no sound card')")
    hall = driver(play=failing, recording=tmp_path / "alarm.wav")
    async with hanging(hall) as desk:
        failed = await hall.perform(order("sound", seconds=300))
        assert (failed.outcome, "no sound card" in failed.detail) == ("failed", True)
        assert "no sound card" in desk.troubles[""]
    silent = driver(play=("no-such-program",), recording=tmp_path / "alarm.wav")
    assert (await silent.perform(order("sound", seconds=300))).outcome == "failed"
    assert (await driver().perform(order("sound", seconds=300))).outcome == "refused"


async def test_what_it_does_not_know_is_refused() -> None:
    assert (await driver().perform(order("dance", steps=3))).outcome == "refused"


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed (Debian: espeak-ng)")
async def test_espeak_speaks_mandarin(tmp_path: Path) -> None:
    spoken = tmp_path / "spoken.wav"
    hall = driver(speak=("espeak-ng", "-v", "cmn", "-w", str(spoken), "--stdin"))
    assert (await hall.perform(order())).outcome == "done"
    with wave.open(str(spoken)) as sound:
        assert sound.getnframes() / sound.getframerate() > 1
