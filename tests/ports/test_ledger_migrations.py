"""The way to the newest tables: from nothing, from what is there already, and by several programs at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from gateway.adapters.ledger import MIGRATIONS, open_ledger
from gateway.adapters.schema import metadata
from gateway.runtime.ports import Ledger, LedgerDown
from tests.ports.ledger_batches import WriterOfMany, count_whole_batches, found_ledger

Open = Callable[[], Ledger]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("database_url"))


@pytest.fixture
def open_one(url: str) -> Iterator[Open]:
    """Opens the same ledger again and again; all are closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_here() -> Ledger:
            ledger = open_ledger(url)
            stack.callback(ledger.close)
            return ledger

        yield open_here


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """Another program's connection to the same database."""
    engine = create_engine(url, poolclass=NullPool)
    yield engine
    engine.dispose()


def newest() -> str:
    [head] = ScriptDirectory(str(MIGRATIONS)).get_heads()
    return head


def read_versions(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())


def test_nothing_becomes_the_newest_tables_and_there_is_no_difference_to_the_models(
    open_one: Open, engine: Engine
) -> None:
    open_one().migrate()

    assert read_versions(engine) == [newest()]
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_changes_nothing_and_keeps_what_is_there(open_one: Open, engine: Engine) -> None:
    ledger = open_one()
    names = found_ledger(ledger, 3)
    WriterOfMany(ledger, names).commit()

    ledger.migrate()
    open_one().migrate()

    assert read_versions(engine) == [newest()]
    assert count_whole_batches(ledger, names) == 1


def test_two_programs_that_migrate_at_once_do_not_meet(open_one: Open, engine: Engine) -> None:
    faults: list[BaseException] = []
    start = threading.Barrier(4)

    def migrate(ledger: Ledger) -> None:
        start.wait()
        try:
            ledger.migrate()
        except BaseException as fault:  # noqa: BLE001 - told to the test's own thread
            faults.append(fault)

    threads = [threading.Thread(target=migrate, args=(open_one(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert read_versions(engine) == [newest()]


def test_tables_of_a_newer_program_are_left_alone(open_one: Open, engine: Engine) -> None:
    ledger = open_one()
    names = found_ledger(ledger, 3)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(LedgerDown, match="9999"):
        ledger.migrate()

    assert read_versions(engine) == ["9999"]
    assert ledger.communities() != []
    assert len(names) == 3


def test_a_migration_that_fails_halfway_leaves_nothing(open_one: Open, engine: Engine) -> None:
    """A table of somebody else's stands in the way of one of ours."""
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE timeline (something TEXT)"))

    with pytest.raises(LedgerDown, match="timeline"):
        open_one().migrate()

    assert inspect(engine).get_table_names() == ["timeline"]


def test_every_version_follows_one_other() -> None:
    revisions = list(ScriptDirectory(str(MIGRATIONS)).walk_revisions())

    assert [revision.revision for revision in reversed(revisions)] == [
        f"{number:04d}" for number in range(1, len(revisions) + 1)
    ]
    assert all(revision.doc for revision in revisions)
