"""Batches for the tests of ledgers, as a gateway's writer would make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import structs

from gateway.core.model import Community, CursorMove, Deliver, Incident, Step
from gateway.runtime.ports import Batch, Entry, Fence, Ledger
from tests.ports.incidents import FIRE, effect_id

NOW: Final = 1_795_435_200_000
CATALOG: Final = "0123456789abcdef"
SPOOL: Final = "k3f9a1b2"


def name_communities(count: int) -> list[str]:
    return [f"c{serial:03d}" for serial in range(1, count + 1)]


def found_ledger(ledger: Ledger, communities: int) -> list[str]:
    """Makes the tables and the communities; their ids."""
    names = name_communities(communities)
    ledger.migrate()
    ledger.add_communities([Community(name, serial, name) for serial, name in enumerate(names, start=1)])
    return names


def open_case(community: str, number: int) -> Incident:
    """The first revision of an incident of its own."""
    return structs.replace(
        FIRE,
        id=f"{community}-case-{number}",
        number=f"JM20261123-{community}-{number:04d}",
        community=community,
        key=f"{community}-b{number}",
    )


class WriterOfMany:
    """Claims communities and makes one batch after the other, in each of which every community has ``rows`` entries;
    the first of each community opens an incident and asks for its delivery. The cursor counts as many lost messages
    as there are rows, so that `Ledger.counts` shows how far it has moved."""

    def __init__(self, ledger: Ledger, names: Sequence[str], rows: int = 4) -> None:
        self._ledger = ledger
        self._rows = rows
        claims = ledger.claim(names, NOW)
        self._epochs = {claim.community.id: claim.epoch for claim in claims}
        self.heads = {claim.community.id: claim.head for claim in claims}

    def make(self) -> Batch:
        """The next batch; the heads stay where they are until `confirm`."""
        fences, entries = [], []
        for name, head in self.heads.items():
            fences.append(Fence(name, self._epochs[name], head, head + self._rows))
            entries += [self._enter(name, seq, opens=seq == head + 1) for seq in self._seqs(head)]
        return Batch(fences, entries, alive_at=NOW + entries[-1].seq)

    def confirm(self) -> None:
        self.heads = {name: head + self._rows for name, head in self.heads.items()}

    def commit(self) -> None:
        self._ledger.commit(self.make())
        self.confirm()

    def is_written(self) -> bool:
        """Whether the ledger has the batch of `make`, by where the communities stand."""
        after = {name: (self._epochs[name], head + self._rows) for name, head in self.heads.items()}
        return self._ledger.standing(list(self.heads)) == after

    def _seqs(self, head: int) -> range:
        return range(head + 1, head + self._rows + 1)

    def _enter(self, name: str, seq: int, *, opens: bool) -> Entry:
        source = f"agent-{name}"
        cases = (open_case(name, seq),) if opens else ()
        return Entry(
            name,
            seq,
            NOW + seq,
            "delivery",
            CATALOG,
            b'{"seq": %d}' % seq + bytes(130),
            source,
            "alarm",
            f"{source}/{SPOOL}/alarm/{seq}",
            seq * 7919,
            Step(
                incidents=cases,
                effects=tuple(Deliver(effect_id(case), case) for case in cases),
                cursor=CursorMove(source, SPOOL, "alarm", seq, lost=seq),
            ),
        )


def count_whole_batches(ledger: Ledger, names: Sequence[str], rows: int = 4) -> int:
    """How many batches of `WriterOfMany` the ledger holds. Asserts that it holds each of them whole: journal, heads,
    cursors, incidents, timelines and effects agree."""
    standing = ledger.standing(names)
    [head] = {head for _, head in standing.values()}
    assert head % rows == 0
    for name in names:
        assert [row.seq for row in ledger.read_journal(name, 0)] == list(range(1, head + 1))
    batches = head // rows
    counts = ledger.counts()
    assert counts["lost"] == ({f"agent-{name}": head for name in names} if head else {})
    assert sum(counts["outbox"].values()) == batches * len(names)
    found = ledger.incidents(limit=batches * len(names) + 1)
    assert {case.id for case in found} == {
        open_case(name, first).id for name in names for first in range(1, head + 1, rows)
    }
    assert ledger.alive_at() == (NOW + head if head else None)
    return batches
