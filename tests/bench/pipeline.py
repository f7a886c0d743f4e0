"""Readings per second judged and committed, beside a bare paho subscriber of the same messages in the same run.

The messages wait in a real Mosquitto, in the persistent sessions of both, before either drains them. The ledger is
SQLite with ``synchronous=FULL`` on a disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, Literal

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.core.worlds import ROOT
from tests.servers import Mosquitto, Process

Mode = Literal["single", "pack"]

COMMUNITIES: Final = 20
DEVICES: Final = 50
MESSAGES: Final[dict[Mode, int]] = {"single": 100_000, "pack": 20_000}
IN_FLIGHT: Final = 2_000
CONFIG: Final = f"max_inflight_messages {IN_FLIGHT}\nmax_queued_messages 0\nmax_queued_bytes 0\nallow_anonymous true\n"
CEILING_ID: Final = "ceiling"
TOPIC: Final = "sc/v1/+/+/telemetry"
START: Final = 1_795_435_200.0


class Record(msgspec.Struct):
    """What a subscriber that decodes makes of a record."""

    n: str
    v: float
    u: str | None = None


class Envelope(msgspec.Struct):
    pack: list[Record]


def run(mode: Mode, messages: int | None = None) -> dict[str, object]:
    """Publishes, then drains twice: the bare subscriber, then the gateway."""
    count = messages or MESSAGES[mode]
    per_message = 1 if mode == "single" else DEVICES
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIR", ROOT)))
    _refuse_memory(folder)
    try:
        with Mosquitto(CONFIG) as broker:
            env = _register(folder, broker.url)
            _meet(folder, env, broker)
            _publish(broker, mode, count)
            ceiling = _drain_bare(broker, count, decodes=mode == "pack")
            gateway = _drain_gateway(folder, env, count)
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=False)
    return {
        "mode": mode,
        "messages": count,
        "readings_per_s": round(count * per_message / gateway["seconds"]),
        "ceiling_per_s": round(count * per_message / ceiling),
        "ratio_to_ceiling": round(ceiling / gateway["seconds"], 3),
        "judged": gateway["judged"],
        "batches": gateway["batches"],
    }


def _refuse_memory(folder: Path) -> None:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if kind in ("tmpfs", "ramfs"):
        raise SystemExit(f"{folder} lies in memory ({kind}); set BENCH_DIR to a folder on a disk")


def _register(folder: Path, url: str) -> dict[str, str]:
    """Registers the communities in a ledger on the disk."""
    communities = []
    for number in range(COMMUNITIES):
        id = f"c{number:03d}"
        communities.append(
            {
                "community": {"id": id, "serial": number + 1, "name": id},
                "places": [{"id": id, "kind": "community", "name": id}],
                "sources": [{"id": f"agent-{number:03d}", "place": id}],
                "devices": [
                    {
                        "id": f"{id}-room-{n:02d}",
                        "profile": "temperature-humidity",
                        "source": f"agent-{number:03d}",
                        "place": id,
                    }
                    for n in range(DEVICES)
                ],
            }
        )
    grids = [{"code": "370215", "level": "district", "name": "即墨区"}]
    district = folder / "district.json"
    district.write_text(json.dumps({"grids": grids, "communities": communities}))
    env = {"SCG_DATA": str(folder / "data"), "SCG_BROKER__URL": url, "SCG_BROKER__CLIENT_PREFIX": "bench"}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "register", str(district), "--credentials", str(folder / "secrets.json")],
        env=os.environ | env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return env


def _meet(folder: Path, env: dict[str, str], broker: Mosquitto) -> None:
    """Lets the gateway and the bare subscriber each make their persistent session, and go."""
    with Process.module("gateway", "serve", log=folder / "meet.log", env=env) as gateway:
        gateway.wait_for_line(r'"event": "ready"', 60)
        time.sleep(1)
        gateway.terminate()
    client = _subscriber(broker)
    client.subscribe(TOPIC, 1)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        client.loop(0.1)
    client.disconnect()
    client.loop(0.1)


def _subscriber(broker: Mosquitto) -> mqtt.Client:
    # MQTT 3.1.1, with which paho is half as fast again as with 5: the higher ceiling of the two.
    client = mqtt.Client(CallbackAPIVersion.VERSION2, CEILING_ID, clean_session=False, protocol=mqtt.MQTTv311)
    client.connect(broker.host, broker.port)
    return client


def _publish(broker: Mosquitto, mode: Mode, count: int) -> None:
    """Puts all messages into the broker at QoS 1, round robin over the communities."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "publisher", protocol=mqtt.MQTTv5)
    client.max_inflight_messages_set(1_000)
    client.max_queued_messages_set(0)
    client.connect(broker.host, broker.port)
    client.loop_start()
    info = None
    for number in range(count):
        community, seq = number % COMMUNITIES, number // COMMUNITIES + 1
        info = client.publish(
            f"sc/v1/c{community:03d}/agent-{community:03d}/telemetry", _payload(mode, community, seq), 1
        )
        if number % 2_000 == 1_999:
            info.wait_for_publish(30)
    if info is not None:
        info.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


def _payload(mode: Mode, community: int, seq: int) -> bytes:
    at = START + seq
    envelope = {"v": 1, "spool": f"bench-{community:03d}", "lane": "telemetry", "seq": seq, "floor": 1}
    devices = range(DEVICES) if mode == "pack" else (seq % DEVICES,)
    pack = [
        {"n": f"c{community:03d}-room-{n:02d}:temperature", "u": "Cel", "v": 20 + (seq + n) % 9 / 10} for n in devices
    ]
    return msgspec.json.encode({**envelope, "sent_at": at, "taken_at": at - 0.1, "pack": pack})


def _drain_bare(broker: Mosquitto, count: int, *, decodes: bool) -> float:
    """Seconds that a bare paho subscriber takes, from its first message to its last."""
    client = _subscriber(broker)
    decoder = msgspec.json.Decoder(Envelope)
    first = last = 0.0
    got = 0

    def take(client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        nonlocal first, last, got
        if decodes:
            decoder.decode(message.payload)
        got += 1
        if got == 1:
            first = time.perf_counter()
        elif got == count:
            last = time.perf_counter()
            client.disconnect()

    client.on_message = take
    client.loop_forever()
    if got != count:
        raise SystemExit(f"the bare subscriber got {got} of {count} messages")
    return last - first


def _drain_gateway(folder: Path, env: dict[str, str], count: int) -> dict[str, float]:
    """Runs the gateway in a process of its own until all is committed; it measures itself (see `drain`)."""
    done = subprocess.run(
        [*os.environ.get("BENCH_PREFIX", "").split(), sys.executable, "-m", "tests.bench", "drain", str(count)],
        env=os.environ | env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
