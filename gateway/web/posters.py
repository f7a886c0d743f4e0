"""Sheets with a place's QR code, to be printed and hung up: A5, as SVG, and all of them in one file for a printer."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

import segno

from gateway.runtime.help_pages import HelpPage

WIDTH: Final = 148
HEIGHT: Final = 210
"""Millimetres: A5, upright."""

QR_SIZE: Final = 92
MARGIN: Final = 12
FONT: Final = "'Noto Sans CJK SC','Source Han Sans SC','PingFang SC','Microsoft YaHei',sans-serif"
NUMBERS: Final = (("120", "急救", "Ambulance"), ("119", "火警", "Fire"), ("110", "报警", "Police"))


def draw_poster(page: HelpPage, url: str) -> str:
    """One sheet as an SVG document. A quarter of the QR code may be scratched and it is read all the same."""
    middle = WIDTH / 2
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<rect width="{WIDTH}" height="34" fill="#c62a25"/>',
        _text(middle, 17, 15, "一键求助", fill="#fff", weight="bold"),
        _text(middle, 27, 6, "Help, at once", fill="#fff"),
        _text(middle, 46, _fit(page.place_name, 9), page.place_name, weight="bold"),
        _draw_code(url, (WIDTH - QR_SIZE) / 2, 53),
        _text(middle, 154, 7, "扫码，按住 2 秒", weight="bold"),
        _text(middle, 161, 4.2, "不用登录，不用装软件 · 社区网格中心马上收到"),
        _text(middle, 167, 4, "Scan, then hold the button for two seconds. No login, no app."),
        f'<line x1="{MARGIN}" y1="173" x2="{WIDTH - MARGIN}" y2="173" stroke="#c2ccd6" stroke-width="0.4"/>',
    ]
    numbers = [(page.phone, "小区服务电话", "Service")] if page.phone else []
    if numbers:
        parts.append(_text(middle, 183, 7, f"也可拨打 Or call {page.phone}", weight="bold"))
    for index, (number, zh, en) in enumerate(NUMBERS):
        parts.append(_text(middle + (index - 1) * 40, 193 if numbers else 187, 7, number, weight="bold"))
        parts.append(_text(middle + (index - 1) * 40, 198 if numbers else 192, 3.4, f"{zh} {en}"))
    code = f"{page.community_name} · {page.code.place} · {page.code.issue}"
    parts.append(_text(middle, 206, min(3, _fit(code, 3)), code, fill="#5d6c7d"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}mm" height="{HEIGHT}mm" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{FONT}">' + "".join(parts) + "</svg>\n"
    )


def bind_posters(posters: Iterable[str]) -> str:
    """All sheets in one HTML file, a page each: any browser prints it, or saves it as PDF."""
    style = "@page{size:A5;margin:0}body{margin:0}svg{display:block;page-break-after:always;break-after:page}"
    head = (
        f'<!doctype html>\n<html lang="zh-CN"><head><meta charset="utf-8"><title>一键求助</title><style>{style}</style>'
    )
    return head + "</head><body>\n" + "".join(posters) + "</body></html>\n"


def _draw_code(url: str, x: float, y: float) -> str:
    """The QR code as one path, with the four modules of quiet around it that readers want."""
    quiet = 4
    rows = [bytes(row) for row in segno.make(url, error="q", micro=False).matrix]
    module = QR_SIZE / (len(rows) + 2 * quiet)
    drawn: list[str] = []
    for line, row in enumerate(rows):
        start = None
        for column, is_dark in enumerate((*row, 0)):
            if is_dark and start is None:
                start = column
            elif not is_dark and start is not None:
                drawn.append(f"M{start} {line}h{column - start}v1h-{column - start}z")
                start = None
    place = f"translate({x + quiet * module:.3f} {y + quiet * module:.3f}) scale({module:.5f})"
    return f'<path transform="{place}" fill="#000" shape-rendering="crispEdges" d="{"".join(drawn)}"/>'


def _text(x: float, y: float, size: float, text: str, *, fill: str = "#17212b", weight: str = "normal") -> str:
    where = f'x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" fill="{fill}" text-anchor="middle"'
    return f"<text {where}>{escape(text)}</text>"


def _fit(text: str, size: float) -> float:
    """The size at which the text is as wide as the sheet lets it be: a Chinese character is as wide as it is high."""
    wide = sum(1.0 if ord(char) > 0x2E7F else 0.58 for char in text)
    return min(size, (WIDTH - 2 * MARGIN) / wide) if wide else size
