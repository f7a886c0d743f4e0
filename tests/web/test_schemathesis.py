"""The API against its own document: no request that anybody could make up finds a fault or an answer that the document
does not have, and what the document forbids is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.runtime.access import ROLE_TITLES
from tests.web.control_room import ControlRoom
from tests.web.fuzz import Fuzzing, without_limits

SEED = 7
TAGS = ("incidents", "devices", "rules", "officers", "commands", "webhooks", "products", "trials", "map")


@pytest.fixture
async def fuzzing(tmp_path: Path) -> AsyncIterator[Fuzzing]:
    with without_limits():
        async with ControlRoom(tmp_path) as room:
            made = Fuzzing(room)
            await made.prepare()
            yield made


@pytest.mark.parametrize("tag", TAGS)
async def test_whoever_may_do_it_finds_no_fault_and_no_answer_that_is_not_described(
    fuzzing: Fuzzing, tmp_path: Path, tag: str
) -> None:
    phases = "--phases=examples,coverage,fuzzing"
    status, said = await fuzzing.run(tmp_path, f"--include-tag={tag}", f"--seed={SEED}", "--max-examples=3", phases)

    assert status == 0, said


async def test_every_operation_is_in_one_of_these_parts(fuzzing: Fuzzing) -> None:
    document = (await fuzzing.room.visitor().client.get("/api/v1/openapi.json")).json()
    tags = {tag for methods in document["paths"].values() for one in methods.values() for tag in one["tags"]}
    assert tags == {*TAGS, "stand"}, "the stand is asked where there is one: tests/browser/test_tester.py"


async def test_whatever_role_asks_is_answered_as_the_document_says(fuzzing: Fuzzing) -> None:
    for role in ROLE_TITLES:
        statuses = await asyncio.to_thread(fuzzing.ask_as, role, 2, SEED)
        assert statuses.total() > 0
        assert 401 not in statuses, role
