"""Incidents as the engine makes them, told in minutes: for the tests of what is counted of them."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import Event, Incident, OperatorAction, Role, Step, Tick
from tests.core.worlds import START, Sender, new_engine

S = 1000
M = 60 * S
H = 60 * M
D = 24 * H


def at(text: str) -> int:
    """A local time, ``2026-11-20 16:30``, in ms UTC."""
    return int(datetime.fromisoformat(f"{text}:00+08:00").timestamp() * 1000)


class Desk:
    """A community whose engine is told what people do; its deadlines fire as they come."""

    def __init__(self, begins: int = START, engine: Engine | None = None) -> None:
        self.begins = begins
        self.engine = engine or new_engine(at=begins)
        self.sender = Sender()
        self.steps: list[Step] = []
        self._acts = 0

    def press(self, minute: float = 0, button: str = "sos-1") -> Incident:
        """Somebody presses a button, so many minutes after the beginning: 特急, called back within a minute."""
        now = self.wait(minute)
        return self.feed(self.sender.send(now, signals=[(button, "pressed")]), now).incidents[0]

    def act(self, case: Incident, minute: float, *verbs: str, who: str = "wang", **more: object) -> Incident:
        """The acts of a person at that minute, one after the other; what is needed is given."""
        now = self.wait(minute)
        for verb in verbs:
            self._acts += 1
            action = OperatorAction(f"act-{self._acts}", who, case.id, verb, "因为", Role.DISPATCHER, score=4)
            answer = self.feed(replace(action, **more), now).answer
            assert answer == "done", (verb, answer)
        return self.get(case)

    def wait(self, minute: float) -> int:
        """Time passes up to that minute; returns it in ms."""
        until = self.begins + round(minute * M)
        while (due := self.engine.next_deadline()) is not None and due < until:
            self.feed(Tick(), due)
        return until

    def feed(self, event: Event, now: int) -> Step:
        """Feeds the engine, and keeps the step."""
        self.steps.append(self.engine.feed(event, now))
        return self.steps[-1]

    def get(self, case: Incident) -> Incident:
        """The incident as it stands."""
        found = self.engine.incident(case.id)
        assert found is not None
        return found

    def cases(self) -> list[Incident]:
        """The incidents as they stand, in the order in which they were opened."""
        return [self.get(case) for case in {case.id: case for step in self.steps for case in step.incidents}.values()]
