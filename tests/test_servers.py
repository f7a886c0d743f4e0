"""The servers that other tests stand on do what they promise."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import aiomqtt
import psycopg
import pytest
from sqlalchemy import create_engine, text

from tests.conftest import StartMosquitto, StartProcess
from tests.servers import Mosquitto, Postgres, Process, ServerFailed, free_port


async def test_mosquitto_carries_a_message(mosquitto: Mosquitto) -> None:
    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
        await client.subscribe("servers/hello", qos=1)
        await client.publish("servers/hello", b"hello", qos=1)
        message = await anext(client.messages)
    assert message.payload == b"hello"


async def test_a_persistent_mosquitto_keeps_what_it_saved_at_a_stop(
    start_mosquitto: StartMosquitto,
) -> None:
    broker = start_mosquitto(persistence=True)
    async with aiomqtt.Client(broker.host, broker.port) as client:
        await client.publish("servers/kept", b"kept", qos=1, retain=True)
    broker.stop()
    broker.start()
    async with aiomqtt.Client(broker.host, broker.port) as client:
        await client.subscribe("servers/kept")
        message = await anext(client.messages)
    assert message.payload == b"kept"


def test_a_killed_mosquitto_is_gone_and_starts_again_on_its_port(start_mosquitto: StartMosquitto) -> None:
    broker = start_mosquitto()
    broker.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((broker.host, broker.port), timeout=1)
    broker.start()
    with socket.create_connection((broker.host, broker.port), timeout=1) as connection:
        assert connection.getpeername()[1] == broker.port


def test_a_mosquitto_with_a_broken_configuration_says_why(start_mosquitto: StartMosquitto) -> None:
    with pytest.raises(ServerFailed, match="no_such_setting"):
        start_mosquitto("no_such_setting true")


def test_each_database_is_empty_and_separate(postgres: Postgres) -> None:
    first, second = postgres.new_database(), postgres.new_database()
    engine = create_engine(first)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (id integer)"))
    engine.dispose()
    other = create_engine(second)
    with other.connect() as connection:
        tables = connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar_one()
    other.dispose()
    postgres.drop_database(first)
    postgres.drop_database(second)
    assert tables == 0


def test_a_killed_postgres_keeps_what_was_committed(start_postgres: Callable[[], Postgres]) -> None:
    server = start_postgres()
    dsn = server.new_database().replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept (id integer)")
        connection.execute("INSERT INTO kept VALUES (7)")
    server.kill()
    server.start()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(7,)]


def test_a_closed_server_leaves_no_folder(
    start_mosquitto: StartMosquitto, start_postgres: Callable[[], Postgres]
) -> None:
    for server in (start_mosquitto(), start_postgres()):
        assert server.folder.exists()
        server.close()
        assert not server.folder.exists()


def test_a_process_is_read_line_by_line_and_told_to_end(tmp_path: Path) -> None:
    script = tmp_path / "greeter.py"
    script.write_text("import signal\nprint('ready on 42')\nsignal.pause()\n", encoding="utf-8")
    with Process([sys.executable, script], log=tmp_path / "log") as process:
        assert process.wait_for_line(r"^ready on (\d+)$")[1] == "42"
        assert process.is_running()
        assert process.terminate() == -signal.SIGTERM


def test_waiting_for_a_line_ends_when_the_process_does(start_process: StartProcess) -> None:
    process = start_process("json.tool", "--no-such-option")
    with pytest.raises(ServerFailed, match="no-such-option"):
        process.wait_for_line("never printed")


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    assert all(1024 < free_port() < 32_768 for _ in range(50))
