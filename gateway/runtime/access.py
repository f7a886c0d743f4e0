"""Who may do what, and where: permissions, the table role → permissions, and the actor with a scope. Pure.

What is not in the table is refused, and an actor without a scope sees no community. The three officers (三员:
administrator, security, auditor) share no duty: one makes accounts, the second says what they may do, the third reads
what both did; and each account has one role. docs/security.md shows the table (`python -m gateway permissions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from gateway.core.model import Role, Text


class Permission(StrEnum):
    """One thing that one may do. Where a place is concerned, the actor's scope must cover it, too."""

    ACCOUNT_OWN = "account.own"
    TOKENS_OWN = "tokens.own"
    INCIDENTS_SEE = "incidents.see"
    INCIDENTS_ACT = "incidents.act"
    WALL_SEE = "wall.see"
    COMMANDS_GIVE = "commands.give"
    CAMERAS_SEE = "cameras.see"
    CONTACTS_SEE = "contacts.see"
    CONTACTS_CHANGE = "contacts.change"
    PLATES_REVEAL = "plates.reveal"
    REGISTRY_SEE = "registry.see"
    REGISTRY_CHANGE = "registry.change"
    SILENCES_CHANGE = "silences.change"
    RULES_SEE = "rules.see"
    RULES_OVERRIDE = "rules.override"
    APPRAISAL_SEE = "appraisal.see"
    SCENARIOS_PLAY = "scenarios.play"
    SYSTEM_SEE = "system.see"
    SYSTEM_CHANGE = "system.change"
    WEBHOOKS_CHANGE = "webhooks.change"
    PRODUCTS_CHANGE = "products.change"
    ACCOUNTS_SEE = "accounts.see"
    ACCOUNTS_CHANGE = "accounts.change"
    ACCOUNTS_GRANT = "accounts.grant"
    AUDIT_SEE = "audit.see"


PERMISSION_TITLES: Final[dict[Permission, Text]] = {
    Permission.ACCOUNT_OWN: {"zh": "管理本人账号", "en": "one's own password, second factor and sessions"},
    Permission.TOKENS_OWN: {"zh": "管理本人接口令牌", "en": "one's own API tokens"},
    Permission.INCIDENTS_SEE: {"zh": "查看事件", "en": "see incidents"},
    Permission.INCIDENTS_ACT: {"zh": "处置事件", "en": "act on incidents, as far as the table of moves lets the role"},
    Permission.WALL_SEE: {"zh": "查看大屏", "en": "see the wall screen of the command centre"},
    Permission.COMMANDS_GIVE: {"zh": "下发设备指令", "en": "broadcast, shut a valve, open a gate"},
    Permission.CAMERAS_SEE: {"zh": "调看摄像机", "en": "see how cameras are reached, for video dispatch"},
    Permission.CONTACTS_SEE: {"zh": "查看联系人", "en": "see whom to call, with numbers"},
    Permission.CONTACTS_CHANGE: {"zh": "维护联系人", "en": "change whom to call"},
    Permission.PLATES_REVEAL: {"zh": "查看完整车牌", "en": "read a plate in clear, with a stated reason"},
    Permission.REGISTRY_SEE: {"zh": "查看设备与场所", "en": "see devices and places"},
    Permission.REGISTRY_CHANGE: {"zh": "登记与维护设备", "en": "register, move, replace and retire devices"},
    Permission.SILENCES_CHANGE: {"zh": "设置免打扰与检修", "en": "set silences and maintenance windows"},
    Permission.RULES_SEE: {"zh": "查看规则", "en": "see rules and what they found"},
    Permission.RULES_OVERRIDE: {"zh": "启停规则", "en": "lower a rule's status or take that back, with a reason"},
    Permission.APPRAISAL_SEE: {"zh": "查看考核评价", "en": "see the appraisal of grids and bodies"},
    Permission.SCENARIOS_PLAY: {"zh": "运行模拟场景、试算规则", "en": "play scenarios, inject faults, try draft rules"},
    Permission.SYSTEM_SEE: {"zh": "查看系统运行", "en": "see how the gateway runs"},
    Permission.SYSTEM_CHANGE: {"zh": "系统运行维护", "en": "send dead letters again, change how the gateway runs"},
    Permission.WEBHOOKS_CHANGE: {"zh": "维护事件推送", "en": "say who outside is told of incidents"},
    Permission.PRODUCTS_CHANGE: {"zh": "维护型号密钥", "en": "make, renew and switch off the secrets of models"},
    Permission.ACCOUNTS_SEE: {"zh": "查看账号", "en": "see accounts"},
    Permission.ACCOUNTS_CHANGE: {"zh": "建立与停用账号", "en": "make and disable accounts, reset their passwords"},
    Permission.ACCOUNTS_GRANT: {"zh": "授权", "en": "grant roles and scopes, reset second factors"},
    Permission.AUDIT_SEE: {"zh": "查看审计记录", "en": "read, check and export the audit log"},
}

ROLE_TITLES: Final[dict[Role, Text]] = {
    Role.ADMINISTRATOR: {"zh": "系统管理员", "en": "administrator"},
    Role.SECURITY: {"zh": "安全管理员", "en": "security administrator"},
    Role.AUDITOR: {"zh": "审计管理员", "en": "auditor"},
    Role.DISPATCHER: {"zh": "调度员", "en": "dispatcher"},
    Role.GRID_WORKER: {"zh": "网格员", "en": "grid worker"},
    Role.PROPERTY_MANAGER: {"zh": "物业管理员", "en": "property manager"},
    Role.TESTER: {"zh": "测试员", "en": "tester"},
    Role.PLATFORM: {"zh": "平台（机器账号）", "en": "platform (a machine)"},
    Role.WALL: {"zh": "大屏（只看）", "en": "wall screen (watches only)"},
}
"""The roles that an account may have. Residents need none, and the gateway acts by itself."""

