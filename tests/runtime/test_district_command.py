"""``district import`` and ``district export`` as people call them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.ledger import open_ledger
from gateway.cli import app
from gateway.errors import GatewayError
from gateway.runtime.clock import RunningClock
from gateway.runtime.ports import Batch
from tests.runtime.districts import TABLES, write_folder
from tests.servers import ROOT

BAD = {
    "grids.csv": "37021500A,town,示例二街道,370215\n3.70215E+14,base,示例网格,37021500100402\n",
    "communities.csv": "c003,2,示例三期,370215001004,\n",
    "places.csv": "c001,c001-x,public,门,c001,,36.39,120.45,cgcs2000,\nc001,c001-y,shed,棚,c001,,,,,\n",
    "sources.csv": "c001,agent-003,c002-gate,\n",
    "devices.csv": "c001,c001-x,nb-smok,agent-001,c001-gate,,,,,\nc001,c001-z,nb-smoke,agent-001,c001-y,,,,,\n",
    "responsible.csv": "propperty,370215001,示例（模拟）\n",
    "contacts.csv": "x-1,甲（模拟）,duty,,,370215,,0,,,,\n",
    "lists.csv": "wanted,,\n",
}


class Desk:
    """A data folder, and the command line over it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.url = f"sqlite:///{self.data}/ledger.db"
        self._env = {
            "SCG_DATA": str(self.data),
            "SCG_PROFILES": str(ROOT / "device_profiles"),
            "SCG_RULES": str(ROOT / "rules"),
        }

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["district", *arguments], env=self._env)

    def summary(self, *arguments: str) -> dict[str, Any]:
        done = self.run("import", *arguments)
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_bad_rows_are_told_and_written_down_and_the_good_ones_are_in(desk: Desk, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {file: text + BAD[file] for file, text in TABLES.items()})

    done = desk.run("import", str(folder), "--report", str(tmp_path / "report.csv"))

    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert json.loads(lines[-1])["bad"] == 11
    assert (
        "places.csv:9:7: 经纬度写反了，请对调 · lon and lat are the wrong way round; exchange them [swapped-position]"
        in lines
    )
    assert "checking" in done.stderr
    assert "importing" in done.stderr
    with (tmp_path / "report.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["文件 file"], row["行 line"], row["代码 code"]) for row in rows] == [
        ("grids.csv", "13", "wrong-digits"),
        ("grids.csv", "14", "spreadsheet-number"),
        ("communities.csv", "4", "duplicate-serial"),
        ("places.csv", "9", "swapped-position"),
        ("places.csv", "10", "unknown-kind"),
        ("sources.csv", "4", "other-community"),
        ("devices.csv", "7", "unknown-profile"),
        ("devices.csv", "8", "needs-bad-row"),
        ("responsible.csv", "4", "unknown-body"),
        ("contacts.csv", "4", "unreachable"),
        ("lists.csv", "3", "empty"),
    ]
    ledger = open_ledger(desk.url)
    assert len(ledger.devices()) == 5
    assert len(ledger.contacts()) == 2
    ledger.close()


def test_a_dry_run_tells_and_changes_nothing(desk: Desk, tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path / "in"))

    told = desk.summary(folder, "--dry-run")

    assert told["devices"] == {"new": 5}
    assert desk.summary(folder) == told
    assert "devices" not in desk.summary(folder)


def test_sources_get_their_passwords_once(desk: Desk, tmp_path: Path) -> None:
    folder, secrets = str(write_folder(tmp_path / "in")), tmp_path / "secrets.json"
    assert desk.summary(folder)["without_password"] == 2

    assert "without_password" not in desk.summary(folder, "--credentials", str(secrets))

    assert secrets.stat().st_mode & 0o077 == 0
    assert set(json.loads(secrets.read_text())) == {"agent-001", "agent-002"}
    again = desk.run("import", folder, "--credentials", str(secrets))
    assert isinstance(again.exception, GatewayError)
    assert "passwords that nobody else knows" in str(again.exception)
    desk.summary(folder, "--credentials", str(tmp_path / "more.json"))
    assert json.loads((tmp_path / "more.json").read_text()) == {}


def test_no_password_is_made_that_cannot_be_written(desk: Desk, tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path / "in"))

    done = desk.run("import", folder, "--credentials", str(tmp_path / "nowhere" / "secrets.json"))

    assert isinstance(done.exception, GatewayError)
    assert desk.summary(folder)["without_password"] == 2


def test_a_report_that_cannot_be_written_is_told(desk: Desk, tmp_path: Path) -> None:
    done = desk.run("import", str(write_folder(tmp_path / "in")), "--report", str(tmp_path / "nowhere" / "report.csv"))

    assert isinstance(done.exception, GatewayError)
    assert "cannot write it" in str(done.exception)


def test_an_export_is_imported_as_it_was(desk: Desk, tmp_path: Path) -> None:
    desk.summary(str(write_folder(tmp_path / "in")))

    done = desk.run("export", str(tmp_path / "out"))

    assert json.loads(done.stdout)["devices.csv"] == 5
    ledger = open_ledger(desk.url)
    deeds = [row.deed for row in SqlAccounts(ledger.database).read_audit()]
    ledger.close()
    assert [deed.what for deed in deeds] == ["district.import", "district.export"]
    assert all(deed.who.startswith("cli:") for deed in deeds)
    assert "devices new 5" in deeds[0].detail
    assert deeds[1].detail == "2 contacts"
    assert desk.summary(str(tmp_path / "out")) == {"bad": 0, "notes": 0, "without_password": 2}


def test_a_folder_without_tables_and_one_that_is_none_are_told(desk: Desk, tmp_path: Path) -> None:
    for folder, words in ((tmp_path, "there is no table in it"), (tmp_path / "nowhere", "cannot read it")):
        done = desk.run("import", str(folder))

        assert isinstance(done.exception, GatewayError)
        assert words in str(done.exception)


def test_a_gateway_that_lives_elsewhere_is_not_written_past(desk: Desk, tmp_path: Path) -> None:
    folder = str(write_folder(tmp_path / "in"))
    desk.summary(folder, "--dry-run")
    ledger = open_ledger(desk.url)
    ledger.commit(Batch(alive_at=RunningClock()()))
    ledger.close()

    done = desk.run("import", folder)

    assert isinstance(done.exception, GatewayError)
    assert done.exception.code == "running"
