"""The runner of rule tests: it believes nothing that the engine does not do, and says in words what it saw."""

from __future__ import annotations

import pytest

from gateway.core.catalog import Catalog, build_catalog
from gateway.core.ruletest import Report, run_test, run_tests
from tests.core.files import SMOKE_RULE, SOUND, path_of

HEAD = "every: 5s\nprofile: nb-smoke\ncases:\n"


def report(cases: str, head: str = HEAD, rule: str = SMOKE_RULE, name: str = "smoke-persists") -> Report:
    files = {**SOUND, path_of(name): rule, path_of(name).removesuffix(".yaml") + ".test.yaml": head + cases}
    catalog = build_catalog(files)
    [id] = [rule.id for rule in catalog.rules if rule.id.endswith(f".{name}")]
    return run_test(catalog, catalog.tests[id])


def failures(cases: str, head: str = HEAD, rule: str = SMOKE_RULE) -> list[str]:
    return [str(failure) for failure in report(cases, head, rule).failures]


def test_a_rule_that_does_what_its_tests_say_passes() -> None:
    [found] = run_tests(build_catalog(SOUND))
    assert (found.rule, found.cases, found.failures, found.failed) == ("fire.smoke-persists", 2, (), 0)
    assert (found.fired, found.stayed_quiet) == (True, True)


def test_a_hold_is_exact_to_the_millisecond() -> None:
    expect = "{4999ms: quiet, 5s: pending, 14999ms: pending, 15s: firing}"
    cases = f'  - {{name: a, feed: {{smoke: "0 1x9", mode: normal}}, expect: {expect}}}\n'
    assert failures(cases) == []


def test_a_failure_says_when_what_was_expected_and_what_is() -> None:
    cases = (
        "  - name: too soon\n"
        '    feed: {smoke: "0 1x9", mode: normal}\n'
        "    expect: {12s: {phase: firing, incidents: 1}}\n"
    )
    [failure] = failures(cases)
    assert failure.startswith(
        "rules/fire/smoke-persists.test.yaml:6: too soon: "
        "at 12s expected phase firing, got pending; incidents 1, got 0; the rule is pending for device since 5s; "
    )
    assert "smoke is true is true (true at 10s)" in failure
    assert "mode is test is false" in failure


def test_every_wrong_expectation_is_told_and_a_case_fails_once() -> None:
    cases = '  - {name: a, feed: {smoke: "1x9"}, expect: {5s: firing, 6s: {notices: 2}}}\n'
    found = report(cases)
    assert len(found.failures) == 2
    assert found.failed == 1


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ("phase: quiet", "phase quiet, got firing"),
        ("incidents: 2", "incidents 2, got 1"),
        ("notices: 1", "notices 1, got 0"),
        ("signals: 3", "signals 3, got 1"),
        ("level: normal", "level normal, got critical"),
        ('category: "ext:21-02"', "category ext:21-02, got ext:21-01"),
        ("commands: []", "commands [], got [broadcast]"),
        ("note: joined", "note joined, got opened"),
        ("key: building-2", "key building-2, got building-1"),
    ],
)
def test_each_expectation_can_fail(expected: str, got: str) -> None:
    devices = "    devices: {speaker: {profile: ip-speaker, place: building-1}}\n"
    cases = f"  - name: a\n{devices}    feed: {{smoke: '1x9', mode: normal}}\n    expect: {{20s: {{{expected}}}}}\n"
    [failure] = failures(cases)
    assert got in failure


@pytest.mark.parametrize(
    "expected",
    ["phase: firing", "incidents: 1", "notices: 0", "signals: 1", "level: critical", 'category: "ext:21-01"',
     "commands: [broadcast]", "note: opened", "key: building-1"],
)  # fmt: skip
def test_each_expectation_can_pass(expected: str) -> None:
    devices = "    devices: {speaker: {profile: ip-speaker, place: building-1}}\n"
    cases = f"  - name: a\n{devices}    feed: {{smoke: '1x9', mode: normal}}\n    expect: {{20s: {{{expected}}}}}\n"
    assert failures(cases) == []


def test_what_was_not_believed_is_told() -> None:
    [failure] = failures('  - {name: a, feed: {smoke: "yes 7", battery: 240}, expect: {10s: firing}}\n')
    assert "not believed: smoke yes: wrong-type, battery 240.0: out-of-range, smoke 7.0: wrong-type" in failure


