from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from gateway.adapters.broker import EmbeddedBroker
from gateway.adapters.mqtt import BrokerSettings, MqttInbox
from tests.conftest import StartMosquitto
from tests.ports.inbox_conformance import InboxConformance
from tests.ports.mqtt_subject import PASSWORD, MqttSubject, hash_password, read_fixed_clock
from tests.ports.tcp_line import TcpLine

MOSQUITTO = "max_inflight_messages 0\nset_tcp_nodelay true\n"


class _MosquittoConformance(InboxConformance):
    version: Literal["5", "3.1.1"]

    @pytest.fixture
    async def subject(self, start_mosquitto: StartMosquitto) -> AsyncIterator[MqttSubject]:
        broker = start_mosquitto(MOSQUITTO)

        async def restart() -> None:
            broker.kill()
            broker.start()

        line = TcpLine(broker.port)
        inbox = MqttInbox(BrokerSettings(line.url, version=self.version), read_fixed_clock)
        async with MqttSubject(inbox, line, broker.port, restart) as subject:
            yield subject


class TestMosquitto5(_MosquittoConformance):
    version = "5"


class TestMosquitto311(_MosquittoConformance):
    version = "3.1.1"


class TestAmqtt(InboxConformance):
    redelivers = False

    @pytest.fixture
    async def subject(self, tmp_path: Path) -> AsyncIterator[MqttSubject]:
        credentials = {name: hash_password(PASSWORD) for name in ("gateway", "agent-1")}
        broker = EmbeddedBroker(tmp_path, credentials, kind="amqtt")
        url = await broker.start()
        port = int(url.rsplit(":", 1)[1])

        async def restart() -> None:
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)  # It is started again by itself.

        line = TcpLine(port)
        settings = BrokerSettings(line.url, "gateway", PASSWORD, version=broker.version)
        try:
            async with MqttSubject(MqttInbox(settings, read_fixed_clock), line, port, restart) as subject:
                yield subject
        finally:
            await broker.stop()
