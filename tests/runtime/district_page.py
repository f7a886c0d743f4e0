"""docs/district.md and the code: its tables are read from it, and ``--write`` renews its list of codes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from gateway.runtime.district_codes import CODES

PAGE = Path(__file__).parents[2] / "docs" / "district.md"

_TABLE = re.compile(r"<!-- table: (\S+) -->\n```csv\n(.*?)```\n<!-- end -->", re.DOTALL)
_CODES = re.compile(r"(<!-- codes -->\n).*?(<!-- end -->)", re.DOTALL)
_COLUMN = re.compile(r"^\| `([a-z_]+)`(\*?) \|", re.MULTILINE)


def tables(page: str) -> dict[str, str]:
    """The example of each table, by file."""
    return {found[1]: found[2] for found in _TABLE.finditer(page)}


def columns(page: str, file: str) -> list[tuple[str, bool]]:
    """The columns that the page explains of a table, and whether they must be there."""
    part = page.split(f"· `{file}`\n")[1].split("<!-- table:")[0]
    return [(found[1], bool(found[2])) for found in _COLUMN.finditer(part)]


def renew(page: str) -> str:
    """The page with the codes as they are now."""
    rows = "".join(f"| `{code}` | {words} |\n" for code, words in CODES.items())
    return _CODES.sub(lambda found: f"{found[1]}| code | 说明 |\n|---|---|\n{rows}{found[2]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(description="the list of codes in docs/district.md")
    parser.add_argument("--write", action="store_true", help="write it into the page")
    text = PAGE.read_text(encoding="utf-8")
    renewed = renew(text)
    if parser.parse_args().write:
        PAGE.write_text(renewed, encoding="utf-8")
    elif renewed != text:
        raise SystemExit("docs/district.md has old codes; run: python -m tests.runtime.district_page --write")


if __name__ == "__main__":
    main()
