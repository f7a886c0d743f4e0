"""The pages' languages: Chinese in the templates, English from a catalogue beside them.

The catalogues are read as they are written (``locale/<language>/LC_MESSAGES/messages.po``): nothing is compiled, so
nothing can be stale. ``python -m gateway.web.languages`` takes new messages of templates and code into them.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from babel.support import NullTranslations, Translations
from starlette.requests import HTTPConnection

HERE: Final = Path(__file__).parent
LANGUAGES: Final[Mapping[str, str]] = {"zh": "中文", "en": "English"}
"""By the code that stands in the cookie; the first is the source."""

COOKIE: Final = "language"


def choose_language(connection: HTTPConnection) -> str:
    """The language that whoever asks has chosen; Chinese as long as nobody has."""
    chosen = connection.cookies.get(COOKIE, "")
    return chosen if chosen in LANGUAGES else "zh"


def pick(texts: Mapping[str, str], language: str) -> str:
    """A text for people in a language; Chinese where there is no other."""
    return texts.get(language) or texts.get("zh", "")


def load_translations(language: str) -> NullTranslations:
    """The catalogue of a language, ready for templates. Chinese needs none."""
    if language == "zh":
        return NullTranslations()
    compiled = io.BytesIO()
    write_mo(compiled, read_messages(language))
    compiled.seek(0)
    return Translations(compiled)


def read_messages(language: str) -> Catalog:
    """The catalogue of a language as it stands in its file."""
    with _path(language).open("rb") as file:
        return read_po(file, locale=language)


def collect_messages() -> Catalog:
    """Every message of the templates and of the code."""
    found = Catalog(project="smart-community-gateway", charset="utf-8")
    methods = [("templates/**.html", "jinja2.ext:babel_extract"), ("**.py", "python")]
    options = {"templates/**.html": {"trimmed": "true", "silent": "false"}}
    for file, _, message, comments, context in extract_from_dir(HERE, methods, options, comment_tags=("i18n:",)):
        found.add(message, None, [(file, 0)], auto_comments=comments, context=context)
    return found


def _path(language: str) -> Path:
    return HERE / "locale" / language / "LC_MESSAGES" / "messages.po"


def main() -> int:
    """Brings the catalogues up to date. The exit status is 1 while a message has no translation."""
    collected = collect_messages()
    status = 0
    for language in LANGUAGES:
        if language == "zh":
            continue
        path = _path(language)
        catalogue = read_messages(language) if path.exists() else Catalog(locale=language, charset="utf-8")
        catalogue.update(collected, no_fuzzy_matching=True, update_creation_date=False)
        catalogue.obsolete.clear()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_po(file, catalogue, width=120, sort_output=True, no_location=True, omit_header=False)
        missing = [str(message.id) for message in catalogue if message.id and not message.string]
        for text in missing:
            sys.stdout.write(f"{language}: no translation of {text!r}\n")
        status |= bool(missing)
    return status


if __name__ == "__main__":
    sys.exit(main())