def test_a_device_in_a_drill_is_told_from_one_that_is_not() -> None:
    cases = (
        "  - name: a\n    state: drill\n    devices: {other: {profile: nb-smoke, place: building-2}}\n"
        '    feed: {smoke: "1x9", mode: normal, other.smoke: "1x9", other.mode: normal}\n'
        "    expect: {20s: {incidents: 1, key: building-2}}\n"
    )
    assert failures(cases) == []


def test_a_silent_device_is_looked_at_though_nothing_arrives() -> None:
    rule = SMOKE_RULE.replace("missing: keep", "missing: alarm")
    cases = '  - {name: a, feed: {smoke: "0", mode: normal}, expect: {24h: pending, 24h: pending, 1441m: firing}}\n'
    found = report(cases.replace("24h: pending, 24h: pending", "1439m: quiet, 24h: pending"), rule=rule)
    assert [str(failure) for failure in found.failures] == []


def test_what_an_agent_could_not_send_arrives_when_it_is_back() -> None:
    cases = (
        "  - name: a\n    presence: {1s: offline, 62s: online}\n"
        '    feed: {smoke: "_ 1 0x30", mode: "normalx1"}\n    expect: {60s: quiet, 62s: {phase: quiet, incidents: 0}}\n'
        "  - name: b\n    presence: {1s: offline, 62s: online}\n"
        '    feed: {smoke: "_ 1x30", mode: "normalx1"}\n    expect: {60s: quiet, 62s: {phase: firing, incidents: 1}}\n'
    )
    assert failures(cases) == []


PRESS = """\
id: sos.pressed
title: {zh: 一键求助}
status: STATUS
scope: device
when: {fall: {seen: true, where: {score: {above: 0.5}}}}
incident: {cause: sos, at: device, category: "ext:21-01"}
"""
FALLS = (
    "profile: fixed-sos\ncases:\n"
    "  - name: a\n    events: {fall: [{at: 5s, score: 0.9}, {at: 8s, score: 0.9}]}\n"
    "    expect: {4s: {incidents: 0}, 9s: {incidents: 1, signals: 2}}\n"
    "  - {name: b, events: {fall: [{at: 5s, score: 0.4}]}, expect: {9s: {incidents: 0}}}\n"
)


@pytest.mark.parametrize("status", ["draft", "active", "retired"])
def test_a_rule_that_is_not_active_yet_is_tested_as_if_it_were(status: str) -> None:
    found = report(FALLS, head="", rule=PRESS.replace("STATUS", status), name="pressed")
    assert found.failures == ()


def test_a_rule_in_shadow_stays_in_shadow() -> None:
    events = "events: {fall: [{at: 5s, score: 0.9}]}"
    cases = f"  - {{name: a, {events}, expect: {{9s: {{incidents: 0, note: shadow}}}}}}\n"
    found = report(
        "profile: fixed-sos\ncases:\n" + cases, head="", rule=PRESS.replace("STATUS", "shadow"), name="pressed"
    )
    assert found.failures == ()


def test_coverage_says_which_leaf_was_never_true_or_never_false() -> None:
    found = report('  - {name: a, feed: {smoke: "1x9", mode: normal}, expect: {20s: firing}}\n')
    assert [(leaf.path, leaf.was_true, leaf.was_false) for leaf in found.leaves] == [
        ("all[0].smoke", True, False),
        ("all[1].not.mode", False, True),
    ]
    assert found.gaps == ["never stays quiet", "all[0].smoke never false", "all[1].not.mode never true"]
    whole = (
        '  - {name: a, feed: {smoke: "0 1x9", mode: normal}, expect: {20s: firing}}\n'
        '  - {name: b, feed: {smoke: "1x9", mode: test}, expect: {45s: quiet}}\n'
    )
    assert report(whole).gaps == []


def test_coverage_of_an_event_asks_for_one_that_does_not_pass() -> None:
    found = report(FALLS, head="", rule=PRESS.replace("STATUS", "active"), name="pressed")
    assert [(leaf.path, leaf.was_true, leaf.was_false) for leaf in found.leaves] == [("fall", True, True)]
    only_true = FALLS.splitlines(keepends=True)[:5]
    found = report("".join(only_true), head="", rule=PRESS.replace("STATUS", "active"), name="pressed")
    assert found.gaps == ["never stays quiet", "fall never false"]


def test_only_rules_that_match_are_run() -> None:
    catalog = build_catalog(SOUND)
    assert [found.rule for found in run_tests(catalog, "fire.*")] == ["fire.smoke-persists"]
    assert list(run_tests(catalog, "water.*")) == []


def test_a_run_changes_nothing_and_comes_out_the_same_again() -> None:
    catalog: Catalog = build_catalog(SOUND)
    assert list(run_tests(catalog)) == list(run_tests(catalog))
