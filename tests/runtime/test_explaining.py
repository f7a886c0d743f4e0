"""Why an incident was opened: the journal is fed again, and says by which catalog and on which values."""

from __future__ import annotations

import pytest

from gateway.assembly import open_catalogs
from gateway.core.catalog import build_catalog
from gateway.core.model import OperatorAction, Role
from gateway.errors import GatewayError
from gateway.runtime.explaining import explain_incident
from gateway.wire import Lane
from tests.core.worlds import real_catalog
from tests.runtime.world import World

S = 1_000
M = 60 * S
SMOKE = "rules/fire/smoke-persists.yaml"


def explain(world: World, cause: str) -> list[str]:
    """What is told of the one incident of this cause."""
    [incident] = world.incidents(cause=cause)
    catalogs = open_catalogs(world.ledger, world.catalog)
    return list(explain_incident(world.ledger, world.catalog, catalogs, incident.id))


def after(lines: list[str], words: str, count: int) -> list[str]:
    """So many lines from the first that holds these words on."""
    first = next(number for number, line in enumerate(lines) if words in line)
    return lines[first : first + count]


async def smoke_in_two_flats(world: World) -> None:
    """Smoke at 20:00:00 and, in another flat of the house, at 20:00:11; each holds for 10 s."""
    await world.start()
    for device in ("smoke-1", "smoke-2"):
        world.send({f"{device}:smoke": True})
        await world.receipted()
        await world.pass_time(11 * S)


def found(device: str, at: str) -> list[str]:
    """What is told of smoke that was seen at this time."""
    return [
        f"      fire.smoke-persists for {device}, held since 2026-11-23 {at} for 10s",
        f"          yes  smoke is true    saw true at 2026-11-23 {at}",
    ]


async def test_the_rule_its_catalog_and_what_each_signal_was_judged_by(world: World) -> None:
    await smoke_in_two_flats(world)

    lines = explain(world, "fire")

    hash = real_catalog().hash
    assert after(lines, "  rule", 3) == [
        "  rule fire.smoke-persists: 烟感持续报警; 山东省消防条例 Art 28",
        f"    judged by catalog {hash} (row 3 of the journal); the rule is the same today",
        "  signals: 2, of smoke-1, smoke-2",
    ]
    opened = "  2026-11-23 20:00:10.000 gateway opened smoke-1 [agent-1/spool1/alarm/1/0]"
    assert after(lines, " opened ", 3) == [opened, *found("smoke-1", "20:00:00.000")]
    joined = "  2026-11-23 20:00:21.000 gateway joined smoke-2 [agent-1/spool1/alarm/2/0]"
    assert after(lines, " joined ", 3) == [joined, *found("smoke-2", "20:00:11.000")]


async def test_which_of_several_leaves_held_is_said_with_what_each_saw(world: World) -> None:
    await world.start()
    world.send({"room-1:temperature": 60.0}, lane=Lane.TELEMETRY)
    await world.receipted(lane=Lane.TELEMETRY)
    await world.pass_time(10 * M, M)

    hot = "    saw 60 at 2026-11-23 20:00:00.000    "
    assert after(explain(world, "room-climate"), " opened ", 4) == [
        "  2026-11-23 20:10:00.000 gateway opened room-1 [agent-1/spool1/telemetry/1/0]",
        "      rooms.temperature-out-of-range for room-1, held since 2026-11-23 20:00:00.000 for 10m",
        f"          yes  temperature above attribute temperature_high (default 45){hot}[any[0].temperature]",
        f"           no  temperature below attribute temperature_low (default -20){hot}[any[1].temperature]",
    ]


async def test_a_press_is_over_at_once_and_its_line_says_what_was_seen(world: World) -> None:
    await world.start()
    world.press()
    await world.receipted()

    lines = explain(world, "sos")

    assert "  rule sos.button-pressed: 一键求助" in lines
    seen = "pressed seen: last at 2026-11-23 20:00:00.000"
    assert after(lines, " opened ", 1) == [
        f"  2026-11-23 20:00:00.000 gateway opened sos-1 [agent-1/spool1/alarm/1/0] {seen}"
    ]


