"""A resident's press with all processes: printed sheet, web process, door, gateway; and what is killed in between."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.ledger import open_ledger
from gateway.cli import app
from gateway.core.model import Incident
from gateway.errors import GatewayError
from gateway.runtime.accounts import AuditFilter, Deed
from gateway.runtime.calls import event_of
from tests.acceptance.stage import Stage, events_of
from tests.conftest import need_mosquitto
from tests.servers import Mosquitto, Process, free_port

JSON = {"Accept": "application/json"}


class Wall:
    """A community with a gateway, a web process, and sheets on its walls."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.base = f"http://127.0.0.1:{free_port()}"
        stage.settings["SCG_WEB__PORT"] = self.base.rpartition(":")[2]
        self.web: Process | None = None
        self.starts = 0

    def start_web(self, **env: str) -> Process:
        self.starts += 1
        log = self.stage.folder / f"web-{self.starts}.log"
        self.close_web()
        self.web = Process.module("gateway", "web", log=log, env=self.stage.settings | env)
        self.web.wait_for_line(r'"event": "ready"')
        return self.web

    def need_web(self) -> None:
        if self.web is None or not self.web.is_running():
            self.start_web()

    def command(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env=self.stage.settings)

    def print_sheets(self, *arguments: str) -> dict[str, str]:
        """Place → address."""
        done = self.command("qr", "--out", str(self.folder), "--url", self.base, *arguments)
        assert done.exit_code == 0, done
        sheets = [json.loads(line) for line in done.stdout.splitlines()]
        return {sheet["place"]: sheet["url"] for sheet in sheets}

    @property
    def folder(self) -> Path:
        return self.stage.folder / "sheets"

    def cases(self, place: str) -> list[Incident]:
        return [case for case in self.stage.incidents() if case.place == place and case.cause == "sos"]

    def audit(self, what: str, about: str) -> list[Deed]:
        with closing(open_ledger(self.stage.ledger_url)) as ledger:
            rows = SqlAccounts(ledger.database).find_audit(AuditFilter(what=what, about=about), 100)
        return [row.deed for row in rows]

    def close_web(self) -> None:
        if self.web is not None:
            self.web.close()

    def close(self) -> None:
        self.close_web()
        self.stage.close()


def press(url: str, secret: str) -> httpx.Response:
    return httpx.post(url, data={"id": secret, "need": "medical"}, headers=JSON, timeout=30)


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wall]:
    """One for all tests, which press at places of their own; the gateway runs."""
    need_mosquitto()
    with Mosquitto("max_inflight_messages 0") as broker:
        stage = Stage(tmp_path_factory.mktemp("wall"), broker)
        stage.register()
        stage.start()
        with closing(Wall(stage)) as made:
            yield made


def test_a_press_is_one_case_though_the_web_process_dies_between_the_commit_and_its_answer(wall: Wall) -> None:
    [url] = wall.print_sheets("--place", "b1-u1").values()
    web = wall.start_web(FAULT_POINT="before-telling:1")
    with pytest.raises(httpx.TransportError):
        press(url, "1" * 32)
    assert web.wait() == -signal.SIGKILL
    [case] = wall.cases("b1-u1")

    wall.start_web()
    answers = [press(url, "1" * 32).json() for _ in range(2)]

    assert {answer["number"] for answer in answers} == {case.number}
    assert events_of(wall.cases("b1-u1")) == {event_of("1" * 32): [case.id]}
    assert [deed.outcome for deed in wall.audit("press", "c001/b1-u1")] == ["done"]


def test_sheets_of_a_community_are_printed_and_void_when_their_key_is_gone(wall: Wall) -> None:
    first = wall.print_sheets("--place", "gate", "--phone", "0532-5550100")
    sheets = wall.print_sheets("--community", "c001")
    assert set(sheets) == {"c001", "b1", "b2", "b1-u1", "b2-u1", "gate"}
    assert sheets["gate"] == first["gate"]  # The sheet that hangs there stays good.
    assert {path.name for path in wall.folder.iterdir()} >= {"sheets.html", "gate.svg"}
    assert (wall.folder / "sheets.html").read_text(encoding="utf-8").count("<svg") == 6
    assert "0532-5550100" in (wall.folder / "gate.svg").read_text(encoding="utf-8")
    assert [deed.who.partition(":")[0] for deed in wall.audit("pages.issue", "c001")[:2]] == ["cli", "cli"]

    wall.need_web()
    assert httpx.get(first["gate"]).status_code == 200
    assert wall.command("qr-key", "rotate").exit_code == 0
    second = wall.print_sheets("--place", "gate")
    assert [httpx.get(sheet["gate"]).status_code for sheet in (first, second)] == [200, 200]
    assert wall.command("qr-key", "end-overlap").exit_code == 0
    assert [httpx.get(sheet["gate"]).status_code for sheet in (first, second)] == [404, 200]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--community", "c001"), "no-address"),
        (("--url", "gateway.example", "--community", "c001"), "no-address"),
        (("--url", "https://gateway.example"), "no-place"),
        (("--url", "https://gateway.example", "--place", "nowhere"), "unknown-place"),
        (("--url", "https://gateway.example", "--community", "c999"), "unknown-place"),
        (("--url", "https://gateway.example", "--place", "b1", "--phone", "nobody"), "bad-phone"),
    ],
)
def test_what_cannot_be_printed_says_why(wall: Wall, arguments: tuple[str, ...], code: str) -> None:
    done = wall.command("qr", "--out", str(wall.folder / code), *arguments)
    assert isinstance(done.exception, GatewayError)
    assert done.exception.code == code
    assert not (wall.folder / code).exists()


def test_a_killed_gateway_is_told_honestly_and_the_press_arrives_once_when_it_is_back(wall: Wall) -> None:
    [url] = wall.print_sheets("--place", "b2-u1").values()
    wall.need_web()
    wall.stage.kill()
    page, refused = httpx.get(url), press(url, "2" * 32)
    assert "请直接打电话" in page.text
    assert (refused.status_code, refused.json()["code"]) == (503, "gateway-away")
    assert wall.cases("b2-u1") == []

    wall.stage.settings["FAULT_POINT"] = "before-answering:1"
    gateway = wall.stage.start()
    lost = press(url, "2" * 32)  # The gateway dies with the answer on its lips.
    del wall.stage.settings["FAULT_POINT"]
    assert gateway.wait() == -signal.SIGKILL
    [case] = wall.cases("b2-u1")
    assert lost.status_code == 503
    # What is in the ledger is told also without the gateway, and with it again it is no second press.
    assert press(url, "2" * 32).json()["number"] == case.number
    wall.stage.start()
    assert press(url, "2" * 32).json()["number"] == case.number
    assert [case.signals for case in wall.cases("b2-u1")] == [1]
