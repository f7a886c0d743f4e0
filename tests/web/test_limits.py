"""Buckets: never more than they hold and what fills again, whatever the order of asking."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.web import limits
from gateway.web.limits import Limiter, Rate

RATES = st.builds(Rate, st.integers(1, 50), st.integers(1, 100_000))


@given(RATES, st.lists(st.integers(0, 5_000), max_size=200))
def test_no_more_pass_than_the_bucket_holds_and_fills(rate: Rate, gaps: list[int]) -> None:
    limiter, now, passed = Limiter(rate), 0, 0
    for gap in gaps:
        now += gap
        passed += limiter.take("a", now) == 0

    assert passed <= rate.burst + now * rate.burst / rate.refill_ms + 1e-6


@given(RATES)
def test_whoever_waits_as_long_as_told_passes(rate: Rate) -> None:
    limiter = Limiter(rate)
    for _ in range(rate.burst):
        assert limiter.take("a", 0) == 0
    wait = limiter.take("a", 0)

    assert wait > 0
    assert limiter.take("b", 0) == 0
    assert limiter.take("a", wait + 1) == 0


def test_what_is_given_back_is_there_again_and_no_more() -> None:
    limiter = Limiter(Rate(2, 1000))
    limiter.give_back("a", 0)
    assert [limiter.take("a", 0) > 0 for _ in range(3)] == [False, False, True]
    limiter.give_back("a", 0)
    assert [limiter.take("a", 0) > 0 for _ in range(2)] == [False, True]


def test_a_clock_that_is_set_back_fills_nothing() -> None:
    limiter = Limiter(Rate(1, 1000))
    assert limiter.take("a", 10_000) == 0
    assert limiter.take("a", 0) > 0


def test_strangers_do_not_fill_the_memory() -> None:
    limiter = Limiter(Rate(1, 1000))
    for number in range(limits.MOST_KEYS + 500):
        limiter.take(f"k{number}", 0)

    assert len(limiter._buckets) == limits.MOST_KEYS
    assert limiter.take(f"k{limits.MOST_KEYS + 499}", 0) > 0
