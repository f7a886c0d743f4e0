"""A person's order: what it commands, what it leaves in the timeline, that it happens once, and each refusal."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import json
from msgspec.structs import replace

from gateway.core.engine import Engine
from gateway.core.model import (
    Answer,
    Command,
    Device,
    DeviceState,
    Event,
    Grid,
    GridLevel,
    Incident,
    OperatorAction,
    Order,
    RegistryChange,
    Role,
)
from gateway.core.ordering import ORDER_DEVICES, ORDER_TTL_MS, ORDERERS
from gateway.runtime.access import Permission, roles_with
from gateway.runtime.journal import decode_row, encode_event, kind_of
from gateway.runtime.ports import JournalRow
from gateway.wire import Reply
from tests.core.worlds import DEVICES, PLACES, START, Sender, new_engine, restored

S = 1000
GAS = Device("gas-1", "household-gas", "agent-1", "b1-u1-101")
FLEET = (*DEVICES, GAS)


def pressed(engine: Engine) -> Incident:
    [incident] = engine.feed(Sender().send(START, signals=[("sos-1", "pressed")]), START).incidents
    return incident


def order(incident: Incident, /, **fields: Any) -> Order:
    plain = Order("o-1", "wang", incident.id, "close_valve", ("gas-1",), "楼上闻到燃气味")
    return replace(plain, **fields)


def case(*more: Device) -> tuple[Engine, Incident]:
    engine = new_engine((*FLEET, *more))
    return engine, pressed(engine)


def test_an_order_commands_like_a_rule_and_says_who_what_and_why() -> None:
    engine, incident = case()
    step = engine.feed(order(incident), START + S)

    assert step.answer == "done"
    [command] = [effect for effect in step.effects if isinstance(effect, Command)]
    assert (command.device, command.source, command.name, command.args) == ("gas-1", "agent-1", "close_valve", {})
    assert (command.incident, command.expires_at) == (incident.id, START + S + ORDER_TTL_MS)
    [changed] = step.incidents
    line = changed.timeline[-1]
    assert (line.who, line.what, line.device, line.event) == ("wang", "commanded", "gas-1", "o-1")
    assert line.why == "close_valve → gas-1; 楼上闻到燃气味"
    assert (changed.state, changed.revision) == (incident.state, incident.revision + 1)


def test_what_the_device_answers_is_told_of_the_incident() -> None:
    engine, incident = case()
    [command] = [e for e in engine.feed(order(incident), START + S).effects if isinstance(e, Command)]
    [after] = engine.feed(Answer("agent-1", Reply(command.id, "gas-1", "failed", "no power")), START + 2 * S).incidents

    line = after.timeline[-1]
    assert (line.what, line.device, line.why) == ("answered", "gas-1", "failed no power")


def test_a_broadcast_speaks_from_every_speaker_that_was_named() -> None:
    engine, incident = case()
    wish = order(incident, name="broadcast", devices=("speaker-1", "speaker-2"), args={"text": "请撤离"})
    step = engine.feed(wish, START + S)

    commands = [effect for effect in step.effects if isinstance(effect, Command)]
    assert [(c.device, c.args) for c in commands] == [
        ("speaker-1", {"text": "请撤离"}),
        ("speaker-2", {"text": "请撤离"}),
    ]
    assert len({command.id for command in commands}) == 2
    assert step.incidents[0].timeline[-1].why == "broadcast → speaker-1, speaker-2; 请撤离; 楼上闻到燃气味"


def test_the_same_order_again_is_a_repeat_and_one_that_was_refused_may_come_again() -> None:
    engine, incident = case()
    assert engine.feed(order(incident, reason=" "), START + S).answer == "a command needs a reason"
    assert engine.feed(order(incident), START + 2 * S).answer == "done"
    again = engine.feed(order(incident), START + 3 * S)
    assert (again.answer, again.effects, again.incidents) == ("repeat", (), ())


def test_each_refusal_names_what_is_wrong() -> None:
    idle = replace(GAS, id="gas-2", state=DeviceState.MAINTENANCE, state_until=START + 3600 * S)
    engine, incident = case(idle)
    mute: dict[str, Any] = {"name": "mute", "devices": ("smoke-1",)}
    refused: dict[str, dict[str, Any]] = {
        "no such open incident in this community": {"incident": "nowhere"},
        "commands are not for a grid_worker": {"role": Role.GRID_WORKER},
        "nobody is named": {"actor": " "},
        "it lies in grid": {"grid": "370215002"},
        "a command needs a reason": {"reason": "\t"},
        f"a command names 1 to {ORDER_DEVICES} devices": {"devices": ()},
        "each once": {"devices": ("gas-1", "gas-1")},
        "there is no device speaker-of-another-community in this community": {
            "devices": ("speaker-of-another-community",)
        },
        "device gas-2 is not in use (maintenance)": {"devices": ("gas-2",)},
        "device smoke-1 cannot do close_valve": {"devices": ("gas-1", "smoke-1")},
        "open_valve is done by somebody on the spot": {"name": "open_valve", "devices": ("gas-1",)},
        "lamp is not given for an incident": {"name": "lamp", "devices": ("sos-1",), "args": {"show": "off"}},
        "the argument minutes of mute is missing": mute,
        "the argument minutes of mute is out-of-range": {**mute, "args": {"minutes": 481}},
        "the argument minutes of mute is wrong-type": {**mute, "args": {"minutes": "ten"}},
        "mute has no argument hours": {**mute, "args": {"minutes": 1, "hours": 1}},
        "the argument text of broadcast is out-of-range": {
            "name": "broadcast",
            "devices": ("speaker-1",),
            "args": {"text": "长" * 257},
        },
    }
    for words, fields in refused.items():
        step = engine.feed(order(incident, **fields), START + S)
        assert words in step.answer, (words, step.answer)
        assert (step.effects, step.incidents) == ((), ())


@pytest.mark.parametrize("verb", ["false_alarm", "cancel"])
def test_nothing_is_commanded_for_an_incident_that_is_over(verb: str) -> None:
    engine, incident = case()
    assert engine.feed(OperatorAction("a1", "wang", incident.id, verb, "误碰"), START + S).answer == "done"

    step = engine.feed(order(incident), START + 2 * S)

    assert step.answer == "nothing is commanded for an incident that is false_alarm"
    assert step.effects == ()


def test_whoever_has_one_grid_of_a_community_commands_in_that_one_alone() -> None:
    engine = new_engine(FLEET)
    base = [Grid(f"37021500100100{n}", GridLevel.BASE, f"{n}", "370215001") for n in (1, 2)]
    moved = tuple(replace(place, grid=base[1].code) if place.id == "b2" else place for place in PLACES)
    assert engine.feed(RegistryChange("test", places=moved, grids=tuple(base)), START).answer == "done"
    incident = pressed(engine)
    wish = order(incident, name="broadcast", args={"text": "请撤离"}, grid=base[0].code)

    other = engine.feed(replace(wish, devices=("speaker-1", "speaker-2")), START + S)
    own = engine.feed(replace(wish, devices=("speaker-1",)), START + 2 * S)

    assert other.answer == f"device speaker-2 lies in grid {base[1].code}, which is not below yours"
    assert own.answer == "done"


def test_an_order_puts_nobodys_decision_out_of_date() -> None:
    engine, incident = case()
    assert engine.feed(OperatorAction("a1", "zhang", incident.id, "accept"), START + S).answer == "done"
    seen = engine.incident(incident.id)
    assert seen is not None
    assert engine.feed(order(incident), START + 2 * S).answer == "done"

    late = OperatorAction("a2", "li", incident.id, "false_alarm", "误碰", revision=incident.revision)
    fresh = replace(late, id="a3", verb="dispatch", revision=seen.revision)

    assert engine.feed(late, START + 3 * S).answer.startswith("zhang was faster (accept)")
    assert engine.feed(fresh, START + 4 * S).answer == "done"


def test_the_same_events_give_the_same_steps_after_a_restart_and_from_the_journal() -> None:
    def events(incident: Incident) -> list[Event]:
        wish = order(incident, name="broadcast", devices=("speaker-2", "speaker-1"), args={"text": "请撤离"})
        return [order(incident), order(incident), replace(wish, id="o-2"), order(incident, id="o-3", devices=())]

    def row(event: Event) -> Event:
        assert isinstance(event, Order)
        return decode_row("c001", JournalRow(1, START, kind_of(event), "", encode_event(event), "", "", 0))

    def play(*, restarts: bool, journal: bool) -> list[bytes]:
        engine, incident = case()
        steps = []
        for number, event in enumerate(events(incident)):
            engine = restored(engine) if restarts else engine
            steps.append(json.encode(engine.feed(row(event) if journal else event, START + number * S)))
        return steps

    whole = play(restarts=False, journal=False)
    assert play(restarts=True, journal=False) == whole
    assert play(restarts=False, journal=True) == whole


def test_those_who_may_give_commands_are_those_whose_orders_are_taken() -> None:
    assert tuple(roles_with(Permission.COMMANDS_GIVE)) == ORDERERS
