"""The engine's short sentences in a timeline, as people read them: in their language, with local times and names.

The engine writes plain English with codes in it, the same live and in a replay. What is known here is put into words;
what is not stands as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from gateway.core.catalog import Catalog
from gateway.core.model import Line
from gateway.runtime.calls import NEED_TITLES
from gateway.web.device_words import ARGUMENTS, SIGNALS, pick_word
from gateway.web.languages import pick
from gateway.web.words import DEVICE_STATES, name_level, name_role, name_state, name_step, show_moment

Names = Callable[[str], str]
"""The name of a grid by its code."""


class Speaker(Struct, frozen=True):
    """Puts lines into words for one reader: ``language``, the names of grids, and the time now."""

    language: str
    catalog: Catalog
    grid_name: Names
    now: int

    def who(self, name: str) -> str:
        """Whoever acted: ``gateway``, ``platform:NAME``, or an account's name."""
        head, colon, tail = name.partition(":")
        if head == "platform" and colon:
            return f"{name_role('platform', self.language)} {tail}"
        return name_role(name, self.language) if name == "gateway" else name

    def body(self, body: str) -> str:
        """A responsible body's name."""
        return pick(self.catalog.bodies.get(body, {"zh": body}), self.language)

    def why(self, line: Line) -> str:
        """Why, in this reader's words."""
        return self.say(line.what, line.why)

    def say(self, what: str, why: str) -> str:
        """One sentence of a line that tells ``what``."""
        if not why:
            return ""
        if what in ("opened", "joined"):
            return self._saw(why)
        for pattern, templates in _SENTENCES.get(what, ()):
            found = pattern.fullmatch(why)
            if found is not None:
                words = {name: self._word(name, text) for name, text in found.groupdict().items() if text is not None}
                return pick(templates, self.language).format_map(_Blank(words)).rstrip()
        return self._times(why)

    def refusal(self, words: str) -> str:
        """Why an act was refused."""
        if self.language != "zh":
            return _GRID.sub(lambda found: self.grid_name(found[1]), words)
        for pattern, template in _REFUSALS:
            found = pattern.match(words)
            if found is not None:
                said = {name: self._word(name, text) for name, text in found.groupdict().items() if text is not None}
                return template.format_map(_Blank(said))
        return words

    def leaf(self, text: str) -> str:
        """One test of a condition."""
        return self._saw(text)

    def look(self, text: str) -> str:
        """What a test saw."""
        if self.language == "zh":
            for pattern, replacement in _LOOKS:
                text = pattern.sub(replacement, text)
        return self._times(text)

    def arithmetic(self, how: str) -> str:
        """How a deadline was computed."""
        if self.language != "zh":
            return _AMOUNT_FROM.sub(lambda found: self.limit(found[0]), how)
        said = how
        for pattern, replacement in _ARITHMETIC:
            said = pattern.sub(replacement, said)
        return said

    def limit(self, limit: str) -> str:
        """A limit as the policy's file has it, in words."""
        found = _AMOUNT.fullmatch(limit)
        if found is None:
            return limit
        said = pick(_LIMITS[found[2]], self.language).format(found[1])
        return said.removesuffix("s") if found[1] == "1" else said

    def _word(self, name: str, text: str) -> str:
        match name.rstrip("2"):
            case "step" | "verb":
                return name_step(text, self.language)
            case "grid":
                return pick(_HERE, self.language) if text == ANYWHERE else self.grid_name(text)
            case "role":
                return name_role(text, self.language)
            case "state":
                return name_state(text, self.language)
            case "level":
                return name_level(text, self.language)
            case "body":
                return self.body(text)
            case "how":
                return self.arithmetic(text)
            case "limit":
                return self.limit(text)
            case "command" | "argument":
                table = SIGNALS if name == "command" else ARGUMENTS
                return pick_word(table, text, self.language)
            case "device_state":
                return pick_word(DEVICE_STATES, text, self.language)
            case "outcome":
                return pick(_OUTCOMES.get(text, {"zh": text, "en": text}), self.language)
            case _:
                return text

    def _saw(self, why: str) -> str:
        """What a condition saw: its leaves in words, with local times."""
        if self.language == "zh":
            for pattern, replacement in _LEAVES:
                why = pattern.sub(replacement, why)
            why = _NAME.sub(lambda found: _NAMES.get(found[0], found[0]), why)
        else:
            why = _NAME.sub(lambda found: found[0].replace("_", " "), why)
        return self._times(why)

    def _times(self, text: str) -> str:
        """The engine's times are milliseconds; people read local time."""
        return _MOMENT.sub(lambda found: show_moment(int(found[0]), self.now), text)


