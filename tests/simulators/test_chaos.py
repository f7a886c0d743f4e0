"""The fault harness: its disk loses what was not fsynced, its lines do what they say, its oracle sees what is wrong,
and a short run of it loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import sqlite3
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulators.chaos.disk import Disk, NoCompiler, compile_library
from simulators.chaos.faults import AGENT_POINTS, GATEWAY_POINTS, KINDS, NEED_DISKS, draw_plan
from simulators.chaos.oracle import Findings, judge, revisions_of
from simulators.chaos.presser import Press, Presser, Smoke
from simulators.chaos.programs import free_port
from simulators.chaos.proxy import Mode, Proxy
from simulators.chaos.world import build_quarter, write_district
from simulators.platform import Received, Store
from tests.servers import ROOT, ServerMissing, find_mosquitto

# --- the disk --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return compile_library(tmp_path_factory.mktemp("powerloss"))
    except NoCompiler as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def disk(tmp_path: Path, library: Path) -> Disk:
    return Disk(tmp_path / "data", library)


def run_on(disk: Disk, program: str) -> str:
    """What a Python program prints that runs on the disk and is then killed. ``F`` is the folder."""
    source = f"import os, signal, sqlite3, time\nfrom pathlib import Path\nF = Path({str(disk.folder)!r})\n"
    source += textwrap.dedent(program) + "\nos.sys.stdout.flush()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, **disk.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    return done.stdout


def content(disk: Disk) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in disk.folder.iterdir()}


def test_only_what_was_fsynced_outlives_a_power_cut(disk: Disk) -> None:
    run_on(
        disk,
        """
        with (F / "synced").open("wb") as file:
            file.write(b"one")
            file.flush()
            os.fsync(file.fileno())
            file.write(b"two")
        (F / "never").write_bytes(b"three")
        """,
    )
    assert content(disk) == {"synced": b"onetwo", "never": b"three"}
    assert disk.cut_power() == 2  # ``never`` was made after the folder's names were last written down
    assert content(disk) == {"synced": b"one"}
    run_on(disk, "file = os.open(F / 'synced', os.O_WRONLY); os.pwrite(file, b'ONE-', 0); os.fsync(file)")
    disk.cut_power()
    assert content(disk) == {"synced": b"ONE-"}


def test_names_are_lasting_when_the_folder_is_fsynced(disk: Disk) -> None:
    sync = "folder = os.open(F, os.O_RDONLY); os.fsync(folder)"
    run_on(disk, f"(F / 'a').write_bytes(b'a'); (F / 'b').write_bytes(b'b'); {sync}")
    disk.cut_power()
    assert content(disk) == {"a": b"", "b": b""}
    run_on(disk, "(F / 'a').unlink(); (F / 'b').rename(F / 'c'); (F / 'd').touch()")
    disk.cut_power()
    assert content(disk) == {"a": b"", "b": b""}
    run_on(disk, f"(F / 'a').unlink(); (F / 'b').rename(F / 'c'); (F / 'd').touch(); {sync}")
    disk.cut_power()
    assert content(disk) == {"c": b"", "d": b""}


def test_what_a_killed_process_wrote_goes_along_with_the_next_fsync(disk: Disk) -> None:
    run_on(disk, "file = os.open(F / 'a', os.O_CREAT | os.O_WRONLY); os.write(file, b'first'); os.fsync(file)")
    run_on(disk, "file = os.open(F / 'a', os.O_WRONLY); os.pwrite(file, b'F', 0)")
    run_on(disk, "file = os.open(F / 'a', os.O_WRONLY); os.pwrite(file, b'T', 4); os.fdatasync(file)")
    disk.cut_power()
    assert content(disk) == {"a": b"FirsT"}


@pytest.mark.parametrize(("synchronous", "kept"), [("FULL", 50), ("OFF", 0)])
def test_a_database_keeps_what_it_committed_only_if_it_syncs(disk: Disk, synchronous: str, kept: int) -> None:
    told = run_on(
        disk,
        f"""
        db = sqlite3.connect(F / "a.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE t (n)")
        db.execute("PRAGMA synchronous = {synchronous}")
        for n in range(50):
            db.execute("INSERT INTO t VALUES (?)", (n,))
        print(db.execute("SELECT count(*) FROM t").fetchone()[0])
        """,
    )
    assert told.strip() == "50"
    disk.cut_power()
    with closing(sqlite3.connect(disk.folder / "a.db")) as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (kept,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_refuses_growth_alone(disk: Disk) -> None:
    run_on(disk, "(F / 'a').write_bytes(b'12345')")
    disk.fill(is_full=True)
    told = run_on(
        disk,
        """
        file = os.open(F / "a", os.O_RDWR)
        os.pwrite(file, b"ABC", 0)
        for grow in (lambda: os.pwrite(file, b"XYZ", 4), lambda: os.posix_fallocate(file, 0, 9)):
            try:
                grow()
            except OSError as error:
                print(error.errno)
        """,
    )
    assert told.split() == [str(errno.ENOSPC)] * 2
    assert content(disk) == {"a": b"ABC45"}
    disk.fill(is_full=False)
    run_on(disk, "(F / 'a').write_bytes(b'1234567')")
    assert content(disk) == {"a": b"1234567"}


def test_a_clock_can_be_wrong_while_the_process_runs(disk: Disk) -> None:
    told = run_on(disk, "print(time.time(), time.monotonic())")
    assert abs(float(told.split()[0]) - time.time()) < 10
    disk.set_clock(-86_400)
    told = run_on(disk, "print(time.time(), time.monotonic())")
    assert abs(float(told.split()[0]) + 86_400 - time.time()) < 10
    assert abs(float(told.split()[1]) - time.monotonic()) < 10


def test_what_registering_made_outlives_a_power_cut(disk: Disk, tmp_path: Path) -> None:
    district = tmp_path / "district.json"
    write_district([build_quarter(1)], district)
    settings = {"SCG_DATA": str(disk.folder), **disk.environment}

    def gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SCG_")}
        command = [sys.executable, "-m", "gateway", *arguments]
        return subprocess.run(command, env=clean | settings, cwd=ROOT, capture_output=True, text=True, check=False)

    assert gateway("register", str(district), "--credentials", str(tmp_path / "secrets.json")).returncode == 0
    key = (disk.folder / "plate.key").read_bytes()
    disk.cut_power()
    assert (disk.folder / "plate.key").read_bytes() == key
    explained = gateway("explain", "--device", "sos-1-1-1")
    assert explained.returncode == 0, explained.stderr


# --- the points ------------------------------------------------------------------------------------------------------


def test_a_process_ends_at_the_point_that_it_was_asked_to_end_at() -> None:
    program = (
        "from gateway.runtime.faults import pass_point as p\nfor n in range(9):\n    p('a')\n    print(n, flush=True)"
    )

    def run(point: dict[str, str]) -> tuple[int, int]:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=os.environ | point, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, len(done.stdout.split())

    assert run({"FAULT_POINT": "a:4"}) == (-9, 3)
    assert run({"FAULT_POINT": "a"}) == (-9, 0)
    assert run({"FAULT_POINT": "b:1"}) == (0, 9)
    assert run({}) == (0, 9)


def test_every_point_that_the_harness_names_is_passed_somewhere() -> None:
    for room, points in (("gateway", GATEWAY_POINTS), ("edge", AGENT_POINTS)):
        text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / room).rglob("*.py"))
        for point in points:
            assert text.count(f'pass_point("{point}")') == 1, point


# --- the lines -------------------------------------------------------------------------------------------------------


def publish(number: int) -> bytes:
    body = struct.pack(">H", 1) + b"t" + b"%03d" % number
    return bytes([0x30, len(body)]) + body


def numbers(received: bytes) -> list[int]:
    assert len(received) % len(publish(0)) == 0
    return [int(received[at + 5 : at + 8]) for at in range(0, len(received), len(publish(0)))]


@asynccontextmanager
async def line() -> AsyncIterator[tuple[Proxy, list[bytes], Callable[[], Any]]]:
    """A proxy before a server that keeps what it hears; what it heard; and how to connect."""
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(b"")
        index = len(heard) - 1
        try:
            while part := await reader.read(4096):
                heard[index] += part
                writer.write(part)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    proxy = Proxy(free_port(), server.sockets[0].getsockname()[1], random.Random(1), is_mqtt=True)
    await proxy.start()
    try:
        yield proxy, heard, lambda: asyncio.open_connection("127.0.0.1", proxy.port)
    finally:
        await proxy.stop()
        server.close()


async def send(writer: asyncio.StreamWriter, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        # Torn in the middle: packets are put together again.
        writer.write(publish(number)[:3])
        await asyncio.sleep(0)
        writer.write(publish(number)[3:])
        await asyncio.sleep(0.001)


async def until_quiet(heard: list[bytes], index: int = 0) -> bytes:
    before = b"-"
    while len(heard) <= index or before != heard[index]:
        before = heard[index] if len(heard) > index else b"-"
        await asyncio.sleep(0.4)
    return before


async def test_a_line_that_is_whole_passes_everything_on() -> None:
    async with line() as (_, heard, connect):
        reader, writer = await connect()
        await send(writer, 50)
        assert numbers(await until_quiet(heard)) == list(range(50))
        assert numbers(await reader.readexactly(50 * len(publish(0)))) == list(range(50))
        writer.close()


@pytest.mark.parametrize("mode", [Mode.REPEATING, Mode.MIXING])
async def test_whole_packets_are_repeated_and_mixed_up_and_none_is_lost(mode: Mode) -> None:
    async with line() as (proxy, heard, connect):
        _, writer = await connect()
        proxy.set(mode)
        await send(writer, 60)
        found = numbers(await until_quiet(heard))
        assert set(found) == set(range(60))
        if mode is Mode.REPEATING:
            assert len(found) > 70
        else:
            assert len(found) == 60
            assert found != sorted(found)
        writer.close()


@pytest.mark.parametrize(("mode", "up", "down"), [(Mode.DEAD, 5, 5), (Mode.DEAF, 5, 5), (Mode.MUTE, 10, 5)])
async def test_a_line_that_lost_bytes_never_carries_any_again(mode: Mode, up: int, down: int) -> None:
    async with line() as (proxy, heard, connect):
        reader, writer = await connect()
        await send(writer, 5)
        await until_quiet(heard)
        proxy.set(mode)
        await send(writer, 5, first=5)
        assert numbers(await until_quiet(heard)) == list(range(up))
        proxy.heal(resets=False)
        await send(writer, 2, first=20)
        assert len(numbers(await until_quiet(heard))) == (up if mode is not Mode.MUTE else 12)
        assert numbers(await reader.readexactly(down * len(publish(0)))) == list(range(down))
        proxy.heal(resets=True)
        with pytest.raises(ConnectionError):
            await reader.readexactly(1000)
        writer.close()
        _, again = await connect()
        await send(again, 3)
        assert numbers(await until_quiet(heard, 1)) == [0, 1, 2]
        again.close()


async def test_a_line_that_is_cut_lets_nobody_through() -> None:
    async with line() as (proxy, heard, connect):
        reader, writer = await connect()
        await send(writer, 1)
        await until_quiet(heard)
        proxy.set(Mode.CUT)
        with pytest.raises(ConnectionError):
            await reader.readexactly(1000)
        writer.close()
        refused, writer = await connect()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await refused.readexactly(1)
        writer.close()
        proxy.heal(resets=True)
        _, writer = await connect()
        await send(writer, 2)
        assert numbers(await until_quiet(heard, 1)) == [0, 1]
        writer.close()


# --- the plan --------------------------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_faults_and_every_kind_before_any_again() -> None:
    plan = draw_plan(90, 7, 4, has_disks=True)
    assert plan == draw_plan(90, 7, 4, has_disks=True)
    assert plan != draw_plan(90, 8, 4, has_disks=True)
    assert {fault.kind for fault in plan[: len(KINDS)]} == set(KINDS)
    assert {fault.part for fault in plan if fault.kind == "agent-killed-mid-drain"} <= {f"agent-{n}" for n in range(4)}
    without = draw_plan(90, 7, 4, has_disks=False)
    assert {fault.kind for fault in without} == set(KINDS) - NEED_DISKS
    assert len(KINDS) - len(NEED_DISKS) >= 14


# --- the oracle ------------------------------------------------------------------------------------------------------


def case(id: str, *events: tuple[str, str], cause: str = "sos", revision: int = 1) -> dict[str, Any]:
    lines = [
        {"seq": n, "at": n, "who": "gateway", "what": "x", "event": e, "device": d} for n, (e, d) in enumerate(events)
    ]
    devices = [device for _, device in events]
    return {
        "id": id, "number": f"JM-{id}", "community": "c001", "cause": cause, "sort": "incident", "revision": revision,
        "devices": devices, "timeline": lines,
    }  # fmt: skip


ONE, TWO = ("a/s/alarm/1/0", "sos-1"), ("a/s/alarm/2/0", "sos-2")
FIRE = ("a/s/alarm/3/0", "smoke-1")


def judge_these(
    folder: Path,
    ledger: list[dict[str, Any]],
    platform: list[dict[str, Any]],
    *,
    heard: int = 1,
    presses: list[Press] | None = None,
    smokes: list[Smoke] | None = None,
    waiting: int = 0,
    before: dict[str, int] | None = None,
) -> Findings:
    store = Store(folder / "platform.db")
    for one in platform:
        store.record(Received(f"{one['id']}/{one['revision']}", one["id"], one["revision"], "c001", one), 5_000)
    store.close()
    if presses is None:
        presses = [Press(event, "c001", device, 1.0, 2.0, heard) for event, device in (ONE, TWO)]
    if smokes is None:
        smokes = [Smoke("c001", "smoke-1", 2.0)]
    return judge(presses, smokes, ledger, folder / "platform.db", waiting, before)


GOOD = [case("i1", ONE), case("i2", TWO), case("i3", FIRE, cause="fire")]


def test_what_stands_exactly_once_in_both_is_good(tmp_path: Path) -> None:
    notice = case("n1", ("a/s/telemetry/9/0", "agent-1"), cause="agent-offline") | {"sort": "notice"}
    found = judge_these(tmp_path, [*GOOD, notice], GOOD)
    assert found == Findings(2, 1, 3, 0, 0, 3.0, ())
    assert found.is_good


@pytest.mark.parametrize(
    ("ledger", "platform", "lost", "doubled", "words"),
    [
        ([GOOD[0], GOOD[2]], [GOOD[0], GOOD[2]], 1, 0, "a/s/alarm/2/0 of sos-2 is not in the ledger"),
        (GOOD, [GOOD[0], GOOD[2]], 2, 0, "a/s/alarm/2/0 of sos-2 is not in the platform"),
        ([*GOOD, case("i4", ONE)], [*GOOD, case("i4", ONE)], 0, 1, "stands 2 times in the ledger"),
        (
            GOOD,
            [*GOOD, case("i4", ("other", "sos-1"))],
            0,
            1,
            "the platform has incident JM-i4, and the ledger has not",
        ),
        (
            [*GOOD, case("i4", ("other", "sos-1"))],
            GOOD,
            1,
            0,
            "the ledger has incident JM-i4, and the platform has not",
        ),
        (GOOD[:2], GOOD[:2], 1, 0, "the smoke that smoke-1 told is no incident in the ledger"),
        ([*GOOD, case("i4", ("x", "smoke-1"), cause="fire")], GOOD, 1, 1, "the smoke of smoke-1 is 2 incidents"),
        ([case("i1", (ONE[0], "sos-9")), *GOOD[1:]], GOOD, 1, 0, "stands in the ledger as one of sos-9"),
        ([case("i1", ONE, revision=2), *GOOD[1:]], GOOD, 0, 0, "revision 2 in the ledger and 1 on the platform"),
    ],
)
def test_whatever_is_lost_doubled_or_elsewhere_is_seen(
    tmp_path: Path, ledger: Any, platform: Any, lost: int, doubled: int, words: str
) -> None:
    found = judge_these(tmp_path, ledger, platform)
    assert (found.lost, found.doubled) == (lost, doubled)
    assert not found.is_good
    assert any(words in fault for fault in found.faults), found.faults


def test_a_press_that_is_told_again_under_another_number_is_seen(tmp_path: Path) -> None:
    again = [*GOOD, case("i4", ("a/s/alarm/9/0", "sos-1"))]
    found = judge_these(tmp_path, again, again)
    assert (found.lost, found.doubled) == (0, 1)
    assert "sos-1 can have been pressed 1 times, and 2 presses of it stand in the ledger" in found.faults
    # It was said twice, and the first time nobody answered: then both may have been taken.
    assert judge_these(tmp_path, again, again, heard=2).is_good


def test_two_presses_within_a_second_are_one_and_leave_room_for_no_other(tmp_path: Path) -> None:
    presses = [Press(ONE[0], "c001", "sos-1", at, at + 1, 1) for at in (1.0, 1.5)]
    cases = [case("i1", ONE)]
    assert judge_these(tmp_path, cases, cases, presses=presses, smokes=[]).is_good
    cases = [case("i1", ONE, ("a/s/alarm/9/0", "sos-1"), revision=2)]
    assert judge_these(tmp_path, cases, cases, presses=presses, smokes=[]).doubled == 1


def test_a_source_that_took_a_new_spool_is_seen(tmp_path: Path) -> None:
    renewed = [GOOD[0], case("i2", TWO, ("a/t/alarm/1/0", "smoke-9")), GOOD[2]]
    found = judge_these(tmp_path, renewed, renewed)
    assert (found.lost, found.doubled) == (0, 1)
    assert "a speaks in the platform from 2 spools: s, t" in found.faults


def test_what_the_clock_wrote_while_all_was_stopped_may_be_on_its_way(tmp_path: Path) -> None:
    rung = [case("i1", ONE, revision=2), *GOOD[1:]]
    assert judge_these(tmp_path, rung, GOOD, before=revisions_of(GOOD)).is_good
    # What had been there before that moment may not.
    assert not judge_these(tmp_path, rung, GOOD, before=revisions_of(rung)).is_good
    found = judge_these(tmp_path, GOOD, GOOD, before=revisions_of([*GOOD, case("i4", ("other", "sos-1"))]))
    assert found.faults == ("the ledger had incident i4, and has it no more",)


async def test_what_was_refused_or_met_nobody_was_not_heard(tmp_path: Path) -> None:
    """The answers of an agent, one after the other: none at all, one that breaks off, a refusal, and at last 202."""
    answers = [b"", b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"]
    body = b'{"events": ["a/s/alarm/1/0"]}'
    answers.append(b"HTTP/1.1 202 Accepted\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"}")
            writer.write(answers.pop(0))
        writer.close()

    port = free_port()
    presser = Presser(build_quarter(1), port, "token", random.Random(1))
    pressing = asyncio.create_task(presser.press_until_over(1_000.0))
    await asyncio.sleep(0.3)
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            while not presser.presses:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        presser.end()
        await pressing
    finally:
        server.close()
    assert presser.presses[0].heard == 2


def test_what_still_lies_in_spools_is_seen(tmp_path: Path) -> None:
    found = judge_these(tmp_path, GOOD, GOOD, waiting=3)
    assert found.faults == ("3 messages still lie in spools",)
    assert not found.is_good


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_short_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    try:
        find_mosquitto()
    except ServerMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    command = [
        sys.executable,
        "-m",
        "simulators",
        "chaos",
        "--faults",
        "30",
        "--seed",
        "7",
        "--communities",
        "2",
        "--json",
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    line = msgspec.json.decode(done.stdout.splitlines()[-1])
    assert json.loads(done.stdout.splitlines()[-1])["seed"] == 7
    assert (line["faults"], line["lost"], line["doubled"]) == (30, 0, 0)
    assert line["kinds"] >= 12
    assert line["presses"] > 50
    assert line["incidents"] > 5
    assert list(tmp_path.glob("scg-chaos-*")) == []
