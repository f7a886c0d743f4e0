"""The community's incidents: opening, joining, swallowing, clearing, answering with commands; and routing's view."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from gateway.core import incident as cases
from gateway.core.catalog import Catalog
from gateway.core.duty import Duty
from gateway.core.incident import Signal
from gateway.core.loop import STORM, Loop
from gateway.core.model import (
    NOTHING,
    TIMED_OUT,
    Command,
    CursorMove,
    Deliver,
    Device,
    DeviceState,
    Effect,
    Incident,
    Level,
    Member,
    OperatorAction,
    Order,
    Rejected,
    Silence,
    Sort,
    Step,
    Told,
    Transition,
)
from gateway.core.moves import State
from gateway.core.ordering import ORDER_TTL_MS, refuse_order
from gateway.core.registry import KnownDevice, Registry
from gateway.core.routing import Case, Finding, storm_counts
from gateway.core.rule import Response, ScopeKind, Watch, format_day
from gateway.core.state import CommunityState, Swelling

COMMAND_TTL_MS: Final = 5 * 60_000
"""A command that could not be given within five minutes is given no more: a valve is not closed an hour later."""

LAMP: Final = "lamp"
"""The command of a button's lamps, ``{show: recorded | coming | off}``."""

UNRULED_CATEGORY: Final = "ext:21-03"
"""One-button alarm: what nobody has a rule for, but somebody pressed."""

STORM_CATEGORY: Final = "ext:21-16"
"""Too many alarms at once: the grid centre looks into what is behind them."""

_STORM_TITLE: Final = {"zh": "{place} 短时大量告警", "en": "{place}: a storm of alarms"}

UPSTREAM: Final = ("panel", "powered_by")
"""Attributes of a device that name the device it hangs on: its fire panel, what feeds it."""

OUTAGES: Final = ("device-down", "power-lost")
"""Causes of the cases that say that a device is out, and so explain the silence of what hangs on it."""

SWELL_MS: Final = 10_000
"""What an incident swallows, and how often it flaps, is told after so long at the latest: a storm of a thousand
findings is not a thousand revisions."""

TOLD_LINES: Final = 500
"""An incident with so many lines no longer says whom each call has reached."""

