"""Real servers and processes for tests: Mosquitto, PostgreSQL, and this project's own programs.

Each is started on a free loopback port with a folder of its own, can be killed without warning and started again on
the same port and folder, and leaves nothing behind when it is closed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar
from uuid import uuid4

import psycopg

ROOT: Final = Path(__file__).resolve().parent.parent
"""The root of the checkout."""

_T = TypeVar("_T")
_SBIN: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin:/usr/local/bin"


class ServerMissing(Exception):
    """A server program is not installed here; the text says how to get it."""


class ServerFailed(Exception):
    """A server or process ended or did not become ready in time; the text ends with the last of its output."""


def free_port() -> int:
    """A loopback TCP port that nobody listens on.

    It lies below the range from which systems draw the ports of outgoing connections. A port of that range may be
    taken by a client that reconnects while its server is down, and the server could not start again on it.
    """
    for _ in range(1000):
        port = random.randint(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free loopback port between 15000 and 32000")


def find_mosquitto() -> Path:
    """The Mosquitto broker's program."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if found is None:
        raise ServerMissing("mosquitto is not installed (Debian and Ubuntu: apt-get install mosquitto)")
    return Path(found)


@functools.cache
def find_postgres() -> Path:
    """The folder with PostgreSQL's server programs; the newest version where there are several."""
    candidates = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: _version(folder.parent.name), reverse=True
    )
    if config := shutil.which("pg_config"):
        answer = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        candidates.insert(0, Path(answer.stdout.strip()))
    candidates += [Path(folder) for folder in ("/opt/homebrew/bin", "/usr/local/bin")]
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise ServerMissing("postgresql is not installed (Debian and Ubuntu: apt-get install postgresql)")


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", name))


def _poll(attempt: Callable[[], _T | None], timeout_s: float, interval_s: float = 0.02) -> _T | None:
    """What ``attempt`` returns once it is not None; None when that took longer than ``timeout_s`` seconds."""
    end = time.monotonic() + timeout_s
    while (found := attempt()) is None:
        if time.monotonic() >= end:
            return None
        time.sleep(interval_s)
    return found


