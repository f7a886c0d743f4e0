"""``python -m tests.ports.broker_process FOLDER KIND``: runs an embedded broker, prints its process id and address, and
waits to be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.adapters.broker import EmbeddedBroker


async def _run(folder: Path, kind: str) -> None:
    broker = EmbeddedBroker(folder, {}, kind=kind)
    url = await broker.start()
    print(f"pid {broker.pid} at {url}", flush=True)
    await asyncio.Event().wait()


asyncio.run(_run(Path(sys.argv[1]), sys.argv[2]))
