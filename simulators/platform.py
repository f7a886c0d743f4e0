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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
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
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 2.0
"""A callback that is not answered finally is sent again after this, and then ever longer, for as long as it takes."""

ANSWER_S: Final = 60.0
"""Whoever acts here waits so long for the gateway's answer; then the callback goes on without them."""

HELD_BACK_S: Final = 60.0
"""What is to come out of order waits so long for another act to come before it."""

PAGE: Final = 200
LEADS_TO: Final = {
    "accepted": "filed",
    "dispatched": "dispatched",
    "arrived": "handling",
    "resolved": "fed_back",
    "returned": "dispatched",
    "verified": "verified",
    "closed": "closed",
    "rated": "rated",
    "false_alarm": "false_alarm",
    "reopened": "filed",
    "parked": "parked",
    "merged": "merged",
}
"""Where an act leads to over here, until the gateway has said otherwise; other acts leave the state as it is."""

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
    state: str = ""
    """In this platform's code."""


class Told(StrEnum):
    """What became of telling the gateway of an act."""

    WAITING = "waiting"
    ANSWERED = "answered"
    DROPPED = "dropped"
    """Lost on request: nobody tells it, and nobody here knows."""


class Store:
    """Every accepted revision, and every act of the people here, in SQLite, written through to the disk before it is
    answered for. ``standing`` is how an incident stands over here: what was told of it last, and acts since."""

    def __init__(self, path: Path | str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS revision (incident TEXT NOT NULL, revision INTEGER NOT NULL, "
            "id TEXT NOT NULL UNIQUE, community TEXT NOT NULL, received_at INTEGER NOT NULL, data BLOB NOT NULL, "
            "PRIMARY KEY (incident, revision))"
        )
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS standing (incident TEXT PRIMARY KEY, state TEXT NOT NULL, "
            "told_state TEXT NOT NULL, updated_at INTEGER NOT NULL)"
        )
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS act (id TEXT PRIMARY KEY, incident TEXT NOT NULL, at INTEGER NOT NULL, "
            "event BLOB NOT NULL, told TEXT NOT NULL, status INTEGER NOT NULL)"
        )
        self._connection.execute("CREATE INDEX IF NOT EXISTS act_incident ON act (incident)")

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
            state = event.state or str(event.data.get("state", ""))
            self._connection.execute(
                "INSERT OR REPLACE INTO standing (incident, state, told_state, updated_at) VALUES (?, ?, ?, ?)",
                (event.incident, state, state, received_at),
            )
            return Recorded.NEW

    def record_act(self, id: str, incident: str, event: bytes, state: str | None, at: int) -> bytes:
        """Records an act, which leads to ``state`` (None: it stays). The event of this id, the first one's."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            known = self._connection.execute("SELECT event FROM act WHERE id = ?", (id,)).fetchone()
            if known is not None:
                return bytes(known[0])
            self._connection.execute(
                "INSERT INTO act (id, incident, at, event, told, status) VALUES (?, ?, ?, ?, ?, 0)",
                (id, incident, at, event, Told.WAITING),
            )
            self._connection.execute(
                "UPDATE standing SET state = coalesce(?, state), updated_at = ? WHERE incident = ?",
                (state, at, incident),
            )
        return event

    def settle_act(self, id: str, told: Told, status: int) -> None:
        """What became of telling it. What the gateway has refused was not done: its word on the state holds."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("UPDATE act SET told = ?, status = ? WHERE id = ?", (told, status, id))
            if status >= 400:
                self._connection.execute(
                    "UPDATE standing SET state = told_state WHERE incident = (SELECT incident FROM act WHERE id = ?)",
                    (id,),
                )

    def waiting_acts(self) -> list[tuple[str, str, bytes]]:
        """The acts that the gateway has not answered for finally, in order: id, incident, event."""
        return self._connection.execute(
            "SELECT id, incident, event FROM act WHERE told = ? ORDER BY rowid", (Told.WAITING,)
        ).fetchall()

    def held(self, since: int, after: str, limit: int) -> list[dict[str, Any]]:
        """What is held of the incidents that changed here at ``since`` or later, by id, those beyond ``after``."""
        rows = self._connection.execute(
            "SELECT incident FROM standing WHERE updated_at >= ? AND incident > ? ORDER BY incident LIMIT ?",
            (since, after, limit),
        ).fetchall()
        return [item for (id,) in rows if (item := self.held_of(id)) is not None]

    def held_of(self, id: str) -> dict[str, Any] | None:
        """What is held of one incident, in the form of docs/platform.md; None when it never arrived."""
        row = self._connection.execute(
            "SELECT revision.revision, standing.state, standing.updated_at, revision.data FROM standing "
            "JOIN revision ON revision.incident = standing.incident WHERE standing.incident = ? "
            "ORDER BY revision.revision DESC LIMIT 1",
            (id,),
        ).fetchone()
        if row is None:
            return None
        revision, state, updated_at, data = row
        acts = self._connection.execute("SELECT event FROM act WHERE incident = ? ORDER BY rowid", (id,))
        return {
            "id": id,
            "revision": revision,
            "state": state,
            "updated_at": datetime.fromtimestamp(updated_at / 1000, UTC).isoformat(),
            "data": msgspec.Raw(data),
            "actions": [msgspec.Raw(event) for (event,) in acts],
        }

    def lose(self, id: str) -> None:
        """Forgets one incident, though it was answered for: a disk that broke, a table that was cleaned."""
        with self._connection:
            self._connection.execute("DELETE FROM revision WHERE incident = ?", (id,))
            self._connection.execute("DELETE FROM standing WHERE incident = ?", (id,))
            self._connection.execute("DELETE FROM act WHERE incident = ?", (id,))

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
        for table in ("revision", "standing", "act"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608

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
    state = event.get("platformstate")
    return Received(
        event["id"],
        incident.id,
        incident.revision,
        incident.community,
        event["data"],
        state if isinstance(state, str) else incident.state,
    )


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


class CallbackFault(BaseModel):
    """How the next ``count`` callbacks go wrong: ``dropped`` (the act is recorded, and the gateway never told),
    ``twice``, or ``out-of-order`` (told after the act that comes next)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["dropped", "twice", "out-of-order"]
    count: Annotated[int, Field(ge=1)] = 1


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
    """Tells the gateway what people do here: signed CloudEvents to one address, until each is answered finally; those
    of one incident one after the other."""

    def __init__(self, url: str, key: bytes, store: Store, clock: Clock = _now) -> None:
        self._url = url
        self._key = key
        self._store = store
        self._clock = clock
        self._client = httpx.AsyncClient(timeout=5, trust_env=False)
        self._tasks: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._orders: dict[str, asyncio.Lock] = {}
        self._answered = asyncio.Event()
        self._faults: list[str] = []

    def ask_for_fault(self, fault: CallbackFault) -> None:
        """From now on, after those asked for before."""
        self._faults += [fault.mode] * fault.count

    def act(self, incident: str, act: Act) -> asyncio.Task[dict[str, Any]]:
        """Records the act and begins to tell of it: the task's result is the id, the final status and its answer."""
        id = act.id
        data = {"incident": incident, **act.model_dump(mode="json", exclude={"id"}, exclude_none=True)}
        at = self._clock()
        event = {
            "specversion": "1.0",
            "id": id,
            "source": "/platform",
            "type": ACTION_TYPE,
            "subject": incident,
            "time": datetime.fromtimestamp(at / 1000, UTC).isoformat(),
            "datacontenttype": "application/json",
            "data": data,
        }
        body = self._store.record_act(id, incident, msgspec.json.encode(event), LEADS_TO.get(act.action), at)
        return self._begin(id, incident, body, self._faults.pop(0) if self._faults else None)

    def resume(self) -> None:
        """Goes on with what was not answered finally before this platform ended."""
        for id, incident, body in self._store.waiting_acts():
            self._begin(id, incident, body, None)

    async def close(self) -> None:
        """Ends in the middle of telling; the store knows what is left."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    def _begin(self, id: str, incident: str, body: bytes, fault: str | None) -> asyncio.Task[dict[str, Any]]:
        under_way = self._tasks.get(id)
        if under_way is not None:
            return under_way
        task = self._tasks[id] = asyncio.create_task(self._tell(id, incident, body, fault))
        task.add_done_callback(lambda _: self._tasks.pop(id, None))
        return task

    async def _tell(self, id: str, incident: str, body: bytes, fault: str | None) -> dict[str, Any]:
        if fault == "dropped":
            self._store.settle_act(id, Told.DROPPED, 0)
            return {"id": id, "status": 0, "answer": {}}
        if fault == "out-of-order":
            try:
                async with asyncio.timeout(HELD_BACK_S):
                    await self._answered.wait()
            except TimeoutError:
                pass
        async with self._orders.setdefault(incident, asyncio.Lock()):
            status, answer = await self._send(body)
            if fault == "twice":
                await self._send(body)
            self._store.settle_act(id, Told.ANSWERED, status)
        self._answered.set()
        self._answered = asyncio.Event()
        return {"id": id, "status": status, "answer": answer}

    async def _send(self, body: bytes) -> tuple[int, Any]:
        signature = "v1=" + hmac.new(self._key, body, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/cloudevents+json", "Gateway-Signature": signature}
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                response = await self._client.post(self._url, content=body, headers=headers)
                if response.status_code < 500 and response.status_code != 429:
                    return response.status_code, response.json()
            except (httpx.HTTPError, ValueError):
                pass
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 1.3)


# --- the application -----------------------------------------------------------------------------------------------


def create_app(store: Store, keys: Sequence[bytes], clock: Clock = _now, caller: Caller | None = None) -> FastAPI:
    """The platform as an ASGI application over this store; with a ``caller`` people can act here. Outside a server of
    this module a cut connection shows as ConnectionAbortedError."""

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        if caller is not None:
            caller.resume()
        yield
        if caller is not None:
            await caller.close()

    app = FastAPI(title="Reference central platform", openapi_url=None, lifespan=live)
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

    @app.delete("/incidents/{id}", status_code=204)
    async def lose(id: str) -> None:
        """Loses one incident that was answered for."""
        store.lose(id)

    @app.post("/incidents/{id}/actions")
    async def act(id: str, act: Act, wait: bool = True) -> dict[str, Any]:
        """Somebody here acts on an incident: the gateway is told, and its answer given back; status 0 when nobody
        waited for it or it took too long, while the callback goes on."""
        if store.incident(id) is None:
            raise HTTPException(404, f"no incident {id} has arrived")
        if caller is None:
            raise HTTPException(409, "no callback address was given (--callback)")
        act = act.model_copy(update={"id": act.id or str(uuid4())})
        begun = caller.act(id, act)
        if wait:
            await asyncio.wait([begun], timeout=ANSWER_S)
        return begun.result() if begun.done() else {"id": act.id, "status": 0, "answer": {}}

    @app.get("/held")
    async def list_held(request: Request, updated_since: datetime, after: str = "", limit: int = PAGE) -> Response:
        """What is held, for the gateway to compare: a page of it, and ``next`` when there is more."""
        check_asker(request)
        items = store.held(round(updated_since.timestamp() * 1000), after, min(limit, PAGE))
        following = items[-1]["id"] if len(items) == min(limit, PAGE) else None
        return Response(msgspec.json.encode({"items": items, "next": following}), media_type="application/json")

    @app.get("/held/{id:path}")
    async def find_held(request: Request, id: str) -> Response:
        """The same of one incident; 404 with its id when it never arrived."""
        check_asker(request)
        item = store.held_of(id)
        if item is None:
            return JSONResponse({"id": id, "reason": "never-arrived"}, 404)
        return Response(msgspec.json.encode(item), media_type="application/json")

    def check_asker(request: Request) -> None:
        target = (
            b"GET " + request.scope["raw_path"] + (b"?" + query if (query := request.scope["query_string"]) else b"")
        )
        if not is_signed(request.headers.get("gateway-signature", ""), target, keys):
            raise HTTPException(401, "Gateway-Signature must be v1= and the HMAC-SHA256 of GET and the address")

    @app.get("/stats")
    async def stats() -> dict[str, Any]:
        """Counts of the store, and since the start: answers by outcome or refusing status, and faults that struck."""
        return {**store.counts(), "answers": dict(answered), "faults": dict(faults.struck)}

    @app.post("/faults", status_code=204)
    async def ask_for_fault(fault: Fault) -> None:
        faults.ask(fault)

    @app.post("/faults/callbacks", status_code=204)
    async def ask_for_callback_fault(fault: CallbackFault) -> None:
        if caller is None:
            raise HTTPException(409, "no callback address was given (--callback)")
        caller.ask_for_fault(fault)

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
                create_app(opened, keys, caller=None if callback is None else Caller(callback, keys[0], opened)),
                http=_CuttableProtocol,
                log_level="warning",
                access_log=False,
                # A delivery that hangs on request must not hold up the end.
                timeout_graceful_shutdown=1,
            )
            _AnnouncingServer(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        opened.close()
