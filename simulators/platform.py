"""The reference central platform: the receiving side of docs/platform.md, with its own store and faults on request.

It shares the incident's shape with the sender and nothing else, so that each checks the other. Tests, the demo and the
fault harness read from it what really arrived.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

import httpx
import msgspec
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.core.model import Incident

EVENT_TYPE: Final = "cn.jimo.gateway.incident.v1"
ACTION_TYPE: Final = "cn.jimo.platform.action.v1"
TRIES: Final = 40
"""A callback that is not answered finally is tried so often, a quarter of a second apart and then ever longer."""
BODY_LIMIT: Final = 1024 * 1024
SHORTEST_KEY: Final = 32
_ATTRIBUTES: Final = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype")
_CUT: Final = "simulators.cut"

Clock = Callable[[], int]
"""The time in milliseconds UTC."""


def _now() -> int:
    return time.time_ns() // 1_000_000


# --- what is kept --------------------------------------------------------------------------------------------------


class Recorded(StrEnum):
    """What became of a good event."""

    NEW = "new"
    AGAIN = "again"
    """This very id was recorded before."""
    LOWER = "lower"
    """A higher revision is recorded; this one adds nothing and is ignored."""


class Received(Struct, frozen=True):
    """A good event, as received."""

    id: str
    incident: str
    revision: int
    community: str
    data: dict[str, Any]


class Store:
    """Every accepted revision in SQLite, written through to the disk before it is answered for."""

    def __init__(self, path: Path | str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS revision (incident TEXT NOT NULL, revision INTEGER NOT NULL, "
            "id TEXT NOT NULL UNIQUE, community TEXT NOT NULL, received_at INTEGER NOT NULL, data BLOB NOT NULL, "
            "PRIMARY KEY (incident, revision))"
        )

    def record(self, event: Received, received_at: int) -> Recorded:
        """Records an event in one transaction, or says why there is nothing to record."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            if self._connection.execute("SELECT 1 FROM revision WHERE id = ?", (event.id,)).fetchone():
                return Recorded.AGAIN
            newest = self._connection.execute(
                "SELECT max(revision) FROM revision WHERE incident = ?", (event.incident,)
            ).fetchone()[0]
            if newest is not None and newest > event.revision:
                return Recorded.LOWER
            self._connection.execute(
                "INSERT INTO revision (incident, revision, id, community, received_at, data) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    event.incident,
                    event.revision,
                    event.id,
                    event.community,
                    received_at,
                    msgspec.json.encode(event.data),
                ),
            )
            return Recorded.NEW

    def is_same(self, event: Received) -> bool:
        """Whether the recorded event of this id says the same."""
        row = self._connection.execute("SELECT data FROM revision WHERE id = ?", (event.id,)).fetchone()
        return row is not None and msgspec.json.decode(row[0]) == event.data

    def incidents(self, community: str | None = None) -> list[dict[str, Any]]:
        """Each incident at its newest revision, in the order of first receipt."""
        where = "" if community is None else "WHERE community = :community"
        return [
            _to_view(row) for row in self._connection.execute(_NEWEST.format(where=where), {"community": community})
        ]

    def incident(self, id: str) -> dict[str, Any] | None:
        """One incident at its newest revision, with the receipt of each revision; None when it never arrived."""
        row = self._connection.execute(_NEWEST.format(where="WHERE incident = :id"), {"id": id}).fetchone()
        if row is None:
            return None
        receipts = self._connection.execute(
            "SELECT revision, received_at FROM revision WHERE incident = ? ORDER BY revision", (id,)
        )
        return _to_view(row) | {
            "receipts": [{"revision": revision, "received_at": received_at} for revision, received_at in receipts]
        }

    def counts(self) -> dict[str, int | None]:
        incidents, revisions, first, last = self._connection.execute(
            "SELECT count(DISTINCT incident), count(*), min(received_at), max(received_at) FROM revision"
        ).fetchone()
        return {
            "incidents": incidents,
            "revisions": revisions,
            "first_received_at": first,
            "last_received_at": last,
        }

    def clear(self) -> None:
        """Forgets everything, as if nothing had ever arrived."""
        self._connection.execute("DELETE FROM revision")

    def close(self) -> None:
        self._connection.close()


