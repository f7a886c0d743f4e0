"""Tasks that are to end."""

from __future__ import annotations

import asyncio

import pytest

from edge.ending import end


async def test_a_task_that_forgets_its_cancellation_ends_all_the_same() -> None:
    forgotten = 0

    async def forget_twice() -> None:
        nonlocal forgotten
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if forgotten == 2:
                    raise
                forgotten += 1

    task = asyncio.create_task(forget_twice())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end([task], again_s=0.01)

    assert task.cancelled()
    assert forgotten == 2


async def test_what_has_ended_and_what_fails_is_left_as_it_is() -> None:
    async def fail() -> None:
        raise ValueError("as it is")

    done = asyncio.create_task(asyncio.sleep(0, "done"))
    failed = asyncio.create_task(fail())
    await asyncio.wait([done, failed])
    await end([done, failed])

    assert done.result() == "done"
    with pytest.raises(ValueError, match="as it is"):
        failed.result()


async def test_nothing_to_end_is_no_matter() -> None:
    await end([])
