"""A ledger whose database goes away, refuses, or never answers: which of the port's errors comes out, and that the same
object works again afterwards with every batch written exactly once."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import psycopg
import pytest
from sqlalchemy import make_url

from gateway.adapters.ledger import open_ledger
from gateway.runtime.ports import CommitRefused, FenceLost, Ledger, LedgerDown
from tests.ports.ledger_batches import WriterOfMany, count_whole_batches, found_ledger
from tests.servers import Postgres, free_port

COMMUNITIES: Final = 5

OpenHere = Callable[[str], Ledger]


class AnswerLoser:
    """Stands between a client and PostgreSQL and passes everything on, until it is told to lose an answer: then the
    next COMMIT reaches the server, and its connection ends before the server's answer reaches the client."""

    def __init__(self, target_port: int) -> None:
        self.lost: Final = threading.Event()
        self._armed = threading.Event()
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: Final = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def lose_next_answer(self) -> None:
        self._armed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """To be left after the client's connections are closed: it waits for them."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                thread = threading.Thread(target=self._connect, args=(near,))
                self._threads.append(thread)
                thread.start()

    def _connect(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target_port)) as far:
            is_losing = threading.Event()
            back = threading.Thread(target=self._pass_on, args=(far, near, False, is_losing))
            back.start()
            self._pass_on(near, far, True, is_losing)
            back.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket, goes_up: bool, is_losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if goes_up and self._armed.is_set() and b"COMMIT" in data:
                    self._armed.clear()
                    is_losing.set()
                if not goes_up and is_losing.is_set():
                    # The server has answered, so it has committed.
                    self.lost.set()
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def open_here() -> Iterator[OpenHere]:
    """`open_ledger`; what it opened is closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_one(url: str) -> Ledger:
            ledger = open_ledger(url)
            stack.callback(ledger.close)
            return ledger

        yield open_one


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("database_url"))


# --- the server goes away ---------------------------------------------------------------------------------------------


def test_a_stopped_server_is_a_ledger_down_and_the_same_object_goes_on_when_it_is_back(
    open_here: OpenHere, start_postgres: Callable[[], Postgres]
) -> None:
    server = start_postgres()
    ledger = open_here(server.new_database())
    names = found_ledger(ledger, COMMUNITIES)
    writer = WriterOfMany(ledger, names)
    writer.commit()
    for end in (server.stop, server.kill):
        end()
        calls: list[Callable[[], object]] = [
            writer.commit,
            ledger.counts,
            ledger.communities,
            lambda: list(ledger.read_journal(names[0], 0)),
            lambda: ledger.claim(names, 0),
            lambda: ledger.standing(names),
            lambda: ledger.issue_credentials(["agent-1"], 0),
            ledger.migrate,
        ]
        for call in calls:
            with pytest.raises(LedgerDown):
                call()
        server.start()

        writer.commit()

    assert count_whole_batches(ledger, names) == 3


def test_a_server_killed_under_a_busy_writer_has_every_batch_once(
    open_here: OpenHere, start_postgres: Callable[[], Postgres]
) -> None:
    server = start_postgres()
    ledger = open_here(server.new_database())
    names = found_ledger(ledger, COMMUNITIES)
    writer = WriterOfMany(ledger, names)
    committed = downs = 0
    killer = threading.Timer(0.3, server.kill)
    killer.start()
    while downs == 0:
        try:
            writer.commit()
        except LedgerDown:
            downs += 1
        else:
            committed += 1
    killer.join()
    server.start()
    if writer.is_written():
        writer.confirm()
        committed += 1
    for _ in range(3):
        writer.commit()

    assert committed > 0
    assert count_whole_batches(ledger, names) == committed + 3