_NEWEST: Final = """
SELECT newest.data, newest.revision, held.count, held.first, held.last
FROM (
    SELECT incident, max(revision) AS revision, count(*) AS count, min(received_at) AS first,
           max(received_at) AS last, min(rowid) AS arrival
    FROM revision {where} GROUP BY incident
) AS held
JOIN revision AS newest ON newest.incident = held.incident AND newest.revision = held.revision
ORDER BY held.arrival
"""


def _to_view(row: Sequence[Any]) -> dict[str, Any]:
    data, revision, count, first, last = row
    return {
        "incident": msgspec.json.decode(data),
        "revision": revision,
        "revisions": count,
        "first_received_at": first,
        "last_received_at": last,
    }


# --- what arrives --------------------------------------------------------------------------------------------------


class Refusal(Exception):
    """An event that is not recorded: the status and the stable reason with which it is answered."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail


def read_event(body: bytes, headers: Mapping[str, str]) -> Received:
    """The event in this request. Raises Refusal: 400 for what is no CloudEvent, 422 for one that is not ours."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/cloudevents+json":
        raise Refusal(400, "wrong-content-type", "send application/cloudevents+json (structured mode)")
    try:
        event = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, "not-json", str(error)) from error
    if not isinstance(event, dict):
        raise Refusal(400, "not-json", "the body is JSON, but no object")
    for name in _ATTRIBUTES:
        if not isinstance(event.get(name), str) or not event[name]:
            raise Refusal(400, "missing-attribute", f"attribute {name} must be a text that is not empty")
    if event["specversion"] != "1.0":
        raise Refusal(400, "wrong-specversion", "this platform reads CloudEvents 1.0")
    _check_time(event["time"])
    if headers.get("idempotency-key") != event["id"]:
        raise Refusal(400, "wrong-key", "Idempotency-Key must be the event's id")
    if event["type"] != EVENT_TYPE:
        raise Refusal(422, "unknown-type", f"this platform reads {EVENT_TYPE}")
    try:
        incident = msgspec.convert(event.get("data"), Incident)
    except msgspec.ValidationError as error:
        raise Refusal(422, "not-an-incident", str(error)) from error
    if event["subject"] != incident.id:
        raise Refusal(422, "wrong-subject", "subject must be data.id")
    if event["id"] != f"{incident.id}/{incident.revision}":
        raise Refusal(422, "wrong-id", "id must be data.id/data.revision")
    if event["source"] != f"/gateway/{incident.community}":
        raise Refusal(422, "wrong-source", "source must be /gateway/ and data.community")
    return Received(event["id"], incident.id, incident.revision, incident.community, event["data"])


def _check_time(text: str) -> None:
    try:
        if datetime.fromisoformat(text).tzinfo is not None:
            return
    except ValueError:
        pass
    raise Refusal(400, "wrong-time", "attribute time must be RFC 3339 with a zone")


def is_signed(header: str, body: bytes, keys: Sequence[bytes]) -> bool:
    """Whether one of the signatures in the header is made with one of the keys (so that keys can be changed with an
    overlap)."""
    given = [part.strip().removeprefix("v1=") for part in header.split(",") if part.strip().startswith("v1=")]
    made = [hmac.new(key, body, hashlib.sha256).hexdigest() for key in keys]
    # compare_digest takes ASCII text only, and a header may hold anything.
    return any(hmac.compare_digest(one.encode(), other.encode()) for one in given for other in made)


# --- faults on request ---------------------------------------------------------------------------------------------


