"""The API's OpenAPI document: the routes as they are, the values as the code has them, and an example of each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Depends, Response
from fastapi.openapi.utils import get_openapi
from msgspec import Struct
from starlette.routing import BaseRoute

from gateway.core.model import (
    Community,
    Device,
    DeviceState,
    Due,
    GridLevel,
    Incident,
    Level,
    Line,
    Phase,
    Role,
    Silence,
    Sort,
)
from gateway.core.present import DevicePresent, LastValue
from gateway.core.profile import FieldSpec
from gateway.core.rule import Status
from gateway.runtime.acting import Choice
from gateway.runtime.appraisal import By, Names, Question, appraise
from gateway.runtime.appraising import Report, make_report
from gateway.runtime.audit import Verdict
from gateway.runtime.board import Counts
from gateway.runtime.calls import Need
from gateway.runtime.commanding import Given, Near, Offer, Sight
from gateway.runtime.device_desk import Settled
from gateway.runtime.device_history import Chapter
from gateway.runtime.handing_over import Shift
from gateway.runtime.ports import Finding, GivenCommand
from gateway.runtime.products import Awaited, Granted, Product, ProductChanged
from gateway.runtime.rule_desk import Case, Decision, RuleAccount, Ruled, Standing
from gateway.runtime.sick import Ailment, Patient, Symptom
from gateway.runtime.signals import Heard
from gateway.runtime.stand import (
    Baseline,
    Expected,
    FaultJudged,
    Judged,
    Moving,
    Run,
    RunVerdict,
    ScenarioView,
    StandView,
)
from gateway.runtime.today import Day
from gateway.runtime.trial_desk import Trial, TrialState
from gateway.runtime.trying import Found, Opened, Tried, WouldOpen
from gateway.runtime.webhook_desk import Hooked
from gateway.runtime.webhooks import State, Webhook
from gateway.web.access import public
from gateway.web.api_values import (
    AccountLine,
    AccountPage,
    AskList,
    AuditLine,
    AuditPage,
    CallerLine,
    CallerList,
    ChangePage,
    ChapterList,
    CommunityPage,
    Curve,
    DeliveryPage,
    DeliveryTold,
    DeviceMark,
    DevicePage,
    DevicePoint,
    DevicePoints,
    GivenList,
    GridCount,
    GridCountList,
    Health,
    HeatPlaces,
    HeatRow,
    HeatTable,
    IncidentCurve,
    IncidentPage,
    IncidentWithMoves,
    Leaf,
    MapView,
    OfferList,
    PlaceChoice,
    PlaceList,
    Point,
    ProductList,
    Registered,
    RegisteredList,
    RuleList,
    RunSignal,
    RunSignalList,
    RunWatched,
    SickList,
    SightList,
    SignalList,
    Spot,
    TownShare,
    WallFigures,
    WebhookList,
    Why,
    WindowList,
)
from gateway.web.problems import CONTENT_TYPE

EXAMPLE: Final = Incident(
    id="7d9f3a52-0f4e-5b53-9f0e-3d2f0c9f5a11",
    number="JM20261123-042-007",
    sort=Sort.INCIDENT,
    community="c042",
    cause="fire",
    key="c042-b03",
    category="ext:21-01",
    level=Level.CRITICAL,
    title={"zh": "示例小区3号楼 烟感持续报警", "en": "Smoke persists"},
    place="c042-b03",
    place_name="示例小区3号楼",
    grid="370215001004017",
    body="fire-rescue",
    rule="fire.smoke-persists",
    opened_by="agent-042/k3f9/alarm/17/0",
    opened_at=1_795_435_200_123,
    updated_at=1_795_435_260_456,
    revision=3,
    state="reported",
    joinable=True,
    signals=2,
    devices=("c042-smoke-0017",),
    lon=120.447,
    lat=36.389,
    chain=("370215", "370215001", "370215001004", "370215001004017"),
    timeline=(
        Line(
            seq=1,
            at=1_795_435_200_123,
            who="gateway",
            what="opened",
            why="smoke is true: true at 1795435190000",
            event="agent-042/k3f9/alarm/17/0",
            device="c042-smoke-0017",
            rule="fire.smoke-persists",
        ),
    ),
    due=Due(
        step="accept",
        role=Role.DISPATCHER,
        grid="370215001004",
        body="",
        since=1_795_435_200_123,
        limit="1min",
        how="1min from 2026-11-23 20:00, ends 2026-11-23 20:01",
        warn_at=1_795_435_245_123,
        due_at=1_795_435_260_123,
        next_at=1_795_435_245_123,
    ),
)
_COMMAND: Final = GivenCommand(
    "0b0f3a3e-63a5-5c39-8a55-0b8e5a7f5f11",
    "c042-speaker-0003",
    "broadcast",
    {"text": "三号楼发生火情，请沿安全通道撤离"},
    "done",
    "as asked",
    1_795_435_230_000,
    1_795_435_231_000,
    1_795_435_350_000,
)
_SPEAKER: Final = Device("c042-speaker-0003", "ip-speaker", "agent-042", "c042-b03", "广播音柱3")
_SIGHT: Final = Sight(
    "c042-plate-0001",
    "车辆识别摄像机1",
    "南门",
    "community",
    "37021500011320042001",
    "rtsp://c042-plate-0001.cameras.example/main",
    85,
)
_MOVE: Final = Choice("accept", ("reason",), (), is_next=True)


_DEVICE: Final = Device(
    "sn-2026-0042",
    "fixed-sos",
    "sn-2026-0042",
    "c042-b03-u1-101",
    state=DeviceState.COMMISSIONING,
    state_until=1_795_437_000_000,
    attributes={"serial": "SN-2026/0042"},
)
_LOW: Final = Symptom(Ailment.FLAT, 1_795_435_200_000, EXAMPLE.id)
_WINDOW: Final = Silence(
    "0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4", 1_795_442_400_000, "年检", "wang", 0, "c042-lift-01", kind="maintenance"
)
_RULE: Final = Standing(
    id="fire.smoke-persists",
    title={"zh": "烟感持续报警", "en": "Smoke persists"},
    sort=Sort.INCIDENT,
    level=Level.CRITICAL,
    category="ext:21-01",
    ceiling=Status.ACTIVE,
    in_force={Status.ACTIVE: 276, Status.SHADOW: 1},
    cases=9,
    failed=0,
    gaps=[],
    pending=0,
    firing=1,
    incidents=12,
    false_alarms=3,
    false_alarm_rate=0.25,
)
_ACCOUNT: Final = RuleAccount(
    _RULE,
    [Decision(1_795_435_100_000, "wang", Status.SHADOW, "施工扬尘，误报太多", 1)],
    [Finding("c042", "c042-smoke-0017", Phase.FIRING, 1_795_435_200_123, 1_795_435_190_000, "opened", EXAMPLE.id)],
    [
        Case(
            EXAMPLE.id,
            EXAMPLE.number,
            EXAMPLE.title,
            EXAMPLE.community,
            EXAMPLE.place_name,
            EXAMPLE.level,
            EXAMPLE.state,
            EXAMPLE.opened_at,
        )
    ],
    "rules/fire/smoke-persists.yaml",
    "id: fire.smoke-persists\n",
)
DRAFT_RULE: Final = """\
id: fire.smoke-brief
title: {zh: 短暂烟雾, en: Brief smoke}
status: draft
scope: device
kinds: [smoke]
when: {smoke: {is: true}}
hold: 3s
incident:
  cause: fire
  at: building
  category: "ext:21-01"
  level: urgent
  title: {zh: "{place} 短暂烟雾", en: "{place}: brief smoke"}
