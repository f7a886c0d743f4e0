"""The demo itself: what it counts, what it prints last, and that nothing of it is left when it is stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from simulators.__main__ import app
from simulators.demo import (
    MINUTES,
    REST_MS,
    ROLES,
    START_MS,
    UNCLEARED_REST_MS,
    Outcome,
    compose_hour,
    match,
    still_taken,
)
from simulators.district import generate
from simulators.scenario import Instance
from simulators.scenario_file import Part, Sending
from tests.servers import ROOT
from tests.simulators.children import children_of, is_running


def cause(community: str = "c001", category: str = "ext:21-03", place: str = "c001-plaza") -> Instance:
    return Instance(
        "sos-pressed", {"en": "Help button pressed"}, community, "agent-001", "d-1", 0, 1, category, place, ()
    )


def incident(number: int, community: str = "c001", category: str = "ext:21-03", place: str = "c001-plaza") -> Any:
    return {"community": community, "category": category, "place": place, "opened_at": number, "number": f"JM{number}"}


# --- what is counted -----------------------------------------------------------------------------------------------


def test_each_cause_takes_one_incident_of_its_community_category_and_place() -> None:
    found = match([cause(), cause(place="c001-gate")], [incident(1), incident(2, place="c001-gate")])
    assert (found.matched, found.lost, found.doubled) == (2, (), ())


@pytest.mark.parametrize("other", [{"community": "c002"}, {"category": "ext:21-01"}, {"place": "c001-gate"}])
def test_an_incident_elsewhere_or_of_another_kind_is_none_of_the_cause(other: Mapping[str, str]) -> None:
    """The numbers agree, and yet one is lost and one doubled."""
    stray = incident(1, **other)
    found = match([cause()], [stray])
    assert (found.matched, found.lost, found.doubled) == (0, (cause(),), (stray,))


def test_a_second_incident_of_one_cause_is_doubled_and_it_is_the_later_one() -> None:
    found = match([cause()], [incident(9), incident(3)])
    assert found.matched == 1
    assert [extra["number"] for extra in found.doubled] == ["JM9"]


def test_two_causes_alike_want_two_incidents() -> None:
    assert match([cause(), cause()], [incident(1), incident(2)]).matched == 2
    assert match([cause(), cause()], [incident(1)]).lost == (cause(),)


def outcome(**other: Any) -> Outcome:
    right: dict[str, Any] = {
        "communities": 277, "devices": 29362, "readings": 310_000, "causes": 36, "incidents": 36, "lost": 0,
        "doubled": 0, "delivered": 36, "p50_ms": 20.0, "p99_ms": 90.0,
    }  # fmt: skip
    return Outcome(**right | other)


def test_only_what_is_whole_is_good() -> None:
    assert outcome().is_good
    for fault in (
        {"lost": 1},
        {"doubled": 1},
        {"undelivered": 1},
        {"incidents": 37},
        {"delivered": 35},
        {"causes": 37},
    ):
        assert not outcome(**fault).is_good, fault


def test_the_last_line_has_these_keys_in_this_order_and_is_json_also_without_an_alarm() -> None:
    assert list(json.loads(outcome().line())) == [
        "communities", "devices", "readings", "causes", "incidents", "lost", "doubled", "delivered", "p50_ms", "p99_ms",
    ]  # fmt: skip
    assert json.loads(outcome(p50_ms=None).line())["p50_ms"] is None


# --- hour after hour -----------------------------------------------------------------------------------------------


def reported(cause: Instance, state: str, cleared_at: int | None = None) -> Any:
    told = {"category": cause.category, "place": cause.place, "devices": [cause.device]}
    return told | {"state": state, "cleared_at": cleared_at}


def test_where_an_incident_is_open_or_was_lately_nothing_else_is_played() -> None:
    over = replace(cause(), ends=START_MS, marks=frozenset({"d-1", "b1", "ext:21-03@c001-plaza"}))
    lately, later = START_MS + REST_MS - 1, START_MS + REST_MS

    assert still_taken([over], [reported(over, "closed")], lately) == over.marks
    assert still_taken([over], [reported(over, "closed")], later) == frozenset()
    assert still_taken([over], [reported(over, "handling")], later) == over.marks
    elsewhere = reported(over, "handling") | {"devices": ["d-1"], "place": "b1"}
    assert still_taken([over], [elsewhere], later) == over.marks, "its device is in another one"


def test_where_a_condition_may_still_hold_nothing_is_played_until_the_device_has_reported() -> None:
    part = Part("d-1", "tilt", 120.0, None)
    sending = Sending(START_MS - 9, (part,), "d-1", None, {}, 0, False)
    over = replace(cause(), begins=START_MS - 9, ends=START_MS, sendings=(sending,), marks=frozenset({"d-1"}))
    later, much_later = START_MS + REST_MS, START_MS + UNCLEARED_REST_MS

    assert still_taken([over], [reported(over, "closed")], later) == over.marks
    assert still_taken([over], [reported(over, "closed", START_MS - 10)], later) == over.marks, "an earlier one"
    assert still_taken([over], [reported(over, "closed", START_MS)], later) == frozenset()
    assert still_taken([over], [reported(over, "closed")], much_later) == frozenset()


def test_the_smallest_district_is_played_in_for_days() -> None:
    """Every case is closed two hours after it began, and of no condition it is told that it is over: still each of a
    hundred hours has most of its scenarios."""
    district = generate(1, communities=20)
    plan = compose_hour(1, district, START_MS, None)
    whole = len(plan.instances)
    causes = list(plan.causes)
    for number in range(1, 100):
        begins = START_MS + number * MINUTES * 60_000
        two_hours_ago = begins - 2 * MINUTES * 60_000
        stored = [reported(one, "closed" if one.begins < two_hours_ago else "filed") for one in causes]
        plan = compose_hour(1, district, begins, replace(plan, taken=still_taken(causes, stored, begins)))
        held = {mark for one in causes if one.begins >= two_hours_ago for mark in one.marks}
        assert all(held.isdisjoint(instance.marks) for instance in plan.instances)
        assert len(plan.instances) + len(plan.left_out) == whole
        assert len(plan.left_out) < whole // 2, plan.left_out
        causes += plan.causes


def test_what_finds_no_place_in_a_later_hour_is_left_out() -> None:
    """Nothing is ever closed, so that the district fills up."""
    district = generate(1, communities=20)
    plan = compose_hour(1, district, START_MS, None)
    whole = len(plan.instances)
    for number in range(1, 30):
        plan = compose_hour(1, district, START_MS + number * MINUTES * 60_000, plan)
        assert len(plan.instances) + len(plan.left_out) == whole
    assert plan.left_out


@pytest.mark.parametrize("communities", ["12", "19", "278", "some"])
def test_a_number_of_communities_that_it_cannot_play_is_refused(communities: str) -> None:
    result = CliRunner().invoke(app, ["demo", "--once", "--communities", communities])

    assert result.exit_code == 2
    assert "--communities" in result.output
    assert "Traceback" not in result.output


CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}")

# --- the whole of it -----------------------------------------------------------------------------------------------


class Running:
    """A demo that runs, and the folder in which it keeps everything."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SCG_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simulators", "demo", "--communities", "20", *arguments],
            cwd=ROOT,
            env=clean | {"TMPDIR": str(folder)} | dict(env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []

    def wait_for(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        pytest.fail(f"ended without {words!r}:\n{''.join(self.lines)}")

    def finish(self, timeout_s: float = 120) -> tuple[int, list[str]]:
        """(exit status, all lines)."""
        rest, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, [*self.lines, *rest.splitlines(keepends=True)]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate(timeout=30)


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Any]:
    started: list[Running] = []

    def start(*arguments: str, env: Mapping[str, str] | None = None) -> Running:
        started.append(Running(tmp_path, *arguments, env=env))
        return started[-1]

    yield start
    for demo in started:
        demo.close()


@pytest.mark.parametrize(("broker", "agents"), [("mosquitto", 2), ("amqtt", 0)])
def test_an_hour_comes_to_its_causes(start_demo: Any, broker: str, agents: int) -> None:
    """A small district, faster than the real demo, on both embedded brokers; two of its communities go through real
    edge agents."""
    through = ("--agents", str(agents)) if agents else ()
    demo = start_demo("--once", "--speed", "150", "--seed", "3", *through, env={"SCG_BROKER__EMBEDDED": broker})
    status, lines = demo.finish()
    last = json.loads(lines[-1])
    assert (last["lost"], last["doubled"]) == (0, 0), "".join(lines)
    assert last["causes"] == last["incidents"] == last["delivered"] >= 20
    assert last["communities"] == 20
    assert last["devices"] == 20 * 106
    assert last["readings"] > 15_000
    assert 0 < last["p50_ms"] <= last["p99_ms"]
    # Stages move while it plays: people are late, one calls a higher grid, which comes, and cases are closed.
    said = {words[1] for line in lines if (words := line.split())[1:] and CLOCK.fullmatch(words[0])}
    assert {"超时", "吹哨", "报到", "结案"} <= said, "".join(lines)
    assert re.search(r"[01] of 1 whistles answered", " ".join("".join(lines).split())), "".join(lines)
    assert status == 0
    assert list(demo.folder.glob("scg-*")) == []


def test_whoever_looks_is_given_an_address_and_an_account_of_each_role(start_demo: Any) -> None:
    demo = start_demo()
    demo.wait_for("审计管理员")
    said = "".join(demo.lines)
    address = re.search(r"http://127\.0\.0\.1:\d+", said)
    accounts = dict(re.findall(r"^\s+[\u4e00-\u9fff]+\s+([a-z-]+)\s+(\S+)\s*$", said, re.MULTILINE))
    assert address is not None, said
    assert {role.replace("_", "-") for role in ROLES} <= set(accounts)
    with httpx.Client(base_url=address[0], follow_redirects=True, trust_env=False) as browser:
        form = re.search(r'name="csrf" value="([0-9a-f]+)"', browser.get("/login").text)
        assert form is not None
        signed_in = {"csrf": form[1], "name": "dispatcher", "password": accounts["dispatcher"]}
        page = browser.post("/login", data=signed_in)
        help_page = browser.get(accounts["resident"])
        browser.cookies.clear()
        form = re.search(r'name="csrf" value="([0-9a-f]+)"', browser.get("/login").text)
        assert form is not None
        browser.post("/login", data={"csrf": form[1], "name": "tester", "password": accounts["tester"]})
        stand = browser.get("/tester")
    assert page.status_code == 200
    assert "试验小区1" in stand.text
    assert 'value="sos-pressed"' in stand.text
    assert "事件看板" in page.text
    assert help_page.status_code == 200
    assert "按住 2 秒求助" in help_page.text


@pytest.mark.parametrize(
    "words", ["a district from seed", "registering", "an account of each", "starting broker", "connecting"]
)
def test_ctrl_c_leaves_nothing_behind(start_demo: Any, words: str) -> None:
    """At any time: while the words were the last that it said, and so in the middle of the next thing."""
    demo = start_demo()
    demo.wait_for(words)
    time.sleep(0.4)
    children = children_of(demo.process.pid)
    demo.process.send_signal(signal.SIGINT)
    demo.process.send_signal(signal.SIGINT)
    status, lines = demo.finish(30)
    assert lines[-1].strip() == "stopped", "".join(lines)
    assert status == 0
    assert children, "something was running"
    assert [child for child in children if is_running(child)] == []
    assert list(demo.folder.glob("scg-*")) == []
