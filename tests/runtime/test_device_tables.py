"""Tables of devices: what a row must have, and that a secret is never quoted."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.adapters.ledger import open_ledger
from gateway.adapters.passwords import is_password
from gateway.cli import app
from gateway.runtime.device_tables import ROWS, read_listed, read_registrations
from gateway.runtime.district_tables import Report

SECRET = "printed-on-the-box-0001"


def test_a_table_in_the_encoding_of_an_office_is_read() -> None:
    report = Report()
    text = "code,profile,place,name,房间\nS-1,nb-smoke,1号楼  1单元,走廊,甲\n"
    [row] = read_registrations("t.csv", text.encode("gb18030"), {"1号楼 1单元": "b1-u1"}, report, is_test=True)
    assert (row.line, row.wish.place, row.wish.name, row.wish.is_test) == (2, "b1-u1", "走廊", True)
    assert report.bad == []


def test_a_table_that_is_too_long_is_read_to_its_limit() -> None:
    report = Report()
    lines = ["code,profile,place", *(f"S-{n},nb-smoke,b1" for n in range(ROWS + 2))]
    assert len(read_registrations("t.csv", "\n".join(lines).encode(), {}, report, is_test=False)) == ROWS
    assert [row.line for row in report.bad] == [ROWS + 2, ROWS + 3]


def test_a_makers_list_wants_secrets_that_nobody_guesses() -> None:
    report = Report()
    text = f"code,secret\nSN-7,{SECRET}\nSN-8,short-one\nsn 7,{SECRET}x\n。,{SECRET}\n"
    assert read_listed("maker.csv", text.encode(), report) == {"sn-7": SECRET}
    assert [row.line for row in report.bad] == [3, 4, 5]
    assert "short-one" not in "\n".join(report.lines())


def test_the_command_takes_a_makers_list_in_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCG_DATA", str(tmp_path / "data"))
    table = tmp_path / "maker.csv"
    table.write_text(f"code,secret\nSN-7,{SECRET}\n")
    first = CliRunner().invoke(app, ["device", "list-beforehand", str(table)])
    again = CliRunner().invoke(app, ["device", "list-beforehand", str(table)])

    assert (first.exit_code, again.exit_code) == (0, 1)
    assert '"listed": 1' in first.stdout
    assert "sn-7: known already" in again.stdout
    ledger = open_ledger(f"sqlite:///{tmp_path}/data/ledger.db")
    assert is_password(SECRET, ledger.credentials()["sn-7"])
    ledger.close()
