"""Rule evaluations per second on one core: every rule looks at every reading, none is skipped by an index."""

from __future__ import annotations

import resource
import time
from typing import Final

from gateway.core.catalog import Catalog, build_catalog
from gateway.core.engine import Engine
from gateway.core.model import Community, Delivery, Device, Place, PlaceKind, RegistryChange, Source
from gateway.core.state import CommunityState
from gateway.wire import Lane, Measurement, Message
from tests.core.worlds import ROOT

RULES: Final = 300
DEVICES: Final = 50
START: Final = 1_795_435_200_000


def make_catalog(rules: int = RULES) -> Catalog:
    """The shipped vocabulary, profiles and tables, and ``rules`` rules on one reading: thresholds with and without
    hold, bands, hysteresis, rates, schedules and conjunctions, in turn. About one reading in a hundred crosses the
    lowest thresholds. Each is written so that the engine has no band of values to spare it by: it is asked of every
    reading."""
    files = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for pattern in ("device_profiles/**/*.yaml", "rules/*.yaml")
        for path in sorted(ROOT.glob(pattern))
    }
    shapes = (
        "when: {{not: {{temperature: {{between: [-40, {high}]}}}}}}",
        "when: {{not: {{temperature: {{above: {low}}}}}}}\nhold: 30s",
        "when: {{temperature: {{between: [{high}, 140]}}}}\nhold: 1m",
        "when: {{not: {{temperature: {{below: {high}}}}}}}\nclear: {{when: {{temperature: {{below: 40}}}}, hold: 1m}}",
        "when: {{not: {{temperature: {{rate: {{within: 10m, below: {rise}}}}}}}}}",
        "when: {{all: [{{not: {{temperature: {{below: {high}}}}}}}, {{humidity: {{above: 30}}}}]}}\nhold: 20s",
        "when: {{not: {{temperature: {{below: {high}}}}}}}\nschedule: {{times: ['22:00-06:00']}}",
        "when: {{not: {{temperature: {{below: {{attribute: temperature_high, default: {high}}}}}}}}}",
    )
    for number in range(rules):
        body = shapes[number % len(shapes)].format(high=60 + number % 40, low=-10 - number % 20, rise=30 + number % 40)
        files[f"rules/bench/rule-{number:03d}.yaml"] = (
            f"id: bench.rule-{number:03d}\n"
            f"title: {{zh: 测量, en: Measured}}\n"
            "status: shadow\n"
            "scope: device\n"
            "kinds: [climate]\n"
            f"{body}\n"
            f"incident: {{cause: bench-{number:03d}, at: device, category: 'ext:21-08'}}\n"
        )
    return build_catalog(files)


def make_engine(catalog: Catalog) -> Engine:
    engine = Engine(catalog, CommunityState(Community("bench", 1, "bench")))
    devices = tuple(Device(f"room-{n:02d}", "temperature-humidity", "agent", "bench") for n in range(DEVICES))
    change = RegistryChange(
        "bench", (Place("bench", PlaceKind.COMMUNITY, "bench"),), (Source("agent", "bench"),), devices
    )
    step = engine.feed(change, START)
    if step.answer != "done":
        raise SystemExit(step.answer)
    return engine


def run(seconds: float = 5.0) -> dict[str, object]:
    """Feeds packs of one temperature of each device for so many seconds. The memory is the process's peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine = make_engine(make_catalog())
    bound = {len(engine.explain(f"room-{n:02d}", START)) for n in range(DEVICES)}
    if bound != {RULES}:
        raise SystemExit(f"not every rule looks at every reading: {bound}")
    if any(len(engine._registry.cells[f"room-{n:02d}:temperature"].open) != RULES for n in range(DEVICES)):
        raise SystemExit("an index spares some rules some readings: the figure would not count evaluations")
    packs = _packs(2000)
    for delivery, now in packs[:100]:
        engine.feed(delivery, now)
    readings = transitions = 0
    started = time.process_time()
    for delivery, now in packs[100:]:
        step = engine.feed(delivery, now)
        readings += step.judged
        transitions += len(step.transitions)
        if time.process_time() - started > seconds:
            break
    spent = time.process_time() - started
    return {
        "rules": RULES,
        "readings": readings,
        "transitions": transitions,
        "evaluations_per_s": round(readings * RULES / spent),
        "readings_per_s": round(readings / spent),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "memory_before_mb": round(before / 1024, 1),
    }


def _packs(count: int) -> list[tuple[Delivery, int]]:
    packs = []
    for number in range(count):
        now = START + number * 5_000
        measured = [
            Measurement(
                f"room-{n:02d}:temperature", 20.0 + (n * 7 + number) % 13 + (45.0 if (number + n) % 97 == 0 else 0.0)
            )
            for n in range(DEVICES)
        ]
        message = Message("bench", "agent", Lane.TELEMETRY, "spool", number + 1, 1, now, now, (), measured, (), number)
        packs.append((Delivery(message, b""), now))
    return packs
