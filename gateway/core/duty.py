"""Who owns the next step of an incident, and by when it must be done: owner, limit, and its arithmetic."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from gateway.core import worktime
from gateway.core.catalog import Catalog
from gateway.core.model import Due, Incident, Role
from gateway.core.registry import Registry
from gateway.core.worktime import Limit, LimitUnit

PROPERTY: Final = "property"
"""The body whose people are property managers."""

_AT_DESK: Final = frozenset({"accept", "dispatch", "close", "rate", "resume"})


class Duty:
    """Says what is awaited, of the catalog in force and the community as registered."""

    def __init__(self, catalog: Catalog, registry: Registry) -> None:
        self.catalog = catalog
        self._registry = registry

    def expect(self, incident: Incident, step: str, now: int) -> Due:
        """What ``step`` (one of `policy.STEPS`, or ``call_back``) asks of whom, from ``now`` on."""
        limit = self._limit(incident, step)
        calendar = self.catalog.calendar
        due_at, how = worktime.add(now, limit, calendar)
        warn_at = worktime.warn_at(now, limit, calendar, self.catalog.policy.warn_share)
        role, grid, body = self._owner(incident, step)
        return Due(step, role, grid, body, now, str(limit), how, warn_at, due_at, next_at=min(warn_at, due_at))

    def expect_on(self, incident: Incident, step: str, now: int, until: int, how: str) -> Due:
        """The same with a date that a person set: it is yellow on the working day before, or at its share."""
        days = (until - now) // 86_400_000
        share = self.catalog.policy.warn_share
        warn_at = until - 86_400_000 if days > 1 else now + int((until - now) * share)
        role, grid, body = self._owner(incident, step)
        return Due(step, role, grid, body, now, "date", how, warn_at, until, next_at=warn_at)

    def extend(self, due: Due, until: int, now: int, how: str) -> Due:
        """The same step with another date: what was late is so no longer."""
        share = self.catalog.policy.warn_share
        warn_at = max(now, due.since + int((until - due.since) * share))
        return replace(
            due, due_at=until, how=how, warn_at=warn_at, next_at=warn_at, warned_at=None, overdue_at=None, reminders=0
        )

    def next_body(self, incident: Incident) -> str | None:
        """Who is next when the one whose turn it is says that it is not theirs; None when nobody is left."""
        category = self.catalog.categories.get(incident.category)
        bodies = list(dict.fromkeys((category.body, *category.others))) if category is not None else []
        index = bodies.index(incident.body) + 1 if incident.body in bodies else 0
        return bodies[index] if index < len(bodies) else None

    def desk(self, chain: tuple[str, ...]) -> str:
        """The grid whose dispatchers take cases in: the community's grid centre, which its chain ends with."""
        for code in reversed(self._registry.community.grids):
            if code in chain:
                return code
        return chain[-1] if chain else ""

    def _limit(self, incident: Incident, step: str) -> Limit:
        category = self.catalog.categories.get(incident.category)
        if step == "call_back":
            return (category.call_back if category is not None else None) or Limit(1, LimitUnit.MINUTES)
        own = category.limits.get(step) if category is not None else None
        return own or self.catalog.policy.limits[incident.level][step]

    def _owner(self, incident: Incident, step: str) -> tuple[Role, str, str]:
        chain, body = incident.chain, incident.body
        if step in _AT_DESK:
            return Role.DISPATCHER, self.desk(chain), ""
        if step == "report_in":
            return Role.DISPATCHER, incident.whistles[-1].grid, ""
        if step == "call_back":
            return Role.PROPERTY_MANAGER, incident.grid, PROPERTY
        if step == "verify":
            return Role.GRID_WORKER, incident.grid, ""
        role = Role.PROPERTY_MANAGER if body == PROPERTY else Role.GRID_WORKER
        answered = [whistle.grid for whistle in incident.whistles if whistle.reported_at is not None]
        if answered:
            return Role.DISPATCHER, answered[-1], body
        return role, self._registry.responsible_grid(body, chain) or incident.grid, body
