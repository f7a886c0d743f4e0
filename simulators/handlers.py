"""People in front of the central platform: they take cases on, send somebody, look, and finish; some of them late.

Everything that they do goes the way of a real platform's people: an act there, a signed callback, the gateway's answer.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final

import httpx

from gateway.core.moves import GATEWAY, STATE_TITLES, State
from simulators.processes import read_incidents

MINUTE_MS: Final = 60_000
LATE_SHARE: Final = 0.25
"""A quarter of the people take much longer than they may."""

QUIET_MS: Final = 10 * MINUTE_MS
"""Somebody goes there when nothing new has been told for so long: what is told afterwards is another case."""

AT_ONCE: Final = 8
FINISH_S: Final = 60.0

NEXT: Final = {
    "reported": "accepted",
    "filed": "dispatched",
    "dispatched": "arrived",
    "handling": "resolved",
    "fed_back": "verified",
    "verified": "closed",
}
"""What is done next in each state, in the platform's words (rules/platform.yaml)."""

PACE_MS: Final = {
    "accepted": (5_000, 45_000),
    "dispatched": (30_000, 150_000),
    "arrived": (4 * MINUTE_MS, 12 * MINUTE_MS),
    "resolved": (5 * MINUTE_MS, 20 * MINUTE_MS),
    "verified": (2 * MINUTE_MS, 8 * MINUTE_MS),
    "closed": (1 * MINUTE_MS, 4 * MINUTE_MS),
}
"""From when a step is awaited to when it is done; whoever is late takes six times as long. Our choice."""

Incident = Mapping[str, Any]

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} ")


class Handlers:
    """``list_incidents`` gives the platform's incidents as they stand, ``clock`` the simulated time in ms."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        clock: Callable[[], int],
        list_incidents: Callable[[], Sequence[Incident]],
        seed: int,
    ) -> None:
        self._client = client
        self._clock = clock
        self._list = list_incidents
        self._seed = seed
        self._busy: set[str] = set()
        self._done: set[tuple[str, str, int]] = set()
        self._whistled: str | None = None
        self._room = asyncio.Semaphore(AT_ONCE)
        self.answers: Counter[str] = Counter()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._begin(group, self._list(), is_last=False)
                await asyncio.sleep(0.25)

    async def finish(self) -> None:
        """The end of the shift: every case is finished now, whatever it waits for."""
        for _ in range(round(FINISH_S / 0.5)):
            incidents = await read_incidents(self._client) or ()
            async with asyncio.TaskGroup() as group:
                self._begin(group, incidents, is_last=True)
            if incidents and all(incident["state"] not in NEXT for incident in incidents):
                return
            await asyncio.sleep(0.5)

    def _begin(self, group: asyncio.TaskGroup, incidents: Sequence[Incident], *, is_last: bool) -> None:
        for incident in incidents:
            act = self._choose(incident, is_last=is_last)
            if act is not None and incident["id"] not in self._busy:
                self._busy.add(incident["id"])
                group.create_task(self._act(incident, act))

    def _choose(self, incident: Incident, *, is_last: bool) -> dict[str, Any] | None:
        """What somebody does now, or None while they still take their time."""
        due, state = incident["due"], incident["state"]
        if due is None or state not in NEXT:
            return None
        action = NEXT[state]
        if due["step"] == "report_in":
            action = "reported_in"
        elif state == "dispatched" and incident["accepted_at"] is None:
            action = "accepted"  # the gateway has sent somebody by itself, and no person knows of it yet
        elif state == "handling" and self._is_hard(incident):
            action = "whistled"
        if (incident["id"], action, due["since"]) in self._done:
            return None  # it has been done, and the list does not say so yet
        if not is_last and self._clock() < due["since"] + self._takes(incident, action):
            return None
        if not is_last and action == "arrived" and not self._is_quiet(incident):
            return None
        if action == "whistled":
            self._whistled = incident["id"]
        grid = due["grid"] if action == "reported_in" else ""
        reason = {"resolved": "现场已处置", "closed": "已核实", "whistled": "需要上级协助"}.get(action, "")
        return {"action": action, "user": f"sim-{due['role']}", "grid": grid, "reason": reason}

    def _takes(self, incident: Incident, action: str) -> int:
        rng = Random(f"{self._seed}/{incident['number']}/{action}")
        low, high = PACE_MS.get(action, (MINUTE_MS, 3 * MINUTE_MS))
        return round(rng.uniform(low, high)) * (6 if rng.random() < LATE_SHARE else 1)

    def _is_quiet(self, incident: Incident) -> bool:
        told = [line["at"] for line in incident["timeline"] if line["event"]]
        return self._clock() > max(told, default=0) + QUIET_MS

    def _is_hard(self, incident: Incident) -> bool:
        """One case needs more than those on site: the first that is being handled."""
        return self._whistled is None and not incident["whistles"]

    async def _act(self, incident: Incident, act: dict[str, Any]) -> None:
        due = incident["due"]
        try:
            async with self._room:
                answer = await self._client.post(f"/incidents/{incident['id']}/actions", json=act, timeout=30)
                status = answer.json().get("status", answer.status_code)
        except (httpx.HTTPError, ValueError):
            status = 0
        finally:
            self._busy.discard(incident["id"])
        self.answers["done" if status == 200 else "refused" if status == 409 else "failed"] += 1
        if status == 200:
            self._done.add((incident["id"], act["action"], due["since"]))


def tell_stages(incidents: Sequence[Incident]) -> str:
    """How the cases stand, in a line, in the loop's order."""
    whistled = [whistle for incident in incidents for whistle in incident["whistles"]]
    reported = sum(whistle["reported_at"] is not None for whistle in whistled)
    counts = _count_stages(incidents)
    stages = ", ".join(f"{STATE_TITLES[state]['zh']} {STATE_TITLES[state]['en']} {counts[state]}" for state in counts)
    late = sum(map(_is_late, incidents))
    return f"{stages or 'none'}; 超时 late {late}, 吹哨 whistled up {len(whistled)}, 报到 reported in {reported}"


