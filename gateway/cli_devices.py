"""The command line's part for devices: ``python -m gateway device list-beforehand``."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Annotated

import typer

from gateway import assembly
from gateway.errors import GatewayError
from gateway.runtime.device_tables import read_listed
from gateway.runtime.district_tables import Report
from gateway.settings import read_settings

device_app = typer.Typer(no_args_is_help=True, help="Devices whose passwords their makers put in.")


@device_app.callback()
def _devices() -> None:
    """Devices whose passwords their makers put in."""


@device_app.command("list-beforehand")
def list_beforehand(
    file: Annotated[Path, typer.Argument(help="a table with the columns code and secret (docs/devices.md)")],
    config: Annotated[Path | None, typer.Option("--config", help="a TOML file; SCG_… variables override it")] = None,
) -> None:
    """Take in a maker's list of devices and the secrets printed on them (一机一密), for property managers to claim.
    Hashes are kept; throw the table away. Exit status 1 when a row was bad or an identity was known already."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise GatewayError("unreadable", f"cannot read it: {error.strerror}", str(file), "give a table") from error
    report = Report()
    listed = read_listed(file.name, data, report)
    known = assembly.list_beforehand(read_settings(config), listed, f"cli:{getpass.getuser()}")
    for line in report.lines():
        typer.echo(line)
    for name in known:
        typer.echo(f"{name}: known already, left as it is")
    typer.echo(json.dumps({"listed": len(listed) - len(known), "known": len(known), "bad": len(report.bad)}))
    raise typer.Exit(1 if report.bad or known else 0)
