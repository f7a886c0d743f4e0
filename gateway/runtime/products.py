"""One secret for a model (一型一密), in the form that gives little away: it only fetches a device's own password, once,
for a device that was registered beforehand and is awaited.

The maker puts the model's secret into every device. A property manager registers a device by its code and says that it
fetches its password itself; for some days it is awaited then. The device asks with a signature made with the model's
secret, and is told a password of its own. Whoever opens a device and learns the secret can ask for those alone that are
awaited at that moment, and each that was asked for twice is shown to the manager.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, NoReturn, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gateway.core.catalog import Catalog
from gateway.core.model import Device, DeviceState
from gateway.core.worktime import DAY_MS
from gateway.runtime.access import Actor
from gateway.runtime.accounts import Deed, SealBroken, make_secret
from gateway.runtime.device_desk import is_own_source, make_id, read_code
from gateway.runtime.ports import Clock, Ledger

AWAITED_MS: Final = 7 * DAY_MS
"""How long a registered device may take to fetch its password."""

OVERLAP_MS: Final = 90 * DAY_MS
"""After a renewal the secret before is good for so long: devices that are on the shelf hold it."""

SKEW_S: Final = 600
"""So far a device's clock may be off."""

VERBS: Final = ("make", "renew", "off", "on")


class Product(Struct, frozen=True, omit_defaults=True):
    """A model with a secret. ``profile`` is its id, which devices name. ``earlier_until``: so long the secret before
    the present one is good, too."""

    profile: str
    created_at: int
    renewed_at: int
    earlier_until: int | None = None
    off_at: int | None = None

    @property
    def is_on(self) -> bool:
        return self.off_at is None


class ProductChanged(Struct, frozen=True):
    """A model as it is now, and its new secret where it got one, which nobody can ask for again. ``is_repeat``: it had
    happened already."""

    product: Product
    secret: str = ""
    is_repeat: bool = False


class Awaited(Struct, frozen=True, omit_defaults=True):
    """A registered device that fetches its password: ``until`` when it may, when it did, from where; and how often it
    was asked for in vain since, last when and from where. ``code`` is what the apparatus that is there now asks with
    (`read_code`)."""

    device: str
    code: str
    community: str
    profile: str
    until: int
    granted_at: int | None = None
    granted_to: str = ""
    refused: int = 0
    refused_at: int | None = None
    refused_from: str = ""


class Products(Protocol):
    """Where models' secrets and awaited devices are kept. Every method is one transaction; a change and its deed stand
    together. Raises LedgerDown and CommitRefused."""

    def products(self) -> list[Product]: ...
    def product(self, profile: str) -> Product | None: ...

    def renewal(self, profile: str) -> str:
        """What the present secret was made by; "" for none."""

    def put(self, profile: str, secret: str, renewal: str, earlier_until: int, deed: Deed) -> bool:
        """A new secret; the one before is good until then. False where ``renewal`` has made the present one."""

    def switch(self, profile: str, off_at: int | None, deed: Deed) -> None: ...

    def keys(self, profile: str, now: int) -> list[bytes]:
        """The secrets that are good now; none while it is off, or not there. Raises SealBroken."""

    def expect(self, awaited: Sequence[Awaited], *, again: bool = False) -> None:
        """Awaits devices. One that is known stays as it is, unless ``again``: then its password ends, too. No two are
        awaited with one code: the first one is."""

    def awaited(self, device: str) -> Awaited | None: ...
    def asking(self, code: str) -> Awaited | None:
        """The one that asks with this code."""

    def list_refused(self, community: str, since: int) -> list[Awaited]:
        """Those that somebody asked for in vain since then, the last one first."""

    def grant(self, device: str, profile: str, now: int, deed: Deed) -> str:
        """Its password, once and in its time; "" otherwise, which is counted."""

    def forget(self, device: str) -> None: ...

    def record(self, deed: Deed) -> None:
        """A line of the audit log."""


class Ask(Struct, frozen=True):
    """What a device asks with. ``at`` is its clock in seconds; ``signature`` is HMAC-SHA256 in lower-case hexadecimal
    over product, code and at, with a line feed between them."""

    product: str
    code: str
    at: int
    signature: str


class Granted(Struct, frozen=True):
    """What a device is told: where it is, what it is called, and its own password, which nobody can ask for again."""

    community: str
    source: str
    password: str


class NotGranted(Exception):
    """``code``: ``wrong-signature``, ``wrong-time`` or ``not-granted``."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class NoProduct(Exception):
    """It cannot be done. ``code``: ``unknown-profile``, ``no-product``, ``there-already`` or ``verb``."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def sign_ask(key: bytes, product: str, code: str, at: int) -> str:
    """The signature of an ask."""
    return hmac.new(key, f"{product}\n{code}\n{at}".encode(), hashlib.sha256).hexdigest()


