"""What the demo says of the people's work, of incidents as the engine makes them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.adapters.platform import encode_event
from gateway.core.model import Incident
from simulators.handlers import show_stage, show_stages, tell_moment, tell_stages
from tests.runtime.cases import Desk


def stored(case: Incident) -> Any:
    """The incident as the platform keeps it."""
    return msgspec.json.decode(encode_event("event", case))["data"]


def moments(case: Incident) -> list[str]:
    told = [tell_moment(stored(case), line) for line in stored(case)["timeline"]]
    return [moment.replace(case.number, "N") for moment in told if moment is not None]


def test_late_whistled_and_closed_is_told_as_it_happens() -> None:
    desk = Desk()  # at 20:00; the press is dispatched by the gateway at 20:01, somebody must be there by 20:16
    case = desk.press()
    desk.act(case, 2, "accept")
    desk.act(case, 17, "arrive")
    desk.act(case, 20, "whistle", who="platform:sim-grid_worker")
    handled = desk.act(case, 22, "report_in", grid="370215001")
    assert show_stage(stored(handled)) == "处置 超时 吹哨"
    closed = desk.act(case, 30, "resolve", "verify", "close")
    assert moments(closed) == [
        "派遣 N by the gateway itself: nobody has called back",
        "超时 N arrive was due at 20:16",
        "吹哨 N platform:sim-grid_worker calls grid 370215001",
        "报到 N grid 370215001 has come",
        "结案 N 30 min after it was opened",
    ]


@pytest.mark.parametrize("verb", ["false_alarm", "cancel"])
def test_a_false_alarm_is_told(verb: str) -> None:
    desk = Desk()
    assert moments(desk.act(desk.press(), 0.5, verb)) == ["误报 N 0 min after it was opened"]


def test_the_stages_are_counted_in_the_order_of_the_loop() -> None:
    desk = Desk()
    first, second = desk.press(0, "sos-1"), desk.press(0, "sos-2")
    desk.act(first, 0.5, "accept", "dispatch", "arrive")
    desk.wait(20)
    cases = [stored(desk.get(case)) for case in (first, second)]
    assert show_stages(cases) == "派遣 1 处置 1 超时 1"
    assert tell_stages(cases) == (
        "派遣 dispatched 1, 处置 handling 1; 超时 late 1, 吹哨 whistled up 0, 报到 reported in 0"
    )
    assert tell_stages([]) == "none; 超时 late 0, 吹哨 whistled up 0, 报到 reported in 0"
