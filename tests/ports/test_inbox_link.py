from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiomqtt
import paho.mqtt.client as paho
import pytest
import uvloop
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from gateway.adapters import mqtt, mqtt_connection
from gateway.adapters.mqtt import BrokerSettings, MqttInbox
from gateway.errors import GatewayError
from gateway.runtime.ports import Arrived, Outgoing
from gateway.wire import GATEWAY_STATUS, Status, decode_gateway_status
from tests.conftest import StartMosquitto
from tests.ports.inbox_conformance import ALARM, COMMAND, CONFIG, NOW, RECEIPT, TELEMETRY, gather
from tests.ports.mqtt_subject import MqttSubject, read_fixed_clock
from tests.ports.tcp_line import TcpLine
from tests.servers import Mosquitto, free_port

MOSQUITTO = "max_inflight_messages 0\nset_tcp_nodelay true\n"


@contextlib.asynccontextmanager
async def _at(broker: Mosquitto, settings: BrokerSettings | None = None) -> AsyncIterator[MqttSubject]:
    async def restart() -> None:
        broker.kill()
        broker.start()

    line = TcpLine(broker.port)
    inbox = MqttInbox(settings or BrokerSettings(line.url), read_fixed_clock)
    async with MqttSubject(inbox, line, broker.port, restart) as subject:
        yield subject


@pytest.fixture
async def subject(start_mosquitto: StartMosquitto) -> AsyncIterator[MqttSubject]:
    async with _at(start_mosquitto(MOSQUITTO)) as subject:
        yield subject


async def _until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits until it holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - whatever it is, it has no event to wait for
            await asyncio.sleep(0.02)


# --- what paho must keep for us to build on it ----------------------------------------------------------------------


