"""The score: what it plays, that its figures are the same again, and that it can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
from msgspec.structs import replace

from gateway.core.model import Incident, Member, Sort
from gateway.core.rule import Status
from simulators.catalog import read_catalog
from simulators.district import District, encode, generate
from simulators.score.compare import STORM, judge
from simulators.score.compose import SMALL, Size, compose, count_estates, write_days
from simulators.score.corpus import Label, Pack, Script, read_import_file
from simulators.score.play import Played, play
from simulators.score.run import Score, lay_out, score
from tests.servers import ROOT

SEED = 7
TINY = Size(cases=1)


def compose_all(seed: int, size: Size) -> list[Script]:
    districts = dict(lay_out(seed, count_estates(size)))
    return list(compose(seed, size, {n: read_import_file(encode(d)) for n, d in districts.items()}))


@cache
def whole() -> list[Script]:
    """A corpus of full size, composed and not played."""
    return compose_all(SEED, Size())


@cache
def town() -> District:
    return generate(SEED, 1, SMALL)


@cache
def days(without: str = "") -> Played:
    """The ordinary days of one community, with an emergency of every category in them."""
    estates = read_import_file(encode(town())).communities
    [script] = write_days(SEED, TINY, estates, town().lists["wanted"])
    return play(script, town().communities[0], town().lists, without)


@pytest.fixture(scope="module")
def tiny() -> Score:
    return score(SEED, TINY)


# --- what is played ------------------------------------------------------------------------------------------------


def test_every_category_that_a_rule_opens_has_thirty_emergencies_among_near_misses() -> None:
    opened = {r.category for r in read_catalog().rules if r.status is Status.ACTIVE and r.sort is Sort.INCIDENT}
    emergencies = Counter(label.category for s in whole() for label in s.labels if label.kind == "emergency")
    near_misses = Counter(near.like for s in whole() for near in s.near_misses)
    assert set(emergencies) == opened
    assert min(emergencies.values()) >= 30
    assert near_misses.total() / (near_misses.total() + emergencies.total()) >= 0.3
    assert {category for category in opened if near_misses[category] < 15} == set()


def test_no_two_labels_could_be_the_same_case_and_all_lie_in_their_script() -> None:
    for script in whole():
        slots: dict[tuple[str, str], list[Label]] = {}
        for label in script.labels:
            assert script.start <= label.since <= label.until
            assert label.since <= script.end
            slots.setdefault((label.category, label.place), []).append(label)
        for labels in slots.values():
            for before, after in pairwise(sorted(labels, key=lambda label: label.since)):
                assert before.until < after.since, (before, after)


def test_it_has_outages_faults_and_works_of_every_kind() -> None:
    scripts = whole()
    labels = Counter(label.scenario for script in scripts for label in script.labels)
    assert set(labels) >= {
        "agent-dark", "power-lost", "panel-lost", "device-dead", "link-cut", "link-flaps", "clock-off", "cloudburst",
        "quake", "smoke-outlasts-drill", "press-amid-works", "pressed-after-visit",
    }  # fmt: skip
    assert max(outage.devices for script in scripts for outage in script.outages) == 200
    near = {near.scenario for script in scripts for near in script.near_misses}
    assert near >= {"drill", "commissioning", "renovation", "hydrant-flushed", "elder-away"}
    verbs = {deed.verb for script in scripts for label in script.labels for deed in label.deeds}
    assert verbs >= {"accept", "call_back", "dispatch", "arrive", "park", "resume", "whistle", "resolve", "close"}


def test_messages_come_late_twice_or_never_and_each_clock_has_its_own_time() -> None:
    script = next(script for script in compose_all(SEED, TINY) if script.chapter == "faults")
    packs = [happening for happening in script.happenings if isinstance(happening, Pack)]
    assert any(pack.arrives is None for pack in packs)
    assert any(pack.again for pack in packs)
    assert any(pack.sent - pack.at > 60_000 for pack in packs)
    assert any(pack.arrives - pack.sent > 60_000 for pack in packs if pack.arrives is not None)
    assert len({step.offset for step in script.clock}) > 1


@pytest.mark.parametrize("seed", [5, 33])
def test_the_smallest_corpus_has_room_for_all_that_it_plays(seed: int) -> None:
    assert compose_all(seed, TINY)  # one community of ordinary days was too few for these


def test_the_same_seed_is_the_same_corpus_and_another_seed_another() -> None:
    def read(seed: int) -> list[object]:
        return [(s.devices, s.labels, s.near_misses, list(s.happenings)) for s in compose_all(seed, TINY)]

    first = read(1)
    assert read(1) == first
    assert read(2) != first


# --- what came of it -----------------------------------------------------------------------------------------------


def test_a_small_corpus_is_found_whole_and_nothing_else_is_opened(tiny: Score) -> None:
    line = tiny.line()
    assert (line["recall"], line["precision"], line["upset_recall"]) == (1.0, 1.0, 1.0)
    assert line["outage"] == {"devices": 200, "incidents": 1, "listed": 200}
    assert set(tiny.categories) == set(line["recall_by_category"])  # type: ignore[call-overload]
    assert tiny.total.raw_alarms > 10 * tiny.total.cases
    assert tiny.refused == []


def test_the_command_says_the_same_in_another_process(tiny: Score) -> None:
    command = [sys.executable, "-m", "simulators", "score", "--seed", str(SEED), "--cases", "1", "--json"]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert json.loads(ran.stdout.splitlines()[-1]) == tiny.line()
    assert ran.returncode == (0 if tiny.is_good else 1)
    assert f"score, seed {SEED}" in ran.stderr
    assert "ext:21-04 电梯困人" in ran.stderr


def test_a_rule_that_is_not_there_cannot_be_switched_off() -> None:
    command = [sys.executable, "-m", "simulators", "score", "--without", "fire.no-such"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "there is no rule fire.no-such" in ran.stderr


@pytest.mark.parametrize(
    ("rule", "category"),
    [("lift.trapped", "ext:21-04"), ("water.pipe-room-flooded", "event:04-02"), ("fire.lane-blocked", "ext:21-06")],
)
def test_a_rule_that_is_switched_off_costs_its_category_its_recall(rule: str, category: str) -> None:
    assert judge(days().script.labels, days().cases).missed == []
    missed = judge(days().script.labels, days(rule).cases).missed
    assert {label.category for label in missed} == {category}


# --- the comparison can fail ---------------------------------------------------------------------------------------


def pick() -> tuple[tuple[Label, ...], list[Incident], Incident]:
    """Labels, cases that fit them, and one of the cases."""
    played = days()
    case = next(case for case in played.cases if case.category == "ext:21-02")
    return played.script.labels, list(played.cases), case


def test_a_case_that_is_taken_away_is_missed() -> None:
    labels, cases, case = pick()
    verdict = judge(labels, [other for other in cases if other is not case])
    assert [label.category for label in verdict.missed] == ["ext:21-02"]
    assert verdict.doubled == verdict.false == []


def test_a_second_case_of_one_cause_is_doubled() -> None:
    labels, cases, case = pick()
    again = replace(case, id="again", number="JM20261123-001-999", opened_at=case.opened_at + 1)
    verdict = judge(labels, [*cases, again])
    assert verdict.doubled == [again]
    assert (verdict.missed, verdict.false) == ([], [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"category": "ext:21-01"},
        {"place": "c001-b99"},
        {"community": "c002"},
        {"sort": Sort.NOTICE},
        {"opened_at": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_case_that_is_wrong_in_anything_is_false_and_its_label_missed(wrong: dict[str, object]) -> None:
    labels, cases, case = pick()
    tampered = replace(case, **wrong)
    verdict = judge(labels, [tampered if other is case else other for other in cases])
    assert verdict.false == [tampered]
    assert [label.category for label in verdict.missed] == ["ext:21-02"]


def test_a_case_that_is_opened_too_late_is_false_and_its_label_missed() -> None:
    labels, cases, case = pick()
    [label] = [label for label, found in judge(labels, cases).found if found is case]
    tampered = replace(case, opened_at=label.until + 1)
    verdict = judge(labels, [tampered if other is case else other for other in cases])
    assert verdict.false == [tampered]
    assert verdict.missed == [label]


def test_what_a_storm_lists_is_found_in_its_list_and_nowhere_else() -> None:
    labels, cases, case = pick()
    [label] = [label for label, found in judge(labels, cases).found if found is case]
    in_storm = replace(label, in_storm=True)
    others = [other for other in cases if other is not case]
    member = Member(label.since, label.devices[0], "gas.level-2", "一氧化碳")
    storm = replace(case, id="storm", category=STORM, place=label.community, members=(member,))
    assert judge([in_storm], [*others, storm]).stormed == [in_storm]
    assert judge([label], [*others, storm]).missed == [label], "lives hang on it: it has to stand alone"
    elsewhere = replace(storm, members=(replace(member, key="another"),))
    assert judge([in_storm], [*others, elsewhere]).missed == [in_storm]


def test_the_figures_follow_from_the_verdict() -> None:
    played = days()
    again = replace(played.cases[0], id="again", number="JM20261123-001-998")
    result = Score(SEED)
    result.take(replace_cases(played, [*played.cases[1:], again, replace(again, id="more", place="nowhere")]))
    total = result.total
    assert total.cases == len(played.cases) + 1
    assert (total.doubled, total.false) == (0, 1)
    assert total.precision == 1 - 1 / total.cases
    assert total.reduction == 1 - total.cases / played.raw_alarms
    assert not result.is_good


def replace_cases(played: Played, cases: list[Incident]) -> Played:
    return Played(played.script, cases, played.signals, played.rejected, played.raw_alarms, played.refused)


def test_the_most_within_ten_minutes_is_counted_over_any_ten_minutes() -> None:
    minute = 60_000
    result = Score(SEED, opened=[0, 9 * minute, 10 * minute, 11 * minute, 18 * minute, 40 * minute])
    assert result.per_10_min_max == 4
