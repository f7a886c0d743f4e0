"""What the pages call things, and how they write times and spans: Chinese and English, in Asia/Shanghai."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from gateway.core.model import DeviceState, GridLevel, Level, Role, Sort, Text
from gateway.core.moves import MOVES, NOTICE_MOVES, STATE_TITLES
from gateway.core.worktime import SHANGHAI_MS
from gateway.web.languages import pick

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000

LEVELS: Final[Mapping[str, Text]] = {
    Level.CRITICAL: {"zh": "特急", "en": "Critical"},
    Level.URGENT: {"zh": "紧急", "en": "Urgent"},
    Level.NORMAL: {"zh": "一般", "en": "Normal"},
}
"""The most pressing first, as lists of them stand."""

SORTS: Final[Mapping[str, Text]] = {
    Sort.INCIDENT: {"zh": "治理事件", "en": "Incidents"},
    Sort.NOTICE: {"zh": "维护通知", "en": "Maintenance notices"},
}

ROLES: Final[Mapping[str, Text]] = {
    Role.ADMINISTRATOR: {"zh": "管理员", "en": "administrator"},
    Role.AUDITOR: {"zh": "审计员", "en": "auditor"},
    Role.DISPATCHER: {"zh": "调度员", "en": "dispatcher"},
    Role.GRID_WORKER: {"zh": "网格员", "en": "grid worker"},
    Role.PROPERTY_MANAGER: {"zh": "物业", "en": "property manager"},
    Role.TESTER: {"zh": "测试员", "en": "tester"},
    Role.PLATFORM: {"zh": "平台", "en": "platform"},
    Role.RESIDENT: {"zh": "居民", "en": "resident"},
    Role.GATEWAY: {"zh": "网关", "en": "gateway"},
}

GRID_LEVELS: Final[Mapping[str, Text]] = {
    GridLevel.DISTRICT: {"zh": "区", "en": "District"},
    GridLevel.TOWN: {"zh": "镇街", "en": "Town"},
    GridLevel.DEPARTMENT: {"zh": "部门", "en": "Department"},
    GridLevel.CENTRE: {"zh": "社区网格中心", "en": "Grid centre"},
    GridLevel.STATION: {"zh": "网格工作站", "en": "Workstation"},
    GridLevel.BASE: {"zh": "基础网格", "en": "Base grid"},
    GridLevel.SPECIAL: {"zh": "专属网格", "en": "Department grid"},
}

DEVICE_STATES: Final[Mapping[str, Text]] = {
    DeviceState.ACTIVE: {"zh": "在用", "en": "in use"},
    DeviceState.COMMISSIONING: {"zh": "调试", "en": "commissioning"},
    DeviceState.DRILL: {"zh": "演练", "en": "drill"},
    DeviceState.MAINTENANCE: {"zh": "检修", "en": "maintenance"},
    DeviceState.RETIRED: {"zh": "停用", "en": "retired"},
}

LINES: Final[Mapping[str, Text]] = {
    "opened": {"zh": "发现", "en": "opened"},
    "joined": {"zh": "再次报警", "en": "signalled again"},
    "raised": {"zh": "升级", "en": "level raised"},
    "cleared": {"zh": "信号恢复", "en": "signal cleared"},
    "due": {"zh": "计时", "en": "clock set"},
    "warn": {"zh": "即将超时", "en": "running late"},
    "overdue": {"zh": "超时", "en": "overdue"},
    "remind": {"zh": "催办", "en": "reminder"},
    "escalate": {"zh": "上报上级", "en": "escalated"},
    "ring": {"zh": "电话振铃", "en": "duty phone rung"},
    "contact": {"zh": "联系核实", "en": "contact called"},
    "told": {"zh": "通知结果", "en": "notification"},
    "commanded": {"zh": "下发指令", "en": "command sent"},
    "answered": {"zh": "指令回执", "en": "command answered"},
    "took_in": {"zh": "并入", "en": "took in"},
    "swallowed": {"zh": "归并信号", "en": "took in signals"},
    "flapping": {"zh": "反复抖动", "en": "flapping"},
    "moved": {"zh": "网格变更", "en": "grid changed"},
}
"""Lines of a timeline that are no move."""

CONTACT_ROLES: Final[Mapping[str, Text]] = {
    "family": {"zh": "家属", "en": "family"},
    "property": {"zh": "物业", "en": "property manager"},
    "duty": {"zh": "值班", "en": "on duty"},
    "body": {"zh": "责任单位", "en": "responsible body"},
}

OUTCOMES: Final[Mapping[str, Text]] = {
    "done": {"zh": "完成", "en": "done"},
    "repeat": {"zh": "重复提交，未再办理", "en": "sent again, not done twice"},
    "asked": {"zh": "已受理", "en": "asked for"},
    "no answer": {"zh": "网关未应答", "en": "no answer"},
}
"""What came of an act in the audit log; others stand as they were written."""

COMMA: Final[Text] = {"zh": "、", "en": ", "}
"""Between the items of a list."""

COLON: Final[Text] = {"zh": "：", "en": ": "}

REFUSED: Final = {"zh": "已拒绝", "en": "refused"}


def lang_of(text: str) -> str:
    """The language of a text of ours that stands in one language alone, for a screen reader."""
    return "zh" if any("\u4e00" <= char <= "\u9fff" for char in text) else "en"


def name_outcome(outcome: str, language: str) -> str:
    """An outcome of the audit log in words; behind a refusal stands its stable code."""
    head, _, code = outcome.partition(": ")
    if head == "refused":
        return f"{pick(REFUSED, language)}（{code}）" if language == "zh" else f"refused: {code}"
    return pick(OUTCOMES.get(outcome, {"zh": outcome, "en": outcome}), language)


def is_refused(outcome: str) -> bool:
    """Whether it says that something was not done."""
    return outcome not in ("done", "repeat", "asked")


PROBLEMS: Final[Mapping[str, Text]] = {
    "unknown": {"zh": "内容不存在，或不在您的管辖范围内。", "en": "It is not there, or not in your scope."},
    "no-such-page": {"zh": "网址写错了，或这个页面已经不用。", "en": "The address is wrong, or no longer in use."},
    "no-such-method": {"zh": "这个网址不能直接打开，请从页面上操作。", "en": "This address is used from a page alone."},
    "not-allowed": {
        "zh": "当前角色不能打开此页或办理此事；如需要，请联系安全管理员授权。",
        "en": "Your role may not do this; the security administrator grants it.",
    },
    "cross-site": {
        "zh": "这次提交不是从本系统的页面发出的，没有办理。",
        "en": "This did not come from a page of ours; nothing was done.",
    },
    "too-often": {"zh": "稍等片刻再试，没有办理。", "en": "Wait a moment; nothing was done."},
    "too-large": {"zh": "提交的内容太大，没有办理。", "en": "What was sent is too large; nothing was done."},
    "not-valid": {"zh": "有一项填写不合要求，没有办理。技术说明：", "en": "One field is not valid; nothing was done."},
    "gateway-away": {
        "zh": "网关没有应答，没有办理；再提交一次不会重复。",
        "en": "The gateway does not answer; what is sent again happens once.",
    },
    "ledger-down": {"zh": "账本现在不可读写，没有办理。", "en": "The ledger cannot be used now; nothing was done."},
    "stand-away": {"zh": "试验台没有应答。", "en": "The test stand does not answer."},
    "busy": {"zh": "同时登录的人太多，请稍后再试。", "en": "Too many sign in at once; try again."},
    "token-in-url": {
        "zh": "令牌不能写在网址里：它已被日志记下，请作废并重新生成。",
        "en": "A token never stands in an address: logs know it now; make a new one.",
    },
    "refused": {"zh": "网关没有接受。", "en": "The gateway has refused it."},
    "key-used": {"zh": "这张表单已用于另一件事，请刷新后重填。", "en": "This form was used already; load it again."},
    "fault": {"zh": "系统内部出错，已记入日志；没有办理的请再试。", "en": "A fault of ours, which is in the log."},
}
"""What stands on the page of an error, by its stable code; programs read the English detail."""

_STEP_ONLY: Final[Mapping[str, Text]] = {
    "resolve": {"zh": "处置反馈", "en": "resolve"},
    "resume": {"zh": "恢复办理", "en": "resume"},
}


def name_level(level: str, language: str) -> str:
    """特急, 紧急, 一般."""
    return pick(LEVELS.get(level, {"zh": level}), language)


def name_state(state: str, language: str) -> str:
    """An incident's state in words."""
    return pick(_STATES.get(state, {"zh": state}), language)


