"""What is counted of incidents, held against cases that are worked out by hand; and laws of the sums."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from typer.testing import CliRunner

from gateway.adapters.ledger import SqlLedger, open_ledger
from gateway.cli import app, parse_end
from gateway.core.model import (
    DeviceState,
    Grid,
    GridLevel,
    Incident,
    OperatorAction,
    Responsible,
    Sort,
    Step,
    Whistle,
)
from gateway.core.moves import GATEWAY, VERBS
from gateway.errors import GatewayError
from gateway.runtime.appraisal import (
    NONE,
    Appraisal,
    By,
    Every,
    Figures,
    Names,
    Question,
    StepFigures,
    appraise,
    find_percentile,
    follow,
    name_period,
)
from gateway.runtime.appraising import appraise_ledger, read_opened, render_csv
from gateway.runtime.district_tables import guard
from tests.core.worlds import COMMUNITY, DEVICES, START, real_catalog, with_state
from tests.ports.ledger_conformance import Hand
from tests.runtime.cases import D, Desk, H, M, S, at

BASE, TOWN, DISTRICT = "370215001001001", "370215001", "370215"
LEVELS = {DISTRICT: GridLevel.DISTRICT, TOWN: GridLevel.TOWN, BASE: GridLevel.BASE}
BODIES = {("property", BASE): "物业（模拟）", ("street", TOWN): "镇街（模拟）"}
NAMES = Names({TOWN: "环秀街道"}, {"property": "物业服务人"}, BODIES, LEVELS)
ALWAYS = Question(By.COMMUNITY, 0, 2**50)


def ask(incidents: Iterable[Incident], by: By = By.COMMUNITY, now: int = START, **more: Any) -> Appraisal:
    return appraise(incidents, replace(ALWAYS, by=by, **more), NAMES, now)


def total(*incidents: Incident, now: int = START) -> Figures:
    return ask(incidents, now=now).total


def rows(appraisal: Appraisal) -> dict[str, Figures]:
    return {row.key: row for row in appraisal.rows}


def steps(*incidents: Incident) -> dict[str, tuple[int, int]]:
    """Step → (number, in time)."""
    return {name: (step.number, step.in_time) for name, step in total(*incidents).by_step.items()}


# --- response and closing -----------------------------------------------------------------------------------------


def test_what_is_simulated_counts_where_it_is_asked_for() -> None:
    desk = Desk()
    case = desk.press()
    simulated = replace(case, id="simulated", simulated=True)
    assert ask([case, simulated]).total.number == 1
    assert ask([case, simulated], simulated=True).total.number == 2


def test_a_case_from_the_press_to_the_end_in_time() -> None:
    # 特急: called back within 1 min, dispatched within 3, on site within 15, settled within 2 h, checked within 4 h.
    desk = Desk()
    case = desk.press()
    desk.act(case, 0.5, "call_back")
    desk.act(case, 2, "dispatch")
    desk.act(case, 12, "arrive")
    desk.act(case, 40, "resolve")
    desk.act(case, 100, "verify")
    closed = desk.act(case, 130, "close")
    found = total(closed)
    assert (found.number, found.open, found.closed, found.in_time, found.in_time_rate) == (1, 0, 1, 1, 1.0)
    # The response is from the opening to the first act of a person: 30 s; the closing is at 2 h 10 min.
    assert (found.response_median_ms, found.response_p90_ms) == (30 * S, 30 * S)
    assert (found.closing_median_ms, found.closing_p90_ms) == (2 * H + 10 * M, 2 * H + 10 * M)
    assert steps(closed) == dict.fromkeys(("call_back", "dispatch", "arrive", "resolve", "verify", "close"), (1, 1))
    assert (found.steps, found.steps_in_time, found.steps_in_time_rate) == (6, 6, 1.0)
    # A resident's opinion, three days later, changes none of it.
    assert total(desk.act(case, 3 * 24 * 60, "rate")) == found


def test_the_gateway_that_dispatches_by_itself_is_no_response_and_the_call_back_is_late() -> None:
    desk = Desk()
    case = desk.press()
    desk.wait(4)  # nobody calls back within the minute: dispatched at 1 min, on site by 16 min
    assert desk.get(case).state == "dispatched"
    assert total(desk.get(case)).responded == 0
    desk.act(case, 5, "accept")
    arrived = desk.act(case, 15.9, "arrive")
    assert total(arrived).response_median_ms == 5 * M
    assert steps(arrived) == {"call_back": (1, 0), "arrive": (1, 1)}
    desk.act(case, 20, "resolve", "verify", "close")
    # One late step makes the case late, though it was closed long before any other date.
    assert total(desk.get(case)).in_time_rate == 0.0


@pytest.mark.parametrize(("minute", "in_time"), [(17, 1), (17 + 1 / 60_000, 0), (30, 0)])
def test_a_step_is_late_from_the_millisecond_after_its_date(minute: float, in_time: int) -> None:
    desk = Desk()
    case = desk.press()
    desk.act(case, 0.5, "call_back")
    desk.act(case, 2, "dispatch")
    assert steps(desk.act(case, minute, "arrive"))["arrive"] == (1, in_time)


@pytest.mark.parametrize(("accepted", "in_time"), [("2026-11-23 09:40", 1), ("2026-11-23 09:41", 0)])
def test_working_hours_across_a_weekend(accepted: str, in_time: int) -> None:
    # A plant room is too hot for ten minutes on Friday at 16:30; opened at 16:40, 一般: accepted within 1 working hour,
    # which is 20 min on Friday up to 17:00 and 40 min on Monday from 09:00.
    friday = at("2026-11-20 16:30")
    desk = Desk(friday)
    desk.feed(desk.sender.send(friday, {"room-1:temperature": 60.0}), friday)
    desk.wait(11)
    [case] = desk.engine.open_incidents()
    desk.act(case, (at(accepted) - friday) / M, "accept")
    found = total(desk.get(case))
    assert found.by_step["accept"] == StepFigures(1, in_time)
    # A response time counts every hour of the clock: to Monday 09:40 it is 3 days less 7 h.
    assert found.response_median_ms == at(accepted) - at("2026-11-20 16:40")
    assert at("2026-11-23 09:40") - at("2026-11-20 16:40") == 3 * D - 7 * H


def test_percentiles_are_by_nearest_rank() -> None:
    # Of 10 values the median is the 5th, 90 % is the 9th; of 11 they are the 6th and the 10th (9.9 rounded up).
    assert [find_percentile(range(10, 0, -1), percent) for percent in (50, 90)] == [5, 9]
    assert [find_percentile(range(1, 12), percent) for percent in (50, 90)] == [6, 10]
    assert [find_percentile([7], percent) for percent in (1, 50, 90, 100)] == [7, 7, 7, 7]
    assert find_percentile([], 50) is None
    # And of cases: responses of 10, 60 and 20 s.
    desk = Desk()
    cases = []
    for begins, takes in ((0, 10), (20, 60), (40, 20)):
        case = desk.press(begins)
        desk.act(case, begins + takes / 60, "accept")
        cases.append(desk.act(case, begins + 5, "dispatch", "arrive"))  # whoever presses now begins another case
    found = total(*cases)
    assert (found.responded, found.response_median_ms, found.response_p90_ms) == (3, 20 * S, 60 * S)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[int], percent: int) -> None:
    found = find_percentile(values, percent)
    assert found in values
    least = Fraction(percent, 100) * len(values)
    assert sum(value <= found for value in values) >= least
    assert all(sum(value <= lower for value in values) < least for lower in values if lower < found)


# --- dates that change --------------------------------------------------------------------------------------------


def arriving(desk: Desk) -> Incident:
    """Accepted and dispatched at 0 min, so that somebody must be on site by 15 min."""
    return desk.act(desk.press(), 0, "accept", "dispatch")


@pytest.mark.parametrize(
    ("asked", "decided", "decision", "in_time"),
    [
        (10, 12, "grant_extension", 1),  # asked for and granted before the date
        (10, 20, "grant_extension", 1),  # asked for before it; that the decision took long is not the worker's fault
        (16, 20, "grant_extension", 0),  # asked for when it was red already: the mark stays
        (10, 20, "refuse_extension", 0),  # refused: the first date holds
        (10, None, "", 0),  # nobody decided: the first date holds
    ],
)
def test_an_extension_moves_the_date_of_a_step(
    asked: float, decided: float | None, decision: str, in_time: int
) -> None:
    desk = Desk()
    case = arriving(desk)
    desk.act(case, asked, "ask_extension", until=START + 60 * M)
    if decided is not None:
        desk.act(case, decided, decision, who="li")
    arrived = desk.act(case, 59, "arrive")
    assert steps(arrived)["arrive"] == (1, in_time)
    assert total(arrived).extended == (decision == "grant_extension")
    assert total(desk.act(case, 60, "resolve", "verify", "close")).in_time == in_time


def test_beyond_the_extended_date_it_is_late_all_the_same() -> None:
    desk = Desk()
    case = arriving(desk)
    desk.act(case, 10, "ask_extension", until=START + 60 * M)
    desk.act(case, 12, "grant_extension", who="li")
    assert steps(desk.act(case, 61, "arrive"))["arrive"] == (1, 0)


def test_what_is_parked_is_not_late_and_its_step_has_its_whole_time_again() -> None:
    desk = Desk()
    case = arriving(desk)
    desk.act(case, 10, "park", until=START + 2 * D)
    desk.wait(24 * 60)
    assert total(desk.get(case), now=START + D).overdue == 0
    # Taken up by itself after two days: on site within 15 min again.
    arrived = desk.act(case, 2 * 24 * 60 + 14, "arrive")
    assert steps(arrived) == {"call_back": (1, 1), "dispatch": (1, 1), "arrive": (1, 1)}


def test_a_step_that_ends_while_it_is_parked_was_neither_in_time_nor_late() -> None:
    desk = Desk()
    case = arriving(desk)
    desk.act(case, 10, "park", until=START + 2 * D)
    assert steps(desk.act(case, 60, "false_alarm")) == {"call_back": (1, 1), "dispatch": (1, 1)}
    assert total(desk.get(case)).in_time == 1
    # Parked when it was red already, it was late.
    other = desk.act(desk.press(60, "sos-2"), 60, "accept", "dispatch")
    desk.act(other, 80, "park", until=START + 2 * D)
    assert steps(desk.act(other, 90, "false_alarm"))["arrive"] == (1, 0)


# --- returned, whistled, false, merged, reopened ------------------------------------------------------------------


def test_returned_twice_is_one_case_and_two_returns_and_each_body_answers_for_its_own_steps() -> None:
    desk = Desk()
    case = desk.act(desk.press(), 0, "accept")
    desk.act(case, 1, "dispatch", body="property")
    desk.act(case, 20, "return")  # by 16 min somebody of the property manager's had to be there: late
    desk.act(case, 22, "return")  # the grid centre, in time
    desk.act(case, 30, "arrive")  # the street office, in time
    closed = desk.act(case, 40, "resolve", "verify", "close")
    found = total(closed)
    assert (found.returned, found.returns, found.in_time) == (1, 2, 0)
    assert found.by_step["arrive"] == StepFigures(3, 2)
    [row] = ask([closed], By.BODY).rows
    assert (row.key, row.name, row.returns) == (f"street@{TOWN}", "镇街（模拟）", 2)
    assert row.by_step == {"arrive": StepFigures(1, 1), "resolve": StepFigures(1, 1)}


def test_sent_to_another_body_by_the_desk_is_no_return() -> None:
    desk = Desk()
    case = desk.act(desk.press(), 0, "accept")
    desk.act(case, 1, "dispatch", body="property")
    desk.act(case, 20, "dispatch", body="street")
    arrived = desk.act(case, 30, "arrive")
    assert (total(arrived).returned, steps(arrived)["arrive"]) == (0, (2, 1))
    assert rows(ask([arrived], By.BODY))[f"street@{TOWN}"].by_step == {"arrive": StepFigures(1, 1)}


@pytest.mark.parametrize(
    ("minute", "answered", "in_time", "rate"),
    [(10, 1, 1, 1.0), (14, 1, 0, 0.0), (None, 0, 0, 0.0)],
)
def test_a_whistle_is_answered_within_ten_minutes_or_late(
    minute: float | None, answered: int, in_time: int, rate: float
) -> None:
    desk = Desk()
    case = arriving(desk)
    desk.act(case, 1, "whistle")  # the town must report in by 11 min
    if minute is not None:
        desk.act(case, minute, "report_in", grid=TOWN)
    desk.wait(14.5)
    found = total(desk.get(case))
    assert (found.whistles, found.whistles_answered, found.whistles_in_time) == (1, answered, in_time)
    assert found.whistles_in_time_rate == rate
    # A whistle that was late makes the case late, whatever else was in time.
    assert total(desk.act(case, 14.6, "arrive", "resolve", "verify", "close")).in_time == in_time
    # It is the town's whistle: the base grid that blew it did not have to answer, and the district was not called.
    by_grid = rows(ask([desk.get(case)], By.GRID))
    assert {key: row.whistles for key, row in by_grid.items()} == {DISTRICT: 1, TOWN: 1, BASE: 0}


def test_a_whistle_that_can_still_be_answered_is_in_no_rate() -> None:
    desk = Desk()
    found = total(desk.act(arriving(desk), 1, "whistle"))
    assert (found.whistles, found.whistles_answered, found.whistles_in_time_rate) == (1, 0, None)


@pytest.mark.parametrize(("minute", "in_time"), [(14, 1), (18, 0)])
def test_a_whistle_does_not_stop_the_clock_of_the_step_behind_it(minute: float, in_time: int) -> None:
    # On site by 15 min. A whistle stands in front, so that the clock marks nothing red; the date holds all the same.
    desk = Desk()
    case = arriving(desk)
    desk.act(case, 12, "whistle")
    open_case = desk.get(case)
    assert [total(open_case, now=START + now * M).overdue for now in (14, 16)] == [0, 1]
    arrived = desk.act(case, minute, "arrive")
    assert not [line for line in arrived.timeline if line.what == "overdue"]
    assert steps(arrived)["arrive"] == (1, in_time)


def test_a_step_keeps_its_date_when_a_higher_grid_takes_it() -> None:
    desk = Desk()
    case = arriving(desk)
    desk.act(case, 10, "whistle")
    desk.act(case, 16, "report_in", grid=TOWN)
    # Nothing is marked before the first reminder at 21 min, but 18 is later than 15.
    assert steps(desk.act(case, 18, "arrive"))["arrive"] == (1, 0)


def test_false_alarms_have_their_rate_by_rule_and_by_device_and_no_closing_time() -> None:
    desk = Desk()
    false = desk.press(0, "sos-1")
    desk.act(false, 0.5, "false_alarm")
    true = desk.press(30, "sos-1")
    desk.act(true, 30, "accept", "dispatch", "arrive", "resolve", "verify", "close")
    cancelled = desk.press(60, "sos-2")
    desk.act(cancelled, 60.5, "cancel")
    still_open = desk.press(90, "sos-2")
    cases = [desk.get(case) for case in (false, true, cancelled, still_open)]
    found = total(*cases)
    # Of 4, 3 have ended and 2 of these were false: 2/3. One was closed, at once.
    assert (found.false_alarms, found.false_alarm_rate, found.closed, found.closing_p90_ms) == (2, 0.6667, 1, 0)
    by_device = rows(ask(cases, By.DEVICE))
    assert {key: (row.number, row.false_alarm_rate) for key, row in by_device.items()} == {
        "c001/sos-1": (2, 0.5),
        "c001/sos-2": (2, 1.0),
    }
    [by_rule] = ask(cases, By.RULE).rows
    assert (by_rule.key, by_rule.number, by_rule.false_alarm_rate) == (cases[0].rule, 4, 0.6667)


def test_every_rule_and_device_that_had_a_part_stands_for_the_case_and_the_total_counts_it_once() -> None:
    desk = Desk()
    case = desk.press()
    line = case.timeline[0]
    both = replace(
        case,
        devices=("sos-1", "smoke-1"),
        timeline=(*case.timeline, replace(line, seq=99, what="joined", rule="fire.smoke-persists")),
    )
    by_rule = ask([both], By.RULE)
    assert sorted(rows(by_rule)) == sorted([case.rule, "fire.smoke-persists"])
    assert (by_rule.total.number, ask([both], By.DEVICE).total.number) == (1, 1)


def test_what_was_merged_goes_on_elsewhere() -> None:
    desk = Desk()
    case, into = desk.press(0, "sos-1"), desk.press(0, "sos-2")
    desk.act(case, 0.5, "merge", into=into.id)
    found = total(desk.get(case), desk.get(into))
    assert (found.number, found.merged, found.open, found.closed, found.false_alarm_rate) == (2, 1, 1, 0, None)
    assert (found.in_time_rate, found.closing_median_ms) == (None, None)


def test_a_reopened_case_is_open_again_and_closes_at_its_last_end() -> None:
    desk = Desk()
    case = desk.press()
    desk.act(case, 0.5, "accept", "dispatch", "arrive", "resolve", "verify", "close")
    open_again = desk.act(case, 60, "reopen")
    assert (total(open_again).reopened, total(open_again).open, total(open_again).closed) == (1, 1, 0)
    desk.act(case, 64, "dispatch")  # by 63 min: late
    closed = desk.act(case, 70, "arrive", "resolve", "verify", "close")
    found = total(closed)
    assert (found.reopened, found.closed, found.closing_median_ms, found.in_time) == (1, 1, 70 * M, 0)
    assert (found.by_step["dispatch"], found.by_step["arrive"]) == (StepFigures(2, 1), StepFigures(2, 2))
    assert found.response_median_ms == 30 * S


# --- what is not counted, and what is open ------------------------------------------------------------------------


def test_drills_and_tests_open_nothing_and_notices_are_not_counted() -> None:
    desk = Desk()
    for state in (DeviceState.DRILL, DeviceState.COMMISSIONING, DeviceState.MAINTENANCE):
        desk.feed(with_state("sos-1", state), START)
        step = desk.feed(desk.sender.send(START, signals=[("sos-1", "pressed")]), START)
        assert not step.incidents
    notice = replace(desk.press(1, "sos-2"), sort=Sort.NOTICE)
    assert ask([notice]) == Appraisal([], total())


def test_what_is_open_is_overdue_from_its_date_on() -> None:
    desk = Desk()
    case = arriving(desk)  # on site by 15 min
    assert [total(case, now=START + minute * M).overdue for minute in (0, 15, 16)] == [0, 0, 1]
    # The step that is awaited is in no rate, until it is red.
    assert steps(case) == {"call_back": (1, 1), "dispatch": (1, 1)}
    desk.wait(16)
    assert steps(desk.get(case))["arrive"] == (1, 0)
    # A closed one waits for the resident's opinion only, which is nobody's duty.
    closed = desk.act(case, 16, "arrive", "resolve", "verify", "close")
    assert total(closed, now=START + 30 * D).overdue == 0


# --- rows and periods ---------------------------------------------------------------------------------------------


def test_the_period_is_that_of_the_opening() -> None:
    case = Desk().press()
    inside = ask([case], since=START, until=START + 1)
    assert inside.total.number == 1
    assert ask([case], since=START + 1).total.number == ask([case], until=START).total.number == 0


def test_periods_are_local_days_weeks_from_monday_and_months() -> None:
    midnight = at("2026-12-01 00:00")
    assert [name_period(midnight + ms, Every.DAY) for ms in (-1, 0)] == ["2026-11-30", "2026-12-01"]
    assert [name_period(midnight + ms, Every.MONTH) for ms in (-1, 0)] == ["2026-11", "2026-12"]
    # 2026-11-30 is a Monday. New Year's Day of 2027 is a Friday, of the week that began on 28 December.
    assert [name_period(midnight - D + ms, Every.WEEK) for ms in (-1, 0)] == ["2026-W48", "2026-W49"]
    assert name_period(at("2027-01-01 12:00"), Every.WEEK) == "2026-W53"
    assert name_period(midnight, None) == ""
    case = Desk().press()
    later = replace(case, opened_at=midnight)
    found = ask([later, case, case], every=Every.MONTH)
    assert [(row.period, row.key, row.number) for row in found.rows] == [("2026-11", "c001", 2), ("2026-12", "c001", 1)]
    assert (found.total.period, found.total.number) == ("", 3)


def test_a_day_that_ends_a_period_counts_as_a_whole() -> None:
    assert parse_end("2026-11-30") == at("2026-12-01 00:00")
    assert parse_end("2026-11-30T08:00") == at("2026-11-30 08:00")


def test_grids_are_rows_from_the_district_down_or_of_one_level() -> None:
    case = Desk().press()
    nowhere = replace(case, grid="", chain=())
    assert [row.key for row in ask([nowhere, case], By.GRID).rows] == [DISTRICT, TOWN, BASE, NONE]
    of_towns = ask([nowhere, case], By.GRID, level=GridLevel.TOWN)
    assert [(row.key, row.name, row.number) for row in of_towns.rows] == [(TOWN, "环秀街道", 1), (NONE, "未定 none", 1)]
    below = ask([nowhere, case], By.GRID, grid=TOWN)
    assert ([row.key for row in below.rows], below.total.number) == ([TOWN, BASE], 1)
    assert ask([case], By.GRID, grid="370299").rows == []


def test_a_body_is_that_of_the_nearest_grid_that_has_one() -> None:
    case = Desk().press()
    found = [ask([replace(case, body=body)], By.BODY).rows[0] for body in ("property", "street", "gardens", "")]
    assert [(row.key, row.name) for row in found] == [
        (f"property@{BASE}", "物业（模拟）"),
        (f"street@{TOWN}", "镇街（模拟）"),
        ("gardens", ""),
        (NONE, "未定 none"),
    ]


# --- laws ---------------------------------------------------------------------------------------------------------

PLAYS = st.lists(
    st.tuples(st.sampled_from([*VERBS, "tick"]), st.sampled_from([0, S, M, 20 * M, 5 * H, 2 * D])),
    max_size=25,
)


def play(acts: Sequence[tuple[str, int]]) -> list[Incident]:
    """Two presses, and what people do to the first of them."""
    desk = Desk()
    first, second = desk.press(0, "sos-1"), desk.press(0, "sos-2")
    minute = 0.0
    for number, (verb, wait) in enumerate(acts):
        minute += wait / M
        now = desk.wait(minute)
        actor, until = f"actor{number % 3}", now + D
        action = OperatorAction(f"a{number}", actor, first.id, verb, "因为", until=until, into=second.id, score=3)
        desk.feed(action, now)
    found = [desk.engine.incident(case.id) for case in (first, second)]
    return [incident for incident in found if incident is not None]


UNMARKED = ("whistle", "report_in", "park", "resume", "ask_extension", "grant_extension", "refuse_extension")


@given(PLAYS)
@settings(max_examples=60)
def test_each_case_stands_in_one_place_and_no_more_is_in_time_than_there_is(acts: list[tuple[str, int]]) -> None:
    for incident in play(acts):
        found = total(incident, now=incident.updated_at)
        assert found.open + found.closed + found.false_alarms + found.merged == found.number == 1
        assert found.overdue <= found.open
        assert found.in_time <= found.closed + found.false_alarms
        assert found.whistles_in_time <= found.whistles_answered <= found.whistles == len(incident.whistles)
        assert found.whistles_answered == sum(whistle.reported_at is not None for whistle in incident.whistles)
        assert all(step.in_time <= step.number for step in found.by_step.values())
        assert found.responded == (incident.accepted_at is not None)


@given(PLAYS)
@settings(max_examples=60)
def test_where_the_clock_sees_every_step_the_dates_and_the_red_marks_say_the_same(acts: list[tuple[str, int]]) -> None:
    for incident in play([(verb, wait) for verb, wait in acts if verb not in UNMARKED]):
        track = follow(incident)
        marked = sum(line.what == "overdue" for line in incident.timeline)
        unanswered = sum(line.what == "dispatch" and line.who == GATEWAY for line in incident.timeline)
        assert sum(step.is_late for step in track.steps) == marked + unanswered


@cache
def corpus() -> tuple[Incident, ...]:
    """Cases of every ending, whistled, returned and parked ones among them."""
    desk = Desk()
    found: list[Incident] = []
    stories: tuple[tuple[str, ...], ...] = (
        ("accept", "dispatch", "arrive", "resolve", "verify", "close"),
        ("accept", "dispatch", "return", "return", "arrive"),
        ("false_alarm",),
        ("accept", "whistle", "report_in", "dispatch"),
        ("accept", "park"),
        (),
        ("call_back", "dispatch", "arrive", "resolve", "verify", "close", "reopen"),
    )
    for number, story in enumerate(stories):
        begins = 60 * number
        case = desk.press(begins, "sos-1" if number % 2 else "sos-2")
        for minute, verb in enumerate(story):
            desk.act(case, begins + 3 * minute, verb, until=START + 30 * D)
        found.append(desk.get(case))
    return tuple(found)


CASES = st.lists(
    st.builds(
        lambda case, community, category, chain, days: replace(
            case,
            community=community,
            category=category,
            chain=chain,
            whistles=tuple(Whistle(chain[0], w.at, w.actor, w.reported_at) for w in case.whistles) if chain else (),
            opened_at=case.opened_at + days * D,
        ),
        st.deferred(lambda: st.sampled_from(corpus())),
        st.sampled_from(["c001", "c002"]),
        st.sampled_from(["ext:21-01", "ext:21-03"]),
        st.sampled_from([(DISTRICT, TOWN, BASE), (DISTRICT, TOWN), ()]),
        st.integers(0, 40),
    ),
    max_size=12,
)

COUNTS = tuple(
    name
    for name in Figures.__struct_fields__
    if name not in ("period", "key", "name", "by_step") and not name.endswith(("_ms", "_rate"))
)


def counted(figures: Iterable[Figures]) -> Counter[str]:
    """The sum of every count, and of each step's."""
    found: Counter[str] = Counter()
    for row in figures:
        found.update({name: getattr(row, name) for name in COUNTS})
        for name, step in row.by_step.items():
            found.update({f"{name} number": step.number, f"{name} in time": step.in_time})
    return +found


