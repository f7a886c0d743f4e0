from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiomqtt
import pytest
import uvloop

from gateway.adapters.broker import (
    EmbeddedBroker,
    find_mosquitto,
    may_publish,
    may_receive,
    write_access_list,
)
from gateway.adapters.mqtt import BrokerSettings, MqttInbox
from gateway.adapters.passwords import is_password
from gateway.errors import GatewayError
from gateway.wire import GATEWAY_STATUS, topic_of
from tests.conftest import StartProcess
from tests.ports.mqtt_subject import PASSWORD, hash_password, read_fixed_clock
from tests.servers import free_port

KINDS = ("mosquitto", "amqtt")
NAMES = ("gateway", "agent-1", "agent-2")


@pytest.fixture
def credentials() -> dict[str, str]:
    return {name: hash_password(PASSWORD) for name in NAMES}


@pytest.fixture(params=KINDS)
async def broker(
    request: pytest.FixtureRequest, tmp_path: Path, credentials: dict[str, str]
) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path, credentials, kind=request.param)
    await broker.start()
    yield broker
    await broker.stop()


def _client(
    broker: EmbeddedBroker, name: str | None, password: str = PASSWORD, identifier: str = "", *, is_kept: bool = False
) -> aiomqtt.Client:
    """Sources use the sources' address, the gateway its own. ``is_kept``: the broker keeps the session."""
    address = urlsplit(broker.url if name == "gateway" else broker.source_url)
    assert address.hostname is not None
    assert address.port is not None
    return aiomqtt.Client(
        address.hostname,
        address.port,
        username=name,
        password=password if name else None,
        identifier=identifier or name or "nobody",
        clean_session=not is_kept,
    )


async def _hear(client: aiomqtt.Client, for_s: float) -> list[tuple[str, bytes]]:
    """What the client is sent during ``for_s`` seconds."""
    heard: list[tuple[str, bytes]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                heard.append((message.topic.value, message.payload))
    return heard


async def _until(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - whatever it is, it has no event to wait for
            await asyncio.sleep(0.02)


async def _is_let_in(client: aiomqtt.Client) -> bool:
    try:
        async with client:
            return True
    except aiomqtt.MqttError:
        return False


# --- who may connect ------------------------------------------------------------------------------------------------


async def test_only_who_has_the_password_is_let_in(broker: EmbeddedBroker) -> None:
    assert await _is_let_in(_client(broker, "agent-1"))
    assert await _is_let_in(_client(broker, "gateway"))
    assert not await _is_let_in(_client(broker, "agent-1", "wrong"))
    assert not await _is_let_in(_client(broker, "stranger"))
    assert not await _is_let_in(_client(broker, None))
    await _until(lambda: broker.counters.refused_logins >= 3)


async def test_credentials_are_changed_without_a_restart(broker: EmbeddedBroker, credentials: dict[str, str]) -> None:
    pid = broker.pid
    async with _client(broker, "agent-2") as staying, _client(broker, "agent-1", identifier="agent-1") as leaving:
        new = {"gateway": credentials["gateway"], "agent-2": credentials["agent-2"], "agent-3": hash_password("three")}
        broker.set_credentials(new)

        with pytest.raises(aiomqtt.MqttError):
            await asyncio.wait_for(anext(leaving.messages), 5)
        await staying.publish(topic_of("c001", "agent-2", "alarm"), b"still here", qos=1)

    assert await _is_let_in(_client(broker, "agent-3", "three"))
    assert not await _is_let_in(_client(broker, "agent-1"))
    assert broker.pid == pid


@pytest.mark.parametrize(
    "bad", [{"a:b": "$7$101$YWJj$YWJj"}, {"Agent": "$7$101$YWJj$YWJj"}, {"agent": "plain"}, {"agent": "$7$1$a\n$b"}]
)
def test_credentials_that_would_spoil_the_file_are_refused(tmp_path: Path, bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"identity|form"):
        EmbeddedBroker(tmp_path, bad, kind="amqtt")


@pytest.mark.skipif(shutil.which("mosquitto_passwd") is None, reason="mosquitto_passwd is not installed")
def test_mosquittos_own_hashes_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(file), "agent-1", PASSWORD], check=True, capture_output=True)
    hashed = file.read_text().strip().removeprefix("agent-1:")

    assert is_password(PASSWORD, hashed)
    assert not is_password(PASSWORD + " ", hashed)
    assert not is_password(PASSWORD, "$7$101$YWJj$YWJj")
    assert not is_password(PASSWORD, "$6$YWJj$YWJj")


