"""The closed loop (闭环) of the open incidents: what people do to them, and what happens when nobody does.

Each open incident waits for one thing (`Due`), which somebody owns. The clock warns, marks it red, reminds and goes up
the grid, again and again; a critical one rings the duty phones until a person takes it. `Casebook` keeps the incidents;
this decides what becomes of them.
"""

from __future__ import annotations

from typing import Final, Protocol

from msgspec.structs import replace

from gateway.core import incident as cases
from gateway.core.catalog import Catalog
from gateway.core.duty import Duty
from gateway.core.model import (
    Due,
    Effect,
    Incident,
    Level,
    Member,
    Notify,
    OperatorAction,
    Role,
    Sort,
)
from gateway.core.moves import FINAL, STEP_OF, State, find_move, open_whistle, refuse
from gateway.core.registry import Registry
from gateway.core.worktime import DAY_MS, format_time

RINGS: Final = 20
"""So many calls go out at the policy's pace; then each waits twice as long as the one before, an hour at most."""

RING_LIMIT_MS: Final = 3_600_000

STORM: Final = "storm"
"""The cause of the incident that takes in what comes too fast."""

_STEPS_ZH: Final = {
    "accept": "立案",
    "call_back": "回拨核实",
    "dispatch": "派遣",
    "arrive": "到场",
    "resolve": "处置反馈",
    "verify": "核查",
    "close": "结案",
    "rate": "评价",
    "resume": "恢复办理",
    "report_in": "报到",
}
_LEVELS_ZH: Final = {Level.NORMAL: "一般", Level.URGENT: "紧急", Level.CRITICAL: "特急"}
_WHISTLED: Final = frozenset({State.REPORTED, State.FILED, State.DISPATCHED, State.HANDLING})


class Book(Protocol):
    """What keeps the incidents, for the step in the making."""

    now: int

    def get(self, id: str) -> Incident | None: ...
    def put(self, incident: Incident) -> Incident: ...
    def archive(self, incident: Incident) -> None: ...
    def absorb(self, into: Incident, taken: Incident, member: Member) -> None: ...
    def is_slot_free(self, incident: Incident) -> bool: ...
    def emit(self, effect: Effect) -> None: ...
    def show_coming(self, incident: Incident, action: str) -> None: ...


