"""Features of a GeoJSON file (RFC 7946), each with the line that it begins on, as rows of a table.

`json` tells no lines of what it reads, so the list of features is walked here, one value after the other. A file that
breaks off gives the features before that point.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, Final

from gateway.core.model import Scalar
from gateway.runtime.coordinates import Crs, find_crs
from gateway.runtime.district_tables import BadRow, Report, Row, Table, guard, write_attributes

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_decoder: Final = JSONDecoder()


def read_points(path: Path, columns: Sequence[str], report: Report) -> Table:
    """The points of a FeatureCollection as rows: their properties by name, and ``lon``, ``lat`` and ``crs``. A feature
    without geometry is a row without a position. Raises OSError."""
    file = path.name
    before = len(report.bad)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        report.bad.append(BadRow(file, 0, 0, "not-utf-8", "it is not UTF-8", "save the file as UTF-8"))
        return Table(file, "utf-8", (), is_whole=False)
    found: list[tuple[int, object]] = []
    members: dict[str, object] = {}
    try:
        for name, line, value in _walk(text):
            if line:
                found.append((line, value))
            else:
                members[name] = value
    except JSONDecodeError as error:
        what, mend = f"it is no JSON from there on ({error.msg})", "export the file again"
        report.bad.append(BadRow(file, error.lineno, error.colno, "not-json", what, mend))
    except (ValueError, RecursionError):
        what, mend = "it is no JSON that anybody writes", "export the file again"
        report.bad.append(BadRow(file, 0, 0, "not-json", what, mend))
    crs = _read_crs(file, members, report)
    if crs is None:
        return Table(file, "utf-8", (), is_whole=False)
    rows = [row for line, value in found if (row := _read_feature(file, line, value, columns, crs, report)) is not None]
    return Table(file, "utf-8", tuple(rows), len(report.bad) == before)


def _walk(text: str) -> Iterator[tuple[str, int, object]]:
    """The members of the one object, as (name, 0, value), and each of its features, as ("features", line, value)."""
    at = _pass(text, 0, "{")
    is_first = True
    while text[at : at + 1] != "}":
        if not is_first:
            at = _pass(text, at, ",")
        is_first = False
        name, at = _decoder.raw_decode(text, at)
        at = _pass(text, _skip(text, at), ":")
        if name == "features" and text[at : at + 1] == "[":
            at = yield from _walk_features(text, at)
        else:
            value, at = _decoder.raw_decode(text, at)
            yield str(name), 0, value
        at = _skip(text, at)
    if _skip(text, at + 1) != len(text):
        raise JSONDecodeError("something follows", text, at + 1)


def _walk_features(text: str, at: int) -> Generator[tuple[str, int, object], None, int]:
    """Returns where the list ends."""
    at = _pass(text, at, "[")
    line, counted = 1, 0
    is_first = True
    while text[at : at + 1] != "]":
        if not is_first:
            at = _pass(text, at, ",")
        is_first = False
        line, counted = line + text.count("\n", counted, at), at
        value, at = _decoder.raw_decode(text, at)
        yield "features", line, value
        at = _skip(text, at)
    return at + 1


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _pass(text: str, at: int, sign: str) -> int:
    """Where the next value begins after that sign."""
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise JSONDecodeError(f"{sign} is missing", text, at)
    return _skip(text, at + 1)


def _read_crs(file: str, members: Mapping[str, object], report: Report) -> Crs | None:
    """What the positions are given in: WGS 84 unless the file says otherwise, as old GeoJSON does."""
    if members.get("type") != "FeatureCollection":
        report.bad.append(BadRow(file, 0, 0, "not-json", "it is no FeatureCollection", "export a FeatureCollection"))
        return None
    stated = members.get("crs")
    if stated is None:
        return Crs.WGS84
    properties = stated.get("properties") if isinstance(stated, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    crs = find_crs(name) if isinstance(name, str) else None
    if crs is None:
        mend = f"use one of {', '.join(Crs)}, or leave crs out for WGS 84"
        report.bad.append(BadRow(file, 0, 0, "unknown-crs", f"nobody knows its crs {str(name)[:60]!r}", mend))
    return crs


def _read_feature(file: str, line: int, value: object, columns: Sequence[str], crs: Crs, report: Report) -> Row | None:
    if not isinstance(value, dict) or not isinstance(value.get("properties"), dict):
        report.bad.append(BadRow(file, line, 0, "not-a-feature", "it is no Feature with properties", "correct it"))
        return None
    cells: dict[str, str] = {}
    try:
        for name, found in value["properties"].items():
            if name in columns:
                cells[name] = _read_cell(found)
        cells |= _read_position(value.get("geometry"), crs)
    except ValueError as error:
        mend = "give a Point, and texts, numbers, true or false as properties"
        report.bad.append(BadRow(file, line, 0, "not-a-feature", str(error), mend))
        return None
    return Row(file, line, list(cells.values()), {name: i for i, name in enumerate(cells)}, is_table=False)


def _read_cell(value: object) -> str:
    """The property as a cell of a table says it. Raises ValueError."""
    match value:
        case None:
            return ""
        case str():
            return guard(value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case dict() if all(isinstance(one, str | int | float) for one in value.values()):
            scalars: dict[str, Scalar] = value
            return write_attributes(scalars)
    raise ValueError("a property is neither text nor number")


def _read_position(geometry: object, crs: Crs) -> dict[str, str]:
    """Raises ValueError."""
    if geometry is None:
        return {"lon": "", "lat": "", "crs": ""}
    if not isinstance(geometry, dict) or geometry.get("type") != "Point":
        raise ValueError("its geometry is no Point")
    position = geometry.get("coordinates")
    if not isinstance(position, list) or len(position) < 2:
        raise ValueError("its Point has no coordinates")
    return {"lon": _read_cell(position[0]), "lat": _read_cell(position[1]), "crs": str(crs)}


def format_points(
    columns: Sequence[str], rows: Iterable[Sequence[str]], attributes: Sequence[Mapping[str, Any]]
) -> str:
    """The text of a FeatureCollection that `read_points` reads back as it was, a feature to a line. ``rows`` are those
    of a table with ``lon``, ``lat`` and ``crs``, and ``attributes`` what theirs are."""
    features = []
    for row, own in zip(rows, attributes, strict=True):
        cells = dict(zip(columns, row, strict=True))
        lon, lat = cells.pop("lon"), cells.pop("lat")
        del cells["crs"]
        geometry = {"type": "Point", "coordinates": [float(lon), float(lat)]} if lon else None
        properties: dict[str, object] = {n: cell for n, cell in cells.items() if cell and n != "attributes"}
        if own:
            properties["attributes"] = {name: own[name] for name in sorted(own)}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    lines = ",\n".join(json.dumps(feature, ensure_ascii=False) for feature in features)
    return f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n'
