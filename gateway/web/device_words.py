"""What the pages about devices call things: readings, ailments, changes, and why something was refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.core.model import Text, Value
from gateway.core.present import LastValue
from gateway.runtime.sick import Ailment

SIGNALS: Final[Mapping[str, Text]] = {
    "backup_power_fault": {"zh": "备电故障", "en": "Backup power fault"},
    "battery": {"zh": "电量", "en": "Battery"},
    "cable_temperature": {"zh": "线缆温度", "en": "Cable temperature"},
    "clock_skew": {"zh": "时钟偏差", "en": "Clock skew"},
    "connected": {"zh": "已连接", "en": "Connected"},
    "covered": {"zh": "镜头遮挡", "en": "Lens covered"},
    "current": {"zh": "电流", "en": "Current"},
    "fault": {"zh": "故障", "en": "Fault"},
    "fire": {"zh": "火警", "en": "Fire"},
    "floor": {"zh": "楼层", "en": "Floor"},
    "flowing": {"zh": "在流动", "en": "Flowing"},
    "gas": {"zh": "燃气浓度", "en": "Gas"},
    "humidity": {"zh": "湿度", "en": "Humidity"},
    "line_fault": {"zh": "线路故障", "en": "Line fault"},
    "link_fault": {"zh": "链路故障", "en": "Link fault"},
    "loudness": {"zh": "音量", "en": "Loudness"},
    "main_power_fault": {"zh": "主电故障", "en": "Mains fault"},
    "noise": {"zh": "噪声", "en": "Noise"},
    "noise_peak": {"zh": "噪声峰值", "en": "Noise peak"},
    "occupied": {"zh": "被占用", "en": "Occupied"},
    "offline": {"zh": "离线", "en": "Offline"},
    "open": {"zh": "打开", "en": "Open"},
    "opening": {"zh": "开度", "en": "Opening"},
    "people_trapped": {"zh": "困人", "en": "People trapped"},
    "pm10": {"zh": "PM10", "en": "PM10"},
    "pm25": {"zh": "PM2.5", "en": "PM2.5"},
    "pressure": {"zh": "压力", "en": "Pressure"},
    "residual_current": {"zh": "剩余电流", "en": "Residual current"},
    "shielded": {"zh": "被屏蔽", "en": "Shielded"},
    "signal": {"zh": "信号强度", "en": "Signal strength"},
    "smoke": {"zh": "烟雾", "en": "Smoke"},
    "sounding": {"zh": "鸣响", "en": "Sounding"},
    "spool_depth": {"zh": "待发条数", "en": "Messages waiting"},
    "temperature": {"zh": "温度", "en": "Temperature"},
    "tilt": {"zh": "倾角", "en": "Tilt"},
    "tilted": {"zh": "倾斜", "en": "Tilted"},
    "valve": {"zh": "阀门", "en": "Valve"},
    "voltage": {"zh": "电压", "en": "Voltage"},
    "volume": {"zh": "累计用量", "en": "Volume"},
    "water_level": {"zh": "水位", "en": "Water level"},
    "wet": {"zh": "浸水", "en": "Wet"},
    "worn": {"zh": "佩戴", "en": "Worn"},
    "door_forced": {"zh": "破门", "en": "Door forced"},
    "ebike_seen": {"zh": "电动车入梯", "en": "E-bike seen"},
    "face_matched": {"zh": "人脸比中", "en": "Face matched"},
    "fall_suspected": {"zh": "疑似跌倒", "en": "Fall suspected"},
    "hit": {"zh": "撞击", "en": "Hit"},
    "inspected": {"zh": "已巡检", "en": "Inspected"},
    "manual_alarm": {"zh": "手动报警", "en": "Manual alarm"},
    "plate_seen": {"zh": "识别车牌", "en": "Plate seen"},
    "pressed": {"zh": "按键", "en": "Pressed"},
    "reset": {"zh": "复位", "en": "Reset"},
    "self_test": {"zh": "自检", "en": "Self-test"},
    "broadcast": {"zh": "广播", "en": "Broadcast"},
    "close_valve": {"zh": "关阀", "en": "Close the valve"},
    "close_water_valve": {"zh": "关水阀", "en": "Close the water valve"},
    "open_valve": {"zh": "开阀", "en": "Open the valve"},
    "open_water_valve": {"zh": "开水阀", "en": "Open the water valve"},
    "open_gate": {"zh": "开闸", "en": "Open the gate"},
    "lamp": {"zh": "指示灯", "en": "Lamp"},
    "mute": {"zh": "消音", "en": "Mute"},
    "sound": {"zh": "鸣响", "en": "Sound"},
    "speak": {"zh": "播报", "en": "Speak"},
    "vibrate": {"zh": "振动", "en": "Vibrate"},
    "inspect": {"zh": "查岗", "en": "Inspect"},
    "initialise": {"zh": "初始化", "en": "Initialise"},
    "read_status": {"zh": "读取状态", "en": "Read the status"},
    "sync_clock": {"zh": "校时", "en": "Set the clock"},
}
"""Readings, events and commands of the profiles. One that is new in a file stands under its own name."""

ARGUMENTS: Final[Mapping[str, Text]] = {
    "text": {"zh": "播报内容", "en": "Words to speak"},
    "seconds": {"zh": "时长（秒）", "en": "For how long (s)"},
    "minutes": {"zh": "时长（分钟）", "en": "For how long (min)"},
}
"""Arguments of commands."""

NEARNESS: Final[Mapping[str, Text]] = {
    "place": {"zh": "同一地点", "en": "the same place"},
    "building": {"zh": "同一楼栋", "en": "the same building"},
    "community": {"zh": "本小区", "en": "the community"},
}

AILMENTS: Final[Mapping[str, Text]] = {
    Ailment.OFFLINE: {"zh": "离线", "en": "Offline"},
    Ailment.CUT_OFF: {"zh": "代理失联", "en": "Agent out of reach"},
    Ailment.FAULTY: {"zh": "故障", "en": "Faulty"},
    Ailment.FLAT: {"zh": "电量低", "en": "Battery flat"},
    Ailment.IMPLAUSIBLE: {"zh": "数值不可信", "en": "Implausible values"},
    Ailment.CHATTERING: {"zh": "反复抖动", "en": "Chattering"},
    Ailment.UNHEARD: {"zh": "登记后从未上报", "en": "Never heard of"},
}

GRAVE: Final = frozenset({Ailment.OFFLINE, Ailment.CUT_OFF, Ailment.FAULTY})

VERBS: Final[Mapping[str, Text]] = {
    "register": {"zh": "登记", "en": "Register"},
    "test": {"zh": "开始现场测试", "en": "Begin the live test"},
    "end_test": {"zh": "结束测试，投入使用", "en": "End the test: it counts from now"},
    "move": {"zh": "移动", "en": "Move"},
    "rename": {"zh": "改名", "en": "Rename"},
    "replace": {"zh": "更换", "en": "Replace"},
    "camera": {"zh": "调看方式", "en": "How to look through it"},
    "retire": {"zh": "停用", "en": "Retire"},
    "renew": {"zh": "重新发放密码", "en": "Issue a new password"},
    "expect": {"zh": "让设备自己领取密码", "en": "Let it fetch its password"},
}

REASONS: Final[Mapping[str, Text]] = {
    "unknown-unit": {"zh": "单位不认识", "en": "unknown unit"},
    "wrong-type": {"zh": "类型不对", "en": "wrong type"},
    "out-of-range": {"zh": "超出量程", "en": "out of range"},
    "unknown-reading": {"zh": "型号没有这个读数", "en": "its model has no such reading"},
    "unknown-event": {"zh": "型号没有这个事件", "en": "its model has no such event"},
    "unknown-field": {"zh": "多余的字段", "en": "a field too many"},
    "not-a-record": {"zh": "格式错误", "en": "no record"},
}

REFUSALS: Final[Mapping[str, Text]] = {
    "bad-code": {
        "zh": "请扫描或输入机身上的编码（字母、数字）",
        "en": "Scan or type the code on the device (letters, digits)",
    },
    "no-product": {
        "zh": "这个型号没有启用型号密钥，请联系系统管理员",
        "en": "This model has no secret that is switched on; ask the administrator",
    },
    "bad-text": {
        "zh": "文字过长，或含有不可见字符",
        "en": "The text is too long, or has characters that cannot be seen",
    },
    "taken": {
        "zh": "这个编码已经登记过（也可能在别的小区）；换新机请到原设备页点「更换」",
        "en": "This code is registered already, perhaps in another community; to exchange a device, open its page",
    },
    "unknown-profile": {"zh": "请选择型号", "en": "Choose a model"},
    "unknown-place": {"zh": "请选择安装位置", "en": "Choose the place"},
    "unknown-source": {"zh": "这个小区没有所选的边缘代理", "en": "This community has no such edge agent"},
    "bad-camera": {
        "zh": "国标编号为 20 位数字（第 11–13 位是设备类型）；取流地址形如 rtsp://10.1.2.3:554/main，其中不能有账号和密码",
        "en": "The GB/T 28181 id has 20 digits (11 to 13 are the type); the address is like rtsp://10.1.2.3:554/main, "
        "without a name or a password in it",
    },
    "another-kind": {
        "zh": "不能换成另一类设备：请停用旧设备，再登记新设备",
        "en": "Another kind of device is no replacement: retire this one and register that",
    },
    "carries-others": {
        "zh": "它还承载着别的设备，请先移走或停用那些设备",
        "en": "Other devices speak through it: move or retire those first",
    },
    "not-its-own": {"zh": "它由边缘代理承载，没有自己的密码", "en": "An edge agent speaks for it: it has no password"},
    "refused": {"zh": "网关没有接受", "en": "The gateway has refused it"},
    "refused-before": {"zh": "这一操作此前已被拒绝", "en": "It was refused when it came first"},
    "wrong-secret": {"zh": "编码或机身密钥不对", "en": "The code or the secret on the device is wrong"},
}

SILENCE_KINDS: Final[Mapping[str, Text]] = {
    "maintenance": {"zh": "检修", "en": "Maintenance"},
    "silence": {"zh": "免打扰", "en": "Silence"},
    "away": {"zh": "外出报备", "en": "Away"},
}

SILENCE_REFUSALS: Final[Mapping[str, Text]] = {
    "a silence names": {"zh": "请选择设备或位置：不能对整个小区免打扰", "en": "Choose a device or a place"},
    "whoever is away": {"zh": "外出报备只填住户", "en": "Whoever is away is so from a home: choose the home alone"},
    "there is no device": {"zh": "没有这台设备", "en": "There is no such device"},
    "there is no place": {"zh": "没有这个位置", "en": "There is no such place"},
    "a silence needs": {"zh": "请填写原因", "en": "Give the reason"},
    "a silence ends after": {"zh": "结束时间须晚于开始时间和现在", "en": "It ends after it begins, and in the future"},
    "a silence ends within": {"zh": "结束时间须在十年以内", "en": "It ends within ten years"},
    "it covers devices": {
        "zh": "其中有关系生命安全的设备，单次最长 8 小时，到时可再续",
        "en": "It covers devices that lives hang on: for those it lasts 8 hours at most, and can be renewed then",
    },
    "another window": {
        "zh": "这张表单已用于另一项设置，请重新填写",
        "en": "This form was used for another window; fill in a new one",
    },
    "there is no silence": {"zh": "它已经结束", "en": "It is over already"},
}

COMMAND_STATES: Final[Mapping[str, Text]] = {
    "pending": {"zh": "待发送", "en": "waiting"},
    "sent": {"zh": "已发送", "en": "sent"},
    "done": {"zh": "已执行", "en": "done"},
    "failed": {"zh": "失败", "en": "failed"},
    "refused": {"zh": "被拒绝", "en": "refused"},
    "expired": {"zh": "已过期", "en": "expired"},
    "timed-out": {"zh": "无应答", "en": "no answer"},
}


def pick_word(table: Mapping[str, Text], code: str, language: str) -> str:
    """A code in words; itself where nobody has any."""
    found = table.get(code)
    return (found.get(language) or found["zh"]) if found is not None else code


def find_refusal(answer: str) -> Text:
    """The engine's sentence about a silence, for people."""
    for beginning, text in SILENCE_REFUSALS.items():
        if answer.startswith(beginning):
            return text
    return {"zh": answer, "en": answer}


def show_value(last: LastValue | Value, language: str) -> str:
    """A value as people read it."""
    value = last.value if isinstance(last, LastValue) else last
    if isinstance(value, bool):
        return ("是" if value else "否") if language == "zh" else ("yes" if value else "no")
    return f"{value:g}" if isinstance(value, float) else str(value)


UNITS: Final[Mapping[str, str]] = {
    "%EL": "%",
    "Cel": "℃",
    "%RH": "%",
    "m3": "m³",
    "ug/m3": "µg/m³",
    "deg": "°",
    "count": "",
}


def show_unit(unit: str | None) -> str:
    """A unit as people write it."""
    return UNITS.get(unit or "", unit or "")
