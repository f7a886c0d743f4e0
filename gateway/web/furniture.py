"""What every template may call: words, times and addresses, in one language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from markupsafe import Markup, escape

from gateway.core.model import Due
from gateway.web import words
from gateway.web.assets import Assets
from gateway.web.languages import pick

THEMES: Final = ("auto", "light", "dark")
DENSITIES: Final = ("cosy", "dense")


def furnish(language: str, assets: Assets) -> dict[str, Any]:
    """The globals of a language's templates."""
    return {
        "static": assets.address,
        "library": assets.library,
        "has_library": assets.has,
        "SORTS": words.SORTS,
        "pick": lambda texts: pick(texts, language),
        "name_level": lambda level: words.name_level(level, language),
        "name_state": lambda state: words.name_state(state, language),
        "name_step": lambda step: words.name_step(step, language),
        "name_verb": lambda verb, is_notice=False: words.name_verb(verb, language, is_notice=is_notice),
        "name_line": lambda what: words.name_line(what, language),
        "name_role": lambda role: words.name_role(role, language),
        "lang_of": words.lang_of,
        "comma": pick(words.COMMA, language),
        "colon": pick(words.COLON, language),
        "name_outcome": lambda outcome: words.name_outcome(outcome, language),
        "is_refused": words.is_refused,
        "explain_problem": lambda code: pick(words.PROBLEMS.get(code, {"zh": ""}), language),
        "contact_role": lambda role: pick(words.CONTACT_ROLES.get(role, {"zh": role}), language),
        "clock": lambda due, now: show_clock(due, now, language),
        "moment": show_moment,
        "span": lambda ms: words.show_span(ms, language),
        "theme": "auto",
        "density": "cosy",
    }


def read_look(cookies: Mapping[str, str]) -> dict[str, str]:
    """How whoever asks wants pages to look: these cookies are the page's own and mean nothing else."""
    theme, density = cookies.get("theme", ""), cookies.get("density", "")
    return {
        "theme": theme if theme in THEMES else "auto",
        "density": density if density in DENSITIES else "cosy",
    }


def show_clock(due: Due, now: int, language: str) -> Markup:
    """What is left of a time limit; scripts count it down."""
    tone = "is-overdue" if now >= due.due_at else "is-warned" if now >= due.warn_at else ""
    return Markup('<span class="clock {}" data-due="{}" data-warn="{}" title="{}">{}</span>').format(
        tone, due.due_at, due.warn_at, words.show_full(due.due_at), words.show_left(due.due_at, now, language)
    )


def show_moment(at: int, now: int, seconds: bool = True) -> Markup:
    """A time, short, with the whole of it for programs and for whoever points at it."""
    shown = escape(words.show_moment(at, now, seconds=seconds))
    return Markup('<time datetime="{}" title="{}">{}</time>').format(words.show_iso(at), words.show_full(at), shown)
