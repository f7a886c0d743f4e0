"""Pages from templates: in the language that was chosen, with what every page needs, and nothing unescaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from gateway.core.worktime import SHANGHAI_MS
from gateway.runtime.access import PERMISSION_TITLES, ROLE_TITLES, Permission
from gateway.web.access import Gate, Visit
from gateway.web.assets import Assets
from gateway.web.furniture import furnish, read_look
from gateway.web.languages import LANGUAGES, choose_language, load_translations, pick

TEMPLATES: Final = Path(__file__).parent / "templates"


def show_time(at: int) -> str:
    """A time in Asia/Shanghai, to the second."""
    return datetime.fromtimestamp((at + SHANGHAI_MS) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Pages:
    """The templates, one environment for each language. A name that a template does not know is a fault, not a gap."""

    def __init__(self) -> None:
        assets = Assets()
        self._environments: Final = {language: _open(language, assets) for language in LANGUAGES}

    def respond(self, request: Request, visit: Visit, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The page. It knows the ``visit`` (`actor`, `csrf`), the ``language``, and the ``path`` that was asked for."""
        language = choose_language(request)
        known: Mapping[str, Any] = {
            "visit": visit,
            "actor": visit.actor,
            "csrf": visit.csrf,
            "language": language,
            "languages": LANGUAGES,
            "path": request.url.path,
            **read_look(request.cookies),
        }
        return HTMLResponse(self.fragment(language, template, **{**known, **values}), status)

    def fragment(self, language: str, template: str, /, **values: Any) -> str:
        """A part of a page."""
        return self._environments[language].get_template(template).render({"language": language, **values})

    def respond_with_cookie(
        self, request: Request, gate: Gate, visit: Visit, template: str, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page for whoever has not signed in: its form is proved by a cookie all the same."""
        visit, secret = gate.meet(request, visit)
        response = self.respond(request, visit, template, status, **values)
        if secret:
            gate.give_cookie(response, secret)
        return response


def _open(language: str, assets: Assets) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    translations = load_translations(language)
    # Added by the extension, which types do not know of.
    environment.install_gettext_callables(  # type: ignore[attr-defined]
        translations.gettext, translations.ngettext, newstyle=True
    )
    environment.globals |= furnish(language, assets)
    environment.globals |= {
        "Permission": Permission,
        "show_time": show_time,
        "name_role": lambda role: pick(ROLE_TITLES.get(role, {"zh": str(role)}), language),
        "name_permission": lambda permission: pick(PERMISSION_TITLES[permission], language),
    }
    return environment
