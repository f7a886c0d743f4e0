"""What the pages about rules and the appraisal call things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.core.model import Phase, Text
from gateway.core.rule import ScopeKind, Status
from gateway.runtime.appraisal import By, Every
from gateway.runtime.stand import RunVerdict
from gateway.web.device_words import pick_word

STATUSES: Final[Mapping[str, Text]] = {
    Status.ACTIVE: {"zh": "启用", "en": "active"},
    Status.SHADOW: {"zh": "试运行", "en": "shadow"},
    Status.DRAFT: {"zh": "草稿", "en": "draft"},
    Status.RETIRED: {"zh": "停用", "en": "retired"},
}

EFFECTS: Final[Mapping[str, Text]] = {
    Status.ACTIVE: {"zh": "判断，并立案派发", "en": "judges, and opens incidents"},
    Status.SHADOW: {"zh": "照常判断和记录，不立案", "en": "judges and records, opens nothing"},
    Status.DRAFT: {"zh": "不判断", "en": "does not judge"},
    Status.RETIRED: {"zh": "不判断", "en": "does not judge"},
}
"""What a status means for whoever waits for help."""

DOMAINS: Final[Mapping[str, Text]] = {
    "sos": {"zh": "求助", "en": "Calls for help"},
    "fire": {"zh": "消防", "en": "Fire"},
    "gas": {"zh": "燃气", "en": "Gas"},
    "electrical": {"zh": "用电", "en": "Electrical"},
    "care": {"zh": "关爱", "en": "Care"},
    "lift": {"zh": "电梯", "en": "Lifts"},
    "security": {"zh": "治安", "en": "Security"},
    "door": {"zh": "门禁", "en": "Doors"},
    "water": {"zh": "用水", "en": "Water"},
    "rooms": {"zh": "机房", "en": "Plant rooms"},
    "city": {"zh": "市容与积水", "en": "Streets and flooding"},
    "air": {"zh": "空气", "en": "Air"},
    "noise": {"zh": "噪声", "en": "Noise"},
    "ops": {"zh": "设备运维", "en": "Upkeep of devices"},
}
"""The folders of rules, in the order in which they stand on the page; others follow by their name."""

SCOPES: Final[Mapping[str, Text]] = {
    ScopeKind.DEVICE: {"zh": "每台设备", "en": "each device"},
    ScopeKind.HOUSEHOLD: {"zh": "每户", "en": "each home"},
    ScopeKind.UNIT: {"zh": "每单元", "en": "each unit"},
    ScopeKind.BUILDING: {"zh": "每栋楼", "en": "each building"},
    ScopeKind.PLACE: {"zh": "每处位置", "en": "each place"},
    ScopeKind.SOURCE: {"zh": "每个来源", "en": "each source"},
    ScopeKind.COMMUNITY: {"zh": "整个小区", "en": "the community"},
}

PHASES: Final[Mapping[str, Text]] = {
    Phase.QUIET: {"zh": "已记录", "en": "noted"},
    Phase.PENDING: {"zh": "等待确认", "en": "pending"},
    Phase.FIRING: {"zh": "成立", "en": "firing"},
}

NOTES: Final[Mapping[str, Text]] = {
    "opened": {"zh": "已立案", "en": "opened an incident"},
    "joined": {"zh": "并入在办事件", "en": "joined an incident"},
    "cleared": {"zh": "已恢复", "en": "cleared"},
    "shadow": {"zh": "试运行，未立案", "en": "in shadow: opened nothing"},
    "drill": {"zh": "演练，未立案", "en": "a drill: opened nothing"},
    "commissioning": {"zh": "设备调试中，未立案", "en": "commissioning: opened nothing"},
    "maintenance": {"zh": "设备检修中，未立案", "en": "under maintenance: opened nothing"},
    "silenced": {"zh": "免打扰，未立案", "en": "silenced: opened nothing"},
    "inhibited": {"zh": "由上级设备中断解释", "en": "explained by an outage above it"},
    "late": {"zh": "迟到，未立案", "en": "late: opened nothing"},
    "blind": {"zh": "其间网关看不到，待再确认", "en": "the gateway could not see: looked at again"},
    "storm": {"zh": "归入同类集中报警", "en": "taken in by a storm"},
}

WOULD: Final[Mapping[str, Text]] = {
    **NOTES,
    "opened": {"zh": "会立案", "en": "would open an incident"},
    "joined": {"zh": "会并入未结事件", "en": "would join an open incident"},
}
"""What would have come of what a draft finds."""

VERDICTS: Final[Mapping[str, Text]] = {
    RunVerdict.WAITING: {"zh": "等待", "en": "waiting"},
    RunVerdict.OPENED: {"zh": "符合", "en": "as expected"},
    RunVerdict.JOINED: {"zh": "并入未结事件", "en": "joined an open incident"},
    RunVerdict.LATE: {"zh": "太晚", "en": "too late"},
    RunVerdict.MISSING: {"zh": "没有立案", "en": "no incident"},
    RunVerdict.QUIET: {"zh": "符合，没有立案", "en": "as expected: nothing"},
    RunVerdict.FALSE: {"zh": "误立案", "en": "opened, and should not"},
}
"""What became of what a scenario expects."""

FAULTS: Final[Mapping[str, Text]] = {
    "duplicate": {"zh": "重复", "en": "duplicate"},
    "late": {"zh": "迟到", "en": "late"},
    "garbage": {"zh": "乱码", "en": "garbage"},
}

FILE_FAULTS: Final[Mapping[str, str]] = {
    "broken-yaml": "YAML 写法有误（缩进、冒号、引号）",
    "duplicate-case": "测试重名",
    "duplicate-key": "同一个键写了两次",
    "empty-file": "文件是空的",
    "empty-profile": "型号没有读数也没有事件",
    "id-differs": "编号与文件位置不一致",
    "kind-differs": "类别与已有的不一致",
    "missing-key": "缺少必填的键",
    "no-legal-basis": "这类判断须写明法规依据",
    "no-quantity": "没有写明物理量",
    "no-rejected-example": "缺少应当不采信的例子",
    "no-test": "没有测试",
    "not-a-number": "不是数字",
    "not-a-text": "不是文字",
    "not-utf8": "文件不是 UTF-8 编码",
    "one-case": "只能有一例",
    "press-lane": "按键须走报警通道",
    "reading-differs": "读数与别处的定义不一致",
    "same-name": "名称重复",
    "too-deep": "层次太深",
    "too-few-examples": "例子太少",
    "too-large": "文件太大",
    "two-documents": "一个文件只写一条规则",
    "unit-twice": "单位写了两次",
    "unknown-argument": "没有这个参数",
    "unknown-body": "没有这种责任单位",
    "unknown-category": "没有这个事件类别",
    "unknown-key": "没有这个键，可能写错了",
    "unknown-kind": "没有这类设备",
    "unknown-move": "没有这种操作",
    "unknown-quantity": "没有这个物理量",
    "unknown-state": "没有这种状态",
    "unknown-unit": "没有这个单位",
    "was-taken": "编号已被占用",
    "wrong-category": "类别与级别、依据不符",
    "wrong-key": "键的写法不对",
    "wrong-type": "值的类型不对",
    "wrong-value": "值不对，或不在允许的范围里",
}
"""Code → what is wrong with a file, in Chinese; the particulars stand beside it in the engine's English."""

