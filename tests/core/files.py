"""A small, sound set of profile and rule files, and how one of them is spoilt for a test."""

from __future__ import annotations

from typing import Final

VOCABULARY: Final = """\
kinds:
  smoke: {zh: 感烟}
  heat: {zh: 感温}
  sos: {zh: 求助}
  speaker: {zh: 广播}
  meter: {zh: 水表}
  face-camera: {zh: 人脸}
  plate-camera: {zh: 车牌}
  edge-agent: {zh: 代理}
quantities:
  temperature:
    unit: Cel
    units:
      degF: {scale: 0.5555555555555556, offset: -17.77777777777778}
  battery: {unit: "%EL"}
  volume: {unit: m3, units: {l: {scale: 0.001}}}
"""

CATEGORIES: Final = """\
bodies:
  fire-rescue: {zh: 消防}
  property: {zh: 物业}
categories:
  "ext:21-01":
    title: {zh: 火警}
    level: critical
    body: fire-rescue
    first_action: {zh: 拨打119}
  "ops:01-01":
    title: {zh: 维护}
    level: normal
    body: property
    first_action: {zh: 检查}
"""

GOVERNANCE: Final = """\
limits:
  critical: {accept: 1min, dispatch: 3min, arrive: 1h, resolve: 2h, verify: 4h, close: 1d, rate: 7d, report_in: 10min}
  urgent: {accept: 10min, dispatch: 1h, arrive: 1h, resolve: 24h, verify: 1wd, close: 1wd, rate: 7d, report_in: 30min}
  normal: {accept: 1wh, dispatch: 2wh, arrive: 4wh, resolve: 5wd, verify: 1wd, close: 1wd, rate: 7d, report_in: 2wh}
working_hours: ["09:00-12:00", "13:00-17:00"]
warn_share: 0.75
remind_every: {critical: 5m, urgent: 30m, normal: 24h}
escalate_after: 2
ring_every: 1m
returns_limit: 2
reopen_within: 7d
storm: {incidents: 20, window: 10m}
flapping: {times: 5, window: 1h}
life_safety_silence: 8h
"""

HOLIDAYS: Final = """\
known_from: 2026-01-01
known_until: 2026-12-31
off: [2026-10-01, 2026-10-02, 2026-10-05]
made_up: [2026-10-10]
"""

PLATFORM: Final = """\
states:
  {reported: "1", filed: "2", dispatched: "3", handling: "4", fed_back: "5", verified: "6", closed: "7", rated: "8",
   parked: "9", merged: "10", false_alarm: "11"}
levels: {normal: "3", urgent: "2", critical: "1"}
actions: {accepted: accept}
"""

SMOKE: Final = """\
id: nb-smoke
kind: smoke
title: {zh: 感烟}
status: supported
readings:
  smoke: {type: boolean, lane: alarm}
  battery: {from: bat, type: number, quantity: battery, range: [0, 100]}
  mode: {type: text, values: [normal, test]}
events:
  self_test: {}
commands:
  mute: {args: {minutes: {type: integer, range: [1, 480]}}}
heartbeat: 24h
interval: 8h
examples:
  - {in: {smoke: 1, bat: 88}, out: {smoke: true, battery: 88}}
  - {in: {smoke: 0}, out: {smoke: false}}
  - {in: {bat: 240}, rejected: {battery: out-of-range}}
"""

HEAT: Final = """\
id: heat-detector
kind: heat
title: {zh: 感温}
status: draft
readings:
  temperature: {from: f, type: number, quantity: temperature, unit: degF, range: [-40, 150], lane: alarm}
  rounds: {type: integer}
heartbeat: 24h
examples:
  - {in: {f: 302, rounds: 3}, out: {temperature: 150, rounds: 3}}
  - {in: {f: 303, rounds: 2.5}, rejected: {temperature: out-of-range, rounds: wrong-type}}
"""

SOS: Final = """\
id: fixed-sos
kind: sos
title: {zh: 求助按钮}
status: draft
events:
  pressed: {lane: alarm, press: true}
  fall: {lane: alarm, data: {score: {type: number, range: [0, 1]}, how: {type: text, values: [hard, soft]}}}
heartbeat: 24h
"""

