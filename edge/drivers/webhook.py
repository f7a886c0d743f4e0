"""A webhook for camera AI boxes, panels and whatever else can post JSON: ``POST /{address}`` is a message of the device
at that address. The driver is called ``http`` in the configuration.

A message is the device's own JSON, mapped by its profile (`from` names the field), or an event
(``{"event": "plate_seen", "data": {"plate": "鲁B12345"}}``), or both in one. The answer is 202 only after it is on the
disk; until a sender has that, it should send again.

``POST /`` is for panels that speak for many: a list of such messages, each with its ``address``, taken all or none. The
common token is asked for; what is refused of it is named by its address, and takes nothing else with it.

=====  =================================================================================================
202    taken; ``events`` are the ids of its events, ``left_out`` names the fields that nobody may pass on
       (pictures, vectors, names)
401    no token, or not this device's
404    no such device is registered on this bus
408    the body did not come in ``body_s`` seconds
413    the body is larger than ``body_kib``
422    not JSON, or nothing in it that the device's profile knows, or a field that is not as it says
503    it could not be stored: send it again after ``Retry-After`` seconds
=====  =================================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException as AnyHTTPException

from edge.drivers.measuring import NotJson, read_fields, read_json, select_data
from edge.ports import Carried, Desk, Lamp, NotTaken, Order, Outcome, Report
from gateway.errors import GatewayError
from gateway.wire import Signal

log = logging.getLogger(__name__)

RETRY_AFTER_S: Final = 5
PASSED_OVER_MOST: Final = 16 * 1024 * 1024
"""Bytes of a body that is too large which are received and thrown away: who is cut off in mid-sentence does not hear
why."""

CONNECTIONS_MOST: Final = 64
MESSAGES_MOST: Final = 1_000
"""Messages that one post may hold."""

SHOWN_MOST: Final = 20
"""Fields that an answer names."""


class Settings(BaseModel):
    """Where it listens, and what senders must know. ``token_file`` holds the token of every sender; ``token_files`` the
    tokens of some devices by address, for which the common one is then no good.

    ``events`` are the sender's own names of events, ``fields`` its names of their fields (sender's → profile's)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    driver: Literal["http"]
    bus: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]
    token_file: Path | None = None
    token_files: dict[str, Path] = {}
    events: dict[str, str] = {}
    fields: dict[str, str] = {}
    body_kib: Annotated[int, Field(ge=1, le=16_384)] = 1024
    body_s: Annotated[float, Field(ge=0.1, le=60)] = 10

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if self.token_file is None and not self.token_files:
            raise ValueError("write token_file or token_files: nobody may post without a token")
        return self


class Unfit(Exception):
    """A message that cannot be taken; in words why."""


def read_post(
    device: Carried, body: object, events: Mapping[str, str], fields: Mapping[str, str]
) -> tuple[Report, list[str]]:
    """What a posted message says, and the names of the event's fields that are left out of it. Raises Unfit.

    A press is taken whatever its fields are; of any other event a field that is not as the profile says is refused."""
    if not isinstance(body, dict):
        raise Unfit("the body is no JSON object")
    measurements = tuple(read_fields(device.id, device.profile, body))
    signals: tuple[Signal, ...] = ()
    left_out: list[str] = []
    name = body.get("event")
    if name is not None:
        signal, left_out = _read_event(device, name, body.get("data"), events, fields)
        signals = (signal,)
    if not signals and not measurements:
        known = [spec.raw for spec in device.profile.readings.values()]
        known += [f'"event": "{kind}"' for kind in device.profile.events]
        raise Unfit(f"nothing in it is known of a {device.profile.id}; known: {', '.join(known) or 'nothing'}")
    return Report(device.id, signals, measurements), left_out


def _read_event(
    device: Carried, name: object, data: object, events: Mapping[str, str], fields: Mapping[str, str]
) -> tuple[Signal, list[str]]:
    kind = events.get(name, name) if isinstance(name, str) else None
    spec = device.profile.events.get(kind) if kind is not None else None
    if spec is None:
        known = ", ".join(device.profile.events) or "none"
        shown = repr(name[:48]) if isinstance(name, str) else "that is no text"
        raise Unfit(f"a {device.profile.id} has no event {shown}; known: {known}")
    data = {} if data is None and "data" not in spec.data else data
    if not isinstance(data, dict) and not spec.press:
        raise Unfit("data is no JSON object")
    said = data if isinstance(data, dict) else {}
    passed, refused = select_data(spec, {fields.get(field, field): value for field, value in said.items()})
    wrong = {field: reason for field, reason in refused.items() if reason != "unknown-field"}
    if wrong and not spec.press:
        what = ", ".join(f"data.{field} is {_say(reason)}" for field, reason in wrong.items())
        raise Unfit(f"{what}, says the profile {device.profile.id}")
    return Signal(device.id, spec.id, passed), [field[:48] for field in refused][:SHOWN_MOST]


def _say(reason: str) -> str:
    return {"wrong-type": "of the wrong type", "out-of-range": "out of range"}.get(reason, reason)


