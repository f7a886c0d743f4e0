"""Every page that people open, in one table: who opens it, and its pictures for the docs.

`tests.screenshots` makes the pictures; tests/browser/test_every_page.py opens each page on small and large screens, in
both languages, and asks axe-core. A route that answers pages and stands neither in `PAGES` nor in `PARTS` fails there:
whoever adds a page adds a line here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from msgspec import Struct
from playwright.async_api import FilePayload
from playwright.async_api import Page as Tab

from gateway.core.model import Device, Incident, Level, RegistryChange, Role, Scalar
from gateway.runtime.accounts import Deed
from gateway.runtime.signing import Origin
from gateway.runtime.webhooks import Webhook, make_test
from tests.web.control_room import ControlRoom
from tests.web.house import CLI, PASSWORD
from tests.web.lively import Days, open_lively

Prepare = Callable[[Tab], Awaitable[object]]

PHONE: Final = 360
"""Pixels of the narrowest telephone that counts."""


class Shot(Struct, frozen=True):
    """One picture: in a size, a language and a light. ``query`` is added to the page's path; ``whole`` takes all of a
    page that is longer than the window."""

    name: str
    width: int = 1280
    height: int = 800
    language: str = "zh"
    theme: str = "light"
    density: str = "cosy"
    prepare: Prepare | None = None
    query: str = ""


class Page(Struct, frozen=True):
    """One route with its pictures. ``who`` is the account, "" for nobody; ``path`` is what is opened, with the scene's
    names in braces. ``is_own_look``: a page that brings its own look, whatever the person has chosen.
    ``has_stand``: its pictures are made beside a test stand that plays (`tests.screenshots`)."""

    route: str
    who: str
    shots: tuple[Shot, ...]
    path: str = ""
    is_own_look: bool = False
    has_stand: bool = False

    @property
    def address(self) -> str:
        """What is opened."""
        return self.path or self.route


# --- what is done before a picture is taken -----------------------------------------------------------------------


async def open_first(tab: Tab) -> None:
    """The first case, beside the list."""
    await tab.click(".case-title >> nth=0")
    await tab.wait_for_selector("#pane [data-incident]")


async def open_why(tab: Tab) -> None:
    """Why it fired."""
    await tab.click("#incident-why > summary")
    await tab.wait_for_selector(".leaf")
    await tab.evaluate("window.scrollTo(0, 0)")


async def open_desk(tab: Tab) -> None:
    """What may be asked of which devices, and the cameras near by."""
    await tab.click("#incident-cameras > summary")
    await tab.wait_for_selector("#incident-cameras code")
    await tab.click("#incident-desk > summary")
    await tab.click("#incident-desk .move-more > summary >> nth=0")
    await tab.evaluate("window.scrollTo(0, document.querySelector('#incident-reach').offsetTop - 60)")


async def try_draft(tab: Tab) -> None:
    """The rule as it stands, but four seconds sooner, on a day with a fire."""
    await tab.select_option("[name=community]", "c001")
    await tab.fill("[name=day]", "2026-11-24")
    text = tab.locator("textarea[name=text]")
    await text.fill((await text.input_value()).replace("hold: 10s", "hold: 6s"))
    await tab.click("button.is-main")
    await tab.wait_for_selector("#came-title")


async def open_town(tab: Tab) -> None:
    """A town on the map."""
    await tab.wait_for_selector(".cluster, .pin")
    await tab.click("[data-level=town] .grid-name >> nth=-1")
    await tab.wait_for_timeout(400)


async def open_devices(tab: Tab) -> None:
    """From a town down to the devices of a community."""
    await open_town(tab)
    await tab.click("[data-level=centre]:not([hidden]) .grid-name >> nth=-1")
    await tab.wait_for_selector("[data-level=station]:not([hidden])")
    await tab.click("[data-community]:not([hidden]) .grid-name >> nth=-1")
    await tab.wait_for_selector(".leaflet-units-pane .unit")


async def open_places(tab: Tab) -> None:
    """The places of the warmest community."""
    await tab.click(".heat-name >> nth=0")
    await tab.wait_for_selector("#heat-places[data-community]")


async def verify(tab: Tab) -> None:
    """The audit log, checked."""
    await tab.click("form[action='/audit/verify'] button")
    await tab.wait_for_load_state()


async def call(tab: Tab) -> None:
    """A resident holds the button."""
    await tab.locator("label").first.click()
    await tab.locator("#send[type=button]").hover()
    await tab.mouse.down()
    await tab.wait_for_selector("#done:not([hidden])")
    await tab.mouse.up()


async def hold(tab: Tab) -> None:
    """The button, half held."""
    await tab.locator("#send[type=button]").hover()
    await tab.mouse.down()
    await tab.wait_for_timeout(600)


async def load_table(tab: Tab) -> None:
    """A table of devices is taken in, with one row that is not."""
    table = "code,profile,place\nS-9001,nb-smoke,{0}\nS-9002,nb-smoke,{0}\nS-9003,nb-smok,{0}\n"
    place = await tab.evaluate("document.querySelector('#community, [name=community]').value")
    file = FilePayload(name="devices.csv", mimeType="text/csv", buffer=table.format(f"{place}-b01").encode())
    await tab.set_input_files("input[type=file]", file)
    await tab.click("form.change button")
    await tab.wait_for_selector("#report-title")
    await cover(tab, ".bulk-report code")


async def cover(tab: Tab, secrets: str = ".qr, code") -> None:
    """What is seen once stands in no picture."""
    await tab.evaluate(
        """what => document.querySelectorAll(what).forEach(one => { one.style.filter = 'blur(5px)'; })""", secrets
    )


# --- the table ----------------------------------------------------------------------------------------------------

PAGES: Final = (
    Page(
        "/board",
        "dispatcher",
        (
            Shot("board", 1680, 945, prepare=open_first),
            Shot("board-night", 1360, theme="dark", density="dense"),
            Shot("board-english", 1360, language="en"),
            Shot("board-phone", PHONE, 740),
        ),
    ),
    Page(
        "/incidents/{id}",
        "dispatcher",
        (
            Shot("incident", 1280, 1240, prepare=open_why),
            Shot("incident-reach", 1280, 900, prepare=open_desk),
            Shot("incident-phone", PHONE, 900, theme="dark"),
        ),
        "/incidents/{incident}",
    ),
    Page(
        "/map",
        "dispatcher",
        (
            Shot("map", 1360, prepare=open_town),
            Shot("map-devices", 1360, prepare=open_devices),
            Shot("map-night", 1360, theme="dark"),
            Shot("heat", 1360, query="?days=7"),
            Shot("heat-places", 1360, query="?days=30", prepare=open_places, theme="dark", language="en"),
        ),
    ),
    Page("/map/heat/{community}", "dispatcher", (), "/map/heat/{community}?days=30"),
    Page("/wall", "wall", (Shot("wall", 1920, 1080),), is_own_look=True),
    Page(
        "/handover",
        "dispatcher",
        (Shot("handover", 1280, 1100), Shot("handover-english", 1280, 1100, language="en", theme="dark")),
    ),
    Page("/devices", "keeper", (Shot("devices-sick", 1280, 700), Shot("devices", 1280, 800, query="?view=all"))),
    Page("/devices/new", "keeper", (Shot("device-new", 1280, 860), Shot("device-new-phone", PHONE, 900))),
    Page("/devices/{community}/{id}", "keeper", (Shot("device", 1280, 1100),), "/devices/{community}/{device}"),
    Page("/bulk", "keeper", (Shot("bulk", 1280, 800, prepare=load_table),)),
    Page("/windows", "keeper", (Shot("windows", 1280, 800),)),
    Page("/rules", "administrator", (Shot("rules", 1280, 1100),)),
    Page("/rules/{id}", "administrator", (Shot("rule", 1280, 1100),), "/rules/fire.smoke-persists"),
    Page("/appraisal", "dispatcher", (Shot("appraisal", 1440, 1000),)),
    Page("/tester", "tester", (Shot("stand", 1280, 900),), has_stand=True),
    Page("/tester/runs/{id}", "tester", (Shot("stand-run", 1280, 800),), has_stand=True),
    Page(
        "/tester/rules", "tester", (Shot("drafts", 1280, 1000, query="?rule=fire.smoke-persists", prepare=try_draft),)
    ),
    Page("/webhooks", "administrator", (Shot("webhooks", 1280, 900),)),
    Page("/webhooks/{id}", "administrator", (Shot("webhook", 1280, 800),), "/webhooks/{webhook}"),
    Page("/products", "administrator", (Shot("products", 1280, 640),)),
    Page("/accounts", "security", (Shot("accounts", 1280, 640),)),
    Page("/accounts/{id}", "security", (Shot("account-granted", 1280, 900),), "/accounts/{account}"),
    Page("/audit", "auditor", (Shot("audit", 1280, 800),)),
    Page("/account", "dispatcher", (Shot("account", 1280, 1000),)),
    Page("/account/totp", "dispatcher", (Shot("second-factor", 1280, 760, prepare=cover),)),
    Page("/login", "", (Shot("sign-in", 1280, 640),)),
    Page("/login/password", "newcomer", (Shot("first-password", 1280, 640),)),
    Page(
        "/r/{address}",
        "",
        (
            Shot("resident", PHONE, 740),
            Shot("resident-holding", PHONE, 740, theme="dark", language="en", query="?lang=en", prepare=hold),
            Shot("resident-recorded", PHONE, 740, prepare=call),
        ),
        "{help}",
        is_own_look=True,
    ),
)

PARTS: Final = {
    "/": "goes on to somebody's own page",
    "/account/stay": "no page",
    "/appraisal/export.csv": "a file",
    "/audit/export.csv": "a file",
    "/board/alarms": "a part of the board",
    "/board/rows": "a part of the board",
    "/board/stream": "a stream",
    "/appraisal/export.xlsx": "a file",
    "/bulk/places.csv": "a file",
    "/bulk/places.xlsx": "a file",
    "/bulk/template.xlsx": "a file",
    "/devices/{community}/{id}/past": "a part of the device's page",
    "/devices/{community}/{id}/points": "numbers",
    "/devices/{community}/{id}/stream": "a stream",
    "/devices/{community}/{id}/values": "a part of the device's page",
    "/healthz": "for programs",
    "/incidents/{id}/callers": "a part of the incident's page",
    "/incidents/{id}/cameras": "a part of the incident's page",
    "/incidents/{id}/commands": "a part of the incident's page",
    "/incidents/{id}/commands/given": "a part of the incident's page",
    "/incidents/{id}/points": "numbers",
    "/incidents/{id}/pane": "the incident's page beside the board",
    "/incidents/{id}/stream": "a stream",
    "/incidents/{id}/why": "a part of the incident's page",
    "/login/enrol": "the form of /account/totp, for whoever must have a second factor",
    "/login/totp": "one field, tested in tests/web/test_login.py",
    "/map/communities/{id}": "for the map's script",
    "/map/data": "for the map's script",
    "/map/grids/{code}": "a part of the map's page",
    "/map/heat": "a part of the map's page",
    "/map/stream": "a stream",
    "/metrics": "for programs",
    "/r/receipt/{secret}": "what /r/{address} shows after a press; tests/browser/test_resident.py opens it",
    "/readyz": "for programs",
    "/tester/rules/days": "a part of the drafts' page",
    "/tester/rules/{id}": "where /tester/rules leads to; its picture is taken there",
    "/tester/rules/{id}/part": "a part of the trial's page",
    "/tester/runs/{id}/part": "a part of the run's page",
    "/webhooks/{id}/deliveries": "a part of the webhook's page",
    "/wall/part": "a part of the wall screen",
    "/wall/stream": "a stream",
}
"""Other routes that are read, below no ``/api/``, and why they are no page of their own."""


# --- the scene ----------------------------------------------------------------------------------------------------


WINDOWS: Final = ("年度检测", "更换电池")
"""Why devices are silenced."""

HOOK: Final = "镇街值班系统"
"""Who is told of incidents."""


class Scene(Struct):
    """A lively control room, the accounts of those who look (name → the secret of a session), and the names by which
    the table's paths are filled."""

    room: ControlRoom
    days: Days
    secrets: dict[str, str]
    names: dict[str, str]

    def url(self, page: Page, shot: Shot | None = None) -> str:
        """Where to look."""
        query = shot.query if shot is not None else ""
        return self.room.url + page.address.format(**self.names) + query

    def list_data(self) -> set[str]:
        """What stands on the pages in whatever language it was given: names, and what people wrote."""
        room = self.room
        devices = {device.name for device in room.ledger.devices()}
        people = {account.title for account in room.accounts.accounts()}
        return (self.days.list_names() | devices | people | {HOOK, *WINDOWS}) - {""}