SPEAKER: Final = """\
id: ip-speaker
kind: speaker
title: {zh: 音柱}
status: draft
commands:
  broadcast: {args: {text: {type: text}}}
heartbeat: 15m
"""

METER: Final = """\
id: meter
kind: meter
title: {zh: 水表}
status: draft
readings:
  volume: {type: number, quantity: volume, range: [0, 99999], accumulates: total}
heartbeat: none
"""

FACE: Final = """\
id: face-camera
kind: face-camera
title: {zh: 人脸}
status: draft
events:
  face_matched: {lane: alarm, data: {list: {type: text}}}
heartbeat: 15m
"""

PLATE: Final = """\
id: plate-camera
kind: plate-camera
title: {zh: 车牌}
status: draft
events:
  plate_seen: {lane: alarm, data: {plate: {type: plate}, score: {type: number, range: [0, 1]}}}
heartbeat: 15m
"""

AGENT: Final = """\
id: edge-agent
kind: edge-agent
title: {zh: 代理}
status: draft
readings:
  offline: {type: boolean}
heartbeat: none
"""

SMOKE_RULE: Final = """\
id: fire.smoke-persists
title: {zh: 烟感持续报警}
status: active
scope: device
kinds: [smoke]
when:
  all:
    - smoke: {is: true}
    - not: {mode: {is: test}}
hold: 10s
clear: {when: {smoke: {is: false}}, hold: 2m}
missing: keep
incident:
  cause: fire
  at: building
  category: "ext:21-01"
  title: {zh: "{place} 烟感持续报警"}
respond:
  - broadcast: {zone: building, text: {zh: 请撤离}}
"""

SMOKE_TEST: Final = """\
every: 5s
profile: nb-smoke
cases:
  - name: a puff stays quiet
    feed: {smoke: "0 1 0x6", mode: "normal"}
    expect: {30s: quiet}
  - name: smoke opens one incident
    feed: {smoke: "0 1x12", mode: "normal"}
    expect: {10s: pending, 20s: firing, 60s: {incidents: 1, level: critical}}
"""

PRESS_RULE: Final = """\
id: sos.pressed
title: {zh: 一键求助}
status: draft
scope: device
when: {fall: {seen: true, where: {score: {above: 0.5}}}}
key: [how]
incident: {cause: sos, at: device, category: "ext:21-01"}
"""

SOUND: Final = {
    "device_profiles/vocabulary.yaml": VOCABULARY,
    "device_profiles/smoke/nb-smoke.yaml": SMOKE,
    "device_profiles/heat/heat-detector.yaml": HEAT,
    "device_profiles/sos/fixed-sos.yaml": SOS,
    "device_profiles/speaker/ip-speaker.yaml": SPEAKER,
    "device_profiles/meter/meter.yaml": METER,
    "device_profiles/face-camera/face-camera.yaml": FACE,
    "device_profiles/plate-camera/plate-camera.yaml": PLATE,
    "device_profiles/edge-agent/edge-agent.yaml": AGENT,
    "rules/categories.yaml": CATEGORIES,
    "rules/governance.yaml": GOVERNANCE,
    "rules/holidays.yaml": HOLIDAYS,
    "rules/platform.yaml": PLATFORM,
    "rules/fire/smoke-persists.yaml": SMOKE_RULE,
    "rules/fire/smoke-persists.test.yaml": SMOKE_TEST,
    "rules/sos/pressed.yaml": PRESS_RULE,
}
"""Every file of a catalog without a problem."""

_SHORT: Final = {path.rpartition("/")[2].removesuffix(".yaml"): path for path in SOUND}


def path_of(name: str) -> str:
    """``nb-smoke`` → ``device_profiles/smoke/nb-smoke.yaml``."""
    return _SHORT[name]


def spoil(name: str, old: str, new: str) -> tuple[dict[str, str], str, int]:
    """The sound files with one place of one of them replaced; its path, and the line where the new text begins."""
    path = path_of(name)
    text = SOUND[path]
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    spoilt = text.replace(old, new)
    # The fault stands where the texts begin to differ, after what they have in common.
    start = text.index(old)
    common = 0
    while common < min(len(old), len(new)) and old[common] == new[common]:
        common += 1
    is_next = new[common : common + 1] == "\n"
    return {**SOUND, path: spoilt}, path, spoilt.count("\n", 0, start + common) + 1 + is_next
