"""Accounts and the audit log on the command line, and the web process that they are for."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.errors import GatewayError
from gateway.runtime.access import Permission
from gateway.runtime.permissions_page import render_permissions
from tests.conftest import StartProcess
from tests.servers import ROOT
from tests.web.house import PASSWORD


class Desk:
    """A data folder, and the commands on it."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def run(self, *arguments: str, given: str | None = None) -> list[dict[str, Any]]:
        """What it printed, a JSON object a line. Raises GatewayError."""
        done = CliRunner().invoke(app, arguments, input=given, env={"SCG_DATA": str(self.data)})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        self.status = done.exit_code
        self.text = done.output
        return [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_password_is_made_and_printed_once_or_read_and_never_printed(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")

    [made] = desk.run("account", "add", "li", "--role", "dispatcher", "--title", "李伟")
    [read] = desk.run("account", "add", "adm", "--role", "administrator", "--password-file", str(file))
    [typed] = desk.run("account", "add", "sec", "--role", "security", "--password-file", "-", given=f"{PASSWORD}\n")
    [machine] = desk.run("account", "add", "platform", "--role", "platform")
    [reset] = desk.run("account", "reset", "adm")

    assert len(made["password"]) == len(reset["password"]) == 20
    assert read == {"account": "adm", "role": "administrator"}
    assert typed == {"account": "sec", "role": "security"}
    assert machine == {"account": "platform", "role": "platform"}
    listed = desk.run("account", "list")
    assert [account["account"] for account in listed] == ["adm", "li", "platform", "sec"]
    assert not re.search(r"argon2|" + "|".join((PASSWORD, made["password"])), desk.text)
    assert {account["account"]: account["has_password"] for account in listed}["platform"] is False
    assert "password" not in "".join(str(deed.get("detail")) for deed in desk.run("audit", "list"))


def test_an_account_is_disabled_enabled_and_granted_anew(desk: Desk) -> None:
    desk.run("account", "add", "li", "--role", "dispatcher")

    assert desk.run("account", "disable", "li")[0]["disabled_at"]
    assert desk.run("account", "enable", "li")[0]["disabled_at"] is None
    assert desk.run("account", "grant", "li", "--role", "tester")[0]["role"] == "tester"
    assert desk.run("account", "totp-reset", "LI")[0]["has_second_factor"] is False
    whats = [deed["what"] for deed in desk.run("audit", "list", "--what", "account.")]
    assert whats == ["account.grant", "account.enable", "account.disable", "account.grant", "account.add"]
    assert {deed["who"].partition(":")[0] for deed in desk.run("audit", "list")} == {"cli"}


def test_a_token_is_made_for_a_machine_alone(desk: Desk) -> None:
    desk.run("account", "add", "platform", "--role", "platform")
    desk.run("account", "add", "li", "--role", "dispatcher")
    arguments = ("--title", "对账", "--permission", Permission.INCIDENTS_SEE, "--days", "7")

    [token] = desk.run("account", "token", "platform", *arguments)

    assert re.fullmatch(r"scg_[\w-]{43}", token["token"])
    assert token["permissions"] == ["incidents.see"]
    with pytest.raises(GatewayError, match="role"):
        desk.run("account", "token", "li", *arguments)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("add", "li", "--role", "king"), "role"),
        (("add", "L I", "--role", "tester"), "name"),
        (("add", "li", "--role", "tester", "--grid", "370299"), "scope"),
        (("add", "li", "--role", "tester", "--password-file", "/nowhere"), "password-file"),
        (("disable", "nobody"), "unknown-account"),
    ],
)
def test_a_fault_names_what_to_do(desk: Desk, arguments: tuple[str, ...], code: str) -> None:
    with pytest.raises(GatewayError) as fault:
        desk.run("account", *arguments)

    assert fault.value.code == code
    assert fault.value.mend
    assert not any(account["role"] for account in desk.run("account", "list"))


def test_a_role_that_is_none_needs_no_second_factor(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCG_WEB__SECOND_FACTOR", "auditor, king")

    with pytest.raises(GatewayError, match="king"):
        desk.run("account", "list")


def test_a_weak_password_makes_no_account(desk: Desk) -> None:
    with pytest.raises(GatewayError, match="weak-short"):
        desk.run("account", "add", "li", "--role", "tester", "--password-file", "-", given="Short-1\n")

    assert desk.run("account", "list") == []


def test_verify_says_which_line_and_fails(desk: Desk) -> None:
    for name in ("li", "wang"):
        desk.run("account", "add", name, "--role", "tester")
    [whole] = desk.run("audit", "verify")
    assert (desk.status, whole["lines"], whole["flaws"]) == (0, 4, 0)
    assert desk.run("audit", "verify", "--head", whole["head"])[0]["flaws"] == 0
    assert desk.run("audit", "verify", "--head", f"4:{'0' * 64}")[0]["flaws"] == 1
    with pytest.raises(GatewayError, match="SEQ:HASH"):
        desk.run("audit", "verify", "--head", "4")

    with sqlite3.connect(desk.data / "ledger.db") as ledger:
        ledger.execute("DROP TRIGGER audit_keeps_update")
        ledger.execute("UPDATE audit SET about = 'nobody' WHERE seq = 3")
    ledger.close()
    [broken] = desk.run("audit", "verify")

    assert (desk.status, broken["flaws"]) == (1, 1)
    assert "line 3 was changed" in desk.text


def test_the_document_shows_the_table_in_force() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- permissions -->\n")[2].partition("<!-- /permissions -->")[0]
    assert shown == render_permissions(), "put the output of python -m gateway permissions between the marks"


def test_whoever_was_made_on_the_command_line_signs_in_at_the_web_process(
    desk: Desk, start_process: StartProcess
) -> None:
    given = f"{PASSWORD}\n"
    desk.run("account", "add", "aud", "--role", "auditor", "--permanent", "--password-file", "-", given=given)
    env = {"SCG_DATA": str(desk.data), "SCG_WEB__PORT": "0", "SCG_WEB__SECOND_FACTOR": "administrator,security"}
    web = start_process("gateway", "web", env=env)
    url = json.loads(web.wait_for_line(r'^{"event":.*').group())["web"]

    with httpx.Client(base_url=url, headers={"Accept": "text/html"}) as browser:
        page = browser.get("/login")
        csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', page.text)
        assert csrf is not None
        answer = browser.post("/login", data={"csrf": csrf[1], "name": "aud", "password": PASSWORD, "next": "/audit"})
        assert answer.headers["location"] == "/audit"
        assert browser.get("/audit").status_code == 200
        # Of nobody's word it is believed who asks, not even on this machine.
        browser.get("/audit", headers={"X-Forwarded-For": "203.0.113.9"})
    web.terminate()

    assert {deed["where"] for deed in desk.run("audit", "list", "--who", "aud")} == {"127.0.0.1"}
    assert desk.run("audit", "verify")[0]["flaws"] == 0
