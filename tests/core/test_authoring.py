"""The forms of the files, and the page that tells authors of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.core import authoring
from gateway.core.authoring import Form, ProfileForm, RuleForm, RuleTestForm, VocabularyForm, read_form, suggest
from gateway.core.document import read_document

PAGE = (Path(__file__).parents[2] / "docs" / "authoring.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
FORMS: list[type[Form]] = [VocabularyForm, ProfileForm, RuleForm, RuleTestForm]


def test_the_page_has_one_example_of_each_kind_of_file() -> None:
    assert len(BLOCKS) == len(FORMS)


@pytest.mark.parametrize(("block", "form"), list(zip(BLOCKS, FORMS, strict=True)))
def test_the_examples_of_the_page_are_of_the_form(block: str, form: type[Form]) -> None:
    document, problems = read_document("authoring.md", block)
    assert document is not None, problems
    found, problems = read_form(document, form)
    assert problems == []
    assert found is not None


@pytest.mark.parametrize("form", FORMS)
def test_every_key_of_every_form_stands_on_the_page(form: type[Form]) -> None:
    for name in keys_of(form):
        assert re.search(rf"\b{name}\b", PAGE), f"{name} of {form.__name__} is not in docs/authoring.md"


def keys_of(form: type[BaseModel]) -> set[str]:
    found: set[str] = set()
    for name, field in form.model_fields.items():
        found.add(field.alias or name)
        for part in re.findall(r"(\w+Form)\b", str(field.annotation)):
            inner = getattr(authoring, part)
            found |= keys_of(inner)
    return found


def test_a_faulty_file_is_told_everything_at_once() -> None:
    text = (
        "id: NB\nknd: smoke\ntitle: {zh: 5}\nstatus: suported\nreadings:\n  smoke: {frm: a, type: bool}\nheartbeat: 5\n"
    )
    document, _ = read_document("p.yaml", text)
    assert document is not None
    form, problems = read_form(document, ProfileForm)
    assert form is None
    assert sorted((problem.line, problem.code) for problem in problems) == [
        (1, "missing-key"),
        (1, "wrong-value"),
        (2, "unknown-key"),
        (3, "wrong-type"),
        (4, "wrong-value"),
        (6, "unknown-key"),
        (6, "wrong-value"),
        (7, "wrong-value"),
    ]
    assert {problem.mend for problem in problems if problem.code == "unknown-key"} == {
        "did you mean kind?",
        "did you mean from?",
    }


@pytest.mark.parametrize("text", ["- a", "5", "a", "null", "[]"])
def test_a_file_that_is_no_mapping_is_one_problem(text: str) -> None:
    document, _ = read_document("p.yaml", text)
    assert document is not None
    _, problems = read_form(document, RuleForm)
    assert [(problem.line, problem.code) for problem in problems] == [(1, "wrong-type")]


def test_a_suggestion_is_the_word_that_is_meant_or_all_that_there_are() -> None:
    assert suggest("smok", ["smoke", "heat"]) == "did you mean smoke?"
    assert suggest("xyz", ["smoke", "heat"]) == "known here: heat, smoke"
    assert suggest("xyz", [f"w{i:02}" for i in range(15)]).endswith("w11 and 3 more")
    assert suggest("xyz", []) == "there is none; add it first, or leave this out"
