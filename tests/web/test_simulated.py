"""What comes of simulated devices is marked wherever it stands, and counts in figures at a test alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.runtime.test_simulated import mark_first
from tests.web.control_room import ControlRoom, two_towns

MARK = ">模拟</span>"


@pytest.fixture(params=[False, True], ids=["real platform", "test platform"])
async def room(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ControlRoom]:
    """Two communities, the first one simulated, and a dispatcher of both."""
    made = ControlRoom(tmp_path, mark_first(two_towns()))
    made.is_test = request.param
    async with made:
        made.add("li")
        yield made


async def test_it_is_marked_wherever_it_stands(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    simulated, real = await room.press("sos-1", "c001"), await room.press("sos-1", "c002")

    for path in ("/board", "/wall", "/handover"):
        page = (await li.get(path)).text
        # Both are called the same, and each stands there as often as the other.
        assert page.count(real.title["zh"]) == 2 * page.count(MARK) > 0, path
    assert MARK in (await li.get(f"/incidents/{simulated.id}")).text
    assert MARK not in (await li.get(f"/incidents/{real.id}")).text
    async with room.listen(li, "/map/stream?after=0") as stream:
        cases = [(await stream.next("case"))[1] for _ in range(2)]
    assert {case["id"]: case["simulated"] for case in cases} == {simulated.id: True, real.id: False}


async def test_it_counts_at_a_test_alone(room: ControlRoom) -> None:
    li = await room.visitor_as("li")
    simulated, _ = await room.press("sos-1", "c001"), await room.press("sos-1", "c002")
    counted = "2" if room.is_test else "1"

    day = "from=2026-11-23&to=2026-11-23"
    appraised = (await li.get(f"/appraisal/export.csv?by=community&{day}")).text
    assert ("c001" in appraised, "c002" in appraised) == (room.is_test, True)
    assert f'今日立案</dt><dd class="digits">{counted}<' in (await li.get("/wall")).text
    standing = (await li.get("/rules")).text.partition(f"/rules/{simulated.rule}")[2]
    assert re.findall(r'data-label="事件">(\d+)', standing)[0] == counted