_P = Permission
PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.ADMINISTRATOR: frozenset(
        {
            _P.ACCOUNT_OWN,
            _P.TOKENS_OWN,
            _P.ACCOUNTS_SEE,
            _P.ACCOUNTS_CHANGE,
            _P.REGISTRY_SEE,
            _P.RULES_SEE,
            _P.RULES_OVERRIDE,
            _P.SYSTEM_SEE,
            _P.SYSTEM_CHANGE,
            _P.WEBHOOKS_CHANGE,
            _P.PRODUCTS_CHANGE,
        }
    ),
    Role.SECURITY: frozenset({_P.ACCOUNT_OWN, _P.ACCOUNTS_SEE, _P.ACCOUNTS_GRANT}),
    Role.AUDITOR: frozenset({_P.ACCOUNT_OWN, _P.TOKENS_OWN, _P.AUDIT_SEE}),
    Role.DISPATCHER: frozenset(
        {
            _P.ACCOUNT_OWN,
            _P.TOKENS_OWN,
            _P.INCIDENTS_SEE,
            _P.INCIDENTS_ACT,
            _P.WALL_SEE,
            _P.COMMANDS_GIVE,
            _P.CAMERAS_SEE,
            _P.CONTACTS_SEE,
            _P.PLATES_REVEAL,
            _P.REGISTRY_SEE,
            _P.SILENCES_CHANGE,
            _P.RULES_SEE,
            _P.APPRAISAL_SEE,
            _P.SYSTEM_SEE,
        }
    ),
    Role.GRID_WORKER: frozenset(
        {
            _P.ACCOUNT_OWN,
            _P.INCIDENTS_SEE,
            _P.INCIDENTS_ACT,
            _P.CONTACTS_SEE,
            _P.REGISTRY_SEE,
            _P.APPRAISAL_SEE,
        }
    ),
    Role.PROPERTY_MANAGER: frozenset(
        {
            _P.ACCOUNT_OWN,
            _P.TOKENS_OWN,
            _P.INCIDENTS_SEE,
            _P.INCIDENTS_ACT,
            _P.CAMERAS_SEE,
            _P.CONTACTS_SEE,
            _P.CONTACTS_CHANGE,
            _P.REGISTRY_SEE,
            _P.REGISTRY_CHANGE,
            _P.SILENCES_CHANGE,
        }
    ),
    Role.TESTER: frozenset(
        {
            _P.ACCOUNT_OWN,
            _P.TOKENS_OWN,
            _P.INCIDENTS_SEE,
            _P.REGISTRY_SEE,
            _P.RULES_SEE,
            _P.SCENARIOS_PLAY,
            _P.SYSTEM_SEE,
        }
    ),
    Role.PLATFORM: frozenset({_P.INCIDENTS_SEE, _P.INCIDENTS_ACT, _P.REGISTRY_SEE, _P.APPRAISAL_SEE}),
    Role.WALL: frozenset({_P.ACCOUNT_OWN, _P.WALL_SEE}),
}
"""The whole table: a role that is not in it may do nothing."""

NEVER_BY_TOKEN: Final = frozenset({_P.ACCOUNT_OWN, _P.TOKENS_OWN, _P.ACCOUNTS_CHANGE, _P.ACCOUNTS_GRANT})
"""What takes a person who has signed in: a token makes no tokens and no accounts."""

SCREENS: Final = frozenset({Role.WALL})
"""Roles of screens that nobody touches for weeks: their sessions have no idle end, and a fixed one far off. So they may
look and do nothing."""

MACHINES: Final = frozenset({Role.PLATFORM})
"""Roles of programs: they have tokens and never sign in."""


class Actor(Struct, frozen=True, omit_defaults=True):
    """Whoever acts now: an account with its role and scope, as they stand at this request.

    ``id`` is the account's, ``name`` the one that it signs in with, ``title`` the person's. ``grids`` are codes of the
    grid: each stands for itself with all below it, the district's own code for everything. ``limits``, for a token, are
    the only permissions that it carries."""

    id: str
    name: str
    role: Role
    grids: tuple[str, ...] = ()
    communities: tuple[str, ...] = ()
    language: str = "zh"
    title: str = ""
    limits: frozenset[Permission] | None = None

    @property
    def permissions(self) -> frozenset[Permission]:
        """All that it may do, inside its scope."""
        held = PERMISSIONS.get(self.role, frozenset())
        return held if self.limits is None else held & (self.limits - NEVER_BY_TOKEN)

    def may(self, permission: Permission) -> bool:
        """Whether it may do this at all; where, says `covers`."""
        return permission in self.permissions

    def covers(self, community: str, chain: Sequence[str]) -> bool:
        """Whether its scope takes in what lies in ``community`` with ``chain``: the grid's codes from the district down
        (`Incident.chain`, or `Community.grids` for the community as a whole)."""
        return community in self.communities or any(grid in chain for grid in self.grids)

    def acting_grid(self, community: str, chain: Sequence[str]) -> str | None:
        """What an `OperatorAction` of its names as ``grid``: "" for one that has the whole community, otherwise the
        highest of its grids that lies in ``chain``; None when its scope does not take it in."""
        if community in self.communities:
            return ""
        return next((grid for grid in chain if grid in self.grids), None)


def roles_with(permission: Permission) -> list[Role]:
    """The roles that have a permission, in the table's order."""
    return [role for role, held in PERMISSIONS.items() if permission in held]
