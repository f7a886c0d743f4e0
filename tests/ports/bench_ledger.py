"""``python -m tests.ports.bench_ledger [--json]``: what a commit costs, on SQLite on the disk and a durable PostgreSQL.

Wall time includes the disk; CPU time is this process's alone, which for PostgreSQL leaves the server's out. Its tenth
percentile over the commits tells what the work itself costs when the machine does other things too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.adapters.ledger import open_ledger
from gateway.core.model import Community, CursorMove, Step
from gateway.runtime.ports import Batch, Entry, Fence, Ledger
from gateway.wire import Lane
from tests.servers import ROOT, Postgres, ServerMissing

NOW = 1_795_435_200_000
CASES = ((1, 150), (32, 150), (500, 150), (1000, 150), (100, 4_000))
"""(entries per batch, bytes per body)."""


def measure(ledger: Ledger, size: int, body: int, communities: int, seconds: float) -> dict[str, object]:
    """Commits batches for about ``seconds`` and says what an entry cost."""
    heads = {claim.community.id: (claim.epoch, claim.head) for claim in ledger.claim(_names(communities), NOW)}
    batches = _batches(heads, size, body)
    ledger.commit(next(batches))
    entries = 0
    wall = 0.0
    times: list[float] = []
    burns: list[float] = []
    while wall < seconds:
        batch = next(batches)
        began, burnt = time.perf_counter(), time.thread_time()
        ledger.commit(batch)
        took = time.perf_counter() - began
        burns.append(time.thread_time() - burnt)
        wall += took
        times.append(took)
        entries += size
    times.sort()
    burns.sort()
    return {
        "entries": size,
        "body": body,
        "entries_per_s": round(entries / wall),
        "us_per_entry": round(wall / entries * 1e6, 2),
        "cpu_us_per_entry": round(sum(burns) / entries * 1e6, 2),
        "cpu_us_per_entry_p10": round(burns[len(burns) // 10] / size * 1e6, 2),
        "commit_ms_p50": round(times[len(times) // 2] * 1e3, 2),
        "commit_ms_p99": round(times[int(len(times) * 0.99)] * 1e3, 2),
    }


def _names(count: int) -> list[str]:
    return [f"c{number:03d}" for number in range(1, count + 1)]


def _batches(heads: dict[str, tuple[int, int]], size: int, body: int) -> Iterator[Batch]:
    """Batches of telemetry, the communities taking turns; each entry moves its source's cursor."""
    names = sorted(heads)
    epochs = {name: epoch for name, (epoch, _) in heads.items()}
    head = {name: at for name, (_, at) in heads.items()}
    payload = bytes(range(32, 127)) * (body // 95 + 1)
    turn = 0
    while True:
        before: dict[str, int] = {}
        entries: list[Entry] = []
        for _ in range(size):
            name = names[turn % len(names)]
            turn += 1
            before.setdefault(name, head[name])
            head[name] += 1
            seq = head[name]
            source = f"agent-{name}"
            move = CursorMove(source, "k3f9a1b2", "telemetry", seq)
            entries.append(
                Entry(
                    name,
                    seq,
                    NOW + turn,
                    "delivery",
                    "0123456789abcdef",
                    payload[:body],
                    source,
                    Lane.TELEMETRY,
                    None,
                    seq * 7919,
                    Step(cursor=move, judged=1),
                )
            )
        yield Batch([Fence(name, epochs[name], before[name], head[name]) for name in sorted(before)], entries)


@contextmanager
def _ledgers(which: str) -> Iterator[tuple[str, Ledger]]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT) as folder:
        if which == "sqlite":
            ledger = open_ledger(f"sqlite:///{Path(folder) / 'ledger.db'}")
            yield which, ledger
            ledger.close()
        else:
            with Postgres(durable=True) as server:
                ledger = open_ledger(server.new_database())
                yield which, ledger
                ledger.close()


def main() -> None:
    """Prints one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each case runs")
    parser.add_argument("--communities", type=int, default=277)
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--json", action="store_true", help="one JSON object for each case")
    options = parser.parse_args()
    for which in (options.only,) if options.only else ("sqlite", "postgresql"):
        try:
            with _ledgers(which) as (name, ledger):
                ledger.migrate()
                ledger.add_communities(
                    [Community(id, at, id) for at, id in enumerate(_names(options.communities), start=1)]
                )
                for size, body in CASES:
                    line = measure(ledger, size, body, options.communities, options.seconds)
                    if options.json:
                        print(json.dumps({"ledger": name, **line}), flush=True)
                    else:
                        print(f"{name:10}", *(f"{key} {value:<8}" for key, value in line.items()), flush=True)
        except ServerMissing as missing:
            print(f"left out {which}: {missing}", flush=True)


if __name__ == "__main__":
    main()
