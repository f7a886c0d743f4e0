"""Words, times and spans as people read them, and that every page speaks both languages."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from babel.messages.catalog import Message
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Line
from gateway.core.moves import VERBS, State
from gateway.web.device_words import REFUSALS
from gateway.web.languages import LANGUAGES, collect_messages, read_messages
from gateway.web.rule_words import FILE_FAULTS
from gateway.web.sentences import Speaker
from gateway.web.words import (
    DAY_MS,
    HOUR_MS,
    LEVELS,
    LINES,
    MINUTE_MS,
    is_refused,
    name_line,
    name_outcome,
    name_state,
    name_verb,
    read_input,
    show_full,
    show_input,
    show_left,
    show_moment,
    show_span,
)
from tests.core.worlds import real_catalog

NOON = 1_795_435_200_000  # 2026-11-23T12:00:00Z, 20:00 in Jimo
MOMENTS = st.integers(min_value=0, max_value=4_000_000_000_000)


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "zh"])
def test_no_message_is_untranslated_and_none_is_left_over(language: str) -> None:
    wanted, known = collect_messages(), read_messages(language)
    ids = {message.id for message in wanted if message.id}

    assert {message.id for message in known if message.id} == ids
    assert [message.id for message in known if message.id and (not message.string or message.fuzzy)] == []


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "zh"])
def test_a_translation_fills_in_what_its_message_fills_in(language: str) -> None:
    def blanks(text: object) -> list[str]:
        return sorted(re.findall(r"%\(\w+\)s", str(text)))

    wrong: list[Message] = [m for m in read_messages(language) if m.id and blanks(m.id) != blanks(m.string)]
    assert wrong == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_state_verb_line_and_level_has_a_word(language: str) -> None:
    assert all(name_state(state, language) for state in State)
    assert all(name_verb(verb, language) for verb in VERBS)
    assert all(name_line(what, language) for what in (*LINES, *VERBS))
    assert all(set(title) >= set(LANGUAGES) for title in LEVELS.values())


def test_times_are_local_and_as_short_as_they_may_be() -> None:
    assert show_full(NOON) == "2026-11-23 20:00:00"
    assert show_moment(NOON, NOON + HOUR_MS) == "20:00:00"
    assert show_moment(NOON, NOON + 5 * HOUR_MS) == "11-23 20:00:00"
    assert show_moment(NOON, NOON + 60 * DAY_MS, seconds=False) == "2026-11-23 20:00"


@given(MOMENTS)
def test_a_field_of_a_form_gives_back_the_minute_that_it_was_given(at: int) -> None:
    assert read_input(show_input(at)) == at - at % MINUTE_MS


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01T00:00", "20:00"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert read_input(text) is None


def test_a_time_with_its_zone_is_taken_as_it_says() -> None:
    assert read_input("2026-11-23T12:00:00+00:00") == NOON


def test_spans_show_their_two_largest_units() -> None:
    span = 3 * MINUTE_MS + 12_000
    assert (show_span(span, "zh"), show_span(span, "en")) == ("3分12秒", "3 min 12 s")
    assert (show_span(2 * HOUR_MS + 5 * MINUTE_MS, "zh"), show_span(4 * DAY_MS, "en")) == ("2小时05分", "4 d 0 h")
    assert show_left(NOON + span, NOON, "zh") == "03:12"
    assert show_left(NOON - span, NOON, "en") == "-03:12"
    assert show_left(NOON + 27 * HOUR_MS, NOON, "zh") == "1天3时"
    assert show_left(NOON - 27 * HOUR_MS, NOON, "en") == "-1d 3h"


@given(st.integers(min_value=0, max_value=10 * DAY_MS))
def test_what_is_left_counts_down_second_by_second(ms: int) -> None:
    shown = show_left(ms, 0, "zh")
    if ms < DAY_MS:
        parts = [int(part) for part in shown.split(":")]
        seconds = sum(part * 60**place for place, part in enumerate(reversed(parts)))
        assert seconds == ms // 1000


def speaker(language: str) -> Speaker:
    return Speaker(language, real_catalog(), {"370215001": "环秀街道"}.get, NOON)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "why", "said"),
    [
        ("ring", "call 3: nobody has accepted it yet", "第3次呼叫值班电话：尚无人受理"),
        ("dispatch", "to fire-rescue", "派遣至消防救援"),
        ("whistle", "需要支援; grid 370215001", "呼叫环秀街道 需要支援"),
        ("raised", "urgent → critical", "紧急 → 特急"),
        ("opened", f"pressed seen: last at {NOON}", "收到按键，20:00:00"),
        (
            "opened",
            f"plate_seen where plate in list wanted, score above 0.8 seen: last at {NOON}",
            "收到 车牌识别（车牌 在名单 布控 中, 置信度 高于 0.8），20:00:00",
        ),
        (
            "due",
            "accept by 2026-11-23 20:01 (dispatcher of 370215001): 1min from 2026-11-23 20:00, ends 2026-11-23 20:01",
            "2026-11-23 20:01 前立案，由环秀街道调度员负责：自 2026-11-23 20:00 起 1 分钟，止于 2026-11-23 20:01",
        ),
        ("merge", "同一起火", "同一起火"),
    ],
)
def test_the_engines_sentences_are_read_in_chinese(what: str, why: str, said: str) -> None:
    assert speaker("zh").why(Line(1, NOON, "gateway", what, why)).strip() == said


@pytest.mark.parametrize(
    ("what", "why", "said"),
    [
        ("ring", "call 3: nobody has accepted it yet", "call no. 3 to the duty phone: nobody has accepted it yet"),
        ("dispatch", "to fire-rescue", "to Fire and rescue"),
        ("whistle", "需要支援; grid 370215001", "环秀街道 is called 需要支援"),
        ("remind", "dispatch, for the 1. time", "dispatch, reminder no. 1"),
        ("opened", f"cable_temperature above 70: 71 at {NOON}", "cable temperature above 70: 71 at 20:00:00"),
        (
            "due",
            "accept by 2026-11-23 20:01 (grid_worker of 370215001): 1min from 2026-11-23 20:00, ends 2026-11-23 20:01",
            (
                "accept by 2026-11-23 20:01, up to the grid worker of 环秀街道: "
                "1 min from 2026-11-23 20:00, ends 2026-11-23 20:01"
            ),
        ),
        (
            "due",
            "close by 2026-11-25 17:00 (dispatcher of 370215001): 1wd from 2026-11-23 20:00, ends 2026-11-25 17:00",
            (
                "close by 2026-11-25 17:00, up to the dispatcher of 环秀街道: "
                "1 working day from 2026-11-23 20:00, ends 2026-11-25 17:00"
            ),
        ),
        (
            "dispatch",
            "nobody has answered the call back within 4wh; to fire-rescue",
            "nobody called back within 4 working hours: sent to Fire and rescue",
        ),
        ("merge", "the same fire", "the same fire"),
    ],
)
def test_the_engines_sentences_are_read_in_english(what: str, why: str, said: str) -> None:
    assert speaker("en").why(Line(1, NOON, "gateway", what, why)).strip() == said


def test_every_fault_of_a_rules_file_has_a_word_in_chinese() -> None:
    codes = set()
    for path in Path("gateway/core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("problem", "Problem", "_Refused")):
                texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                codes |= {text for text in texts if re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", text)}
    assert codes == FILE_FAULTS.keys()


def test_every_refusal_at_the_devices_desk_has_words() -> None:
    text = Path("gateway/runtime/device_desk.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'Refused\(\s*"([\w-]+)"', text))
    assert len(codes) > 10
    # No page has such a button.
    assert codes - {"no-such-verb"} <= REFUSALS.keys()


def test_outcomes_of_the_audit_log_are_words() -> None:
    assert [name_outcome(one, "zh") for one in ("done", "asked", "refused: late")] == [
        "完成",
        "已受理",
        "已拒绝（late）",
    ]
    assert [is_refused(one) for one in ("done", "repeat", "asked", "refused: late", "no answer")] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_a_refusal_names_the_grid() -> None:
    said = speaker("en").refusal("it lies in grid 370215001, which is not below yours")
    assert said == "it lies in 环秀街道, which is not below yours"


@given(st.sampled_from(sorted({*LINES, *VERBS})), st.text(max_size=80))
def test_whatever_stands_in_a_line_something_is_said(what: str, why: str) -> None:
    assert bool(speaker("zh").why(Line(1, NOON, "li", what, why))) == bool(why)


def test_local_time_has_no_summer() -> None:
    moments = [NOON + month * 30 * DAY_MS for month in range(24)]
    shanghai = [datetime.fromtimestamp(at / 1000, UTC) + timedelta(hours=8) for at in moments]
    assert [show_full(at) for at in moments] == [moment.strftime("%Y-%m-%d %H:%M:%S") for moment in shanghai]
