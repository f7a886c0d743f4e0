"""The device profiles and rules of this checkout, for the simulators: what a model reports, and in which lane."""

from __future__ import annotations

from functools import cache

from gateway.core.catalog import PROFILES, RULES, Catalog, build_catalog
from simulators.processes import ROOT


@cache
def read_catalog() -> Catalog:
    """The catalog. Raises CatalogError with every problem of the files."""
    files: dict[str, str] = {}
    for folder in (PROFILES, RULES):
        for path in sorted((ROOT / folder).rglob("*.yaml")):
            files[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    return build_catalog(files)


@cache
def alarm_readings(profile: str) -> frozenset[str]:
    """The readings of a profile that go into the alarm lane; none for an unknown profile."""
    found = read_catalog().profiles.get(profile)
    return frozenset(spec.id for spec in found.readings.values() if spec.lane == "alarm") if found else frozenset()