class Fault(BaseModel):
    """How deliveries fail from now on: the next ``count`` of them, or each with ``probability`` (drawn from ``seed``),
    or, with neither, all. ``hang`` never answers; ``garbage`` answers 200 with a page; ``recorded-but-not-answered``
    records and cuts the connection; ``close`` cuts it at once; ``slow`` answers rightly after ``delay_s``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["status", "hang", "garbage", "recorded-but-not-answered", "close", "slow"]
    status: Annotated[int, Field(ge=300, le=599)] | None = None
    count: Annotated[int, Field(ge=1)] | None = None
    probability: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int = 0
    delay_s: Annotated[float, Field(gt=0, le=600)] = 1.0

    @model_validator(mode="after")
    def _has_status(self) -> Fault:
        if (self.mode == "status") != (self.status is not None):
            raise ValueError("give a status with mode status, and with no other")
        return self


class _Faults:
    """The fault now asked for, and how often it struck."""

    def __init__(self) -> None:
        self.struck: Counter[str] = Counter()
        self.ask(None)

    def ask(self, fault: Fault | None) -> None:
        self.fault = fault
        self._left = None if fault is None else fault.count
        self._rng = Random(0 if fault is None else fault.seed)

    def draw(self) -> Fault | None:
        """The fault for this delivery, or None when it goes well."""
        fault = self.fault
        if fault is None or self._left == 0:
            return None
        if fault.probability is not None and self._rng.random() >= fault.probability:
            return None
        if self._left is not None:
            self._left -= 1
        self.struck[fault.mode] += 1
        return fault


# --- what people do here -------------------------------------------------------------------------------------------


class Act(BaseModel):
    """An act of somebody here on an incident, in this platform's words; see docs/platform.md for the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: str
    user: str
    id: str = ""
    reason: str = ""
    grid: str = ""
    body: str = ""
    into: str = ""
    until: datetime | None = None
    score: int | None = None
    revision: int | None = None


