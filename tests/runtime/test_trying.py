"""A draft rule on a recorded day: what it would have opened, beside what was, and nothing written."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from gateway.assembly import open_catalogs
from gateway.cli import app
from gateway.core.catalog import CatalogError
from gateway.errors import GatewayError
from gateway.runtime.trying import Tried, check_draft, list_days, recorded_days, tell_tried, try_rule
from gateway.wire import Lane
from tests.core.worlds import real_catalog
from tests.runtime.world import World

S = 1_000
M = 60 * S
DAY = date(2026, 11, 23)
DRAFT = """
id: rooms.warm
title: {zh: 机房偏热, en: A warm room}
status: draft
scope: device
when: {temperature: {above: 30}}
hold: 1m
incident:
  cause: warm-room
  at: device
  category: "ext:21-01"
  level: normal
  title: {zh: "{place} 偏热"}
"""
SMOKE = Path("rules/fire/smoke-persists.yaml").read_text(encoding="utf-8")


def try_it(world: World, text: str = DRAFT, day: date = DAY, parts: list[float] | None = None) -> Tried:
    """The draft on what the world's ledger has of c001."""
    [community] = [one for one in world.ledger.communities() if one.id == "c001"]
    catalogs = open_catalogs(world.ledger, world.catalog)
    on_part = (lambda part: None) if parts is None else parts.append
    return try_rule(world.ledger, community, catalogs, world.catalog, text, day, world.clock(), on_part)


async def heat(world: World, *values: float) -> None:
    """A room's temperatures, two minutes each."""
    for value in values:
        world.send({"room-1:temperature": value}, lane=Lane.TELEMETRY)
        await world.receipted(lane=Lane.TELEMETRY)
        await world.pass_time(2 * M, M)


async def test_what_it_would_have_opened_stands_beside_what_was_opened(world: World) -> None:
    await world.start()
    await heat(world, 20, 35)
    world.press()
    await world.receipted()
    before = world.state(), world.ledger.position()

    parts: list[float] = []
    tried = try_it(world, parts=parts)

    [one] = tried.opened
    assert (one.at, one.key, one.level, one.place_name) == (world.clock() - M, "room-1", "normal", "示例一期大门")
    assert one.why.startswith("temperature above 30: 35 at ")
    assert (one.signals, one.twin, one.was_standing) == (1, None, False)
    assert (tried.findings, tried.notes, tried.replaces) == (1, {"opened": 1}, False)
    [real] = tried.real
    assert (real.rule, real.is_found) == ("sos.button-pressed", False)
    assert parts[-1] == 1.0
    assert (world.state(), world.ledger.position()) == before, "nothing is written"
    assert world.incidents(cause="warm-room") == []
    assert "really opened were 1:" in list(tell_tried(tried))


async def test_a_rule_in_force_finds_again_what_it_found(world: World) -> None:
    await world.start()
    world.send({"smoke-1:smoke": True})
    await world.receipted()
    await world.pass_time(12 * S)
    [incident] = world.incidents(cause="fire")

    same = try_it(world, SMOKE)
    slower = try_it(world, SMOKE.replace("hold: 10s", "hold: 10m", 1))

    assert [(one.twin, one.at) for one in same.opened] == [(incident.id, incident.opened_at)]
    assert (same.replaces, same.found[0].incident, same.found[0].is_real) == (True, incident.id, True)
    assert [case.is_found for case in same.real] == [True]
    assert (slower.opened, slower.findings) == ([], 0)
    assert [case.is_found for case in slower.real] == [False], "it would have been missed"


async def test_the_next_day_begins_as_the_one_before_has_ended(world: World) -> None:
    await world.start()
    await heat(world, 35)
    await world.pass_time(5 * 60 * M, 30 * M)
    await heat(world, 36, 20, 37)
    world.press()  # so that it is written down that the gateway has looked
    await world.receipted()

    tried = try_it(world, day=date(2026, 11, 24))

    assert [(one.was_standing, one.note) for one in tried.found] == [(True, "opened"), (False, "joined")]
    assert [(one.was_standing, one.signals) for one in tried.opened] == [(True, 2)], "nobody has closed it"
    days = recorded_days(world.ledger, "c001", world.clock())
    assert days is not None
    assert list_days(days) == [date(2026, 11, 24), DAY]


async def test_time_in_which_the_gateway_was_stopped_makes_nobody_silent(world: World) -> None:
    silent = DRAFT.replace("{temperature: {above: 30}}", "{device: {missing: 30m}}").replace("hold: 1m\n", "")
    await world.start()
    await heat(world, 20)
    await world.stop()
    world.clock.advance(60 * M)
    await world.start()
    await heat(world, 20)

    assert try_it(world, silent).findings == 0


def test_what_is_wrong_with_a_draft_is_told_with_its_line() -> None:
    with pytest.raises(CatalogError) as caught:
        check_draft(real_catalog(), DRAFT.replace("temperature: {above", "temprature: {above"))

    assert [(problem.line, problem.file) for problem in caught.value.problems] == [(6, "draft.yaml")]
    assert "temperature" in caught.value.problems[0].mend


async def test_a_day_without_a_journal_is_refused(world: World) -> None:
    await world.start()
    await heat(world, 20)

    for day in (date(2026, 11, 22), date(2026, 11, 24)):
        with pytest.raises(GatewayError, match="no journal"):
            try_it(world, day=day)


async def test_whoever_looks_on_can_end_it(world: World) -> None:
    await world.start()
    await heat(world, 20)

    def stop(part: float) -> None:
        raise TimeoutError

    [community] = world.ledger.communities()
    with pytest.raises(TimeoutError):
        try_rule(
            world.ledger,
            community,
            open_catalogs(world.ledger, world.catalog),
            world.catalog,
            DRAFT,
            DAY,
            world.clock(),
            stop,
        )


async def test_it_can_be_written_for_programs(world: World) -> None:
    await world.start()
    await heat(world, 35)

    tried = try_it(world)

    assert msgspec.json.decode(msgspec.json.encode(tried), type=Tried) == tried


async def test_the_command_line_tries_a_file_and_tells_what_is_wrong_with_it(world: World, tmp_path: Path) -> None:
    await world.start()
    await heat(world, 35)
    await world.stop()
    good, bad = tmp_path / "draft.yaml", tmp_path / "bad.yaml"
    good.write_text(DRAFT, encoding="utf-8")
    bad.write_text(DRAFT.replace("hold:", "holt:"), encoding="utf-8")
    clock = {"SCG_CLOCK__SPEED": "0.001", "SCG_CLOCK__ANCHOR": str(world.clock() + M)}
    env = {"SCG_LEDGER__URL": world.url, "SCG_DATA": str(tmp_path / "data"), **clock}
    env["SCG_CLOCK__ANCHOR_REAL"] = str(round(time.time() * 1000))

    def run(file: Path, *more: str, community: str = "c001") -> Result:
        arguments = ["try-rule", str(file), "--community", community, "--day", str(DAY), *more]
        return CliRunner().invoke(app, arguments, env=env)

    told, as_json, wrong = run(good), run(good, "--format", "json"), run(bad)
    unknown = run(good, community="c009")

    assert told.exit_code == 0, told.output
    assert "it would have opened 1:" in told.output
    assert msgspec.json.decode(as_json.output, type=Tried).findings == 1
    assert (wrong.exit_code, wrong.stderr.startswith(f"{bad}:7: ")) == (2, True), wrong.output
    assert isinstance(unknown.exception, GatewayError)