async def test_each_deadline_stands_with_its_arithmetic_and_what_waits_behind_it(world: World) -> None:
    await world.start()
    world.press()
    await world.receipted()
    [incident] = world.incidents(cause="sos")
    for number, verb in enumerate(("accept", "whistle")):
        action = OperatorAction(f"a{number}", "wang", incident.id, verb, "需要协助", Role.DISPATCHER)
        assert await world.pipeline.submit("c001", action, action.id) == "done"

    lines = explain(world, "sos")

    dispatch = "3min from 2026-11-23 20:00, ends 2026-11-23 20:03"
    report_in = "10min from 2026-11-23 20:00, ends 2026-11-23 20:10"
    written = [line.partition(" due ")[2] for line in lines if " due " in line]
    assert written[1:] == [
        f"dispatch by 2026-11-23 20:03 (dispatcher of 370215001): {dispatch}",
        f"report_in by 2026-11-23 20:10 (dispatcher of 370215001): {report_in}",
    ]
    grid = "dispatcher of grid 370215001"
    assert lines[-2:] == [
        f"  now: report_in by 2026-11-23 20:10:00.000, yellow from 2026-11-23 20:07:30.000, {grid}: {report_in}",
        f"  after that: dispatch by 2026-11-23 20:03:00.000, yellow from 2026-11-23 20:02:15.000, {grid}: {dispatch}",
    ]


async def test_what_was_joined_taken_in_and_swallowed_is_listed(world: World) -> None:
    await world.start()
    world.press("sos-1")
    await world.receipted()
    world.press("sos-2")
    await world.receipted()
    first, second = sorted(world.incidents(cause="sos"), key=lambda incident: incident.key)
    action = OperatorAction("a1", "wang", first.id, "merge", "同一人", Role.DISPATCHER, into=second.id)
    assert await world.pipeline.submit("c001", action, action.id) == "done"
    catalogs = open_catalogs(world.ledger, world.catalog)

    def told(id: str) -> list[str]:
        return list(explain_incident(world.ledger, world.catalog, catalogs, id))

    assert told(first.id)[-1] == f"  it was taken in by incident {second.id}"
    assert told(second.id)[-1] == (
        f"  swallowed 1 times from 2026-11-23 20:00:00.000: {first.id} by merge: {first.number}: 同一人"
    )
    # After ten minutes a press opens another one, which names the one before.
    await world.pass_time(11 * M, M)
    world.press("sos-2")
    await world.receipted()
    [third] = [incident for incident in world.incidents(cause="sos") if incident.linked is not None]
    assert f"  it follows incident {second.id}, which took no more signals" in told(third.id)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("hold: 10s", "hold: 20s"), "; the rule has changed since, and judges otherwise now"),
        (("Art 28", "Art 29"), "; the rule has changed since, but judges the same"),
        (("id: fire.smoke-persists", ""), "; the rule is gone since"),
    ],
)
async def test_it_was_judged_by_the_catalog_of_its_day(world: World, change: tuple[str, str], words: str) -> None:
    """The files change, and the gateway is started again: what was judged before is explained by what held then."""
    await smoke_in_two_flats(world)
    await world.stop()
    files = dict(real_catalog().files)
    files[SMOKE] = files[SMOKE].replace(*change)
    if not change[1]:
        del files[SMOKE], files[SMOKE.replace(".yaml", ".test.yaml")]
    world.catalog = build_catalog(files)
    await world.start()
    await world.pass_time(M, 10 * S)

    lines = explain(world, "fire")

    [judged] = [line for line in lines if "judged by" in line]
    assert judged == f"    judged by catalog {real_catalog().hash} (row 3 of the journal){words}"
    assert "  rule fire.smoke-persists: 烟感持续报警; 山东省消防条例 Art 28" in lines
    assert after(lines, " opened ", 3)[1:] == found("smoke-1", "20:00:00.000")


async def test_where_the_journal_is_gone_the_rest_is_told(world: World) -> None:
    await smoke_in_two_flats(world)
    await world.stop()
    whole = explain(world, "fire")
    world.run_sql("DELETE FROM journal")

    lines = explain(world, "fire")

    gone = "    the journal does not reach back to its opening: by which catalog it was judged cannot be said"
    assert gone in lines
    assert after(lines, " opened ", 1) == [
        after(whole, " opened ", 1)[0] + " smoke is true: true at 2026-11-23 20:00:00.000"
    ]
    assert [line for line in lines if " due " in line] == [line for line in whole if " due " in line]


async def test_a_journal_that_cannot_be_read_is_named(world: World) -> None:
    await smoke_in_two_flats(world)
    await world.crash()
    world.run_sql("UPDATE journal SET body = CAST('{' AS BLOB) WHERE seq = 1", "DELETE FROM checkpoint")

    [line] = [line for line in explain(world, "fire") if "cannot be said" in line]

    assert line.startswith("    the journal cannot be read back to its opening: c001 row 1 (registry)")


async def test_an_incident_that_nobody_has_is_an_error_of_one_line(world: World) -> None:
    with pytest.raises(GatewayError, match="there is no incident nobody"):
        list(explain_incident(world.ledger, world.catalog, open_catalogs(world.ledger, world.catalog), "nobody"))
