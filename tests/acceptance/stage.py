"""A stage for acceptance tests: one community on a real broker, and a gateway that can be killed and started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from msgspec.structs import replace
from paho.mqtt.enums import CallbackAPIVersion

from gateway.adapters.ledger import open_ledger
from gateway.core.model import Incident, Scalar
from gateway.wire import (
    CommandMessage,
    Lane,
    Measurement,
    Message,
    Receipt,
    Reply,
    Signal,
    decode_command,
    decode_receipt,
    encode_message,
    encode_reply,
    topic_of,
)
from tests.core.worlds import COMMUNITY, DEVICES, PLACES
from tests.servers import ROOT, Mosquitto, Process
from tests.simulators.platform_process import PlatformProcess

SOURCE = "agent-1"


@dataclass
class Stage:
    """Broker, data folder, settings; the gateway runs between `start` and `kill` or `stop`."""

    folder: Path
    broker: Mosquitto
    settings: dict[str, str] = field(default_factory=dict)
    gateway: Process | None = None
    starts: int = 0

    def __post_init__(self) -> None:
        self.settings = {
            "SCG_DATA": str(self.folder / "data"),
            "SCG_BROKER__URL": self.broker.url,
            **self.settings,
        }

    @property
    def ledger_url(self) -> str:
        return self.settings.get("SCG_LEDGER__URL", f"sqlite:///{self.folder}/data/ledger.db")

    def now(self) -> int:
        """The time on the gateway's clock, in ms."""
        real = time.time_ns() // 1_000_000
        anchor_real = int(self.settings.get("SCG_CLOCK__ANCHOR_REAL", real))
        speed = float(self.settings.get("SCG_CLOCK__SPEED", 1))
        return int(self.settings.get("SCG_CLOCK__ANCHOR", real)) + round((real - anchor_real) * speed)

    def move_clock(self, forward_ms: int = 0, speed: float = 1.0) -> None:
        """From now on the clock runs at ``speed``, so much further on; for the next start of the gateway."""
        now = self.now() + forward_ms
        real = time.time_ns() // 1_000_000
        self.settings |= {
            "SCG_CLOCK__SPEED": str(speed),
            "SCG_CLOCK__ANCHOR_REAL": str(real),
            "SCG_CLOCK__ANCHOR": str(now),
        }

    def use_platform(self, platform: PlatformProcess) -> None:
        self.settings["SCG_PLATFORM__URL"] = platform.events_url
        self.settings["SCG_PLATFORM__LIST_URL"] = platform.list_url
        self.settings["SCG_PLATFORM__KEY_FILE"] = str(platform._key_file)

    def register(
        self, devices: Any = DEVICES, lists: Mapping[str, list[str]] | None = None, sources: tuple[str, ...] = ()
    ) -> None:
        """Registers the small community of tests/core/worlds.py, and more sources that carry nothing yet."""
        district = {
            "grids": [{"code": "370215", "level": "district", "name": "即墨区"}],
            "communities": [
                {
                    "community": COMMUNITY,
                    "places": PLACES,
                    "sources": [
                        {"id": SOURCE, "place": "gate", "device": SOURCE},
                        *({"id": source, "place": "gate"} for source in sources),
                    ],
                    "devices": devices,
                }
            ],
            "lists": dict(lists or {}),
        }
        path = self.folder / "district.json"
        path.write_bytes(msgspec.json.encode(district))
        done = self.run("register", str(path), "--credentials", str(self.folder / "secrets.json"))
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the gateway's, to its end."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SCG_")}
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=clean | self.settings,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self) -> Process:
        """Starts the gateway and waits until it listens."""
        self.starts += 1
        log = self.folder / f"gateway-{self.starts}.log"
        self.gateway = Process.module("gateway", "serve", log=log, env=self.settings)
        self.gateway.wait_for_line(r'"event": "ready"', 30)
        return self.gateway

    def kill(self) -> None:
        """SIGKILL."""
        assert self.gateway is not None
        self.gateway.kill()

    def stop(self) -> str:
        """A clean stop; returns what it logged."""
        assert self.gateway is not None
        self.gateway.terminate()
        return self.gateway.output()

    def incidents(self) -> list[Incident]:
        """All incidents and notices in the ledger."""
        ledger = open_ledger(self.ledger_url)
        try:
            return ledger.incidents(limit=10_000)
        finally:
            ledger.close()

    def counts(self) -> dict[str, dict[str, int]]:
        done = self.run("counts")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def close(self) -> None:
        if self.gateway is not None:
            self.gateway.close()


