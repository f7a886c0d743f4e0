"""The password hashes that a ledger keeps, before a real Mosquitto."""

from __future__ import annotations

import threading
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from gateway.adapters.memory_ledger import open_memory_ledger
from tests.conftest import StartMosquitto
from tests.ports.ledger_batches import NOW
from tests.servers import Mosquitto


def test_mosquitto_lets_in_who_has_a_password_of_the_ledger_s_and_nobody_else(
    start_mosquitto: StartMosquitto, tmp_path: Path
) -> None:
    ledger = open_memory_ledger()
    replaced = ledger.issue_credentials(["agent-001", "agent-002"], NOW)
    passwords = replaced | ledger.issue_credentials(["agent-002"], NOW)
    file = tmp_path / "passwords"
    file.write_text("".join(f"{name}:{hashed}\n" for name, hashed in ledger.credentials().items()))
    file.chmod(0o600)
    ledger.close()
    broker = start_mosquitto(f"password_file {file}")

    assert is_let_in(broker, "agent-001", passwords["agent-001"])
    assert is_let_in(broker, "agent-002", passwords["agent-002"])
    assert not is_let_in(broker, "agent-002", replaced["agent-002"]), "a new password ends the old one"
    assert not is_let_in(broker, "agent-001", passwords["agent-002"])
    assert not is_let_in(broker, "agent-001", "")
    assert not is_let_in(broker, "agent-003", passwords["agent-001"])
    assert not is_let_in(broker, None, None)


def is_let_in(broker: Mosquitto, name: str | None, password: str | None) -> bool:
    """What the broker answers to a connection as ``name``."""
    answers: list[ReasonCode] = []
    answered = threading.Event()

    def hear(client: mqtt.Client, data: object, flags: object, code: ReasonCode, properties: object) -> None:
        answers.append(code)
        answered.set()

    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.username_pw_set(name, password)
    client.on_connect = hear
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        assert answered.wait(10), "the broker did not answer"
    finally:
        client.disconnect()
        client.loop_stop()
    return not answers[0].is_failure