def test_its_files_are_for_nobody_else(tmp_path: Path, credentials: dict[str, str]) -> None:
    async def start_and_stop() -> None:
        broker = EmbeddedBroker(tmp_path / "broker", credentials)
        await broker.start()
        await broker.stop()

    asyncio.run(start_and_stop())

    assert (tmp_path / "broker").stat().st_mode & 0o077 == 0
    assert (tmp_path / "broker" / "passwords").stat().st_mode & 0o077 == 0


# --- who may say and hear what --------------------------------------------------------------------------------------


async def test_the_gateway_hears_every_source_and_each_source_its_own(broker: EmbeddedBroker) -> None:
    inbox = MqttInbox(BrokerSettings(broker.url, "gateway", PASSWORD, version=broker.version), read_fixed_clock)
    await inbox.start()
    async with _client(broker, "agent-1") as one, _client(broker, "agent-2") as two:
        for client, name in ((one, "agent-1"), (two, "agent-2")):
            for leaf in ("command", "receipt", "config"):
                await client.subscribe(topic_of("c001", name, leaf), qos=1)
            await client.subscribe(GATEWAY_STATUS, qos=1)
            for leaf in ("alarm", "telemetry", "status", "reply"):
                await client.publish(topic_of("c001", name, leaf), leaf.encode(), qos=1)
        await _until(lambda: inbox.counters.received == 8)
        async with _client(broker, "gateway", identifier="other") as gateway:
            for leaf in ("command", "receipt", "config"):
                await gateway.publish(topic_of("c001", "agent-1", leaf), leaf.encode(), qos=1)
        heard, others = await asyncio.gather(_hear(one, 0.7), _hear(two, 0.7))
    arrived = inbox.take(100)
    await inbox.stop()

    assert {(one.topic, one.payload) for one in arrived} == {
        (topic_of("c001", name, leaf), leaf.encode())
        for name in ("agent-1", "agent-2")
        for leaf in ("alarm", "telemetry", "status", "reply")
    }
    down = [(topic, payload) for topic, payload in heard if topic != GATEWAY_STATUS]
    assert down == [(topic_of("c001", "agent-1", leaf), leaf.encode()) for leaf in ("command", "receipt", "config")]
    assert {topic for topic, _ in others} == {GATEWAY_STATUS}


FORBIDDEN_TO_WRITE: Sequence[str] = (
    topic_of("c001", "agent-2", "alarm"),
    topic_of("c001", "agent-2", "status"),
    topic_of("c001", "agent-2", "receipt"),
    topic_of("c001", "agent-1", "receipt"),
    topic_of("c001", "agent-1", "config"),
    topic_of("c001", "agent-1", "other"),
    GATEWAY_STATUS,
    "elsewhere",
)


async def test_a_source_cannot_speak_for_another_nor_for_the_gateway(broker: EmbeddedBroker) -> None:
    async with (
        _client(broker, "agent-1") as source,
        _client(broker, "agent-2") as other,
        _client(broker, "gateway") as gateway,
    ):
        await gateway.subscribe(topic_of("+", "+", "alarm"), qos=1)
        await gateway.subscribe(topic_of("+", "+", "status"), qos=1)
        await other.subscribe(topic_of("c001", "agent-2", "receipt"), qos=1)
        await other.subscribe(GATEWAY_STATUS, qos=1)
        for topic in FORBIDDEN_TO_WRITE:
            await source.publish(topic, b"forged", qos=1)
            await source.publish(topic, b"forged and retained", qos=1, retain=True)
        await source.publish(topic_of("c001", "agent-1", "alarm"), b"mine", qos=1)
        heard, told = await asyncio.gather(_hear(gateway, 0.5), _hear(other, 0.5))

    assert heard == [(topic_of("c001", "agent-1", "alarm"), b"mine")]
    assert told == []


