"""Whatever happens in whatever order: every alarm taken in is at the gateway once, and every reading is there or
counted."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge.spool import Limits, Spool
from gateway.wire import Lane, Receipt
from tests.edge.spools import MEMORY, MIB, T0, Gateway, Steady, pack, press

LANES = st.sampled_from(list(Lane))


class SpoolLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.lives = 0
        self.steady = Steady()
        self.gateway = Gateway()
        self.limits = Limits(max_bytes=2 * MIB, alarm_reserve_bytes=MIB, pack_ms=2_000, max_age_ms=60_000)
        self.spool = Spool(self.folder / "0.db", self.limits, self.steady)
        self.id = self.spool.id
        self.taken: dict[int, str] = {}
        self.settled: set[int] = set()
        self.readings = 0
        self.receipts: list[Receipt] = []

    # --- the devices

    @rule(count=st.integers(1, 40), jump=st.integers(-(10**12), 10**12))
    def press(self, count: int, jump: int) -> None:
        names = [f"b{len(self.taken) + n}" for n in range(count)]
        seqs = self.spool.append_all([press(name, T0 + jump) for name in names])
        assert seqs == list(range(len(self.taken) + 1, len(self.taken) + count + 1))
        self.taken |= dict(zip(seqs, names, strict=True))

    @rule(count=st.integers(1, 3), size=st.sampled_from([1, 40, 300]))
    def measure(self, count: int, size: int) -> None:
        self.spool.append_all([pack(size, T0 + n) for n in range(count)])
        self.readings += count * size

    @rule(ms=st.sampled_from([1, 500, 2_000, 30_000]))
    def wait(self, ms: int) -> None:
        self.steady.now += ms

    # --- the link

    @rule(lane=LANES, window=st.integers(1, 40), data=st.data())
    def send(self, lane: Lane, window: int, data: st.DataObject) -> None:
        """Of a window some messages arrive, in any order."""
        found = self.spool.waiting(lane, limit=window)
        self.spool.note_sent(lane, [one.seq for one in found])
        arriving = data.draw(st.lists(st.sampled_from(found), max_size=len(found)) if found else st.just([]))
        floor = self.spool.floor(lane)
        self.receipts += [self.gateway.receive(one, floor) for one in arriving]

    @precondition(lambda self: self.receipts)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """A receipt arrives, or one that came before arrives again."""
        done = self.spool.settle(data.draw(st.sampled_from(self.receipts)))
        assert not done.renewed
        assert done.rejected == ()
        for one in done.committed:
            if one.lane is Lane.ALARM:
                assert one.signals[0].device == self.taken[one.seq]
                assert one.seq not in self.settled
                self.settled.add(one.seq)

    # --- the machine

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = Spool(self.spool.path, self.limits, self.steady)

    @rule()
    def crash(self) -> None:
        """The files as they are at this moment, opened by somebody else."""
        self.lives += 1
        path = self.folder / f"{self.lives}.db"
        shutil.copy(self.spool.path, path)
        shutil.copy(f"{self.spool.path}-wal", f"{path}-wal")
        self.spool.close()
        self.spool = Spool(path, self.limits, self.steady)

    # --- what holds

    @invariant()
    def alarms_wait_in_order_once(self) -> None:
        waiting = [seq for seq in self.taken if seq not in self.settled]
        state = self.spool.describe(Lane.ALARM)
        assert state.depth == len(waiting)
        assert state.floor == (waiting[0] if waiting else 0)
        assert state.last_seq == len(self.taken)
        handed = [(one.seq, one.signals[0].device) for one in self.spool.waiting(Lane.ALARM, limit=10_000)]
        assert handed == [(seq, self.taken[seq]) for seq in waiting[: len(handed)]]
        assert bool(handed) == bool(waiting)
        assert self.spool.id == self.id

    def teardown(self) -> None:
        self.steady.now += 2_000
        assert self.gateway.drain(self.spool) == 0
        assert sorted(self.gateway.pressed) == sorted(self.taken.values())
        state = self.spool.describe(Lane.TELEMETRY)
        assert state.depth == 0
        # What was sent before it was let go may have arrived; nothing else is doubtful.
        assert state.dropped - state.dropped_sent <= self.readings - self.gateway.readings <= state.dropped
        self.spool.close()
        shutil.rmtree(self.folder)


SpoolLife.TestCase.settings = settings(max_examples=30, stateful_step_count=30)
TestSpoolLife = SpoolLife.TestCase
