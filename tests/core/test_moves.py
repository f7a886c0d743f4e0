"""The closed loop: every cell of (state x verb x role), what a move needs, and what is awaited after it."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import Incident, OperatorAction, Presence, Role, Sort, Step, Tick
from gateway.core.moves import FINAL, MOVES, NOTICE_MOVES, VERBS, State, allowed
from gateway.core.state import decode_state, encode_state
from gateway.wire import Status
from tests.core.worlds import START, Sender, new_engine, real_catalog

S = 1000
M = 60 * S
H = 60 * M
D = 24 * H
NOW = START + 10 * S
BASE, CENTRE, DISTRICT = "370215001001001", "370215001", "370215"

# What the district's desk, the people in the field, and those who look after them may do, and from where. Written down
# here a second time on purpose: verb → (states, roles).
R, F, D_, H_, B = "reported", "filed", "dispatched", "handling", "fed_back"
V, C, T, P, G, A = "verified", "closed", "rated", "parked", "merged", "false_alarm"
DESK = {"dispatcher", "platform"}
FIELD = {"dispatcher", "platform", "grid_worker", "property_manager"}
PERSONS = FIELD - {"platform"}
LOOKERS = FIELD - {"property_manager"}
EXPECTED: dict[str, tuple[set[str], set[str]]] = {
    "accept": ({R}, FIELD),
    "call_back": ({R, F, D_, H_}, PERSONS),
    "dispatch": ({R, F, D_}, DESK),
    "arrive": ({F, D_}, FIELD),
    "resolve": ({F, D_, H_}, FIELD),
    "verify": ({B}, LOOKERS),
    "close": ({V}, DESK),
    "rate": ({C}, {"resident", "dispatcher", "platform"}),
    "false_alarm": ({R, F, D_, H_, B, P}, LOOKERS),
    "cancel": ({R, F, D_, H_}, PERSONS),
    "return": ({D_, H_}, FIELD),
    "park": ({F, D_, H_}, DESK),
    "resume": ({P}, LOOKERS),
    "ask_extension": ({F, D_, H_}, FIELD),
    "grant_extension": ({F, D_, H_}, DESK),
    "refuse_extension": ({F, D_, H_}, DESK),
    "merge": ({R, F, D_, H_, P}, DESK),
    "whistle": ({R, F, D_, H_}, LOOKERS),
    "report_in": ({R, F, D_, H_}, LOOKERS),
    "reopen": ({B, V, C, T, G, A}, DESK),
}
TO_REACH: dict[str, list[str]] = {
    R: [],
    F: ["accept"],
    D_: ["accept", "dispatch"],
    H_: ["accept", "dispatch", "arrive"],
    B: ["accept", "dispatch", "arrive", "resolve"],
    V: ["accept", "dispatch", "arrive", "resolve", "verify"],
    C: ["accept", "dispatch", "arrive", "resolve", "verify", "close"],
    T: ["accept", "dispatch", "arrive", "resolve", "verify", "close", "rate"],
    P: ["accept", "park"],
    G: ["merge"],
    A: ["false_alarm"],
}


def make_action(
    verb: str, incident: Incident, role: Role = Role.DISPATCHER, actor: str = "wang", n: int = 0, into: str = ""
) -> OperatorAction:
    """An action with all that any verb needs."""
    return OperatorAction(
        f"{verb}-{n}", actor, incident.id, verb, "因为", role, until=START + 30 * D, into=into, score=4
    )


@cache
def at_state(state: str, before: str = "") -> tuple[bytes, str, str]:
    """A community whose incident (a press) has come to ``state``, and on which ``before`` was done as well; with a
    second one beside it. → (checkpoint, incident, the other)."""
    engine, sender = new_engine(), Sender()
    step = engine.feed(sender.send(START, signals=[("sos-1", "pressed"), ("sos-2", "pressed")]), START)
    first, second = sorted(step.incidents, key=lambda i: i.key)
    for number, verb in enumerate([*TO_REACH[state], *([before] if before else [])]):
        action = make_action(verb, first, n=number, into=second.id if verb == "merge" else "")
        answer = engine.feed(action, START + (number + 1) * S).answer
        assert answer == "done", (state, verb, answer)
    return encode_state(engine.snapshot()), first.id, second.id


def community_at(state: str, before: str = "") -> tuple[Engine, Incident, Incident]:
    data, first, second = at_state(state, before)
    engine = Engine(real_catalog(), decode_state(data))
    found, other = engine.incident(first), engine.incident(second)
    assert found is not None
    assert other is not None
    return engine, found, other


def needed_before(verb: str, state: str) -> str:
    """What must have been done so that only state and role decide."""
    if verb == "report_in" and state in (R, F, D_, H_):
        return "whistle"
    if verb in ("grant_extension", "refuse_extension") and state in (F, D_, H_):
        return "ask_extension"
    return ""


def test_every_state_is_reached_and_every_verb_has_its_row() -> None:
    assert set(TO_REACH) == {str(state) for state in State}
    assert set(EXPECTED) == {move.verb for move in MOVES}
    assert set(VERBS) == {move.verb for move in (*MOVES, *NOTICE_MOVES)}
    for state in TO_REACH:
        assert community_at(state)[1].state == state


@pytest.mark.parametrize("state", list(TO_REACH))
def test_every_cell_of_state_verb_and_role(state: str) -> None:
    for verb, role in product(EXPECTED, Role):
        engine, incident, other = community_at(state, needed_before(verb, state))
        states, roles = EXPECTED[verb]
        action = make_action(verb, incident, role, "li", 99, other.id)
        step = engine.feed(action, NOW)
        if state in states and role in roles:
            assert step.answer == "done", (state, verb, role, step.answer)
            assert verb in allowed(incident, role)
            [line] = [line for line in step.incidents[0].timeline if line.who == "li"]
            assert line.what == verb
        else:
            assert step.answer not in ("", "done"), (state, verb, role)
            assert verb not in allowed(incident, role)
            assert len(step.answer) > 20
            assert not step.incidents
            assert engine.incident(incident.id) == incident


@pytest.mark.parametrize("role", list(Role))
def test_what_the_gateway_dispatched_by_itself_is_still_accepted_once(role: Role) -> None:
    """The one cell that the state alone does not decide: nobody called back, and so no person knows of it yet."""
    engine, incident, _ = community_at(R)
    engine.feed(Tick(), START + M)
    dispatched = engine.incident(incident.id)
    assert dispatched is not None
    assert (dispatched.state, dispatched.accepted_at) == (D_, None)
    assert ("accept" in allowed(dispatched, role)) == (role in FIELD)
    answer = engine.feed(make_action("accept", incident, role, "li", 99), START + M + S).answer
    assert (answer == "done") == (role in FIELD), answer
    again = engine.feed(make_action("accept", incident, Role.DISPATCHER, "zhao", 100), START + M + 2 * S).answer
    assert ("somebody has accepted it already" in again) == (role in FIELD)
    after = engine.incident(incident.id)
    assert after is not None
    assert (after.state, after.accepted_at is None) == (D_, False)


@pytest.mark.parametrize("verb", list(EXPECTED))
def test_each_verb_leads_where_the_table_says(verb: str) -> None:
    [row] = [move for move in MOVES if move.verb == verb]
    for state in EXPECTED[verb][0]:
        engine, incident, other = community_at(state, needed_before(verb, state))
        engine.feed(make_action(verb, incident, actor="li", n=99, into=other.id), NOW)
        after = engine.incident(incident.id)
        assert after is not None
        if verb == "call_back":
            target = F if state == R else str(state)
        elif verb == "resume":
            target = F
        else:
            target = str(row.target or state)
        assert after.state == target
        assert (after.due is None) == (after.state in FINAL - {State.CLOSED})


@pytest.mark.parametrize(
    ("verb", "state", "change", "expected"),
    [
        ("close", V, {"reason": "  "}, "needs a reason"),
        ("false_alarm", R, {"reason": ""}, "needs a reason"),
        ("park", F, {"until": None}, "needs a date in the future"),
        ("park", F, {"until": START}, "needs a date in the future"),
        ("park", F, {"until": START + 4000 * D}, "needs a date within ten years"),
        ("rate", C, {"score": 6}, "needs a score from 1 to 5"),
        ("rate", C, {"score": None}, "needs a score from 1 to 5"),
        ("merge", R, {"into": ""}, "needs the incident"),
        ("merge", R, {"into": "no-such"}, "there is no open incident no-such"),
        ("dispatch", F, {"body": "no-such"}, "there is no responsible body no-such"),
        ("accept", R, {"grid": "370215002"}, "is not below yours (370215002)"),
        ("accept", R, {"actor": " "}, "nobody is named"),
        ("accept", R, {"role": Role.GATEWAY}, "the gateway acts by itself"),
        ("fly", R, {}, "fly is no move of an incident"),
        ("report_in", F, {}, "nobody was whistled for"),
        ("grant_extension", F, {}, "nobody has asked"),
        ("accept", R, {"incident": "no-such"}, "no such open incident"),
    ],
)
def test_what_a_move_needs(verb: str, state: str, change: dict[str, object], expected: str) -> None:
    engine, incident, other = community_at(state)
    action = replace(make_action(verb, incident, actor="li", n=99, into=other.id), **change)
    assert expected in engine.feed(action, NOW).answer


@pytest.mark.parametrize("grid", ["", BASE, CENTRE, DISTRICT])
def test_who_acts_on_what_lies_below_their_grid(grid: str) -> None:
    engine, incident, _ = community_at(R)
    assert engine.feed(replace(make_action("accept", incident), grid=grid), NOW).answer == "done"


def test_the_second_of_two_dispatchers_is_told_who_was_faster() -> None:
    engine, incident, _ = community_at(R)
    seen = incident.revision
    engine.feed(replace(make_action("accept", incident, actor="li"), revision=seen), NOW)
    late = replace(make_action("whistle", incident, actor="zhao", n=1), revision=seen)
    assert "li was faster (accept)" in engine.feed(late, NOW + S).answer
    now = engine.incident(incident.id)
    assert now is not None
    assert engine.feed(replace(late, revision=now.revision), NOW + S).answer == "done"


def test_what_the_gateway_itself_wrote_makes_nobody_too_slow() -> None:
    engine, incident, _ = community_at(R)
    rung = engine.feed(replace(make_action("accept", incident), revision=incident.revision), START + 3 * M)
    assert rung.answer == "done"
    assert [line.what for line in rung.incidents[0].timeline].count("ring") > 1


def test_an_extension_is_granted_by_another_person() -> None:
    engine, incident, _ = community_at(H_, "ask_extension")
    assert "cannot grant it" in engine.feed(make_action("grant_extension", incident, actor="wang", n=9), NOW).answer
    assert engine.feed(make_action("grant_extension", incident, actor="li", n=10), NOW).answer == "done"
    after = engine.incident(incident.id)
    assert after is not None
    assert after.due is not None
    assert (after.due.step, after.due.due_at, after.extensions) == ("resolve", START + 30 * D, 1)


def test_returned_as_not_ours_goes_to_the_next_body_twice_and_then_up() -> None:
    engine, incident, _ = community_at(D_)
    assert real_catalog().categories[incident.category].others == ("grid-centre", "street")
    engine.feed(replace(make_action("dispatch", incident, n=19), body="property"), NOW)
    bodies, grids = ["property"], []
    for n in range(3):
        assert engine.feed(make_action("return", incident, actor="li", n=20 + n), NOW + n * S).answer == "done"
        after = engine.incident(incident.id)
        assert after is not None
        assert after.due is not None
        bodies.append(after.body)
        grids.append((after.state, after.due.step, after.due.grid))
    assert bodies == ["property", "grid-centre", "street", "street"]
    assert [grid[:2] for grid in grids] == [(D_, "arrive"), (D_, "arrive"), (F, "dispatch")]
    assert grids[2][2] == DISTRICT  # one above the grid centre whose dispatchers sent it


def test_a_merged_incident_stands_under_the_one_that_took_it_in() -> None:
    engine, incident, other = community_at(R)
    step = engine.feed(make_action("merge", incident, actor="li", n=9, into=other.id), NOW)
    assert step.answer == "done"
    after, into = engine.incident(incident.id), engine.incident(other.id)
    assert after is not None
    assert into is not None
    assert (after.state, after.merged_into, after.due) == (G, other.id, None)
    assert into.members[-1].key == incident.id
    assert "sos-1" in into.devices
    assert into.timeline[-1].what == "took_in"


NOTICE_EXPECTED = {"accept": {R}, "close": {R, F}, "false_alarm": {R, F}}
KEEPERS = {"property_manager", "dispatcher"}


@cache
def notice_at(state: str) -> tuple[bytes, str]:
    """A community whose agent is gone, and the notice of it in ``state``. → (checkpoint, notice)."""
    engine = new_engine()
    engine.feed(Presence("agent-1", Status(online=True, connection="c1")), START)
    engine.feed(Presence("agent-1", Status(online=False, connection="c1")), START + M)
    steps: list[Step] = [engine.feed(Tick(), START + minute * M) for minute in range(2, 10)]
    [notice] = {i.id: i for step in steps for i in step.incidents}.values()
    assert (notice.sort, notice.due) == (Sort.NOTICE, None)
    for verb in {R: [], F: ["accept"], C: ["close"], A: ["false_alarm"]}[state]:
        assert engine.feed(make_action(verb, notice), START + H - M).answer == "done"
    engine.feed(Tick(), START + H)
    return encode_state(engine.snapshot()), notice.id


@pytest.mark.parametrize("state", [R, F, C, A])
def test_every_cell_of_a_notices_table(state: str) -> None:
    data, id = notice_at(state)
    for verb, role in product(VERBS, Role):
        engine = Engine(real_catalog(), decode_state(data))
        notice = engine.incident(id)
        assert notice is not None
        assert notice.state == state
        step = engine.feed(make_action(verb, notice, role, "li", 99), START + H)
        if state in NOTICE_EXPECTED.get(verb, ()) and role in KEEPERS:
            assert step.answer == "done", (verb, role, step.answer)
            assert verb in allowed(notice, role)
        else:
            assert step.answer not in ("", "done"), (verb, role)
            assert verb not in allowed(notice, role)
            assert not step.incidents
        if verb not in NOTICE_EXPECTED and role is not Role.GATEWAY:
            assert "no move of a maintenance notice" in step.answer
