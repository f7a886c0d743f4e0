"""``python -m edge --config FILE`` runs the agent; ``python -m edge check --config FILE`` only checks the file."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge.agent import Agent
from edge.config import read_config
from gateway.errors import GatewayError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Config = Annotated[Path, typer.Option("--config", help="the agent's TOML file")]


@app.callback(invoke_without_command=True)
def run(context: typer.Context, config: Config = Path("agent.toml")) -> None:
    """Runs the agent until SIGTERM or SIGINT."""
    if context.invoked_subcommand is not None:
        return
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        asyncio.run(_serve(config))
    except GatewayError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from error


@app.command()
def check(config: Config = Path("agent.toml")) -> None:
    """Checks the configuration, and starts nothing."""
    try:
        found, drivers = read_config(config)
    except GatewayError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(1) from error
    buses = ", ".join(f"{section['bus']} ({section['driver']})" for section in found.bus) or "no bus"
    sys.stdout.write(f"{config}: {found.source} of {found.community}; {buses}: no problems\n")
    del drivers


async def _serve(file: Path) -> None:
    agent = Agent(*read_config(file))
    running = asyncio.ensure_future(agent.run())
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, running.cancel)
    sys.stdout.write('{"event": "ready"}\n')
    sys.stdout.flush()
    try:
        await running
    except asyncio.CancelledError:
        return


if __name__ == "__main__":
    app()
