"""Tasks that are to end, and do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN_S: Final = 15.0
"""Longer than the MQTT library takes to hang up, so that whoever is ending already is not disturbed."""


async def end(tasks: Iterable[asyncio.Task[Any]], again_s: float = AGAIN_S) -> None:
    """Cancels tasks until all have ended, whatever they end with.

    Once is not enough before Python 3.12: an ``asyncio.wait_for`` that gets what it waits for at the very moment
    forgets that it was cancelled, and the MQTT library stands on it."""
    begun = list(tasks)
    pending = {task for task in begun if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)
    await asyncio.gather(*begun, return_exceptions=True)
