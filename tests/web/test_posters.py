"""Sheets as they are printed: the code says the address, and whatever a place is called is text on paper."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
import segno

from gateway.runtime.help_pages import HelpPage, PageCode
from gateway.web.posters import HEIGHT, MARGIN, QR_SIZE, WIDTH, bind_posters, draw_poster

URL = "https://help.gateway.test/r/c001.c001-b03-u2.123456.1-AbCdEfGhIjKlMnOpQrStUv"
SVG = "{http://www.w3.org/2000/svg}"


def page(place_name: str = "海韵花园3号楼2单元", phone: str = "0532-5550100") -> HelpPage:
    return HelpPage(PageCode("c001", "c001-b03-u2", 123456), "page-c001-c001-b03-u2", place_name, "海韵花园", phone)


def modules(svg: str) -> list[list[int]]:
    """The QR code's modules, read back from the drawn path."""
    [path] = ET.fromstring(svg).iter(f"{SVG}path")
    runs = [tuple(map(int, run)) for run in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path.attrib["d"])]
    size = 1 + max(y for _, y, _ in runs)
    drawn = [[0] * size for _ in range(size)]
    for x, y, length in runs:
        drawn[y][x : x + length] = [1] * length
    return drawn


def test_the_code_is_that_of_the_address_with_its_quiet_edge() -> None:
    svg = draw_poster(page(), URL)
    code = segno.make(URL, error="q", micro=False)
    assert code.error == "Q"
    assert modules(svg) == [list(row) for row in code.matrix]
    [path] = ET.fromstring(svg).iter(f"{SVG}path")
    found = re.fullmatch(r"translate\(([\d.]+) ([\d.]+)\) scale\(([\d.]+)\)", path.attrib["transform"])
    assert found is not None
    x, _, module = map(float, found.groups())
    assert x - (WIDTH - QR_SIZE) / 2 == pytest.approx(4 * module, abs=0.01)
    assert module * (len(code.matrix) + 8) == pytest.approx(QR_SIZE, abs=0.01)
    assert module > 1.5, "millimetres: old telephones read it from an arm's length"


def test_a_sheet_says_where_it_hangs_what_to_do_and_whom_to_dial() -> None:
    svg = draw_poster(page(), URL)
    root = ET.fromstring(svg)
    assert (root.attrib["width"], root.attrib["height"]) == (f"{WIDTH}mm", f"{HEIGHT}mm")
    said = [text.text or "" for text in root.iter(f"{SVG}text")]
    for words in ("一键求助", "海韵花园3号楼2单元", "扫码，按住 2 秒", "120", "119", "110"):
        assert words in said
    assert any("0532-5550100" in text for text in said)
    assert any("c001-b03-u2 · 123456" in text for text in said)
    assert "也可拨打" not in draw_poster(page(phone=""), URL)


@pytest.mark.parametrize(
    "name", ["短", "海韵花园" * 12, "Building B, unit 2, beside the playground of the kindergarten " * 2]
)
def test_every_name_fits_its_sheet(name: str) -> None:
    root = ET.fromstring(draw_poster(page(name), URL))
    [text] = [text for text in root.iter(f"{SVG}text") if text.text == name]
    wide = sum(1 if ord(char) > 0x2E7F else 0.55 for char in name)
    assert wide * float(text.attrib["font-size"]) <= WIDTH - MARGIN
    assert float(text.attrib["font-size"]) <= 9


def test_a_name_is_text_on_every_sheet() -> None:
    name = '<script>alert(1)</script>&"'
    svg = draw_poster(page(name), URL)
    assert [text.text for text in ET.fromstring(svg).iter(f"{SVG}text") if text.text == name] == [name]
    bound = bind_posters([svg, svg])
    assert bound.count("<svg") == 2
    assert "<script" not in bound
    assert "@page{size:A5" in bound