def name_role(role: str, language: str) -> str:
    """Who acts, in words."""
    return pick(ROLES.get(role, {"zh": role}), language)


def name_step(step: str, language: str) -> str:
    """What is awaited, in words."""
    return pick(_STEP_ONLY.get(step) or _VERBS.get(step, {"zh": step}), language)


def name_verb(verb: str, language: str, *, is_notice: bool = False) -> str:
    """A move in words; some are called otherwise where it is a maintenance notice that moves."""
    titles = _NOTICE_VERBS if is_notice and verb in _NOTICE_VERBS else _VERBS
    return pick(titles.get(verb, {"zh": verb}), language)


def name_line(what: str, language: str) -> str:
    """What a line of a timeline tells: a move, or what the gateway noticed."""
    return pick(LINES.get(what) or _VERBS.get(what, {"zh": what}), language)


_STATES: Final[Mapping[str, Text]] = {str(state): title for state, title in STATE_TITLES.items()}
_VERBS: Final[Mapping[str, Text]] = {move.verb: move.title for move in (*NOTICE_MOVES, *MOVES)}
_NOTICE_VERBS: Final[Mapping[str, Text]] = {move.verb: move.title for move in NOTICE_MOVES}


def show_moment(at: int, now: int, *, seconds: bool = True) -> str:
    """A time in Asia/Shanghai, as short as it may be: today's without its date, this year's without its year."""
    local, today = _local(at), _local(now)
    clock = local.strftime("%H:%M:%S" if seconds else "%H:%M")
    if local.date() == today.date():
        return clock
    return local.strftime("%m-%d " if local.year == today.year else "%Y-%m-%d ") + clock


