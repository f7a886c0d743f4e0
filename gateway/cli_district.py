"""The command line's part for the district's tables: ``python -m gateway district import`` and ``export``.

Both stand in the audit log as ``cli:USER``: what goes in changes who is called, and what goes out holds their numbers.
"""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gateway import assembly
from gateway.errors import GatewayError
from gateway.runtime.district_tables import Report
from gateway.runtime.writer import leaving_the_rest
from gateway.settings import read_settings

district_app = typer.Typer(no_args_is_help=True, help="The district's tables: take them in, and give them out again.")

ConfigOption = Annotated[Path | None, typer.Option("--config", help="a TOML file; SCG_… variables override it")]


@district_app.command("import")
def import_tables(
    folder: Annotated[Path, typer.Argument(help="the folder of the tables (docs/district.md)")],
    config: ConfigOption = None,
    report: Annotated[Path | None, typer.Option(help="write all that was found there, as a table")] = None,
    credentials: Annotated[
        Path | None, typer.Option(help="give sources that have none a password, and write it there, for you alone")
    ] = None,
    retire: Annotated[bool, typer.Option("--retire", help="take out what the tables do not have any more")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only look: change nothing")] = False,
) -> None:
    """Take a district in from tables: grids, communities, places, sources, devices, responsible bodies, contacts and
    lists. Each bad row is told, with its mend, and stays out; the good ones are in. Exit status 1 when one was bad."""
    found = Report()
    with leaving_the_rest():
        done = assembly.import_district(
            read_settings(config), folder, _actor(), found, _open_bar, credentials, retire=retire, dry_run=dry_run
        )
    for line in found.lines():
        typer.echo(line)
    if report is not None:
        _write(found, report)
    summary: dict[str, object] = {**done.counts, "bad": len(found.bad), "notes": len(found.notes)}
    if done.without_password:
        summary["without_password"] = done.without_password
    typer.echo(json.dumps(summary))
    raise typer.Exit(1 if found.bad else 0)


@district_app.command("export")
def export_tables(
    folder: Annotated[Path, typer.Argument(help="a folder that has no tables yet")],
    config: ConfigOption = None,
    geojson: Annotated[bool, typer.Option("--geojson", help="write places as points of a map")] = False,
) -> None:
    """Write the district as tables that give the same again when they are imported."""
    with leaving_the_rest():
        counts = assembly.export_district(read_settings(config), folder, _actor(), geojson=geojson)
    typer.echo(json.dumps(counts))


def _write(found: Report, path: Path) -> None:
    try:
        found.write(path)
    except OSError as error:
        raise GatewayError(
            "unwritable", f"cannot write it: {error.strerror}", str(path), "give another file"
        ) from error


def _actor() -> str:
    return f"cli:{getpass.getuser()}"


@contextmanager
def _open_bar(label: str, length: int) -> Iterator[Callable[[int], None]]:
    with typer.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update
