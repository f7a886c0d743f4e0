"""What a page says in the other language. Names, and what people wrote, are data: Chinese on every page. A text that is
unavoidably in the other language says so by its own ``lang``."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from playwright.async_api import Page, expect

READ: Final = """() => {
  const said = [];
  const isOurs = (home) => home.closest('[lang]:not(html), code, pre, textarea, script, style, noscript') === null;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text !== null; text = texts.nextNode()) {
    if (isOurs(text.parentElement)) said.push(text.data.trim());
  }
  for (const name of ['title', 'aria-label', 'placeholder', 'alt', 'data-label']) {
    for (const home of document.querySelectorAll(`[${name}]`)) {
      if (isOurs(home)) said.push(home.getAttribute(name).trim());
    }
  }
  return [...new Set([document.title, ...said])];
}"""
"""All that is shown or read out, each once; codes and files stand as they are."""

HAN: Final = re.compile(r"[\u3001-\u303f\u3400-\u9fff\uff01-\uff5e]")
"""With its punctuation."""

ENGLISH: Final = re.compile(r"[A-Za-z]{2,}(?:[,;:]? +[A-Za-z]{2,})+")
"""Two words and more in a row: one alone may be a name, a unit or a code."""


async def find_foreign(tab: Page, language: str, data: Collection[str]) -> list[str]:
    """The texts of a page, with all that is folded, that are not in its ``language``. ``data`` are names and whatever
    people wrote."""
    await tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    await tab.wait_for_timeout(50)  # what is unfolded asks for its part only then
    await expect(tab.locator(".htmx-request")).to_have_count(0)
    said: list[str] = await tab.evaluate(READ)
    if language == "zh":
        return [text for text in said if ENGLISH.search(_strip(text, data))]
    return [text for text in said if HAN.search(_strip(text, data))]


def _strip(text: str, data: Collection[str]) -> str:
    for name in sorted(data, key=len, reverse=True):
        text = text.replace(name, "…")
    return text