@given(CASES, st.sampled_from([None, *Every]))
@settings(max_examples=60)
def test_over_communities_categories_and_periods_every_count_adds_up(
    cases: list[Incident], every: Every | None
) -> None:
    for by in (By.COMMUNITY, By.CATEGORY):
        found = ask(cases, by, every=every)
        assert counted(found.rows) == counted([found.total])
    halves = [ask(cases, until=START + 20 * D).total, ask(cases, since=START + 20 * D).total]
    assert counted(halves) == counted([ask(cases).total])


@given(CASES, st.sampled_from(list(GridLevel)))
@settings(max_examples=60)
def test_over_the_grids_of_a_level_the_cases_add_up(cases: list[Incident], level: GridLevel) -> None:
    found = ask(cases, By.GRID, level=level)
    for name in ("number", "open", "closed", "false_alarms", "merged", "in_time", "steps", "responded", "returns"):
        assert sum(getattr(row, name) for row in found.rows) == getattr(found.total, name)


@given(CASES, st.randoms(use_true_random=False), st.sampled_from(list(By)))
@settings(max_examples=60)
def test_the_order_in_which_incidents_are_read_changes_nothing(cases: list[Incident], random: Any, by: By) -> None:
    shuffled = random.sample(cases, len(cases))
    assert ask(shuffled, by, every=Every.MONTH) == ask(cases, by, every=Every.MONTH)


