"""Fixtures that every test may use: real servers, processes and data, and a last word on what was left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest

from tests.servers import ROOT, Mosquitto, Postgres, Process, ServerMissing, find_mosquitto, find_postgres

# How long one example takes says more about what else the machine does than about the code. In CI the examples are
# the same in every run, so that a red build is about the change; elsewhere they differ and find new ones.
hypothesis.settings.register_profile(
    "project", deadline=None, derandomize=os.environ.get("CI") == "true", print_blob=True
)
hypothesis.settings.load_profile("project")


class StartMosquitto(Protocol):
    """What the fixture `start_mosquitto` is."""

    def __call__(self, config: str = "", *, persistence: bool = False) -> Mosquitto: ...


class StartProcess(Protocol):
    """What the fixture `start_process` is."""

    def __call__(self, *args: str, env: Mapping[str, str] | None = None) -> Process: ...


def _need(find: Callable[[], Path]) -> None:
    """Skip the test when a server is not installed; in CI that is a failure."""
    try:
        find()
        return
    except ServerMissing as missing:
        reason = str(missing)
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def need_mosquitto() -> None:
    """For fixtures that start a broker of their own."""
    _need(find_mosquitto)


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    """One broker for the whole run, without persistence. Tests share it: use topics and client ids of your own."""
    _need(find_mosquitto)
    with Mosquitto() as broker:
        yield broker


@pytest.fixture
def start_mosquitto() -> Iterator[StartMosquitto]:
    """Starts brokers for one test alone, to configure, kill and start again."""
    _need(find_mosquitto)
    with ExitStack() as stack:

        def start(config: str = "", *, persistence: bool = False) -> Mosquitto:
            return stack.enter_context(Mosquitto(config, persistence=persistence))

        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for the whole run; most tests take `database_url` instead."""
    _need(find_postgres)
    with Postgres() as server:
        yield server


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """The SQLAlchemy URL of an empty PostgreSQL database, dropped after the test."""
    url = postgres.new_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def start_postgres() -> Iterator[Callable[[], Postgres]]:
    """Starts durable PostgreSQL servers for one test alone, to stop, kill and start again."""
    _need(find_postgres)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Postgres(durable=True))


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[StartProcess]:
    """Starts ``python -m ARGS`` in the checkout, with ``env`` added; whatever still runs after the test is killed."""
    with ExitStack() as stack:
        started = 0

        def start(*args: str, env: Mapping[str, str] | None = None) -> Process:
            nonlocal started
            started += 1
            return stack.enter_context(Process.module(*args, log=tmp_path / f"process-{started}.log", env=env))

        yield start


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of recorded data (not in the repo): ``SHARED_DATA``, or ``../shared/data`` beside the checkout."""
    named = os.environ.get("SHARED_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no recorded data (set SHARED_DATA to its folder, or put it at ../shared/data beside the checkout)")
    return folder


_left_out: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember why tests were skipped."""
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        _left_out[report.longrepr[2].removeprefix("Skipped: ")] += 1


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the very last lines what was left out, so that nobody takes a green run for a whole one."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _left_out:
        reporter.write_line("Left out:", yellow=True)
        for reason, tests in _left_out.most_common():
            reporter.write_line(f"  {tests} test{'s' if tests > 1 else ''}: {reason}", yellow=True)