class WebhookDriver:
    """One listening port. `edge.ports.Driver`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def run(self, desk: Desk) -> None:
        """Listens until cancelled. Raises GatewayError for a port that is taken and a token that cannot be read."""
        common, own = self._read_tokens()
        app = _make_app(self._settings, _Door(desk, self._settings, common, own))
        listener = self._bind()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=CONNECTIONS_MOST,
            timeout_graceful_shutdown=2,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        desk.tell("", "")
        try:
            await asyncio.shield(serving)
        finally:
            # What was already received is answered first.
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            listener.close()

    def _read_tokens(self) -> tuple[bytes | None, dict[str, bytes]]:
        settings = self._settings
        common = None if settings.token_file is None else _read_token(settings.token_file)
        return common, {address: _read_token(file) for address, file in settings.token_files.items()}

    def _bind(self) -> socket.socket:
        settings = self._settings
        try:
            family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
            return socket.create_server((settings.host, settings.port), family=family, backlog=CONNECTIONS_MOST)
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise GatewayError(
                "port-taken", f"cannot listen there: {error.strerror or error}", where, "choose a free port"
            ) from error

    async def perform(self, order: Order) -> Outcome:
        """Nothing: who posts cannot be asked."""
        return Outcome("refused", f"{order.device.address} posts to a webhook; it can be given no command")

    async def show(self, device: Carried, lamp: Lamp) -> None:
        """Nothing: who posts has the answer to its post."""


class _Server(uvicorn.Server):
    """A server inside the agent: signals are the agent's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Door:
    """What happens to a request."""

    def __init__(self, desk: Desk, settings: Settings, common: bytes | None, own: Mapping[str, bytes]) -> None:
        self._desk = desk
        self._settings = settings
        self._common = common
        self._own = own
        self._is_refused = False

    async def take(self, address: str, request: Request) -> dict[str, object]:
        """The answer to a message that was taken. Raises HTTPException for any other."""
        device = self._desk.find(address)
        if not self._is_allowed(address, request.headers.get("authorization", "")):
            if device is not None:
                self._desk.tell(address, "somebody posts for it with a wrong token")
            raise HTTPException(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        if device is None:
            raise HTTPException(404, f"no device is registered as {self._desk.bus}/{address[:200]}")
        try:
            body = read_json(await self._receive(request))
            report, left_out = read_post(device, body, self._settings.events, self._settings.fields)
        except (Unfit, NotJson) as error:
            what = f"the body is no JSON: {error}" if isinstance(error, NotJson) else str(error)
            self._desk.tell(address, f"its last post was refused: {what}")
            raise HTTPException(422, what) from None
        events = await self._store(report)
        self._desk.tell(address, "")
        return {"events": list(events), "readings": len(report.measurements), "left_out": left_out}

    async def _store(self, *reports: Report) -> tuple[str, ...]:
        try:
            events = await self._desk.take(*reports)
        except NotTaken as refused:
            self._is_refused = True
            self._desk.tell("", f"what devices say cannot be stored: {refused}")
            after = {"Retry-After": str(RETRY_AFTER_S)}
            raise HTTPException(503, f"it cannot be stored now: {refused}", after) from None
        if self._is_refused:
            self._is_refused = False
            self._desk.tell("", "")
        return events

    async def take_many(self, request: Request) -> dict[str, object]:
        """The answer to a list of messages. Raises HTTPException when none of it can be taken."""
        if not self._is_allowed("", request.headers.get("authorization", "")):
            raise HTTPException(401, "the token is missing or wrong", {"WWW-Authenticate": "Bearer"})
        try:
            bodies = read_json(await self._receive(request))
        except NotJson as error:
            raise HTTPException(422, f"the body is no JSON: {error}") from None
        if not isinstance(bodies, list) or len(bodies) > MESSAGES_MOST:
            raise HTTPException(422, f"the body is no list of at most {MESSAGES_MOST} messages, each with its address")
        reports: list[Report] = []
        refused: dict[str, str] = {}
        for body in bodies:
            address = body.get("address") if isinstance(body, dict) else None
            device = self._desk.find(address) if isinstance(address, str) else None
            if device is None or address in self._own:
                refused[str(address)[:64]] = "no device is registered there, or it has a token of its own"
                continue
            try:
                reports.append(read_post(device, body, self._settings.events, self._settings.fields)[0])
            except Unfit as error:
                refused[device.address] = str(error)
                self._desk.tell(device.address, f"its last post was refused: {error}")
        events = await self._store(*reports)
        readings = sum(len(report.measurements) for report in reports)
        return {"events": list(events), "readings": readings, "refused": dict(list(refused.items())[:SHOWN_MOST])}

    def _is_allowed(self, address: str, header: str) -> bool:
        scheme, _, token = header.partition(" ")
        expected = self._own.get(address, self._common)
        is_bearer = scheme.lower() == "bearer" and expected is not None
        # Compared in every case, so that the time tells nothing.
        is_same = hmac.compare_digest(token.strip().encode("utf-8", "replace"), expected or b"\0")
        return is_bearer and is_same

    async def _receive(self, request: Request) -> bytes:
        most, body_s = self._settings.body_kib * 1024, self._settings.body_s
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(body_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most:
                        body += chunk
                    elif size > most + PASSED_OVER_MOST:
                        break
        except TimeoutError:
            raise HTTPException(408, f"the body did not come in {body_s:g} s", {"Connection": "close"}) from None
        if size > most:
            raise HTTPException(413, f"the body is larger than {most} bytes", {"Connection": "close"})
        return bytes(body)


def _make_app(settings: Settings, door: _Door) -> FastAPI:
    app = FastAPI(title=settings.bus, docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/")
    async def post_many(request: Request) -> JSONResponse:
        return JSONResponse(await door.take_many(request), 202)

    @app.post("/{address:path}")
    async def post(address: str, request: Request) -> JSONResponse:
        return JSONResponse(await door.take(address, request), 202)

    @app.exception_handler(AnyHTTPException)
    async def explain(request: Request, error: AnyHTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    return app


def _read_token(file: Path) -> bytes:
    try:
        token = file.read_text(encoding="utf-8").strip().encode()
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError(
            "secret-unreadable", f"cannot read it: {error}", str(file), "give a readable file"
        ) from error
    if len(token) < 16:
        raise GatewayError("weak-token", "the token has less than 16 characters", str(file), "write a longer one")
    return token