# --- CSV ----------------------------------------------------------------------------------------------------------


def test_no_cell_of_the_table_is_a_formula() -> None:
    wicked = ["=1+1", "+8613", "-2", "@SUM(A1)", "'=1", "＝1", "环秀街道", "c001", "", "'quoted"]
    assert [guard(text) for text in wicked] == [
        "'=1+1",
        "'+8613",
        "'-2",
        "'@SUM(A1)",
        "''=1",
        "'＝1",
        "环秀街道",
        "c001",
        "",
        "'quoted",
    ]
    case = replace(Desk().press(), community='=HYPERLINK("x")')
    head, row, _ = list(csv.reader(io.StringIO(render_csv(ask([case])))))
    assert row[1] == '\'=HYPERLINK("x")'
    assert len(head) == len(row)
    assert not [cell for cell in row if cell[:1] in "=+-@" and cell]


# --- in a ledger --------------------------------------------------------------------------------------------------

GRIDS = (
    Grid(DISTRICT, GridLevel.DISTRICT, "即墨区"),
    Grid(TOWN, GridLevel.TOWN, "=环秀街道", DISTRICT),
    Grid(BASE, GridLevel.BASE, "第一网格", TOWN),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("database_url"))
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[SqlLedger]:
    """A migrated ledger that knows the small community and its grids."""
    opened = open_ledger(ledger_url)
    opened.migrate()
    opened.add_communities([COMMUNITY])
    opened.put_district(GRIDS, [Responsible("street", TOWN, "镇街（模拟）")], ())
    yield opened
    opened.close()


