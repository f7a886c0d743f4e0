"""Worlds for the tests of the runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.runtime.world import World, district_of

MakeWorld = Callable[..., World]


@pytest.fixture
async def make_world(tmp_path: Path) -> AsyncIterator[MakeWorld]:
    """Makes worlds that are closed after the test."""
    made: list[World] = []

    def make(communities: int = 1, **options: object) -> World:
        folder = tmp_path / f"world-{len(made)}"
        folder.mkdir()
        world = World(folder, options.pop("district", None) or district_of(communities), **options)  # type: ignore[arg-type]
        made.append(world)
        return world

    yield make
    for world in made:
        await world.close()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """One community."""
    return make_world()