class Caller:
    """Tells the gateway what people do here: signed CloudEvents to one address, until they are answered finally."""

    def __init__(self, url: str, key: bytes) -> None:
        self._url = url
        self._key = key
        self._client = httpx.AsyncClient(timeout=5, trust_env=False)

    async def tell(self, incident: str, act: Act) -> dict[str, Any]:
        """The id, the final status and the JSON of its answer; status 0 when there was none in the end."""
        id = act.id or str(uuid4())
        data = {"incident": incident, **act.model_dump(mode="json", exclude={"id"}, exclude_none=True)}
        body = msgspec.json.encode(
            {
                "specversion": "1.0",
                "id": id,
                "source": "/platform",
                "type": ACTION_TYPE,
                "subject": incident,
                "time": datetime.now(UTC).isoformat(),
                "datacontenttype": "application/json",
                "data": data,
            }
        )
        signature = "v1=" + hmac.new(self._key, body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/cloudevents+json", "Gateway-Signature": signature}
        for attempt in range(TRIES):
            try:
                response = await self._client.post(self._url, content=body, headers=headers)
                if response.status_code < 500 and response.status_code != 429:
                    return {"id": id, "status": response.status_code, "answer": response.json()}
            except (httpx.HTTPError, ValueError):
                pass
            await asyncio.sleep(min(2.0, 0.25 * 1.3**attempt))
        return {"id": id, "status": 0, "answer": {}}


# --- the application -----------------------------------------------------------------------------------------------


def create_app(store: Store, keys: Sequence[bytes], clock: Clock = _now, caller: Caller | None = None) -> FastAPI:
    """The platform as an ASGI application over this store; with a ``caller`` people can act here. Outside a server of
    this module a cut connection shows as ConnectionAbortedError."""
    app = FastAPI(title="Reference central platform", openapi_url=None)
    faults = _Faults()
    answered: Counter[str] = Counter()

    @app.post("/events")
    async def receive(request: Request) -> Response:
        fault = faults.draw()
        match fault.mode if fault else None:
            case "close":
                await _cut(request)
                return Response()
            case "hang":
                await _wait_until_gone(request)
                return Response()
            case "garbage":
                return HTMLResponse("<!DOCTYPE html><title>Welcome</title><p>It works!</p>")
            case "status" if fault and fault.status:
                return JSONResponse({"reason": "fault", "detail": "on request"}, fault.status)
            case "slow" if fault:
                await asyncio.sleep(fault.delay_s)
        try:
            answer = _take(await _read_body(request), request.headers)
        except Refusal as refusal:
            answered[str(refusal.status)] += 1
            answer = JSONResponse({"reason": refusal.reason, "detail": refusal.detail}, refusal.status)
        if fault and fault.mode == "recorded-but-not-answered":
            await _cut(request)
        return answer

    def _take(body: bytes, headers: Mapping[str, str]) -> JSONResponse:
        if not is_signed(headers.get("gateway-signature", ""), body, keys):
            raise Refusal(401, "wrong-signature", "Gateway-Signature must be v1= and the HMAC-SHA256 of the body")
        event = read_event(body, headers)
        recorded = store.record(event, clock())
        answered[recorded] += 1
        if recorded is Recorded.AGAIN and not store.is_same(event):
            answered["differing"] += 1
        return JSONResponse(
            {"id": event.id, "revision": event.revision, "recorded": recorded},
            409 if recorded is Recorded.AGAIN else 201 if recorded is Recorded.NEW else 200,
        )

    @app.get("/incidents")
    async def incidents(community: str | None = None) -> list[dict[str, Any]]:
        return store.incidents(community)

    @app.delete("/incidents", status_code=204)
    async def forget() -> None:
        """Empties the store and the counts, so that one server serves many tests."""
        store.clear()
        answered.clear()
        faults.struck.clear()

    @app.get("/incidents/{id}")
    async def incident(id: str) -> dict[str, Any]:
        found = store.incident(id)
        if found is None:
            raise HTTPException(404, f"no incident {id} has arrived")
        return found

    @app.post("/incidents/{id}/actions")
    async def act(id: str, act: Act) -> dict[str, Any]:
        """Somebody here acts on an incident: the gateway is told, and its answer given back."""
        if store.incident(id) is None:
            raise HTTPException(404, f"no incident {id} has arrived")
        if caller is None:
            raise HTTPException(409, "no callback address was given (--callback)")
        return await caller.tell(id, act)

    @app.get("/stats")
    async def stats() -> dict[str, Any]:
        """Counts of the store, and since the start: answers by outcome or refusing status, and faults that struck."""
        return {**store.counts(), "answers": dict(answered), "faults": dict(faults.struck)}

    @app.post("/faults", status_code=204)
    async def ask_for_fault(fault: Fault) -> None:
        faults.ask(fault)

    @app.delete("/faults", status_code=204)
    async def end_faults() -> None:
        faults.ask(None)

    return app


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise Refusal(413, "too-large", f"an event has at most {BODY_LIMIT} bytes")
    return bytes(body)


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cut(request: Request) -> None:
    cut = request.scope.get(_CUT)
    if cut is None:
        raise ConnectionAbortedError("the platform cut the connection")
    cut()
    await _wait_until_gone(request)


# --- the server ----------------------------------------------------------------------------------------------------


class _CuttableProtocol(H11Protocol):
    """Gives the application the means to cut its own connection, which ASGI does not have."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        inner: ASGIApp = self.app

        async def cuttable(scope: Scope, receive: Receive, send: Send) -> None:
            await inner({**scope, _CUT: transport.abort}, receive, send)

        self.app = cuttable


class _AnnouncingServer(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or ():
            print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)


class KeyFileError(ValueError):
    """A key file that cannot be used; the message says why."""


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys in a file, one per line, at least 32 bytes each. Raises KeyFileError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:
        raise KeyFileError(f"{path} holds no key; write one of at least {SHORTEST_KEY} characters on a line of its own")
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST_KEY:
            raise KeyFileError(f"{path}: key {number} has {len(key)} characters; it needs at least {SHORTEST_KEY}")
    return keys


def serve(store: Path, keys: Sequence[bytes], port: int, callback: str | None = None) -> None:
    """Serves the platform on 127.0.0.1 until SIGINT or SIGTERM; prints its address on stdout when it answers."""
    opened = Store(store)
    try:
        with socket.create_server(("127.0.0.1", port)) as listening:
            config = uvicorn.Config(
                create_app(opened, keys, caller=None if callback is None else Caller(callback, keys[0])),
                http=_CuttableProtocol,
                log_level="warning",
                access_log=False,
                lifespan="off",
                # A delivery that hangs on request must not hold up the end.
                timeout_graceful_shutdown=1,
            )
            _AnnouncingServer(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        opened.close()