@pytest.mark.parametrize(
    "pattern",
    ["#", "sc/#", "sc/v1/+/+/#", "sc/v1/+/+/config", topic_of("c001", "agent-2", "config"), "sc/v1/+/agent-2/+"],
)
async def test_a_source_cannot_hear_what_is_for_another(broker: EmbeddedBroker, pattern: str) -> None:
    config, receipt = topic_of("c001", "agent-2", "config"), topic_of("c001", "agent-2", "receipt")
    async with _client(broker, "gateway") as gateway, _client(broker, "agent-2") as other:
        await other.subscribe(config, qos=1)
        await other.subscribe(receipt, qos=1)
        await gateway.publish(config, b"its devices", qos=1, retain=True)
        async with _client(broker, "agent-1") as curious:
            # amqtt refuses the subscription, Mosquitto delivers nothing on it.
            with contextlib.suppress(aiomqtt.MqttError):
                await curious.subscribe(pattern, qos=1)
            await gateway.publish(receipt, b"its receipt", qos=1)
            overheard, heard = await asyncio.gather(_hear(curious, 0.5), _hear(other, 0.5))

    assert [line for line in overheard if line[0] != GATEWAY_STATUS] == []
    assert heard == [(config, b"its devices"), (receipt, b"its receipt")]


async def test_a_source_that_takes_anothers_client_id_does_not_hear_with_its_ears(broker: EmbeddedBroker) -> None:
    receipt = topic_of("c001", "agent-2", "receipt")
    async with _client(broker, "agent-2", is_kept=True) as other:
        await other.subscribe(receipt, qos=1)
    async with _client(broker, "agent-1", identifier="agent-2", is_kept=True) as thief:
        async with _client(broker, "gateway") as gateway:
            await gateway.publish(receipt, b"its receipt", qos=1)
        overheard = await _hear(thief, 0.5)

    assert overheard == []


async def test_a_source_cannot_end_the_gateways_session(tmp_path: Path, credentials: dict[str, str]) -> None:
    # Only Mosquitto can be told to take the user name for the client id; amqtt listens on this machine alone.
    broker = EmbeddedBroker(tmp_path, credentials, kind="mosquitto")
    await broker.start()
    inbox = MqttInbox(BrokerSettings(broker.url, "gateway", PASSWORD), read_fixed_clock)
    await inbox.start()
    for session in ("alarm", "telemetry"):
        async with _client(broker, "agent-1", identifier=f"scg-gateway-{session}") as source:
            await source.publish(topic_of("c001", "agent-1", "alarm"), b"press", qos=1)
    await _until(lambda: inbox.counters.received == 2)
    await inbox.stop()
    await broker.stop()

    assert inbox.counters.connections == 2


TOPICS = [
    topic_of(community, source, leaf)
    for community in ("c001", "c002")
    for source in ("agent-1", "agent-2")
    for leaf in ("alarm", "telemetry", "status", "reply", "command", "receipt", "config", "other")
] + [GATEWAY_STATUS, "sc/v2/c001/agent-1/alarm", "sc/v1/c001/agent-1/alarm/more", "x/sc/v1/c001/agent-1/alarm", ""]