class ProductDesk:
    """One for the web process. ``clock`` is real time."""

    def __init__(self, ledger: Ledger, products: Products, catalog: Catalog, clock: Clock) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._clock = clock
        self.products: Final = products

    # --- the secrets ----------------------------------------------------------------------------------------------

    async def change(self, actor: Actor, where: str, profile: str, verb: str, key: str) -> ProductChanged:
        """The same ``key`` again makes no second secret: the one before would end with it, which devices on the shelf
        hold. Raises NoProduct, LedgerDown."""
        if profile not in self._catalog.profiles:
            raise NoProduct("unknown-profile")
        known = await asyncio.to_thread(self.products.product, profile)
        if verb not in VERBS:
            raise NoProduct("verb")
        renewal = hashlib.sha256(f"{actor.id}/{key}/{verb}".encode()).hexdigest()[:32]
        if (
            known is not None
            and verb in ("make", "renew")
            and await asyncio.to_thread(self.products.renewal, profile) == renewal
        ):
            return ProductChanged(known, is_repeat=True)
        if (known is None) != (verb == "make"):
            raise NoProduct("no-product" if known is None else "there-already")
        now = self._clock()
        deed = Deed(now, actor.name, f"product.{verb}", profile, where, role=actor.role)
        secret = ""
        if verb in ("make", "renew"):
            made = make_secret()
            if await asyncio.to_thread(self.products.put, profile, made, renewal, now + OVERLAP_MS, deed):
                secret = made
        else:
            await asyncio.to_thread(self.products.switch, profile, now if verb == "off" else None, deed)
        found = await asyncio.to_thread(self.products.product, profile)
        if found is None:
            raise NoProduct("no-product")
        return ProductChanged(found, secret, is_repeat=verb in ("make", "renew") and not secret)

    # --- registered devices ---------------------------------------------------------------------------------------

    async def is_offered(self, profile: str) -> bool:
        """Whether devices of this model fetch their passwords now."""
        found = await asyncio.to_thread(self.products.product, profile)
        return found is not None and found.is_on

    async def is_promised(self, code: str, device: str) -> bool:
        """Whether another device than this one is awaited with this code."""
        found = await asyncio.to_thread(self.products.asking, code)
        return found is not None and found.device != device

    async def expect(self, community: str, devices: Sequence[Device], *, again: bool = False) -> None:
        """Awaits devices from now on, each with the code of the apparatus that is there."""
        until = self._clock() + AWAITED_MS
        rows = [Awaited(one.id, read_code(one), community, one.profile, until) for one in devices]
        await asyncio.to_thread(lambda: self.products.expect(rows, again=again))

    async def forget(self, device: str) -> None:
        """It is awaited no more."""
        await asyncio.to_thread(self.products.forget, device)

    # --- asking ---------------------------------------------------------------------------------------------------

    async def grant(self, ask: Ask, where: str) -> Granted:
        """Raises NotGranted, LedgerDown. Each ask stands in the audit log, without its signature."""
        return await asyncio.to_thread(self._grant, ask, where)

    def _grant(self, ask: Ask, where: str) -> Granted:
        now = self._clock()
        code = make_id(ask.code)
        deed = Deed(now, "", "device.provision", code, where, detail=ask.product[:48], role="device")
        try:
            keys = self.products.keys(ask.product, now)
        except SealBroken:
            keys = []
        signed = [sign_ask(key, ask.product, ask.code, ask.at) for key in keys or [b""]]
        is_good = any(hmac.compare_digest(one, ask.signature) for one in signed)
        if not keys or not is_good:
            self._refuse(deed, "wrong-signature")
        if abs(now // 1000 - ask.at) > SKEW_S:
            self._refuse(deed, "wrong-time")
        awaited = self.products.asking(code)
        known = self._ledger.device(awaited.community, awaited.device) if awaited is not None else None
        # Of an apparatus that was taken out nothing is awaited, also where the plug was pulled while it was replaced.
        is_there = (
            known is not None
            and known.state is not DeviceState.RETIRED
            and is_own_source(known)
            and read_code(known) == code
        )
        if awaited is None or not is_there:
            self._refuse(deed, "not-granted")
        deed = replace(deed, about=awaited.device)
        password = self.products.grant(awaited.device, ask.product, now, deed)
        if not password:
            raise NotGranted("not-granted")
        return Granted(awaited.community, awaited.device, password)

    def _refuse(self, deed: Deed, code: str) -> NoReturn:
        refused = Deed(deed.at, deed.who, deed.what, deed.about, deed.where, f"refused: {code}", deed.detail, deed.role)
        self.products.record(refused)
        raise NotGranted(code)
