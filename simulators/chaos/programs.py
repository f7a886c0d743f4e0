"""The programs of a run. Each is kept alive as an init system would: when it ends, it is started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from simulators.chaos.disk import Disk

ROOT: Final = Path(__file__).resolve().parents[2]
START_S: Final = 40.0
STOP_S: Final = 20.0
AGAIN_S: Final = 0.5
"""A program that ended by itself is started again after so long."""
_SBIN: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin:/usr/local/bin"


class ProgramFailed(Exception):
    """A program is missing, or does not come to listen; the text has the end of what it wrote."""


def free_port() -> int:
    """A loopback port that nobody listens on, below the range of outgoing connections: one of those could take it
    while its program is down."""
    for _ in range(1000):
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ProgramFailed("no free loopback port between 15000 and 32000")


class Program:
    """``command`` runs, on ``disk`` if one is given, between `start` and `stop`; its output goes to ``log``.

    ``falls`` says how often it ended without having been asked to."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        ready: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.name = name
        self.disk = disk
        self.starts = 0
        self.falls: list[str] = []
        self._command = command
        self._ready = ready
        self._log = log
        self._environment = dict(environment or {})
        self._point = ""
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._is_ready = asyncio.Event()
        self._is_down = asyncio.Event()
        self._may_run = asyncio.Event()

    async def start(self) -> None:
        """Returns when it is ready. Raises ProgramFailed."""
        self._may_run.set()
        self._keeping = asyncio.create_task(self._keep(), name=self.name)
        await self.wait_ready()

    async def stop(self) -> None:
        """Ends it in good order, and for good."""
        self._may_run.clear()
        process = self._process
        if process is not None and process.returncode is None:
            self._send(signal.SIGCONT)
            self._send(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                self._send(signal.SIGKILL)
                await process.wait()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    async def wait_ready(self, timeout_s: float = START_S) -> None:
        """Until it listens. Raises ProgramFailed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_ready.wait()
        except TimeoutError:
            raise ProgramFailed(f"{self.name} does not come to listen\n{self.tail()}") from None

    async def kill(self) -> None:
        """SIGKILL; it stays down until `release`."""
        self._may_run.clear()
        self._send(signal.SIGKILL)
        await self._is_down.wait()

    def release(self) -> None:
        """It may run again."""
        self._point = ""
        self._may_run.set()

    async def run_to_point(self, point: str, timeout_s: float) -> bool:
        """After it was killed: runs it until it ends itself at a fault point, or is killed after a while. Whether it
        ended itself. It stays down until `release`."""
        self._point = point
        self._may_run.set()
        while self._is_down.is_set():  # noqa: ASYNC110 - it is a matter of one turn of the loop
            await asyncio.sleep(0)
        self._may_run.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_down.wait()
        except TimeoutError:
            await self.kill()
            return False
        return True

    def freeze(self, *, is_frozen: bool) -> None:
        """Stops it in its tracks, or lets it go on."""
        self._send(signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def tail(self, characters: int = 3000) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-characters:].strip() if self._log.exists() else ""

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep(self) -> None:
        while True:
            self._is_down.set()
            await self._may_run.wait()
            self._is_down.clear()
            status = await self._run_once()
            if self._may_run.is_set():
                self.falls.append(f"{self.name} ended by itself at {time.strftime('%H:%M:%S')} with status {status}")
                await asyncio.sleep(AGAIN_S)

    async def _run_once(self) -> int | None:
        self.starts += 1
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SCG_")}
        environment |= {"PYTHONUNBUFFERED": "1", **self._environment}
        if self.disk is not None:
            environment |= self.disk.environment
        if self._point:
            environment["FAULT_POINT"] = self._point
        with self._log.open("ab") as log:
            log.write(f"--- start {self.starts} at {time.strftime('%H:%M:%S')} {self._point}\n".encode())
            log.flush()
            offset = log.tell()
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=environment,
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        watching = asyncio.create_task(self._watch(offset))
        try:
            return await process.wait()
        except asyncio.CancelledError:
            self._send(signal.SIGKILL)
            await process.wait()
            raise
        finally:
            watching.cancel()
            self._is_ready.clear()

    async def _watch(self, offset: int) -> None:
        """Until its output says that it is ready."""
        wanted = self._ready.encode()
        while True:
            await asyncio.sleep(0.03)
            with self._log.open("rb") as written:
                written.seek(offset)
                if wanted in written.read():
                    break
        self._is_ready.set()


class Broker(Program):
    """Mosquitto, with what it keeps on the disk saved every other second."""

    def __init__(self, folder: Path, port: int) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
        if program is None:
            raise ProgramFailed("mosquitto is not installed (Debian and Ubuntu: apt-get install mosquitto)")
        self._store = folder / "broker"
        self._store.mkdir()
        lines = [
            f"listener {port} 127.0.0.1",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {self._store}/",
            "autosave_interval 2",
            "max_inflight_messages 1000",
            "max_queued_messages 100000",
            "log_dest stderr",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # Otherwise it becomes "mosquitto", who may not write to the folder.
        config = folder / "mosquitto.conf"
        config.write_text("\n".join([*lines, ""]), encoding="utf-8")
        super().__init__("broker", [program, "-c", str(config)], "running", folder / "broker.log")

    def forget(self) -> None:
        """After it was killed: nothing that it kept is there any more."""
        shutil.rmtree(self._store)
        self._store.mkdir()


def make_platform(folder: Path, port: int) -> tuple[Program, Path, Path]:
    """The reference platform, its store, and the file with the key that it reads."""
    key, store = folder / "platform.key", folder / "platform.db"
    key.touch(0o600)
    key.write_text(secrets.token_hex(32))
    command = [sys.executable, "-m", "simulators", "platform", "--store", str(store), "--key-file", str(key)]
    return Program("platform", [*command, "--port", str(port)], "listening on ", folder / "platform.log"), store, key


READY: Final = '"event": "ready"'


def make_gateway(disk: Disk, log: Path, settings: Mapping[str, str]) -> Program:
    """The gateway, with its data on ``disk``."""
    command = [sys.executable, "-m", "gateway", "serve", "--log-level", "warning"]
    return Program("gateway", command, READY, log, settings, disk)


def make_agent(name: str, config: Path, log: Path, disk: Disk) -> Program:
    """An edge agent, with its data on ``disk``."""
    return Program(name, [sys.executable, "-m", "edge", "--config", str(config)], READY, log, {}, disk)


async def run_to_end(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """What ``python ARGUMENTS`` printed. Raises ProgramFailed when it fails."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SCG_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=inherited | dict(environment),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, told = await process.communicate()
    if process.returncode != 0:
        raise ProgramFailed(f"{' '.join(arguments)}: {told.decode(errors='replace')[-2000:]}")
    return out.decode()
