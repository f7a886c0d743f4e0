"""What happens when nobody does what is awaited, to the minute; and laws over any sequence of acts and ticks."""

from __future__ import annotations

import random
from datetime import datetime
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import (
    Blind,
    Grid,
    GridLevel,
    Incident,
    Level,
    Notify,
    OperatorAction,
    Place,
    PlaceKind,
    RegistryChange,
    Role,
    Sort,
    Step,
    Tick,
    Told,
)
from gateway.core.moves import FINAL, VERBS, State, allowed
from gateway.core.state import encode_state
from gateway.core.worktime import format_time
from tests.core.worlds import COMMUNITY, START, Sender, new_engine, restored

S = 1000
M = 60 * S
H = 60 * M
D = 24 * H
BASE, CENTRE, DISTRICT = "370215001001001", "370215001", "370215"


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}:00+08:00").timestamp() * 1000)


def run(engine: Engine, until: int, since: int = 0) -> list[Step]:
    """Ticks at each deadline up to ``until``."""
    steps = []
    while (due := engine.next_deadline()) is not None and due <= until:
        steps.append(engine.feed(Tick(), max(due, since)))
    return steps


def press(engine: Engine, sender: Sender, now: int = START, button: str = "sos-1") -> Incident:
    step = engine.feed(sender.send(now, signals=[(button, "pressed")]), now)
    [incident] = [incident for incident in step.incidents if incident.revision == 1]
    return incident


def current(engine: Engine, incident: Incident) -> Incident:
    found = engine.incident(incident.id)
    assert found is not None
    return found


def acts(engine: Engine, incident: Incident, now: int, *verbs: str, **more: object) -> Incident:
    for number, verb in enumerate(verbs):
        action = OperatorAction(f"{verb}/{now}/{number}", "wang", incident.id, verb, "因为")
        assert engine.feed(replace(action, **more), now).answer == "done", verb
    return current(engine, incident)


def notices(steps: list[Step], kind: str) -> list[Notify]:
    return [effect for step in steps for effect in step.effects if isinstance(effect, Notify) and effect.kind == kind]


def lines(incident: Incident, what: str) -> list[str]:
    return [format_time(line.at)[11:] for line in incident.timeline if line.what == what]


def test_a_press_is_called_back_first_and_dispatched_when_nobody_answers() -> None:
    engine, sender = new_engine(), Sender()
    step = engine.feed(sender.send(START, signals=[("sos-1", "pressed")]), START)
    [incident] = step.incidents
    assert incident.due is not None
    assert (incident.due.step, incident.due.role, incident.due.due_at) == (
        "call_back",
        Role.PROPERTY_MANAGER,
        START + M,
    )
    assert [effect.kind for effect in step.effects if isinstance(effect, Notify)] == ["contact", "ring"]
    run(engine, START + M)
    after = current(engine, incident)
    assert after.state == "dispatched"
    assert after.due is not None
    assert (after.due.step, after.due.due_at) == ("arrive", START + 16 * M)
    assert after.accepted_at is None


def test_a_call_back_by_a_named_person_files_it_and_the_gateway_waits() -> None:
    engine, sender = new_engine(), Sender()
    incident = press(engine, sender)
    after = acts(engine, incident, START + 20 * S, "call_back", actor="property:chen", role=Role.PROPERTY_MANAGER)
    assert after.state == "filed"
    assert after.rung_at is None
    assert "property:chen" in [line.who for line in after.timeline]
    run(engine, START + 2 * M)
    assert current(engine, incident).state == "filed"


def test_a_critical_one_rings_the_next_number_each_minute_until_a_person_takes_it() -> None:
    engine, sender = new_engine(), Sender()
    incident = press(engine, sender)
    steps = run(engine, START + 5 * M)
    rings = notices(steps, "ring")
    assert [ring.round for ring in rings] == [1, 2, 3, 4, 5]
    assert len({ring.id for ring in rings}) == 5
    acts(engine, incident, START + 5 * M + S, "accept")
    assert not notices(run(engine, START + 14 * M), "ring")


def test_calls_become_rare_when_nobody_ever_answers() -> None:
    engine, sender = new_engine(), Sender()
    incident = press(engine, sender)
    steps = run(engine, START + 2 * D)
    after = current(engine, incident)
    assert 20 < len(notices(steps, "ring")) < 90
    assert len(after.timeline) < 300
    assert after.rung_at is not None


