"""Reads the folders of device profiles and rules from the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.core.catalog import PROFILES, RULES, Catalog, build_catalog

_SUFFIXES: Final = (".yaml", ".yml")


def read_files(profiles: Path, rules: Path) -> dict[str, str]:
    """Path → text of every file of both folders, as `build_catalog` wants them: whatever the folders are called, the
    paths begin with ``device_profiles/`` and ``rules/``. Bytes that are no UTF-8 become surrogates, so that
    `build_catalog` can name their line."""
    return dict([*_read_folder(profiles, PROFILES), *_read_folder(rules, RULES)])


def read_catalog(profiles: Path, rules: Path) -> Catalog:
    """The catalog in these two folders. Raises CatalogError with every problem."""
    return build_catalog(read_files(profiles, rules))


def _read_folder(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SUFFIXES and path.is_file() and not path.name.startswith("."):
            text = path.read_bytes().decode("utf-8", errors="surrogateescape").replace("\r\n", "\n")
            yield f"{name}/{path.relative_to(folder).as_posix()}", text
