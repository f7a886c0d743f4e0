"""The deployment's files: no secret has a default, and the broker lets each source speak only for itself."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import yaml

from gateway.settings import read_settings
from tests.conftest import StartMosquitto
from tests.servers import ROOT, Mosquitto

DEPLOY = ROOT / "docs" / "deploy"


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_every_variable_must_be_given(compose: dict[str, Any]) -> None:
    variables = re.findall(r"\$\{([^}]*)\}", yaml.safe_dump(compose, width=10_000))
    assert variables
    for variable in variables:
        assert re.fullmatch(r"([A-Z_]+):\?add \1 to \.env", variable), variable


def test_the_gateway_accepts_every_setting_that_it_is_given(compose: dict[str, Any]) -> None:
    for name in ("gateway", "migrate"):
        settings = read_settings(None, compose["services"][name]["environment"])
        assert settings.broker.url == "mqtt://broker:1883"
        assert settings.ledger_url.endswith("@ledger:5432/gateway")
        assert settings.platform.key_file == Path("/run/secrets/platform_key")


def test_every_mounted_file_exists_and_every_volume_is_declared(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            origin = volume.split(":")[0]
            assert (ROOT / origin).exists() if origin.startswith(".") else origin in compose["volumes"], volume


def test_nothing_is_published_beyond_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_copies_only_what_is_there_and_is_not_ignored() -> None:
    copied = re.findall(r"^COPY (\S+) ", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    kept = re.findall(r"^!(\S+)", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)


@pytest.fixture
def broker(start_mosquitto: StartMosquitto, tmp_path: Path) -> Mosquitto:
    """A broker with the deployment's access list, started with the passwords of the gateway and of two sources."""
    passwords = tmp_path / "passwords"
    passwords.write_text("gateway:g\nagent-1:one\nagent-2:two\n", encoding="utf-8")
    program = shutil.which("mosquitto_passwd")
    assert program is not None, "mosquitto_passwd comes with mosquitto and must be on the PATH"
    subprocess.run([program, "-U", passwords], check=True)
    acl = tmp_path / "acl"
    acl.write_bytes((DEPLOY / "mosquitto.acl").read_bytes())
    return start_mosquitto(f"allow_anonymous false\npassword_file {passwords}\nacl_file {acl}")


def connect(broker: Mosquitto, name: str, password: str) -> aiomqtt.Client:
    return aiomqtt.Client(broker.host, broker.port, username=name, password=password)


async def hear_until(client: aiomqtt.Client, last: str) -> list[str]:
    """The topics of what reaches the client, up to the topic ``last``."""
    heard: list[str] = []
    async with asyncio.timeout(5):
        async for message in client.messages:
            heard.append(str(message.topic))
            if heard[-1] == last:
                break
    return heard


async def test_a_source_publishes_only_below_its_own_topic(broker: Mosquitto) -> None:
    allowed = [f"sc/v1/jinyuan/agent-1/{lane}" for lane in ("alarm", "telemetry", "status", "reply")]
    forbidden = [
        "sc/v1/jinyuan/agent-2/alarm",
        "sc/v1/jinyuan/agent-1/command",
        "sc/v1/jinyuan/agent-1/receipt",
        "sc/v1/gateway/status",
        "elsewhere",
    ]
    async with connect(broker, "gateway", "g") as gateway, connect(broker, "agent-1", "one") as source:
        await gateway.subscribe("sc/v1/#", qos=1)
        for topic in forbidden + allowed:
            await source.publish(topic, b"x", qos=1)
        assert await hear_until(gateway, allowed[-1]) == allowed


async def test_a_source_hears_only_what_is_meant_for_it(broker: Mosquitto) -> None:
    meant = [f"sc/v1/jinyuan/agent-1/{name}" for name in ("command", "receipt", "config")]
    others = ["sc/v1/jinyuan/agent-2/command", "sc/v1/jinyuan/agent-2/alarm"]
    async with connect(broker, "gateway", "g") as gateway, connect(broker, "agent-1", "one") as source:
        await source.subscribe("#", qos=1)
        for topic in [*others, "sc/v1/gateway/status", *meant]:
            await gateway.publish(topic, b"x", qos=1)
        assert await hear_until(source, meant[-1]) == ["sc/v1/gateway/status", *meant]


@pytest.mark.parametrize(("name", "password"), [("agent-1", "two"), ("agent-9", "one"), (None, None)])
async def test_a_stranger_is_refused(broker: Mosquitto, name: str | None, password: str | None) -> None:
    client = aiomqtt.Client(broker.host, broker.port, username=name, password=password)
    with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authori"):
        await client.__aenter__()