def test_standing_tells_a_commit_whose_answer_was_lost(database_url: str) -> None:
    url = make_url(database_url)
    assert url.port is not None
    with AnswerLoser(url.port) as line, contextlib.ExitStack() as stack:
        ledger = open_ledger(url.set(port=line.port).render_as_string(hide_password=False))
        stack.callback(ledger.close)
        names = found_ledger(ledger, COMMUNITIES)
        writer = WriterOfMany(ledger, names)
        writer.commit()
        assert not writer.is_written()

        line.lose_next_answer()
        with pytest.raises(LedgerDown):
            writer.commit()

        assert line.lost.is_set()
        assert writer.is_written()
        with pytest.raises(FenceLost) as again:
            ledger.commit(writer.make())
        assert again.value.communities == tuple(names)
        writer.confirm()
        writer.commit()
        assert count_whole_batches(ledger, names) == 3


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("53100", LedgerDown),  # disk full
        ("53200", LedgerDown),  # out of memory
        ("53300", LedgerDown),  # too many connections
        ("57014", LedgerDown),  # cancelled
        ("57P01", LedgerDown),  # shut down by an administrator
        ("58030", LedgerDown),  # input or output failed
        ("40001", LedgerDown),  # could not serialise
        ("40P01", LedgerDown),  # deadlock
        ("25006", LedgerDown),  # read-only, as on a standby
        ("42501", LedgerDown),  # no permission
        ("XX001", LedgerDown),  # data corrupted
        ("22021", CommitRefused),  # a character that the encoding has not
        ("22003", CommitRefused),  # a number out of range
        ("23514", CommitRefused),  # a check violated
        ("54000", CommitRefused),  # too large for an index
    ],
)
def test_what_postgresql_says_is_told_apart(
    open_here: OpenHere, database_url: str, state: str, expected: type[Exception]
) -> None:
    """What lies with the server must never count against the messages of a batch: they would be put aside."""
    ledger = open_here(database_url)
    names = found_ledger(ledger, COMMUNITIES)
    writer = WriterOfMany(ledger, names)
    writer.commit()
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'not today' USING ERRCODE = '{state}'; END $$".encode()
        )
        connection.execute("CREATE TRIGGER fail BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION fail()")
        with pytest.raises(expected, match="not today"):
            writer.commit()
        assert count_whole_batches(ledger, names) == 1
        connection.execute("DROP TRIGGER fail ON journal")

    writer.commit()

    assert count_whole_batches(ledger, names) == 2


# --- the file goes away -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["no-such-folder/ledger.db", "folder"])
def test_a_file_that_cannot_be_opened_is_a_ledger_down(open_here: OpenHere, tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    ledger = open_here(f"sqlite:///{tmp_path / place}")
    for call in (ledger.migrate, ledger.communities, ledger.counts):
        with pytest.raises(LedgerDown):
            call()


def test_a_file_that_is_no_database_is_a_ledger_down(open_here: OpenHere, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("no database " * 1000)
    ledger = open_here(f"sqlite:///{tmp_path / 'ledger.db'}")
    for call in (ledger.migrate, ledger.communities):
        with pytest.raises(LedgerDown, match="not a database"):
            call()


def test_a_file_whose_pages_are_damaged_is_a_ledger_down(open_here: OpenHere, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = open_here(f"sqlite:///{path}")
    names = found_ledger(ledger, COMMUNITIES)
    writer = WriterOfMany(ledger, names)
    for _ in range(50):
        writer.commit()
    ledger.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))

    with pytest.raises(LedgerDown):
        writer.commit()


def test_a_file_that_another_process_holds_is_a_ledger_down_until_it_lets_go(
    open_here: OpenHere, tmp_path: Path
) -> None:
    ledger = open_here(f"sqlite:///{tmp_path / 'ledger.db'}")
    names = found_ledger(ledger, COMMUNITIES)
    writer = WriterOfMany(ledger, names)
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerDown, match="locked"):
            writer.commit()
        assert count_whole_batches(ledger, names) == 0, "readers do not wait for a writer"
        other.execute("ROLLBACK")

    writer.commit()

    assert count_whole_batches(ledger, names) == 1


# --- tables that are not there, and addresses that are none -----------------------------------------------------------


