"""Help pages: one for each place with a QR code on its wall. A page is a device (a button that lives in telephones),
and its address is the place's name with a signature of this installation, so that nobody can make one up.

An address is ``COMMUNITY.PLACE.ISSUE.VERSION-SIGNATURE``. ``ISSUE`` is the sheet's: when a place gets a new one, the
old address is no longer good. ``VERSION`` is the key's: keys change with an overlap, in which sheets of both are good.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.district import PlaceTree
from gateway.core.model import Device, DeviceState, PlaceKind, RegistryChange, Scalar, Source
from gateway.core.state import CommunityState
from gateway.errors import GatewayError
from gateway.runtime.door import DoorClient, DoorClosed, DoorRefused
from gateway.runtime.plates import load_key

PROFILE: Final = "resident-page"
ISSUE: Final = "issue"
PHONE: Final = "phone"
"""Attributes of a page's device: which of the place's sheets is good, and the number that it tells to dial."""

DIALLED: Final = re.compile(r"[0-9+][0-9 +()-]{1,22}")
POSTED: Final = (PlaceKind.COMMUNITY, PlaceKind.BUILDING, PlaceKind.UNIT, PlaceKind.PUBLIC)
"""The kinds of place that get a page when a whole community does. A household gets one when it is named."""

SIGNATURE_BYTES: Final = 16
LONGEST_ID: Final = 48
ISSUES: Final = range(100_000, 1_000_000)
"""An issue is one of these by chance: a place that lost its page and gets another never has an old one again."""

_ADDRESS: Final = re.compile(
    r"([a-z0-9-]{1,48})\.([a-z0-9-]{1,48})\.([1-9][0-9]{5})\.([1-9][0-9]{0,3})-([A-Za-z0-9_-]{22})"
)
_PURPOSE: Final = b"resident page"


class PageCode(Struct, frozen=True):
    """What an address stands for."""

    community: str
    place: str
    issue: int


class PageKeys:
    """The keys that sign addresses: files ``page-N.key`` in ``folder``, made at the first use. The newest one signs,
    and all that are there are good; what another process does to them counts at once."""

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder

    def sign(self, code: PageCode) -> str:
        """The address of a page. Raises GatewayError when the key's file holds none."""
        version = max(self._versions(), default=1)
        signature = _sign(load_key(self._path(version)), code)
        return f"{code.community}.{code.place}.{code.issue}.{version}-{signature}"

    def read(self, address: str) -> PageCode | None:
        """What an address stands for; None for one that was not made here, or with a key that is no longer good."""
        parts = _ADDRESS.fullmatch(address)
        if parts is None:
            return None
        code = PageCode(parts[1], parts[2], int(parts[3]))
        path = self._path(int(parts[4]))
        if not path.exists():
            return None
        return code if hmac.compare_digest(_sign(load_key(path), code), parts[5]) else None

    def rotate(self) -> int:
        """Makes a new key, which signs from now on; the version of it."""
        version = max(self._versions(), default=0) + 1
        load_key(self._path(version))
        return version

    def end_overlap(self) -> list[int]:
        """Takes all keys but the newest away: addresses that they signed are no longer good. Their versions."""
        ended = self._versions()[:-1]
        for version in ended:
            self._path(version).unlink(missing_ok=True)
        return ended

    def _versions(self) -> list[int]:
        found = [re.fullmatch(r"page-([0-9]{1,4})\.key", path.name) for path in self._folder.glob("page-*.key")]
        return sorted(int(match[1]) for match in found if match is not None)

    def _path(self, version: int) -> Path:
        return self._folder / f"page-{version}.key"


def _sign(key: bytes, code: PageCode) -> str:
    text = b"\n".join((_PURPOSE, code.community.encode(), code.place.encode(), str(code.issue).encode()))
    digest = hmac.new(key, text, hashlib.sha256).digest()[:SIGNATURE_BYTES]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class HelpPage(Struct, frozen=True):
    """A page as issued: where it stands (in people's words), and the number that it tells to dial ("" for none)."""

    code: PageCode
    device: str
    place_name: str
    community_name: str
    phone: str = ""