class _Strict:
    """A socket that answers with these packets, and that only lets itself be used as paho's `SocketLike` says."""

    def __init__(self, *packets: bytes) -> None:
        self.incoming = bytearray(b"".join(packets))
        self.outgoing = bytearray()

    def recv(self, buffer_size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        data = bytes(self.incoming[:buffer_size])
        del self.incoming[:buffer_size]
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        self.outgoing += buffer
        return len(buffer)

    def close(self) -> None: ...
    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None: ...


def test_paho_still_takes_its_socket_from_create_socket_and_touches_no_other() -> None:
    class Client(paho.Client):
        def _create_socket(self) -> _Strict:
            return made

    made = _Strict(b"\x20\x02\x00\x00")
    told: list[str] = []
    client = Client(CallbackAPIVersion.VERSION2, "probe", clean_session=False, reconnect_on_failure=False)
    client.on_connect = lambda _client, _data, _flags, reason, _properties: told.append(str(reason))

    # A port on which nobody listens: were paho to connect by itself, this would fail.
    assert client.connect("127.0.0.1", free_port(), 60) == MQTTErrorCode.MQTT_ERR_SUCCESS, (
        "paho no longer makes its socket in Client._create_socket: gateway/adapters/mqtt_connection.py builds on that"
    )
    assert made.outgoing.startswith(b"\x10"), "paho did not write CONNECT to the socket that _create_socket made"
    assert client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS
    assert told == ["Success"], "paho did not read CONNACK from the socket that _create_socket made"
    client.subscribe("a", 1)
    assert made.outgoing[-8:-6] == b"\x82\x06", (
        "paho does not write at once, or in loop_write, what it is asked to send"
    )
    assert client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS, "a socket that would block is an error to paho now"
    assert client.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS


# --- the link -------------------------------------------------------------------------------------------------------


async def test_a_broker_that_comes_later_is_found_and_until_then_the_link_counts_as_lost(
    start_mosquitto: StartMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    broker = start_mosquitto(MOSQUITTO)
    broker.kill()
    inbox = MqttInbox(BrokerSettings(broker.url), read_fixed_clock)
    told: list[bool] = []
    inbox.on_link(told.append)
    with caplog.at_level(logging.INFO, "gateway.adapters.mqtt"):
        await inbox.start(wait_s=1.0)
        assert (inbox.is_connected(), told) == (False, [False])

        broker.start()
        await _until(inbox.is_connected)
        await inbox.stop()

    assert told == [False, True]
    unreachable = [record for record in caplog.messages if "no link to the broker" in record]
    assert len(unreachable) == 1, "several attempts are one line"
    assert "Connection refused" in unreachable[0]


async def test_lost_and_back_are_one_line_each(subject: MqttSubject, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gateway.adapters.mqtt"):
        await subject.cut()
        await asyncio.sleep(1.0)
        await subject.mend()

    lost, *between, back = caplog.messages
    assert "lost" in lost
    assert "is back after" in back
    assert all("Connection refused" in line for line in between)
    assert len(between) <= 1


async def test_a_broker_that_falls_silent_is_noticed(
    start_mosquitto: StartMosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_connection, "KEEPALIVE_S", 1)
    async with _at(start_mosquitto(MOSQUITTO)) as impatient:
        impatient.line.hold()
        await _until(lambda: not impatient.inbox.is_connected())

        await impatient.line.cut()
        await impatient.mend()

        await impatient.send((ALARM, b"press"))
        assert [one.payload for one in await gather(impatient, 1)] == [b"press"]


async def test_refused_credentials_are_said_once_and_the_password_never(
    start_mosquitto: StartMosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty = tmp_path / "passwords"
    empty.write_text("")
    broker = start_mosquitto(f"{MOSQUITTO}allow_anonymous false\npassword_file {empty}\n")
    settings = BrokerSettings(broker.url, "gateway", "not-to-be-seen")
    inbox = MqttInbox(settings, read_fixed_clock)
    with caplog.at_level(logging.DEBUG):
        await inbox.start(wait_s=1.5)
        await inbox.stop()

    said = [line for line in caplog.messages if "no link" in line]
    assert len(said) == 1
    assert "Not authorized" in said[0]
    assert "not-to-be-seen" not in caplog.text
    assert "not-to-be-seen" not in repr(settings)


async def test_a_session_that_another_client_ends_is_taken_back(subject: MqttSubject) -> None:
    other = aiomqtt.Client("127.0.0.1", subject.line.port, identifier="scg-gateway-telemetry", clean_session=False)
    with contextlib.suppress(aiomqtt.MqttError):
        async with other:
            await _until(lambda: not subject.inbox.is_connected())
            assert not (await _read_status(subject)).online
            await _until(subject.inbox.is_connected)

    assert (await _read_status(subject)).online
    await subject.send((TELEMETRY, b"t"))
    assert [one.payload for one in await gather(subject, 1)] == [b"t"]


@contextlib.asynccontextmanager
async def _scripted_broker(last_words: bytes, *, knows_v5: bool = True) -> AsyncIterator[str]:
    """A broker that lets everybody in, confirms what is asked first, says its last words and waits. If it does not know
    MQTT 5, it falls silent at it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        properties = b""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            connect = await _read_packet(reader)
            if connect[6] == 5:
                if not knows_v5:
                    await reader.read()
                properties = b"\x00"
            connack = b"\x00\x00" + properties
            writer.write(b"\x20" + bytes([len(connack)]) + connack)
            subscribe = await _read_packet(reader)
            suback = subscribe[:2] + properties + b"\x01" * subscribe.count(b"sc/v1")
            writer.write(b"\x90" + bytes([len(suback)]) + suback)
            await asyncio.sleep(0.2)
            writer.write(last_words)
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _read_packet(reader: asyncio.StreamReader) -> bytes:
    """The body of a packet of less than 16 kB."""
    _, length = await reader.readexactly(2)
    if length > 127:
        length += ((await reader.readexactly(1))[0] << 7) - 128
    return await reader.readexactly(length)


@pytest.mark.parametrize(
    ("last_words", "said"),
    [
        (b"\xe0\x02\x8e\x00", "the broker ended it: Session taken over"),
        (b"\x34\x07\x00\x01a\x00\x01\x00x", "it does not speak MQTT as agreed: a PUBLISH at a QoS"),
        (b"\xf0\x00", "A network protocol error"),
    ],
)
async def test_what_ends_a_connection_is_said(last_words: bytes, said: str, caplog: pytest.LogCaptureFixture) -> None:
    async with _scripted_broker(last_words) as url:
        inbox = MqttInbox(BrokerSettings(url), read_fixed_clock)
        await inbox.start()
        await _until(lambda: not inbox.is_connected())
        await inbox.stop()

    assert any(said in line for line in caplog.messages if " lost: " in line), caplog.messages


async def test_a_broker_that_falls_silent_at_mqtt_5_is_spoken_to_in_311_and_at_once_the_next_time() -> None:
    async with _scripted_broker(b"", knows_v5=False) as url, TcpLine(int(url.rsplit(":", 1)[1])) as line:
        inbox = MqttInbox(BrokerSettings(line.url), read_fixed_clock)
        began = time.monotonic()
        await inbox.start(wait_s=15)
        first_s = time.monotonic() - began

        await line.cut()
        await _until(lambda: not inbox.is_connected())
        began = time.monotonic()
        await line.mend()
        await _until(inbox.is_connected)
        second_s = time.monotonic() - began
        await inbox.stop()

    assert inbox.counters.connections == 4
    assert first_s >= mqtt_connection.V5_TIMEOUT_S > second_s


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1883", "broker-url"),
        ("127.0.0.1:1883", "broker-url"),
        ("mqtt://", "broker-url"),
        ("mqtt://127.0.0.1:port", "broker-url"),
        ("mqtt://someone:secret@127.0.0.1", "broker-url"),
        ("mqtts://127.0.0.1", "broker-ca"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_with_what_to_do(url: str, code: str) -> None:
    with pytest.raises(GatewayError) as refused:
        MqttInbox(BrokerSettings(url, ca_file="/nowhere.pem"), read_fixed_clock)

    assert refused.value.code == code
    assert refused.value.mend
    assert "secret" not in str(refused.value)


# --- whether a gateway listens --------------------------------------------------------------------------------------


async def _read_status(subject: MqttSubject) -> Status:
    async with subject.listen(GATEWAY_STATUS) as hear:
        status = decode_gateway_status(await hear())
    assert isinstance(status, Status)
    return status


async def test_sources_can_read_whether_a_gateway_listens(subject: MqttSubject) -> None:
    first = await _read_status(subject)
    await subject.cut()
    await asyncio.sleep(0.2)
    lost = await _read_status(subject)
    await subject.mend()
    await asyncio.sleep(0.2)
    second = await _read_status(subject)
    await subject.inbox.stop()
    stopped = await _read_status(subject)

    assert (first.online, first.clock) == (True, NOW)
    assert (lost.online, lost.connection) == (False, first.connection)
    assert second.online
    assert second.connection != first.connection
    assert (stopped.online, stopped.connection) == (False, second.connection)


# --- what comes in --------------------------------------------------------------------------------------------------


async def test_five_megabytes_arrive_whole_nine_are_cut_short_and_the_next_message_is_not_touched(
    subject: MqttSubject, caplog: pytest.LogCaptureFixture
) -> None:
    await subject.send((ALARM, b"x" * 5_000_000), (ALARM, b"y" * 9_000_000), (ALARM, b"press"))

    whole, cut, press = await gather(subject, 3)

    assert whole.payload == b"x" * 5_000_000
    assert 256 * 1024 < len(cut.payload) < 1_000_000
    assert press.payload == b"press"
    assert subject.inbox.counters.cut_short == 1
    assert any("9000" in line and ALARM in line for line in caplog.messages)


async def test_a_message_at_qos_0_is_taken_too(subject: MqttSubject) -> None:
    async with subject.source() as source:
        await source.publish(ALARM, b"unasked", qos=0)
    (arrived,) = await gather(subject, 1)

    subject.inbox.acknowledge([arrived])

    assert (arrived.payload, arrived.mid) == (b"unasked", 0)
    assert (subject.inbox.counters.acknowledged, subject.inbox.counters.stale) == (0, 0)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_while_nothing_is_taken_only_so_much_waits_in_memory(
    start_mosquitto: StartMosquitto, version: str
) -> None:
    broker = start_mosquitto(MOSQUITTO + "max_queued_messages 0\n")
    line = TcpLine(broker.port)
    settings = BrokerSettings(line.url, version="5" if version == "5" else "3.1.1")
    inbox = MqttInbox(settings, read_fixed_clock)
    async with MqttSubject(inbox, line, broker.port, _nothing) as subject:
        sent = [f"{number}".encode().ljust(400) for number in range(8_000)]
        await subject.send(*((TELEMETRY, payload) for payload in sent))
        await asyncio.sleep(0.5)

        # MQTT 5 stops exactly at its window; 3.1.1 at the end of the read that passed it.
        assert inbox.counters.received <= (2_000 if version == "5" else 2_400)
        arrived: list[Arrived] = []
        while len(arrived) < len(sent):
            await inbox.wait(5)
            taken = inbox.take(300)
            assert taken, f"after {len(arrived)} nothing comes any more"
            inbox.acknowledge(taken)
            arrived += taken
        assert [one.payload for one in arrived] == sent


async def test_under_mqtt_5_only_so_much_is_on_its_way_unacknowledged(subject: MqttSubject) -> None:
    await subject.send(*((TELEMETRY, f"{number}".encode()) for number in range(2_500)))
    taken = await gather(subject, 2_000)
    await asyncio.sleep(0.3)
    assert (len(taken), subject.inbox.take(10)) == (2_000, [])

    subject.inbox.acknowledge(taken[:500])

    rest = await gather(subject, 500)
    assert [one.payload for one in rest] == [f"{number}".encode() for number in range(2_000, 2_500)]


async def _nothing() -> None:
    """These tests restart no broker."""


async def test_a_few_large_messages_stop_the_reading_as_many_small_ones_do(
    subject: MqttSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "WAITING_BYTES", 1_000_000)
    sent = [f"{number}".encode().ljust(250_000) for number in range(40)]

    await subject.send(*((TELEMETRY, payload) for payload in sent))
    await asyncio.sleep(0.3)

    assert subject.inbox.counters.received <= 5
    assert [one.payload for one in await gather(subject, len(sent))] == sent


async def test_a_link_that_is_not_read_for_long_is_not_taken_for_dead(
    start_mosquitto: StartMosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_connection, "KEEPALIVE_S", 1)
    monkeypatch.setattr(mqtt, "WAITING_BYTES", 100_000)
    async with _at(start_mosquitto(MOSQUITTO)) as subject:
        sent = [f"{number}".encode().ljust(60_000) for number in range(50)]
        await subject.send(*((TELEMETRY, payload) for payload in sent))
        await asyncio.sleep(4)

        assert subject.inbox.counters.received < len(sent)
        assert [one.payload for one in await gather(subject, len(sent))] == sent
        await asyncio.sleep(2.5)
        assert subject.inbox.counters.connections == 2, "both sessions still have their first connection"


# --- what goes out --------------------------------------------------------------------------------------------------


async def test_thousands_of_receipts_go_out_within_the_brokers_window_and_all_are_confirmed(
    start_mosquitto: StartMosquitto,
) -> None:
    async with _at(start_mosquitto("max_inflight_messages 20\nset_tcp_nodelay true\n")) as subject:
        before = subject.inbox.counters.confirmed
        receipts = [Outgoing(f"sc/v1/c{number % 277:03}/agent-{number}/receipt", b"{}") for number in range(5_000)]

        assert list(subject.inbox.publish(receipts)) == []
        await _until(lambda: subject.inbox.counters.confirmed >= before + 5_000)

        assert subject.inbox.counters.connections == 2
        assert subject.inbox.counters.refused == 0


async def test_what_waits_is_bounded_and_the_rest_is_given_back(subject: MqttSubject) -> None:
    subject.line.hold()
    messages = [Outgoing(COMMAND, f"{number}".encode()) for number in range(mqtt.QUEUE_MOST + mqtt.IN_FLIGHT + 500)]

    refused = list(subject.inbox.publish(messages))

    assert 0 < len(refused) <= 1_500
    assert refused == messages[-len(refused) :]
    assert subject.inbox.counters.not_taken == len(refused)


async def test_what_was_not_confirmed_is_sent_again_on_the_next_connection(subject: MqttSubject) -> None:
    async with subject.listen(COMMAND) as hear:
        subject.line.hold()
        assert list(subject.inbox.publish([Outgoing(COMMAND, b"close the valve")])) == []
        await subject.cut()
        await subject.mend()

        assert await hear() == b"close the valve"


async def test_a_message_larger_than_the_broker_takes_is_refused_and_the_link_stays(
    start_mosquitto: StartMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    async with _at(start_mosquitto(MOSQUITTO + "max_packet_size 2000\n")) as subject:
        subject.inbox.publish([Outgoing(CONFIG, b"c" * 5_000, retain=True), Outgoing(RECEIPT, b"r")])
        await asyncio.sleep(0.3)

        assert subject.inbox.is_connected()
        assert (subject.inbox.counters.refused, subject.inbox.counters.connections) == (1, 2)
        assert any(CONFIG in line and "not sent" in line for line in caplog.messages)


async def test_a_message_that_the_broker_refuses_is_not_confirmed(
    start_mosquitto: StartMosquitto, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access = tmp_path / "acl"
    access.write_text("topic readwrite sc/v1/gateway/status\ntopic read sc/#\ntopic write sc/v1/+/+/receipt\n")
    async with _at(start_mosquitto(f"{MOSQUITTO}allow_anonymous true\nacl_file {access}\n")) as subject:
        command, receipt = Outgoing(COMMAND, b"c"), Outgoing(RECEIPT, b"r")

        unconfirmed = await subject.inbox.publish_confirmed([command, receipt], 5)

        assert list(unconfirmed) == [command]
        assert any("refuses" in line and COMMAND in line for line in caplog.messages)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority ``ca``, another one ``other``, and ``server``, which ``ca`` has signed for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        _openssl(
            folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.pem", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
    _openssl(
        folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker", "-keyout", "server.key",
        "-out", "server.csr",
    )  # fmt: skip
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl(
        folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", "2", "-extfile", "extensions", "-out", "server.pem",
    )  # fmt: skip
    return folder


def _openssl(folder: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


async def test_over_tls_everything_arrives_and_receipts_go_out(
    start_mosquitto: StartMosquitto, certificates: Path
) -> None:
    port = free_port()
    broker = start_mosquitto(
        f"{MOSQUITTO}listener {port} 127.0.0.1\ncafile {certificates}/ca.pem\ncertfile {certificates}/server.pem\n"
        f"keyfile {certificates}/server.key\n"
    )
    line = TcpLine(port)
    settings = BrokerSettings(line.url.replace("mqtt:", "mqtts:"), ca_file=str(certificates / "ca.pem"))
    async with MqttSubject(MqttInbox(settings, read_fixed_clock), line, broker.port, _nothing) as subject:
        sent = [f"{number}".encode() for number in range(1_500)]
        await subject.send(*((TELEMETRY, payload) for payload in sent), (ALARM, b"z" * 3_000_000))
        arrived = await gather(subject, 1_501)
        subject.inbox.acknowledge(arrived)
        receipts = [Outgoing(RECEIPT, b"r" * 3_000) for _ in range(1_000)]
        unconfirmed = await subject.inbox.publish_confirmed(receipts)

        assert [one.payload for one in arrived if one.topic == TELEMETRY] == sent
        assert [len(one.payload) for one in arrived if one.topic == ALARM] == [3_000_000]
        assert list(unconfirmed) == []


async def test_a_broker_whose_certificate_nobody_vouches_for_is_not_trusted(
    start_mosquitto: StartMosquitto, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    start_mosquitto(
        f"{MOSQUITTO}listener {port} 127.0.0.1\ncertfile {certificates}/server.pem\nkeyfile {certificates}/server.key\n"
    )
    settings = BrokerSettings(f"mqtts://127.0.0.1:{port}", ca_file=str(certificates / "other.pem"))
    inbox = MqttInbox(settings, read_fixed_clock)
    await inbox.start(wait_s=1.0)
    await inbox.stop()

    assert inbox.counters.connections == 0
    assert any("CERTIFICATE_VERIFY_FAILED" in line for line in caplog.messages)


# --- what it costs --------------------------------------------------------------------------------------------------


def _fill(broker: Mosquitto, client_id: str, topic: str, count: int) -> None:
    """Lets ``count`` single readings wait at the broker for the session of this client id."""
    session = paho.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False)
    session.connect("127.0.0.1", broker.port)
    session.loop_start()
    session.subscribe(topic, 1)
    time.sleep(0.3)
    session.disconnect()
    session.loop_stop()
    payload = b'{"v":1,"spool":"k3f9aabb","lane":"telemetry","seq":%d,"floor":1,"sent_at":1763888888.1,"pack":[{}]}'
    with socket.create_connection(("127.0.0.1", broker.port)) as sock:
        sock.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06filler")
        sock.recv(4)
        for start in range(0, count, 500):
            packets = bytearray()
            for number in range(start, min(start + 500, count)):
                body = len(TELEMETRY).to_bytes(2) + TELEMETRY.encode() + (number % 60_000 + 1).to_bytes(2)
                body += payload % number
                packets += bytes((0x32, len(body) & 127 | 128, len(body) >> 7)) + body
            sock.sendall(packets)
            missing = 4 * (min(start + 500, count) - start)
            while missing:
                missing -= len(sock.recv(missing))


def test_draining_costs_less_than_bare_paho(start_mosquitto: StartMosquitto) -> None:
    count = 20_000
    broker = start_mosquitto(f"{MOSQUITTO}max_queued_messages 0\n")

    _fill(broker, "bare", TELEMETRY, count)
    bare = paho.Client(CallbackAPIVersion.VERSION2, "bare", clean_session=False)
    got = 0

    def count_one(client: paho.Client, _data: object, _message: paho.MQTTMessage) -> None:
        nonlocal got
        got += 1
        if got == count:
            client.disconnect()

    bare.on_message = count_one
    bare.connect("127.0.0.1", broker.port)
    began = time.process_time()
    bare.loop_forever()
    bare_s = time.process_time() - began

    async def drain() -> float:
        inbox = MqttInbox(BrokerSettings(broker.url), read_fixed_clock)
        began = time.process_time()
        await inbox.start()
        taken = 0
        while taken < count:
            await inbox.wait(5)
            arrived = inbox.take(1_000)
            inbox.acknowledge(arrived)
            taken += len(arrived)
        spent = time.process_time() - began
        await inbox.stop()
        return spent

    _fill(broker, "scg-gateway-telemetry", TELEMETRY, count)
    # The gateway runs on uvloop where there is one; it must do so too.
    ours_s = uvloop.run(drain())

    assert got == count
    assert ours_s < bare_s, f"{ours_s:.2f} s of CPU for {count} messages, bare paho {bare_s:.2f} s"
