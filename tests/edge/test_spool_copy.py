"""A disk put back from a copy: no number stands for two messages, and no press is lost to it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.spool import Spool
from gateway.wire import Lane, Receipt
from tests.edge.spools import MEMORY, UNPACKED, Gateway, Steady, buttons, pack, press, receipt

ALARM, TELEMETRY = Lane.ALARM, Lane.TELEMETRY


def start(path: Path) -> Spool:
    return Spool(path, UNPACKED, Steady())


def presses(spool: Spool, first: int, count: int) -> None:
    for n in range(first, first + count):
        spool.append_all([press(f"b{n}")])


def receive(gateway: Gateway, spool: Spool, count: int) -> None:
    """The next messages arrive, and are receipted."""
    for one in spool.waiting(ALARM, limit=count):
        spool.note_sent(ALARM, [one.seq])
        spool.settle(gateway.receive(one, spool.floor(ALARM)))


@settings(max_examples=50)
@given(
    before=st.integers(0, 5),
    settled=st.integers(0, 5),
    after=st.integers(0, 40),
    arrived=st.integers(0, 45),
    runs=st.lists(st.integers(0, 45), min_size=1, max_size=3),
    window=st.sampled_from([1, 3, 32]),
)
def test_every_press_of_both_lives_arrives_once(
    before: int, settled: int, after: int, arrived: int, runs: list[int], window: int
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path, gateway = Path(folder) / "spool.db", Gateway()
        spool = start(path)
        presses(spool, 0, before)
        receive(gateway, spool, settled)
        spool.close()
        shutil.copy(path, path.with_suffix(".copy"))

        # The first life goes on.
        spool = start(path)
        presses(spool, 100, after)
        for _ in range(arrived):
            receive(gateway, spool, 1)
        first = set(gateway.pressed)
        spool.close()

        # The copy is put back, and the agent is started some times without a link.
        shutil.copy(path.with_suffix(".copy"), path)
        said = set()
        for run, count in enumerate(runs):
            spool = start(path)
            presses(spool, 1000 * (run + 1), count)
            said |= {f"b{1000 * (run + 1) + n}" for n in range(count)}
            spool.note_sent(ALARM, [one.seq for one in spool.waiting(ALARM, limit=window)])
            spool.close()
        spool = start(path)
        old = spool.id
        renewals = gateway.drain(spool, window)

        wanted = first | said | {f"b{n}" for n in range(before)}
        assert sorted(gateway.pressed) == sorted(wanted)
        # When the copy has said nothing yet, it is found out now.
        presses(spool, 9000, 3)
        renewals += gateway.drain(spool, window)
        assert sorted(gateway.pressed) == sorted(wanted | {"b9000", "b9001", "b9002"})
        assert renewals <= 1
        assert (spool.id == old) == (renewals == 0)
        spool.close()


@pytest.fixture
def lives(tmp_path: Path) -> tuple[Gateway, Path]:
    """A copy that was made after 3 presses, while the gateway has 10."""
    path, gateway = tmp_path / "spool.db", Gateway()
    spool = start(path)
    presses(spool, 0, 3)
    gateway.drain(spool)
    spool.close()
    shutil.copy(path, tmp_path / "copy.db")
    spool = start(path)
    presses(spool, 3, 7)
    gateway.drain(spool)
    spool.close()
    return gateway, tmp_path / "copy.db"


def test_a_receipt_that_knows_too_much_gives_the_spool_a_new_id(
    lives: tuple[Gateway, Path], caplog: pytest.LogCaptureFixture
) -> None:
    gateway, path = lives
    spool = start(path)
    old = spool.id
    assert spool.append_all([press("new-1"), pack(5), press("new-2")]) == [4, 0, 5]
    # In doubt: one is sent, and the other waits for what the gateway says to it.
    [one] = spool.waiting(ALARM)
    assert one.seq == 4
    done = spool.settle(gateway.receive(one, 4))
    assert done.renewed
    assert done.committed == ()
    assert spool.id != old
    assert [(one.spool, one.seq, one.sends) for one in spool.waiting(ALARM)] == [(spool.id, 1, 0), (spool.id, 2, 0)]
    assert [one.seq for one in spool.waiting(TELEMETRY)] == [1]
    assert "copy" in caplog.text
    assert gateway.drain(spool) == 0
    assert gateway.pressed[-2:] == ["new-1", "new-2"]
    spool.close()
    again = start(path)
    assert again.id == spool.id
    again.close()


def test_a_number_refused_as_known_with_other_content_is_kept_and_numbered_anew(tmp_path: Path) -> None:
    spool = start(tmp_path / "spool.db")
    presses(spool, 0, 3)
    done = spool.settle(receipt(spool, ALARM, 3, seq_2="seq-conflict"))
    assert buttons(done.committed) == ["b0", "b2"]
    assert done.renewed
    assert [(one.seq, buttons([one])) for one in spool.waiting(ALARM)] == [(1, ["b1"])]
    spool.close()


def test_an_old_receipt_that_comes_late_does_not_end_the_doubt(lives: tuple[Gateway, Path]) -> None:
    _, path = lives
    spool = start(path)
    presses(spool, 100, 30)
    # As a broker keeps them for a source that is away; they settle nothing that this file holds.
    for seq in (1, 2, 3):
        spool.settle(Receipt("alarm", spool.id, seq))
    assert len(spool.waiting(ALARM)) == 1
    assert spool.settle(Receipt("alarm", spool.id, 8)).renewed
    assert len(spool.waiting(ALARM)) == 30
    spool.close()


def test_the_first_receipt_ends_the_doubt(tmp_path: Path) -> None:
    path, gateway = tmp_path / "spool.db", Gateway()
    spool = start(path)
    presses(spool, 0, 2)
    spool.close()
    spool = start(path)
    presses(spool, 10, 5)
    # What lay there before is no matter of doubt.
    assert buttons(spool.waiting(ALARM)) == ["b0", "b1"]
    assert buttons(spool.waiting(ALARM, after_seq=1)) == ["b1"]
    receive(gateway, spool, 1)
    assert buttons(spool.waiting(ALARM)) == ["b1", "b10", "b11", "b12", "b13", "b14"]
    presses(spool, 20, 1)
    assert gateway.drain(spool) == 0
    assert gateway.pressed == ["b0", "b1", "b10", "b11", "b12", "b13", "b14", "b20"]
    spool.close()


def test_a_power_cut_before_the_first_receipt_is_no_copy(tmp_path: Path) -> None:
    path, gateway = tmp_path / "spool.db", Gateway()
    spool = start(path)
    presses(spool, 0, 1)
    gateway.drain(spool)
    for n in range(3):
        spool.close()
        spool = start(path)
        presses(spool, 10 + n, 1)
        [one] = spool.waiting(ALARM)
        spool.note_sent(ALARM, [one.seq])
        # It arrives; its receipt does not.
        gateway.receive(one, spool.floor(ALARM))
    assert gateway.drain(spool) == 0
    assert gateway.pressed == ["b0", "b10", "b11", "b12"]
    spool.close()


def test_of_those_in_doubt_one_that_is_put_aside_lets_the_next_go(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = start(path)
    presses(spool, 0, 1)
    spool.settle(receipt(spool, ALARM, 1))
    spool.close()
    spool = start(path)
    presses(spool, 10, 3)
    spool.note_sent(ALARM, [2])
    spool.park(ALARM, 2)
    assert buttons(spool.waiting(ALARM)) == ["b11"]
    spool.close()


def test_what_was_sent_in_doubt_is_known_as_sent_when_it_is_no_longer_there(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    start(path).close()
    spool = start(path)
    presses(spool, 0, 1)
    spool.note_sent(ALARM, [1])
    spool.park(ALARM, 1)
    # The gateway had taken it in after all, and says so late: that is no sign of a copy.
    assert not spool.settle(receipt(spool, ALARM, 1)).renewed
    assert spool.describe(ALARM).parked == 1
    spool.close()


def test_what_was_put_aside_has_a_place_again_under_the_new_id(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = start(path)
    presses(spool, 0, 3)
    spool.park(ALARM, 1)
    assert spool.settle(receipt(spool, ALARM, 1, seq_2="seq-conflict")).renewed
    assert buttons(spool.waiting(ALARM)) == ["b0", "b1", "b2"]
    assert spool.describe(ALARM).parked == 0
    spool.close()
