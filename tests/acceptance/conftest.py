"""Stages and agents for acceptance tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.acceptance.stage import Agent, Stage
from tests.conftest import StartMosquitto
from tests.simulators.platform_process import PlatformProcess, running_platform


@pytest.fixture
def stage(tmp_path: Path, start_mosquitto: StartMosquitto) -> Iterator[Stage]:
    """A registered community on a broker of its own; the gateway is not started yet."""
    with closing(Stage(tmp_path, start_mosquitto("max_inflight_messages 0"))) as made:
        made.register()
        yield made


@pytest.fixture
def start_agent() -> Iterator[Callable[..., Agent]]:
    """Starts agents that are closed after the test."""
    with ExitStack() as stack:

        def start(stage: Stage, **options: object) -> Agent:
            return stack.enter_context(closing(Agent(stage, **options)))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformProcess]:
    """A reference platform of the test's own."""
    folder = tmp_path / "platform"
    folder.mkdir()
    with running_platform(folder) as process:
        yield process
