"""The district as the ledger has it: the grid, who is responsible, whom to call, and each community's registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.model import Community, Grid, Responsible
from gateway.core.state import SCHEMA, CommunityState, decode_state
from gateway.runtime.ports import Contact, Ledger
from gateway.runtime.writer import Catalogs, load_engine


class Standing(Struct, frozen=True):
    """Everything by its name: grids by code, responsible by (body, grid), the rest by id."""

    grids: Mapping[str, Grid]
    responsible: Mapping[tuple[str, str], Responsible]
    contacts: Mapping[str, Contact]
    communities: Mapping[str, CommunityState]


def read_standing(
    ledger: Ledger, catalogs: Catalogs, catalog: Catalog, on_part: Callable[[int], None] = lambda count: None
) -> Standing:
    """Reads the ledger, also while a gateway writes into it: each community as it stood at one moment."""
    states: dict[str, CommunityState] = {}
    communities = sorted(ledger.communities(), key=lambda community: community.id)
    heads = ledger.standing([community.id for community in communities])
    for community in communities:
        states[community.id] = _read_state(ledger, community, heads[community.id][1], catalogs, catalog)
        on_part(1)
    return Standing(
        {grid.code: grid for grid in ledger.grids()},
        {(known.body, known.grid): known for known in ledger.responsible()},
        {contact.id: contact for contact in ledger.contacts()},
        states,
    )


def _read_state(
    ledger: Ledger, community: Community, head: int, catalogs: Catalogs, catalog: Catalog
) -> CommunityState:
    checkpoint = ledger.load_checkpoint(community.id)
    if checkpoint is not None and checkpoint.schema == SCHEMA and checkpoint.seq >= head:
        return decode_state(checkpoint.state)  # Much faster than an engine that binds every rule.
    return load_engine(ledger, community, catalogs, catalog).engine.snapshot()
