"""The ledger's passwords at a real Mosquitto."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from gateway.adapters.memory_ledger import open_memory_ledger
from tests.conftest import StartMosquitto
from tests.servers import Mosquitto

NOW = 1_795_435_200_000


def test_mosquitto_lets_in_who_has_an_issued_password_and_nobody_else(
    start_mosquitto: StartMosquitto, tmp_path: Path
) -> None:
    ledger = open_memory_ledger()
    old = ledger.issue_credentials(["agent-c001", "agent-c002"], NOW)
    new = ledger.issue_credentials(["agent-c002"], NOW)
    file = tmp_path / "passwords"
    file.write_text("".join(f"{name}:{hash}\n" for name, hash in ledger.credentials().items()), encoding="utf-8")
    broker = start_mosquitto(f"allow_anonymous false\npassword_file {file}")
    ledger.close()

    assert try_to_connect(broker, "agent-c001", old["agent-c001"])
    assert try_to_connect(broker, "agent-c002", new["agent-c002"])
    assert not try_to_connect(broker, "agent-c002", old["agent-c002"])
    assert not try_to_connect(broker, "agent-c002", new["agent-c002"] + "x")
    assert not try_to_connect(broker, "agent-c001", new["agent-c002"])
    assert not try_to_connect(broker, "nobody", old["agent-c001"])


def test_a_district_is_issued_in_no_time() -> None:
    ledger = open_memory_ledger()
    names = [f"agent-{number}" for number in range(1_000)]

    began = time.thread_time()
    issued = ledger.issue_credentials(names, NOW)
    took = time.thread_time() - began

    assert set(issued) == set(names) == set(ledger.credentials())
    assert len(set(issued.values())) == 1_000
    assert took < 5
    ledger.close()


def try_to_connect(broker: Mosquitto, name: str, password: str) -> bool:
    """Whether the broker takes a client with this name and password."""
    answered = threading.Event()
    taken = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"test-{name}")
    client.username_pw_set(name, password)

    def hear(client: object, userdata: object, flags: object, reason: ReasonCode, properties: object) -> None:
        taken.append(not reason.is_failure)
        answered.set()

    client.on_connect = hear
    client.connect(broker.host, broker.port)
    client.loop_start()
    assert answered.wait(10)
    client.disconnect()
    client.loop_stop()
    return taken[0]
