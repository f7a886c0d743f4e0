"""Takes a district file into the ledger: communities, places, sources, devices and watch lists, as journalled events.

The file is the simulators' and the tests' way in; property managers register single devices through the console.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.district import JIMO, DistrictError, GridTree
from gateway.core.model import Community, Device, Grid, ListChange, Place, RegistryChange, Source
from gateway.errors import GatewayError
from gateway.runtime.plates import PlateSeal
from gateway.runtime.ports import Batch, Entry, Ledger
from gateway.runtime.writer import Catalogs, load_writer

PART: Final = 20
"""Communities per transaction."""

RUNNING_MS: Final = 10_000


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


class Registered(Struct, frozen=True):
    """What was taken in."""

    communities: int
    sources: tuple[str, ...]
    devices: int


def read_district(path: Path) -> DistrictFile:
    """Reads and checks a district file. Raises GatewayError naming the file and the fault."""
    try:
        district = msgspec.json.decode(path.read_bytes(), type=DistrictFile)
        GridTree(district.grids, JIMO)
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
    """Takes the district in, each community as one change, whole or not at all. Raises GatewayError when a gateway
    runs on this ledger (its writers would lose their fences) or when a community is refused."""
    alive = ledger.alive_at()
    if alive is not None and 0 <= real_now - alive < RUNNING_MS:
        raise GatewayError(
            "running", "a gateway is running on this ledger", "the ledger", "stop it first, then register"
        )
    ledger.save_catalog(catalog.hash, catalog.files, now)
    ledger.add_communities([entry.community for entry in district.communities])
    lists = [(name, tuple(seal.seal(item) for item in items)) for name, items in district.lists.items()]
    count = 0
    for start in range(0, len(district.communities), PART):
        part = district.communities[start : start + PART]
        claims = {claim.community.id: claim for claim in ledger.claim([c.community.id for c in part], now)}
        entries: list[Entry] = []
        writers = []
        for item in part:
            writer = load_writer(ledger, claims[item.community.id], catalogs, catalog)
            change = RegistryChange(actor, item.places, item.sources, item.devices, (), item.community)
            step, entry = writer.feed(change, now)
            if step.answer != "done":
                raise GatewayError("refused", step.answer, f"community {item.community.id}", "mend the district file")
            entries.append(entry)
            entries.extend(writer.feed(ListChange(actor, name, members), now)[1] for name, members in lists)
            writers.append(writer)
            count += len(item.devices)
        checkpoints = [c for writer in writers if (c := writer.checkpoint(now, force=True)) is not None]
        sealed = [fence for writer in writers if (fence := writer.seal()) is not None]
        fences = sorted(sealed, key=lambda fence: fence.community)
        ledger.commit(Batch(fences, entries, (), checkpoints))
        on_part(len(part))
    sources = tuple(source.id for item in district.communities for source in item.sources)
    return Registered(len(district.communities), sources, count)


def write_credentials(path: Path, passwords: dict[str, str]) -> None:
    """Writes passwords where only their owner can read them; they are seen this once."""

    def open_private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    with open(path, "w", encoding="utf-8", opener=open_private) as file:
        file.write(msgspec.json.format(msgspec.json.encode(passwords)).decode())