async def set_scene(folder: Path, communities: int, days: int, causes: int) -> Scene:
    """Lets the days pass. The room is entered and must be left (``scene.room``)."""
    room, days_ = open_lively(folder, 1, communities)
    await room.__aenter__()
    try:
        await days_.live_through(days, causes)
        return await _look_around(room, days_)
    except BaseException:
        await room.__aexit__()
        raise


async def _look_around(room: ControlRoom, days: Days) -> Scene:
    community = days.communities[0]
    roles = {
        "dispatcher": Role.DISPATCHER,
        "administrator": Role.ADMINISTRATOR,
        "security": Role.SECURITY,
        "auditor": Role.AUDITOR,
        "wall": Role.WALL,
        "tester": Role.TESTER,
    }
    titles = {"dispatcher": "调度一席", "keeper": "物业值班", "wall": "指挥中心大屏"}
    for name, role in roles.items():
        room.add(name, role, title=titles.get(name, ""))
    room.add("keeper", Role.PROPERTY_MANAGER, (), (community,), title=titles["keeper"])
    newcomer, _ = room.officers.add(CLI, "newcomer", "", password=PASSWORD, must_change=True)
    room.officers.grant(CLI, newcomer.id, Role.DISPATCHER, ("370215",), (), "")
    secrets = {
        name: room.sign_in.sign_in(name, PASSWORD, Origin("127.0.0.1", "Chromium")).secret
        for name in (*roles, "keeper", "newcomer")
    }
    for number, reason in enumerate(WINDOWS):
        await days.silence(number, reason, 4 - 2 * number)
    await days.fall_ill(0)
    help_page = await days.call(0, "medical")
    await days.call(2, "gas")
    room.app.state.console.atlas.spots = room.app.state.console.atlas._read()
    open_ones = room.ledger.incidents(open_only=True)
    grave = [one for one in open_ones if one.level is Level.CRITICAL and one.rule != "sos.button-pressed"]
    shown = next(iter(sorted(grave or open_ones, key=lambda one: -len(one.timeline))))
    await _equip(room, shown)
    device = next(one for one in room.ledger.devices(community) if one.profile == "nb-smoke")
    keeper = room.accounts.find_account("keeper")
    assert keeper is not None
    names = {
        "community": community,
        "incident": shown.id,
        "device": device.id,
        "account": keeper.id,
        "help": help_page,
        "webhook": await _hook(room),
    }
    return Scene(room, days, secrets, names)


