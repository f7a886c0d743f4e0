"""The embedded broker, for when none is configured: Mosquitto as a child process, or else amqtt as one.

Who may connect stands in a password file in Mosquitto's own form (``name:$7$…``, PBKDF2-SHA512), which both read.
Nobody is anonymous. A source's user name is its id, and it speaks and hears only below its own topic: the broker
vouches for who published, because a subscriber cannot see it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import random
import re
import shutil
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from gateway.adapters.passwords import HASH
from gateway.errors import GatewayError
from gateway.wire import DOWN, GATEWAY_STATUS, TOPIC_ROOT, UP, topic_of

log = logging.getLogger(__name__)

GATEWAY_IDENTITY: Final = "gateway"

LARGEST_PACKET: Final = 16 * 1024 * 1024
"""Larger than any message that the gateway takes: it must see a message that is too long to answer it, or its source
sends it for ever. Beyond this Mosquitto hangs up on the sender, which is logged and counted here."""

START_TIMEOUT_S: Final = 15.0
STOP_TIMEOUT_S: Final = 10.0
RESTART_FIRST_S: Final = 0.2
RESTART_MOST_S: Final = 5.0
STEADY_S: Final = 10.0
"""A broker that ran so long was well: when it ends, it is started again at once."""

_IDENTITY: Final = re.compile(r"[a-z0-9-]{1,48}")
_SBIN: Final = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin:/opt/homebrew/bin:/usr/local/bin"
_LINES_KEPT: Final = 20
_ROOT: Final = Path(__file__).resolve().parents[2]
"""Where the package `gateway` lies, for a child process to find it."""


class BrokerCounters(Struct):
    """What happened since the start: how often it was started again, and how many logins and overlong messages it
    refused."""

    restarts: int = 0
    refused_logins: int = 0
    oversize: int = 0


class EmbeddedBroker:
    """A broker of our own, for as long as this process lives: it is started again when it dies, stopped with `stop`,
    and killed by the kernel when this process is (on Linux)."""

    def __init__(
        self,
        folder: Path,
        credentials: Mapping[str, str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        kind: str = "auto",
    ) -> None:
        """``folder`` keeps its configuration and sessions. ``credentials``: identity → password hash in Mosquitto's
        ``$7$`` form; ``gateway`` is the gateway. ``port`` 0 is a free one; ``kind`` is auto, mosquitto or amqtt.
        Raises GatewayError when that kind cannot be had here."""
        program = find_mosquitto() if kind in ("auto", "mosquitto") else None
        if program is None and kind == "mosquitto":
            raise GatewayError(
                "broker-missing",
                "mosquitto is not installed",
                "broker.embedded",
                "install it (Debian and Ubuntu: apt-get install mosquitto), or say auto or amqtt",
            )
        if program is None and not _is_loopback(host):
            raise GatewayError(
                "broker-network",
                f"the amqtt broker is for trying things out on one machine and does not listen on {host}",
                "broker.host",
                "install mosquitto, or configure broker.url",
            )
        self.kind: Final = "amqtt" if program is None else "mosquitto"
        self.counters = BrokerCounters()
        self._program = program
        self._folder = folder.absolute()
        self._credentials = _check_credentials(credentials)
        self._host = host
        self._port = port
        self._gateway_port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=_LINES_KEPT)

    @property
    def url(self) -> str:
        """The gateway's own address; on this machine other clients may use it too."""
        return f"mqtt://127.0.0.1:{self._gateway_port}"

    @property
    def source_url(self) -> str:
        """The address for sources. Mosquitto takes each client's user name for its client id there, so that no source
        can end another's session (or the gateway's) by connecting under its id."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"mqtt://{host}:{self._port}"

    @property
    def version(self) -> Literal["5", "3.1.1"]:
        """The MQTT version that it speaks best."""
        return "3.1.1" if self.kind == "amqtt" else "5"

    @property
    def pid(self) -> int | None:
        """The process id of the broker, or None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> str:
        """Starts it, waits until it listens, and returns `url`. Raises GatewayError with its last words if it fails."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._outlive_predecessor()
        self._write_passwords()
        chosen = self._port != 0
        for attempt in range(3):
            if not chosen:
                self._port = self._last_port() or free_port(self._host)
            self._gateway_port = self._port if self.kind == "amqtt" else free_port("127.0.0.1")
            try:
                await self._launch()
                break
            except GatewayError:
                # Between our probe and its listening, somebody else may have taken a port that we chose.
                if attempt == 2 or chosen:
                    raise
        _write_secret(self._folder / "port", f"{self._port}\n")
        self._watching = asyncio.create_task(self._watch(), name="embedded-broker")
        log.info("embedded broker (%s) listens on %s", self.kind, self.source_url)
        return self.url

    async def stop(self) -> None:
        """Ends it; Mosquitto saves its sessions first."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None
        await self._end_process()

    def set_credentials(self, credentials: Mapping[str, str]) -> None:
        """Who may connect from now on. Whoever is connected and may not any more is disconnected."""
        self._credentials = _check_credentials(credentials)
        self._write_passwords()
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    # --- the process -----------------------------------------------------------------------------------------

    async def _launch(self) -> None:
        # Asked before, because a stranger who listens there would look like a broker that has started.
        for host, port in ((self._host, self._port), ("127.0.0.1", self._gateway_port)):
            if _is_taken(host, port):
                raise self._failure(f"port {port} is taken")
        environment = dict(os.environ)
        if self._program is None:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
            command = [sys.executable, "-m", "gateway.adapters.amqtt_broker", str(self._folder / "passwords")]
            command += [self._host, str(self._port)]
        else:
            self._write_mosquitto_files()
            command = [str(self._program), "-c", str(self._folder / "mosquitto.conf")]
        self._tail.clear()
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            # Ctrl-C at the terminal is for the gateway, which then stops its broker last.
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )
        self._reading = asyncio.create_task(self._read_output(self._process))
        _write_secret(self._folder / "pid", f"{self._process.pid}\n")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await _is_listening(self._gateway_port):
                    if self._process.returncode is not None:
                        raise self._failure(f"it ended with status {self._process.returncode}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise self._failure(f"it does not listen after {START_TIMEOUT_S:g} s") from None
        except BaseException:
            await self._end_process()
            raise

    def _last_port(self) -> int | None:
        """The port of the last time, if it is free: sources that know it find the new broker there."""
        with contextlib.suppress(OSError, ValueError):
            port = int((self._folder / "port").read_text(encoding="utf-8"))
            return None if _is_taken(self._host, port) else port
        return None

    async def _outlive_predecessor(self) -> None:
        """Waits for the broker of a gateway that was killed: it is about to end, saves its sessions in our folder while
        it does, and has our port until then. One that does not end belongs to a gateway that lives."""
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_TIMEOUT_S
        while (pid := self._predecessor()) is not None:
            if loop.time() >= end:
                raise GatewayError(
                    "broker-folder",
                    f"another gateway's broker (process {pid}) runs in it",
                    str(self._folder),
                    "stop that gateway, or give this one a data folder of its own",
                )
            await asyncio.sleep(0.05)

    def _predecessor(self) -> int | None:
        """The process id of a broker that runs in our folder; its command line (as Linux shows it) tells it from a
        stranger with the same id."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self._folder / "pid").read_text(encoding="utf-8"))
            if f"{self._folder}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def _failure(self, what: str) -> GatewayError:
        said = "; ".join(list(self._tail)[-4:]) or "it said nothing"
        return GatewayError(
            "broker-start",
            f"the embedded broker ({self.kind}) did not start: {what} ({said})",
            f"broker.host and broker.port ({self._host}:{self._port})",
            "free the port, choose another, or configure broker.url",
        )

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                log.warning("the embedded broker does not end and is killed")
                process.kill()
                await process.wait()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None

    async def _watch(self) -> None:
        """Starts the broker again whenever it ends, on the same ports."""
        loop = asyncio.get_running_loop()
        pause = RESTART_FIRST_S
        while True:
            began = loop.time()
            if self._process is not None:
                status = await self._process.wait()
                log.error("the embedded broker ended with status %d and is started again", status)
                self._process = None
            if loop.time() - began >= STEADY_S:
                pause = RESTART_FIRST_S
            await asyncio.sleep(pause)
            pause = min(RESTART_MOST_S, pause * 2)
            try:
                await self._launch()
            except GatewayError as error:
                log.error("%s", error)
            else:
                self.counters.restarts += 1

    async def _read_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 - it was started with a pipe
        while line := await process.stderr.readline():
            text = line.decode("utf-8", "replace").strip()
            # Mosquitto puts seconds since 1970 before each line.
            text = re.sub(r"^\d{9,}: ", "", text)
            self._tail.append(text)
            if "oversize packet" in text:
                self.counters.oversize += 1
                log.warning("embedded broker: %s (more than %d bytes)", text, LARGEST_PACKET)
            elif "not authori" in text:
                self.counters.refused_logins += 1
                log.warning("embedded broker: %s", text)
            elif "rror" in text:
                log.warning("embedded broker: %s", text)
            else:
                log.debug("embedded broker: %s", text)

    # --- its files -------------------------------------------------------------------------------------------

    def _write_passwords(self) -> None:
        lines = [f"{name}:{hashed}\n" for name, hashed in sorted(self._credentials.items())]
        _write_secret(self._folder / "passwords", "".join(lines))

    def _write_mosquitto_files(self) -> None:
        _write_secret(self._folder / "acl", write_access_list())
        lines = [
            f"listener {self._gateway_port} 127.0.0.1",
            f"listener {self._port} {self._host}",
            "use_username_as_clientid true",
            "allow_anonymous false",
            f"password_file {self._folder}/passwords",
            f"acl_file {self._folder}/acl",
            # Sessions and messages outlive a restart. A kill may lose the last seconds; sources send those again.
            "persistence true",
            f"persistence_location {self._folder}/",
            "autosave_interval 10",
            "persistent_client_expiration 7d",
            # The gateway acknowledges after its commit, so many messages are on their way to it at once.
            "max_inflight_messages 0",
            "max_queued_messages 100000",
            "max_queued_bytes 134217728",
            f"max_packet_size {LARGEST_PACKET}",
            # Small packets at once: waiting for more of them would cost a press 40 ms.
            "set_tcp_nodelay true",
            "sys_interval 0",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type notice",
        ]
        if os.geteuid() == 0:
            # Otherwise it becomes the user "mosquitto", who may not read these files.
            lines.append("user root")
        _write_secret(self._folder / "mosquitto.conf", "\n".join([*lines, ""]))


# --- who may do what ----------------------------------------------------------------------------------------


def may_publish(identity: str, topic: str) -> bool:
    """Whether ``identity`` may publish on ``topic``."""
    if identity == GATEWAY_IDENTITY:
        return topic == GATEWAY_STATUS or _leaf(topic) in DOWN
    return _leaf(topic, identity) in UP


def may_receive(identity: str, topic: str) -> bool:
    """Whether ``identity`` may be sent what is published on ``topic``; also whether it may subscribe to the filter
    ``topic``, where a ``+`` stands for any community or source."""
    if topic == GATEWAY_STATUS:
        return True
    if identity == GATEWAY_IDENTITY:
        return _leaf(topic) in UP
    return _leaf(topic, identity) in DOWN


def _leaf(topic: str, source: str | None = None) -> str:
    """The last part of ``sc/v1/{community}/{source}/{leaf}``, or "" for any other topic or another source's."""
    root, *rest = topic.rsplit("/", 3)
    if root != TOPIC_ROOT or len(rest) != 3 or (source is not None and rest[1] != source):
        return ""
    return rest[2]


def write_access_list() -> str:
    """The same rules as Mosquitto's access list."""
    lines = [f"user {GATEWAY_IDENTITY}"]
    lines += [f"topic read {topic_of('+', '+', leaf)}" for leaf in UP]
    lines += [f"topic write {topic_of('+', '+', leaf)}" for leaf in DOWN]
    lines += [f"topic readwrite {GATEWAY_STATUS}", ""]
    lines += [f"pattern write {topic_of('+', '%u', leaf)}" for leaf in UP]
    lines += [f"pattern read {topic_of('+', '%u', leaf)}" for leaf in DOWN]
    lines += [f"pattern read {GATEWAY_STATUS}", ""]
    return "\n".join(lines)


def read_passwords(file: Path) -> dict[str, str]:
    """Identity → hash, as `EmbeddedBroker` wrote them."""
    pairs = (line.partition(":") for line in file.read_text(encoding="utf-8").splitlines())
    return {name: hashed for name, _, hashed in pairs if name}


def _check_credentials(credentials: Mapping[str, str]) -> dict[str, str]:
    """Raises ValueError for what would make another line of the password file."""
    for name, hashed in credentials.items():
        if _IDENTITY.fullmatch(name) is None:
            raise ValueError(f"{name!r} is no identity: lower-case letters, digits and hyphens, at most 48")
        if HASH.fullmatch(hashed) is None:
            raise ValueError(f"the hash of {name} is not in Mosquitto's $7$ form")
    return dict(credentials)


# --- the machine --------------------------------------------------------------------------------------------


def find_mosquitto() -> Path | None:
    """Mosquitto's program, where it is installed."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    return None if found is None else Path(found)


def free_port(host: str) -> int:
    """A port of ``host`` that nobody listens on, below the range from which systems draw the ports of outgoing
    connections: a client that knocks while the broker is started again could otherwise be given it."""
    for _ in range(1000):
        port = random.randint(15_000, 32_000)  # noqa: S311 - nothing secret
        if not _is_taken(host, port):
            return port
    raise GatewayError("broker-port", f"no free port on {host}", "broker.host", "give broker.port")


def _is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # Connections that have ended lately do not keep a broker from listening, so they must not count here.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
        return False


async def _is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _write_secret(file: Path, text: str) -> None:
    """Replaces the file as a whole, readable for us alone."""
    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600, exist_ok=False)
    new.write_text(text, encoding="utf-8")
    new.replace(file)


def _die_with(parent: int) -> Callable[[], None] | None:
    """What a child does before it becomes the broker: it asks the kernel for SIGTERM when ``parent`` dies, however that
    dies. None where the system has no such thing."""
    if sys.platform != "linux":
        return None
    # Found before the fork: between fork and exec the less is done the better.
    prctl = ctypes.CDLL(None).prctl

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return die_with_parent


_PR_SET_PDEATHSIG: Final = 1
"""From <sys/prctl.h>."""
