"""The community's open incidents: opening, joining, clearing, answering with commands. Also routing's view of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from gateway.core import incident as cases
from gateway.core.catalog import Catalog
from gateway.core.incident import Signal
from gateway.core.model import (
    NOTHING,
    Command,
    CursorMove,
    Deliver,
    Device,
    DeviceState,
    Effect,
    Incident,
    Level,
    Rejected,
    Sort,
    Step,
    Transition,
)
from gateway.core.registry import KnownDevice, Registry
from gateway.core.routing import Case, Finding
from gateway.core.rule import Response, ScopeKind, Watch, format_day
from gateway.core.state import CommunityState

COMMAND_TTL_MS: Final = 5 * 60_000
"""A command that could not be given within five minutes is given no more: a valve is not closed an hour later."""

LAMP: Final = "lamp"
"""The command of a button's lamps, ``{show: recorded | coming | off}``."""

UNRULED_CATEGORY: Final = "ext:21-03"
"""One-button alarm: what nobody has a rule for, but somebody pressed."""

WHY_LIMIT: Final = 400


class Draft:
    """The step in the making."""

    __slots__ = ("answer", "devices", "effects", "incidents", "judged", "rejected", "revisions", "transitions")

    def __init__(self) -> None:
        self.transitions: list[Transition] = []
        self.incidents: dict[str, Incident] = {}
        self.revisions: dict[str, int] = {}
        self.effects: list[Effect] = []
        self.rejected: list[Rejected] = []
        self.devices: list[Device] = []
        self.answer = ""
        self.judged = 0

    def is_plain(self) -> bool:
        """Whether nothing came of the event but that it was taken in."""
        return not (self.transitions or self.incidents or self.rejected or self.effects)

    def finish(self, move: CursorMove | None) -> Step:
        """The step. Of each incident only its newest revision is delivered."""
        if not (move or self.devices or self.answer) and self.is_plain():
            return NOTHING
        delivered = [
            Deliver(f"{incident.id}/{incident.revision}", incident)
            for incident in self.incidents.values()
            if incident.sort is Sort.INCIDENT
        ]
        return Step(
            tuple(self.transitions),
            tuple(self.incidents.values()),
            (*delivered, *self.effects),
            tuple(self.rejected),
            tuple(self.devices),
            move,
            self.answer,
            self.judged,
        )