async def _hook(room: ControlRoom) -> str:
    """Somebody outside is told of incidents, and a model has a secret. The webhook's id."""
    now = room.sign_in.clock()
    hook = Webhook(
        "0d6b1f0e3c914e6fb1c5b6a2f2f0a7c4",
        HOOK,
        "https://duty.example/events",
        ("incident.opened", "incident.closed"),
        ("370215",),
        (),
        "administrator",
        now,
    )
    room.webhooks.add(hook, "not-in-any-picture", Deed(now, "administrator", "webhook.add", hook.id))
    room.webhooks.send(make_test(hook, "picture", now), 5, Deed(now, "administrator", "webhook.test", hook.id))
    room.products.put(
        "fixed-sos", "not-in-any-picture", "key", now, Deed(now, "administrator", "product.make", "fixed-sos")
    )
    return hook.id


async def _equip(room: ControlRoom, incident: Incident) -> None:
    """A speaker and a camera where it happened. The days have none: both are silent for most of a hand clock's time."""
    source = next(one.source for one in room.ledger.devices(incident.community) if one.profile == "edge-agent")
    reach: dict[str, Scalar] = {"gb28181": "37021500001320000042", "rtsp": "rtsp://10.12.3.42:554/live"}
    devices = (
        Device("hall-speaker", "ip-speaker", source, incident.place, name="单元门厅音柱"),
        Device("hall-camera", "ip-camera", source, incident.place, name="单元门厅", attributes=reach),
    )
    answer = await room.world.pipeline.submit(incident.community, RegistryChange("test", devices=devices), "equip")
    assert answer == "done", answer
