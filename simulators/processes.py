"""The programs that a simulation runs beside itself: the gateway, and the reference platform that it delivers to.

They live in one folder and are stopped together, whatever happens in between: whoever starts one and is cancelled
before it listens leaves nothing running.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).resolve().parent.parent
"""The checkout: the programs run here, and find device profiles and rules here."""

STOP_S: Final = 15.0
"""How long a program may take to end by itself."""

INHERITED: Final = ("SCG_BROKER__EMBEDDED",)
"""Settings that a simulation hands on. Whatever else the environment says is about another gateway."""


LASTING: Final = ("gateway", "platform")
"""Programs that run until they are stopped."""


class ProgramEnded(Exception):
    """A program ended before it did what it was started for; the message has the end of what it wrote."""


class Programs:
    """Gateway and platform of one simulation, below ``folder``. ``stats`` is the gateway's newest line of counters."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.stats: dict[str, Any] = {}
        self._settings = {
            "SCG_DATA": str(folder / "data"),
            "SCG_PROFILES": str(ROOT / "device_profiles"),
            "SCG_RULES": str(ROOT / "rules"),
            # The reference platform is there to be tested against: what is simulated goes there, and counts.
            "SCG_PLATFORM__TEST": "true",
            **settings,
        }
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._key = folder / "platform.key"

    async def register(self, district: Path, settings: Mapping[str, str]) -> dict[str, str]:
        """Registers a district file. Returns the sources' passwords. Raises ProgramEnded when it is refused."""
        passwords = self.folder / "passwords.json"
        arguments = ["-m", "gateway", "register", str(district), "--credentials", str(passwords)]
        process = await self._spawn("register", arguments, self._settings | dict(settings))
        if await process.wait() != 0:
            raise ProgramEnded(self._last_words("register"))
        return dict(json.loads(passwords.read_text()))

    async def import_tables(self, folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
        """Imports a district's tables. Returns the sources' passwords. Raises ProgramEnded when a row is bad."""
        passwords = self.folder / "passwords.json"
        arguments = ["-m", "gateway", "district", "import", str(folder), "--credentials", str(passwords)]
        process = await self._spawn("import", arguments, self._settings | dict(settings))
        if await process.wait() != 0:
            raise ProgramEnded(self._last_words("import"))
        return dict(json.loads(passwords.read_text()))

    async def start_platform(self, callback: str | None = None) -> str:
        """Starts the reference platform, whose people act at ``callback``. Returns its address."""
        self._key.touch(0o600)
        self._key.write_text(secrets.token_hex(32))
        store = self.folder / "platform.db"
        arguments = ["-m", "simulators", "platform", "--store", str(store), "--key-file", str(self._key)]
        if callback is not None:
            arguments += ["--callback", callback]
        process = await self._spawn("platform", arguments, {})
        line = await self._wait_for(process, "platform", "listening on ")
        self._readers.append(asyncio.create_task(self._read_on(process)))
        return line.rsplit(" ", 1)[-1]

    async def start_gateway(self, platform: str | None, settings: Mapping[str, str]) -> str:
        """Starts the gateway, which delivers to this platform, if any. Returns the broker's address for sources."""
        delivery = {}
        if platform is not None:
            delivery = {
                "SCG_PLATFORM__URL": f"{platform}/events",
                "SCG_PLATFORM__KEY_FILE": str(self._key),
            }
        arguments = ["-m", "gateway", "serve", "--stats", "--log-level", "warning"]
        process = await self._spawn("gateway", arguments, self._settings | delivery | dict(settings))
        ready = json.loads(await self._wait_for(process, "gateway", '"event": "ready"'))
        self._readers.append(asyncio.create_task(self._read_on(process)))
        return str(ready["broker"])

    async def start_stand(
        self, district: Path, broker: str, *, speed: float, anchor_real: int, anchor: int, seed: int
    ) -> dict[str, str]:
        """Starts the test stand with the communities of a district file, which were imported; its clock is the
        gateway's. Returns the settings by which the web process finds it."""
        key = self.folder / "stand.key"
        key.touch(0o600)
        key.write_text(secrets.token_hex(32))
        arguments = [
            "-m",
            "simulators",
            "stand",
            "--district",
            str(district),
            "--key-file",
            str(key),
            "--broker",
            broker,
        ]
        arguments += ["--passwords", str(self.folder / "passwords.json"), "--seed", str(seed)]
        arguments += ["--speed", str(speed), "--anchor-real", str(anchor_real), "--anchor", str(anchor)]
        process = await self._spawn("stand", arguments, {})
        line = await self._wait_for(process, "stand", "listening on ")
        self._readers.append(asyncio.create_task(self._read_on(process)))
        return {"SCG_STAND__URL": line.rsplit(" ", 1)[-1], "SCG_STAND__KEY_FILE": str(key)}

    async def start_web(self, port: int, settings: Mapping[str, str]) -> None:
        """Starts the gateway's web process on a port of loopback."""
        # The accounts of a simulation are gone with it: a name and a password must do for them.
        own = {
            "SCG_WEB__PORT": str(port),
            "SCG_WEB__PLATFORM_KEYS": str(self._key),
            "SCG_WEB__SECOND_FACTOR": "",
        }
        process = await self._spawn("web", ["-m", "gateway", "web"], self._settings | own | dict(settings))
        await self._wait_for(process, "web", '"event": "ready"')
        self._readers.append(asyncio.create_task(self._read_on(process)))

    async def add_account(
        self, role: str, scope: Sequence[str], settings: Mapping[str, str], name: str = ""
    ) -> tuple[str, str]:
        """Makes an account, named as its role unless it has a name, with this scope (options of `gateway account add`).
        Returns its name and password. Raises ProgramEnded."""
        name = name or role.replace("_", "-")
        arguments = ["-m", "gateway", "account", "add", name, "--role", role, "--permanent", *scope]
        process = await self._spawn(f"account-{name}", arguments, self._settings | dict(settings))
        out, _ = await process.communicate()
        if process.returncode != 0:
            raise ProgramEnded(self._last_words(f"account-{name}"))
        return name, str(json.loads(out)["password"])

    async def print_sheet(self, community: str, place: str, url: str, settings: Mapping[str, str]) -> str:
        """Makes the sheet with a place's QR code, through the running gateway. Returns the address that stands in it.
        Raises ProgramEnded."""
        arguments = ["-m", "gateway", "qr", "--community", community, "--place", place, "--url", url]
        process = await self._spawn("qr", [*arguments, "--out", str(self.folder)], self._settings | dict(settings))
        out, _ = await process.communicate()
        if process.returncode != 0:
            raise ProgramEnded(self._last_words("qr"))
        return str(json.loads(out)["url"])

    async def start_agent(self, source: str, config: Path) -> None:
        """Starts an edge agent."""
        process = await self._spawn(source, ["-m", "edge", "--config", str(config)], {})
        self._readers.append(asyncio.create_task(self._read_on(process)))

    @staticmethod
    def free_port() -> int:
        """A port of loopback that nobody listens on now."""
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            return int(found.getsockname()[1])

    async def list_cases(self) -> list[dict[str, Any]]:
        """The incidents and notices in the gateway's ledger. Raises ProgramEnded when it cannot be read."""
        return [json.loads(line) for line in (await self._ask("incidents", "--limit", "1000000")).splitlines()]

    async def appraise(self, since: str, until: str, settings: Mapping[str, str]) -> dict[str, Any]:
        """The gateway's own appraisal of all incidents that were opened between two times (ISO 8601), in one row.
        Raises ProgramEnded when the ledger cannot be read."""
        question = ("--by", "community", "--from", since, "--to", until)
        return dict(json.loads(await self._ask("appraise", *question, settings=settings))["total"])

    async def _ask(self, command: str, *arguments: str, settings: Mapping[str, str] | None = None) -> bytes:
        """What a command of the gateway's prints."""
        process = await self._spawn(
            command, ["-m", "gateway", command, *arguments], self._settings | dict(settings or {})
        )
        out, _ = await process.communicate()
        if process.returncode != 0:
            raise ProgramEnded(self._last_words(command))
        return out

    @property
    def ended(self) -> bool:
        """Whether the gateway or the platform, once started, has ended."""
        return any(self._running[name].returncode is not None for name in LASTING if name in self._running)

    def last_words(self) -> str:
        """The end of what the programs wrote to their logs."""
        return "\n".join(filter(None, (self._last_words(name) for name in ("gateway", "platform"))))

    async def stop(self) -> None:
        """Ends all programs, the gateway first; what does not end in time is killed."""
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for process in reversed(self._running.values()):
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                # What nobody reads fills the pipe, and a full pipe keeps a program from ending.
                draining = asyncio.create_task(_drain(process))
                try:
                    await asyncio.wait_for(process.wait(), STOP_S)
                except TimeoutError:
                    process.kill()
                    await process.wait()
                draining.cancel()

    async def _spawn(self, name: str, arguments: list[str], settings: Mapping[str, str]) -> asyncio.subprocess.Process:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("SCG_") or key in INHERITED
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                env=environment | dict(settings),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C reaches the simulation alone, which ends the programs in their order.
                start_new_session=True,
            )
        self._running[name] = process
        return process

    async def _wait_for(self, process: asyncio.subprocess.Process, name: str, words: str) -> str:
        assert process.stdout is not None  # noqa: S101 - piped by _spawn
        while line := (await process.stdout.readline()).decode():
            if words in line:
                return line.strip()
        raise ProgramEnded(f"{name} ended before it listened\n{self._last_words(name)}")

    async def _read_on(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - piped by _spawn
        while line := await process.stdout.readline():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if found.get("event") == "stats":
                    self.stats = found

    def _last_words(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-2000:].strip() if path.exists() else ""


async def _drain(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None  # noqa: S101 - piped by Programs
    while await process.stdout.read(65536):
        pass


@contextlib.asynccontextmanager
async def running(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Programs]:
    """Programs that are all gone when this ends, also when it is interrupted, and interrupted again while it ends."""
    programs = Programs(folder, settings)
    try:
        yield programs
    finally:
        with _undisturbed():
            await asyncio.shield(asyncio.create_task(programs.stop()))


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for name in STOPPING:
        loop.add_signal_handler(name, lambda: None)
    yield


STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a simulation."""


def stop_on_signal() -> None:
    """From now on these signals cancel the current task, once."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - called from a coroutine
    for name in STOPPING:
        loop.add_signal_handler(name, task.cancel)


async def read_incidents(client: httpx.AsyncClient) -> list[dict[str, Any]] | None:
    """The platform's incidents, each at its newest revision; None when it does not answer."""
    try:
        answer = await client.get("/incidents")
        answer.raise_for_status()
        return [entry["incident"] for entry in answer.json()]
    except (httpx.HTTPError, ValueError):
        return None
