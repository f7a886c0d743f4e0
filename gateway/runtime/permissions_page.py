"""The table of roles and permissions, for docs/security.md (``python -m gateway permissions``)."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.runtime.access import NEVER_BY_TOKEN, PERMISSION_TITLES, PERMISSIONS, ROLE_TITLES, Permission


def render_permissions() -> str:
    """A row for each permission, a column for each role."""
    return "\n".join(_table()) + "\n"


def _table() -> Iterator[str]:
    yield (
        "| permission | " + " | ".join(f"{title['zh']} {title['en']}" for title in ROLE_TITLES.values()) + " | token |"
    )
    yield "|---|" + "---|" * (len(ROLE_TITLES) + 1)
    for permission in Permission:
        title = PERMISSION_TITLES[permission]
        held = ["●" if permission in PERMISSIONS[role] else "" for role in ROLE_TITLES]
        held.append("" if permission in NEVER_BY_TOKEN else "●")
        yield f"| `{permission}` {title['zh']}: {title['en']} | " + " | ".join(held) + " |"