class _Blank(dict[str, str]):
    """What a sentence does not say is left out."""

    def __missing__(self, key: str) -> str:
        return ""


ANYWHERE: Final = "all"
"""Stands in a sentence for the grid of a community that lies in none."""

_HERE: Final = {"zh": "本小区", "en": "the community"}
_GRID: Final = re.compile(r"\bgrid (\d{6,})\b")
_AMOUNT: Final = re.compile(r"\b(\d+)(min|h|wh|d|wd)\b")
_AMOUNT_FROM: Final = re.compile(_AMOUNT.pattern + r"(?= from )")
_MOMENT: Final = re.compile(r"\b1\d{12}\b")
_DATE: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d"

_LIMITS: Final[Mapping[str, Mapping[str, str]]] = {
    "min": {"zh": "{}分钟", "en": "{} min"},
    "h": {"zh": "{}小时", "en": "{} h"},
    "wh": {"zh": "{}个工作小时", "en": "{} working hours"},
    "d": {"zh": "{}天", "en": "{} days"},
    "wd": {"zh": "{}个工作日", "en": "{} working days"},
}
_OUTCOMES: Final[Mapping[str, Mapping[str, str]]] = {
    "done": {"zh": "已执行", "en": "done"},
    "failed": {"zh": "失败", "en": "failed"},
    "expired": {"zh": "已过期", "en": "expired"},
    "refused": {"zh": "被拒绝", "en": "refused"},
    "timed-out": {"zh": "无应答", "en": "no answer"},
}


def _lines(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern), text) for pattern, text in pairs)


Sentence = tuple[re.Pattern[str], Mapping[str, str]]


def _both(*sentences: tuple[str, str, str]) -> tuple[Sentence, ...]:
    """What the engine writes, and how that is said in Chinese and in English."""
    return tuple((re.compile(pattern), {"zh": zh, "en": en}) for pattern, zh, en in sentences)


