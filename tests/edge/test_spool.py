"""The spool in an ordinary life: what it takes in, packs, hands out, settles and lets go."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.ports import NotTaken
from edge.spool import Entry, LaneState, Limits, Settled, Spool, Unfit
from gateway.errors import GatewayError
from gateway.wire import Lane, Measurement, Signal
from tests.edge.spools import (
    MIB,
    SMALL,
    T0,
    UNPACKED,
    Gateway,
    Steady,
    at_gateway,
    buttons,
    count_readings,
    held,
    pack,
    press,
    reading,
    receipt,
    size_of,
)

ALARM, TELEMETRY = Lane.ALARM, Lane.TELEMETRY


def fill_with_alarms(spool: Spool) -> int:
    """Takes alarms in by the hundred until they are refused; returns how many were taken."""
    for count in range(0, 1_000_000, 100):
        try:
            spool.append_all([press(f"b{count + i}") for i in range(100)])
        except NotTaken:
            return count
    raise AssertionError("the spool has no bound")


class Shelf:
    """A spool that can be closed and opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steady = Steady()
        self._open: list[Spool] = []

    def open(self, limits: Limits = SMALL) -> Spool:
        self.close()
        self._open.append(Spool(self.path, limits, self.steady))
        return self._open[-1]

    def close(self) -> None:
        for spool in self._open:
            spool.close()
        self._open.clear()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    found = Shelf(tmp_path / "spool.db")
    yield found
    found.close()


# --- messages ---------------------------------------------------------------------------------------------------------


def test_what_was_taken_in_is_there_after_a_restart_in_its_order(shelf: Shelf) -> None:
    spool = shelf.open()
    assert spool.append_all([press("b1"), press("b2")]) == [1, 2]
    assert spool.append(ALARM, T0 + 5, (Signal("b3", "pressed"),), (Measurement("b3:battery", 88, "%EL"),)) == 3
    before = spool.waiting(ALARM)

    again = shelf.open()
    assert again.id == spool.id
    assert again.waiting(ALARM) == [replace(one, since=None) for one in before]
    assert buttons(before) == ["b1", "b2", "b3"]
    assert before[2].taken_at == T0 + 5
    assert before[2].measurements == (Measurement("b3:battery", 88.0, "%EL"),)


def test_it_knows_for_how_long_a_message_of_this_run_has_lain(shelf: Shelf) -> None:
    spool = shelf.open(Limits(max_bytes=2 * MIB, alarm_reserve_bytes=MIB))
    shelf.steady.now = 7_000
    spool.append_all([press("b1", T0 + 7_000), reading("t1:temp", 20, T0 + 7_000)])
    shelf.steady.now = 10_000
    spool.append_all([reading("t1:temp", 21, T0 + 10_000)])
    shelf.steady.now = 12_000
    [alarm], [pack] = spool.waiting(ALARM), spool.waiting(TELEMETRY)
    shelf.steady.now = 15_000
    assert spool.lain(alarm) == 8_000
    assert (pack.taken_at, spool.lain(pack)) == (T0 + 10_000, 5_000)
    spool.settle(receipt(spool, ALARM, 0, seq_1="odd"))
    spool = shelf.open()
    spool.append_all([press("b2")])
    [pack], [alarm] = spool.waiting(TELEMETRY), spool.waiting(ALARM)
    assert (spool.lain(pack), spool.lain(alarm)) == (None, 0)