GARBAGE: Final[Mapping[str, Text]] = {
    "no-text": {"zh": "不是文本的字节", "en": "bytes that are no text"},
    "no-json": {"zh": "不是 JSON 的文本", "en": "a text that is no JSON"},
    "no-envelope": {"zh": "没有信封的 JSON", "en": "JSON without an envelope"},
    "other-version": {"zh": "另一版本的信封", "en": "an envelope of another version"},
    "half": {"zh": "半条消息", "en": "half a message"},
}
"""What the stand throws at the gateway."""


def tell_fault(what: str, detail: str, language: str) -> str:
    """A line of the stand's log in words."""
    is_zh = language == "zh"
    if what == "garbage":
        name, _, size = detail.partition(" ")
        kind = pick_word(GARBAGE, name, language)
        return f"{kind}，{size} 字节" if is_zh else f"{kind}, {size} bytes"
    if what == "duplicate":
        return f"{detail} 又发一次" if is_zh else f"{detail} sent again"
    return f"{detail}，十分钟前的读数" if is_zh else f"{detail} as it was ten minutes ago"


BYS: Final[Mapping[str, Text]] = {
    By.GRID: {"zh": "网格", "en": "Grid"},
    By.BODY: {"zh": "责任单位", "en": "Responsible body"},
    By.COMMUNITY: {"zh": "小区", "en": "Community"},
    By.CATEGORY: {"zh": "类别", "en": "Category"},
    By.RULE: {"zh": "规则", "en": "Rule"},
    By.DEVICE: {"zh": "设备", "en": "Device"},
}

PERIODS: Final[Mapping[str, Text]] = {
    Every.DAY: {"zh": "逐日", "en": "by day"},
    Every.WEEK: {"zh": "逐周", "en": "by week"},
    Every.MONTH: {"zh": "逐月", "en": "by month"},
}
