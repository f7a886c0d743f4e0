"""Takes a district into the ledger, as journalled events: only what differs from what is there.

A `Plan` says what should be there afterwards. It comes from tables (`gateway.runtime.district_check`), or from one
JSON file, which is the simulators' and the tests' way in. What it does not name stays as it is.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.core.catalog import Catalog
from gateway.core.district import JIMO, DistrictError, GridScheme, GridTree, climb
from gateway.core.model import Community, Device, Grid, ListChange, Place, RegistryChange, Responsible, Source
from gateway.core.state import CommunityState
from gateway.errors import GatewayError
from gateway.runtime.door import DoorClient, DoorClosed, DoorRefused
from gateway.runtime.plates import PlateSeal
from gateway.runtime.ports import Batch, CommitRefused, Contact, Entry, Ledger
from gateway.runtime.standing import Standing, read_standing
from gateway.runtime.writer import Catalogs, collecting_by_hand, load_writer

PART: Final = 20
"""Communities per transaction."""

COLLECTED_DEVICES: Final = 30_000
"""So many devices are fed before their engines are collected: it takes time, and they take about 600 MB until then."""

RUNNING_MS: Final = 10_000
DOOR_S: Final = 60.0
"""How long a running gateway may take over one community's change."""

K = TypeVar("K")
T = TypeVar("T")


# --- what should be there -----------------------------------------------------------------------------------------


class CommunityPlan(Struct, frozen=True):
    """What a community should have. ``retired`` are devices that go; ``lists`` are whole lists, sealed."""

    community: Community
    places: Sequence[Place] = ()
    sources: Sequence[Source] = ()
    devices: Sequence[Device] = ()
    retired: Sequence[str] = ()
    lists: Mapping[str, Sequence[str]] = {}


class Dropped(Struct, frozen=True):
    """What goes: grids by code, responsible bodies by (body, grid), contacts by id."""

    grids: Sequence[str] = ()
    responsible: Sequence[tuple[str, str]] = ()
    contacts: Sequence[str] = ()


class Plan(Struct, frozen=True):
    """What the district should have afterwards."""

    communities: Sequence[CommunityPlan] = ()
    grids: Sequence[Grid] = ()
    responsible: Sequence[Responsible] = ()
    contacts: Sequence[Contact] = ()
    dropped: Dropped = Dropped()


# --- one JSON file ------------------------------------------------------------------------------------------------


class CommunityFile(Struct, frozen=True, forbid_unknown_fields=True):
    """One community of the file, with all that is in it."""

    community: Community
    places: tuple[Place, ...]
    sources: tuple[Source, ...]
    devices: tuple[Device, ...]


class DistrictFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. ``lists`` are watch lists by name, valid in every community; plates in them stand in clear and
    are sealed when they are taken in."""

    grids: tuple[Grid, ...]
    communities: tuple[CommunityFile, ...]
    lists: dict[str, tuple[str, ...]] = {}

    def plan(self, seal: PlateSeal) -> Plan:
        """The same as a plan."""
        lists = {name: tuple(seal.seal(item) for item in items) for name, items in self.lists.items()}
        return Plan(
            tuple(
                CommunityPlan(one.community, one.places, one.sources, one.devices, lists=lists)
                for one in self.communities
            ),
            self.grids,
        )


class Registered(Struct, frozen=True):
    """What was taken in."""

    communities: int
    sources: tuple[str, ...]
    devices: int


def read_district(path: Path, scheme: GridScheme = JIMO) -> DistrictFile:
    """Reads and checks a district file. Raises GatewayError naming the file and the fault."""
    try:
        district = msgspec.json.decode(path.read_bytes(), type=DistrictFile)
        GridTree(district.grids, scheme)
    except OSError as error:
        raise GatewayError(
            "unreadable", f"cannot read it: {error.strerror}", str(path), "give a district file"
        ) from error
    except (msgspec.MsgspecError, DistrictError) as error:
        raise GatewayError("bad-district", str(error), str(path), "mend the file there") from error
    return district


def register(
    ledger: Ledger,
    district: DistrictFile,
    catalog: Catalog,
    catalogs: Catalogs,
    seal: PlateSeal,
    now: int,
    real_now: int,
    actor: str,
    on_part: Callable[[int], None] = lambda count: None,
) -> Registered:
    """Takes the file in, each community as one change, whole or not at all. Raises GatewayError when a gateway runs on
    this ledger (its writers would lose their fences) or when a community is refused."""
    refuse_running(ledger, real_now)
    changes = find_changes(district.plan(seal), read_standing(ledger, catalogs, catalog, now), actor)
    refused = write_changes(ledger, changes, catalog, catalogs, now, on_part)
    for id, why in refused.items():
        raise GatewayError("refused", why, f"community {id}", "mend the district file")
    return Registered(
        len(district.communities),
        tuple(source.id for item in district.communities for source in item.sources),
        sum(len(item.devices) for item in district.communities),
    )


# --- what changes -------------------------------------------------------------------------------------------------


class Changes(Struct, frozen=True):
    """What the ledger is told: ``events`` by community, in order, and what it keeps beside the journal. ``counts`` says
    how many of each kind are new, changed, or go."""

    events: Mapping[str, Sequence[RegistryChange | ListChange]]
    communities: Sequence[Community]
    grids: Sequence[Grid]
    responsible: Sequence[Responsible]
    contacts: Sequence[Contact]
    dropped: Dropped
    new_communities: Sequence[str]
    counts: Mapping[str, Mapping[str, int]]

    @property
    def is_nothing(self) -> bool:
        """Whether all is as it should be already."""
        dropped = self.dropped
        gone = (dropped.grids, dropped.responsible, dropped.contacts)
        return not any((self.events, self.communities, self.grids, self.responsible, self.contacts, *gone))


def find_changes(plan: Plan, standing: Standing, actor: str) -> Changes:
    """What must be told so that the district is as planned. Every community is told of the grids and the responsible
    bodies above it, whether the plan names it or not."""
    tally = _Tally()
    grids = tally.sift("grids", plan.grids, standing.grids, lambda grid: grid.code)
    bodies = tally.sift("responsible", plan.responsible, standing.responsible, lambda body: (body.body, body.grid))
    contacts = tally.sift("contacts", plan.contacts, standing.contacts, lambda contact: contact.id)
    tally.count("grids", "gone", len(plan.dropped.grids))
    tally.count("responsible", "gone", len(plan.dropped.responsible))
    tally.count("contacts", "gone", len(plan.dropped.contacts))
    all_grids = {**standing.grids, **{grid.code: grid for grid in grids}}
    all_bodies = {**standing.responsible, **{(body.body, body.grid): body for body in bodies}}
    for code in plan.dropped.grids:
        all_grids.pop(code, None)
    for key in plan.dropped.responsible:
        all_bodies.pop(key, None)
    planned = {one.community.id: one for one in plan.communities}
    others = (state.community for id, state in standing.communities.items() if id not in planned)
    everybody = [*plan.communities, *(CommunityPlan(_follow(community, all_grids)) for community in others)]
    communities: list[Community] = []
    events: dict[str, list[RegistryChange | ListChange]] = {}
    for one in everybody:
        state = standing.communities.get(one.community.id)
        known = {} if state is None else {state.community.id: state.community}
        communities += tally.sift("communities", [one.community], known, lambda community: community.id)
        found = _find_events(one, state or CommunityState(one.community), all_grids, all_bodies.values(), actor, tally)
        if state is None and not found:
            found = [RegistryChange(actor, community=one.community)]
        if found:
            events[one.community.id] = found
    new = [one.community.id for one in plan.communities if one.community.id not in standing.communities]
    return Changes(events, communities, grids, bodies, contacts, plan.dropped, new, tally.counts)


class _Tally:
    """Counts what is new, changed, or goes, by kind."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}

    def count(self, kind: str, what: str, number: int) -> None:
        if number:
            counts = self.counts.setdefault(kind, {})
            counts[what] = counts.get(what, 0) + number

    def sift(self, kind: str, wanted: Iterable[T], known: Mapping[K, T], key: Callable[[T], K]) -> list[T]:
        """Those that are not known as they are wanted."""
        found = [one for one in wanted if known.get(key(one)) != one]
        new = sum(1 for one in found if key(one) not in known)
        self.count(kind, "new", new)
        self.count(kind, "changed", len(found) - new)
        return found


def _find_events(
    one: CommunityPlan,
    state: CommunityState,
    grids: Mapping[str, Grid],
    bodies: Iterable[Responsible],
    actor: str,
    tally: _Tally,
) -> list[RegistryChange | ListChange]:
    """What one community is told."""
    sources = {source.id: source for source in state.sources}
    devices = {device.id: device for device in state.devices}
    places = {place.id: place for place in state.places}
    lies_in = {place.grid for place in (*places.values(), *one.places) if place.grid is not None}
    around = sorted({code for start in {*one.community.grids, *lies_in} for code in climb(start, grids)})
    known_grids = {grid.code: grid for grid in state.grids}
    responsible = tuple(sorted((b for b in bodies if b.grid in around), key=lambda b: (b.body, b.grid)))
    retired = tuple(id for id in one.retired if id in devices)
    tally.count("devices", "gone", len(retired))
    change = RegistryChange(
        actor,
        tuple(tally.sift("places", one.places, places, lambda place: place.id)),
        tuple(tally.sift("sources", one.sources, sources, lambda source: source.id)),
        tuple(tally.sift("devices", one.devices, devices, lambda device: device.id)),
        retired,
        one.community if one.community != state.community else None,
        tuple(grids[code] for code in around if known_grids.get(code) != grids[code]),
        responsible if responsible != tuple(state.responsible) else None,
    )
    events: list[RegistryChange | ListChange] = [change] if change != RegistryChange(actor) else []
    for name, entries in one.lists.items():
        known = frozenset(state.lists.get(name, ()))
        if known != frozenset(entries):
            tally.count("lists", "changed" if known else "new", 1)
            events.append(ListChange(actor, name, tuple(entries)))
    return events


