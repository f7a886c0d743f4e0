"""A process whose power is cut afterwards: ``python -m tests.edge.power_child FOLDER SEED``. It takes in, sends and
settles in ``FOLDER/spool.db``, and appends to ``FOLDER/told`` what it has told others: ``taken SPOOL SEQ BUTTON``,
``sent SPOOL LANE SEQ DIGEST`` and, before it settles, ``settling SPOOL SEQ`` of an alarm."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from edge.spool import Limits, Spool
from gateway.wire import Lane, Receipt
from tests.edge.spools import MIB, Steady, at_gateway, pack, press

LIMITS = Limits(max_bytes=3 * MIB, alarm_reserve_bytes=MIB, pack_ms=20, pack_readings=100)


def main(folder: Path, seed: int) -> None:
    chance, steady, count = random.Random(seed), Steady(), 0
    told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(*words: object) -> None:
        os.write(told, (" ".join(map(str, words)) + "\n").encode())

    for _ in range(3):
        spool = Spool(folder / "spool.db", LIMITS, steady)
        for _ in range(100):
            steady.now += chance.choice((1, 30))
            names = [f"b{count + n}" for n in range(chance.choice((1, 1, 4)))]
            count += len(names)
            for seq, name in zip(spool.append_all([press(name) for name in names]), names, strict=True):
                tell("taken", spool.id, seq, name)
            if chance.random() < 0.5:
                spool.append_all([pack(chance.choice((1, 60)))])
            for lane in Lane:
                found = spool.waiting(lane, limit=chance.randrange(1, 30))
                spool.note_sent(lane, [one.seq for one in found])
                for one in found:
                    tell("sent", spool.id, lane, one.seq, at_gateway(one).digest)
                if found and chance.random() < 0.35:
                    last = chance.choice(found).seq
                    for one in found:
                        if lane is Lane.ALARM and one.seq <= last:
                            tell("settling", spool.id, one.seq)
                    spool.settle(Receipt(lane, spool.id, last))
        spool.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