"""
_WHY: Final = "smoke is true: true at 1795435190000"
_TRIAL: Final = Trial(
    "0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4",
    "fire.smoke-brief",
    {"zh": "短暂烟雾", "en": "Brief smoke"},
    "c042",
    date(2026, 11, 23),
    1_795_449_600_000,
    TrialState.DONE,
    1.0,
    Tried(
        "fire.smoke-brief",
        {"zh": "短暂烟雾", "en": "Brief smoke"},
        "c042",
        1_795_363_200_000,
        1_795_449_600_000,
        rows=18_210,
        keys=24,
        findings=1,
        notes={"opened": 1},
        opened=[
            WouldOpen(
                1_795_435_193_000,
                "c042-smoke-0017",
                {"zh": "示例小区3号楼 短暂烟雾", "en": "Brief smoke"},
                Level.URGENT,
                "ext:21-01",
                "fire",
                "c042-b03",
                "示例小区3号楼",
                _WHY,
                Sort.INCIDENT,
                twin=EXAMPLE.id,
            )
        ],
        found=[Found(1_795_435_193_000, "c042-smoke-0017", "opened", _WHY, "示例小区3号楼", EXAMPLE.id)],
        real=[
            Opened(
                EXAMPLE.id,
                EXAMPLE.number,
                EXAMPLE.opened_at,
                EXAMPLE.title,
                EXAMPLE.level,
                EXAMPLE.cause,
                EXAMPLE.place_name,
                EXAMPLE.rule,
                EXAMPLE.state,
                is_found=True,
            )
        ],
        replaces=False,
    ),
)
_ASKED: Final = Question(By.COMMUNITY, 1_795_363_200_000, 1_795_449_600_000)
_ASKED_AT: Final = 1_795_435_300_000
APPRAISED: Final = appraise([EXAMPLE], _ASKED, Names({"c042": "示例小区"}), _ASKED_AT)

_LINE: Final = AuditLine(
    4711,
    1_795_435_200_000,
    "wang",
    "property_manager",
    "device.register",
    "c042/sn-2026-0042",
    "10.1.1.1",
    "done",
    "",
    "9f2c" * 16,
)
_PERSON: Final = AccountLine(
    "5f0c7a1e",
    "wang",
    "王芳",
    Role.PROPERTY_MANAGER,
    (),
    ("c042",),
    1_795_000_000_000,
    1_795_435_000_000,
    is_disabled=False,
    is_locked=False,
    has_second_factor=True,
)
_COMMUNITY: Final = Community("c042", 42, "示例小区", ("370215", "370215001", "370215001004"))

COMPONENTS: Final = (
    AccountPage,
    AuditPage,
    Verdict,
    ChapterList,
    CommunityPage,
    PlaceList,
    RegisteredList,
    Shift,
    IncidentPage,
    ChangePage,
    IncidentWithMoves,
    GivenList,
    OfferList,
    SightList,
    Why,
    DevicePage,
    SickList,
    DevicePresent,
    Settled,
    WindowList,
    RuleList,
    RuleAccount,
    Ruled,
    Report,
    Trial,
    WebhookList,
    Webhook,
    Hooked,
    DeliveryPage,
    ProductList,
    ProductChanged,
    Granted,
    Curve,
    IncidentCurve,
    SignalList,
    AskList,
    CallerList,
    StandView,
    RunWatched,
    RunSignalList,
    MapView,
    GridCountList,
    DevicePoints,
    HeatTable,
    HeatPlaces,
    WallFigures,
)
_WEBHOOK: Final = Webhook(
    "0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4",
    "街道大屏",
    "https://receiver.example/events",
    ("incident.opened", "incident.closed"),
    ("370215001",),
    (),
    "wang",
    1_795_435_200_000,
    4711,
    ok_at=1_795_435_260_000,
)
_DELIVERY: Final = DeliveryTold(
    f"{EXAMPLE.id}/1/opened",
    "incident.opened",
    State.DONE,
    1,
    1_795_435_200_200,
    1_795_435_200_200,
    1_795_435_200_400,
    "200 ok",
)
_PRODUCT: Final = Product("fixed-sos", 1_795_435_200_000, 1_795_435_200_000)
_LEVELS: Final = {"normal": 0, "urgent": 1, "critical": 1}
_GRID: Final = GridCount("370215001004", GridLevel.CENTRE, "示例社区网格中心", "370215001", _LEVELS, 4, 424, 3)
_SPOT: Final = Spot(
    "c042", "示例小区", 120.447, 36.389, ("370215", "370215001", "370215001004"), 106, 2, 0, _LEVELS, "poor"
)
_MARK: Final = DeviceMark("c042-smoke-0017", "烟感17", "poor", "电量低")
_WARM: Final = HeatRow("c042", "示例小区", 120.447, 36.389, _LEVELS, 2, 7)
_HEARD: Final = Heard(18_210, 1_795_435_200_123, "smoke", True)
_BEGUN: Final = 1_795_435_190_000
_EXPECTED: Final = Expected(
    "sos-pressed",
    {"zh": "一键报警按下", "en": "Help button pressed"},
    "c998",
    "c998-sos-0001",
    _BEGUN,
    _BEGUN + 60_000,
    "ext:21-03",
    "c998-b13-u1-701",
    5_000,
)
_RUN: Final = Run(
    "0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4",
    "done",
    ["sos-pressed"],
    ["c998"],
    1.0,
    {"duplicate": 2, "late": 0, "garbage": 0},
    Baseline("5f0c7a1e", 4700),
    _BEGUN,
    _BEGUN + 90_000,
    _BEGUN + 90_000,
    1,
    [_EXPECTED],
    sent=1,
    messages=73,
    alarms=1,
    p50_ms=5.1,
    p99_ms=34.0,
    injected={"duplicate": 2},
)
_SCENARIO: Final = ScenarioView(
    "sos-pressed",
    {"zh": "一键报警按下", "en": "Help button pressed"},
    "fixed-sos",
    60_000,
    category="ext:21-03",
    at="place",
    within=5_000,
)
_EXAMPLES: Final[dict[str, Struct]] = {
    "Curve": Curve([Point(1_795_435_200_123, 21.5), Point(1_795_435_260_123, 21.6)]),
    "IncidentCurve": IncidentCurve(
        [Point(1_795_435_200_123, 1.0)], [1_795_435_200_123], 1_795_433_400_123, 1_795_437_000_123
    ),
    "SignalList": SignalList([_HEARD]),
    "AskList": AskList(
        [
            Awaited(
                "sn-2026-0042",
                "sn-2026-0042",
                "c042",
                "fixed-sos",
                1_796_040_000_000,
                refused=2,
                refused_at=1_795_435_200_000,
                refused_from="10.1.1.1",
            )
        ]
    ),
    "CallerList": CallerList([CallerLine(1_795_435_200_123, 0, Need.MEDICAL, "000-0000-0001", "老人摔倒", False)]),
    "StandView": StandView(["c998", "c999"], 2, 60.0, _BEGUN, [_SCENARIO], _RUN.id),
    "RunWatched": RunWatched(
        _RUN,
        True,
        [Judged(_EXPECTED, RunVerdict.OPENED, EXAMPLE, 2_200)],
        [FaultJudged("duplicate", 2, 2, 2, True)],
        [Moving("calls.button-pressed", 0, 1, 1)],
        [EXAMPLE],
        [],
        {},
        2,
    ),
    "RunSignalList": RunSignalList([RunSignal("c998", "c998-sos-0001", Heard(7, _BEGUN, "pressed", is_event=True))]),
    "MapView": MapView([_SPOT], [_GRID], 4711),
    "GridCountList": GridCountList([_GRID]),
    "DevicePoints": DevicePoints([DevicePoint(120.447, 36.389, "3号楼", [_MARK])], []),
    "HeatTable": HeatTable(7, "", 2, [_WARM]),
    "HeatPlaces": HeatPlaces([_WARM]),
    "WallFigures": WallFigures(
        Counts(2, _LEVELS, {"reported": 2}, 1, 0),
        1,
        [EXAMPLE],
        [EXAMPLE],
        [TownShare("370215001", "环秀街道", _LEVELS, 100)],
        Health(29_362, 72, 277, 1),
        Day(36, 30, 28, 34, 42_000),
    ),
    "ProductList": ProductList([_PRODUCT]),
    "ProductChanged": ProductChanged(_PRODUCT, "shown-once"),
    "Granted": Granted("c042", "sn-2026-0042", "shown-once"),
    "WebhookList": WebhookList([_WEBHOOK]),
    "Webhook": _WEBHOOK,
    "Hooked": Hooked(_WEBHOOK, "shown-once"),
    "DeliveryPage": DeliveryPage([_DELIVERY], None),
    "AccountPage": AccountPage([_PERSON], None),
    "AuditPage": AuditPage([_LINE], "4711"),
    "Verdict": Verdict(4711, 4711, _LINE.hash),
    "ChapterList": ChapterList([Chapter(1_795_435_200_000, "wang", "register", "", "SN-2026/0042")]),
    "CommunityPage": CommunityPage([_COMMUNITY], "c042"),
    "PlaceList": PlaceList([PlaceChoice("c042-b03-u1-101", "3号楼 1单元 101室", "household", 120.447, 36.389)]),
    "RegisteredList": RegisteredList(
        [Registered(_DEVICE, "shown-once"), Registered(None, code="taken", detail="sos-1 is registered here already")]
    ),
    "Shift": Shift(1_795_406_400_000, 1_795_435_200_000, [EXAMPLE], [], 0, 1, 0, 0),
    "DevicePage": DevicePage([_DEVICE], "sn-2026-0042"),
    "SickList": SickList([Patient(_DEVICE, (_LOW,), is_life_safety=True, homes=1)]),
    "DevicePresent": DevicePresent(_DEVICE, 1_795_435_200_123, values={"battery": LastValue(88.0, 1_795_435_200_123)}),
    "Settled": Settled(_DEVICE, "shown-once"),
    "WindowList": WindowList([_WINDOW]),
    "RuleList": RuleList([_RULE]),
    "RuleAccount": _ACCOUNT,
    "Ruled": Ruled(_RULE, 1, []),
    "Trial": _TRIAL,
    "Report": make_report(APPRAISED, _ASKED, _ASKED_AT),
    "IncidentPage": IncidentPage([EXAMPLE], None, 4711),
    "ChangePage": ChangePage([EXAMPLE], 4711, is_complete=True),
    "IncidentWithMoves": IncidentWithMoves(EXAMPLE, [_MOVE]),
    "GivenList": GivenList([Given(_COMMAND, "wang", "现场确认有明火")]),
    "OfferList": OfferList(
        [Offer("broadcast", {"text": FieldSpec("text")}, (Near(_SPEAKER, "building", "3号楼", 0),))]
    ),
    "SightList": SightList([_SIGHT]),
    "Why": Why(
        EXAMPLE.rule,
        EXAMPLE.opened_at,
        EXAMPLE.devices[0],
        EXAMPLE.timeline[0].why,
        False,
        [Leaf("when", "alarm of smoke holds for 10s", True, "true since 19:59:50")],
    ),
}
EVENTS: Final = (
    'id: 4712\nevent: incident\ndata: {"id": "7d9f3a52-0f4e-5b53-9f0e-3d2f0c9f5a11", "state": "reported"}'
    '\n\nid: 4712\nevent: pulse\ndata: {"now": 1795435260456, "is_fresh": true, "is_gateway_there": true}\n\n'
)
_RETRY_AFTER: Final = {
    "description": "seconds until it is worth asking again",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
ALWAYS: Final = (400, 401, 403, 429, 503)
_PROBLEMS: Final = {
    400: ("token-in-url", "a token never stands in an address"),
    401: ("sign-in-needed", "sign in, or send a token: Authorization: Bearer scg_…"),
    403: ("not-allowed", "a tester may not do this (incidents.act)"),
    404: ("unknown", "there is no such thing, or it is not in your scope"),
    409: ("late", "li was faster (accept): look at revision 4 and decide again"),
    413: ("too-large", "a request has at most 262144 bytes"),
    422: ("not-valid", "body.verb: String should match the pattern"),
    429: ("too-often", "too many requests; wait 3 s"),
    503: ("gateway-away", "the gateway does not answer; send it again"),
}


def answers(name: str, what: str) -> dict[int | str, dict[str, Any]]:
    """The good answer of a route: a value of the document's component ``name``."""
    content = {
        "schema": {"$ref": f"#/components/schemas/{name}"},
        "example": msgspec.to_builtins(_EXAMPLES[name]),
    }
    return {200: {"description": what, "content": {"application/json": content}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that are no success; to what every route may answer the others come by themselves."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*ALWAYS, *statuses}):
        code, detail = _PROBLEMS[status]
        example = {"type": "about:blank", "status": status, "code": code, "detail": detail}
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
        found[status] = {"description": code, "content": {CONTENT_TYPE: content}}
        if status in (429, 503):
            found[status]["headers"] = {"Retry-After": _RETRY_AFTER}
    return found


def route_description(routers: Sequence[APIRouter]) -> APIRouter:
    """The document of these routers' routes, at ``/api/v1/openapi.json``."""
    router = APIRouter()
    document = msgspec.json.encode(describe([route for one in routers for route in one.routes]))

    @router.get("/api/v1/openapi.json", dependencies=[Depends(public("it tells what the API is, and nothing in it"))])
    async def read_description() -> Response:
        """The OpenAPI document."""
        return Response(document, media_type="application/json")

    return router


def describe(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The document of these routes."""
    document = get_openapi(
        title="Smart Community Gateway", version="1", openapi_version="3.1.0", routes=routes, description=_ABOUT
    )
    _, schemas = msgspec.json.schema_components(COMPONENTS, ref_template="#/components/schemas/{name}")
    problem = {
        "type": "object",
        "required": ["type", "status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "stable"},
            "detail": {"type": "string", "description": "for people"},
        },
    }
    for operation in [one for methods in document["paths"].values() for one in methods.values()]:
        if "requestBody" in operation:
            operation["responses"] |= {str(status): answer for status, answer in errors(413).items()}
    components = document.setdefault("components", {})
    known = {name: schema for name, schema in components.get("schemas", {}).items() if "ValidationError" not in name}
    for name in known.keys() & schemas.keys():
        if set(known[name].get("enum", ())) != set(schemas[name].get("enum", ())):
            raise RuntimeError(f"two types of the document are called {name}")
    components["schemas"] = {**known, **schemas, "Problem": problem}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    return document


_ABOUT: Final = (
    "Times are milliseconds since 1970-01-01T00:00:00Z. A token is made on the page of one's account; it carries the "
    "permissions that were chosen for it and never more than its account has, inside the account's scope. Errors are "
    "problem+json (RFC 9457) with a stable `code`; 429 and 503 say by `Retry-After` when to ask again."
)
