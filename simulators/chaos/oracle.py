"""What must be true in the end: each acknowledged press stands exactly once, in the ledger and on the platform."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from simulators.chaos.presser import Press, Smoke
from simulators.platform import Store


class Findings(Struct, frozen=True):
    """``lost`` and ``doubled`` count presses and alarms; ``faults`` says each in words, the first of them.
    ``late_s`` is the longest time from the acknowledgement of a press to the platform."""

    presses: int
    alarms: int
    incidents: int
    lost: int
    doubled: int
    late_s: float
    faults: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Nothing is lost, doubled, misplaced or left over."""
        return not self.faults


def judge(
    presses: Sequence[Press],
    smokes: Sequence[Smoke],
    ledger: Sequence[Mapping[str, Any]],
    store: Path,
    waiting: int = 0,
    before: Mapping[str, int] | None = None,
) -> Findings:
    """``ledger`` are the gateway's incidents and notices as `gateway incidents` prints them, ``store`` is the
    platform's file; ``waiting`` messages still lie in spools, and should not any more. Of what is judged after all was
    stopped, ``before`` (`revisions_of`) is what the ledger had while all still ran: what its clock wrote in the last
    moment, as that it rings once more, is still on its way to the platform."""
    opened = Store(store)
    try:
        platform = [entry["incident"] for entry in opened.incidents()]
    finally:
        opened.close()
    incidents = [one for one in ledger if one.get("sort", "incident") == "incident"]
    faults: list[str] = []
    lost: set[str] = set()
    doubled: set[str] = set()
    devices = {press.event: press.device for press in presses}
    may_be = _count_possible(presses)
    for where, found in (("the ledger", incidents), ("the platform", platform)):
        lines = [(line["event"], one, line) for one in found for line in one["timeline"] if line.get("event")]
        times = Counter(event for event, _, _ in lines)
        for event, device in devices.items():
            if times[event] == 0:
                lost.add(event)
                faults.append(f"press {event} of {device} is not in {where}")
        for event, count in times.items():
            if count > 1:
                doubled.add(event)
                faults.append(f"event {event} stands {count} times in {where}")
        for event, one, line in lines:
            if event in devices and line.get("device", "") != devices[event]:
                lost.add(event)
                other = f"{line.get('device')} ({one['number']})"
                faults.append(f"press {event} of {devices[event]} stands in {where} as one of {other}")
        for device, told in _group_by_device(lines, may_be).items():
            if len(told) > may_be[device]:
                doubled.add(device)
                most = f"{device} can have been pressed {may_be[device]} times"
                faults.append(f"{most}, and {len(told)} presses of it stand in {where}")
        for source, spools in _group_by_source(lines).items():
            # None of the faults makes a spool take a new id: what is told anew under one is told twice.
            if len(spools) > 1:
                doubled.add(source)
                faults.append(f"{source} speaks in {where} from {len(spools)} spools: {', '.join(sorted(spools))}")
        fires = Counter(
            device for one in found if one["cause"] == "fire" for device in one.get("devices", ()) or ("nobody",)
        )
        for smoke in smokes:
            if fires[smoke.device] == 0:
                lost.add(smoke.device)
                faults.append(f"the smoke that {smoke.device} told is no incident in {where}")
        for device, count in fires.items():
            if count > 1:
                doubled.add(device)
                faults.append(f"the smoke of {device} is {count} incidents in {where}")
    due = revisions_of(incidents) if before is None else before
    faults += _compare(incidents, platform, due, doubled, lost)
    if waiting:
        faults.append(f"{waiting} messages still lie in spools")
    return Findings(
        len(presses),
        len(smokes),
        len(platform),
        len(lost),
        len(doubled),
        max_lateness(presses, store),
        tuple(faults),
    )


_Line = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""An event's id, the incident, and the line of its timeline."""


def _count_possible(presses: Sequence[Press]) -> dict[str, int]:
    """How many presses of a device there may be: those that were acknowledged, and one for each time that it was heard
    or may have been, and got no answer. Those within a second are one."""
    acknowledged: dict[str, set[str]] = {}
    unanswered: Counter[str] = Counter()
    for press in presses:
        acknowledged.setdefault(press.device, set()).add(press.event)
        unanswered[press.device] += press.heard - 1
    return {device: len(events) + unanswered[device] for device, events in acknowledged.items()}


def _group_by_device(lines: Sequence[_Line], devices: Iterable[str]) -> dict[str, set[str]]:
    """The events of each of the devices, as their sources numbered them."""
    found: dict[str, set[str]] = {device: set() for device in devices}
    for event, _, line in lines:
        device = line.get("device", "")
        if device in found and _is_numbered(event):
            found[device].add(event)
    return found


def _group_by_source(lines: Sequence[_Line]) -> dict[str, set[str]]:
    """The spools that each source's events name."""
    found: dict[str, set[str]] = {}
    for event, _, _ in lines:
        if _is_numbered(event):
            source, spool, *_ = event.split("/")
            found.setdefault(source, set()).add(spool)
    return found


def _is_numbered(event: str) -> bool:
    """Whether it is ``source/spool/lane/seq/index``."""
    return event.count("/") == 4


def revisions_of(ledger: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Incident → its revision in the ledger."""
    return {one["id"]: one["revision"] for one in ledger if one.get("sort", "incident") == "incident"}


def _compare(
    ledger: Sequence[Mapping[str, Any]],
    platform: Sequence[Mapping[str, Any]],
    due: Mapping[str, int],
    doubled: set[str],
    lost: set[str],
) -> list[str]:
    faults = []
    known = {one["id"]: one for one in ledger}
    there = {one["id"]: one for one in platform}
    for id in there.keys() - known.keys():
        doubled.add(id)
        faults.append(f"the platform has incident {there[id]['number']}, and the ledger has not")
    for id in due.keys() - known.keys():
        lost.add(id)
        faults.append(f"the ledger had incident {id}, and has it no more")
    for id in (due.keys() & known.keys()) - there.keys():
        lost.add(id)
        faults.append(f"the ledger has incident {known[id]['number']}, and the platform has not")
    for id in due.keys() & known.keys() & there.keys():
        ours, theirs = due[id], there[id]["revision"]
        # The clock writes on (it rings, it warns) while both sides are read, the ledger first.
        if theirs < ours:
            where = f"revision {ours} in the ledger and {theirs} on the platform"
            faults.append(f"incident {known[id]['number']} has {where}")
    return faults


def read_arrivals(store: Path) -> dict[str, float]:
    """Event id → when the platform first had it, in seconds since 1970."""
    arrived: dict[str, float] = {}
    for data, at in _read_revisions(store):
        for line in data["timeline"]:
            if line.get("event"):
                arrived.setdefault(line["event"], at)
    return arrived


def max_lateness(presses: Iterable[Press], store: Path) -> float:
    """The longest time from the acknowledgement of a press to the platform, in seconds."""
    arrived = read_arrivals(store)
    late = [arrived[press.event] - press.acknowledged_at for press in presses if press.event in arrived]
    return round(max(late, default=0.0), 1)


def _read_revisions(store: Path) -> list[tuple[dict[str, Any], float]]:
    with closing(sqlite3.connect(store)) as db:
        rows = db.execute("SELECT data, received_at FROM revision ORDER BY received_at, rowid").fetchall()
    return [(msgspec.json.decode(data), at / 1000) for data, at in rows]