def _follow(community: Community, grids: Mapping[str, Grid]) -> Community:
    """The community with its chain as the grid is now; one whose grid nobody knows stays as it is."""
    chain = climb(community.grids[-1], grids) if community.grids else ()
    return replace(community, grids=chain) if chain else community


# --- the way in ---------------------------------------------------------------------------------------------------


def refuse_running(ledger: Ledger, real_now: int) -> None:
    """Raises GatewayError when a gateway runs on this ledger: whoever writes past it takes its fences."""
    alive = ledger.alive_at()
    if alive is not None and 0 <= real_now - alive < RUNNING_MS:
        raise GatewayError(
            "running",
            "a gateway is running on this ledger",
            "the ledger",
            f"stop it first, wait {RUNNING_MS // 1000} s, and do this again",
        )


def write_changes(
    ledger: Ledger,
    changes: Changes,
    catalog: Catalog,
    catalogs: Catalogs,
    now: int,
    on_part: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Writes into a ledger on which no gateway runs, each community whole or not at all. Returns the communities that
    were refused, with why."""
    if changes.is_nothing:
        return {}
    ledger.save_catalog(catalog.hash, catalog.files, now)
    write_tables(ledger, changes)
    refused: dict[str, str] = {}
    names = list(changes.events)
    waiting = 0
    with collecting_by_hand() as collect:
        for start in range(0, len(names), PART):
            part = names[start : start + PART]
            refused |= _write_part(ledger, part, changes, catalog, catalogs, now)
            events = (event for id in part for event in changes.events[id])
            waiting += sum(len(event.devices) for event in events if isinstance(event, RegistryChange))
            if waiting >= COLLECTED_DEVICES:
                collect()
                waiting = 0
            on_part(len(part))
    return refused


def _write_part(
    ledger: Ledger, part: Sequence[str], changes: Changes, catalog: Catalog, catalogs: Catalogs, now: int
) -> dict[str, str]:
    """One transaction for these communities, less those that are refused."""
    refused: dict[str, str] = {}
    entries: list[Entry] = []
    writers = []
    for claim in ledger.claim(part, now):
        writer = load_writer(ledger, claim, catalogs, catalog)
        fed = [writer.feed(event, now) for event in changes.events[writer.community]]
        answers = [step.answer for step, _ in fed if step.answer not in ("", "done")]
        if answers:
            refused[writer.community] = answers[0]
            continue
        entries.extend(entry for _, entry in fed)
        writers.append(writer)
    checkpoints = [c for writer in writers if (c := writer.checkpoint(now, force=True)) is not None]
    fences = [fence for writer in writers if (fence := writer.seal()) is not None]
    ledger.commit(Batch(fences, entries, (), checkpoints))
    return refused


async def submit_changes(
    ledger: Ledger, changes: Changes, door: DoorClient, on_part: Callable[[int], None] = lambda count: None
) -> dict[str, str]:
    """The same through the door of a running gateway, which goes on meanwhile. Raises GatewayError for communities that
    it cannot hold yet, and when it does not answer."""
    if changes.new_communities:
        raise GatewayError(
            "running",
            f"a running gateway takes no new community in ({', '.join(changes.new_communities[:5])})",
            "the gateway",
            "stop it, import, and start it again",
        )
    write_tables(ledger, changes)
    refused: dict[str, str] = {}
    for community, events in changes.events.items():
        for event in events:
            try:
                answer = await door.submit(community, event, f"district/{secrets.token_hex(12)}", DOOR_S)
            except DoorRefused as error:
                answer = f"the gateway says {error}"
            except DoorClosed as error:
                raise GatewayError("door", str(error), f"community {community}", "import again") from error
            if answer != "done":
                refused[community] = answer
                break
        on_part(1)
    return refused


def write_tables(ledger: Ledger, changes: Changes) -> None:
    """What the ledger keeps beside the journal. Raises GatewayError where the ledger refuses a community."""
    dropped = changes.dropped
    ledger.put_district(changes.grids, changes.responsible, changes.contacts)
    ledger.drop_district(dropped.grids, dropped.responsible, dropped.contacts)
    try:
        ledger.add_communities(changes.communities)
    except CommitRefused as error:
        what = "a community has the serial of another one"
        raise GatewayError("bad-district", what, "the ledger", "give each a serial of its own") from error


def write_credentials(path: Path, passwords: dict[str, str]) -> None:
    """Writes passwords where only their owner can read them; they are seen this once."""

    def open_private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    with open(path, "w", encoding="utf-8", opener=open_private) as file:
        file.write(msgspec.json.format(msgspec.json.encode(passwords)).decode())
