"""A real process that is killed with SIGKILL while it takes in: what it said it has, it has."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge.spool import Spool
from gateway.wire import Lane
from tests.edge.spools import UNPACKED, Gateway, Steady
from tests.servers import ROOT


def run_and_kill(path: Path, run: int, after_s: float) -> list[list[str]]:
    """What a child said until it was killed, ``after_s`` seconds after it had the spool open."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.edge.spool_child", str(path), str(run)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    assert first.startswith(b"ready"), first
    killer = threading.Timer(after_s, child.kill)
    killer.start()
    # Read all the while, or the child would stop at a full pipe.
    said = child.stdout.read()
    killer.join()
    child.stdout.close()
    assert child.wait() == -9
    return [first.decode().split(), *(line.split() for line in said.decode().splitlines())]


@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_taken_before_a_kill_is_there_once_after_it(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "spool.db"
    chance = random.Random(seed)
    taken: dict[int, str] = {}
    said: set[str] = set()
    settling: set[int] = set()
    ids = set()
    readings = 0
    for run in range(4):
        for words in run_and_kill(path, run, chance.uniform(0.01, 0.4)):
            match words:
                case ["ready", spool_id]:
                    ids.add(spool_id)
                case ["said", name]:
                    said.add(name)
                case ["taken", seq, name]:
                    # No number twice, in any run.
                    assert int(seq) not in taken
                    taken[int(seq)] = name
                case ["settling", seq]:
                    settling.add(int(seq))
                case ["reading", count]:
                    readings += int(count)
    assert len(ids) == 1
    assert taken

    spool = Spool(path, UNPACKED, Steady())
    assert spool.id in ids
    assert spool.describe(Lane.ALARM).last_seq >= max(taken)
    gateway = Gateway()
    assert gateway.drain(spool) == 0
    arrived = {message.seq: message.signals[0].device for message in gateway.taken if message.lane is Lane.ALARM}
    assert len(set(gateway.pressed)) == len(gateway.pressed) == len(arrived)
    assert list(arrived) == sorted(arrived)
    # What was killed in the middle of being taken in may be there; what nobody said is not.
    assert set(gateway.pressed) <= said
    missing = {seq for seq, name in taken.items() if arrived.get(seq) != name}
    assert missing <= settling
    assert set(arrived) - settling
    assert gateway.readings <= readings
    spool.close()