def test_the_rules_of_access_are_those_of_the_contract() -> None:
    for topic in TOPICS:
        leaf = topic.rpartition("/")[2]
        is_wire = topic in TOPICS[:32] and leaf != "other"
        is_up = leaf in ("alarm", "telemetry", "status", "reply")
        is_own = "/agent-1/" in topic
        assert may_publish("agent-1", topic) == (is_wire and is_up and is_own), topic
        assert may_receive("agent-1", topic) == ((is_wire and not is_up and is_own) or topic == GATEWAY_STATUS), topic
        assert may_publish("gateway", topic) == ((is_wire and not is_up) or topic == GATEWAY_STATUS), topic
        assert may_receive("gateway", topic) == ((is_wire and is_up) or topic == GATEWAY_STATUS), topic


def test_the_deployments_access_list_gives_sources_the_same_rights() -> None:
    deployed = (Path(__file__).parents[2] / "docs" / "deploy" / "mosquitto.acl").read_text(encoding="utf-8")

    def patterns(text: str) -> set[str]:
        return {line for line in text.splitlines() if line.startswith("pattern ")}

    assert patterns(deployed) == patterns(write_access_list())


# --- its life -------------------------------------------------------------------------------------------------------


async def test_a_broker_that_dies_is_started_again_at_the_same_address(broker: EmbeddedBroker) -> None:
    pid, url = broker.pid, broker.url
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await _until(lambda: broker.counters.restarts == 1)

    assert broker.url == url
    assert broker.pid != pid
    assert await _is_let_in(_client(broker, "agent-1"))