def test_yellow_red_reminded_and_up_the_grid_again_and_again() -> None:
    engine, sender = new_engine(), Sender()
    incident = acts(engine, press(engine, sender), START, "accept", "dispatch")
    assert incident.due is not None
    assert (incident.due.role, incident.due.grid, incident.due.limit) == (Role.GRID_WORKER, BASE, "15min")
    steps = run(engine, START + H)
    after = current(engine, incident)
    # 15 min: yellow at 11:15, red at 15:00, then every 5 min: a reminder, the next level, a reminder, the next level.
    assert [step.incidents[0].updated_at - START for step in steps][:2] == [15 * M * 3 // 4, 15 * M]
    assert lines(after, "warn") == ["20:11"]
    assert lines(after, "overdue") == ["20:15"]
    assert lines(after, "remind")[:2] == ["20:20", "20:30"]
    assert lines(after, "escalate") == ["20:25", "20:35"]
    assert after.due is not None
    assert (after.due.grid, after.due.role) == (DISTRICT, Role.DISPATCHER)
    assert [note.grid for note in notices(steps, "escalate")] == [CENTRE, DISTRICT]
    # At the top it goes on, more and more rarely, and never stops.
    run(engine, START + 30 * D)
    much_later = current(engine, incident)
    assert len(lines(much_later, "remind")) < 60
    assert much_later.due is not None
    assert much_later.due.next_at > START + 30 * D


def test_deadlines_across_a_weekend_and_a_restart_in_the_middle_are_exact() -> None:
    # Friday 2026-11-20, 16:30: a plant room is too hot for ten minutes; 一般.
    friday = at("2026-11-20 16:30")
    engine, sender = new_engine(at=friday), Sender()
    engine.feed(sender.send(friday, {"room-1:temperature": 60.0}), friday)
    [incident] = [i for step in run(engine, friday + 10 * M) for i in step.incidents]
    due = incident.due
    assert due is not None
    # 1 working hour from 16:40: 20 min on Friday, 40 min on Monday from 09:00; yellow after 45 min.
    assert (due.step, due.limit, format_time(due.due_at)) == ("accept", "1wh", "2026-11-23 09:40")
    assert "no working days: 2026-11-21 to 2026-11-22" in due.how
    engine = restored(engine)
    assert not [i for step in run(engine, at("2026-11-22 12:00")) for i in step.incidents if i.id == incident.id]
    # The gateway is stopped from Sunday 12:00 to Monday 09:50: red a minute after, by the same deadline.
    back = at("2026-11-23 09:50")
    engine = restored(engine)
    engine.feed(Blind(at("2026-11-22 12:00"), back), back)
    assert current(engine, incident).due == due
    steps = run(engine, back + 2 * M, since=back + M)
    after = current(engine, incident)
    assert lines(after, "overdue") == ["09:51"]
    assert after.due is not None
    assert (after.due.due_at, after.due.overdue_at) == (due.due_at, back + M)
    assert [note.incident for note in notices(steps, "overdue")] == [incident.id]


FESTIVAL = [
    [],
    ["2026-02-20 12:00"],
    ["2026-02-13 16:54", "2026-02-14 09:10", "2026-02-16 00:00", "2026-02-24 10:29", "2026-02-28 12:00"],
]


@pytest.mark.parametrize("restarts", FESTIVAL, ids=len)
@pytest.mark.parametrize("is_stopped", [False, True])
def test_deadlines_across_the_spring_festival_and_its_make_up_days_are_exact(
    restarts: list[str], is_stopped: bool
) -> None:
    """2026: the festival from Sunday 15 to Monday 23 February; Saturdays 14 and 28 February are made up. Working hours
    09:00-12:00 and 13:00-17:00. The gateway is started again in between, or stopped over the festival."""
    opened = at("2026-02-13 16:10")
    engine, sender = new_engine(at=opened - 10 * M), Sender()
    left = [at(text) for text in restarts]
    steps: list[Step] = []

    def go_on(until: str) -> None:
        nonlocal engine
        while left and left[0] <= at(until):
            steps.extend(run(engine, left.pop(0)))
            engine = restored(engine)
        steps.extend(run(engine, at(until)))

    def written(what: str) -> list[str]:
        return [format_time(line.at) for line in current(engine, incident).timeline if line.what == what]

    engine.feed(sender.send(opened - 10 * M, {"room-1:temperature": 60.0}), opened - 10 * M)
    [incident] = [i for step in run(engine, opened) for i in step.incidents]
    assert (incident.level, incident.opened_at) == (Level.NORMAL, opened)
    # Accept within 1 working hour: 50 min on Friday from 16:10, 10 min on the made-up Saturday: 09:10. Yellow after 45.
    assert incident.due is not None
    assert (incident.due.limit, format_time(incident.due.due_at)) == ("1wh", "2026-02-14 09:10")
    go_on("2026-02-14 16:30")
    assert (written("warn"), written("overdue")) == (["2026-02-13 16:55"], ["2026-02-14 09:10"])

    # Accepted on Saturday at 16:30. Dispatch within 2 working hours: 30 min on Saturday, 90 min on Tuesday the 24th:
    # 10:30. Yellow after 90 min: 30 + 60.
    filed = acts(engine, incident, at("2026-02-14 16:30"), "accept")
    assert filed.due is not None
    assert (filed.due.limit, format_time(filed.due.due_at)) == ("2wh", "2026-02-24 10:30")
    assert "no working days: 2026-02-15 to 2026-02-23" in filed.due.how
    if is_stopped:
        go_on("2026-02-16 08:00")
        engine = restored(engine)
        engine.feed(Blind(at("2026-02-16 08:00"), at("2026-02-24 08:00")), at("2026-02-24 08:00"))
    go_on("2026-02-26 11:00")
    assert written("warn")[1:] == ["2026-02-24 10:00"]
    assert written("overdue")[1:] == ["2026-02-24 10:30"]
    # Reminded after 24 h, and after 24 h more the district is asked.
    assert (written("remind"), written("escalate")) == (["2026-02-25 10:30"], ["2026-02-26 10:30"])

    # Somebody is there on Thursday the 26th at 11:00. Resolve within 5 working days, Thursday not counted: Friday 27,
    # the made-up Saturday 28, Monday 2, Tuesday 3, Wednesday 4 March, at 17:00. Yellow on the day before.
    busy = acts(engine, incident, at("2026-02-26 11:00"), "dispatch", "arrive")
    assert busy.due is not None
    assert (busy.due.limit, format_time(busy.due.due_at)) == ("5wd", "2026-03-04 17:00")
    assert "no working days: 2026-03-01," in busy.due.how
    go_on("2026-03-04 17:00")
    assert (written("warn")[2:], written("overdue")[2:]) == (["2026-03-03 17:00"], ["2026-03-04 17:00"])
    overdue = [note for note in notices(steps, "overdue") if note.incident == incident.id]
    assert len(overdue) == 3


def test_parked_until_a_date_and_taken_up_again_by_itself() -> None:
    engine, sender = new_engine(), Sender()
    incident = acts(engine, press(engine, sender), START, "accept")
    parked = acts(engine, incident, START + M, "park", until=START + 10 * D)
    assert parked.due is not None
    assert (parked.state, parked.due.step, parked.due.due_at, parked.joinable) == (
        "parked",
        "resume",
        START + 10 * D,
        False,
    )
    run(engine, START + 10 * D)
    after = current(engine, incident)
    assert (after.state, after.before) == ("filed", "")
    assert after.due is not None
    assert after.due.due_at == START + 10 * D + 3 * M


def test_whistled_up_level_by_level_and_back() -> None:
    engine, sender = new_engine(), Sender()
    incident = acts(engine, press(engine, sender), START, "accept", "dispatch")
    whistled = acts(engine, incident, START + M, "whistle", grid=BASE, role=Role.GRID_WORKER)
    assert whistled.due is not None
    assert whistled.aside is not None
    assert (whistled.due.step, whistled.due.grid, whistled.due.due_at) == ("report_in", CENTRE, START + 11 * M)
    below = OperatorAction("r1", "li", incident.id, "report_in", role=Role.GRID_WORKER, grid=BASE)
    assert "lies below it" in engine.feed(below, START + 2 * M).answer
    reported = acts(engine, incident, START + 3 * M, "report_in", grid=CENTRE)
    assert reported.due is not None
    assert (reported.due.step, reported.due.grid, reported.due.due_at) == ("arrive", CENTRE, START + 15 * M)
    assert reported.whistles[0].reported_at == START + 3 * M
    acts(engine, incident, START + 4 * M, "whistle", grid=CENTRE)
    up = acts(engine, incident, START + 5 * M, "report_in", grid=DISTRICT)
    assert [whistle.grid for whistle in up.whistles] == [CENTRE, DISTRICT]
    done = acts(engine, incident, START + 6 * M, "resolve", grid=DISTRICT)
    assert done.due is not None
    assert (done.due.step, done.due.role, done.due.grid) == ("verify", Role.GRID_WORKER, BASE)


def test_a_whistle_that_nobody_answers_is_late_by_itself() -> None:
    engine, sender = new_engine(), Sender()
    incident = acts(engine, press(engine, sender), START, "accept", "whistle")
    steps = run(engine, START + 21 * M)
    assert [note.grid for note in notices(steps, "overdue")] == [CENTRE]
    after = current(engine, incident)
    assert after.due is not None
    assert (after.due.step, after.due.grid) == ("report_in", DISTRICT)


def test_what_ended_can_be_opened_again_for_a_week_and_then_leaves_the_book() -> None:
    engine, sender = new_engine(), Sender()
    incident = acts(engine, press(engine, sender), START, "accept", "false_alarm")
    again = acts(engine, incident, START + D, "reopen")
    assert (again.state, again.closed_at) == ("filed", None)
    assert again.due is not None
    acts(engine, incident, START + D, "false_alarm")
    run(engine, START + 8 * D - 1)
    assert engine.incident(incident.id) is not None
    run(engine, START + 8 * D)
    assert engine.incident(incident.id) is None


def test_an_incident_follows_its_place_to_another_grid() -> None:
    engine, sender = new_engine(), Sender()
    incident = acts(engine, press(engine, sender), START, "accept", "dispatch")
    moved = replace(COMMUNITY, grids=("370215", "370215002"))
    grids = (
        Grid("370215", GridLevel.DISTRICT, "即墨区"),
        Grid("370215002", GridLevel.TOWN, "另一镇街", "370215"),
        Grid("370215002001001", GridLevel.BASE, "另一网格", "370215002"),
    )
    place = Place("c001", PlaceKind.COMMUNITY, "示例一期", None, "370215002001001")
    step = engine.feed(RegistryChange("admin", (place,), community=moved, grids=grids), START + M)
    assert step.answer == "done"
    after = current(engine, incident)
    assert after.chain == ("370215", "370215002", "370215002001001")
    assert after.due is not None
    assert (after.grid, after.due.grid, after.due.due_at) == ("370215002001001", "370215002001001", START + 15 * M)
    assert after.timeline[-1].what == "moved"


def test_who_was_told_stands_in_the_timeline() -> None:
    engine, sender = new_engine(), Sender()
    incident = press(engine, sender)
    engine.feed(Told(f"{incident.id}/1/ring", incident.id, "sms to property duty (contact-7): delivered"), START + S)
    after = current(engine, incident)
    assert (after.timeline[-1].what, after.timeline[-1].why) == ("told", "sms to property duty (contact-7): delivered")


@pytest.mark.parametrize("lag", [0, 7 * S, 3 * H])
def test_nobody_looking_for_a_while_changes_what_is_awaited_by_no_more_than_that(lag: int) -> None:
    engine, sender = new_engine(), Sender()
    incident = acts(engine, press(engine, sender), START, "accept", "dispatch")
    engine.feed(Tick(), START + 15 * M + lag)
    after = current(engine, incident)
    assert after.due is not None
    assert after.due.overdue_at is not None
    assert after.due.next_at > START + 15 * M + lag
    assert len(after.timeline) < 30


# --- laws ---------------------------------------------------------------------------------------------------


class Act(NamedTuple):
    """One step of a walk: ``what`` is a verb, ``allowed`` (the ``pick``-th of those that the role may try now),
    ``press`` or ``tick``; before it the clock goes on by ``wait``, and perhaps the gateway is started again."""

    what: str
    pick: int
    role: Role
    wait: int
    is_restarted: bool
    reason: str
    grid: str
    target: int


ACTS = st.builds(
    Act,
    st.sampled_from([*VERBS, *["allowed"] * 20, "press", "tick", "tick"]),
    st.integers(0, 99),
    st.sampled_from([*[Role.DISPATCHER] * 6, *Role]),
    st.sampled_from([0, S, M, 20 * M, 5 * H, 2 * D]),
    st.booleans(),
    st.sampled_from([*["因为"] * 5, "", "  "]),
    st.sampled_from([*[""] * 5, BASE, CENTRE, DISTRICT]),
    st.integers(0, 3),
)
WALKS = st.lists(ACTS, min_size=1, max_size=40)


class Walk:
    """A community with two presses (特急) and a plant room that is too hot (一般), and whatever is done to them."""

    def __init__(self) -> None:
        self.engine, self.sender, self.now = new_engine(), Sender(), START + 10 * M
        self.engine.feed(self.sender.send(START, {"room-1:temperature": 60.0}), START)
        [hot] = {i.id for step in run(self.engine, self.now) for i in step.incidents}
        self.ids = [press(self.engine, self.sender, self.now, button).id for button in ("sos-1", "sos-2")] + [hot]
        self.acts = 0

    def go(self, act: Act, *, with_restarts: bool = True) -> None:
        self.now += act.wait
        run(self.engine, self.now)
        if act.is_restarted and with_restarts:
            self.engine = restored(self.engine)
        id = self.ids[act.target % len(self.ids)]
        match act.what:
            case "press":
                step = self.engine.feed(self.sender.send(self.now, signals=[("sos-1", "pressed")]), self.now)
                cases = [incident.id for incident in step.incidents if incident.sort is Sort.INCIDENT]
                self.ids += [id for id in cases if id not in self.ids]
            case "tick":
                self.engine.feed(Tick(), self.now)
            case "allowed":
                incident = self.engine.incident(id)
                verbs = [] if incident is None else allowed(incident, act.role)
                if verbs:
                    self._act(id, verbs[act.pick % len(verbs)], act)
            case verb:
                self._act(id, verb, act)

    def _act(self, id: str, verb: str, act: Act) -> None:
        self.acts += 1
        action = OperatorAction(
            f"a{self.acts}",
            f"actor{act.pick % 3}",
            id,
            verb,
            act.reason,
            act.role,
            act.grid,
            until=self.now + (1 + act.pick) * H,
            body=["", "property", "street"][act.pick % 3],
            into=self.ids[act.pick % len(self.ids)],
            score=act.pick % 7,
        )
        assert self.engine.feed(action, self.now).answer

    def incidents(self) -> list[Incident]:
        """Those that are in the book."""
        return [found for found in (self.engine.incident(id) for id in self.ids) if found is not None]


def assert_governed(walk: Walk) -> None:
    """Every open incident is somebody's, who has a time; and what is over was ended by a person, with a reason."""
    for incident in walk.incidents():
        if incident.state in FINAL:
            ended = [line for line in incident.timeline if line.what in ("close", "false_alarm", "cancel", "merge")]
            assert ended[-1].why.strip()
            assert ended[-1].who.startswith("actor")
            assert incident.closed_at == ended[-1].at
            continue
        assert incident.closed_at is None
        due = incident.due
        assert due is not None
        assert due.role in (Role.DISPATCHER, Role.GRID_WORKER, Role.PROPERTY_MANAGER)
        assert due.grid in incident.chain
        assert due.next_at >= walk.now
        assert (deadline := walk.engine.next_deadline()) is not None
        assert deadline <= due.next_at
        is_rung = incident.level is Level.CRITICAL and incident.accepted_at is None
        assert (incident.rung_at is not None) == is_rung


@given(WALKS)
@settings(deadline=None, max_examples=150)
def test_an_open_incident_is_always_somebodys_and_none_ends_without_a_reason(acts: list[Act]) -> None:
    walk = Walk()
    assert_governed(walk)
    for act in acts:
        walk.go(act)
        assert_governed(walk)


def test_such_walks_come_through_every_state() -> None:
    """What the law above says of every walk would be empty of states that none comes to."""
    chance = random.Random(5)
    seen: set[str] = set()
    for _ in range(40):
        walk = Walk()
        for _ in range(30):
            wait = chance.choice([0, S, M])
            walk.go(
                Act("allowed", chance.randrange(100), Role.DISPATCHER, wait, False, "因为", "", chance.randrange(3))
            )
            assert_governed(walk)
            seen |= {incident.state for incident in walk.incidents()}
    assert seen == set(State)


@given(WALKS)
@settings(deadline=None, max_examples=60)
def test_a_restart_anywhere_changes_nothing_of_the_loop(acts: list[Act]) -> None:
    with_restarts, without = Walk(), Walk()
    for act in acts:
        with_restarts.go(act)
        without.go(act, with_restarts=False)
    assert encode_state(with_restarts.engine.snapshot()) == encode_state(without.engine.snapshot())