def run_cli(url: str, folder: Path, *arguments: str, exit_code: int = 0) -> bytes:
    environment = {"SCG_LEDGER__URL": url, "SCG_DATA": str(folder / "data")}
    done = CliRunner().invoke(app, ["appraise", *arguments], env=environment)
    assert done.exit_code == exit_code, done.output
    return done.stdout_bytes


def test_an_evening_from_the_engine_through_the_ledger_to_both_forms(
    ledger: SqlLedger, ledger_url: str, tmp_path: Path
) -> None:
    desk = evening()
    hand = Hand(ledger)
    hand.step(Step(devices=DEVICES))
    for step in desk.steps:
        hand.step(step)

    period = ("--from", "2026-11-23", "--to", "2026-11-23")
    found = json.loads(run_cli(ledger_url, tmp_path, "--by", "grid", "--level", "town", *period))
    assert (found["by"], found["from"], found["to"]) == (
        "grid",
        "2026-11-23T00:00:00+08:00",
        "2026-11-24T00:00:00+08:00",
    )
    [row] = found["rows"]
    assert (row["key"], row["name"], row["number"], row["whistles"]) == (TOWN, "=环秀街道", 4, 1)
    assert row | {"key": "total", "name": "合计 total"} == found["total"]
    example = ask(evening().cases(), By.GRID, now=at("2026-11-23 23:00")).total
    for name in COUNTS:
        assert found["total"][name] == getattr(example, name), name
    table = run_cli(ledger_url, tmp_path, "--by", "grid", "--every", "month", "--format", "csv", *period)
    assert table.startswith(b"\xef\xbb\xbf")
    lines = list(csv.DictReader(io.StringIO(table.decode("utf-8-sig"))))
    assert [(line["周期 period"], line["编码 key"], line["名称 name"], line["件数 number"]) for line in lines] == [
        ("2026-11", DISTRICT, "即墨区", "4"),
        ("2026-11", TOWN, "'=环秀街道", "4"),
        ("2026-11", BASE, "第一网格", "4"),
        ("", "total", "合计 total", "4"),
    ]
    assert lines[0]["误报率 false-alarm rate"] == "33.3%"
    assert lines[0]["响应90%（分钟） response 90 %, min"] == "5.00"
    assert (lines[0]["回拨核实 call_back"], lines[0]["回拨核实按时 call_back"]) == ("4", "3")
    keys = {
        By.DEVICE: ["c001/sos-1", "c001/sos-2"],
        By.RULE: [desk.cases()[0].rule],
        By.COMMUNITY: ["c001"],
        By.CATEGORY: ["ext:21-03"],
        By.BODY: ["grid-centre"],
    }
    for by, expected in keys.items():
        rows_of = appraise_ledger(ledger, real_catalog(), replace(ALWAYS, by=by), START).rows
        assert [row.key for row in rows_of] == expected
        assert all(row.name for row in rows_of if by is not By.DEVICE)
    nobody = run_cli(ledger_url, tmp_path, "--by", "grid", "--from", "2026-11-24", "--to", "2026-11-24")
    assert json.loads(nobody)["rows"] == []


