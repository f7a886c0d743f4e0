"""The command line: ``python -m gateway serve | demo | check | test-rules | register | explain | appraise | …``."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
import typer

from gateway import assembly
from gateway.cli_accounts import account_app, audit_app
from gateway.cli_devices import device_app
from gateway.cli_district import district_app
from gateway.cli_help import key_app, qr
from gateway.core.catalog import CatalogError
from gateway.core.model import GridLevel
from gateway.core.worktime import day_start
from gateway.errors import GatewayError
from gateway.runtime import checks
from gateway.runtime.appraisal import By, Every, Question
from gateway.runtime.appraising import appraise_ledger, render_csv, render_json
from gateway.runtime.catalog_files import read_catalog
from gateway.runtime.explaining import explain_device, explain_incident
from gateway.runtime.holidays import render_holidays
from gateway.runtime.moves_page import render_moves
from gateway.runtime.permissions_page import render_permissions
from gateway.runtime.ports import LedgerDown
from gateway.runtime.reconciling import Difference
from gateway.runtime.registrar import read_district, register, write_credentials
from gateway.runtime.trying import tell_tried, try_rule
from gateway.runtime.writer import leaving_the_rest
from gateway.settings import read_settings

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(account_app, name="account")
app.add_typer(audit_app, name="audit")
app.add_typer(device_app, name="device")
app.add_typer(district_app, name="district")
app.add_typer(key_app, name="qr-key")
app.command()(qr)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="a TOML file; SCG_… variables override it")]


class Form(StrEnum):
    """How an answer is written."""

    JSON = "json"
    CSV = "csv"


def main() -> None:
    """Runs a command. A fault that people can mend is one line and exit status 2, never a traceback."""
    try:
        app()
    except GatewayError as error:
        typer.echo(f"gateway: {error}", err=True)
        sys.exit(2)
    except LedgerDown as error:
        typer.echo(f"gateway: the ledger cannot be used: {error}", err=True)
        sys.exit(2)


@app.command()
def serve(
    config: ConfigOption = None,
    stats: Annotated[bool, typer.Option(help="print one JSON line of counters a second")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error")] = "info",
) -> None:
    """Run the gateway until it is stopped."""
    logging.basicConfig(
        level=log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("httpx", "httpcore", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    asyncio.run(assembly.serve(read_settings(config), stats=stats))


@app.command()
def web(config: ConfigOption = None) -> None:
    """Run the web process beside the gateway: its pages, health, and the central platform's callbacks."""
    asyncio.run(assembly.serve_web(read_settings(config)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def demo(context: typer.Context) -> None:
    """Run the whole district in simulation (`python -m simulators demo`; its options are passed on)."""
    sys.exit(subprocess.call([sys.executable, "-m", "simulators", "demo", *context.args]))


@app.command()
def check(root: Annotated[Path, typer.Argument(help="the folder of device_profiles and rules")] = Path()) -> None:
    """Check all device profiles and rules; names file, line and mend."""
    sys.exit(checks.check(root))


@app.command("test-rules")
def run_rule_tests(
    pattern: Annotated[str, typer.Argument(help="only rules whose id matches, such as fire.*")] = "*",
    root: Annotated[Path, typer.Option(help="the folder of device_profiles and rules")] = Path(),
) -> None:
    """Run the tests that stand beside the rules, and report which leaves they cover."""
    sys.exit(checks.test_rules(root, pattern))


@app.command()
def holidays() -> None:
    """Print the holidays and make-up working days that are known: the text of rules/holidays.yaml."""
    typer.echo(render_holidays(), nl=False)


@app.command()
def moves() -> None:
    """Print the table of moves: the part of docs/governance.md between its marks."""
    typer.echo(render_moves(), nl=False)


@app.command()
def permissions() -> None:
    """Print who may do what: the part of docs/security.md between its marks."""
    typer.echo(render_permissions(), nl=False)


@app.command()
def migrate(config: ConfigOption = None) -> None:
    """Bring the ledger's tables up to date."""
    settings = read_settings(config)
    assembly.open_migrated_ledger(settings).close()
    typer.echo("the ledger is up to date")


@app.command("register")
def register_district(
    file: Annotated[Path, typer.Argument(help="a district file (JSON)")],
    credentials: Annotated[Path, typer.Option(help="where to write the sources' passwords, readable by you alone")],
    config: ConfigOption = None,
    actor: Annotated[str, typer.Option(help="who registers, for the journal")] = "operator",
) -> None:
    """Register the communities, places, sources, devices and lists of a district file."""
    settings = read_settings(config)
    taken = read_district(file, assembly.open_scheme(settings))
    catalog = read_catalog(settings.profiles, settings.rules)
    ledger = assembly.open_migrated_ledger(settings)
    clock = assembly.open_clock(settings)
    bar_of = typer.progressbar(length=len(taken.communities), label="registering", file=sys.stderr)
    with leaving_the_rest(), bar_of as bar:
        done = register(
            ledger,
            taken,
            catalog,
            assembly.open_catalogs(ledger, catalog),
            assembly.open_seal(settings, catalog),
            clock(),
            clock(),
            actor,
            bar.update,
        )
    write_credentials(credentials, ledger.issue_credentials(done.sources, clock()))
    ledger.close()
    typer.echo(json.dumps({"communities": done.communities, "sources": len(done.sources), "devices": done.devices}))


@app.command()
def explain(
    device: Annotated[str, typer.Option(help="the device's id")] = "",
    incident: Annotated[str, typer.Option(help="an incident's id, instead of a device")] = "",
    at: Annotated[str, typer.Option(help="local time, such as 2026-11-23T20:15:00, or now")] = "now",
    config: ConfigOption = None,
) -> None:
    """Say for each rule that looks at a device what it saw, which leaf held or not, and what followed; or tell an
    incident: its rule and catalog, its signals with what each leaf saw, who did what, each deadline with its
    arithmetic, and what it swallowed."""
    if bool(device) == bool(incident):
        raise typer.BadParameter("give --device or --incident")
    settings = read_settings(config)
    moment = assembly.open_clock(settings)() if at == "now" else parse_time(at)
    catalog = read_catalog(settings.profiles, settings.rules)
    ledger = assembly.open_migrated_ledger(settings)
    catalogs = assembly.open_catalogs(ledger, catalog)
    if incident:
        lines = explain_incident(ledger, catalog, catalogs, incident)
    else:
        lines = explain_device(ledger, catalog, catalogs, device, moment)
    for line in lines:
        typer.echo(line)
    ledger.close()


@app.command("try-rule")
def try_draft(
    file: Annotated[Path, typer.Argument(help="a rule file, wherever it stands")],
    community: Annotated[str, typer.Option(help="the community whose journal is read")],
    day: Annotated[str, typer.Option(help="a local day, such as 2026-11-23")],
    form: Annotated[Form | None, typer.Option("--format", help="json for programs")] = None,
    config: ConfigOption = None,
) -> None:
    """Try a draft rule on a recorded day: the journal is fed to the engine again, with the draft among its rules, and
    what it would have opened is told beside what was really opened. Nothing is written."""
    if form is Form.CSV:
        raise typer.BadParameter("there is no table of this; write --format json")
    try:
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        wanted = date.fromisoformat(day)
    except OSError as error:
        raise GatewayError("unreadable", f"cannot read it: {error.strerror}", str(file), "give a rule file") from error
    except ValueError as error:
        raise GatewayError("bad-time", f"{day!r} is no day", "--day", "write, for example, 2026-11-23") from error
    settings = read_settings(config)
    catalog = read_catalog(settings.profiles, settings.rules)
    ledger = assembly.open_migrated_ledger(settings)
    found = next((one for one in ledger.communities() if one.id == community), None)
    if found is None:
        raise GatewayError("unknown-community", f"there is no community {community}", "--community", "look its id up")
    catalogs = assembly.open_catalogs(ledger, catalog)
    now = assembly.open_clock(settings)()
    try:
        tried = try_rule(ledger, found, catalogs, catalog, text, wanted, now, file=str(file))
    except CatalogError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        raise typer.Exit(2) from None
    finally:
        ledger.close()
    if form is Form.JSON:
        typer.echo(msgspec.json.encode(tried).decode())
    else:
        for line in tell_tried(tried):
            typer.echo(line)


@app.command()
def counts(config: ConfigOption = None) -> None:
    """Print what was quarantined, rejected, lost, delivered and waits, as JSON."""
    ledger = assembly.open_migrated_ledger(read_settings(config))
    typer.echo(json.dumps(ledger.counts(), ensure_ascii=False, indent=2, sort_keys=True))
    ledger.close()


@app.command()
def incidents(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(help="at most so many, the newest")] = 1000,
) -> None:
    """Print incidents and maintenance notices as they stand, one JSON object per line."""
    ledger = assembly.open_migrated_ledger(read_settings(config))
    for incident in ledger.incidents(limit=limit):
        typer.echo(msgspec.json.encode(incident).decode())
    ledger.close()


@app.command()
def sources(
    config: ConfigOption = None,
    community: Annotated[str | None, typer.Option(help="of this community only")] = None,
) -> None:
    """Print what each source last said of itself, one JSON object per line: whether it is there, how much waits in its
    spool, how many readings it dropped, and which of its devices are sick."""
    ledger = assembly.open_migrated_ledger(read_settings(config))
    for view in ledger.sources(community):
        typer.echo(msgspec.json.encode(view).decode())
    ledger.close()


@app.command()
def resend(
    effect: Annotated[str, typer.Argument(help="the id of a delivery on the dead-letter list")],
    config: ConfigOption = None,
) -> None:
    """Send a delivery again that the platform had refused."""
    settings = read_settings(config)
    ledger = assembly.open_migrated_ledger(settings)
    is_there = ledger.resend_dead(effect, assembly.open_clock(settings)())
    ledger.close()
    if not is_there:
        raise GatewayError(
            "unknown-effect", f"{effect} is not on the dead-letter list", "resend", "see: gateway counts"
        )
    typer.echo(f"{effect} will be sent again")


@app.command()
def reconcile(
    config: ConfigOption = None,
    days: Annotated[float, typer.Option("--since", min=0, help="compare what changed in so many days")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="repair nothing")] = False,
) -> None:
    """Compare with what the central platform holds, and repair. One line for each difference; the last is a JSON
    summary. Exit status 1 when a difference is left."""

    def tell(found: Difference) -> None:
        said = ": ".join(part for part in (found.detail, found.repair or "not repaired") if part)
        line = f"{found.code} {found.incident} {found.number}: ours {found.ours}, theirs {found.theirs}: {said}"
        # Some of these words are the platform's: they move no cursor of this terminal.
        typer.echo("".join(char if char.isprintable() else " " for char in line))

    summary = asyncio.run(assembly.reconcile(read_settings(config), days, tell, repair=not dry_run))
    typer.echo(msgspec.json.encode(summary).decode())
    raise typer.Exit(1 if summary.left else 0)


