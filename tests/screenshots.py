"""Pictures of the console's pages for the docs: ``python -m tests.screenshots [FOLDER [NAME …]]``.

A few days of a district pass on a clock that is moved by hand, then Chromium looks at what they left: every page of
`tests.console_pages.PAGES`. The seed is fixed and all names are generated. With NAMEs, only those pictures are made.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright
from playwright.async_api import Page as Tab

from tests.browser.test_tester import choose, enter, open_site, play
from tests.console_pages import PAGES, Page, Scene, Shot, set_scene
from tests.servers import ROOT

COMMUNITIES: Final = 24
DAYS: Final = 4
CAUSES: Final = 110
COLOURS: Final = 256


async def main(folder: Path, wanted: Sequence[str] = ()) -> None:
    """Lets the days pass, and pictures."""
    stand = [shot for page in PAGES if page.has_stand for shot in page.shots if not wanted or shot.name in wanted]
    if stand:
        await _show_stand(folder)
    if wanted and len(stand) == len(wanted):
        return
    with tempfile.TemporaryDirectory(prefix="scg-pictures-") as scratch:
        scene = await set_scene(Path(scratch), COMMUNITIES, DAYS, CAUSES)
        try:
            async with async_playwright() as playwright:
                program = shutil.which("chromium") or shutil.which("google-chrome")
                browser = await playwright.chromium.launch(
                    executable_path=program, args=["--no-sandbox", "--disable-gpu"]
                )
                desk = await browser.new_page()
                for page in PAGES:
                    for shot in () if page.has_stand else page.shots:
                        if not wanted or shot.name in wanted:
                            await _take(browser, desk, scene, page, shot, folder)
                await browser.close()
        finally:
            await scene.room.__aexit__()


async def _show_stand(folder: Path) -> None:
    """The test stand before and after a run, with all its processes. Their clock is not moved by hand."""
    with tempfile.TemporaryDirectory(prefix="scg-stand-") as scratch:
        async with open_site(Path(scratch)) as site, async_playwright() as playwright:
            program = shutil.which("chromium") or shutil.which("google-chrome")
            browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
            desk = await browser.new_page()
            tab = await browser.new_page(base_url=site.url, viewport={"width": 1280, "height": 900}, locale="zh-CN")
            await enter(tab, site.tester)
            await tab.goto("/tester")
            await choose(tab)
            await tab.evaluate("window.scrollTo(0, 0)")
            await _keep(tab, desk, folder / "stand.png")
            await play(tab)
            await _keep(tab, desk, folder / "stand-run.png")
            await browser.close()


async def _keep(tab: Tab, desk: Tab, path: Path) -> None:
    await tab.wait_for_timeout(700)
    size = await asyncio.to_thread(path.write_bytes, await shrink(desk, await tab.screenshot()))
    print(path, f"{size // 1000} kB")


async def _take(browser: Browser, desk: Tab, scene: Scene, page: Page, shot: Shot, folder: Path) -> None:
    context = await browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme="dark" if shot.theme == "dark" else "light",
        reduced_motion="reduce",
        locale="zh-CN" if shot.language == "zh" else "en-GB",
    )
    cookies = {"language": shot.language, "theme": shot.theme, "density": shot.density}
    if page.who:
        cookies["scg"] = scene.secrets[page.who]
    await context.add_cookies(
        [{"name": name, "value": value, "url": scene.room.url} for name, value in cookies.items()]
    )
    tab = await context.new_page()
    tab.set_default_timeout(180_000)  # the first look at the rules runs all their tests
    await tab.goto(scene.url(page, shot))
    if await tab.query_selector("#link-state, #wall-link") is not None:
        await tab.wait_for_selector("#link-state.is-live, #wall-link.is-live")
    if shot.prepare is not None:
        await shot.prepare(tab)
    await _keep(tab, desk, folder / f"{shot.name}.png")
    await context.close()


QUANTISE: Final = """
async ([picture, most]) => {
  const RARE = 64;  // of the palette's colours: those that would change the most without them, as a small green dot
  const bytes = Uint8Array.from(atob(picture), (char) => char.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height).data;
  const counts = new Map();
  for (let at = 0; at < pixels.length; at += 4) {
    const code = (pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2];
    counts.set(code, (counts.get(code) || 0) + 1);
  }
  const distance = (one, other) => {
    const red = (one >> 16) - (other >> 16);
    const green = ((one >> 8) & 255) - ((other >> 8) & 255);
    const blue = (one & 255) - (other & 255);
    return red * red + green * green + blue * blue;
  };
  const palette = [...counts].sort((one, other) => other[1] - one[1]).slice(0, most - RARE).map(([code]) => code);
  const far = new Map();
  for (const code of counts.keys()) far.set(code, Math.min(...palette.map((known) => distance(code, known))));
  while (palette.length < Math.min(most, counts.size)) {
    let [best, worst] = [-1, -1];
    for (const [code, gap] of far) {
      const harm = gap * counts.get(code);
      if (harm > worst) [best, worst] = [code, harm];
    }
    palette.push(best);
    for (const code of far.keys()) far.set(code, Math.min(far.get(code), distance(code, best)));
  }
  const nearest = new Map();
  for (const code of counts.keys()) {
    let best = 0;
    let least = Infinity;
    palette.forEach((known, place) => {
      const gap = distance(code, known);
      if (gap < least) [best, least] = [place, gap];
    });
    nearest.set(code, best);
  }
  const rows = new Uint8Array((image.width + 1) * image.height);  // each line begins with its filter: none
  let to = 0;
  for (let at = 0, column = 0; at < pixels.length; at += 4) {
    if (column++ % image.width === 0) to++;
    rows[to++] = nearest.get((pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2]);
  }
  let text = "";
  for (let at = 0; at < rows.length; at += 32768) text += String.fromCharCode(...rows.subarray(at, at + 32768));
  return { width: image.width, height: image.height, palette, rows: btoa(text) };
}
"""
"""The browser counts a picture's colours: faster than we do, and no library more."""


async def shrink(desk: Tab, picture: bytes) -> bytes:
    """A PNG with a palette of the most frequent colours, and of those that would be missed; all others become the
    nearest of them. A page has a few dozen colours and the many between a letter and its ground, so that nobody sees
    the difference. ``desk`` is any page."""
    counted = await desk.evaluate(QUANTISE, [base64.b64encode(picture).decode(), COLOURS])
    head = struct.pack(">IIBBBBB", counted["width"], counted["height"], 8, 3, 0, 0, 0)
    palette = b"".join(code.to_bytes(3, "big") for code in counted["palette"])
    body = zlib.compress(base64.b64decode(counted["rows"]), 9)
    parts = [(b"IHDR", head), (b"PLTE", palette), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "console"
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(target, sys.argv[2:]))