def test_incidents_are_read_page_by_page_each_once(ledger: SqlLedger) -> None:
    first = Desk().press()
    cases = [
        replace(first, id=f"{number:03d}", number=str(number), key=str(number), opened_at=START + number // 4)
        for number in range(10)
    ]
    Hand(ledger).step(Step(incidents=tuple(reversed(cases))))
    for page in (1, 2, 3, 10, 500):
        assert list(read_opened(ledger, START, START + 2, page)) == cases[:8]


def test_what_is_asked_wrongly_is_said(ledger: SqlLedger, ledger_url: str, tmp_path: Path) -> None:
    period = ("--from", "2026-11-23", "--to", "2026-11-23")
    for arguments in (
        ("--by", "moon", *period),
        ("--by", "body", "--level", "town", *period),
        ("--by", "body", "--from", "2026-11-24", "--to", "2026-11-23"),
    ):
        run_cli(ledger_url, tmp_path, *arguments, exit_code=2)
    asked = replace(ALWAYS, grid="370299")
    with pytest.raises(GatewayError, match="there is no grid 370299"):
        appraise_ledger(ledger, real_catalog(), asked, START)
    with pytest.raises(GatewayError, match="--to: 'tomorrow' is no time"):
        parse_end("tomorrow")


# --- docs/appraisal.md --------------------------------------------------------------------------------------------

DOCUMENT = Path(__file__).parents[2] / "docs" / "appraisal.md"


def evening() -> Desk:
    """The example's evening, asked at 23:00."""
    desk = Desk(at("2026-11-23 20:00"))
    case = desk.press(0)
    for minute, verb in ((0.5, "call_back"), (2, "dispatch"), (12, "arrive"), (40, "resolve")):
        desk.act(case, minute, verb)
    second = desk.press(60, "sos-2")
    desk.act(second, 65, "accept")
    desk.act(second, 74, "arrive")
    desk.act(second, 90, "resolve", "verify", "close")
    desk.act(case, 100, "verify")
    third = desk.press(120)
    desk.act(third, 120.75, "cancel")
    desk.act(case, 130, "close")
    fourth = desk.press(150, "sos-2")
    desk.act(fourth, 150 + 1 / 3, "accept")
    desk.act(fourth, 151, "dispatch")
    desk.act(fourth, 160, "whistle")
    desk.act(fourth, 172, "report_in", grid=TOWN)
    desk.wait(180)
    return desk


def test_the_example_comes_to_what_the_document_says() -> None:
    found = total(*evening().cases(), now=at("2026-11-23 23:00"))
    text = DOCUMENT.read_text(encoding="utf-8").partition("<!-- example -->")[2].partition("<!-- /example -->")[0]
    said = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", text, re.MULTILINE))
    assert said == {name: str(getattr(found, name)) for name in said}
    assert len(said) == 20


def test_the_document_names_every_figure() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    families = {"response_median_ms": "response_*", "response_p90_ms": "response_*"}
    families |= {"closing_median_ms": "closing_*", "closing_p90_ms": "closing_*"}
    unnamed = [name for name in Figures.__struct_fields__[3:] if f"`{families.get(name, name)}`" not in text]
    assert unnamed == []
