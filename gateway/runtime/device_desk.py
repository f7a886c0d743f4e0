"""Registering devices and looking after them, for pages and programs alike: every change goes in through the door.

A device either speaks for itself (then it is an MQTT identity of its own, with a password that is shown once) or is
carried by an edge agent, which receives it in its configuration. Its id stays the same for as long as it is
registered: a new apparatus in its place takes the id over, so that the history is one.

Whoever asks makes a key, and asks again with it until there is an answer: it happens once (`gateway.runtime.keys`). One
process writes the registry in this way, one change after the other.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container, Mapping, Sequence
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.cameras import CAMERA_ATTRIBUTES, GB28181, RTSP, refuse_camera
from gateway.core.catalog import Catalog
from gateway.core.model import Device, DeviceState, RegistryChange, Scalar, Source
from gateway.core.present import Present
from gateway.runtime.access import Actor
from gateway.runtime.door import DoorClient
from gateway.runtime.keys import make_event_id
from gateway.runtime.ports import Clock, Ledger

PATIENCE_S: Final = 5.0
TEST_MS: Final = 30 * 60_000
"""The longest a live test goes on: then a device that was forgotten in it counts again."""

ID: Final = re.compile(r"[a-z0-9-]{1,48}")
SERIAL: Final = "serial"
"""The attribute that keeps the code on the apparatus, as it was scanned."""

LONGEST_NAME: Final = 60
LONGEST_CODE: Final = 80
LONGEST_ADDRESS: Final = 120
RESERVED: Final = frozenset({"gateway"})


class Refused(Exception):
    """What was wished cannot be. ``code`` is stable (docs: the API's problems); ``words`` say it with the particulars;
    ``field`` is the one of the wish that is to be mended."""

    def __init__(self, code: str, words: str, field: str = "") -> None:
        super().__init__(words)
        self.code = code
        self.words = words
        self.field = field


class Registration(Struct, frozen=True, omit_defaults=True):
    """A device to register. ``code`` is what stands on the apparatus; ``source`` is the edge agent that carries it, or
    nothing for a device that speaks for itself. ``secret`` is what its maker put into it and printed on it (一机一密):
    then it was listed beforehand, and whoever holds the secret claims it. ``fetches``: it fetches its password itself,
    with the secret of its model (一型一密). ``is_test``: it begins with a live test."""

    id: str
    code: str
    profile: str
    place: str
    source: str = ""
    name: str = ""
    address: str = ""
    secret: str = ""
    is_test: bool = True
    fetches: bool = False
    """It fetches its password itself, with the secret of its model (一型一密)."""


class Alteration(Struct, frozen=True, omit_defaults=True):
    """A change of a registered device. ``verb``: ``test`` and ``end_test``, ``move`` (``place``), ``rename``
    (``name``), ``replace`` (``code``; where it changes, ``profile`` and ``address``), ``camera`` (``gb28181`` and
    ``rtsp``; an empty one is taken out), ``retire``, ``renew`` (a new password), or ``expect`` (it fetches one itself,
    with its model's secret). ``reason`` stands in the audit log."""

    id: str
    verb: str
    reason: str = ""
    place: str = ""
    name: str = ""
    code: str = ""
    profile: str = ""
    address: str = ""
    gb28181: str = ""
    rtsp: str = ""


class Settled(Struct, frozen=True):
    """What came of it: the device as it is now, and its new password where it got one, which nobody can ask for again.
    ``is_repeat``: it had happened already, and was not done twice."""

    device: Device
    password: str = ""
    is_repeat: bool = False


def make_id(code: str) -> str:
    """The id that a code makes: small letters, digits and dashes. Empty where nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", code.strip().lower()).strip("-")[:48].strip("-")


def read_code(device: Device) -> str:
    """The id that the code makes which stands on the apparatus that is there now. The first one's is the device's own
    id; that of one that was registered without a code is taken for it, too."""
    return make_id(str(device.attributes.get(SERIAL, device.id)))


def is_own_source(device: Device) -> bool:
    """Whether the device speaks for itself."""
    return device.source == device.id


class Awaiting(Protocol):
    """Where it is kept which devices fetch their passwords (`gateway.runtime.products`)."""

    async def is_offered(self, profile: str) -> bool: ...
    async def is_promised(self, code: str, device: str) -> bool: ...
    async def expect(self, community: str, devices: Sequence[Device], *, again: bool = False) -> None: ...
    async def forget(self, device: str) -> None: ...


class DeviceDesk:
    """One for the web process. ``clock`` is the gateway's and runs ``speed`` times as fast as whoever tests a device;
    without ``awaiting`` no device fetches its password."""

    def __init__(
        self,
        ledger: Ledger,
        door: DoorClient,
        catalog: Catalog,
        clock: Clock,
        awaiting: Awaiting | None = None,
        speed: float = 1.0,
    ) -> None:
        self._test_ms: Final = round(TEST_MS * max(1.0, speed))
        self._awaiting = awaiting
        self._ledger = ledger
        self._door = door
        self._catalog = catalog
        self._clock = clock
        self._turn = asyncio.Lock()

    async def register(self, actor: Actor, community: str, wish: Registration) -> Settled:
        """Registers a device. Raises Refused, DoorClosed, DoorRefused, LedgerDown."""
        [outcome] = await self.register_all(actor, community, wish.id, [wish])
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    async def register_all(
        self, actor: Actor, community: str, id: str, wishes: Sequence[Registration]
    ) -> list[Settled | Refused]:
        """Registers all that can be as one change with this key (``id``), and says of each what came of it. Raises
        DoorClosed, DoorRefused, LedgerDown."""
        async with self._turn:
            event_id = make_event_id("registry", actor, id, community, wishes)
            if await self._has_happened(event_id):
                return await self._recall_all(community, wishes)
            present = await self._door.look(community)
            outcomes: list[Settled | Refused] = []
            sources: list[Source] = []
            taken = {one.device.id for one in present.devices}
            for wish in wishes:
                try:
                    device, source = await self._prepare(community, wish, present, taken)
                except Refused as error:
                    outcomes.append(error)
                    continue
                taken.add(device.id)
                outcomes.append(Settled(device))
                sources += [source] if source is not None else []
            devices = tuple(one.device for one in outcomes if isinstance(one, Settled))
            if not devices:
                return outcomes
            change = RegistryChange(actor.name, sources=tuple(sources), devices=devices)
            if not await self._submit(community, change, event_id):
                return await self._recall_all(community, wishes)
            await self._expect(community, wishes, outcomes)
            claimed = {make_id(wish.code) for wish in wishes if wish.secret or wish.fetches}
            passwords = await self._issue([source.id for source in sources if source.id not in claimed])
            return [
                replace(one, password=passwords.get(one.device.id, "")) if isinstance(one, Settled) else one
                for one in outcomes
            ]

    async def _recall_all(self, community: str, wishes: Sequence[Registration]) -> list[Settled | Refused]:
        outcomes = [await self._recall(community, wish) for wish in wishes]
        # Between the two somebody may have pulled the plug.
        await self._expect(community, wishes, outcomes)
        return outcomes

    async def _expect(
        self, community: str, wishes: Sequence[Registration], outcomes: Sequence[Settled | Refused]
    ) -> None:
        """Awaits the registered devices that fetch their passwords."""
        found = [
            one.device
            for wish, one in zip(wishes, outcomes, strict=True)
            if wish.fetches and isinstance(one, Settled) and is_own_source(one.device)
        ]
        if found and self._awaiting is not None:
            await self._awaiting.expect(community, found)

    async def _check_fetching(self, id: str, profile: str, code: str) -> None:
        """That a device may fetch its password: its model has a secret, and its apparatus is known by a code of its
        own. Raises Refused."""
        if self._awaiting is None or not await self._awaiting.is_offered(profile):
            raise Refused("no-product", f"the model {profile} has no secret that is switched on", "profile")
        if not code:
            raise Refused("bad-code", "the code has no letter or digit that it could ask with", "code")
        if await self._awaiting.is_promised(code, id):
            raise Refused("taken", f"another device is awaited with the code {code}", "code")

    async def _prepare(
        self, community: str, wish: Registration, present: Present, taken: Container[str]
    ) -> tuple[Device, Source | None]:
        """The device as it is to be, and its source where it speaks for itself. Raises Refused."""
        self._check_texts(wish.code, wish.name, wish.address)
        id = make_id(wish.code)
        if not ID.fullmatch(id) or id in RESERVED:
            raise Refused("bad-code", "the code has no letter or digit that could make an id", "code")
        self._check_profile(wish.profile)
        self._check_place(present, wish.place)
        if id in taken:
            raise Refused("taken", f"{id} is registered here already", "code")
        source: Source | None = None
        if wish.fetches and (wish.source or wish.secret):
            raise Refused(
                "not-its-own", "a device behind an agent, or with a secret of its own, fetches none", "source"
            )
        if wish.fetches:
            await self._check_fetching(id, wish.profile, id)
        if wish.source:
            self._check_source(present, wish.source)
        else:
            await self._check_identity(community, id, wish.secret)
            is_agent = self._catalog.profiles[wish.profile].kind == "edge-agent"
            source = Source(id, wish.place, id if is_agent else None)
        device = Device(
            id,
            wish.profile,
            wish.source or id,
            wish.place,
            wish.name.strip(),
            wish.address.strip(),
            attributes={SERIAL: wish.code.strip()},
        )
        return self._begin_test(device) if wish.is_test else device, source

    async def _check_identity(self, community: str, id: str, secret: str) -> None:
        """That an identity may be given to a new device: nobody has it, whoever asks holds its secret, or it was
        retired here. Raises Refused."""
        if secret:
            if not await asyncio.to_thread(self._ledger.is_unclaimed, id, secret):
                raise Refused("wrong-secret", "no device was listed beforehand with this code and secret", "secret")
            return
        known = await asyncio.to_thread(self._ledger.device, community, id)
        is_back = known is not None and known.state is DeviceState.RETIRED and is_own_source(known)
        if not is_back and await asyncio.to_thread(self._ledger.is_identity_taken, id):
            raise Refused("taken", f"{id} is registered already, perhaps in another community", "code")

    async def _recall(self, community: str, wish: Registration) -> Settled | Refused:
        """What had come of a wish when it came first."""
        device = await asyncio.to_thread(self._ledger.device, community, make_id(wish.code))
        if device is None:
            return Refused("refused-before", "it was refused when it came first", "id")
        return Settled(device, is_repeat=True)

    async def alter(self, actor: Actor, community: str, id: str, wish: Alteration) -> Settled:
        """Changes a device. Raises Refused, DoorClosed, DoorRefused, LedgerDown, and LookupError for one that is not
        registered (or no more)."""
        self._check_texts(wish.code, wish.name, wish.address)
        async with self._turn:
            event_id = make_event_id("registry", actor, wish.id, community, id, wish)
            if await self._has_happened(event_id):
                device = await self._known(community, id)
                if device.state is DeviceState.RETIRED and is_own_source(device):
                    # Between the two somebody may have pulled the plug.
                    await asyncio.to_thread(self._ledger.drop_credentials, [id])
                return Settled(device, is_repeat=True)
            present = await self._door.look(community)
            registered = [one.device for one in present.devices if one.device.id == id]
            if not registered:
                raise LookupError(id)
            device = registered[0]
            if wish.verb == "retire":
                return await self._retire(actor, community, device, present, event_id)
            if wish.verb == "expect":
                await self._check_fetching(device.id, device.profile, read_code(device))
            changed, sources = self._change(device, wish, present)
            change = RegistryChange(actor.name, sources=sources, devices=(changed,))
            is_new = await self._submit(community, change, event_id)
            needs_password = wish.verb in ("replace", "renew") and is_own_source(changed) and is_new
            passwords = await self._issue([changed.id]) if needs_password else {}
            if self._awaiting is not None and wish.verb == "expect" and is_new:
                await self._awaiting.expect(community, [changed], again=True)
            elif self._awaiting is not None and needs_password:
                await self._awaiting.forget(changed.id)
            return Settled(changed, passwords.get(changed.id, ""), is_repeat=not is_new)

    def _change(self, device: Device, wish: Alteration, present: Present) -> tuple[Device, tuple[Source, ...]]:
        """The device as it is to be, and its source where that moves along."""
        own = next((one.source for one in present.sources if one.source.id == device.id), None)
        match wish.verb:
            case "test":
                return self._begin_test(device), ()
            case "end_test":
                return replace(device, state=DeviceState.ACTIVE, state_until=None), ()
            case "rename":
                return replace(device, name=wish.name.strip()), ()
            case "move":
                self._check_place(present, wish.place)
                moved = (replace(own, place=wish.place),) if own is not None else ()
                return replace(device, place=wish.place), moved
            case "replace":
                return self._replace(device, wish), ()
            case "camera":
                return self._reach(device, wish), ()
            case "renew" | "expect" if is_own_source(device):
                return device, ()
            case "renew" | "expect":
                raise Refused("not-its-own", f"{device.id} has no password: {device.source} speaks for it", "verb")
        raise Refused("no-such-verb", f"{wish.verb[:40]} is none", "verb")

    def _replace(self, device: Device, wish: Alteration) -> Device:
        """Another apparatus in the same place: it is tried before it counts."""
        if not wish.code.strip():
            raise Refused("bad-code", "the new apparatus has a code", "code")
        profile = wish.profile or device.profile
        self._check_profile(profile)
        old, new = (self._catalog.profiles[name].kind for name in (device.profile, profile))
        if old != new:
            raise Refused(
                "another-kind", f"a {old} is not replaced by a {new}: retire it, and register that", "profile"
            )
        attributes: Mapping[str, Scalar] = {**device.attributes, SERIAL: wish.code.strip()}
        address = wish.address.strip() or device.address
        return self._begin_test(replace(device, profile=profile, address=address, attributes=dict(attributes)))

    def _reach(self, device: Device, wish: Alteration) -> Device:
        """How people look through it is registered anew."""
        given = {name: value.strip() for name, value in ((GB28181, wish.gb28181), (RTSP, wish.rtsp)) if value.strip()}
        for name, value in given.items():
            problem = refuse_camera({name: value})
            if problem is not None:
                raise Refused("bad-camera", problem, name)
        others = {name: value for name, value in device.attributes.items() if name not in CAMERA_ATTRIBUTES}
        return replace(device, attributes={**others, **given})

    def _begin_test(self, device: Device) -> Device:
        return replace(device, state=DeviceState.COMMISSIONING, state_until=self._clock() + self._test_ms)

    async def _retire(self, actor: Actor, community: str, device: Device, present: Present, event_id: str) -> Settled:
        carried = [one.device.id for one in present.devices if one.device.source == device.id != one.device.id]
        if carried:
            raise Refused("carries-others", f"it carries {len(carried)} devices: {', '.join(carried[:5])}", "verb")
        is_new = await self._submit(community, RegistryChange(actor.name, retired=(device.id,)), event_id)
        if is_own_source(device):
            await asyncio.to_thread(self._ledger.drop_credentials, [device.id])
            if self._awaiting is not None:
                await self._awaiting.forget(device.id)
        return Settled(replace(device, state=DeviceState.RETIRED, state_until=None), is_repeat=not is_new)

    # --- checks and small steps -----------------------------------------------------------------------------------

    def _check_texts(self, code: str, name: str, address: str) -> None:
        for field, text, longest in (
            ("code", code, LONGEST_CODE),
            ("name", name, LONGEST_NAME),
            ("address", address, LONGEST_ADDRESS),
        ):
            if len(text) > longest or not text.isprintable():
                raise Refused("bad-text", f"{field} is a line of at most {longest} characters", field)

    def _check_profile(self, id: str) -> None:
        if id not in self._catalog.profiles:
            raise Refused("unknown-profile", f"there is no model {id[:48]}", "profile")

    def _check_place(self, present: Present, id: str) -> None:
        if all(place.id != id for place in present.places):
            raise Refused("unknown-place", f"there is no place {id[:48]} in this community", "place")

    def _check_source(self, present: Present, id: str) -> None:
        if all(one.source.id != id for one in present.sources):
            raise Refused("unknown-source", f"there is no edge agent {id[:48]} in this community", "source")

    async def _has_happened(self, event_id: str) -> bool:
        return await asyncio.to_thread(self._ledger.find_event, event_id) is not None

    async def _known(self, community: str, id: str) -> Device:
        device = await asyncio.to_thread(self._ledger.device, community, id)
        if device is None:
            raise Refused("refused-before", "it was refused when it came first", "id")
        return device

    async def _submit(self, community: str, change: RegistryChange, event_id: str) -> bool:
        """Whether it is new. Raises Refused for what the engine has against it."""
        answer = await self._door.submit(community, change, event_id, PATIENCE_S)
        if answer not in ("done", "repeat"):
            raise Refused("refused", answer)
        return answer == "done"

    async def _issue(self, names: Sequence[str]) -> dict[str, str]:
        return await asyncio.to_thread(self._ledger.issue_credentials, names, self._clock()) if names else {}
