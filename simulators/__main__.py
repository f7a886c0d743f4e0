"""``python -m simulators``: the district, the reference platform and what else stands in for the world outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def district(
    out: Annotated[Path | None, typer.Option(help="write one JSON file, for `gateway register`")] = None,
    tables: Annotated[
        Path | None, typer.Option("--write", help="write a folder of tables, for `gateway district import`")
    ] = None,
    seed: Annotated[int, typer.Option(help="the same seed gives the same district")] = 1,
    communities: Annotated[int, typer.Option(help="how many, 1 to 999")] = 277,
    devices: Annotated[int, typer.Option(help="devices per community, the edge agent not counted")] = 105,
    test: Annotated[
        bool, typer.Option("--test", help="communities for the test stand instead, marked as simulated (1 to 20)")
    ] = False,
) -> None:
    """Write a generated district as tables, or as a file, for the gateway to take in."""
    from simulators.district import generate, generate_test_communities, write
    from simulators.tables import write_tables

    if out is None and tables is None:
        raise typer.BadParameter("give --write DIR or --out FILE")
    try:
        generated = (
            generate_test_communities(seed, min(communities, 20)) if test else generate(seed, communities, devices)
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if out is not None:
        write(generated, out)
    if tables is not None:
        write_tables(generated, tables)
    typer.echo(
        f"{tables or out}: {len(generated.grids)} grids, {len(generated.communities)} communities, "
        f"{generated.device_count} devices (seed {seed})"
    )


@app.command()
def platform(
    store: Annotated[Path, typer.Option(help="SQLite file of the received incidents; made when missing")],
    key_file: Annotated[Path, typer.Option(help="signing keys, one per line; any of them is accepted")],
    port: Annotated[int, typer.Option(help="port on 127.0.0.1; 0 takes a free one")] = 0,
    callback: Annotated[str | None, typer.Option(help="the gateway's address for what people do here")] = None,
) -> None:
    """Run the reference central platform until it is stopped."""
    from simulators.platform import KeyFileError, read_keys, serve

    try:
        keys = read_keys(key_file)
    except KeyFileError as error:
        raise typer.BadParameter(str(error)) from error
    serve(store, keys, port, callback)


@app.command()
def stand(
    district: Annotated[Path, typer.Option(help="its communities, as `district --test --out` writes them")],
    passwords: Annotated[Path, typer.Option(help="the sources' passwords, as the gateway wrote them on importing")],
    broker: Annotated[str, typer.Option(help="mqtt://… of the gateway's broker")],
    key_file: Annotated[Path, typer.Option(help="the key that the gateway sends along; its first line counts")],
    port: Annotated[int, typer.Option(help="port on 127.0.0.1; 0 takes a free one")] = 0,
    speed: Annotated[float, typer.Option(help="as fast as the gateway's clock")] = 1.0,
    anchor_real: Annotated[int, typer.Option(help="as the gateway's clock has it, in ms")] = 0,
    anchor: Annotated[int, typer.Option(help="as the gateway's clock has it, in ms")] = 0,
    seed: Annotated[int, typer.Option(help="what its devices report on an ordinary day")] = 1,
) -> None:
    """Run the test stand until it is stopped: testers play scenarios with it from the gateway's pages."""
    import asyncio
    import json

    from simulators.district import read
    from simulators.platform import KeyFileError, read_keys
    from simulators.player import PlayClock
    from simulators.stand import Stand, serve

    try:
        key = read_keys(key_file)[0]
        known = dict(json.loads(passwords.read_text(encoding="utf-8")))
        played = read(district)
        missing = [s.sources[0].id for s in played.communities if s.sources[0].id not in known]
        if missing:
            raise typer.BadParameter(f"{passwords} has no password of {missing[0]}")
        asyncio.run(serve(Stand(played, PlayClock(speed, anchor_real, anchor), seed), key, port, broker, known))
    except (KeyFileError, OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="play one hour, print one JSON line, and end")] = False,
    speed: Annotated[float, typer.Option(help="how many times as fast as real time")] = 60.0,
    seed: Annotated[int, typer.Option(help="the same seed plays the same hour")] = 1,
    communities: Annotated[int, typer.Option(min=20, max=277, help="how many")] = 277,
    agents: Annotated[int, typer.Option(help="so many communities go through real edge agents")] = 0,
    picture: Annotated[Path | None, typer.Option(help="keep what is printed as an SVG file")] = None,
    folder: Annotated[Path | None, typer.Option(help="keep ledger, logs and all else in this new folder")] = None,
) -> None:
    """Run broker, gateway, platform and a simulated district; exit status 1 when anything was lost or doubled."""
    from simulators.demo import run

    code = run(
        once=once, speed=speed, seed=seed, communities=communities, agents=agents, picture=picture, folder=folder
    )
    raise typer.Exit(code)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="a CSV file with the columns timestamp and --column")],
    profile: Annotated[str, typer.Option(help="the device profile that the recording plays")],
    column: Annotated[str, typer.Option(help="the column with the values")] = "value",
    unit: Annotated[str | None, typer.Option(help="the column's unit, sent as it is; the gateway converts")] = None,
    reading: Annotated[
        str | None, typer.Option(help="the profile's reading; else the column's name, else its first")
    ] = None,
    speed: Annotated[
        str,
        typer.Option(
            help="how many times as fast as recorded, up to 10000; or max, which judges in this process, without "
            "MQTT, exactly and in seconds. Over MQTT each real millisecond of delay is SPEED milliseconds for the "
            "rules: up to 3600 that is seconds"
        ),
    ] = "3600",
    url: Annotated[
        str | None,
        typer.Option(help="mqtt://… of a running gateway's broker (its clock at the same speed); else one is started"),
    ] = None,
    community: Annotated[str, typer.Option(help="the community that plays")] = "c001",
    source: Annotated[str, typer.Option(help="the source that plays")] = "agent-001",
    device: Annotated[str, typer.Option(help="the device that plays")] = "replay-1",
    password_file: Annotated[
        Path | None, typer.Option(help="passwords as `gateway register` writes them, for --url")
    ] = None,
) -> None:
    """Play a recorded series as one device, and print what it opened; the last line is one JSON object."""
    from simulators.series import SeriesError, Stage, find_reading, read_speed, run

    try:
        factor = read_speed(speed, url)
        spec = find_reading(profile, reading, column, unit)
        stage = Stage(community, source, device, profile, spec.id, unit)
        status = run(file, column, stage, spec, factor, url, password_file)
    except SeriesError as error:
        typer.echo(f"replay: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(status)


@app.command()
def chaos(
    faults: Annotated[int, typer.Option(min=0, help="how many faults to inject")] = 30,
    seed: Annotated[int, typer.Option(help="the same seed draws the same faults")] = 1,
    communities: Annotated[int, typer.Option(min=1, max=50, help="each with an agent of its own")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="the last line of the output is one JSON object")] = False,
    keep: Annotated[bool, typer.Option(help="keep the folder with logs and stores, also when all is well")] = False,
) -> None:
    """Break everything while people press buttons, and count; exit status 1 when a press was lost or doubled."""
    from simulators.chaos.run import run

    raise typer.Exit(run(faults=faults, seed=seed, communities=communities, as_json=as_json, keep=keep))


@app.command()
def score(
    seed: Annotated[int, typer.Option(help="the same seed plays the same corpus")] = 1,
    cases: Annotated[
        int, typer.Option(min=1, max=64, help="emergencies of every category; the rest in proportion")
    ] = 32,
    without: Annotated[str, typer.Option(help="switch this rule off: what is it worth?")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="the last line of the output is one JSON object")] = False,
) -> None:
    """Play a labelled corpus through the engine and compare; exit status 1 when the figures are too low."""
    from simulators.catalog import read_catalog
    from simulators.score.run import run

    if without and read_catalog().rule(without) is None:
        raise typer.BadParameter(f"there is no rule {without}", param_hint="--without")
    raise typer.Exit(run(seed=seed, cases=cases, without=without, as_json=as_json))


if __name__ == "__main__":
    app()
