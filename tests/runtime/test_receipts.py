"""What a resident is told: how far the case is, never further than it is."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import Incident, OperatorAction, Press, Role, Tick
from gateway.core.moves import FINAL, MOVES, allowed
from gateway.runtime.help_pages import plan_pages
from gateway.runtime.receipts import Note, Receipt, Stage, make_test_receipt, read_receipt
from tests.core.worlds import START, new_engine

M = 60_000
PEOPLE = (Role.DISPATCHER, Role.GRID_WORKER, Role.PROPERTY_MANAGER)


class Case:
    """One press on a page, and what people and time make of it."""

    def __init__(self) -> None:
        self.engine: Engine = new_engine()
        [page], change = plan_pages(self.engine.snapshot(), ["b1"], actor="test")
        assert change is not None
        self.engine.feed(change, START)
        self.device = page.device
        self.now = START
        self.count = 0
        self.press("page/1")
        [case] = [i for i in self.engine.open_incidents() if i.cause == "sos"]
        self.id = case.id

    def press(self, event: str) -> None:
        assert self.engine.feed(Press(event, self.device), self.now).answer == "done"

    def find(self, id: str) -> Incident | None:
        return self.engine.incident(id)

    @property
    def incident(self) -> Incident:
        found = self.find(self.id)
        assert found is not None
        return found

    def act(self, verb: str, role: Role = Role.DISPATCHER, **more: object) -> str:
        self.now += M // 4
        self.count += 1
        action = OperatorAction(f"a{self.count}", f"li-{self.count}", self.id, verb, "因为", role, **more)  # type: ignore[arg-type]
        return self.engine.feed(action, self.now).answer

    def wait(self, ms: int) -> None:
        self.now += ms
        while (due := self.engine.next_deadline()) is not None and due <= self.now:
            self.engine.feed(Tick(), due)

    def tell(self, event: str = "page/1") -> Receipt:
        return read_receipt(self.incident, event, self.find)


def test_each_stage_has_the_time_at_which_it_was_reached() -> None:
    case = Case()
    pressed = case.now
    times = {}
    for verb in ("accept", "dispatch", "arrive", "resolve", "verify", "close"):
        assert case.act(verb) == "done"
        times[verb] = case.now
    told = case.tell()
    assert told.steps == (
        (Stage.RECORDED, pressed),
        (Stage.SEEN, times["accept"]),
        (Stage.COMING, times["dispatch"]),
        (Stage.CLOSED, times["close"]),
    )
    assert (told.stage, told.is_over, told.target) == (Stage.CLOSED, True, case.id)
    assert case.act("rate", Role.RESIDENT, score=5) == "done"
    assert (case.tell().target, case.tell().score) == ("", 5)


def test_what_the_gateway_sends_on_by_itself_is_neither_seen_nor_coming_until_a_person_knows() -> None:
    case = Case()
    case.wait(2 * M)
    assert (case.incident.state, case.incident.accepted_at) == ("dispatched", None)
    assert (case.tell().stage, case.tell().note) == (Stage.RECORDED, Note.SENT)
    assert case.act("accept") == "done"
    assert (case.tell().stage, case.tell().note) == (Stage.COMING, Note.NONE)


def test_a_false_alarm_after_the_gateway_sent_it_on_was_never_coming() -> None:
    case = Case()
    case.wait(2 * M)
    assert case.act("false_alarm") == "done"
    told = case.tell()
    assert (told.stage, told.note, dict(told.steps)[Stage.COMING]) == (Stage.CLOSED, Note.FALSE_ALARM, None)


def test_opened_again_it_is_no_longer_closed_nor_coming() -> None:
    case = Case()
    for verb in ("dispatch", "arrive", "resolve", "verify", "close", "reopen"):
        assert case.act(verb) == "done"
    told = case.tell()
    assert (told.stage, told.is_over, dict(told.steps)[Stage.CLOSED]) == (Stage.SEEN, False, None)


def test_a_press_that_joined_has_its_own_time_and_nothing_before_it() -> None:
    case = Case()
    assert case.act("accept") == "done"
    case.wait(5 * M)
    case.press("page/2")
    told = case.tell("page/2")
    assert (told.has_joined, case.tell().has_joined) == (True, False)
    assert dict(told.steps)[Stage.RECORDED] == dict(told.steps)[Stage.SEEN] == case.now


def test_merged_into_another_case_it_goes_on_with_that_one_under_its_own_number() -> None:
    case = Case()
    number = case.incident.number
    case.wait(11 * M)
    case.press("page/2")
    [other] = [i for i in case.engine.open_incidents() if i.cause == "sos" and i.id != case.id]
    assert case.act("merge", into=other.id) == "done"
    assert (case.tell().number, case.tell().is_over) == (number, False)
    case.id, merged = other.id, case.incident
    for verb in ("accept", "arrive", "resolve", "verify", "close"):
        assert case.act(verb) == "done"
    told = read_receipt(merged, "page/1", case.find)
    assert (told.number, told.stage, told.target) == (number, Stage.CLOSED, other.id)


def test_a_ring_of_merges_ends() -> None:
    case = Case()
    ring = replace(case.incident, merged_into=case.id)
    assert read_receipt(ring, "page/1", lambda id: ring).number == case.incident.number


def test_a_test_is_over_and_promises_nobody() -> None:
    told = make_test_receipt(START)
    assert (told.stage, told.note, told.is_over, told.number) == (Stage.RECORDED, Note.TEST, True, "")


VERBS = st.sampled_from([move.verb for move in MOVES if move.verb != "merge"])
STEPS = st.lists(st.tuples(VERBS, st.sampled_from(PEOPLE), st.integers(0, 40)), max_size=12)


def _told(case: Case, steps: list[tuple[str, Role, int]]) -> Iterator[Receipt]:
    yield case.tell()
    for verb, role, minutes in steps:
        case.wait(minutes * M)
        yield case.tell()
        if verb in allowed(case.incident, role):
            case.act(verb, role, until=case.now + 60 * M, score=3)
            yield case.tell()


@given(STEPS)
def test_whatever_happens_the_receipt_is_true(steps: list[tuple[str, Role, int]]) -> None:
    case = Case()
    number = case.incident.number
    for told in _told(case, steps):
        incident = case.incident
        reached = [at for _, at in told.steps if at is not None]
        assert told.number == number
        assert reached == sorted(reached)
        assert reached[0] == START
        assert all(at <= case.now for at in reached)
        assert told.is_over == (incident.state in FINAL)
        assert (told.stage is Stage.CLOSED) == told.is_over
        assert (dict(told.steps)[Stage.SEEN] is not None) == (incident.accepted_at is not None)
        if told.stage is Stage.COMING:
            assert {line.what for line in incident.timeline} & {"dispatch", "arrive"}
        assert bool(told.target) == (incident.state == "closed")
