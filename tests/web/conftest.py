"""Fixtures of the web's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.control_room import ControlRoom


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[ControlRoom]:
    """A gateway with two communities, its web process, and a dispatcher ``li`` of the whole district."""
    async with ControlRoom(tmp_path) as made:
        made.add("li")
        yield made