class Loop:
    """The closed loop over one community's book."""

    def __init__(self, book: Book, duty: Duty, registry: Registry) -> None:
        self._book = book
        self._duty = duty
        self._registry = registry

    @property
    def _catalog(self) -> Catalog:
        return self._duty.catalog

    # --- opening ---------------------------------------------------------------------------------------------

    def begin(self, incident: Incident) -> Incident:
        """A new incident: somebody is awaited from now on. A notice waits for nobody."""
        if incident.sort is not Sort.INCIDENT:
            return incident
        category = self._catalog.categories.get(incident.category)
        is_called_back = category is not None and category.call_back is not None
        due = self._duty.expect(incident, "call_back" if is_called_back else "accept", self._book.now)
        begun = self._expect(incident, due.step, due)
        if is_called_back:
            begun = self._note(begun, "contact", "the family, or the property's duty phone, is called to find out")
            self._notify(begun, "contact", due, due.due_at, "请立即联系并核实", "call back at once")
        return self._book.put(self._ring(begun, self._book.now) if begun.level is Level.CRITICAL else begun)

    def rise(self, incident: Incident) -> Incident:
        """Its level has risen: what is awaited is awaited sooner, and a critical one rings."""
        due, now = incident.due, self._book.now
        if due is not None and due.step in STEP_OF.values() and due.step != "resume":
            sooner = self._duty.expect(incident, due.step, now)
            if sooner.due_at < due.due_at:
                incident = self._expect(incident, due.step, sooner)
        if incident.level is Level.CRITICAL and incident.accepted_at is None and incident.rung_at is None:
            incident = self._ring(incident, now)
        return self._book.put(incident)

    # --- people ----------------------------------------------------------------------------------------------

    def act(self, action: OperatorAction) -> str:
        """A person's move: ``done``, or in words why not."""
        known = self._book.get(action.incident)
        if known is None:
            return "no such open incident in this community"
        now = self._book.now
        if action.role is Role.GATEWAY:
            return "the gateway acts by itself; nobody acts for it"
        problem = refuse(known, action, now)
        row = find_move(known.sort, action.verb)
        if problem is not None or row is None:
            return problem or "no such move"
        into = self._book.get(action.into) if action.verb == "merge" else None
        if action.verb == "merge" and (into is None or cases.is_over(into) or into.sort is not known.sort):
            return f"there is no open incident {action.into[:48]} in this community to merge it into"
        if action.verb == "dispatch" and action.body and action.body not in self._catalog.bodies:
            return f"there is no responsible body {action.body[:48]}; see rules/categories.yaml"
        taken = self._follow(cases.move(known, action, row, now), known, action)
        if into is not None:
            member = Member(now, known.id, "merge", f"{known.number}: {action.reason.strip()}", action.id)
            self._book.absorb(into, taken, member)
        if known.accepted_at is None and action.verb in ("accept", "call_back", "dispatch", "arrive"):
            self._book.show_coming(taken, action.id)
        return "done"

    def _follow(self, moved: Incident, known: Incident, action: OperatorAction) -> Incident:
        """What is awaited after a person's move."""
        now = self._book.now
        if known.sort is not Sort.INCIDENT:
            return self._book.put(moved)
        match action.verb:
            case "whistle":
                called = self._expect(replace(moved, aside=known.due), "report_in")
                self._tell_owner(called, "whistle", "吹哨，请报到", "you are whistled for: report in")
                return self._book.put(called)
            case "report_in":
                return self._book.put(self._take_up(moved))
            case "grant_extension" if moved.due is not None and known.asked_until is not None:
                how = f"extended to {format_time(known.asked_until)} by {action.actor}"
                due = self._duty.extend(moved.due, known.asked_until, now, how)
                return self._book.put(self._expect(moved, due.step, due))
            case "return":
                return self._book.put(self._pass_on(moved, known))
            case "park" if action.until is not None:
                how = f"parked until {format_time(action.until)} by {action.actor}"
                due = self._duty.expect_on(moved, "resume", now, action.until, how)
                return self._book.put(self._expect(replace(moved, aside=known.due), "resume", due))
            case "reopen":
                again = replace(moved, joinable=self._book.is_slot_free(moved))
                return self._book.put(self._expect(again, "dispatch"))
            case "ask_extension" | "refuse_extension":
                return self._book.put(moved)
            case "call_back" | "accept" if known.state != State.REPORTED:
                return self._book.put(moved)
        return self._book.put(self._enter(moved, known))

    def _enter(self, moved: Incident, known: Incident) -> Incident:
        """The state that a move has led to has its own step; an unanswered whistle stays in front of it."""
        state = State(moved.state)
        if state in FINAL and state is not State.CLOSED:
            return replace(moved, due=None, aside=None)
        step = STEP_OF[state]
        if open_whistle(known) is not None and state in _WHISTLED:
            return replace(moved, aside=self._duty.expect(moved, step, self._book.now))
        return self._expect(replace(moved, aside=None), step)

    def _pass_on(self, moved: Incident, known: Incident) -> Incident:
        """Returned as not ours: to the next body; when nobody is left, or it was returned too often, one level up."""
        returns = known.returns + 1
        moved = replace(moved, returns=returns, aside=None)
        body = self._duty.next_body(moved)
        if body is not None and returns <= self._catalog.policy.returns_limit:
            return self._expect(replace(moved, body=body), "arrive")
        filed = replace(moved, state=State.FILED)
        due = self._duty.expect(filed, "dispatch", self._book.now)
        up = replace(due, grid=self._above(filed, due.grid) or due.grid)
        raised = self._note(filed, "escalate", f"returned {returns} times: grid {up.grid} decides whose it is")
        return self._expect(raised, "dispatch", up)

    def _take_up(self, moved: Incident) -> Incident:
        """The grid that was called has reported in: it owns the step that waited, with the time that is left."""
        aside, now = moved.aside, self._book.now
        if aside is None:
            return self._expect(moved, STEP_OF[State(moved.state)])
        ahead = [time for time in (aside.warn_at, aside.due_at) if time > now]
        next_at = min(ahead) if ahead else now + self._remind_every(moved)
        due = replace(aside, grid=moved.whistles[-1].grid, role=Role.DISPATCHER, next_at=next_at)
        return self._expect(replace(moved, aside=None), due.step, due)

    # --- time ------------------------------------------------------------------------------------------------

    def next_at(self, incident: Incident) -> int | None:
        """When the clock acts on it next; None when it waits for nothing."""
        if cases.is_over(incident):
            ended = (incident.closed_at or incident.updated_at) + self._catalog.policy.reopen_within
            return ended if incident.due is None else max(ended, incident.due.due_at)
        if incident.sort is Sort.NOTICE:
            return None if incident.cleared_at is None else incident.cleared_at + self._catalog.policy.flap_window
        times = [] if incident.due is None else [incident.due.next_at]
        if incident.rung_at is not None:
            times.append(incident.rung_at)
        if incident.cause == STORM and incident.joinable and incident.joinable_until is not None:
            times.append(incident.joinable_until + 1)
        return min(times, default=None)

    def expire(self, incident: Incident, time: int) -> None:
        """The time that `next_at` gave has come."""
        now = self._book.now
        if cases.is_over(incident):
            self._book.archive(incident)
            return
        if incident.sort is Sort.NOTICE:
            why = f"the condition is over; it came and went {incident.flaps} times"
            self._book.put(cases.end_notice(incident, why, now))
            return
        if incident.cause == STORM and incident.joinable_until is not None and incident.joinable_until < time:
            calm = cases.note(incident, "cleared", "the storm is over", now)
            incident = replace(calm, joinable=False, cleared_at=now)
        if incident.rung_at is not None and incident.rung_at <= time:
            incident = self._ring(incident, time)
        if incident.due is not None and incident.due.next_at <= time:
            incident = self._press_on(incident, incident.due, time)
        self._book.put(incident)

    def _press_on(self, incident: Incident, due: Due, time: int) -> Incident:
        now = self._book.now
        if due.step == "resume" and time >= due.due_at:
            back = replace(incident, state=State(incident.before), before="", aside=None)
            return self._expect(self._note(back, "resume", due.how), STEP_OF[State(back.state)])
        if due.overdue_at is not None:
            return self._remind(incident, due, time)
        if time < due.due_at:
            warned = replace(incident, due=replace(due, warned_at=now, next_at=due.due_at))
            self._notify(warned, "warn", due, due.due_at, f"{_until(due)}到期", f"must be done by {_until(due)}")
            return self._note(warned, "warn", f"{due.step} is due at {_until(due)}")
        if due.step == "call_back":
            why = f"nobody has answered the call back within {due.limit}; to {incident.body}"
            return self._expect(
                self._note(replace(incident, state=State.DISPATCHED), "dispatch", why), STEP_OF[State.DISPATCHED]
            )
        red = replace(due, overdue_at=now, next_at=self._after(due.due_at, self._remind_every(incident)))
        late = self._note(replace(incident, due=red), "overdue", f"{due.step} was due at {_until(due)}: {due.how}")
        self._tell_owner(late, "overdue", f"已超时（应于{_until(due)}）", f"overdue, it was due at {_until(due)}")
        return late

    def _remind(self, incident: Incident, due: Due, time: int) -> Incident:
        """Once more; after so many times, one level up. At the top it goes on, more and more rarely."""
        every, above = self._remind_every(incident), self._above(incident, due.grid)
        missed = (self._book.now - time) // every
        reminders = due.reminders + 1 + missed
        if reminders >= self._catalog.policy.escalate_after and above is not None:
            due = replace(due, grid=above, role=Role.DISPATCHER, reminders=0, next_at=self._after(time, every))
            raised = self._note(replace(incident, due=due), "escalate", f"{due.step}: grid {above} is asked now")
            self._tell_owner(raised, "escalate", f"下级逾期未办（应于{_until(due)}）", f"late since {_until(due)}")
            return raised
        if above is None:
            every = min(DAY_MS, every << min(reminders, 16))
        due = replace(due, reminders=reminders, next_at=self._after(time, every))
        reminded = self._note(replace(incident, due=due), "remind", f"{due.step}, for the {reminders}. time")
        self._tell_owner(reminded, "remind", f"催办（应于{_until(due)}）", f"reminder: late since {_until(due)}")
        return reminded

    def _ring(self, incident: Incident, time: int) -> Incident:
        every = self._catalog.policy.ring_every << max(0, min(incident.rings - RINGS, 16))
        every = max(self._catalog.policy.ring_every, min(every, RING_LIMIT_MS))
        ringing = replace(incident, rings=incident.rings + 1, rung_at=self._after(time, every))
        until = self._book.now + max(every, 60_000)
        self._notify(ringing, "ring", None, until, "尚无人受理，请立即受理", "nobody has accepted it yet")
        return self._note(ringing, "ring", f"call {ringing.rings}: nobody has accepted it yet")

    def _after(self, time: int, every: int) -> int:
        """The next of the times ``every`` apart from ``time`` on that still lies ahead."""
        return time + every * (1 + max(0, self._book.now - time) // every)

    # --- the grid --------------------------------------------------------------------------------------------

    def relocate(self, incident: Incident) -> None:
        """Its place lies in another grid now: whoever owned a level of the old one is followed by that of the new."""
        grid, chain = self._registry.grid_of(incident.place), self._registry.grid_chain(incident.place)
        if (grid, chain) == (incident.grid, incident.chain):
            return
        old = incident.chain

        def follow(code: str) -> str:
            if code in chain or not chain:
                return code
            return chain[min(old.index(code), len(chain) - 1)] if code in old else chain[-1]

        dues = [due if due is None else replace(due, grid=follow(due.grid)) for due in (incident.due, incident.aside)]
        whistles = tuple(replace(whistle, grid=follow(whistle.grid)) for whistle in incident.whistles)
        moved = replace(incident, grid=grid, chain=chain, due=dues[0], aside=dues[1], whistles=whistles)
        self._book.put(self._note(moved, "moved", f"grid {incident.grid or 'unknown'} → {grid or 'unknown'}"))

    def _above(self, incident: Incident, grid: str) -> str | None:
        chain = incident.chain
        index = chain.index(grid) if grid in chain else 0
        return chain[index - 1] if index > 0 else None

    # --- words -----------------------------------------------------------------------------------------------

    def _expect(self, incident: Incident, step: str, due: Due | None = None) -> Incident:
        """The step is awaited from now on, and the timeline says by when and why."""
        due = due or self._duty.expect(incident, step, self._book.now)
        awaited = replace(incident, due=due)
        return self._note(awaited, "due", f"{step} by {_until(due)} ({due.role} of {due.grid or 'all'}): {due.how}")

    def _note(self, incident: Incident, what: str, why: str) -> Incident:
        return cases.note(incident, what, why, self._book.now)

    def _remind_every(self, incident: Incident) -> int:
        return self._catalog.policy.remind_every[incident.level]

    def _tell_owner(self, incident: Incident, kind: str, zh: str, en: str) -> None:
        if incident.due is not None:
            self._notify(incident, kind, incident.due, self._book.now + DAY_MS, zh, en)

    def _notify(self, incident: Incident, kind: str, due: Due | None, until: int, zh: str, en: str) -> None:
        """Tells a person: the id says which line of the timeline it belongs to."""
        step = "" if due is None else _STEPS_ZH.get(due.step, due.step)
        step_en = "" if due is None else f"{due.step.replace('_', ' ')}: "
        head = f"【{_LEVELS_ZH[incident.level]}】{incident.title.get('zh', '')}（{incident.number}）"
        text = {
            "zh": f"{head}{step}{zh}",
            "en": f"[{incident.level}] {incident.title.get('en', incident.number)} ({incident.number}): {step_en}{en}",
        }
        self._book.emit(
            Notify(
                id=f"{incident.id}/{len(incident.timeline)}/{kind}",
                community=incident.community,
                incident=incident.id,
                kind=kind,
                place=incident.place,
                grid=incident.grid if due is None else due.grid,
                text=text,
                expires_at=until,
                level=incident.level,
                role=None if due is None else due.role,
                body="" if due is None else due.body,
                round=max(0, incident.rings - 1),
                simulated=incident.simulated,
            )
        )


def _until(due: Due) -> str:
    return format_time(due.due_at)