class Agent:
    """A source as it should be: a spool in memory, lanes, and resends until the gateway's receipt.

    It talks from a thread of paho's own; `press` and `read` may be called from the test."""

    def __init__(self, stage: Stage, *, spool: str = "spool-a", resend_s: float = 0.7, source: str = SOURCE) -> None:
        self.source = source
        self.spool = spool
        self._now = stage.now
        self.receipts: list[Receipt] = []
        self.commands: list[CommandMessage] = []
        self.held: dict[tuple[Lane, int], Message] = {}
        self.rejected: dict[tuple[str, int], str] = {}
        self.lock = threading.RLock()
        self._seq = {Lane.ALARM: 0, Lane.TELEMETRY: 0}
        self._resend_s = resend_s
        self._last: dict[tuple[Lane, int], float] = {}
        self._stopping = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, f"{source}-{spool}", protocol=mqtt.MQTTv5)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        self.client.connect(stage.broker.host, stage.broker.port)
        self.client.loop_start()
        self._thread = threading.Thread(target=self._resend, daemon=True)
        self._thread.start()

    def press(self, device: str = "sos-1", kind: str = "pressed", **data: Scalar) -> str:
        """A press; returns its event id."""
        seq = self.send(Lane.ALARM, signals=(Signal(device, kind, dict(data)),))
        return f"{self.source}/{self.spool}/alarm/{seq}/0"

    def read(self, name: str, value: float | bool, lane: Lane = Lane.TELEMETRY) -> int:
        return self.send(lane, measurements=[Measurement(name, value)])

    def send(
        self,
        lane: Lane,
        signals: tuple[Signal, ...] = (),
        measurements: list[Measurement] | None = None,
        taken_at: int | None = None,
    ) -> int:
        with self.lock:
            self._seq[lane] += 1
            seq = self._seq[lane]
            at = taken_at if taken_at is not None else self._now()
            message = Message(
                COMMUNITY.id, self.source, lane, self.spool, seq, 1, at, at, signals, measurements or [], (), 0
            )
            self.held[lane, seq] = message
            self._publish(message)
            return seq

    def skip(self, lane: Lane, count: int) -> None:
        """Loses so many messages, as a source whose spool overflowed."""
        with self.lock:
            self._seq[lane] += count

    def wait_settled(self, timeout_s: float = 20) -> None:
        """Until every message has its receipt."""
        deadline = time.monotonic() + timeout_s
        while self.held:
            assert time.monotonic() < deadline, f"without receipt after {timeout_s} s: {sorted(self.held)[:5]}"
            time.sleep(0.02)

    def close(self) -> None:
        self._stopping.set()
        self.client.disconnect()
        self.client.loop_stop()

    def _floor(self, message: Message) -> int:
        lanes = [seq for lane, seq in self.held if lane is message.lane]
        return min([*lanes, message.seq])

    def _publish(self, message: Message) -> None:
        self._last[message.lane, message.seq] = time.monotonic()
        sent = max(self._now(), message.taken_at)
        stamped = replace(message, sent_at=sent, floor=self._floor(message))
        self.client.publish(topic_of(COMMUNITY.id, self.source, message.lane), encode_message(stamped), 1)

    def _resend(self) -> None:
        while not self._stopping.wait(0.1):
            with self.lock:
                for key, message in list(self.held.items())[:64]:
                    if time.monotonic() - self._last[key] > self._resend_s:
                        self._publish(message)

    def _on_connect(self, client: mqtt.Client, *_: object) -> None:
        for leaf in ("receipt", "command", "config"):
            client.subscribe(topic_of(COMMUNITY.id, self.source, leaf), 1)

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/receipt"):
            receipt = decode_receipt(bytes(message.payload))
            assert isinstance(receipt, Receipt)
            with self.lock:
                self.receipts.append(receipt)
                if receipt.spool == self.spool:
                    self._settle(receipt)
        elif message.topic.endswith("/command"):
            command = decode_command(bytes(message.payload))
            assert isinstance(command, CommandMessage)
            self.commands.append(command)
            reply = encode_reply(Reply(command.id, command.device, "done", "as asked"))
            client.publish(topic_of(COMMUNITY.id, self.source, "reply"), reply, 1)

    def _settle(self, receipt: Receipt) -> None:
        refused = dict(receipt.rejected)
        for lane, seq in list(self.held):
            if lane == receipt.lane and (seq <= receipt.seq or seq in receipt.above or seq in refused):
                del self.held[lane, seq]
        for seq, reason in refused.items():
            self.rejected[receipt.lane, seq] = reason


def wait_for(look: Callable[[], Any], timeout_s: float = 30) -> Any:
    """What ``look`` finds, once it finds anything."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"in vain for {timeout_s:g} s"
        time.sleep(0.05)
    return found


def events_of(incidents: list[Incident]) -> dict[str, list[str]]:
    """Event id → the ids of the incidents in whose timelines it stands, once for each line."""
    found: dict[str, list[str]] = {}
    for incident in incidents:
        for line in incident.timeline:
            if line.event:
                found.setdefault(line.event, []).append(incident.id)
    return found