@app.command()
def appraise(
    by: Annotated[By, typer.Option(help="what the rows are")],
    since: Annotated[str, typer.Option("--from", help="the first day, such as 2026-11-01, or a local time")],
    until: Annotated[str, typer.Option("--to", help="the last day, which counts as a whole, or a local time")],
    grid: Annotated[str, typer.Option(help="only what lies in the grid with this code, or below")] = "",
    level: Annotated[GridLevel | None, typer.Option(help="with --by grid: only rows of this level")] = None,
    every: Annotated[Every | None, typer.Option(help="a row for each of these periods")] = None,
    form: Annotated[Form, typer.Option("--format", help="json, or csv for spreadsheets")] = Form.JSON,
    config: ConfigOption = None,
) -> None:
    """Appraise (考核) the incidents opened in a period: how many, how soon people came and finished, on time or late,
    returned, false, whistles answered. What counts stands in docs/appraisal.md."""
    if level is not None and by is not By.GRID:
        raise typer.BadParameter("--level goes with --by grid")
    settings = read_settings(config)
    simulated = settings.platform.test
    question = Question(by, parse_time(since, "--from"), parse_end(until), grid, level, every, simulated)
    if question.since >= question.until:
        raise typer.BadParameter("--from comes after --to")
    catalog = read_catalog(settings.profiles, settings.rules)
    now = assembly.open_clock(settings)()
    ledger = assembly.open_migrated_ledger(settings)
    appraisal = appraise_ledger(ledger, catalog, question, now)
    ledger.close()
    if form is Form.JSON:
        typer.echo(render_json(appraisal, question, now))
    else:
        # Spreadsheets know UTF-8 by its mark; bytes, so that the terminal's own encoding changes nothing.
        typer.echo(render_csv(appraisal).encode("utf-8-sig"), nl=False)


def parse_end(text: str) -> int:
    """The moment at which a period ends: a day ends with its last minute. Raises GatewayError."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return parse_time(text, "--to")
    return day_start(day + timedelta(days=1))


def parse_time(text: str, option: str = "--at") -> int:
    """ISO 8601; without a zone it is local (Asia/Shanghai). Milliseconds UTC. Raises GatewayError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise GatewayError(
            "bad-time", f"{text!r} is no time", option, "write, for example, 2026-11-23T20:15:00"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo("Asia/Shanghai"))
    return round(moment.timestamp() * 1000)
