"""The spool on disks that are full, fail, or give back something else than was written."""

from __future__ import annotations

import logging
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.ports import NotTaken
from edge.spool import Limits, Spool, SpoolDown
from gateway.wire import Lane
from tests.edge.spools import MIB, SMALL, T0, UNPACKED, Steady, buttons, count_readings, held, pack, press, receipt

ALARM, TELEMETRY = Lane.ALARM, Lane.TELEMETRY
WIDE = Limits(max_bytes=64 * MIB, alarm_reserve_bytes=2 * MIB, pack_ms=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no disk of its own for the spool (mounting one needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes all the room that the disk has left."""
    other = folder / "someone-elses.log"
    with other.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    assert shutil.disk_usage(folder).free == 0
    return other


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_disk_that_others_fill_stops_neither_alarms_nor_receipts(small_disk: Path) -> None:
    steady = Steady()
    spool = Spool(small_disk / "spool.db", WIDE, steady)
    for n in range(100):
        spool.append_all([pack(100, T0 + n)])
    other = fill(small_disk)

    for n in range(3000):
        spool.append_all([press(f"b{n}", T0 + n)])
        if n % 10 == 0:
            spool.append_all([pack(100, T0 + 100 + n)])
            steady.now += 1000
    assert buttons(held(spool, ALARM)) == [f"b{n}" for n in range(3000)]
    kept = held(spool, TELEMETRY)
    assert count_readings(kept) + spool.describe(TELEMETRY).dropped == 40_000
    assert [one.seq for one in kept] == list(range(kept[0].seq, 401))

    spool.note_sent(ALARM, [1, 2, 3])
    assert len(spool.settle(receipt(spool, ALARM, 2900)).committed) == 2900
    spool.settle(receipt(spool, TELEMETRY, 400))
    assert len(held(spool, ALARM)) == 100
    assert held(spool, TELEMETRY) == []

    # Room again: it grows again.
    other.unlink()
    steady.now += 10_000
    before = spool.describe(TELEMETRY).dropped
    for n in range(300):
        spool.append_all([pack(100, T0 + n)])
    assert spool.describe(TELEMETRY).dropped == before
    spool.close()


def test_an_alarm_is_refused_only_when_its_reserve_is_used_up_and_is_taken_again_later(small_disk: Path) -> None:
    steady = Steady()
    spool = Spool(small_disk / "spool.db", WIDE, steady)
    spool.append_all([pack(100)])
    fill(small_disk)
    taken: list[str] = []
    refused = 0
    while refused < 5:
        names = [f"b{len(taken) + i}" for i in range(50)]
        try:
            spool.append_all([press(name) for name in names])
            taken += names
        except NotTaken:
            refused += 1
            steady.now += 10_000
    assert len(taken) > 10_000
    assert buttons(held(spool, ALARM)) == taken
    assert spool.describe(TELEMETRY).dropped == 100
    spool.settle(receipt(spool, ALARM, 1000))
    assert spool.append_all([press("again")]) == [len(taken) + 1]
    spool.close()


def test_a_spool_opens_on_a_full_disk_and_goes_on_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(small_disk / "spool.db", WIDE, Steady())
    spool.append_all([press("b1"), pack(10)])
    spool.close()
    other = fill(small_disk)
    again = Spool(small_disk / "spool.db", WIDE, Steady())
    assert buttons(held(again, ALARM)) == ["b1"]
    again.close()
    other.unlink()
    again = Spool(small_disk / "spool.db", WIDE, Steady())
    assert again.append_all([press("b2")]) == [2]
    assert again.id == spool.id
    assert count_readings(held(again, TELEMETRY)) == 10
    again.close()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_disk_that_turns_read_only_takes_nothing_and_loses_nothing(small_disk: Path) -> None:
    spool = Spool(small_disk / "spool.db", WIDE, Steady())
    spool.append_all([press("b1")])
    spool.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(NotTaken):
        spool.append_all([press("b2")])
    with pytest.raises(SpoolDown):
        spool.waiting(ALARM)
    with pytest.raises(SpoolDown):
        spool.settle(receipt(spool, ALARM, 1))
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert buttons(spool.waiting(ALARM)) == ["b1"]
    assert spool.append_all([press("b2")]) == [2]
    spool.close()


# --- a torn file ------------------------------------------------------------------------------------------------------


def make(path: Path, alarms: int = 200, packs: int = 50) -> str:
    spool = Spool(path, UNPACKED, Steady())
    for n in range(packs):
        spool.append_all([pack(20, T0 + n)])
    for n in range(0, alarms, 20):
        spool.append_all([press(f"b{n + i}") for i in range(20)])
    spool.close()
    return spool.id


def test_garbage_is_moved_aside_and_the_agent_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(random.Random(1).randbytes(50_000))
    spool = Spool(path, SMALL, Steady())
    assert spool.append_all([press("b1")]) == [1]
    spool.close()
    aside = tmp_path / "spool.db.broken-1"
    assert aside.read_bytes() == random.Random(1).randbytes(50_000)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "spool.db.broken-1" in caplog.text

    path.write_text("no spool either")
    Spool(path, SMALL, Steady()).close()
    assert (tmp_path / "spool.db.broken-2").read_text() == "no spool either"


def test_a_file_of_something_else_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipe (name TEXT)")
    db.close()
    spool = Spool(path, SMALL, Steady())
    assert spool.append_all([press("b1")]) == [1]
    spool.close()
    assert (tmp_path / "spool.db.broken-1").exists()


@pytest.mark.parametrize("torn", ["a hole", "cut short", "index lost", "no lanes"])
def test_of_a_torn_file_what_is_legible_goes_on_under_a_new_id(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "spool.db"
    old = make(path)
    spool = Spool(path, UNPACKED, Steady())
    spool.park(ALARM, 3)
    spool.close()
    data = bytearray(path.read_bytes())
    wanted = 200
    if torn in ("index lost", "no lanes"):
        db = sqlite3.connect(path)
        table = "sqlite_autoindex_message_1" if torn == "index lost" else "lane"
        [(page,)] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchall()
        db.close()
        data[(page - 1) * 4096 : page * 4096] = b"\x55" * 4096
    else:
        # The page in which a press in the middle lies.
        middle = data.index(b"b100") // 4096
        if torn == "a hole":
            data[middle * 4096 : (middle + 1) * 4096] = b"\x55" * 4096
        else:
            del data[middle * 4096 :]
        wanted = 100 if torn == "a hole" else 20
    path.write_bytes(data)

    spool = Spool(path, UNPACKED, Steady())
    assert spool.id != old
    found = held(spool, ALARM)
    assert len(found) >= wanted
    assert [one.seq for one in found] == list(range(1, len(found) + 1))
    order = [int(button.removeprefix("b")) for button in buttons(found)]
    assert order == sorted(set(order))
    assert wanted < 200 or 2 in order, "what was put aside has a place again"
    assert spool.append_all([press("new")]) == [len(found) + 1]
    spool.close()
    assert (tmp_path / "spool.db.broken-1").exists()
    assert not (tmp_path / "spool.db.new").exists()


def test_an_alarm_that_the_index_does_not_know_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    make(path)
    db = sqlite3.connect(path)
    [(root,)] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_message_1'").fetchall()
    db.close()
    data = bytearray(path.read_bytes())
    # The last press as the index has it: now it is of a lane that nobody asks for.
    at = data.rindex(b"alarm", (root - 1) * 4096, root * 4096)
    data[at : at + 5] = b"alarn"
    path.write_bytes(data)
    spool = Spool(path, UNPACKED, Steady())
    assert len(held(spool, ALARM)) == 200
    spool.close()
    assert (tmp_path / "spool.db.broken-1").exists()


def test_whatever_bytes_are_flipped_a_spool_opens_and_says_nothing_that_was_not_said(tmp_path: Path) -> None:
    whole = tmp_path / "whole.db"
    make(whole, alarms=100, packs=10)
    data = whole.read_bytes()
    said = {f"b{n}" for n in range(100)}
    used = [page for page in range(len(data) // 4096) if any(data[page * 4096 : (page + 1) * 4096])]
    for seed in range(60):
        chance = random.Random(seed)
        torn = bytearray(data)
        # The first bytes of the file now and then; otherwise any page that holds something.
        page = 0 if seed % 5 == 0 else chance.choice(used)
        for _ in range(chance.choice((1, 3, 200))):
            torn[page * 4096 + chance.randrange(100 if page == 0 and seed % 10 else 4096)] ^= 1 << chance.randrange(8)
        path = tmp_path / f"{seed}" / "spool.db"
        path.parent.mkdir()
        path.write_bytes(torn)
        spool = Spool(path, UNPACKED, Steady())
        found = buttons(held(spool, ALARM))
        assert set(found) <= said, seed
        assert len(set(found)) == len(found), seed
        before = spool.describe(ALARM).last_seq
        assert spool.append_all([press("new")]) == [before + 1], seed
        spool.close()


def test_a_press_whose_bits_flipped_is_put_aside_and_not_another_buttons(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool.db"
    make(path, alarms=20, packs=0)
    data = bytearray(path.read_bytes())
    at = data.index(b"b17")
    data[at + 2 : at + 3] = b"8"
    path.write_bytes(data)
    spool = Spool(path, UNPACKED, Steady())
    found = held(spool, ALARM)
    assert buttons(found) == [f"b{n}" for n in range(20) if n != 17]
    assert spool.describe(ALARM).parked == 1
    assert "message 18" in caplog.text
    spool.close()


@pytest.mark.parametrize("moved", ["nothing", "the old file", "the old file and its log"])
def test_an_exchange_that_was_cut_off_is_ended_by_the_next_start(tmp_path: Path, moved: str) -> None:
    path = tmp_path / "spool.db"
    make(path, alarms=20, packs=0)
    torn = tmp_path / "torn"
    torn.mkdir()
    # The exchange makes the new file beside the old one before it moves anything.
    (torn / "spool.db.new").write_bytes(path.read_bytes())
    if moved == "nothing":
        (torn / "spool.db").write_bytes(b"\x55" * 8192)
    if moved != "the old file and its log":
        (torn / "spool.db-wal").write_bytes(b"\x55" * 8192)
    spool = Spool(torn / "spool.db", UNPACKED, Steady())
    assert buttons(held(spool, ALARM)) == ([] if moved == "nothing" else [f"b{n}" for n in range(20)])
    assert not (torn / "spool.db.new").exists()
    spool.close()


def test_a_file_that_tears_while_it_is_used_is_exchanged_at_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = Spool(path, WIDE, Steady())
    old = spool.id
    # More than is in memory.
    for n in range(1000):
        spool.append_all([pack(100, T0 + n)])
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * (path.stat().st_size - 4096))
    with pytest.raises(SpoolDown):
        held(spool, TELEMETRY)
    assert spool.append_all([press("b1")]) == [1]
    assert spool.id != old
    assert (tmp_path / "spool.db.broken-1").exists()
    spool.close()