async def test_after_stop_nothing_is_left(broker: EmbeddedBroker) -> None:
    pid = broker.pid
    assert pid is not None

    await broker.stop()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not await _is_let_in(_client(broker, "agent-1"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_dies_with_the_gateway_however_that_dies(start_process: StartProcess, tmp_path: Path, kind: str) -> None:
    gateway = start_process("tests.ports.broker_process", str(tmp_path / "broker"), kind)
    found = gateway.wait_for_line(r"^pid (\d+) at mqtt://127\.0\.0\.1:(\d+)$")
    os.kill(int(found[1]), 0)
    assert _is_answering(int(found[2]))

    gateway.kill()

    # Whoever adopts the orphan may be slow to bury it, but it holds no port any more.
    for _ in range(200):
        if not _is_answering(int(found[2])):
            break
        time.sleep(0.05)
    assert not _is_answering(int(found[2]))


def _is_answering(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_kill_the_next_one_waits_for_the_last_and_takes_its_place(
    start_process: StartProcess, tmp_path: Path, credentials: dict[str, str], kind: str
) -> None:
    folder = tmp_path / "broker"
    first = EmbeddedBroker(folder, credentials, kind=kind)
    await first.start()
    await first.stop()
    gateway = start_process("tests.ports.broker_process", str(folder), kind)
    gateway.wait_for_line(r"^pid (\d+) at ")

    gateway.kill()
    second = EmbeddedBroker(folder, credentials, kind=kind)
    await second.start()

    try:
        assert second.source_url == first.source_url
        assert await _is_let_in(_client(second, "agent-1"))
        assert second.counters.restarts == 0
    finally:
        await second.stop()


async def test_two_gateways_in_one_folder_are_told_apart(
    tmp_path: Path, credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.broker.STOP_TIMEOUT_S", 0.5)
    first, second = EmbeddedBroker(tmp_path, credentials), EmbeddedBroker(tmp_path, credentials)
    await first.start()
    with pytest.raises(GatewayError, match=f"process {first.pid}") as failed:
        await second.start()

    assert failed.value.code == "broker-folder"
    assert await _is_let_in(_client(first, "agent-1"))
    await first.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_under_uvloop_too(tmp_path: Path, credentials: dict[str, str], kind: str) -> None:
    async def run() -> tuple[int, bool]:
        broker = EmbeddedBroker(tmp_path, credentials, kind=kind)
        url = await broker.start()
        inbox = MqttInbox(BrokerSettings(url, "gateway", PASSWORD, version=broker.version), read_fixed_clock)
        await inbox.start()
        is_connected = inbox.is_connected()
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await _until(lambda: inbox.counters.connections == 4)
        await inbox.stop()
        await broker.stop()
        return broker.counters.restarts, is_connected

    assert uvloop.run(run()) == (1, True)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_port_that_is_taken_is_named(tmp_path: Path, credentials: dict[str, str], kind: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as stranger:
        port = stranger.getsockname()[1]
        broker = EmbeddedBroker(tmp_path, credentials, kind=kind, port=port)
        with pytest.raises(GatewayError, match=f"port {port} is taken") as failed:
            await broker.start()

    assert failed.value.code == "broker-start"
    assert broker.pid is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_given_port_is_used(tmp_path: Path, credentials: dict[str, str], kind: str) -> None:
    port = free_port()
    broker = EmbeddedBroker(tmp_path, credentials, kind=kind, port=port)
    await broker.start()
    try:
        assert broker.source_url == f"mqtt://127.0.0.1:{port}"
        assert await _is_let_in(_client(broker, "agent-1"))
    finally:
        await broker.stop()


def test_without_mosquitto_auto_is_amqtt_and_never_on_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EmbeddedBroker(tmp_path, {}).kind == "mosquitto"
    monkeypatch.setattr("gateway.adapters.broker._SBIN", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_mosquitto() is None
    assert EmbeddedBroker(tmp_path, {}).kind == "amqtt"
    with pytest.raises(GatewayError, match="install mosquitto"):
        EmbeddedBroker(tmp_path, {}, host="0.0.0.0")
    with pytest.raises(GatewayError, match="apt-get install mosquitto"):
        EmbeddedBroker(tmp_path, {}, kind="mosquitto")


# --- what it keeps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_what_waits_for_the_gateway_outlives_the_broker_where_that_is_mosquitto(
    tmp_path: Path, credentials: dict[str, str], kind: str
) -> None:
    async def run(*, expected: int) -> list[bytes]:
        broker = EmbeddedBroker(tmp_path, credentials, kind=kind)
        url = await broker.start()
        inbox = MqttInbox(BrokerSettings(url, "gateway", PASSWORD, version=broker.version), read_fixed_clock)
        await inbox.start()
        if expected:
            await _until(lambda: inbox.counters.received >= expected)
        else:
            await asyncio.sleep(0.5)
        arrived = inbox.take(100)
        inbox.acknowledge(arrived)
        await inbox.stop()
        async with _client(broker, "agent-1") as source:
            await source.publish(topic_of("c001", "agent-1", "alarm"), b"press", qos=1)
        await broker.stop()
        return [one.payload for one in arrived]

    assert await run(expected=0) == []
    if kind == "mosquitto":
        assert await run(expected=1) == [b"press"]
    else:
        # amqtt keeps everything in memory: the source, which has no receipt, sends again.
        assert await run(expected=0) == []


async def test_five_megabytes_reach_the_gateway_and_what_is_beyond_measure_is_refused_and_counted(
    tmp_path: Path, credentials: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    broker = EmbeddedBroker(tmp_path, credentials, kind="mosquitto")
    url = await broker.start()
    inbox = MqttInbox(BrokerSettings(url, "gateway", PASSWORD), read_fixed_clock)
    await inbox.start()
    telemetry = topic_of("c001", "agent-1", "telemetry")
    async with _client(broker, "agent-1") as source:
        await source.publish(telemetry, b"x" * 5_000_000, qos=1)
    with contextlib.suppress(aiomqtt.MqttError):
        async with _client(broker, "agent-1") as source:
            await source.publish(telemetry, b"x" * 17_000_000, qos=1, timeout=2)
    await _until(lambda: broker.counters.oversize >= 1 and inbox.counters.received == 1)
    arrived = inbox.take(10)
    await inbox.stop()
    await broker.stop()

    assert [len(one.payload) for one in arrived] == [5_000_000]
    assert any("agent-1 disconnected due to oversize packet" in line for line in caplog.messages)
