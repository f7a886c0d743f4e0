"""The page for whoever prepares the tables shows what the code takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.assembly import open_scheme
from gateway.core.district import JIMO, LevelScheme
from gateway.core.model import GridLevel
from gateway.errors import GatewayError
from gateway.runtime.coordinates import BOX
from gateway.runtime.district_export import write_district
from gateway.runtime.district_rows import FORMS, ROLES, Form
from gateway.runtime.district_tables import MARK
from gateway.settings import read_settings
from tests.runtime.district_page import PAGE, columns, renew, tables
from tests.runtime.districts import Office, write_folder

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_examples_are_a_district_that_comes_back_as_it_was(tmp_path: Path) -> None:
    office = Office()

    done = office.take(write_folder(tmp_path / "in", tables(TEXT)))
    write_district(tmp_path / "out", office.standing())

    assert (done.report.bad, done.report.notes, done.refused) == ([], [], {})
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").iterdir()}
    assert written == {file: MARK + text for file, text in tables(TEXT).items()}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.file)
def test_every_column_is_explained(form: Form) -> None:
    assert columns(TEXT, form.file) == [(name, name in form.required) for name in form.columns]
    assert all(f"`{role}`" in TEXT for role in ROLES)


def test_the_example_of_another_scheme_is_one(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(TEXT.split("```toml\n")[1].split("```")[0], encoding="utf-8")

    settings = read_settings(file, {})

    scheme = open_scheme(settings)
    assert settings.district.box == BOX
    assert scheme.prefix == JIMO.prefix
    assert scheme.levels == {
        GridLevel.DISTRICT: LevelScheme(6, (), 0),
        GridLevel.BASE: LevelScheme(15, (GridLevel.DISTRICT,), 6, (1, 899)),
    }
    assert open_scheme(read_settings(None, {})) == JIMO


def test_a_level_that_there_is_not_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[district.levels.village]\ndigits = 9\n", encoding="utf-8")

    with pytest.raises(GatewayError, match=r"district\.levels"):
        open_scheme(read_settings(file, {}))


def test_every_code_has_its_words() -> None:
    assert renew(TEXT) == TEXT, "run: python -m tests.runtime.district_page --write"
