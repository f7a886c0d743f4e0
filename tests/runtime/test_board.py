"""The board in memory is what the ledger says, whoever reads it and however far behind."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.adapters.ledger import SqlLedger
from gateway.adapters.memory_ledger import open_memory_ledger
from gateway.core.model import Due, Incident, Level, Role, Sort, Step
from gateway.runtime.board import Board, Filter, is_unanswered, rank
from tests.ports.ledger_conformance import COMMUNITIES, Hand, opened

NOW = 1_795_435_200_000


NOWHERE = SqlLedger("sqlite://")
"""It is never asked where changes are handed in by hand."""


def new_board() -> Board:
    return Board(NOWHERE, lambda: NOW)


def everything(community: str, chain: Sequence[str]) -> bool:
    return True


def case(number: int, **fields: object) -> Incident:
    """Its own cause and place, so that many may stand beside each other."""
    return replace(opened(number, key=f"place-{number}"), **fields)


def due(at: int) -> Due:
    return Due("accept", Role.DISPATCHER, "370215", "", NOW, "10min", "", at - 60_000, at, at)


@st.composite
def histories(draw: st.DrawFn) -> list[Incident]:
    """Revisions of a few incidents, one after the other."""
    states = st.sampled_from(["reported", "filed", "dispatched", "closed", "false_alarm"])
    revisions: dict[int, int] = {}
    history: list[Incident] = []
    for number, state, level in draw(
        st.lists(st.tuples(st.integers(1, 6), states, st.sampled_from(list(Level))), max_size=25)
    ):
        revisions[number] = revisions.get(number, 0) + 1
        history.append(case(number, state=state, level=level, revision=revisions[number]))
    return history


@settings(max_examples=30)  # each makes a ledger
@given(histories(), st.integers(0, 25))
async def test_a_board_that_follows_is_one_that_has_just_been_read(history: list[Incident], start: int) -> None:
    ledger = open_memory_ledger()
    ledger.add_communities(COMMUNITIES)
    hand = Hand(ledger)
    following, reader = Board(ledger, lambda: NOW), Board(ledger, lambda: NOW)
    for place, incident in enumerate(history):
        if place == start:
            await following.load()
        hand.step(Step(incidents=(incident,)))
    if start >= len(history):
        await following.load()
    await following.follow()
    await reader.load()

    assert following.select(everything, Filter()) == reader.select(everything, Filter())
    assert following.unanswered(everything) == reader.unanswered(everything)
    assert following.position == reader.position == ledger.position()
    ledger.close()


@given(histories(), st.data())
async def test_whoever_takes_up_from_a_position_ends_where_everybody_is(
    history: list[Incident], data: st.DataObject
) -> None:
    board = new_board()
    board.take([])
    positions = list(enumerate(history, 1))
    split = data.draw(st.integers(0, len(positions)))
    board.take(positions[:split])
    mine = {i.id: i for i in board.select(everything, Filter())}
    seen = board.position
    board.take(positions[split:])

    changes = board.since(seen)
    assert changes is not None
    for _, incident in changes:
        if incident.state in ("closed", "false_alarm"):
            mine.pop(incident.id, None)
        else:
            mine[incident.id] = incident
    assert mine == {i.id: i for i in board.select(everything, Filter())}


def test_the_log_reaches_back_so_far_and_says_when_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.runtime.board.KEPT", 3)
    board = new_board()
    board.take((position, case(position)) for position in range(1, 6))

    assert [position for position, _ in board.since(2) or []] == [3, 4, 5]
    assert board.since(1) is None
    assert board.since(5) == []
    assert board.since(6) is None  # of another ledger


def test_the_order_is_level_then_deadline_then_age() -> None:
    first = case(1, due=due(NOW + 5))
    later = case(2, due=due(NOW + 9))
    timeless = case(3)
    urgent = case(4, level=Level.URGENT, due=due(NOW))
    older = case(5, opened_at=timeless.opened_at - 1)

    assert sorted([urgent, timeless, later, older, first], key=rank) == [first, later, older, timeless, urgent]


def test_filters_take_what_they_say() -> None:
    incident = case(1, chain=("370215", "370215001"), due=due(NOW), title={"zh": "一键求助", "en": "Help button"})

    assert all(
        wanted.takes(incident, NOW - 1)
        for wanted in (
            Filter(),
            Filter(community="c001", level="critical", category=incident.category, body=incident.body),
            Filter(grid="370215001"),
            Filter(text="求助"),
            Filter(text="HELP"),
            Filter(text="龙山", named=frozenset({"370215001"})),
            Filter(text="龙山", named=frozenset({"c001", "c009"})),
            Filter(overdue="warned"),
        )
    )
    assert not any(
        wanted.takes(incident, NOW - 1)
        for wanted in (
            Filter(Sort.NOTICE),
            Filter(community="c002"),
            Filter(grid="370215002"),
            Filter(state="filed"),
            Filter(text="燃气"),
            Filter(text="燃气", named=frozenset({"c009", "370215009"})),
            Filter(overdue="overdue"),
        )
    )
    assert Filter(overdue="overdue").takes(incident, NOW)


def test_what_must_not_be_overlooked_is_critical_and_nobodys() -> None:
    assert is_unanswered(case(1))
    assert is_unanswered(case(1, state="dispatched"))  # by the gateway itself
    assert not is_unanswered(case(1, accepted_at=NOW))
    assert not is_unanswered(case(1, level=Level.URGENT))
    assert not is_unanswered(case(1, state="false_alarm"))
    assert not is_unanswered(case(1, sort=Sort.NOTICE))


def test_counts_are_of_what_one_may_see() -> None:
    board = new_board()
    mine, other = case(1, due=due(NOW)), case(2, community="c002", due=due(NOW + 30_000))
    board.take([(1, mine), (2, other)])

    counts = board.count(lambda community, chain: community == "c001")
    assert (counts.total, counts.levels["critical"], counts.overdue, counts.warned) == (1, 1, 1, 0)
    assert board.count(everything).warned == 1
