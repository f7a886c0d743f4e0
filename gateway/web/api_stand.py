"""``/api/v1/stand``: the test stand for programs: what can be played, a run beside what the gateway makes of it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ConfigDict, Field

from gateway.runtime.access import Actor, Permission
from gateway.runtime.device_desk import Refused
from gateway.runtime.door import DoorClosed
from gateway.runtime.stand import Run, RunWish, StandAway, StandRefused
from gateway.web.access import authorise
from gateway.web.api_incidents import WHOLE, Body, Key, respond_json
from gateway.web.api_values import RunSignal, RunSignalList, RunWatched
from gateway.web.console import Console
from gateway.web.device_view import find_community, record
from gateway.web.openapi import answers, errors
from gateway.web.problems import Problem
from gateway.web.tester_page import MOST_FAULTS, find_run, read_run_signals, stand_away

Tester = Annotated[Actor, Depends(authorise(Permission.SCENARIOS_PLAY))]
Watcher = Annotated[Actor, Depends(authorise(Permission.SCENARIOS_PLAY, is_passive=True))]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9-]{16,64}$", examples=["0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4"])]
Word = Annotated[str, Field(min_length=1, max_length=80)]
Times = Annotated[int, Field(ge=0, le=MOST_FAULTS), WHOLE]


class FaultsBody(Body):
    """How often each fault is put among the signals."""

    duplicate: Times = 0
    late: Times = 0
    garbage: Times = 0


class RunBody(Body):
    """What to play where. ``pace`` is how much faster than written acts follow each other; at another pace than 1
    there is no verdict."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"scenarios": ["sos-pressed"], "communities": ["c998"], "pace": 1, "faults": {"duplicate": 2}}
        },
    )

    scenarios: Annotated[list[Word], Field(min_length=1, max_length=100)]
    communities: Annotated[list[Word], Field(min_length=1, max_length=100)]
    pace: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    faults: FaultsBody = FaultsBody()


def route_stand_api(console: Console) -> APIRouter:
    """The routes of the test stand. Where none is configured, or it does not answer, all of them say 503."""
    router = APIRouter(prefix="/api/v1", tags=["stand"], default_response_class=Response)
    stand = console.stand

    @router.get("/stand", responses={**answers("StandView", "it"), **errors()})
    async def read_stand(actor: Watcher) -> Response:
        """The scenarios that can be played, the communities of one's scope where they can, and the newest run."""
        try:
            view = await stand.look()
        except StandAway as error:
            raise stand_away(error) from error
        known = console.names.names.communities
        view.communities[:] = [id for id in view.communities if id in known and actor.covers(id, known[id].grids)]
        return respond_json(view)

    @router.post(
        "/stand/runs",
        status_code=201,
        responses={201: answers("RunWatched", "it is being played")[200], **errors(404, 409, 422)},
    )
    async def start(request: Request, actor: Tester, body: RunBody, key: Key) -> Response:
        """Plays scenarios in communities of simulated devices. The same key again is the same run."""
        wish = RunWish(
            key,
            tuple(dict.fromkeys(body.scenarios)),
            tuple(dict.fromkeys(body.communities)),
            body.pace,
            body.faults.model_dump(),
        )
        communities = [await find_community(console, actor, id) for id in wish.communities]
        about = " ".join(wish.communities)[:200]
        try:
            run = await stand.start(actor, wish, communities)
        except (Refused, StandRefused) as error:
            await record(request, actor, "stand.run", about, f"refused: {error.code}")
            raise Problem(409, error.code, error.words) from error
        except (StandAway, DoorClosed) as error:
            raise stand_away(StandAway(str(error))) from error
        await record(request, actor, "stand.run", about, "done", " ".join(wish.scenarios))
        answer = respond_json(await watch(run), 201)
        answer.headers["Location"] = f"/api/v1/stand/runs/{run.id}"
        return answer

    @router.get("/stand/runs/{id}", responses={**answers("RunWatched", "it"), **errors(404, 422)})
    async def read_run(actor: Watcher, id: Id) -> Response:
        """A run as it stands: what was sent, what was expected beside what came, findings, incidents, the latency from
        an alarm to its receipt, and the verdict once it is over."""
        return respond_json(await watch(await find_run(console, actor, id)))

    @router.get("/stand/runs/{id}/signals", responses={**answers("RunSignalList", "they"), **errors(404, 422)})
    async def list_signals(actor: Watcher, id: Id) -> Response:
        """What the devices of a run's scenarios sent, the newest first."""
        run = await find_run(console, actor, id)
        found = await asyncio.to_thread(read_run_signals, console, run)
        return respond_json(RunSignalList([RunSignal(*one) for one in found]))

    @router.post(
        "/stand/runs/{id}/stop", responses={**answers("RunWatched", "it plays no further"), **errors(404, 422)}
    )
    async def stop(request: Request, actor: Tester, id: Id, key: Key) -> Response:
        """Plays no further; stopping again changes nothing."""
        run = await find_run(console, actor, id)
        try:
            stopped = await stand.stop(run.id)
        except LookupError as error:
            raise Problem(404, "unknown", "the stand has no such run") from error
        except StandAway as error:
            raise stand_away(error) from error
        await record(request, actor, "stand.stop", " ".join(run.communities)[:200])
        return respond_json(await watch(stopped))

    async def watch(run: Run) -> RunWatched:
        watched = await stand.watch(run)
        return RunWatched(
            run,
            watched.is_good,
            watched.judged,
            watched.faults,
            watched.findings,
            watched.incidents,
            watched.unexpected,
            watched.refused,
            watched.repeats,
        )

    return router
