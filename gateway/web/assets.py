"""Styles, scripts and the browser's libraries: served from our own folder, named by their content, kept for a year."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC: Final = Path(__file__).parent / "static"
LIBRARIES: Final = {
    "htmx": "vendor/htmx.org/htmx.min.js",
    "leaflet": "vendor/leaflet/leaflet.js",
    "markercluster": "vendor/leaflet.markercluster/leaflet.markercluster.js",
    "echarts": "vendor/echarts/echarts.common.min.js",
    "zxing": "vendor/@zxing/library/index.min.js",
}
"""What tools/browser.py fetches. Pages work without: forms load whole pages, the map is a list, codes are typed."""


class Assets:
    """Addresses of files below ``static/``. What is not there is a fault, except for the libraries (`has`)."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder
        self._addresses: dict[str, str] = {}

    def address(self, path: str) -> str:
        """The file's address, with a digest of its content. Raises FileNotFoundError."""
        known = self._addresses.get(path)
        if known is None:
            digest = hashlib.blake2b((self._folder / path).read_bytes(), digest_size=6).hexdigest()
            known = self._addresses[path] = f"/static/{path}?v={digest}"
        return known

    def has(self, library: str) -> bool:
        """Whether a library was fetched."""
        return (self._folder / LIBRARIES[library]).exists()

    def library(self, library: str) -> str:
        """The address of a library's script."""
        return self.address(LIBRARIES[library])


class StaticPages(StaticFiles):
    """The files. One that is asked for with its digest never changes."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, and for how long a browser may keep it."""
        response = await super().get_response(path, scope)
        is_named = scope.get("query_string", b"").startswith(b"v=")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_named else "no-cache"
        return response
