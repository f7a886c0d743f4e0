"""What an incident stands on, as far as the ledger has it: its devices, whom to call, and where it was delivered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.model import Device, Incident, Notify
from gateway.runtime.notifying import find
from gateway.runtime.ports import Contact, Ledger

CONTACTS: Final = 8


class Evidence(Struct, frozen=True):
    """Beside an incident's own fields. ``contacts`` are those on duty now, in the order in which to call them."""

    devices: tuple[Device, ...] = ()
    contacts: tuple[Contact, ...] = ()
    delivery: str = ""
    """``done``, ``waiting``, ``dead``, or empty where nothing is delivered (a notice)."""
    into: Incident | None = None
    """The incident that it was merged into."""
    linked: Incident | None = None


def gather(ledger: Ledger, incident: Incident, now: int) -> Evidence:
    """Reads it all. Raises LedgerDown."""
    wanted = set(incident.devices)
    devices = [device for device in ledger.devices(incident.community) if device.id in wanted] if wanted else []
    contacts = ledger.contacts()
    state = ledger.outbox_state(f"{incident.id}/{incident.revision}")
    return Evidence(
        tuple(devices),
        tuple(_find_contacts(ledger, incident, contacts, now)) if contacts else (),
        str(state) if state is not None else "",
        ledger.incident(incident.merged_into) if incident.merged_into else None,
        ledger.incident(incident.linked) if incident.linked else None,
    )


def _find_contacts(ledger: Ledger, incident: Incident, contacts: Sequence[Contact], now: int) -> list[Contact]:
    """The household's own first, then the property, the responsible body, and the duty of the grids."""
    grids = ledger.grids()
    found: dict[str, Contact] = {}
    for kind in ("contact", "warn", "ring"):
        notify = Notify(
            id="",
            community=incident.community,
            incident=incident.id,
            kind=kind,
            place=incident.place,
            grid=incident.grid,
            text={},
            expires_at=0,
            body=incident.body,
        )
        for contact in find(notify, contacts, grids, now):
            found.setdefault(contact.id, contact)
    return list(found.values())[:CONTACTS]


def name_device(catalog: Catalog, device: Device, language: str) -> str:
    """What a device is called: its own name, otherwise what it is."""
    if device.name:
        return device.name
    profile = catalog.profiles.get(device.profile)
    title = profile.title if profile is not None else {}
    return title.get(language) or title.get("zh") or device.id