def show_stages(incidents: Sequence[Incident]) -> str:
    """The same in a few characters: ``派遣 3 处置 4 结案 1 超时 2``."""
    late = sum(map(_is_late, incidents))
    shown = [f"{STATE_TITLES[state]['zh']} {count}" for state, count in _count_stages(incidents).items()]
    return " ".join([*shown, *([f"超时 {late}"] if late else [])])


def show_stage(incident: Incident) -> str:
    """A case's stage, whether it is late and whether a higher grid was called: ``处置 超时 吹哨``."""
    marks = [STATE_TITLES[State(incident["state"])]["zh"]]
    return " ".join([*marks, *(["超时"] if _is_late(incident) else []), *(["吹哨"] if incident["whistles"] else [])])


def tell_moment(incident: Incident, line: Mapping[str, Any]) -> str | None:
    """A line of the timeline that one wants to see as it happens; None for all others."""
    match line["what"]:
        case "overdue":
            due = _DAY.sub("", line["why"].partition(": ")[0])
            zh, what = "超时", due.replace("_", " ")
        case "dispatch" if line["who"] == GATEWAY:
            zh, what = "派遣", "by the gateway itself: nobody has called back"
        case "whistle":
            zh, what = "吹哨", f"{line['who']} calls {line['why'].rpartition('; ')[2]}"
        case "report_in":
            zh, what = "报到", f"{line['why'].rpartition('; ')[2]} has come"
        case "close" | "false_alarm" | "cancel":
            minutes = (line["at"] - incident["opened_at"]) / MINUTE_MS
            zh, what = ("结案" if line["what"] == "close" else "误报"), f"{minutes:.0f} min after it was opened"
        case _:
            return None
    return f"{zh} {incident['number']} {what}"


def _count_stages(incidents: Sequence[Incident]) -> dict[State, int]:
    counts = Counter(incident["state"] for incident in incidents)
    return {state: counts[state] for state in State if counts[state]}


def _is_late(incident: Incident) -> bool:
    return any(line["what"] == "overdue" for line in incident["timeline"])