def test_a_number_is_never_given_out_again_even_when_all_are_gone(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([press("b1"), press("b2")])
    spool.settle(receipt(spool, ALARM, 2))
    assert spool.waiting(ALARM) == []
    assert shelf.open().append_all([press("b3")]) == [3]


def test_the_lanes_count_apart(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    spool.append_all([press("b1"), reading("t1:temp", 20), press("b2"), reading("t1:temp", 21)])
    assert [one.seq for one in spool.waiting(ALARM)] == [1, 2]
    assert [one.seq for one in spool.waiting(TELEMETRY)] == [1]
    assert [m.value for m in spool.waiting(TELEMETRY)[0].measurements] == [20, 21]


def test_a_message_sent_again_is_the_same_at_the_gateway_also_after_a_restart(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    data: dict[str, float | int | bool | str] = {"plate": "鲁F12345", "score": 0.1 + 0.2, "far": False, "n": 7}
    seen = Signal("cam-1", "plate_seen", data)
    entries = [
        Entry(ALARM, T0 + 1, (seen,), (Measurement("c:lux", 3), Measurement("c:on", True))),
        Entry(TELEMETRY, T0 + 2, (), (Measurement("m:level", 1 / 3, "m", -15), Measurement("m:text", "堵", None, -7))),
        Entry(TELEMETRY, T0 + 3, (), (Measurement("m-2:level", -0.0, "m", 0, 1_763_888_888.25),)),
    ]  # fmt: skip
    for entry in entries:
        spool.append_all([entry])
    first = [at_gateway(one) for lane in Lane for one in spool.waiting(lane)]
    again = shelf.open(UNPACKED)
    second = [at_gateway(one, floor=1, sent_at=T0 + 99_999) for lane in Lane for one in held(again, lane)]
    assert [m.digest for m in first] == [m.digest for m in second]
    assert len({m.digest for m in first}) == 3
    assert [(m.spool, m.lane, m.seq, m.taken_at, m.signals, m.measurements) for m in first] == [
        (m.spool, m.lane, m.seq, m.taken_at, m.signals, m.measurements) for m in second
    ]
    assert first[0].signals[0].data == data


def test_waiting_goes_on_after_a_number_and_stops_at_the_limit(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([press(f"b{n}") for n in range(1, 8)])
    assert [one.seq for one in spool.waiting(ALARM, limit=3)] == [1, 2, 3]
    assert [one.seq for one in spool.waiting(ALARM, after_seq=3, limit=3)] == [4, 5, 6]
    assert spool.waiting(ALARM, after_seq=7) == []


def test_sends_are_counted_and_kept(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([press("b1"), press("b2")])
    spool.note_sent(ALARM, [1, 2])
    spool.note_sent(ALARM, [2])
    assert [one.sends for one in spool.waiting(ALARM)] == [1, 2]
    assert [one.sends for one in shelf.open().waiting(ALARM)] == [1, 2]


# --- receipts ---------------------------------------------------------------------------------------------------------


def test_a_receipt_takes_out_what_it_settles_and_says_what_that_was(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([press(f"b{n}") for n in range(1, 8)])
    done = spool.settle(receipt(spool, ALARM, 2, above=[4, 6], seq_5="bad-commit", seq_1="lane-mismatch"))
    assert buttons(done.committed) == ["b2", "b4", "b6"]
    assert [(one.seq, reason) for one, reason in done.rejected] == [(1, "lane-mismatch"), (5, "bad-commit")]
    assert not done.renewed
    assert buttons(spool.waiting(ALARM)) == ["b3", "b7"]
    assert spool.floor(ALARM) == 3
    assert spool.settle(receipt(spool, ALARM, 2, above=[4, 6])) == Settled()


def test_a_receipt_of_another_spool_or_lane_settles_nothing(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    spool.append_all([press("b1"), reading("t1:temp", 20)])
    strange = receipt(spool, ALARM, 1)
    assert spool.settle(type(strange)("alarm", "0123456789abcdef", 1)) == Settled()
    assert spool.settle(type(strange)("video", spool.id, 1)) == Settled()
    assert spool.settle(receipt(spool, TELEMETRY, 1)).committed[0].lane is TELEMETRY
    assert buttons(spool.waiting(ALARM)) == ["b1"]


def test_what_the_gateway_refuses_for_its_source_stays(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([press("b1")])
    assert spool.settle(receipt(spool, ALARM, 0, seq_1="too-many-spools")) == Settled()
    assert buttons(spool.waiting(ALARM)) == ["b1"]


def test_one_put_aside_is_kept_but_neither_sent_nor_waited_for(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([press("b1"), press("b2")])
    spool.park(ALARM, 1)
    assert buttons(spool.waiting(ALARM)) == ["b2"]
    assert spool.floor(ALARM) == 2
    # The floor had the gateway pass over it: that all up to 2 is settled says nothing of it.
    spool.settle(receipt(spool, ALARM, 2))
    assert spool.describe(ALARM) == LaneState(1, 1, 0, 2, 0, 0, 0)
    assert buttons(spool.settle(receipt(spool, ALARM, 2, seq_1="seq-odd")).rejected[0][:1]) == ["b1"]


def test_one_put_aside_that_the_gateway_never_had_takes_the_next_number(shelf: Shelf) -> None:
    spool, gateway = shelf.open(), Gateway()
    spool.append_all([press("b1"), press("b2"), press("b3")])
    spool.park(ALARM, 1)
    assert gateway.drain(spool) == 0
    assert (gateway.pressed, gateway.lost) == (["b2", "b3"], 1)
    [asked] = spool.parked(ALARM)
    spool.note_sent(ALARM, [asked.seq])
    done = spool.settle(gateway.receive(asked, spool.floor(ALARM)))
    assert done == Settled(), "it is neither gone nor a sign of a copy"
    assert [(one.seq, one.sends) for one in spool.waiting(ALARM)] == [(4, 0)]
    assert spool.describe(ALARM).parked == 0
    # The number is given out for good, also when the power goes now.
    spool = shelf.open()
    assert spool.append_all([press("b4")]) == [5]
    assert gateway.drain(spool) == 0
    assert gateway.pressed == ["b2", "b3", "b1", "b4"]


def test_those_put_aside_are_asked_for_by_turns(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([press(f"b{n}") for n in range(1, 4)])
    for seq in (1, 2, 3):
        spool.park(ALARM, seq)
    asked = []
    for _ in range(3):
        found = spool.parked(ALARM, limit=2)
        spool.note_sent(ALARM, [one.seq for one in found])
        asked.append(buttons(found))
    assert asked == [["b1", "b2"], ["b3", "b1"], ["b2", "b3"]]
    spool = shelf.open()
    spool.append_all([press("b4")])
    assert spool.parked(ALARM) == [], "numbers are in doubt after a start"
    spool.settle(receipt(spool, ALARM, 4))
    assert len(spool.parked(ALARM)) == 3


# --- repeats ----------------------------------------------------------------------------------------------------------


def test_the_same_alarm_again_within_a_second_is_one_with_a_count(shelf: Shelf) -> None:
    spool = shelf.open()
    assert spool.append_all([press("b1"), press("b1", T0 + 100), press("b2")]) == [1, 1, 2]
    shelf.steady.now = 999
    assert spool.append_all([press("b1", T0 + 999)]) == [1]
    content = at_gateway(spool.waiting(ALARM)[0]).digest
    assert spool.append_all([press("b1", T0 + 999)]) == [1]
    assert at_gateway(spool.waiting(ALARM)[0]).digest == content
    shelf.steady.now = 1000
    assert spool.append_all([press("b1", T0 + 1000)]) == [3]
    assert shelf.open().describe(ALARM).repeats == 3


def test_a_repeat_is_the_alarm_that_was_receipted_meanwhile(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([press("b1")])
    spool.settle(receipt(spool, ALARM, 1))
    assert spool.append_all([press("b1", T0 + 500)]) == [1]
    assert spool.waiting(ALARM) == []


@pytest.mark.parametrize(
    "other",
    [
        Entry(ALARM, T0, (Signal("b2", "pressed", {"keys": 1}),)),
        Entry(ALARM, T0, (Signal("b1", "released", {"keys": 1}),)),
        Entry(ALARM, T0, (Signal("b1", "pressed", {"keys": 2}),)),
        Entry(ALARM, T0, (Signal("b1", "pressed", {"keys": 1}),), (Measurement("b1:battery", 3),)),
        Entry(ALARM, T0 + 1000, (Signal("b1", "pressed", {"keys": 1}),)),
        Entry(ALARM, T0 - 1000, (Signal("b1", "pressed", {"keys": 1}),)),
    ],
    ids=["device", "kind", "data", "reading", "later", "a clock put back"],
)
def test_an_alarm_that_differs_is_another(shelf: Shelf, other: Entry) -> None:
    spool = shelf.open()
    assert spool.append_all([press("b1"), other]) == [1, 2]


# --- packs ------------------------------------------------------------------------------------------------------------


def test_readings_are_packed_for_a_time_and_each_keeps_its_own(shelf: Shelf) -> None:
    spool = shelf.open()
    spool.append_all([reading("t1:temp", 20.5, T0), reading("t2:temp", 21.5, T0 + 40)])
    shelf.steady.now = 4999
    spool.append_all([Entry(TELEMETRY, T0 + 4999, (), (Measurement("t3:temp", 22.5, "Cel", -300),))])
    assert spool.waiting(TELEMETRY) == []
    assert spool.depth(TELEMETRY) == 1
    shelf.steady.now = 5000
    [one] = spool.waiting(TELEMETRY)
    got = at_gateway(one)
    assert [(m.name, m.value, got.taken_at + m.offset) for m in got.measurements] == [
        ("t1:temp", 20.5, T0), ("t2:temp", 21.5, T0 + 40), ("t3:temp", 22.5, T0 + 4699),
    ]  # fmt: skip
    assert spool.depth(TELEMETRY) == 1


def test_a_pack_is_full_at_its_number_of_readings(shelf: Shelf) -> None:
    spool = shelf.open()
    for n in range(10):
        spool.append_all([pack(50, T0 + n)])
    assert [len(one.measurements) for one in spool.waiting(TELEMETRY)] == [200, 200]
    shelf.steady.now = 5000
    assert [len(one.measurements) for one in spool.waiting(TELEMETRY)] == [200, 200, 100]


def test_one_report_of_many_readings_is_split(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    spool.append_all([pack(450)])
    found = spool.waiting(TELEMETRY)
    assert [len(one.measurements) for one in found] == [200, 200, 50]
    assert [m for one in found for m in one.measurements] == list(pack(450).measurements)


def test_long_texts_close_a_pack_before_it_is_too_large_for_the_wire(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    text = "\x01" * 256
    for n in range(3):
        spool.append_all([Entry(TELEMETRY, T0 + n, (), tuple(Measurement(f"d{i}:note", text) for i in range(100)))])
    found = spool.waiting(TELEMETRY)
    assert sum(len(at_gateway(one).measurements) for one in found) == 300


def test_loose_readings_are_on_the_disk_before_they_are_packed(shelf: Shelf) -> None:
    shelf.open().append_all([reading("t1:temp", 20.5)])
    spool = shelf.open()
    assert spool.waiting(TELEMETRY) == []
    shelf.steady.now = 5000
    assert count_readings(spool.waiting(TELEMETRY)) == 1


def test_what_has_a_time_that_no_pack_can_tell_is_given_its_own(shelf: Shelf) -> None:
    spool = shelf.open()
    told = Measurement("t3:temp", 23.5, "Cel", 0, 1_763_000_000.5)
    spool.append_all(
        [
            reading("t1:temp", 20.5, T0 + 100),
            reading("t1:temp", 21.5, T0 + 50),  # The clock was put back.
            Entry(TELEMETRY, T0 + 60, (), (told,)),
            Entry(TELEMETRY, T0 + 70, (Signal("t4", "self_test"),)),
            reading("t1:temp", 24.5, T0 + 80),
            reading("t1:temp", 25.5, T0 + 80 + 86_400_001),  # The clock was put forward.
        ]
    )
    shelf.steady.now = 5000
    found = [at_gateway(one) for one in spool.waiting(TELEMETRY)]
    assert [one.taken_at - T0 for one in found] == [100, 50, 60, 70, 80, 86_400_081]
    assert found[2].measurements == [told]
    assert found[3].signals == (Signal("t4", "self_test"),)
    assert all(m.offset == 0 for one in found for m in one.measurements)


# --- content that is unfit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (Entry(TELEMETRY, T0, (), (Measurement("t1:note", "x" * 257),)), "binary-member"),
        (Entry(ALARM, T0, (Signal("b1", "pressed", {"note": "x" * 257}),)), "binary-member"),
        (Entry(ALARM, -1, (Signal("b1", "pressed"),)), "bad-time"),
        (Entry(ALARM, T0, (Signal("b1", "pressed", {"note": "\ud800"}),)), "bad-content"),
        (Entry(ALARM, T0, (Signal("b1", "pressed", {"n": 2**70}),)), "bad-content"),
        (Entry(ALARM, T0, (), tuple(Measurement(f"d{i}:v", i) for i in range(5000))), "bad-envelope"),
    ],
)
def test_content_that_the_gateway_could_not_read_is_not_taken_and_harms_nothing(
    shelf: Shelf, entry: Entry, reason: str
) -> None:
    spool = shelf.open(UNPACKED)
    with pytest.raises(Unfit) as caught:
        spool.append_all([press("b1"), entry])
    assert caught.value.reason == reason
    assert spool.append_all([press("b1")]) == [1]
    assert buttons(spool.waiting(ALARM)) == ["b1"]


def test_a_value_that_the_gateway_rejects_is_its_to_see(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    spool.append(TELEMETRY, T0, (), (Measurement("T1:temp", 20.5), Measurement("t2:temp", float("nan"))))
    assert len(spool.waiting(TELEMETRY)[0].measurements) == 2


# --- room and age -----------------------------------------------------------------------------------------------------


def test_telemetry_is_thinned_from_the_oldest_and_every_reading_counted(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    spool.append_all([press(f"b{n}") for n in range(200)])
    for n in range(400):
        spool.append_all([pack(100, T0 + n)])
    found = held(spool, TELEMETRY)
    state = spool.describe(TELEMETRY)
    assert state.dropped > 10_000
    assert count_readings(found) + state.dropped == 40_000
    assert [one.seq for one in found] == list(range(state.floor, 401))
    assert found[-1].taken_at == T0 + 399
    assert state.dropped_sent == 0
    assert len(held(spool, ALARM)) == 200
    assert size_of(shelf.path) <= UNPACKED.max_bytes
    assert shelf.open(UNPACKED).describe(TELEMETRY) == state
    assert size_of(shelf.path) <= UNPACKED.max_bytes


def test_what_was_sent_before_it_was_let_go_is_told_apart(shelf: Shelf) -> None:
    spool = shelf.open(Limits(max_bytes=2 * MIB, alarm_reserve_bytes=MIB, pack_ms=0, max_age_ms=1000))
    for n in range(3):
        spool.append_all([pack(10, T0 + n)])
    spool.note_sent(TELEMETRY, [1])
    shelf.steady.now = 1000
    spool.append_all([pack(10, T0 + 1000)])
    assert spool.describe(TELEMETRY) == LaneState(1, 0, 4, 4, 30, 10, 0)


def test_alarms_find_their_reserve_in_a_full_spool_and_nothing_of_them_goes(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    for n in range(300):
        spool.append_all([pack(100, T0 + n)])
    count = fill_with_alarms(spool)
    assert count > 5_000
    # All telemetry went before an alarm was refused; the refused ones left nothing behind.
    assert spool.depth(TELEMETRY) == 0
    assert spool.describe(TELEMETRY).dropped == 30_000
    assert buttons(held(spool, ALARM)) == [f"b{n}" for n in range(count)]
    assert size_of(shelf.path) <= UNPACKED.max_bytes
    # A reading beside them finds no room: it is counted, and in nobody's way.
    spool.append_all([pack(7)])
    assert spool.describe(TELEMETRY).dropped == 30_007

    spool.settle(receipt(spool, ALARM, count - 100))
    assert spool.append_all([press("again")]) == [count + 1]
    spool.append_all([pack(7)])
    assert count_readings(held(spool, TELEMETRY)) == 7


def test_a_lane_drained_gives_its_room_back(shelf: Shelf) -> None:
    spool = shelf.open(UNPACKED)
    for turn in range(5):
        for n in range(150):
            spool.append_all([pack(100, T0 + n)])
        kept = held(spool, TELEMETRY)
        assert len(kept) > 100
        assert kept[-1].seq == 150 * (turn + 1)
        spool.settle(receipt(spool, TELEMETRY, kept[-1].seq))
    assert size_of(shelf.path) <= UNPACKED.max_bytes


def test_age_is_judged_by_running_time_and_no_clock_that_jumps(shelf: Shelf) -> None:
    year = 366 * 86_400_000
    day = Limits(max_bytes=2 * MIB, alarm_reserve_bytes=MIB, pack_ms=0, max_age_ms=86_400_000)
    spool = shelf.open(day)
    spool.append_all([pack(10, T0)])
    spool.append_all([pack(10, T0 + 20 * year)])
    spool.append_all([pack(10, 0)])
    shelf.steady.now = 40_000_000
    spool.append_all([press("b1", 0), pack(10, T0 + 40 * year)])
    assert [one.seq for one in held(spool, TELEMETRY)] == [1, 2, 3, 4]

    # The machine was off: its steady clock begins anew, and what was kept has not aged since the last taking in.
    shelf.steady.now = 5
    spool = shelf.open(day)
    shelf.steady.now = 5 + 86_400_000 - 40_000_000
    spool.append_all([pack(10, T0)])
    assert spool.describe(TELEMETRY) == LaneState(2, 0, 4, 5, 30, 0, 0)
    shelf.steady.now += 86_400_000
    spool.append_all([pack(10, T0)])
    # An alarm has no age.
    assert spool.describe(TELEMETRY).dropped == 50
    assert buttons(held(spool, ALARM)) == ["b1"]


# --- what a person must mend ------------------------------------------------------------------------------------------


def test_two_agents_cannot_have_one_spool(shelf: Shelf) -> None:
    spool = shelf.open()
    with pytest.raises(GatewayError) as caught:
        Spool(shelf.path, SMALL, shelf.steady)
    assert caught.value.code == "spool-in-use"
    assert str(shelf.path) in str(caught.value)
    assert spool.append_all([press("b1")]) == [1]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GatewayError) as caught:
        Spool(tmp_path / "nowhere" / "spool.db", SMALL, Steady())
    assert caught.value.code == "spool-unusable"
    assert "nowhere" in str(caught.value)


def test_a_newer_agents_spool_is_left_alone(shelf: Shelf) -> None:
    shelf.open().append_all([press("b1")])
    shelf.close()
    db = sqlite3.connect(shelf.path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(GatewayError) as caught:
        shelf.open()
    assert caught.value.code == "spool-newer"
    assert [path.name for path in shelf.path.parent.iterdir()] == ["spool.db"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": 2 * MIB - 1},
        {"alarm_reserve_bytes": MIB - 1},
        {"alarm_reserve_bytes": 33 * MIB},
        {"max_age_ms": 0},
        {"pack_ms": -1},
        {"pack_readings": 0},
        {"pack_readings": 1001},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


def test_a_spool_that_is_closed_opens_again(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    spool = shelf.open()
    spool.append_all([press("b1")])
    spool.close()
    assert buttons(spool.waiting(ALARM)) == ["b1"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
