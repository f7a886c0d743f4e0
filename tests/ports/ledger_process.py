"""A process that writes a ledger, for tests to kill, starve and hold.

``python -m tests.ports.ledger_process commit URL`` commits batch after batch and prints each once it is committed.
``python -m tests.ports.ledger_process outgrow URL BYTES`` does so with no file of its own allowed to grow beyond BYTES,
until the ledger says that it is down; then the limit is lifted and the same batch is committed by the same object.
"""

from __future__ import annotations

import resource
import sys

from gateway.adapters.ledger import open_ledger
from gateway.runtime.ports import LedgerDown
from tests.ports.ledger_batches import WriterOfMany, name_communities

COMMUNITIES = 5


def commit_for_ever(url: str) -> None:
    writer = WriterOfMany(open_ledger(url), name_communities(COMMUNITIES))
    print("claimed", flush=True)
    batches = 0
    while True:
        writer.commit()
        batches += 1
        print(f"committed {batches}", flush=True)


def outgrow(url: str, limit: int) -> None:
    ledger = open_ledger(url)
    writer = WriterOfMany(ledger, name_communities(COMMUNITIES))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that would otherwise end a process at its limit: a write then fails, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    batches = 0
    while True:
        try:
            writer.commit()
        except LedgerDown as error:
            print(f"down: {error}", flush=True)
            break
        batches += 1
    for _ in range(3):
        try:
            writer.commit()
        except LedgerDown:
            print("still down", flush=True)
    print(f"committed {batches}", flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    writer.commit()
    print(f"committed {batches + 1}", flush=True)
    ledger.close()


if __name__ == "__main__":
    if sys.argv[1] == "commit":
        commit_for_ever(sys.argv[2])
    else:
        outgrow(sys.argv[2], int(sys.argv[3]))
