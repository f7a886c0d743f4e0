"""What a ledger holds after its writer was killed, or its disk was full: whole batches, and all that were confirmed."""

from __future__ import annotations

import contextlib
import random
import re
import sqlite3
import time
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Engine, event

from gateway.adapters.ledger import open_ledger
from gateway.runtime.ports import LedgerDown
from tests.conftest import StartProcess
from tests.ports.ledger_batches import WriterOfMany, count_whole_batches, found_ledger
from tests.ports.ledger_process import COMMUNITIES

KILLS: Final = 5


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("database_url"))


def test_a_writer_killed_again_and_again_leaves_whole_batches_and_all_it_had_confirmed(
    url: str, start_process: StartProcess
) -> None:
    ledger = open_ledger(url)
    names = found_ledger(ledger, COMMUNITIES)
    chance = random.Random(20261123)
    batches = 0
    for _ in range(KILLS):
        process = start_process("tests.ports.ledger_process", "commit", url)
        process.wait_for_line("^committed 3$")
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        confirmed = batches + int(re.findall(r"^committed (\d+)$", process.output(), re.MULTILINE)[-1])

        batches = count_whole_batches(ledger, names)

        # The last one may have been committed without a word, because the kill came before the print.
        assert batches in (confirmed, confirmed + 1)
    WriterOfMany(ledger, names).commit()
    assert count_whole_batches(ledger, names) == batches + 1
    ledger.close()


def test_a_file_that_may_not_grow_any_more_is_a_ledger_down_and_loses_nothing(
    tmp_path: Path, start_process: StartProcess
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = open_ledger(url)
    names = found_ledger(ledger, COMMUNITIES)
    ledger.close()  # Folds the write-ahead log into the file, so that the limit below is the only one that it meets.

    process = start_process("tests.ports.ledger_process", "outgrow", url, str(1 << 20))
    assert process.wait(60) == 0, process.tail()

    printed = process.output().splitlines()
    assert printed[0].startswith("down: ")
    assert printed[1:4] == ["still down"] * 3
    before, after = (int(line.removeprefix("committed ")) for line in printed[4:])
    assert after == before + 1 > 3
    assert count_whole_batches(ledger, names) == after
    ledger.close()


def test_a_full_disk_is_a_ledger_down_and_the_same_object_goes_on_when_there_is_room(tmp_path: Path) -> None:
    connections: list[sqlite3.Connection] = []

    def fill(connection: sqlite3.Connection, record: object) -> None:
        connections.append(connection)
        connection.execute("PRAGMA max_page_count = 150")

    event.listen(Engine, "connect", fill)
    try:
        ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
        names = found_ledger(ledger, COMMUNITIES)
        writer = WriterOfMany(ledger, names)
        done = 0
        with contextlib.suppress(LedgerDown):
            while done < 1000:
                writer.commit()
                done += 1
        assert 3 < done < 1000
        with pytest.raises(LedgerDown, match="full"):
            writer.commit()
        assert count_whole_batches(ledger, names) == done

        for connection in connections:
            connection.execute("PRAGMA max_page_count = 100000")
        writer.commit()

        assert count_whole_batches(ledger, names) == done + 1
        ledger.close()
    finally:
        event.remove(Engine, "connect", fill)