def show_full(at: int) -> str:
    """A whole time in Asia/Shanghai."""
    return _local(at).strftime("%Y-%m-%d %H:%M:%S")


def show_iso(at: int) -> str:
    """For programs: RFC 3339 with the zone of Asia/Shanghai."""
    return f"{_local(at).strftime('%Y-%m-%dT%H:%M:%S')}.{at % 1000:03d}+08:00"


def show_input(at: int) -> str:
    """As a field of a form for local times has it."""
    return _local(at).strftime("%Y-%m-%dT%H:%M")


def read_input(text: str) -> int | None:
    """What such a field was filled with, as a time in Asia/Shanghai; None when it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return round(moment.replace(tzinfo=UTC).timestamp() * 1000) - SHANGHAI_MS
    return round(moment.timestamp() * 1000)


def _local(at: int) -> datetime:
    return datetime.fromtimestamp((at + SHANGHAI_MS) / 1000, UTC)


def show_span(ms: int, language: str) -> str:
    """A span in its two largest units: 3分12秒, 2小时05分, 4天3小时; 3 min 12 s, 2 h 05 min, 4 d 3 h."""
    ms = abs(ms)
    seconds, minutes, hours, days = ms // 1000 % 60, ms // MINUTE_MS % 60, ms // HOUR_MS % 24, ms // DAY_MS
    if language == "zh":
        if days:
            return f"{days}天{hours}小时"
        if hours:
            return f"{hours}小时{minutes:02d}分"
        return f"{minutes}分{seconds:02d}秒" if minutes else f"{seconds}秒"
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def show_left(due_at: int, now: int, language: str) -> str:
    """What is left of a time limit, for a column: 12:05, 3:07:00, 2天3时 or 2d 3h; with a minus when it is over."""
    left = due_at - now
    sign, ms = ("-", -left) if left < 0 else ("", left)
    seconds, minutes, hours, days = ms // 1000 % 60, ms // MINUTE_MS % 60, ms // HOUR_MS, ms // DAY_MS
    if days:
        return f"{sign}{days}天{hours % 24}时" if language == "zh" else f"{sign}{days}d {hours % 24}h"
    if hours:
        return f"{sign}{hours}:{minutes:02d}:{seconds:02d}"
    return f"{sign}{minutes:02d}:{seconds:02d}"
