"""Compares the ledger with what the central platform holds, and repairs: `python -m gateway reconcile`.

First both sides are read through, and whatever looks different is a suspect. Then each suspect is looked at alone, the
platform first and the ledger after it, so that what went over meanwhile is no difference. Ours is the truth of signals
and deadlines, the platform's of what people did over there (docs/platform.md).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.model import Incident, Told
from gateway.core.policy import PlatformMapping
from gateway.runtime.callbacks import (
    BadCallback,
    Callback,
    find_overtaking,
    has_moved,
    make_action,
    name_action,
    read_callback,
)
from gateway.runtime.door import DoorClient, DoorClosed, DoorRefused
from gateway.runtime.ports import Held, Ledger, OutboxState, PlatformList

MOST_LINES: Final = 100
"""So many lines are added to an incident, each of which raises its revision, until it lies above the platform's."""


class Code(StrEnum):
    """A difference by its stable name."""

    MISSING_THERE = "missing-there"
    ANSWERED_NOT_HELD = "answered-not-held"
    """It answered for the newest revision, and does not hold the incident."""

    OLDER_THERE = "older-there"
    NEWER_THERE = "newer-there"
    """A revision that was never made here: the ledger was set back."""

    UNKNOWN_HERE = "unknown-here"
    DIFFERING = "differing"
    """The same revision with another content."""

    STATE_DIFFERS = "state-differs"
    """It stands elsewhere there, or somebody there has done what was never told here: a callback was lost."""


class Difference(Struct, frozen=True):
    """One difference. ``ours`` and ``theirs`` are revisions, 0 where there is none; ``repair`` says in words what was
    done, or what could not be; with ``is_left`` the difference is still there."""

    code: Code
    incident: str
    number: str
    ours: int
    theirs: int
    detail: str = ""
    repair: str = ""
    is_left: bool = True


class Summary(Struct):
    """What was compared and found; ``on_the_way``: not there yet, and still to be delivered."""

    ours: int = 0
    theirs: int = 0
    on_the_way: int = 0
    differences: dict[str, int] = {}
    repaired: int = 0
    left: int = 0
    dry_run: bool = False


class _Acts(Struct, frozen=True):
    """What people there did and the journal does not know: ``lost`` callbacks, and why others cannot be read."""

    lost: tuple[Callback, ...] = ()
    unreadable: tuple[str, ...] = ()


_NO_ACTS: Final = _Acts()