_SENTENCES: Final[Mapping[str, tuple[Sentence, ...]]] = {
    "due": _both(
        (
            rf"(?P<step>\w+) by (?P<until>{_DATE}) \((?P<role>\w+) of (?P<grid>\w+)\): (?P<how>.+)",
            "{until} 前{step}，由{grid}{role}负责：{how}",
            "{step} by {until}, up to the {role} of {grid}: {how}",
        )
    ),
    "warn": _both(
        (rf"(?P<step>\w+) is due at (?P<until>{_DATE})", "{step}应于 {until} 前完成", "{step} is due at {until}")
    ),
    "overdue": _both(
        (
            rf"(?P<step>\w+) was due at (?P<until>{_DATE}): (?P<how>.+)",
            "{step}应于 {until} 完成：{how}",
            "{step} was due at {until}: {how}",
        )
    ),
    "remind": _both((r"(?P<step>\w+), for the (?P<n>\d+)\. time", "{step}，第{n}次催办", "{step}, reminder no. {n}")),
    "escalate": _both(
        (r"(?P<step>\w+): grid (?P<grid>\w+) is asked now", "{step}改由{grid}督办", "{step}: {grid} is asked now"),
        (
            r"returned (?P<n>\d+) times: grid (?P<grid>\w+) decides whose it is",
            "已退回{n}次，由{grid}裁定责任单位",
            "returned {n} times: {grid} decides whose it is",
        ),
    ),
    "ring": _both(
        (
            r"call (?P<n>\d+): nobody has accepted it yet",
            "第{n}次呼叫值班电话：尚无人受理",
            "call no. {n} to the duty phone: nobody has accepted it yet",
        )
    ),
    "contact": _both(
        (
            r"the family, or the property's duty phone, .*",
            "联系家属或物业值班电话核实",
            "the family, or the property's duty phone, is asked to look",
        )
    ),
    "raised": _both((r"(?P<level>\w+) → (?P<level2>\w+)", "{level} → {level2}", "{level} → {level2}")),
    "dispatch": _both(
        (
            r"nobody has answered the call back within (?P<limit>\w+); to (?P<body>[\w-]+)",
            "{limit}内无人回拨核实，自动派遣至{body}",
            "nobody called back within {limit}: sent to {body}",
        ),
        (r"(?:(?P<words>.+); )?to (?P<body>[\w-]+)", "派遣至{body} {words}", "to {body} {words}"),
    ),
    "whistle": _both((r"(?:(?P<words>.+); )?grid (?P<grid>\d+)", "呼叫{grid} {words}", "{grid} is called {words}")),
    "report_in": _both((r"(?:(?P<words>.+); )?grid (?P<grid>\d+)", "{grid}已报到 {words}", "{grid} has come {words}")),
    "park": _both(
        (rf"(?P<words>.+); until (?P<until>{_DATE})", "挂账至 {until}：{words}", "parked until {until}: {words}")
    ),
    "ask_extension": _both(
        (
            rf"(?P<words>.+); until (?P<until>{_DATE})",
            "申请延至 {until}：{words}",
            "asks for time until {until}: {words}",
        )
    ),
    "resume": _both(
        (
            rf"parked until (?P<until>{_DATE}) by (?P<who>.+)",
            "挂账到期（{until}，{who}）",
            "parked until {until} by {who}",
        )
    ),
    "rate": _both((r"(?P<n>\d) of 5", "{n} 分（满分 5 分）", "{n} of 5")),
    "commanded": _both(
        (
            r"(?P<command>\w+) → (?P<names>[^;]+); (?P<words>.+)",
            "{command} → {names}：{words}",
            "{command} → {names}: {words}",
        ),
        (r"(?P<command>\w+) → (?P<names>[^;]+)", "{command} → {names}", "{command} → {names}"),
        (
            r"(?P<command>\w+): no device in this (?P<zone>\w+) can do it",
            "{command}：范围内没有可执行的设备",
            "{command}: no device there can do it",
        ),
    ),
    "answered": _both((r"(?P<outcome>[\w-]+)(?: (?P<command>.+))?", "{outcome} {command}", "{outcome} {command}")),
    "cleared": _both(
        (r"the storm is over", "告警潮已结束", "the storm is over"),
        (
            r"the condition is over; it came and went (?P<n>\d+) times",
            "条件不再成立，其间反复{n}次",
            "the condition is over; it came and went {n} times",
        ),
    ),
    "flapping": _both((r"came and went (?P<n>\d+) times more", "又反复{n}次", "came and went {n} times more")),
    "moved": _both((r"grid (?P<grid>\w+) → (?P<grid2>\w+)", "{grid} → {grid2}", "{grid} → {grid2}")),
    "swallowed": _both(
        (r"(?P<n>\d+) findings, the last (?P<key>.+)", "{n}个信号，最近一个：{key}", "{n} signals, the last {key}"),
        (
            r"(?P<key>[\w-]+): silent since (?P<name>[\w-]+) is",
            "{key} 随 {name} 一起失联",
            "{key} is silent since {name} is",
        ),
    ),
    "told": _both(
        (r"(?P<kind>\w+): not reached: (?P<words>.*)", "未能通知到：{words}", "nobody was reached: {words}"),
        (r"(?P<kind>\w+): (?P<words>.+)", "已通知：{words}", "told: {words}"),
    ),
}

