"""A process that takes in, sends and settles until it is killed: ``python -m tests.edge.spool_child FILE RUN``.

It says on its standard output, one line each: ``said NAME`` before a press is taken in, ``taken SEQ NAME`` after it,
``settling SEQ`` before a receipt that it makes up itself, and ``reading N`` before it takes N readings in."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from edge.spool import Entry, Limits, Spool
from gateway.wire import Lane, Receipt, Signal
from tests.edge.spools import MIB, pack


def say(*words: object) -> None:
    # One write: a line is there as a whole, or not at all.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main(path: Path, run: str) -> None:
    chance = random.Random(run)
    limits = Limits(max_bytes=3 * MIB, alarm_reserve_bytes=MIB, pack_ms=20, pack_readings=100)
    spool = Spool(path, limits, lambda: time.monotonic_ns() // 1_000_000)
    say("ready", spool.id)
    number = 0
    while True:
        names = [f"b{run}-{number + n}" for n in range(chance.choice((1, 1, 1, 5, 40)))]
        number += len(names)
        for name in names:
            say("said", name)
        now = time.time_ns() // 1_000_000
        for name, seq in zip(
            names, spool.append_all([Entry(Lane.ALARM, now, (Signal(name, "pressed"),)) for name in names]), strict=True
        ):
            say("taken", seq, name)
        size = chance.choice((1, 30, 250))
        say("reading", size)
        spool.append_all([pack(size, now)])
        for lane in Lane:
            found = spool.waiting(lane, limit=chance.randrange(1, 40))
            spool.note_sent(lane, [one.seq for one in found])
            if found and chance.random() < 0.3:
                last = chance.choice(found).seq
                for one in found:
                    if one.seq <= last and lane is Lane.ALARM:
                        say("settling", one.seq)
                spool.settle(Receipt(lane, spool.id, last))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
