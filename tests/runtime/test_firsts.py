"""What is told once."""

from __future__ import annotations

from gateway.runtime.firsts import Firsts


def test_each_kind_is_told_once() -> None:
    firsts = Firsts()

    assert [firsts.is_first("a", "x"), firsts.is_first("a", "x"), firsts.is_first("a", "y")] == [True, False, True]


def test_more_kinds_than_can_be_remembered_are_told_again_rather_than_never() -> None:
    firsts = Firsts(most=3)
    told = sum(firsts.is_first(str(number % 4)) for number in range(40))

    assert told >= 4
    assert len(firsts._known) <= 3
