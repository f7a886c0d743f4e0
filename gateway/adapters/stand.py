"""The test stand over HTTP on loopback (`python -m simulators stand`)."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import httpx
import msgspec

from gateway.runtime.stand import Baseline, Run, RunWish, StandAway, StandRefused, StandView

TIMEOUT_S: Final = 5.0

T = TypeVar("T")


class HttpStand:
    """A client of one stand. ``key`` goes with every request."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_S, trust_env=False
        )

    async def look(self) -> StandView:
        """What can be played."""
        return self._read(await self._send("GET", "/stand"), StandView)

    async def start(self, wish: RunWish, note: Baseline) -> Run:
        """Begins a run."""
        body = {**msgspec.to_builtins(wish), "note": msgspec.to_builtins(note)}
        answer = await self._send("POST", "/runs", body)
        if answer.status_code in (409, 422):
            told = _decode(answer.content)
            code, words = str(told.get("code", "not-valid")), told.get("detail", "the stand does not take that")
            raise StandRefused(code, words if isinstance(words, str) else "the stand does not take that")
        return self._read(answer, Run)

    async def read(self, id: str) -> Run:
        """A run as it stands."""
        return self._read(await self._send("GET", f"/runs/{id}"), Run)

    async def stop(self, id: str) -> Run:
        """Plays no further."""
        return self._read(await self._send("POST", f"/runs/{id}/stop"), Run)

    async def close(self) -> None:
        """Hangs up."""
        await self._client.aclose()

    async def _send(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise StandAway(type(error).__name__) from error

    def _read(self, answer: httpx.Response, type: type[T]) -> T:
        if answer.status_code == 404:
            raise LookupError("the stand has no such run")
        if answer.status_code != 200:
            raise StandAway(f"it answers {answer.status_code}")
        try:
            return msgspec.json.decode(answer.content, type=type)
        except msgspec.MsgspecError as error:
            raise StandAway(f"its answer cannot be read: {error}") from error


def _decode(content: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(content)
    except msgspec.MsgspecError:
        return {}
    return found if isinstance(found, dict) else {}