def test_a_ledger_without_tables_is_down_and_refuses_nobody_s_message(open_here: OpenHere, url: str) -> None:
    ledger = open_here(url)
    for call in (ledger.communities, ledger.counts, lambda: ledger.claim(["c001"], 0)):
        with pytest.raises(LedgerDown):
            call()


def test_a_server_that_nobody_runs_is_a_ledger_down(open_here: OpenHere) -> None:
    ledger = open_here(f"postgresql+psycopg://postgres@127.0.0.1:{free_port()}/none")
    for call in (ledger.migrate, ledger.communities):
        with pytest.raises(LedgerDown):
            call()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "ledger.db",
        "sqlite:ledger.db",
        "mysql://localhost/ledger",
        "postgresql+asyncpg://localhost/ledger",
        "postgresql+psycopg://localhost:port/ledger",
        "sqlite+aiosqlite:///ledger.db",
        "mongodb://localhost",
    ],
)
def test_what_is_no_address_of_a_ledger_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="ledger"):
        open_ledger(url)


# --- threads ----------------------------------------------------------------------------------------------------------


def test_two_threads_commit_and_a_third_reads_whole_batches_meanwhile(open_here: OpenHere, url: str) -> None:
    ledger = open_here(url)
    names = found_ledger(ledger, 6)
    writers = [WriterOfMany(ledger, names[:3]), WriterOfMany(ledger, names[3:])]
    rounds = 40
    faults: list[BaseException] = []
    reads: list[int] = []
    finished = threading.Event()

    def commit(writer: WriterOfMany) -> None:
        try:
            for _ in range(rounds):
                writer.commit()
        except BaseException as fault:  # noqa: BLE001 - told to the test's own thread
            faults.append(fault)

    def read() -> None:
        try:
            while not finished.is_set():
                seen = [row.seq for row in ledger.read_journal(names[0], 0)]
                assert seen == list(range(1, len(seen) + 1))
                assert len(seen) % 4 == 0
                standing = ledger.standing(names[:3])
                assert len(set(standing.values())) == 1, "three heads move in one transaction"
                reads.append(len(seen))
        except BaseException as fault:  # noqa: BLE001 - told to the test's own thread
            faults.append(fault)

    threads = [threading.Thread(target=commit, args=(writer,)) for writer in writers]
    reader = threading.Thread(target=read)
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join()
    finished.set()
    reader.join()

    assert faults == []
    assert reads == sorted(reads)
    assert count_whole_batches(ledger, names) == rounds


def test_two_objects_on_one_ledger_fence_each_other_without_a_deadlock(open_here: OpenHere, url: str) -> None:
    first, second = open_here(url), open_here(url)
    names = found_ledger(first, COMMUNITIES)
    losses: list[str] = []
    batches = [0, 0]

    def compete(ledger: Ledger, place: int) -> None:
        while batches[place] < 10:
            writer = WriterOfMany(ledger, names)
            try:
                writer.commit()
                batches[place] += 1
            except FenceLost as lost:
                losses.extend(lost.communities)

    threads = [threading.Thread(target=compete, args=(ledger, at)) for at, ledger in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert batches == [10, 10]
    assert set(losses) <= set(names)
    assert count_whole_batches(first, names) == 20


def test_a_copy_of_the_file_taken_between_two_batches_is_a_whole_ledger(open_here: OpenHere, tmp_path: Path) -> None:
    ledger = open_here(f"sqlite:///{tmp_path / 'ledger.db'}")
    names = found_ledger(ledger, COMMUNITIES)
    writer = WriterOfMany(ledger, names)
    for _ in range(3):
        writer.commit()
    for part in tmp_path.glob("ledger.db*"):
        shutil.copy(part, tmp_path / part.name.replace("ledger", "copy"))
    writer.commit()

    copy = open_here(f"sqlite:///{tmp_path / 'copy.db'}")
    copy.migrate()

    assert count_whole_batches(copy, names) == 3