CLEARS_LIMIT: Final = 4096
"""Causes and keys of which it is remembered when they cleared."""

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
    """Open incidents by id and by (cause, key), and which watches keep them firing. Writes into the current draft.

    What has come to an end stays in the book for a while, so that it can be rated or opened again; then it is only in
    the ledger. ``loop`` says what becomes of the incidents as people act and time passes."""

    def __init__(self, catalog: Catalog, registry: Registry, state: CommunityState) -> None:
        self.draft = Draft()
        self.now = state.now
        self._registry = registry
        self._duty = Duty(catalog, registry)
        self.loop = Loop(self, self._duty, registry)
        self._incidents = {incident.id: incident for incident in state.incidents}
        self._open: dict[tuple[str, str], str] = {}
        for incident in sorted(state.incidents, key=lambda i: i.joinable):
            if not cases.is_over(incident):
                self._open[incident.cause, incident.key] = incident.id
        self._settled = {(i.cause, i.key): i.id for i in state.incidents if cases.is_settled(i)}
        self._firing: dict[str, set[tuple[str, str]]] = {}
        self._commands = dict(state.commands)
        self._day = state.day
        self._number = state.number
        self._swelling = {swelling.incident: swelling for swelling in state.swelling}
        self._clears = {slot: list(times) for slot, times in state.clears.items()}
        self._openings = list(state.openings)
        self._due: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._schedule_all()

    @property
    def catalog(self) -> Catalog:
        """The catalog in force."""
        return self._duty.catalog

    @catalog.setter
    def catalog(self, catalog: Catalog) -> None:
        self._duty.catalog = catalog
        self._schedule_all()

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
        state.swelling = list(self._swelling.values())
        state.clears = {slot: list(times) for slot, times in self._clears.items()}
        state.openings = list(self._openings)

    def get(self, id: str) -> Incident | None:
        """An incident of this community: an open one, or one that ended lately."""
        return self._incidents.get(id)

    def list_open(self) -> list[Incident]:
        """The open incidents and notices, by id."""
        return [self._incidents[id] for id in sorted(self._incidents) if not cases.is_over(self._incidents[id])]

    # --- what routing asks -----------------------------------------------------------------------------------

    def is_source_out(self, source: str) -> bool:
        known = self._registry.sources.get(source)
        return known is not None and (known.out_since is not None or known.outage is not None)

    def is_unreachable(self, source: str) -> bool:
        known = self._registry.sources.get(source)
        return known is not None and known.out_since is not None

    def source_device(self, source: str) -> str | None:
        known = self._registry.sources.get(source)
        return None if known is None else known.source.device

    def upstream_of(self, device: str) -> str | None:
        """What the device hangs on (its panel, its power) that is out, or has not been heard of since the device
        should have been: then nobody can know yet whose silence it is."""
        known = self._registry.devices.get(device)
        if known is None or known.heard.heartbeat is None:
            return None
        silent_from = known.heard.at + known.heard.heartbeat + known.heard.excused
        for name in UPSTREAM:
            above = self._registry.devices.get(str(known.device.attributes.get(name, "")))
            if above is None or above is known:
                continue
            is_silent = above.heard.heartbeat is not None and above.heard.at < silent_from
            if is_silent or self.outage_of(above.device.id) is not None:
                return above.device.id
        return None

    def outage_of(self, device: str) -> Incident | None:
        """The open case that says that a device is out."""
        for cause in OUTAGES:
            found = self.open_incident(cause, device)
            if found is not None:
                return found
        return None

    def open_incident(self, cause: str, key: str) -> Incident | None:
        id = self._open.get((cause, key))
        return None if id is None else self._incidents.get(id)

    def settled_notice(self, cause: str, key: str, at: int) -> Incident | None:
        """The notice of this cause and key that was over by itself so short a time before ``at`` that its return is
        flapping."""
        found = self._incidents.get(self._settled.get((cause, key), ""))
        if found is None or found.cleared_at is None or found.cleared_at <= at - self.catalog.policy.flap_window:
            return None
        return found

    def count_open(self, cause: str, start: str) -> int:
        """How many incidents of the cause, with a key that starts so, can still be joined."""
        return sum(1 for known, key in self._open if known == cause and key.startswith(start))

    def silence_of(self, rule: str, device: str | None, place: str) -> Silence | None:
        return self._registry.silence_of(rule, device, place, self.now)

    def is_life_safety(self, category: str) -> bool:
        found = self.catalog.categories.get(category)
        return found is not None and found.life_safety

    def is_storm(self) -> bool:
        """Whether, with one more, more cases than the policy allows would have been opened within its window."""
        policy = self.catalog.policy
        if len(self._openings) < policy.storm_incidents:
            return False
        return self._openings[-policy.storm_incidents] > self.now - policy.storm_window

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
            return self._join(case.joins, signal, case.level)
        if storm_counts(rule, signal, self):
            self._count_opening()
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
        if found is not None and cases.takes(found, signal, self.now):
            return self._join(found, signal, found.level)
        draft = self._prepare(cause, key, place, UNRULED_CATEGORY, signal)
        return self._start(replace(draft, title=_fill(title, draft.place_name, key)), found, signal)

    def take_storm(self, finding: Finding) -> Incident:
        """Too much at once: the community's storm takes the finding in, and lists it."""
        self._count_opening()
        root = self._registry.root()
        found = self.open_incident(STORM, root)
        why = finding.rule.title.get("zh", finding.rule.id)
        until = self.now + self.catalog.policy.storm_window
        if found is None or not cases.is_joinable(found, self.now):
            signal = Signal(finding.signal.event, finding.signal.at, "", (), f"{why}: more than the policy's rate")
            draft = self._prepare(STORM, root, root, STORM_CATEGORY, signal)
            title = _fill(_STORM_TITLE, draft.place_name, "")
            opened = self._start(replace(draft, title=title, level=Level.URGENT), found, signal)
            found = self.put(replace(opened, joinable_until=until))
        member = Member(self.now, finding.full_key, finding.rule.id, why, finding.signal.event)
        self._swell(cases.swallow(replace(found, joinable_until=until), member))
        return found

    def _join(self, incident: Incident, signal: Signal, level: Level) -> Incident:
        if cases.is_over(incident):
            incident = self.put(cases.come_back(incident, self.now))
        has_come_back = incident.cleared_at is not None and not signal.is_press
        if has_come_back and level.rank <= incident.level.rank and self._is_flapping(incident):
            return self._swell(cases.take_signal(incident, signal))
        joined = self.put(cases.join(incident, signal, level, self.now))
        return self.loop.rise(joined) if joined.level is not incident.level else joined

    def _count_opening(self) -> None:
        self._openings.append(self.now)
        del self._openings[: -self.catalog.policy.storm_incidents - 1]

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
            chain=self._registry.grid_chain(place),
            body=self.body_of(category),
            rule="",
            opened_by=signal.event,
            opened_at=self.now,
            updated_at=self.now,
            revision=0,
            state=State.REPORTED,
            joinable=True,
            lon=None if position is None else position[0],
            lat=None if position is None else position[1],
            simulated=self._registry.is_simulated(),
        )

    def _start(self, draft: Incident, outlived: Incident | None, signal: Signal) -> Incident:
        if outlived is not None:
            draft = replace(draft, linked=outlived.id)
            if outlived.joinable:
                self.put(cases.end_joining(outlived, self.now))
        return self.loop.begin(self.put(cases.start(draft, signal, self.now)))

    def put(self, incident: Incident) -> Incident:
        """Takes an incident as changed into the state and the step. What one step changes is one revision."""
        if incident.simulated and not self._registry.is_simulated():
            # Its community is real from now on. The other way round nothing is taken back: what was real stays so.
            incident = replace(incident, simulated=False)
        known = self._incidents.get(incident.id)
        before = self.draft.revisions.setdefault(incident.id, known.revision if known is not None else 0)
        if incident.revision != before + 1:
            acted = before + 1 if incident.acted > before else incident.acted
            incident = replace(incident, revision=before + 1, acted=acted)
        self.draft.incidents[incident.id] = incident
        slot = (incident.cause, incident.key)
        if cases.is_over(incident):
            self._firing.pop(incident.id, None)
            self._commands = {id: case for id, case in self._commands.items() if case != incident.id}
            if self._open.get(slot) == incident.id:
                del self._open[slot]
            if cases.is_settled(incident):
                self._settled[slot] = incident.id
        elif incident.joinable or slot not in self._open:
            self._open[slot] = incident.id
        self._incidents[incident.id] = incident
        self._schedule(incident)
        return incident

    def archive(self, incident: Incident) -> None:
        """It ended long ago: from now on it is in the ledger alone."""
        self._incidents.pop(incident.id, None)
        self._swelling.pop(incident.id, None)
        self._due.pop(incident.id, None)
        if self._settled.get((incident.cause, incident.key)) == incident.id:
            del self._settled[incident.cause, incident.key]

    def absorb(self, into: Incident, taken: Incident, member: Member) -> None:
        """One incident takes another in: its devices, its level, and what keeps it firing."""
        devices = tuple(dict.fromkeys((*into.devices, *taken.devices)))
        level = max(into.level, taken.level, key=lambda level: level.rank)
        grown = cases.note(into, "took_in", member.why, self.now)
        grown = self.put(cases.swallow(replace(grown, devices=devices, level=level), member))
        if level is not into.level:
            self.loop.rise(grown)

    def is_slot_free(self, incident: Incident) -> bool:
        """Whether no other open incident of this cause and key could be joined."""
        return (incident.cause, incident.key) not in self._open

    def emit(self, effect: Effect) -> None:
        """An effect of the step in the making."""
        self.draft.effects.append(effect)

    # --- what changes too often to be told each time ---------------------------------------------------------

    def _swell(self, incident: Incident) -> Incident:
        """Changes an incident now, and tells of it a little later, with all that has come by then."""
        known = self._incidents[incident.id]
        if incident.id not in self._swelling:
            self._swelling[incident.id] = Swelling(incident.id, self.now + SWELL_MS, len(known.members), known.flaps)
        self._incidents[incident.id] = incident
        if incident.id in self.draft.incidents:
            self.draft.incidents[incident.id] = replace(incident, revision=self.draft.revisions[incident.id] + 1)
        self._schedule(incident)
        return incident

    def _flush(self, swelling: Swelling) -> None:
        incident = self._incidents[swelling.incident]
        del self._swelling[swelling.incident]
        taken, flaps = len(incident.members) - swelling.members, incident.flaps - swelling.flaps
        if taken:
            newest = incident.members[-1]
            why = f"{newest.key}: {newest.why}" if taken == 1 else f"{taken} findings, the last {newest.key}"
            incident = cases.note(incident, "swallowed", why[:WHY_LIMIT], self.now)
        if flaps:
            incident = cases.note(incident, "flapping", f"came and went {flaps} times more", self.now)
        self.put(incident if taken or flaps else replace(incident, revision=incident.revision + 1, updated_at=self.now))

    def _is_flapping(self, incident: Incident) -> bool:
        """Whether the cause has cleared here as often as the policy calls flapping."""
        policy = self.catalog.policy
        times = self._clears.get(_slot(incident), [])
        return len(times) >= policy.flap_times and times[-policy.flap_times] > self.now - policy.flap_window

    def _count_clear(self, incident: Incident) -> None:
        policy, slot = self.catalog.policy, _slot(incident)
        kept = [time for time in self._clears.get(slot, []) if time > self.now - policy.flap_window]
        self._clears[slot] = [*kept, self.now][-policy.flap_times :]
        if len(self._clears) > CLEARS_LIMIT:
            newest = {slot: times for slot, times in self._clears.items() if times[-1] > self.now - policy.flap_window}
            self._clears = newest

    # --- time ------------------------------------------------------------------------------------------------

    def next_due(self, until: int | None = None) -> int | None:
        """When an incident wants to be looked at next, at the latest at ``until``."""
        while self._heap:
            time, id = self._heap[0]
            if until is not None and time > until:
                return None
            if self._due.get(id) == time:
                return time
            heapq.heappop(self._heap)
        return None

    def has_due_before(self, time: int) -> bool:
        """Whether anything may want to be looked at before that time."""
        return bool(self._heap) and self._heap[0][0] < time

    def fire_next(self) -> None:
        """Acts on the incident that `next_due` spoke of."""
        time, id = heapq.heappop(self._heap)
        del self._due[id]
        incident = self._incidents[id]
        swelling = self._swelling.get(id)
        if swelling is not None and swelling.flush_at <= time:
            self._flush(swelling)
        elif (due := self.loop.next_at(incident)) is not None and due <= time:
            self.loop.expire(incident, time)
            self._end_outage(self._incidents.get(id))
        else:
            self._schedule(incident)

    def _schedule(self, incident: Incident) -> None:
        times = [time for time in (self.loop.next_at(incident),) if time is not None]
        swelling = self._swelling.get(incident.id)
        if swelling is not None:
            times.append(swelling.flush_at)
        if not times:
            self._due.pop(incident.id, None)
        elif self._due.get(incident.id) != (time := min(times)):
            self._due[incident.id] = time
            heapq.heappush(self._heap, (time, incident.id))

    def _schedule_all(self) -> None:
        self._due, self._heap = {}, []
        for incident in self._incidents.values():
            self._schedule(incident)

    def relocate(self) -> None:
        """Places or grids have changed: the open incidents follow."""
        for incident in self.list_open():
            self.loop.relocate(incident)

    # --- what happens to open ones ---------------------------------------------------------------------------

    def keep_firing(self, watch: Watch) -> None:
        """The watch's condition stands behind its incident."""
        if watch.incident is not None:
            self._firing.setdefault(self._merged(watch.incident), set()).add((watch.rule.id, watch.key))

    def forget_firing(self) -> None:
        """The watches are bound anew: those that fire say so again."""
        self._firing = {}

    def clear(self, watch: Watch, event: str, at: int) -> None:
        """The watch's condition is over since ``at``; the incident is clear when no other watch keeps it firing."""
        incident = self._incidents.get(self._merged(watch.incident)) if watch.incident is not None else None
        if incident is not None and incident.cause in OUTAGES:
            self._excuse_behind(incident)
        if incident is None or cases.is_over(incident):
            return
        firing = self._firing.get(incident.id, set())
        firing.discard((watch.rule.id, watch.key))
        if firing:
            return
        self._count_clear(incident)
        if self._is_flapping(incident):
            self._swell(replace(incident, cleared_at=at))
            return
        self._end_outage(self.put(cases.clear(incident, watch.rule.id, event, at, self.now)))

    def _merged(self, id: str) -> str:
        """The incident that stands for this one now."""
        for _ in range(len(self._incidents)):
            incident = self._incidents.get(id)
            if incident is None or incident.merged_into is None:
                break
            id = incident.merged_into
        return id

    def _end_outage(self, incident: Incident | None) -> None:
        if incident is not None and cases.is_over(incident):
            for source in self._registry.sources.values():
                if source.outage == incident.id:
                    source.outage = None

    def _excuse_behind(self, outage: Incident) -> None:
        """What hangs on a device that is there again has one heartbeat from now on to be heard."""
        for known in self._registry.devices.values():
            above = {known.device.attributes.get(name) for name in UPSTREAM}
            if known.heard.heartbeat is not None and not above.isdisjoint(outage.devices):
                known.heard.excused = max(known.heard.excused, self.now - known.heard.at)

    def act(self, action: OperatorAction) -> str:
        """A person's move: ``done``, or in words why not."""
        answer = self.loop.act(action)
        self._end_outage(self._incidents.get(action.incident))
        return answer

    def hear_told(self, told: Told) -> None:
        """Who was told, or why nobody: a line of the timeline."""
        incident = self._incidents.get(told.incident)
        if incident is not None and len(incident.timeline) < TOLD_LINES:
            self.put(cases.note(incident, "told", told.outcome[:WHY_LIMIT], self.now))

    def show_coming(self, incident: Incident, action: str) -> None:
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
            self._swell(cases.swallow(outage, Member(self.now, device, rule, f"silent since {source} is")))

    def hide_behind(self, upstream: str, device: str, rule: str) -> None:
        """A device's silence is explained by what it hangs on."""
        outage = self.outage_of(upstream)
        if outage is not None:
            self._swell(cases.swallow(outage, Member(self.now, device, rule, f"silent since {upstream} is")))

    def take_in(self, source: str, incident: str) -> None:
        """The source's outage has its incident: the devices whose silence it explains stand under it."""
        known = self._registry.sources.get(source)
        if known is None:
            return
        known.outage = incident
        for device in known.hidden:
            member = Member(self.now, device, "", f"silent since {source} is")
            self._swell(cases.swallow(self._incidents[incident], member))

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
            self.put(cases.note(self._incidents[incident.id], "commanded", why[:WHY_LIMIT], self.now))

    def order(self, order: Order) -> str:
        """A person commands devices for the sake of an incident: ``done``, or in words why not."""
        incident = self._incidents.get(order.incident)
        problem = refuse_order(order, incident, self._registry)
        if problem is not None or incident is None:
            return problem or "no such open incident in this community"
        for device in order.devices:
            id = cases.derive_command_id(incident.id, "", order.id, device, order.name)
            known, args = self._registry.devices[device], dict[str, object](order.args)
            self._command(id, known, order.name, args, incident.id, ORDER_TTL_MS)
        self.put(cases.write_order(incident, order, self.now))
        return "done"

    def _command(
        self,
        id: str,
        device: KnownDevice,
        name: str,
        args: dict[str, object],
        incident: str,
        ttl: int = COMMAND_TTL_MS,
    ) -> None:
        community, until = self._registry.community.id, self.now + ttl
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
        known = self._commands.get(command)
        if outcome != TIMED_OUT:  # an answer that comes later still counts
            self._commands.pop(command, None)
        incident = self._incidents.get(known or incident_id)
        if incident is None:
            return
        outcome = outcome[:WHY_LIMIT]
        is_told = any((line.what, line.device, line.why) == ("answered", device, outcome) for line in incident.timeline)
        # Of what it was not asked for, a source tells once, and not without end.
        if known is not None or not (is_told or len(incident.timeline) >= TOLD_LINES):
            self.put(cases.note(incident, "answered", outcome, self.now, device=device))


def _slot(incident: Incident) -> str:
    return f"{incident.cause}\n{incident.key}"


def _fill(title: Mapping[str, str], place: str, device: str) -> dict[str, str]:
    return {language: text.replace("{place}", place).replace("{device}", device) for language, text in title.items()}
