"""The power is cut: of what was not fsynced, the disk holds all, nothing, or any part of it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from edge.spool import Spool
from gateway.wire import Lane
from tests.edge.spools import MEMORY, UNPACKED, Gateway, Steady, press
from tests.servers import ROOT

CUTS = 40


class Act(NamedTuple):
    """One thing that was done to a file: see power_cut.c."""

    kind: str
    file: str
    at: int
    data: bytes


def read_acts(log: bytes) -> list[Act]:
    acts, place = [], 0
    while place < len(log):
        end = log.index(b"\n", place)
        kind, path, at, length = log[place:end].decode().split(" ")
        place = end + 1 + int(length)
        acts.append(Act(kind, Path(path).name, int(at), log[end + 1 : place]))
    return acts


def perform(act: Act, content: bytearray) -> None:
    if act.kind == "t":
        del content[act.at :]
    content.extend(bytes(max(0, act.at - len(content))))
    if act.kind == "w":
        content[act.at : act.at + len(act.data)] = act.data


def cut(acts: list[Act], chance: random.Random) -> dict[str, bytearray]:
    """What the disk may hold when the power is cut after these acts."""
    files: dict[str, bytearray] = {}
    pending: dict[str, list[Act]] = {}
    for act in acts:
        if act.kind == "u":
            files.pop(act.file, None)
            pending.pop(act.file, None)
        elif act.kind == "s":
            for one in pending.pop(act.file, []):
                perform(one, files.setdefault(act.file, bytearray()))
        else:
            pending.setdefault(act.file, []).append(act)
    share = chance.choice((0.0, 0.5, 0.9, 1.0))
    for name, waiting in pending.items():
        content = files.setdefault(name, bytearray())
        for act in waiting:
            if chance.random() < share:
                perform(act, content)
            elif act.kind == "w" and share and chance.random() < 0.1:
                # Torn between two sectors.
                perform(act._replace(data=act.data[: chance.randrange(len(act.data)) // 512 * 512]), content)
    return files


@pytest.fixture(scope="module")
def acts(tmp_path_factory: pytest.TempPathFactory) -> list[Act]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no C compiler to watch the disk with (install gcc)", pytrace=False)
        pytest.skip("no C compiler to watch the disk with (install gcc)")
    folder = tmp_path_factory.mktemp("power")
    source = Path(__file__).with_name("power_cut.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(folder / "watch.so"), str(source)], check=True)
    (folder / "disk").mkdir()
    watching = {
        "LD_PRELOAD": str(folder / "watch.so"), "POWER_FOLDER": str(folder / "disk"), "POWER_LOG": str(folder / "log"),
    }  # fmt: skip
    child = [sys.executable, "-m", "tests.edge.power_child", str(folder / "disk"), "1"]
    subprocess.run(child, check=True, cwd=ROOT, env={**os.environ, **watching})
    found = read_acts((folder / "log").read_bytes())
    assert {act.kind for act in found} >= set("wast")
    return found


@pytest.mark.parametrize("seed", range(CUTS))
def test_what_was_told_before_the_power_was_cut_is_true_after_it(acts: list[Act], seed: int) -> None:
    chance = random.Random(seed)
    first = next(index for index, act in enumerate(acts) if act.file == "told")
    before = acts[: chance.randrange(first, len(acts))]
    taken: dict[tuple[str, int], str] = {}
    sent: dict[tuple[str, str, int], str] = {}
    settling: set[tuple[str, int]] = set()
    for act in before:
        match act.data.decode().split() if act.file == "told" else []:
            case ["taken", spool_id, seq, button]:
                taken[spool_id, int(seq)] = button
            case ["sent", spool_id, lane, seq, digest]:
                sent[spool_id, lane, int(seq)] = digest
            case ["settling", spool_id, seq]:
                settling.add((spool_id, int(seq)))

    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for name, content in cut([act for act in before if act.file.startswith("spool.db")], chance).items():
            Path(folder, name).write_bytes(content)
        spool = Spool(Path(folder, "spool.db"), UNPACKED, Steady())
        assert not list(Path(folder).glob("*.broken*"))
        gateway = Gateway()
        assert gateway.drain(spool) == 0
        arrived = {(m.spool, m.seq): m.signals[0].device for m in gateway.taken if m.lane is Lane.ALARM}
        assert {key for key, button in taken.items() if arrived.get(key) != button} <= settling
        # What others know under a number is still what the number stands for.
        digests = {(m.spool, str(m.lane), m.seq): str(m.digest) for m in gateway.taken}
        assert [key for key, digest in sent.items() if digests.get(key, digest) != digest] == []
        assert (spool.id, spool.append_all([press("new")])[0]) not in taken
        last = max((seq for _, lane, seq in sent if lane == "telemetry"), default=0)
        assert spool.describe(Lane.TELEMETRY).last_seq >= last
        spool.close()