def name_device(community: str, place: str) -> str:
    """The id of a place's page as a device."""
    return _shorten(f"page-{community}-{place}")


def name_source(community: str) -> str:
    """The source of a community's pages. It has no password: nothing publishes under its name."""
    return _shorten(f"pages-{community}")


def _shorten(id: str) -> str:
    if len(id) <= LONGEST_ID:
        return id
    return f"{id[: LONGEST_ID - 13]}-{hashlib.sha256(id.encode()).hexdigest()[:12]}"


def plan_pages(
    state: CommunityState, places: Sequence[str] = (), phone: str | None = None, *, renew: bool = False, actor: str
) -> tuple[list[HelpPage], RegistryChange | None]:
    """The pages of these places (none named: every building, unit and public spot, and the community itself), and what
    must be registered for them: None when all is there. ``phone`` None leaves what is told to dial; ``renew`` makes the
    old sheets void. Raises GatewayError."""
    if phone and not DIALLED.fullmatch(phone):
        raise GatewayError(
            "bad-phone", f"{phone[:30]} is no number to dial", "--phone", "digits, with + ( ) - or spaces"
        )
    known = {place.id: place for place in state.places}
    unknown = [place for place in places if place not in known]
    if unknown or not known:
        what = f"there is no place {unknown[0][:48]}" if unknown else "it has no places"
        raise GatewayError("unknown-place", what, f"community {state.community.id}", "register it first")
    tree = PlaceTree(state.places)
    wanted = list(dict.fromkeys(places)) or [place.id for place in state.places if place.kind in POSTED]
    devices = {device.id: device for device in state.devices}
    source = Source(name_source(state.community.id), tree.root.id)
    pages: list[HelpPage] = []
    changed: list[Device] = []
    for place in wanted:
        id = name_device(state.community.id, place)
        before = devices.get(id)
        attributes: dict[str, Scalar] = {} if before is None else dict(before.attributes)
        if before is None or renew:
            attributes[ISSUE] = secrets.choice(ISSUES)
        if phone is not None:
            attributes[PHONE] = phone
        device = Device(id, PROFILE, source.id, place, tree.label(place), attributes=attributes)
        if before is not None:
            # A page that is being tried goes on being tried.
            device = replace(device, state=before.state, state_until=before.state_until)
        if device != before:
            changed.append(device)
        pages.append(describe(state.community.id, state.community.name, device))
    if not changed:
        return pages, None
    sources = () if source in state.sources else (source,)
    return pages, RegistryChange(actor, sources=sources, devices=tuple(changed))


def describe(community: str, community_name: str, device: Device) -> HelpPage:
    """The page that a device is."""
    code = PageCode(community, device.place, _issue_of(device))
    return HelpPage(code, device.id, device.name, community_name, find_phone(device))


def find_phone(device: Device) -> str:
    """The number that a page tells to dial, besides those that everybody knows; "" for none."""
    return str(device.attributes.get(PHONE, ""))


def is_in_force(device: Device, code: PageCode) -> bool:
    """Whether the sheet with this code is the place's present one: the device may have been taken away, moved, or made
    something else meanwhile."""
    is_there = device.state is not DeviceState.RETIRED and device.profile == PROFILE and device.place == code.place
    return is_there and _issue_of(device) == code.issue


def _issue_of(device: Device) -> int:
    issue = device.attributes.get(ISSUE)
    return issue if isinstance(issue, int) else 0


async def issue_pages(door: DoorClient, community: str, change: RegistryChange | None, timeout_s: float = 10.0) -> None:
    """Registers what `plan_pages` asks for. Raises GatewayError when the gateway is away or refuses."""
    if change is None:
        return
    try:
        answer = await door.submit(community, change, f"pages/{secrets.token_hex(16)}", timeout_s)
    except (DoorClosed, DoorRefused) as error:
        raise GatewayError("gateway-away", f"the pages cannot be registered: {error}", community, "start it") from error
    if answer != "done":
        raise GatewayError("refused", answer, f"community {community}", "mend the registry")
