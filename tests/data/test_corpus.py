"""Laws over every profile and rule: they hold for those that are added tomorrow too."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import pytest

from gateway.core.catalog import Catalog
from gateway.core.condition import names
from gateway.core.model import Level, Sort
from gateway.core.profile import Profile, normalise
from gateway.core.rule import Rule, Status
from gateway.core.ruletest import Report, play_as_drill, run_tests
from gateway.runtime.catalog_files import read_catalog

ROOT = Path(__file__).parents[2]


@cache
def catalog() -> Catalog:
    return read_catalog(ROOT / "device_profiles", ROOT / "rules")


@cache
def reports() -> dict[str, Report]:
    return {report.rule: report for report in run_tests(catalog())}


PROFILES = [pytest.param(profile, id=id) for id, profile in catalog().profiles.items()]
RULES = [pytest.param(rule, id=rule.id) for rule in catalog().rules]


def test_the_whole_catalog_is_built_in_far_less_than_a_second() -> None:
    begin = time.process_time()
    read_catalog(ROOT / "device_profiles", ROOT / "rules")
    assert time.process_time() - begin < 1.0


def test_there_is_a_model_of_every_kind_and_enough_rules() -> None:
    assert {profile.kind for profile in catalog().profiles.values()} == set(catalog().vocabulary.kinds)
    assert len(catalog().rules) >= 20


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_says_where_its_numbers_come_from(profile: Profile) -> None:
    assert profile.sources
    assert all(source.strip() for source in profile.sources)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_number_has_a_quantity_or_a_range_and_a_text_its_values(profile: Profile) -> None:
    for spec in profile.readings.values():
        if spec.type == "number":
            assert spec.quantity is not None, spec.id
        if spec.type in ("number", "integer"):
            assert spec.low is not None, spec.id
            assert spec.high is not None, spec.id
        if spec.type == "text":
            assert spec.values, spec.id


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_device_sends_when_it_is_broken_is_never_a_reading(profile: Profile) -> None:
    nonsense: tuple[object, ...] = (float("nan"), float("inf"), None, [], {}, "\u0000", 10**30)
    for broken in nonsense:
        values, rejected = normalise(profile, {spec.raw: broken for spec in profile.readings.values()})
        assert values == {}, broken
        assert set(rejected) == set(profile.readings)


@pytest.mark.parametrize("profile", PROFILES)
def test_alarm_lane_readings_and_presses_belong_to_devices_that_are_watched(profile: Profile) -> None:
    """Who may call for help must be known to be alive: by itself, or by the transmission device that speaks for it."""
    is_alarming = any(spec.lane == "alarm" for spec in profile.readings.values())
    is_alarming |= any(event.lane == "alarm" for event in profile.events.values())
    if is_alarming and profile.id not in ("loop-smoke", "manual-call-point", "resident-page"):
        assert profile.heartbeat is not None


@pytest.mark.parametrize("profile", PROFILES)
def test_every_press_has_an_active_rule_that_opens_a_critical_incident(profile: Profile) -> None:
    for event in profile.events.values():
        if event.press:
            assert [
                rule.id
                for rule in catalog().rules
                if rule.status is Status.ACTIVE
                and (not rule.kinds or profile.kind in rule.kinds)
                and any(named.name == event.id for named in names(rule.when))
                and rule.sort is Sort.INCIDENT
                and rule.level is Level.CRITICAL
            ]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_speaks_to_people_in_chinese_and_english_and_names_its_sources(rule: Rule) -> None:
    for texts in (rule.title, rule.incident_title):
        assert set(texts) == {"zh", "en"}
        assert any("\u4e00" <= character <= "\u9fff" for character in texts["zh"])
    assert rule.sources
    assert rule.false_alarms


@pytest.mark.parametrize("rule", RULES)
def test_what_is_said_aloud_has_chinese(rule: Rule) -> None:
    for response in rule.respond:
        for name, value in response.args.items():
            if name == "text":
                assert isinstance(value, dict)
                assert value["zh"]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_does_what_its_tests_say_and_they_show_all_of_it(rule: Rule) -> None:
    """Firing and staying quiet, and every leaf of the condition both true and false."""
    if rule.id not in catalog().tests:
        assert rule.status is not Status.ACTIVE
        return
    report = reports()[rule.id]
    assert [str(failure) for failure in report.failures] == []
    assert report.gaps == []


@pytest.mark.parametrize("rule", RULES)
def test_nothing_in_a_drill_sends_anybody_out(rule: Rule) -> None:
    if rule.id in catalog().tests:
        assert play_as_drill(catalog(), catalog().tests[rule.id]) == []


def test_one_cause_has_one_place_and_one_sort() -> None:
    """Rules with the same cause meet in one incident: only with the same granularity can they."""
    first: dict[str, Rule] = {}
    for rule in catalog().rules:
        known = first.setdefault(rule.cause, rule)
        assert (rule.at, rule.sort) == (known.at, known.sort), f"{rule.id} and {known.id} share the cause {rule.cause}"


def test_every_category_of_a_rule_names_a_body_and_what_comes_first() -> None:
    for rule in catalog().rules:
        category = catalog().categories[rule.category]
        assert category.body in catalog().bodies
        assert category.first_action["zh"]
