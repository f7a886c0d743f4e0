"""How long the appraisal of a month takes, on SQLite: incidents as the engine makes them, with their timelines."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace

from gateway.adapters.ledger import open_ledger
from gateway.core.model import Incident, Step
from gateway.runtime.appraisal import By, Question
from gateway.runtime.appraising import appraise_ledger, render_csv
from tests.core.worlds import COMMUNITY, real_catalog
from tests.ports.ledger_conformance import Hand
from tests.runtime.cases import D, Desk, at

MONTH = at("2026-11-01 00:00")
AT_ONCE = 1_000
STORIES = (
    ("accept", "dispatch", "arrive", "resolve", "verify", "close", "rate"),
    ("accept", "dispatch", "return", "arrive", "resolve", "verify", "close"),
    ("accept", "dispatch", "arrive", "whistle", "report_in", "resolve", "verify", "close"),
    ("call_back", "false_alarm"),
    ("accept", "dispatch"),
)


def run(count: int) -> dict[str, object]:
    """Writes so many incidents of one month, and appraises them by grid and by device."""
    catalog, templates = real_catalog(), make_templates()
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(f"sqlite:///{Path(folder)}/ledger.db")
        ledger.migrate()
        ledger.add_communities([COMMUNITY])
        hand = Hand(ledger)
        for start in range(0, count, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, count))
            hand.step(Step(incidents=tuple(make_incident(templates, number, count) for number in numbers)))
        taken: dict[str, object] = {"incidents": count, "bytes": (Path(folder) / "ledger.db").stat().st_size}
        for by in (By.GRID, By.DEVICE):
            begun = time.perf_counter()
            found = appraise_ledger(ledger, catalog, Question(by, MONTH, MONTH + 30 * D), MONTH + 30 * D)
            render_csv(found)
            taken[f"by_{by}_s"] = round(time.perf_counter() - begun, 2)
            assert found.total.number == count
        ledger.close()
    taken["lines_median"] = sorted(len(template.timeline) for template in templates)[len(templates) // 2]
    taken["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return taken


def make_templates() -> list[Incident]:
    """One incident for each story."""
    desk = Desk(MONTH)
    made: list[Incident] = []
    for number, story in enumerate(STORIES):
        case = desk.press(300 * number, "sos-1" if number % 2 else "sos-2")
        for minute, verb in enumerate(story):
            desk.act(case, 300 * number + 5 * minute + 0.5, verb)
        made.append(desk.get(case))
    return made


def make_incident(templates: list[Incident], number: int, count: int) -> Incident:
    """One of them under an id of its own, somewhere in the month."""
    return replace(
        templates[number % len(templates)],
        id=str(UUID(int=number)),
        number=f"JM-{number}",
        key=f"b{number}",
        devices=(f"sos-{number % 5_000}",),
        opened_at=MONTH + number * 30 * D // count,
    )
