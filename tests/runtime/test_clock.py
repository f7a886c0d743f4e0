"""The gateway's clock follows the wall clock forwards, and goes on while that is behind."""

from __future__ import annotations

import time

from gateway.runtime.clock import BEHIND_RATE, ForwardClock, RunningClock

DAY = 86_400_000


class Walls:
    """A wall clock and a steady one, moved by hand."""

    def __init__(self) -> None:
        self.wall = 1_000_000_000
        self.steady = 5_000

    def pass_time(self, ms: int) -> None:
        self.wall += ms
        self.steady += ms

    def clock(self, speed: float = 1.0) -> ForwardClock:
        return ForwardClock(lambda: self.wall, speed, lambda: self.steady)


def test_it_shows_the_wall_clock_also_when_that_jumps_forwards() -> None:
    walls = Walls()
    clock = walls.clock()
    for step in (0, 1, 7, 40, DAY):
        walls.pass_time(step)
        assert clock() == walls.wall
    walls.wall += 3 * DAY
    assert clock() == walls.wall


def test_set_back_it_goes_on_until_the_wall_clock_has_caught_up() -> None:
    walls = Walls()
    clock = walls.clock()
    walls.wall += 60_000
    shown = clock()
    walls.wall -= 60_000
    for _ in range(30_000):  # asked every millisecond
        walls.pass_time(1)
        assert clock() >= shown
        shown = clock()
    assert shown == walls.wall - 30_000 + 60_000 + int(30_000 * BEHIND_RATE)
    walls.pass_time(240_000)
    assert clock() == walls.wall


def test_what_it_showed_in_an_earlier_run_is_not_shown_again() -> None:
    walls = Walls()
    clock = walls.clock()
    clock.advance_to(walls.wall - DAY)
    assert clock() == walls.wall
    clock.advance_to(walls.wall + DAY)
    assert clock() == walls.wall + DAY
    walls.pass_time(1_000)
    assert clock() == walls.wall - 1_000 + DAY + int(1_000 * BEHIND_RATE)


def test_a_fast_clock_goes_on_fast() -> None:
    walls = Walls()
    clock = walls.clock(speed=60)
    walls.wall -= DAY
    walls.steady += 1_000
    assert clock() == walls.wall + DAY + int(60_000 * BEHIND_RATE)


def test_it_stands_at_its_anchor_until_that_is_reached() -> None:
    """Registered at that time by a process before, a gateway that starts early is not ahead of it."""
    real = time.time_ns() // 1_000_000
    running = RunningClock(1_000.0, real + 300, 5_000_000)
    clock = ForwardClock(running, running.speed, running.steady)
    clock.advance_to(5_000_001)
    time.sleep(0.1)
    # Two clocks are read, one after the other: a millisecond of real time, perhaps.
    assert 5_000_001 <= clock() <= 5_000_001 + 1_000
    time.sleep(0.5)
    before = running()
    assert before <= clock() <= running()
    assert before > 5_000_000 + 1_000 * 200
