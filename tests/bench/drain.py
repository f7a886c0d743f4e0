"""The gateway's side of the pipeline benchmark: the product's own assembly, watched from beside."""

from __future__ import annotations

import asyncio
import time

from gateway import assembly
from gateway.runtime.pipeline import NotFed, Pipeline, Work
from gateway.settings import read_settings


def run(count: int) -> dict[str, float]:
    """Serves until ``count`` messages are committed and acknowledged. Seconds from the first batch's arrival."""
    return asyncio.run(_drain(count))


async def _drain(count: int) -> dict[str, float]:
    stop = asyncio.Event()
    seen = {"first": 0.0, "last": 0.0, "messages": 0.0, "judged": 0.0, "batches": 0.0}
    feed, settle = Pipeline._feed, Pipeline._settle

    def feed_watched(self: Pipeline, items: object) -> Work | NotFed:
        if not seen["first"] and items and items[0].arrived is not None:  # type: ignore[index]
            seen["first"] = time.perf_counter()
        return feed(self, items)  # type: ignore[arg-type]

    def settle_watched(self: Pipeline, work: Work) -> None:
        settle(self, work)
        if work.done:
            seen["batches"] += 1
            seen["last"] = time.perf_counter()
        seen["messages"], seen["judged"] = self.counters.messages, self.counters.readings
        if self.counters.messages >= count:
            stop.set()

    Pipeline._feed, Pipeline._settle = feed_watched, settle_watched  # type: ignore[method-assign]
    await asyncio.wait_for(assembly.serve(read_settings(None), stop=stop), 300)
    return {"seconds": seen["last"] - seen["first"], "judged": seen["judged"], "batches": seen["batches"]}
