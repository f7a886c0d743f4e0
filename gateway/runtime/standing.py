"""The district as the ledger has it: the grid, who is responsible, whom to call, and each community's registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.catalog import Catalog
from gateway.core.model import Community, Device, DeviceState, Grid, ListChange, RegistryChange, Responsible
from gateway.core.registry import INACTIVE, Registry
from gateway.core.state import SCHEMA, CommunityState, decode_state
from gateway.runtime.journal import decode_row
from gateway.runtime.ports import Contact, Ledger
from gateway.runtime.writer import Catalogs, load_engine


class Standing(Struct, frozen=True):
    """Everything by its name: grids by code, responsible by (body, grid), the rest by id."""

    grids: Mapping[str, Grid]
    responsible: Mapping[tuple[str, str], Responsible]
    contacts: Mapping[str, Contact]
    communities: Mapping[str, CommunityState]


def read_standing(
    ledger: Ledger,
    catalogs: Catalogs,
    catalog: Catalog,
    now: int,
    on_part: Callable[[int], None] = lambda count: None,
) -> Standing:
    """Reads the ledger, also while a gateway writes into it: each community's registry as it stood at one moment, and
    its devices in the states that they are in at ``now`` (ms)."""
    states: dict[str, CommunityState] = {}
    for community in sorted(ledger.communities(), key=lambda community: community.id):
        state = _read_state(ledger, community, catalogs, catalog)
        state.devices = [_end_state(device, now) for device in state.devices]
        states[community.id] = state
        on_part(1)
    return Standing(
        {grid.code: grid for grid in ledger.grids()},
        {(known.body, known.grid): known for known in ledger.responsible()},
        {contact.id: contact for contact in ledger.contacts()},
        states,
    )


def _read_state(ledger: Ledger, community: Community, catalogs: Catalogs, catalog: Catalog) -> CommunityState:
    """From the newest checkpoint and the changes of the registry after it: much faster than an engine that binds every
    rule and is fed every reading."""
    checkpoint = ledger.load_checkpoint(community.id)
    if checkpoint is None or checkpoint.schema != SCHEMA:
        return load_engine(ledger, community, catalogs, catalog).engine.snapshot()
    state = decode_state(checkpoint.state)
    rows = list(ledger.read_journal(community.id, checkpoint.seq, kinds=_KINDS))
    if not rows:
        return state
    registry = Registry(state.community)
    registry.restore(state, catalogs(checkpoint.catalog).profiles)
    for row in rows:
        profiles = catalogs(row.catalog).profiles
        match decode_row(community.id, row):
            case RegistryChange() as change if registry.refuse(change, profiles) is None:
                registry.apply(change, profiles, row.at)
            case ListChange(name=name, entries=entries):
                registry.lists[name] = frozenset(entries)
    registry.dump_into(state)
    state.community = registry.community
    return state


def _end_state(device: Device, now: int) -> Device:
    """A state that was to end before now has ended, whether the gateway has looked at it yet or not."""
    if device.state in INACTIVE and device.state_until is not None and device.state_until <= now:
        return replace(device, state=DeviceState.ACTIVE, state_until=None)
    return device


_KINDS: Final = tuple(str(event.__struct_config__.tag) for event in (RegistryChange, ListChange))