class Reconciler:
    """``door`` brings in what was done over there and was never told; ``tell`` is given each difference once it is
    repaired, or cannot be."""

    def __init__(
        self,
        ledger: Ledger,
        platform: PlatformList,
        door: DoorClient,
        mapping: PlatformMapping,
        tell: Callable[[Difference], None],
    ) -> None:
        self._ledger = ledger
        self._platform = platform
        self._door = door
        self._mapping = mapping
        self._tell = tell
        self._is_closed = False

    async def run(self, since: int, now: int, *, repair: bool = True) -> Summary:
        """Compares what changed on either side at ``since`` (ms) or later. Raises PlatformAway and LedgerDown; what was
        repaired until then stays so, and running it again does nothing twice."""
        summary = Summary(dry_run=not repair)
        counts: Counter[str] = Counter()
        for id in await self._find_suspects(since, summary):
            held = await self._platform.find_held(id)
            ours = await self._read(id)
            acts = await self._find_acts(ours, held)
            found = await self._compare(id, ours, held, acts)
            if found is None:
                summary.on_the_way += ours is not None and (held is None or held.revision < ours.revision)
                continue
            if repair and ours is not None:
                found = await self._repair(found, ours, acts, now)
            counts[found.code] += 1
            summary.left += found.is_left
            summary.repaired += not found.is_left
            self._tell(found)
        summary.differences = dict(sorted(counts.items()))
        return summary

    async def _read(self, id: str) -> Incident | None:
        return await asyncio.to_thread(self._ledger.incident, id)

    # --- finding -------------------------------------------------------------------------------------------------

    async def _find_suspects(self, since: int, summary: Summary) -> list[str]:
        """The ids of what looks different: first theirs that is not as ours is, then ours that was not listed."""
        listed: set[str] = set()
        suspects: dict[str, None] = {}
        async for held in self._platform.list_held(since):
            listed.add(held.incident)
            ours = await self._read(held.incident)
            if not self._is_same(ours, held) or await self._find_acts(ours, held) != _NO_ACTS:
                suspects[held.incident] = None
        after = ""
        while page := await asyncio.to_thread(self._ledger.changed_incidents, since, after):
            summary.ours += len(page)
            suspects |= dict.fromkeys(incident.id for incident in page if incident.id not in listed)
            after = page[-1].id
        summary.theirs = len(listed)
        return list(suspects)

    async def _find_acts(self, ours: Incident | None, held: Held | None) -> _Acts:
        """What was decided before the case was opened again here is neither: it is refused, however late it is told."""
        lost: list[Callback] = []
        unreadable: list[str] = []
        for act in () if held is None else held.acts:
            try:
                callback = read_callback(act)
                make_action(callback, self._mapping.actions)
            except BadCallback as error:
                unreadable.append(f"{error.code}: {error}")
                continue
            if held is not None and callback.data.incident != held.incident:
                unreadable.append(f"wrong-subject: {callback.id} is an act on another incident")
                continue
            if ours is not None and find_overtaking(ours, callback) is not None:
                continue
            if await asyncio.to_thread(self._ledger.find_event, name_action(callback.id)) is None:
                lost.append(callback)
        return _Acts(tuple(lost), tuple(unreadable))

    def _is_same(self, ours: Incident | None, held: Held) -> bool:
        return ours is not None and held.content == ours and held.state == self._code_of(ours)

    def _code_of(self, incident: Incident) -> str:
        return self._mapping.states.get(incident.state, incident.state)

    async def _compare(self, id: str, ours: Incident | None, held: Held | None, acts: _Acts) -> Difference | None:
        """What is different; None when nothing is, or what is missing there still goes over by itself."""
        if ours is None:
            return None if held is None else _describe_unknown(held)
        found = Difference(Code.STATE_DIFFERS, id, ours.number, ours.revision, 0 if held is None else held.revision)
        if held is None or (held.revision < ours.revision and not acts.lost):
            return await self._compare_delivery(found)
        states = f"{self._code_of(ours)} here, {held.state} there"
        if held.revision > ours.revision:
            return replace(found, code=Code.NEWER_THERE, detail="was the ledger set back to an older copy?")
        if acts.lost:
            return replace(found, detail=f"{len(acts.lost)} of its acts were never told here; {states}")
        if held.content != ours:
            return replace(found, code=Code.DIFFERING, detail=f"in {_find_fields(ours, held)}")
        if held.state != self._code_of(ours):
            return replace(found, detail=states)
        return replace(found, detail=_UNREADABLE) if acts.unreadable else None

    async def _compare_delivery(self, found: Difference) -> Difference | None:
        """The platform has less than the newest revision."""
        state = await asyncio.to_thread(self._ledger.outbox_state, f"{found.incident}/{found.ours}")
        if state in (OutboxState.WAITING, OutboxState.HELD):
            return None  # what is held back comes of simulated devices, and is missing there by intention
        if state is OutboxState.DONE:
            # It may have gone over between the two looks.
            again = await self._platform.find_held(found.incident)
            if again is not None and again.revision >= found.ours:
                return None
            found = replace(found, theirs=0 if again is None else again.revision)
        code = Code.ANSWERED_NOT_HELD if state is OutboxState.DONE else Code.MISSING_THERE
        return replace(found, code=Code.OLDER_THERE if found.theirs else code, detail=_STATES[state])

    # --- repairing -----------------------------------------------------------------------------------------------

    async def _repair(self, found: Difference, ours: Incident, acts: _Acts, now: int) -> Difference:
        if found.code in (Code.MISSING_THERE, Code.ANSWERED_NOT_HELD, Code.OLDER_THERE):
            await asyncio.to_thread(self._ledger.deliver_again, ours.id, now)
            return replace(found, repair="the newest revision is delivered again", is_left=False)
        done: list[str] = list(acts.unreadable)
        try:
            if self._is_closed:
                raise DoorClosed("it was not there before")
            done += [await self._bring_in(ours, callback) for callback in acts.lost]
            # A line about what cannot be read would say so again at every run, and mend nothing.
            is_raised = False if found.detail == _UNREADABLE else await self._raise(found, ours, done)
        except DoorClosed:
            self._is_closed = True
            return replace(found, repair="the gateway is not there: start it, and run this again")
        except DoorRefused as error:
            return replace(found, repair=f"the gateway refuses it: {error}")
        return replace(found, repair="; ".join(done), is_left=not is_raised or bool(acts.unreadable))

    async def _bring_in(self, ours: Incident, callback: Callback) -> str:
        """What people there did enters as the callback would have. What became of it, in words."""
        name = f"{callback.data.action} by {callback.data.user}"
        action = make_action(callback, self._mapping.actions)
        answer = await self._door.submit(ours.community, action, action.id)
        if answer == "repeat" and not has_moved(await self._read(ours.id) or ours, action):
            answer = "it was refused when it came first"
        return f"{name} is done here, too" if answer in ("done", "repeat") else f"{name} is refused here: {answer}"

    async def _raise(self, found: Difference, ours: Incident, done: list[str]) -> bool:
        """Makes a revision above both, which tells the platform how it stands here: an act has made one already, or a
        line of the timeline makes it. ``done`` gets what came of it, in words; whether there is such a revision."""
        standing = await self._read(ours.id) or ours
        least = max(ours.revision, found.theirs)
        takes_lines = True
        for _ in range(MOST_LINES):
            if standing.revision > least or not takes_lines:
                break
            line = Told(f"reconcile/{ours.id}/{standing.revision}", ours.id, f"reconcile: {found.code}: {found.detail}")
            await self._door.submit(ours.community, line, line.id)
            before, standing = standing, await self._read(ours.id) or standing
            takes_lines = standing.revision > before.revision
        if standing.revision > least:
            done.append(f"revision {standing.revision} is delivered")
        elif takes_lines:
            done.append(f"it stands at revision {standing.revision} now: run this again")
        else:
            done.append("it takes no more lines, so that no newer revision tells the platform")
        return standing.revision > least


_UNREADABLE: Final = "it has acts that cannot be read"
_STATES: Final[Mapping[OutboxState | None, str]] = {
    OutboxState.DONE: "it has answered for the newest revision",
    OutboxState.DEAD: "it has refused the newest revision",
    OutboxState.SUPERSEDED: "the newest revision was never sent",
    None: "the newest revision was never in the outbox",
}


def _describe_unknown(held: Held) -> Difference:
    number = held.content.number if held.content is not None else ""
    detail = "this ledger has never had it: does another gateway deliver there, or was the ledger set back?"
    return Difference(Code.UNKNOWN_HERE, held.incident, number, 0, held.revision, detail, "only people can tell")


def _find_fields(ours: Incident, held: Held) -> str:
    if held.content is None:
        return "everything: what it holds is no incident"
    names = [name for name in ours.__struct_fields__ if getattr(ours, name) != getattr(held.content, name)]
    return ", ".join(names)