class Process:
    """A running program whose output goes to a file.

    It is the first of a process group of its own: Ctrl-C at the test run's terminal does not reach it, and `close`
    takes whatever it started along.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        user: str | None = None,
    ) -> None:
        """Start ``command``. ``env`` is added to this process's environment, less every ``SCG_`` setting in it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SCG_")}
        self.log: Final = log
        with log.open("ab") as output:
            self._offset = output.tell()
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**inherited, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                start_new_session=True,
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else [],
            )

    @classmethod
    def module(cls, *args: str, log: Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Process:
        """Start ``python -m ARGS`` with this interpreter, for example ``Process.module("gateway", "serve", log=…)``."""
        return cls([sys.executable, "-m", *args], log=log, env={"PYTHONPATH": str(ROOT), **(env or {})}, cwd=cwd)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs; negative is the signal that ended it."""
        return self._popen.poll()

    def is_running(self) -> bool:
        return self.returncode is None

    def output(self) -> str:
        """Everything it has printed so far, standard error included."""
        with self.log.open("rb") as written:
            written.seek(self._offset)
            return written.read().decode(errors="replace")

    def tail(self, lines: int = 20) -> str:
        return "\n".join(self.output().splitlines()[-lines:])

    def wait_for_line(self, pattern: str, timeout_s: float = 30.0) -> re.Match[str]:
        """The first match of ``pattern`` (searched in each line of the whole output), as soon as it is there."""
        compiled = re.compile(pattern, re.MULTILINE)

        def look() -> re.Match[str] | bool | None:
            ended = not self.is_running()
            return compiled.search(self.output()) or (False if ended else None)

        found = _poll(look, timeout_s)
        if isinstance(found, re.Match):
            return found
        why = f"took longer than {timeout_s:g} s" if found is None else f"ended with status {self.returncode}"
        raise ServerFailed(f"{self._popen.args!r} {why} and printed no line like {pattern!r}; last:\n{self.tail()}")

    def kill(self) -> None:
        """SIGKILL this process alone, without warning, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait(timeout=10)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process alone."""
        self._popen.send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        """The exit status, once it has ended."""
        try:
            return self._popen.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"{self._popen.args!r} still runs after {timeout_s:g} s; last:\n{self.tail()}") from None

    def terminate(self, timeout_s: float = 15.0) -> int:
        """Ask it to end with SIGTERM; the exit status."""
        self.send(signal.SIGTERM)
        return self.wait(timeout_s)

    def interrupt(self, timeout_s: float = 15.0) -> int:
        """Ask it to end as Ctrl-C does; the exit status."""
        self.send(signal.SIGINT)
        return self.wait(timeout_s)

    def close(self) -> None:
        """SIGKILL it and everything left in its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Mosquitto:
    """A Mosquitto broker on loopback. ``config`` is added to its configuration file, as in mosquitto.conf(5)."""

    def __init__(self, config: str = "", *, persistence: bool = False) -> None:
        """Start a broker; with ``persistence`` it keeps sessions and messages in its folder, saved on a clean stop
        and every ``autosave_interval`` (which ``config`` may set), so a kill may lose what came since."""
        self._program: Final = find_mosquitto()
        self.folder: Final = Path(tempfile.mkdtemp(prefix="scg-mosquitto-"))
        self.port: Final = free_port()
        self._process: Process | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            "log_dest stderr",
            f"persistence {'true' if persistence else 'false'}",
            f"persistence_location {self.folder}/",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # Otherwise it becomes "mosquitto", who may not write to the folder.
        if not re.search(r"^\s*(allow_anonymous|password_file)\s", config, re.MULTILINE):
            lines.append("allow_anonymous true")
        (self.folder / "mosquitto.conf").write_text("\n".join([*lines, config, ""]), encoding="utf-8")
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """``mqtt://127.0.0.1:PORT``."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def process(self) -> Process:
        """The broker's process; an error while it is stopped."""
        if self._process is None:
            raise ServerFailed("this broker is stopped")
        return self._process

    def start(self) -> None:
        """Start it (again) on the same port and folder, and wait until it listens."""
        process = Process(
            [self._program, "-c", self.folder / "mosquitto.conf"], log=self.folder / "log", cwd=self.folder
        )
        try:
            _wait_until_listening(process, self.port)
        except ServerFailed:
            process.close()
            raise
        self._process = process

    def stop(self) -> None:
        """End it cleanly; with persistence it saves first."""
        self.process.terminate()
        self._process = None

    def kill(self) -> None:
        """SIGKILL: what it has not saved is gone."""
        self.process.kill()
        self._process = None

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self._process.close()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait_until_listening(process: Process, port: int, timeout_s: float = 20.0) -> None:
    def knock() -> bool | None:
        if not process.is_running():
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return None

    if not _poll(knock, timeout_s):
        raise ServerFailed(f"nothing listens on port {port}; last:\n{process.tail()}")


class Postgres:
    """A PostgreSQL server on loopback, with a cluster of its own. Durable only where asked, because that is slow."""

    def __init__(self, *, durable: bool = False) -> None:
        """Make a cluster and start it; ``durable`` keeps fsync on, for tests that count on it."""
        self._programs: Final = find_postgres()
        # It refuses to run as root. The folder lies directly in /tmp: a socket's path has room for 107 bytes only.
        self._user: Final = "postgres" if os.geteuid() == 0 else None
        self.folder: Final = Path(tempfile.mkdtemp(prefix="scg-postgres-", dir="/tmp"))
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self.port: Final = free_port()
        self._durable: Final = durable
        self._process: Process | None = None
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.close()
            raise

    def _initialise(self) -> None:
        # fmt: off
        command: list[str | Path] = [
            self._programs / "initdb", "--pgdata", self.folder / "data", "--username", "postgres", "--auth", "trust",
            "--encoding", "UTF8", "--locale", "C.UTF-8" if sys.platform == "linux" else "C", "--no-sync",
        ]
        # fmt: on
        with Process(command, log=self.folder / "initdb.log", cwd=self.folder, user=self._user) as initdb:
            if initdb.wait(60) != 0:
                raise ServerFailed(f"initdb failed; last:\n{initdb.tail()}")

    @property
    def process(self) -> Process:
        """The server's process; an error while it is stopped."""
        if self._process is None:
            raise ServerFailed("this server is stopped")
        return self._process

    def start(self) -> None:
        """Start it (again) on the same port and folder, and wait until it answers."""
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "100",
            "shared_buffers": "32MB",
            "fsync": "on" if self._durable else "off",
            "synchronous_commit": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
        }
        command: list[str | Path] = [self._programs / "postgres", "-D", self.folder / "data"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]

        def launch() -> bool | None:
            # After a kill the old server's children may hold its shared memory for a moment longer.
            process = Process(command, log=self.folder / "log", cwd=self.folder, user=self._user)
            if self._is_answering(process):
                self._process = process
                return True
            failure.append(process.tail())
            process.close()
            return None

        failure: list[str] = []
        if not _poll(launch, 30, interval_s=0.2):
            raise ServerFailed(f"PostgreSQL did not start; last:\n{failure[-1]}")

    def _is_answering(self, process: Process) -> bool:
        def ask() -> bool | None:
            if not process.is_running():
                return False
            with contextlib.suppress(psycopg.OperationalError), self._connect():
                return True
            return None

        return bool(_poll(ask, 20))

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname="postgres", autocommit=True, connect_timeout=5
        )

    def new_database(self) -> str:
        """Make an empty database; its SQLAlchemy URL, ``postgresql+psycopg://postgres@127.0.0.1:PORT/NAME``."""
        name = f"test_{uuid4().hex}"
        with self._connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def drop_database(self, url: str) -> None:
        """Remove a database of `new_database`, whoever may still be connected to it."""
        name = url.rsplit("/", 1)[-1]
        with self._connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())

    def stop(self) -> None:
        """End it at once but cleanly: connections are cut, transactions in progress are rolled back."""
        self.process.interrupt()
        self._process = None

    def kill(self) -> None:
        """SIGKILL the server; its children notice and end."""
        self.process.kill()
        self._process = None

    def close(self) -> None:
        """End it and remove its cluster."""
        if self._process is not None:
            if self._process.is_running():
                self._process.send(signal.SIGQUIT)
                with contextlib.suppress(ServerFailed):
                    self._process.wait(10)
            self._process.close()
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
