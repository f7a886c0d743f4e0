"""YAML text as plain data that knows its lines."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.document import SIZE_LIMIT, Document, Problem, read_document


def read(text: str) -> Document:
    document, problems = read_document("f.yaml", text)
    assert document is not None, problems
    assert problems == []
    return document


def refusal(text: str) -> Problem:
    document, problems = read_document("f.yaml", text)
    assert document is None
    [problem] = problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("null", None),
        ("", None),
        ("5", 5),
        ("-5", -5),
        ("5.0", 5.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("22:00", "22:00"),
        ("2026-11-23", "2026-11-23"),
        ("1.2.3", "1.2.3"),
        ('"5"', "5"),
        ("'true'", "true"),
        ("<<", "<<"),
        ("9" * 400, "9" * 400),
    ],
)
def test_words_mean_what_they_say(text: str, value: object) -> None:
    document = read(f"a: {text}\n")
    assert document.data == {"a": value}
    assert isinstance(document.data, dict)
    assert type(document.data["a"]) is type(value)


def test_keys_are_always_texts() -> None:
    assert read("1: a\ntrue: b\n04-02: c\n~: d\n").data == {"1": "a", "true": "b", "04-02": "c", "~": "d"}


def test_every_part_knows_its_line() -> None:
    document = read("a:\n  - x\n  - b: 1\n    c:\n      d: 2\n\ne: {f: 3,\n    g: 4}\n")
    assert document.line() == 1
    assert document.line(("a", 0)) == 2
    assert document.line(("a", 1, "b")) == 3
    assert document.line(("a", 1, "c", "d")) == 5
    assert document.line(("e", "g")) == 8


def test_a_path_that_is_not_there_ends_at_the_nearest_part_above() -> None:
    document = read("a:\n  b: 1\n\nc: 2\n")
    assert document.line(("a", "x")) == 1
    assert document.line(("a", "x", "b")) == 2  # a step that the file does not have is passed over
    assert document.line(("c", 7)) == 4


@pytest.mark.parametrize(
    ("text", "code", "line", "what"),
    [
        ("", "empty-file", 1, "empty"),
        ("# nothing but words\n", "empty-file", 1, "empty"),
        ("a: 1\n\tb: 2\n", "broken-yaml", 2, "tab"),
        ("a: 1\nb: [1, 2\n", "broken-yaml", 3, "expected ',' or ']'"),
        ("a: 1\nb: 'x\n", "broken-yaml", 3, "quoted scalar"),
        ("a: b: c\n", "broken-yaml", 1, "mapping values"),
        ("a: 1\nb: @x\n", "broken-yaml", 2, "cannot start"),
        ("a: 1\nb: \x07\n", "broken-yaml", 2, "not allowed"),
        ("a: 1\nb: \udcff\n", "not-utf8", 2, "UTF-8"),
        ("a: &x 1\nb: *x\n", "alias", 1, "anchors"),
        ("a: 1\nb: *x\n", "alias", 2, "aliases"),
        ("a: !!python/object:os.system x\n", "tag", 1, "python/object"),
        ("a: !mine 5\n", "tag", 1, "!mine"),
        ("a: 1\n---\nb: 2\n", "two-documents", 3, "second document"),
        ("? [a, b]\n: c\n", "wrong-key", 1, "a key is"),
        ("[" * 200_000, "too-deep", 1, "nested"),
        ("a" * (SIZE_LIMIT + 1), "too-large", 1, "characters"),
    ],
)
def test_what_is_not_taken_is_one_problem_with_its_line(text: str, code: str, line: int, what: str) -> None:
    problem = refusal(text)
    assert (problem.code, problem.line) == (code, line)
    assert what in problem.what
    assert problem.mend


def test_an_alias_bomb_is_refused_before_it_unfolds() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert refusal("\n".join(lines)).code == "alias"


def test_a_repeated_key_is_a_problem_and_the_first_one_counts() -> None:
    document, problems = read_document("f.yaml", "a: 1\nb:\n  c: 2\n  c: 3\na: 4\n")
    assert document is not None
    assert document.data == {"a": 1, "b": {"c": 2}}
    assert [(problem.code, problem.line) for problem in problems] == [("duplicate-key", 4), ("duplicate-key", 5)]
    assert "already in line 3" in problems[0].what


def test_a_problem_reads_as_file_line_what_and_mend() -> None:
    assert str(Problem("a/b.yaml", 3, "x", "this is wrong", "do that")) == "a/b.yaml:3: this is wrong; mend: do that"


@given(st.text(max_size=200))
def test_any_text_is_a_document_or_problems(text: str) -> None:
    document, problems = read_document("f.yaml", text)
    assert document is not None or problems
    assert all(1 <= problem.line <= text.count("\n") + len(text.splitlines()) + 1 for problem in problems)
