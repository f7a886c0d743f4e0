"""The reference platform as a process of its own, for tests that need a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.servers import Process

KEY = "an-example-key-of-at-least-32-bytes"


class PlatformProcess:
    """A running reference platform. Its store stands in ``directory`` and outlives a kill."""

    def __init__(self, directory: Path, callback: str | None = None) -> None:
        self._directory = directory
        self._callback = callback
        self._key_file = directory / "platform.key"
        self._key_file.write_text(KEY + "\n")
        self.start()

    def start(self) -> None:
        """Starts it on a free port, with the store that is there."""
        self._process = Process.module(
            "simulators",
            "platform",
            f"--store={self._directory / 'platform.sqlite'}",
            f"--key-file={self._key_file}",
            *([] if self._callback is None else [f"--callback={self._callback}"]),
            log=self._directory / "platform.log",
        )
        self.url = self._process.wait_for_line(r"^listening on (http://127\.0\.0\.1:\d+)$")[1]
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=60)

    @property
    def events_url(self) -> str:
        return self.url + "/events"

    @property
    def list_url(self) -> str:
        return self.url + "/held"

    def get(self, path: str) -> Any:
        response = self._client.get(path)
        response.raise_for_status()
        return response.json()

    def post(self, path: str, content: bytes, headers: dict[str, str] | httpx.Headers) -> httpx.Response:
        return self._client.post(path, content=content, headers=headers)

    def act(self, incident: str, action: str, user: str, **more: object) -> dict[str, Any]:
        """Somebody here acts on an incident; the id, status and answer of the callback."""
        response = self._client.post(f"/incidents/{incident}/actions", json={"action": action, "user": user, **more})
        response.raise_for_status()
        return dict(response.json())

    def begin_act(self, incident: str, action: str, user: str, **more: object) -> str:
        """The same without waiting for the callback's answer; the callback's id."""
        act = {"action": action, "user": user, **more}
        response = self._client.post(f"/incidents/{incident}/actions?wait=false", json=act)
        response.raise_for_status()
        return str(response.json()["id"])

    def lose(self, incident: str) -> None:
        """Forgets an incident that it has answered for."""
        self._client.delete(f"/incidents/{incident}").raise_for_status()

    def fail_callbacks(self, mode: str, count: int = 1) -> None:
        self._client.post("/faults/callbacks", json={"mode": mode, "count": count}).raise_for_status()

    def fail(self, **fault: object) -> None:
        response = self._client.post("/faults", json=fault)
        assert response.status_code == 204, response.text

    def heal(self) -> None:
        self._client.delete("/faults").raise_for_status()

    def clear(self) -> None:
        """As after a first start: no fault asked for, nothing received."""
        self.heal()
        self._client.delete("/incidents").raise_for_status()

    def output(self) -> str:
        return self._process.output()

    def interrupt(self) -> int:
        """Ends it as Ctrl-C does; the exit status."""
        self._client.close()
        return self._process.interrupt()

    def terminate(self) -> int:
        """Ends it with SIGTERM; the exit status."""
        self._client.close()
        return self._process.terminate()

    def kill(self) -> None:
        self._client.close()
        self._process.kill()

    def close(self) -> None:
        self._client.close()
        self._process.close()


@contextmanager
def running_platform(directory: Path, callback: str | None = None) -> Iterator[PlatformProcess]:
    process = PlatformProcess(directory, callback)
    try:
        yield process
    finally:
        process.close()
