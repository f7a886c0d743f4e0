"""The catalog: what it takes, and how it says what it does not take."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.catalog import Catalog, CatalogError, ChangeKind, build_catalog, compare, hash_files
from gateway.core.document import Problem
from gateway.core.model import Level, Sort
from tests.core.files import SOUND, path_of, spoil


def problems_of(files: dict[str, str]) -> list[Problem]:
    with pytest.raises(CatalogError) as caught:
        build_catalog(files)
    return list(caught.value.problems)


# --- what it takes ---------------------------------------------------------------------------------------------------


def test_a_sound_set_of_files_makes_a_catalog() -> None:
    catalog = build_catalog(SOUND)
    assert list(catalog.profiles) == [
        "edge-agent",
        "face-camera",
        "heat-detector",
        "meter",
        "plate-camera",
        "nb-smoke",
        "fixed-sos",
        "ip-speaker",
    ]
    assert [rule.id for rule in catalog.rules] == ["fire.smoke-persists", "sos.pressed"]
    rule = catalog.rules[0]
    assert (rule.hold, rule.clear_hold, rule.level, rule.sort) == (10_000, 120_000, Level.CRITICAL, Sort.INCIDENT)
    assert rule.incident_title == {"zh": "{place} 烟感持续报警"}
    assert rule.respond[0].args == {"text": {"zh": "请撤离"}}
    assert catalog.categories["ops:01-01"].body == "property"
    assert [trial.name for trial in catalog.tests["fire.smoke-persists"].trials] == [
        "a puff stays quiet",
        "smoke opens one incident",
    ]


def test_units_are_resolved_from_the_vocabulary() -> None:
    spec = build_catalog(SOUND).profiles["heat-detector"].readings["temperature"]
    assert (spec.unit, spec.raw_unit, spec.raw, spec.low, spec.high) == ("Cel", "degF", "f", -40, 150)


def test_the_hash_is_that_of_the_texts_whatever_their_order() -> None:
    again = dict(reversed(SOUND.items()))
    assert build_catalog(again).hash == build_catalog(SOUND).hash == hash_files(SOUND)
    changed, _, _ = spoil("nb-smoke", "interval: 8h", "interval: 9h")
    assert hash_files(changed) != hash_files(SOUND)
    assert hash_files({"a": "bc"}) != hash_files({"ab": "c"})


def test_a_catalog_comes_back_from_the_texts_that_it_keeps() -> None:
    catalog = build_catalog(SOUND)
    again = build_catalog(catalog.files)
    assert again.hash == catalog.hash
    assert again.rules == catalog.rules
    assert compare(catalog, again) == ()


def test_a_catalog_cannot_be_changed() -> None:
    catalog = build_catalog(SOUND)
    with pytest.raises(TypeError):
        catalog.profiles["nb-smoke"] = catalog.profiles["meter"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        catalog.hash = ""  # type: ignore[misc]


# --- what it does not take -------------------------------------------------------------------------------------------

FAULTS = [
    # file, what is replaced, by what, the problem's code, a part of what it says, a part of its mend
    ("vocabulary", "unit: Cel\n", "unit: degF\n", "unit-twice", "degF is already the canonical unit", "leave it out"),
    ("vocabulary", "{scale: 0.001}", "{scale: 0}", "wrong-value", "l cannot be converted", "other than 0"),
    ("categories", "level: critical", "level: red", "wrong-value", "'red' is not allowed", "critical"),
    ("categories", "body: fire-rescue", "body: fire-rescues", "unknown-body", "fire-rescues", "mean fire-rescue"),
    ("categories", '"ext:21-01"', '"21-01"', "wrong-value", "21-01", "NN-NN"),
    ("nb-smoke", "interval: 8h", "intervall: 8h", "unknown-key", "'intervall'", "did you mean interval?"),
    ("nb-smoke", "interval: 8h", "interval: 25h", "interval", "every 25h", "longer than the interval"),
    ("nb-smoke", "heartbeat: 24h\n", "", "missing-key", "heartbeat is missing", "heartbeat: none"),
    ("nb-smoke", "heartbeat: 24h", "heartbeat: often", "wrong-value", "'often' is no duration", "12h"),
    ("nb-smoke", "kind: smoke", "kind: smok", "unknown-kind", "smok is not in the vocabulary", "did you mean smoke"),
    ("nb-smoke", "id: nb-smoke", "id: smoke", "id-differs", "file is called nb-smoke", "id: nb-smoke"),
    ("nb-smoke", "quantity: battery", "quantity: charge", "unknown-quantity", "charge", "battery"),
    ("heat-detector", "unit: degF", "unit: degC", "unknown-unit", "degC is no unit of temperature", "mean degF"),
    ("nb-smoke", "smoke: {type: boolean,", "smoke: {type: bool,", "wrong-value", "'bool'", "did you mean boolean"),
    ("nb-smoke", "{type: boolean, lane", "{type: boolean, range: [0, 1], lane", "not-a-number", "range", "number"),
    ("nb-smoke", "range: [0, 100]", "range: [100, 0]", "wrong-value", "is no range", "[lowest, highest]"),
    ("nb-smoke", "  smoke: {type", "  any: {type", "reserved", "any is a word of the condition", "another name"),
    ("nb-smoke", "  self_test: {}", "  smoke: {}", "same-name", "a reading and an event", "another name"),
    ("nb-smoke", "out: {smoke: false}", "out: {smoke: true}", "example", "comes out as false", "correct the example"),
    ("nb-smoke", "out: {smoke: true, battery: 88}", "out: {smoke: true}", "example", "battery: absent", "correct"),
    ("nb-smoke", "rejected: {battery: out-of-range}", "rejected: {battery: wrong-type}", "example", "out-of-range", ""),
    ("nb-smoke", "{in: {bat: 240}", "{in: {battery: 240}", "example", "no field that a reading comes from", "bat"),
    ("nb-smoke", "  - {in: {smoke: 0}, out: {smoke: false}}\n", "", "too-few-examples", "2 examples", "3"),
    ("fixed-sos", "{lane: alarm, press: true}", "{press: true}", "press-lane", "pressed is a press", "lane: alarm"),
    ("fixed-sos", "[hard, soft]}", "hard}", "wrong-type", "is not a list", "a list"),
    ("smoke-persists", "id: fire.smoke-persists", "id: fire.smoke", "id-differs", "smoke-persists by its place", ""),
    ("smoke-persists", "status: active", "status: on", "wrong-value", "'on' is not allowed", "active"),
    ("smoke-persists", "- smoke: {is: true}", "- smok: {is: true}", "unknown-name", "smok", "did you mean smoke?"),
    ("smoke-persists", "- smoke: {is: true}", "- smoke: {above: 1}", "wrong-type", "smoke is boolean", "is: true"),
    ("smoke-persists", "- smoke: {is: true}", "- smoke: {iss: true}", "condition", "unknown test 'iss'", "is above"),
    ("smoke-persists", "- smoke: {is: true}", "- smoke: {seen: 5m}", "wrong-test", "smoke is not an event", "reading"),
    ("smoke-persists", "- smoke: {is: true}", "- self_test: {is: true}", "wrong-test", "not a reading", "seen:"),
    ("smoke-persists", "- smoke: {is: true}", "- battery: {above: 100}", "never", "can never be above: 100", "correct"),
    ("smoke-persists", "- smoke: {is: true}", "- battery: {sum: {within: 1h, above: 1}}", "wrong-type", "accum", ""),
    ("smoke-persists", "- smoke: {is: true}", "- mode: {rate: {within: 1h, above: 1}}", "wrong-type", "no rate", ""),
    ("smoke-persists", "- smoke: {is: true}", "- battery: {count: {within: 1h, at_least: 2}}", "wrong-type", "", ""),
    ("smoke-persists", "- smoke: {is: true}", "- temperature: {above: 5}", "unknown-name", "kind smoke", "add heat"),
    ("smoke-persists", "{mode: {is: test}}", "{mode: {is: tset}}", "never", "mode can never be is: tset", "correct"),
    ("smoke-persists", "{mode: {is: test}}", "{mode: {is: 5}}", "wrong-type", "mode is text", "is: or in: with texts"),
    ("smoke-persists", "{mode: {is: test}}", "{smoke: {in: {list: x}}}", "wrong-type", "smoke is boolean", ""),
    ("smoke-persists", "kinds: [smoke]", "kinds: [smog]", "unknown-kind", "smog", "did you mean"),
    ("smoke-persists", "scope: device", "scope: floor", "wrong-value", "'floor'", "building"),
    ("smoke-persists", "at: building", "at: street", "wrong-value", "'street'", "building"),
    ("smoke-persists", '"ext:21-01"', '"ext:21-02"', "unknown-category", "ext:21-02", "did you mean ext:21-01"),
    ("smoke-persists", '"ext:21-01"', '"ops:01-01"', "wrong-category", "ops:01-01", "ops:"),
    ("smoke-persists", "{place} 烟感", "{plaec} 烟感", "placeholder", "{plaec}", "{place}"),
    ("smoke-persists", "- broadcast:", "- broadcst:", "unknown-command", "broadcst", "did you mean broadcast?"),
    ("smoke-persists", "zone: building,", "zone: floor,", "respond", "zone floor is not known", "building"),
    ("smoke-persists", "zone: building, text", "zone: building, words", "unknown-argument", "words", "text"),
    ("smoke-persists", "text: {zh: 请撤离}", "text: 5", "wrong-argument", "text is wrong-type", "a text"),
    ("smoke-persists", ", text: {zh: 请撤离}", "", "missing-argument", "needs text", "add text:"),
    ("smoke-persists", "- broadcast: {zone: building, text: {zh: 请撤离}}", "- mute: {zone: device, minutes: 500}",
     "wrong-argument", "minutes is out-of-range", "from 1 to 480"),
    ("smoke-persists", "incident:\n", "incidents:\n", "unknown-key", "'incidents'", "did you mean incident?"),
    ("smoke-persists", "hold: 10s", "hold: 10", "wrong-value", "10 is no duration", "10s"),
    ("smoke-persists", "title: {zh: 烟", "title: {en: smoke, zh1: 烟", "missing-key", "zh is missing in title", "zh:"),
    ("pressed", "scope: device", "scope: device\noffline: true", "offline", "nothing to respond with", "respond:"),
    ("smoke-persists", "missing: keep\n", "missing: keep\noffline: true\n", "offline", "mode comes by", "lane: alarm"),
    ("pressed", "scope: device", "scope: device\nhold: 5s", "momentary", "has no hold:", "remove hold:"),
    ("pressed", "scope: device", "scope: device\nclear: {hold: 5s}", "momentary", "has no clear:", "remove clear:"),
    ("pressed", "scope: device", "scope: device\nmissing: alarm", "momentary", "has no missing:", "remove missing:"),
    ("pressed", "score: {above: 0.5}", "scroe: {above: 0.5}", "unknown-field", "no field scroe", "did you mean score"),
    ("pressed", "score: {above: 0.5}", "score: {above: 1}", "never", "score can never be above: 1", "correct"),
    ("pressed", "score: {above: 0.5}", "score: {in: {list: x}}", "wrong-type", "score is number", "above"),
    ("pressed", "key: [how]", "key: [plate]", "unknown-field", "no field plate", "how"),
    ("smoke-persists", "scope: device", "scope: device\nkey: [x]", "momentary", "key: is for rules", "remove"),
    ("pressed", "when: {fall", "when: {not: {fall", "broken-yaml", "no YAML", "brackets"),
    ("smoke-persists.test", "every: 5s", "every: 0s", "wrong-value", "every: is 0", "5s"),
    ("smoke-persists.test", "profile: nb-smoke", "profile: smoke", "unknown-profile", "no profile smoke", "nb-smoke"),
    ("smoke-persists.test", '{smoke: "0 1 0x6"', '{smok: "0 1 0x6"', "unknown-name", "no reading smok", "smoke"),
    ("smoke-persists.test", '"0 1 0x6"', '"0 1 0x9999999"', "series", "too many", "20000"),
    ("smoke-persists.test", "{30s: quiet}", "{30s: quite}", "wrong-value", "'quite'", "did you mean quiet?"),
    ("smoke-persists.test", "{30s: quiet}", "{soon: quiet}", "wrong-value", "'soon' is no duration", "10s"),
    ("smoke-persists.test", "{30s: quiet}", "{30s: {}}", "wrong-value", "nothing is expected", "quiet"),
    ("smoke-persists.test", "incidents: 1", "incident: 1", "unknown-key", "'incident'", "did you mean incidents?"),
]  # fmt: skip

STANDS_ELSEWHERE = {"broken-yaml", "unit-twice", "id-differs", "missing-key", "example", "missing-argument"}
"""Faults between two places, of which the other one is named."""


@pytest.mark.parametrize(("name", "old", "new", "code", "what", "mend"), FAULTS)
def test_each_fault_is_named_with_its_line_and_its_mend(
    name: str, old: str, new: str, code: str, what: str, mend: str
) -> None:
    files, path, line = spoil(name, old, new)
    problems = problems_of(files)
    found = [problem for problem in problems if problem.code == code and problem.file == path]
    assert found, problems
    assert what in found[0].what
    assert mend in found[0].mend
    if new and code not in STANDS_ELSEWHERE:
        assert found[0].line == line, str(found[0])
    assert str(found[0]).startswith(f"{path}:{found[0].line}: ")


def test_all_problems_of_all_files_are_found_at_once() -> None:
    files, _, _ = spoil("nb-smoke", "interval: 8h", "intervall: 8h")
    files[path_of("pressed")] = files[path_of("pressed")].replace("status: draft", "status: drat")
    files[path_of("meter")] = "id: [\n"
    problems = problems_of(files)
    assert {(problem.file, problem.code) for problem in problems} == {
        (path_of("nb-smoke"), "unknown-key"),
        (path_of("pressed"), "wrong-value"),
        (path_of("meter"), "broken-yaml"),
    }


def test_what_a_broken_profile_hides_is_not_reported_again_in_its_rules() -> None:
    files, _, _ = spoil("nb-smoke", "kind: smoke", "kind: smoke\nsurprise: 1")
    assert [(problem.file, problem.code) for problem in problems_of(files)] == [(path_of("nb-smoke"), "unknown-key")]


def test_a_rule_needs_one_model_with_all_that_it_asks_of_one_device() -> None:
    files, _, _ = spoil("smoke-persists", "kinds: [smoke]\n", "")
    files[path_of("smoke-persists")] = files[path_of("smoke-persists")].replace(
        "not: {mode: {is: test}}", "temperature: {above: 50}"
    )
    assert [problem.code for problem in problems_of(files)] == ["unanswerable"]
    wider = files[path_of("smoke-persists")].replace("scope: device", "scope: building")
    assert build_catalog({**files, path_of("smoke-persists"): wider}).rules[0].scope == "building"


def test_silence_can_only_be_noticed_where_something_is_expected() -> None:
    files, path, line = spoil("smoke-persists", "missing: keep", "missing: alarm")
    assert build_catalog(files).rules[0].missing == "alarm"
    files[path_of("nb-smoke")] = files[path_of("nb-smoke")].replace("heartbeat: 24h", "heartbeat: none")
    [problem] = problems_of(files)
    assert (problem.file, problem.line, problem.code) == (path, line, "never")


def test_a_face_opens_an_incident_only_with_a_legal_basis() -> None:
    rule = (
        "id: security.face\ntitle: {zh: 人脸}\nstatus: draft\nscope: device\nkinds: [face-camera]\n"
        'when: {face_matched: {seen: true}}\nincident: {cause: face, at: device, category: "ext:21-01"}\n'
    )
    [problem] = problems_of({**SOUND, "rules/security/face.yaml": rule})
    assert (problem.file, problem.code) == ("rules/security/face.yaml", "no-legal-basis")
    legal = rule + "legal: 某条例 Art 1\n"
    assert build_catalog({**SOUND, "rules/security/face.yaml": legal}).rule("security.face") is not None


def test_a_name_means_one_thing_in_all_profiles() -> None:
    files, path, line = spoil("meter", "  volume: {type", "  temperature: {type: boolean}\n  volume: {type")
    [problem] = problems_of(files)
    assert (problem.file, problem.line, problem.code) == (path, line, "reading-differs")
    assert "number temperature in heat-detector" in problem.what


def test_an_active_rule_needs_its_test_and_a_test_its_rule() -> None:
    files = dict(SOUND)
    del files[path_of("smoke-persists.test")]
    [problem] = problems_of(files)
    assert (problem.file, problem.line, problem.code) == (path_of("smoke-persists"), 3, "no-test")
    files = dict(SOUND)
    del files[path_of("smoke-persists")]
    assert [problem.code for problem in problems_of(files)] == ["test-without-rule"]


def test_a_file_in_the_wrong_place_is_no_file_without_effect() -> None:
    for path in ("rules/loose.yaml", "rules/a/b/c.yaml", "device_profiles/smoke/nb.yml", "elsewhere/a/b.yaml"):
        [problem] = problems_of({**SOUND, path: "id: x\n"})
        assert (problem.file, problem.code) == (path, "wrong-place")


def test_without_vocabulary_or_categories_that_alone_is_said() -> None:
    for name in ("vocabulary", "categories"):
        files = {path: text for path, text in SOUND.items() if path != path_of(name)}
        assert [(problem.file, problem.code) for problem in problems_of(files)] == [(path_of(name), "missing-file")]


def test_two_profiles_cannot_have_one_id() -> None:
    heat = SOUND[path_of("heat-detector")]
    other = heat.replace("kind: heat", "kind: smoke")
    problems = problems_of({**SOUND, "device_profiles/smoke/heat-detector.yaml": other})
    assert [problem.code for problem in problems] == ["duplicate-id"]


def test_a_retired_rule_may_name_what_is_gone() -> None:
    files, _, _ = spoil("smoke-persists", "status: active", "status: retired")
    files[path_of("smoke-persists")] = files[path_of("smoke-persists")].replace(
        "- smoke: {is: true}", "- haze: {is: true}"
    )
    assert build_catalog(files).rules[0].status == "retired"


def test_a_rename_cannot_take_the_place_of_a_rule_that_is_there() -> None:
    files, path, line = spoil("smoke-persists", "status: active", "was: sos.pressed\nstatus: active")
    [problem] = problems_of(files)
    assert (problem.file, problem.line, problem.code) == (path, line, "was-taken")


def test_the_error_is_one_line_that_names_the_first_place() -> None:
    files, path, line = spoil("nb-smoke", "interval: 8h", "intervall: 8h")
    with pytest.raises(CatalogError, match=rf"^{path}:{line}: unknown key 'intervall'; did you mean interval\?$"):
        build_catalog(files)


@given(
    name=st.sampled_from(sorted(SOUND)),
    start=st.floats(0, 1),
    length=st.integers(0, 40),
    junk=st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            ["{}", "[]", "null", ".nan", "1e999", "- ", "not: {not: {}}", "9" * 400 + "h", "&a *a", "\t", "0x1", "[[[["]
        ),
    ),
)
def test_no_text_brings_anything_but_problems_with_lines(name: str, start: float, length: int, junk: str) -> None:
    text = SOUND[name]
    at = int(start * len(text))
    files = {**SOUND, name: text[:at] + junk + text[at + length :]}
    problems: tuple[Problem, ...] = ()
    try:
        assert build_catalog(files).hash == hash_files(files)
    except CatalogError as error:
        problems = error.problems
    for problem in problems:
        # YAML ends lines at these too.
        assert 1 <= problem.line <= len(re.findall("\r\n|[\r\n\x85\u2028\u2029]", files[problem.file])) + 2
        assert problem.what
        assert problem.mend


# --- what changed ----------------------------------------------------------------------------------------------------


def changed(name: str, old: str, new: str) -> Catalog:
    return build_catalog(spoil(name, old, new)[0])


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        ("hold: 10s", "hold: 20s", {ChangeKind.REJUDGED}),
        ("hold: 2m", "hold: 3m", {ChangeKind.REJUDGED}),
        ("missing: keep", "missing: alarm", {ChangeKind.REJUDGED}),
        ("scope: device", "scope: building", {ChangeKind.REJUDGED}),
        ("scope: device", 'scope: device\nschedule: {times: ["22:00-06:00"]}', {ChangeKind.REJUDGED}),
        ("status: active", "status: shadow", {ChangeKind.STATUS}),
        ("cause: fire", "cause: smoke", {ChangeKind.RESTATED}),
        ("title: {zh: 烟感持续报警}", "title: {zh: 烟感报警}", {ChangeKind.RESTATED}),
        ("{zh: 请撤离}", "{zh: 快撤离}", {ChangeKind.RESTATED}),
        ("status: active", "status: active\nlegal: 某法", {ChangeKind.RESTATED}),
    ],
)
def test_compare_tells_what_judges_otherwise_from_what_only_reads_otherwise(
    old: str, new: str, kinds: set[ChangeKind]
) -> None:
    changes = compare(build_catalog(SOUND), changed("smoke-persists", old, new))
    assert {change.kind for change in changes} == kinds
    assert {change.rule for change in changes} == {"fire.smoke-persists"}


def test_a_comment_changes_nothing_that_compare_sees() -> None:
    catalog = changed("smoke-persists", "hold: 10s", "hold: 10s  # as measured")
    assert compare(build_catalog(SOUND), catalog) == ()
    assert catalog.hash != build_catalog(SOUND).hash


def test_rules_come_go_and_are_renamed() -> None:
    old = build_catalog(SOUND)
    files = {path: text for path, text in SOUND.items() if path != path_of("pressed")}
    assert [(c.rule, c.kind) for c in compare(old, build_catalog(files))] == [("sos.pressed", ChangeKind.REMOVED)]
    assert [(c.rule, c.kind) for c in compare(build_catalog(files), old)] == [("sos.pressed", ChangeKind.ADDED)]
    files["rules/sos/fallen.yaml"] = SOUND[path_of("pressed")].replace(
        "id: sos.pressed", "id: sos.fallen\nwas: sos.pressed"
    )
    [change] = compare(old, build_catalog(files))
    assert (change.rule, change.kind, change.was) == ("sos.fallen", ChangeKind.RENAMED, "sos.pressed")


def test_a_catalog_is_built_in_far_less_than_a_second() -> None:
    begin = time.perf_counter()
    build_catalog(SOUND)
    assert time.perf_counter() - begin < 1.0