_REFUSALS: Final = _lines(
    (r"(?P<verb>\w+) is not allowed while the incident is (?P<state>\w+)", "事件当前为「{state}」，不能{verb}"),
    (r"(?P<verb>\w+) is not for a (?P<role>\w+)", "{role}不能{verb}"),
    (r"it lies in grid (?P<grid>\w+), which is not below yours", "该事件在{grid}，不在你的网格之内"),
    (r"(?P<verb>\w+) needs a reason", "{verb}须填写理由"),
    (r"(?P<verb>\w+) needs the incident that takes this one in", "{verb}须选择并入的事件"),
    (r"(?P<verb>\w+) needs a date in the future", "{verb}须填写将来的时间"),
    (r"(?P<verb>\w+) needs a date within ten years", "{verb}的时间须在十年以内"),
    (r"(?P<verb>\w+) needs a date after the one that holds now", "{verb}的时间须晚于现有时限"),
    (r"(?P<verb>\w+) needs a score from 1 to 5", "{verb}须打 1 到 5 分"),
    (r"somebody has accepted it already, and it is (?P<state>\w+)", "已有人受理，事件当前为「{state}」"),
    (r"grid (?P<grid>\w+) was whistled for already", "已向{grid}吹哨，尚未报到"),
    (r"there is no level above to whistle for", "已是最高一级，无处可吹哨"),
    (r"nobody was whistled for", "没有待报到的吹哨"),
    (r"grid (?P<grid>\w+) was whistled for, and \w+ lies below it", "吹哨呼叫的是{grid}，须由该级或上级报到"),
    (r"the whistle must be answered first", "须先报到，再办理延期"),
    (r"nobody has asked for an extension", "没有待批的延期申请"),
    (r"whoever asks for an extension cannot grant it", "申请人不能批准自己的延期"),
    (r"an incident cannot be merged into itself", "事件不能并入自身"),
    (r"there is no open incident .* to merge it into", "要并入的事件已结束或不在本小区"),
    (r"there is no responsible body", "没有这个责任单位"),
    (r"no such open incident in this community", "事件已归档，不能再操作"),
    (r"(?P<who>.+) was faster \((?P<verb>\w+)\)", "{who}先一步（{verb}），请核对后再定"),
    (r"it was refused when it came first", "这一操作此前已被拒绝"),
    (r"nothing is commanded for an incident that is (?P<state>\w+)", "事件已「{state}」，不能再下发指令"),
    (r"commands are not for a (?P<role>\w+)", "{role}不能下发指令"),
    (r"a command needs a reason", "下发指令须填写理由"),
    (r"a command names 1 to (?P<n>\d+) devices", "一次指令须选 1 到 {n} 台设备，且不重复"),
    (r"there is no device (?P<name>\S*) in this community", "本小区没有设备 {name}"),
    (
        r"device (?P<name>\S+) lies in grid (?P<grid>\w+), which is not below yours",
        "设备 {name} 在{grid}，不在你的网格之内",
    ),
    (
        r"device (?P<name>\S+) is not in use \((?P<device_state>\w+)\)",
        "设备 {name} 处于「{device_state}」，不能下发指令",
    ),
    (r"device (?P<name>\S+) cannot do (?P<command>\w+)", "设备 {name} 不支持「{command}」"),
    (r"(?P<command>\w+) is not given for an incident", "「{command}」不在事件中下发"),
    (r"(?P<command>\w+) is done by somebody on the spot", "「{command}」须由到场人员现场操作"),
    (r"(?P<command>\w+) has no argument (?P<name>\w+)", "「{command}」没有参数 {name}"),
    (r"the argument (?P<argument>\w+) of (?P<command>\w+) is missing", "「{command}」缺少{argument}"),
    (r"the argument (?P<argument>\w+) of (?P<command>\w+) is", "「{command}」的{argument}不合要求"),
)

_ARITHMETIC: Final = _lines(
    (rf"(\d+)min from ({_DATE})", r"自 \2 起 \1 分钟"),
    (rf"(\d+)h from ({_DATE})", r"自 \2 起 \1 小时"),
    (rf"(\d+)wh from ({_DATE})", r"自 \2 起 \1 个工作小时"),
    (rf"(\d+)d from ({_DATE})", r"自 \2 起 \1 天"),
    (rf"(\d+)wd from ({_DATE})", r"自 \2 起 \1 个工作日"),
    (r", its day not counted", "（当日不计）"),
    (r", in working hours", "（只计工作时间）"),
    (r"; no working days: ", "；非工作日："),
    (r" to (\d{4}-\d\d-\d\d)", r" 至 \1"),
    (r" and more", " 等"),
    (rf"extended to ({_DATE}) by (\S+)", r"经 \2 批准延至 \1"),
    (rf"parked until ({_DATE}) by (\S+)", r"\2 挂账至 \1"),
    (rf", ends ({_DATE})", r"，止于 \1"),
)

