"""Tables of devices, as a property manager or a maker keeps them: many to register at once, and those whose passwords
were put in beforehand (一机一密)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from gateway.runtime.device_desk import ID, RESERVED, Registration, make_id
from gateway.runtime.district_tables import Report, Row, parse_table, parse_workbook
from gateway.runtime.workbooks import is_workbook

REQUIRED: Final = ("code", "profile", "place")
OPTIONAL: Final = ("source", "name", "address", "secret")
LISTED: Final = ("code", "secret")

ROWS: Final = 1_000
"""Of one table: they are registered as one change."""

SHORTEST_SECRET: Final = 16
"""A secret that a maker prints must not be guessed: it is kept with few rounds of hashing, as passwords of 144 bits
are."""


class Wished(Struct, frozen=True):
    """A row of a table with the device that it asks for."""

    line: int
    wish: Registration


def read_registrations(
    file: str, data: bytes, places: Mapping[str, str], report: Report, *, is_test: bool
) -> list[Wished]:
    """The devices of a table (CSV or .xlsx); rows that cannot be read are in the report. ``places``: whole names → ids;
    a place may be written either way. Without a ``source`` a device speaks for itself."""
    found: list[Wished] = []
    parse = parse_workbook if is_workbook(data) else parse_table
    for row in parse(file, data, REQUIRED, OPTIONAL, report).rows:
        wish = _read_row(row, places, is_test=is_test)
        if len(found) >= ROWS and not row.is_bad:
            row.fault("", "bad-text", f"a table has at most {ROWS} devices", "put the rest into another table")
        if row.is_bad:
            report.bad.extend(row.faults)
        else:
            found.append(Wished(row.line, wish))
    return found


def _read_row(row: Row, places: Mapping[str, str], *, is_test: bool) -> Registration:
    place = row.text("place", required=True)
    return Registration(
        "",
        row.code("code", required=True),
        row.text("profile", required=True),
        places.get(" ".join(place.split()), place),
        row.text("source"),
        row.text("name"),
        row.text("address"),
        row.text("secret"),
        is_test,
    )


def read_listed(file: str, data: bytes, report: Report) -> dict[str, str]:
    """Identity → secret of a maker's table; rows that cannot be read are in the report."""
    found: dict[str, str] = {}
    for row in parse_table(file, data, LISTED, (), report).rows:
        code, secret = row.code("code", required=True), row.text("secret", required=True)
        id = make_id(code)
        if code and (not ID.fullmatch(id) or id in RESERVED):
            row.fault("code", "bad-id", f"code {code[:60]!r} makes no id", "use letters and digits")
        if secret and len(secret) < SHORTEST_SECRET:
            # The secret itself is never quoted.
            what = f"the secret has {len(secret)} characters"
            row.fault("secret", "bad-text", what, f"give at least {SHORTEST_SECRET} random ones")
        if id in found:
            row.fault("code", "bad-id", f"{id} stands there twice", "drop one")
        if row.is_bad:
            report.bad.extend(row.faults)
        else:
            found[id] = secret
    return found
