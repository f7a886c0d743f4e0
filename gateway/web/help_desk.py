"""Behind the help pages: a page's address, a press and its receipt, a rating, and how often is too often.

No limit ever loses a press. Over a page's limit a press joins the case that is at work at its place, instead of opening
one more; far over it, where such a case is at work, the caller is told its number and whom to dial. Where no case is at
work, every press is taken in as it comes. The rules are in docs/resident.md.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from msgspec import Struct

from gateway.core.incident import is_attended
from gateway.core.model import Device, DeviceState, Incident, OperatorAction, Press, Role
from gateway.runtime.accounts import Deed, make_secret
from gateway.runtime.calls import Call, CallElsewhere, Calls, event_of
from gateway.runtime.door import DoorClient, DoorClosed, DoorRefused
from gateway.runtime.faults import pass_point
from gateway.runtime.help_pages import PageCode, PageKeys, is_in_force, name_device
from gateway.runtime.ports import Clock, Ledger, LedgerDown
from gateway.runtime.receipts import Receipt, make_test_receipt, read_receipt
from gateway.web.access import name_network
from gateway.web.limits import Limiter, Rate
from gateway.web.problems import RETRY, Problem

log = logging.getLogger(__name__)

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

AT_A_PLACE: Final = Rate(12, HOUR_MS)
FROM_AN_ADDRESS: Final = Rate(4, HOUR_MS)
"""Of one network address at one place: telephones of a whole building may share one."""

OF_A_PHONE: Final = Rate(4, HOUR_MS)
FLOOD: Final = Rate(60, HOUR_MS)
"""Presses at one place. Beyond it a press that has a case to be told of opens and joins nothing."""

STRANGERS: Final = Rate(60, 10 * MINUTE_MS)
"""Addresses that nobody issued, asked for from one network address."""

REQUESTS: Final = Rate(600, MINUTE_MS)
"""Looks at pages and receipts from one network address."""

ATTEMPTS: Final = Rate(300, MINUTE_MS)
"""Presses from one network address, also the same again. What is more is sent again by its page."""

DOOR_S: Final = 5.0

SAME_FORM_MS: Final = 10 * MINUTE_MS
"""A form without a script that is sent again within so long is the same press."""

SETTLE_MS: Final = HOUR_MS
SAID_MS: Final = 30 * DAY_MS
"""Numbers and words are kept for so long, and while the case is open."""

KEPT_MS: Final = 365 * DAY_MS
SWEEP_S: Final = 3600.0
RESIDENT: Final = "resident"


class Said(Struct, frozen=True):
    """What comes with a press: ``waited`` (ms) is how long it took to arrive."""

    need: str = ""
    phone: str = ""
    words: str = ""
    waited: int = 0


class HelpDesk:
    """One for the application. ``clock`` is real time; ``door_s`` is how long a press waits for the gateway before its
    page is told that it has not arrived."""

    def __init__(
        self, ledger: Ledger, calls: Calls, door: DoorClient, keys: PageKeys, clock: Clock, door_s: float = DOOR_S
    ) -> None:
        self.calls: Final = calls
        self._ledger: Final = ledger
        self._door: Final = door
        self._keys: Final = keys
        self._clock: Final = clock
        self._door_s: Final = door_s
        self._places: Final = Limiter(AT_A_PLACE)
        self._addresses: Final = Limiter(FROM_AN_ADDRESS)
        self._phones: Final = Limiter(OF_A_PHONE)
        self._floods: Final = Limiter(FLOOD)
        self._flood_lines: Final = Limiter(Rate(1, MINUTE_MS))
        self._strangers: Final = Limiter(STRANGERS)
        self._requests: Final = Limiter(REQUESTS)
        self._attempts: Final = Limiter(ATTEMPTS)

    # --- pages ------------------------------------------------------------------------------------------------------

    def read_address(self, address: str, where: str) -> PageCode:
        """The page of an address that somebody at ``where`` asks for. Raises Problem 404 for one that is not ours."""
        code = self._keys.read(address)
        if code is None:
            self._refuse_stranger(where)
            raise Problem(404, "wrong-code", "this is no address of a help page of ours")
        return code

    async def find_page(self, code: PageCode) -> Device:
        """The page's device. Raises Problem 410 for a sheet that is no longer good, and LedgerDown."""
        device = await asyncio.to_thread(self._ledger.device, code.community, name_device(code.community, code.place))
        if device is None or not is_in_force(device, code):
            raise Problem(410, "code-replaced", "this sheet was replaced by another one, or taken down")
        return device

    async def is_gateway_there(self) -> bool:
        """Whether a press would be taken in now."""
        return await self._door.is_open()

    def count_request(self, where: str) -> None:
        """Counts a look at a page. Raises Problem 429."""
        self._limit(self._requests, name_network(where))

    # --- presses ----------------------------------------------------------------------------------------------------

    async def press(self, code: PageCode, secret: str, said: Said, where: str) -> Receipt:
        """Takes a press in, once for each ``secret``; it is in the journal when this returns.

        Raises Problem: 503 when it could not be taken in (ask again with the same secret), 409 when the secret was used
        for another press, 410 for a sheet that is no longer good, 429 for too many at once (ask again) or when there
        are so many at this place that one more adds nothing (``number`` is that of the case)."""
        self._limit(self._attempts, name_network(where))
        device = await self.find_page(code)
        event, now = event_of(secret), self._clock()
        call = Call(event, code.community, code.place, device.id, now, said.waited, said.need, said.phone, said.words)
        known = await asyncio.to_thread(self.calls.find, event)
        joins_open = False
        if known is None:
            joins_open = self._is_often(device.id, said.phone, where, now)
            await self._refuse_flood(call, where)
        if known is None or known.entered_at is None or call.says_more_than(known):
            try:
                await asyncio.to_thread(self.calls.keep, call)
            except CallElsewhere as error:
                raise Problem(409, "id-spent", "a press with this id was made at another place") from error
        incident = None
        if known is not None:
            # What was committed though its answer was lost is told also while the gateway is away.
            incident = await asyncio.to_thread(self._ledger.incident_of, event)
        if incident is None:
            incident = await self._enter(call, joins_open=joins_open)
        if incident is None and device.state is DeviceState.ACTIVE:
            # In the journal, but nobody's: it came before its page was registered. The page makes another one.
            raise Problem(409, "id-spent", "a press with this id came to nothing")
        await self._settle(call, incident, where, joins_open=joins_open)
        if incident is None:
            return make_test_receipt(now)
        return await self._tell(incident, event)

    async def renew(self, secret: str) -> str:
        """The secret of a plain form: another one where it was sent long ago. Whoever sends that form again presses
        again, and is not told of a case of hours before. Raises LedgerDown."""
        known = await asyncio.to_thread(self.calls.find, event_of(secret))
        is_old = known is not None and known.entered_at is not None and self._clock() - known.entered_at > SAME_FORM_MS
        return make_secret() if is_old else secret

    async def _enter(self, call: Call, *, joins_open: bool) -> Incident | None:
        press = Press(call.id, call.device, data={"need": call.need} if call.need else {}, joins_open=joins_open)
        try:
            answer = await self._door.submit(call.community, press, call.id, self._door_s)
        except DoorClosed as error:
            raise _gateway_away() from error
        except DoorRefused as error:
            log.error("press %s at %s was refused: %s", call.id, call.device, error)
            raise _gateway_away() from error
        if answer not in ("done", "repeat"):
            log.error("press %s at %s came to nothing: %s", call.id, call.device, answer)
            raise Problem(410, "code-replaced", "the gateway does not know this page")
        pass_point("before-telling")
        return await asyncio.to_thread(self._ledger.incident_of, call.id)

    async def _settle(self, call: Call, incident: Incident | None, where: str, *, joins_open: bool) -> None:
        """The press has its line in the audit log; what cannot be written now is written by `sweep`."""
        deed = _deed(call, self._clock(), where, incident, "over the limit" if joins_open else "")
        try:
            await asyncio.to_thread(self.calls.enter, call.id, self._clock(), deed)
        except LedgerDown as error:
            log.warning("press %s is not settled yet: %s", call.id, error)

    def _is_often(self, device: str, phone: str, where: str, now: int) -> bool:
        """Counts a new press; whether one of its limits is reached."""
        digits = "".join(char for char in phone if char.isdigit())
        waits = [self._places.take(device, now), self._addresses.take(f"{name_network(where)} {device}", now)]
        if digits:
            waits.append(self._phones.take(digits, now))
        return any(waits)

    async def _refuse_flood(self, call: Call, where: str) -> None:
        now = self._clock()
        if not self._floods.take(call.device, now):
            return
        case = await asyncio.to_thread(self._ledger.open_at, call.community, call.device)
        if case is None or not is_attended(case):
            return
        if not self._flood_lines.take(call.device, now):
            deed = Deed(now, "", "press", _about(call), where, "refused: too-often", case.number, RESIDENT)
            await asyncio.to_thread(self.calls.record, deed)
        raise Problem(
            429, "too-often", f"so many have called from here that {case.number} stands for all", number=case.number
        )

    # --- receipts ---------------------------------------------------------------------------------------------------

    async def look(self, secret: str, where: str) -> Receipt:
        """How the press with this secret stands. Raises Problem 404 when it is not in the journal."""
        self.count_request(where)
        event = event_of(secret)
        incident = await asyncio.to_thread(self._ledger.incident_of, event)
        if incident is not None:
            return await self._tell(incident, event)
        call = await asyncio.to_thread(self.calls.find, event)
        if call is not None and call.entered_at is not None:
            return make_test_receipt(call.at)
        self._refuse_stranger(where)
        raise Problem(404, "unknown-receipt", "no press with this receipt has arrived")

    async def say_more(self, secret: str, said: Said, where: str) -> None:
        """Adds what somebody says after the press. Raises Problem 404, or 409 when the case is over."""
        if (await self.look(secret, where)).is_over:
            raise Problem(409, "over", "this case is over; press again if help is needed")
        call = await asyncio.to_thread(self.calls.find, event_of(secret))
        if call is not None:
            more = Call(call.id, call.community, call.place, call.device, call.at, 0, said.need, said.phone, said.words)
            await asyncio.to_thread(self.calls.keep, more)

    async def rate(self, secret: str, score: int, where: str) -> Receipt:
        """Rates the help that came of the press. Raises Problem: 409 when there is nothing to rate (any more), 503."""
        receipt = await self.look(secret, where)
        case = await asyncio.to_thread(self._ledger.incident, receipt.target) if receipt.target else None
        if case is None:
            raise Problem(409, "not-to-rate", "a case is rated once, when it is closed")
        event = event_of(secret)
        id = f"{event}/rate/{case.revision}"
        action = OperatorAction(id, RESIDENT, case.id, "rate", role=Role.RESIDENT, score=score)
        try:
            answer = await self._door.submit(case.community, action, id, self._door_s)
        except (DoorClosed, DoorRefused) as error:
            raise _gateway_away() from error
        if answer not in ("done", "repeat"):
            raise Problem(409, "not-to-rate", answer)
        return await self.look(secret, where)

    async def _tell(self, incident: Incident, event: str) -> Receipt:
        return await asyncio.to_thread(read_receipt, incident, event, self._ledger.incident)

    # --- afterwards -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sweeps once an hour, for ever."""
        while True:
            try:
                await asyncio.to_thread(self.sweep)
            except LedgerDown as error:
                log.warning("what was said beside presses is not swept now: %s", error)
            await asyncio.sleep(SWEEP_S)

    def sweep(self) -> None:
        """Settles presses whose answer was lost, and forgets what was said long ago. Raises LedgerDown."""
        now = self._clock()
        for call in self.calls.unsettled(now - SETTLE_MS):
            if self._ledger.find_event(call.id) is None:
                self.calls.drop(call.id)  # Its page gave up, or sends it again with all that was said.
            else:
                self.calls.enter(call.id, now, _deed(call, now, "", self._ledger.incident_of(call.id), "late"))
        forgotten = self.calls.forget(now - SAID_MS, now - KEPT_MS)
        if forgotten:
            log.info("what was said beside %d presses was forgotten", forgotten)

    # --- limits -----------------------------------------------------------------------------------------------------

    def _refuse_stranger(self, where: str) -> None:
        self._limit(self._strangers, name_network(where))

    def _limit(self, limiter: Limiter, key: str) -> None:
        wait = limiter.take(key, self._clock())
        if wait:
            seconds = str(-(-wait // 1000))
            raise Problem(429, "too-many", f"too many requests; wait {seconds} s", headers={"Retry-After": seconds})


def _gateway_away() -> Problem:
    return Problem(503, "gateway-away", "the press has not arrived; send it again with the same id", headers=RETRY)


def _about(call: Call) -> str:
    return f"{call.community}/{call.place}"


def _deed(call: Call, now: int, where: str, incident: Incident | None, remark: str) -> Deed:
    number = incident.number if incident is not None else "a test"
    detail = "; ".join(part for part in (f"{call.id}: {number}", remark) if part)
    return Deed(now, "", "press", _about(call), where, detail=detail, role=RESIDENT)