_LEAVES: Final = _lines(
    (r"\bpressed seen: last at (1\d{12})", r"收到按键，\1"),
    (r"(?<![\w.])([A-Za-z_]\w*) where (.+?) seen: last at (1\d{12})", r"收到 \1（\2），\3"),
    (r"(?<![\w.])([A-Za-z_]\w*) seen: last at (1\d{12})", r"收到 \1，\2"),
    *((rf"\bneed {need}\b", f"需要帮助：{title['zh']}") for need, title in NEED_TITLES.items()),
    (
        r"device missing for its heartbeat: last heard at (\d+), missing from (\d+)",
        r"设备超过心跳周期无数据：最后一次 \1",
    ),
    (r"(\w+) missing for (\w+)", r"\1 已 \2 无数据"),
    (r"\b(\w+) in list (\w+)", r"\1 在名单 \2 中"),
    (r"\bbetween (.+?) and ", r"介于 \1 和 "),
    (r"\babove ", "高于 "),
    (r"\bbelow ", "低于 "),
    (r"\battribute (\w+)", r"\1"),
    (r" \(default ([\d.]+)\)", r"（\1）"),
    (r"\brate in (\w+)", r"\1 内变化"),
    (r"\bsum in (\w+)", r"\1 内累计"),
    (r"at least (\d+) times in (\w+)", r"\2 内至少 \1 次"),
    (r"\bis true\b", "为真"),
    (r"\bis false\b", "为假"),
    (r"(\(window not covered yet\))", "（时窗未满）"),
    (r": true at (\d+)", r"：是，\1"),
    (r": false at (\d+)", r"：否，\1"),
    (r"(\d+)s 内", r"\1 秒内"),
    (r"(\d+)m 内", r"\1 分钟内"),
    (r"(\d+)h 内", r"\1 小时内"),
    (r"(\d+)d 内", r"\1 天内"),
    (r" 为真：是", "：是"),
    (r" 为假：否", "：否"),
    (r": (-?[\d.]+) at (\d+)", r"：实测 \1，\2"),
    (r": (-?[\d.]+) （", r"：实测 \1（"),
    (r"; ", "；"),
)

_LOOKS: Final = _lines(
    (r"\btrue at (\d+)", r"是，\1"),
    (r"\bfalse at (\d+)", r"否，\1"),
    (r"(-?[\d.]+) at (\d+)", r"\1，\2"),
    (r"\blast at (\d+)", r"最近一次 \1"),
    (r"\bnever\b", "从未"),
    (r"\bnothing\b", "无"),
)

_NAMES: Final[Mapping[str, str]] = {
    "backup_power_fault": "备电故障",
    "battery": "电量",
    "cable_limit": "电缆温度限值",
    "cable_temperature": "电缆温度",
    "clock_skew": "时钟偏差",
    "current": "电流",
    "door_forced": "强行开门",
    "ebike_seen": "电动自行车",
    "face_matched": "人脸比中",
    "fall_suspected": "疑似跌倒",
    "fault": "故障",
    "fire": "火警",
    "floor": "楼层",
    "flowing": "水流",
    "gas": "燃气浓度",
    "gas_level_1": "一级报警值",
    "gas_level_2": "二级报警值",
    "hit": "撞击",
    "humidity": "湿度",
    "line_fault": "线路故障",
    "link_fault": "通信故障",
    "loudness": "音量",
    "main_power_fault": "主电故障",
    "manual_alarm": "手动报警",
    "noise": "噪声",
    "noise_peak": "噪声峰值",
    "occupied": "占用",
    "offline": "离线",
    "open": "开启",
    "opening": "开度",
    "people_trapped": "困人",
    "plate": "车牌",
    "plate_seen": "车牌识别",
    "pm10": "PM10",
    "pm25": "PM2.5",
    "pm25_limit": "PM2.5 限值",
    "pressed": "按键",
    "pressure": "压力",
    "pressure_low": "低压限值",
    "pressure_ok": "正常压力",
    "residual_current": "剩余电流",
    "residual_limit": "剩余电流限值",
    "score": "置信度",
    "shielded": "屏蔽",
    "signal": "信号强度",
    "smoke": "烟感",
    "spool_depth": "待传条数",
    "temperature": "温度",
    "temperature_fall": "降温限值",
    "temperature_high": "高温限值",
    "temperature_low": "低温限值",
    "temperature_rise": "升温限值",
    "tilt": "倾角",
    "tilt_limit": "倾角限值",
    "tilted": "倾斜",
    "valve": "阀门",
    "voltage": "电压",
    "volume": "用水量",
    "wanted": "布控",
    "water_level": "水位",
    "water_level_limit": "水位限值",
    "wet": "水浸",
    "worn": "佩戴",
}
"""Readings, events and attributes that rules look at. One without a word here stands under its own name."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]+")