class Casebook:
    """Open incidents by id and by (cause, key), and which watches keep them firing. Writes into the current draft."""

    def __init__(self, catalog: Catalog, registry: Registry, state: CommunityState) -> None:
        self.catalog = catalog
        self.draft = Draft()
        self.now = state.now
        self._registry = registry
        self._incidents = {incident.id: incident for incident in state.incidents}
        self._open = {(i.cause, i.key): i.id for i in state.incidents}
        self._firing: dict[str, set[tuple[str, str]]] = {}
        self._commands = dict(state.commands)
        self._day = state.day
        self._number = state.number

    def begin(self, now: int) -> Draft:
        """A new event at ``now``: its step begins."""
        self.now = now
        self.draft = Draft()
        return self.draft

    def dump_into(self, state: CommunityState) -> None:
        """Writes the incidents' part of a checkpoint."""
        state.incidents = list(self._incidents.values())
        state.commands = dict(self._commands)
        state.day, state.number = self._day, self._number

    def get(self, id: str) -> Incident | None:
        """An open incident."""
        return self._incidents.get(id)

    # --- what routing asks -----------------------------------------------------------------------------------

    def is_source_out(self, source: str) -> bool:
        known = self._registry.sources.get(source)
        return known is not None and (known.out_since is not None or known.outage is not None)

    def source_device(self, source: str) -> str | None:
        known = self._registry.sources.get(source)
        return None if known is None else known.source.device

    def open_incident(self, cause: str, key: str) -> Incident | None:
        id = self._open.get((cause, key))
        return None if id is None else self._incidents.get(id)

    def count_open(self, cause: str, start: str) -> int:
        """How many incidents of the cause, with a key that starts so, can still be joined."""
        return sum(1 for known, key in self._open if known == cause and key.startswith(start))

    def within(self, place: str, kind: str) -> str:
        return self._registry.within(place, kind)

    def label(self, place: str) -> str:
        return self._registry.label(place)

    def grid_of(self, place: str) -> str:
        return self._registry.grid_of(place)

    def body_of(self, category: str) -> str:
        found = self.catalog.categories.get(category)
        return found.body if found is not None else ""

    # --- opening and joining ---------------------------------------------------------------------------------

    def take(self, case: Case) -> Incident:
        """Opens or joins the incident that routing decided on."""
        finding = case.finding
        rule, signal = finding.rule, finding.signal
        if case.joins is not None:
            return self._put(cases.join(case.joins, signal, case.level, self.now))
        name = finding.device.name or finding.device.id if finding.device is not None else finding.key
        draft = self._prepare(rule.cause, case.key, case.place, rule.category, signal)
        draft = replace(
            draft,
            sort=rule.sort,
            level=case.level,
            rule=rule.id,
            title=_fill(rule.incident_title, case.place_name, name),
            place_name=case.place_name,
            grid=case.grid,
            body=case.body,
        )
        return self._start(draft, case.outlived, signal)

    def open_or_join(self, cause: str, key: str, place: str, title: Mapping[str, str], signal: Signal) -> Incident:
        """For what no rule stands behind: the open incident of this cause and key, or a new, critical one."""
        found = self.open_incident(cause, key)
        if found is not None and cases.is_joinable(found, self.now):
            return self._put(cases.join(found, signal, found.level, self.now))
        draft = self._prepare(cause, key, place, UNRULED_CATEGORY, signal)
        return self._start(replace(draft, title=_fill(title, draft.place_name, key)), found, signal)

    def _prepare(self, cause: str, key: str, place: str, category: str, signal: Signal) -> Incident:
        day = format_day(self.now)
        if day != self._day:
            self._day, self._number = day, 0
        self._number += 1
        community, position = self._registry.community, self._registry.position(place)
        return Incident(
            id=cases.derive_id(community.id, cause, key, signal.event),
            # The community's serial stands in it, so that no counter has to be shared by the whole district.
            number=f"JM{day}-{community.serial:03d}-{self._number:03d}",
            sort=Sort.INCIDENT,
            community=community.id,
            cause=cause,
            key=key,
            category=category,
            level=Level.CRITICAL,
            title={},
            place=place,
            place_name=self.label(place),
            grid=self.grid_of(place),
            body=self.body_of(category),
            rule="",
            opened_by=signal.event,
            opened_at=self.now,
            updated_at=self.now,
            revision=0,
            state=cases.State.REPORTED,
            joinable=True,
            lon=None if position is None else position[0],
            lat=None if position is None else position[1],
        )

    def _start(self, draft: Incident, outlived: Incident | None, signal: Signal) -> Incident:
        if outlived is not None:
            draft = replace(draft, linked=outlived.id)
            if outlived.joinable:
                self._put(cases.end_joining(outlived, self.now))
        return self._put(cases.start(draft, signal, self.now))

    def _put(self, incident: Incident) -> Incident:
        """Takes an incident as changed into the state and the step. What one step changes is one revision."""
        known = self._incidents.get(incident.id)
        before = self.draft.revisions.setdefault(incident.id, known.revision if known is not None else 0)
        if incident.revision != before + 1:
            incident = replace(incident, revision=before + 1)
        self.draft.incidents[incident.id] = incident
        slot = (incident.cause, incident.key)
        if incident.joinable:
            self._open[slot] = incident.id
        if incident.state in cases.FINAL:
            self._incidents.pop(incident.id, None)
            self._firing.pop(incident.id, None)
            self._commands = {id: case for id, case in self._commands.items() if case != incident.id}
            if self._open.get(slot) == incident.id:
                del self._open[slot]
        else:
            self._incidents[incident.id] = incident
        return incident

    # --- what happens to open ones ---------------------------------------------------------------------------

    def keep_firing(self, watch: Watch) -> None:
        """The watch's condition stands behind its incident."""
        if watch.incident is not None:
            self._firing.setdefault(watch.incident, set()).add((watch.rule.id, watch.key))

    def forget_firing(self) -> None:
        """The watches are bound anew: those that fire say so again."""
        self._firing = {}

    def clear(self, watch: Watch, event: str) -> None:
        """The watch's condition is over; the incident is clear when no other watch keeps it firing."""
        incident = self._incidents.get(watch.incident) if watch.incident is not None else None
        if incident is None:
            return
        firing = self._firing.get(incident.id, set())
        firing.discard((watch.rule.id, watch.key))
        if firing:
            return
        cleared = self._put(cases.clear(incident, watch.rule.id, event, self.now))
        if cleared.state in cases.FINAL:
            for source in self._registry.sources.values():
                if source.outage == incident.id:
                    source.outage = None

    def act(self, id: str, incident: str, actor: str, verb: str, reason: str) -> str:
        """A person's move, by the action's id: ``done``, or in words why not."""
        known = self._incidents.get(incident)
        if known is None:
            return "no such open incident in this community"
        moved = cases.act(known, actor, verb, reason, self.now)
        if isinstance(moved, str):
            return moved
        taken = self._put(moved)
        if verb == "accept":
            self._show_coming(taken, id)
        return "done"

    def _show_coming(self, incident: Incident, action: str) -> None:
        """A person has seen it: the second lamp at the buttons that were pressed says that somebody is coming."""
        for name in incident.devices:
            known = self._registry.devices.get(name)
            if known is None or LAMP not in known.profile.commands:
                continue
            command = cases.derive_command_id(incident.id, "", action, name, LAMP)
            self._command(command, known, LAMP, {"show": "coming"}, incident.id)

    def hide(self, source: str, device: str, rule: str) -> None:
        """A device's silence is explained by its source's; it stands under the incident of the outage."""
        known = self._registry.sources[source]
        if device in known.hidden:
            return
        known.hidden[device] = None
        outage = self._incidents.get(known.outage) if known.outage is not None else None
        if outage is not None:
            self._put(cases.swallow(outage, device, rule, self.now))

    def take_in(self, source: str, incident: str) -> None:
        """The source's outage has its incident: the devices whose silence it explains stand under it."""
        known = self._registry.sources.get(source)
        if known is None:
            return
        known.outage = incident
        for device in known.hidden:
            self._put(cases.swallow(self._incidents[incident], device, "silent since its source is", self.now))

    # --- commands --------------------------------------------------------------------------------------------

    def respond(self, incident: Incident, finding: Finding) -> None:
        """Commands what the rule says, and writes down whom."""
        for response in finding.rule.respond:
            targets = self._targets(response, finding)
            for target in targets:
                device = target.device.id
                id = cases.derive_command_id(
                    incident.id, finding.rule.id, finding.signal.event, device, response.command
                )
                self._command(id, target, response.command, response.args, incident.id)
            if targets:
                why = f"{response.command} → {', '.join(target.device.id for target in targets)}"
            else:
                why = f"{response.command}: no device in this {response.zone} can do it"
            self._put(cases.note(self._incidents[incident.id], "commanded", why[:WHY_LIMIT], self.now))

    def _command(self, id: str, device: KnownDevice, name: str, args: dict[str, object], incident: str) -> None:
        community, until = self._registry.community.id, self.now + COMMAND_TTL_MS
        self.draft.effects.append(Command(id, community, device.source, device.device.id, name, args, until, incident))
        self._commands[id] = incident

    def _targets(self, response: Response, finding: Finding) -> list[KnownDevice]:
        devices = self._registry.devices
        candidates: Iterable[KnownDevice]
        if response.zone is ScopeKind.DEVICE:
            own = devices.get(finding.device.id) if finding.device is not None else None
            candidates = () if own is None else (own,)
        elif response.zone is ScopeKind.SOURCE:
            candidates = [d for d in devices.values() if d.source == finding.source]
        else:
            candidates = self._registry.in_zone(finding.place, response.zone)
        return [
            d
            for d in candidates
            if response.command in d.profile.commands and d.device.state is not DeviceState.RETIRED
        ]

    def hear_answer(self, command: str, device: str, outcome: str, incident_id: str = "") -> None:
        """A command's outcome is written to the incident that it was for; that of an act of the agent's own to the one
        that it names."""
        known = self._commands.pop(command, None)
        incident = self._incidents.get(known or incident_id)
        if incident is None:
            return
        outcome = outcome[:WHY_LIMIT]
        is_told = any((line.what, line.device, line.why) == ("answered", device, outcome) for line in incident.timeline)
        # Of what it was not asked for, a source tells once, and not without end.
        if known is not None or not (is_told or len(incident.timeline) >= cases.PRESS_LINES):
            self._put(cases.note(incident, "answered", outcome, self.now, device=device))


def _fill(title: Mapping[str, str], place: str, device: str) -> dict[str, str]:
    return {language: text.replace("{place}", place).replace("{device}", device) for language, text in title.items()}
