"""The composition root: settings → adapters → runtime, by plain calls. The only place that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import uvicorn
from msgspec import Struct

from gateway.adapters.accounts import SqlAccounts
from gateway.adapters.broker import EmbeddedBroker
from gateway.adapters.calls import SqlCalls
from gateway.adapters.ledger import SqlLedger, open_ledger
from gateway.adapters.mqtt import BrokerSettings, MqttInbox
from gateway.adapters.notify import MailNotifier, TextMessageNotifier, WebhookNotifier
from gateway.adapters.platform import SHORTEST_KEY, HttpPlatform
from gateway.adapters.portal import OpenIdPortal
from gateway.adapters.products import SqlProducts
from gateway.adapters.receivers import HttpReceivers
from gateway.adapters.secrets import ArgonSecrets
from gateway.adapters.stand import HttpStand
from gateway.adapters.webhooks import SqlWebhooks
from gateway.core.catalog import Catalog, build_catalog
from gateway.core.district import GridScheme, LevelScheme
from gateway.core.model import GridLevel, Role
from gateway.core.state import CommunityState
from gateway.core.worktime import DAY_MS
from gateway.errors import GatewayError
from gateway.runtime.access import ROLE_TITLES
from gateway.runtime.accounts import Deed
from gateway.runtime.catalog_files import read_catalog
from gateway.runtime.clock import ForwardClock, RunningClock
from gateway.runtime.coordinates import BOX
from gateway.runtime.district_check import Rules, check_tables, read_tables
from gateway.runtime.district_export import write_district
from gateway.runtime.district_rows import COMMUNITIES, CONTACTS
from gateway.runtime.district_tables import BadRow, Report
from gateway.runtime.door import DoorClient, DoorServer
from gateway.runtime.help_pages import HelpPage, PageKeys, issue_pages, plan_pages
from gateway.runtime.notifying import Teller
from gateway.runtime.officers import Officers
from gateway.runtime.outbox import Outbox
from gateway.runtime.pipeline import Pipeline
from gateway.runtime.plates import PlateSeal, load_key
from gateway.runtime.ports import Ledger, LedgerDown, Notifier, PlatformAway
from gateway.runtime.products import ProductDesk
from gateway.runtime.reconciling import Difference, Reconciler, Summary
from gateway.runtime.registrar import (
    Changes,
    find_changes,
    refuse_running,
    submit_changes,
    write_changes,
    write_credentials,
)
from gateway.runtime.signing import MINUTE_MS, Policy, SignIn
from gateway.runtime.standing import read_standing
from gateway.runtime.webhook_courier import Courier
from gateway.runtime.webhook_desk import WebhookDesk
from gateway.runtime.writer import Catalogs, load_engine
from gateway.settings import Settings
from gateway.web.access import Gate, Site
from gateway.web.app import create_app
from gateway.web.help_desk import HelpDesk

log = logging.getLogger(__name__)

GATEWAY_IDENTITY: Final = "gateway"

LEAVE_S: Final = 5
"""How long the web process waits at its end for answers that are under way."""

CREDENTIALS_S: Final = 1.0
"""How often, in real seconds, the embedded broker's password file is held against the ledger."""


def open_clock(settings: Settings) -> RunningClock:
    """The clock that the settings ask for."""
    clock = settings.clock
    return RunningClock(clock.speed, clock.anchor_real, clock.anchor)


def open_migrated_ledger(settings: Settings) -> SqlLedger:
    """The ledger, its tables brought up to date."""
    settings.data.mkdir(parents=True, exist_ok=True)
    ledger = open_ledger(settings.ledger_url)
    ledger.migrate()
    return ledger


def open_catalogs(ledger: Ledger, current: Catalog) -> Catalogs:
    """Finds catalogs by hash: the current one at once, older ones as the ledger keeps them."""
    known = {current.hash: current}

    def find(hash: str) -> Catalog:
        if hash not in known:
            files = ledger.load_catalog(hash)
            if files is None:
                raise LookupError(f"the ledger has no catalog {hash}")
            known[hash] = build_catalog(files)
        return known[hash]

    return find


def open_seal(settings: Settings, catalog: Catalog) -> PlateSeal:
    """The seal for plates, with this installation's key."""
    return PlateSeal(load_key(settings.data / "plate.key"), plate_fields(catalog))


def open_scheme(settings: Settings) -> GridScheme:
    """How grid codes are built. Raises GatewayError for a level that there is not."""
    section = settings.district
    if not section.levels:
        return GridScheme(section.prefix)
    try:
        levels = {
            GridLevel(name): LevelScheme(
                level.digits, tuple(GridLevel(parent) for parent in level.parents), level.shared, level.serial
            )
            for name, level in section.levels.items()
        }
    except ValueError as error:
        known = ", ".join(GridLevel)
        raise GatewayError("bad-setting", str(error), "district.levels", f"levels are {known}") from error
    return GridScheme(section.prefix, levels)


class Imported(Struct, frozen=True):
    """What became of an import: how many of each kind are new, changed or gone, and the sources without a password."""

    counts: Mapping[str, Mapping[str, int]]
    without_password: int


def import_district(
    settings: Settings,
    folder: Path,
    actor: str,
    report: Report,
    open_bar: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
    credentials: Path | None = None,
    *,
    retire: bool = False,
    dry_run: bool = False,
) -> Imported:
    """Takes the good rows of a folder of tables in; past a running gateway never, but by its door. Bad rows come into
    the report. With ``credentials``, sources that have no password get one. Raises GatewayError."""
    if credentials is not None and credentials.exists():
        what = "it is there already, and may hold passwords that nobody else knows"
        raise GatewayError("not-empty", what, str(credentials), "give a new file")
    catalog = read_catalog(settings.profiles, settings.rules)
    rules = Rules(catalog, open_scheme(settings), settings.district.box or BOX)
    tables = read_tables(folder, report)
    ledger = open_migrated_ledger(settings)
    now = open_clock(settings)()
    catalogs = open_catalogs(ledger, catalog)
    standing = read_standing(ledger, catalogs, catalog, now)
    with open_bar("checking", tables.size) as on_rows:
        seal = open_seal(settings, catalog)
        plan = check_tables(tables, standing, rules, seal, now, report, retire=retire, on_rows=on_rows)
    changes = find_changes(plan, standing, actor)
    if not (dry_run or changes.is_nothing):
        with open_bar("importing", len(changes.events)) as on_part:
            refused = asyncio.run(_submit(settings, ledger, changes, on_part))
            if refused is None:
                refuse_running(ledger, now)
                refused = write_changes(ledger, changes, catalog, catalogs, now, on_part)
        for id, why in refused.items():
            mend = "mend what it says, and import again"
            report.bad.append(BadRow(COMMUNITIES.file, 0, 0, "refused", f"community {id}: {why}", mend))
    sources = {source.id for one in plan.communities for source in one.sources}
    sources.update(source.id for state in standing.communities.values() for source in state.sources)
    missing = sorted(sources - set(ledger.credentials()))
    if credentials is not None and not dry_run:
        _open_new(credentials)
        write_credentials(credentials, ledger.issue_credentials(missing, now))
        missing = []
    if not dry_run:
        told = ", ".join(f"{kind} {what} {n}" for kind, counts in changes.counts.items() for what, n in counts.items())
        _record(ledger, actor, "district.import", told)
    ledger.close()
    return Imported(changes.counts, len(missing))


async def _submit(
    settings: Settings, ledger: Ledger, changes: Changes, on_part: Callable[[int], None]
) -> dict[str, str] | None:
    """Through the door of the gateway; None when none stands behind it."""
    door = DoorClient(settings.door_path)
    try:
        return await submit_changes(ledger, changes, door, on_part) if await door.is_open() else None
    finally:
        await door.close()


def export_district(settings: Settings, folder: Path, actor: str, *, geojson: bool = False) -> dict[str, int]:
    """Writes the district as tables; the number of rows by file. Raises GatewayError."""
    catalog = read_catalog(settings.profiles, settings.rules)
    ledger = open_migrated_ledger(settings)
    standing = read_standing(ledger, open_catalogs(ledger, catalog), catalog, open_clock(settings)())
    counts = write_district(folder, standing, geojson=geojson)
    _record(ledger, actor, "district.export", f"{counts[CONTACTS.file]} contacts")
    ledger.close()
    return counts


def list_beforehand(settings: Settings, listed: Mapping[str, str], actor: str) -> list[str]:
    """Takes in identities with the passwords that their makers put in; those that were known already. Raises
    GatewayError."""
    ledger = open_migrated_ledger(settings)
    known = ledger.list_beforehand(listed, open_clock(settings)())
    _record(ledger, actor, "device.list", f"{len(listed) - len(known)} listed, {len(known)} known already")
    ledger.close()
    return known


def _open_new(path: Path) -> None:
    """Before passwords are made that could be written nowhere. Raises GatewayError."""
    try:
        write_credentials(path, {})
    except OSError as error:
        what = f"cannot write it: {error.strerror}"
        raise GatewayError("unwritable", what, str(path), "import again, with a file that can be written") from error


def _record(ledger: SqlLedger, actor: str, what: str, detail: str) -> None:
    """A line of the audit log, of the real time whatever the simulated one is."""
    SqlAccounts(ledger.database).record(Deed(RunningClock()(), actor, what, detail=detail[:200]))


def plate_fields(catalog: Catalog) -> dict[str, set[str]]:
    """Event kind → its fields that are plates, over all profiles."""
    found: dict[str, set[str]] = {}
    for profile in catalog.profiles.values():
        for event in profile.events.values():
            for name, field in event.data.items():
                if field.type == "plate":
                    found.setdefault(event.id, set()).add(name)
    return found


@contextlib.asynccontextmanager
async def open_broker(
    settings: Settings, ledger: Ledger, clock: Callable[[], int]
) -> AsyncIterator[tuple[BrokerSettings, str]]:
    """The broker to connect to, and its address for sources: the configured one, or an embedded one of our own for as
    long as this is open."""
    broker = settings.broker
    if broker.url is not None:
        password = broker.password.get_secret_value() if broker.password is not None else None
        configured = BrokerSettings(
            url=broker.url,
            username=broker.username,
            password=password,
            ca_file=str(broker.ca_file) if broker.ca_file is not None else None,
            client_prefix=broker.client_prefix,
        )
        yield configured, broker.url
        return
    password = ledger.issue_credentials([GATEWAY_IDENTITY], clock())[GATEWAY_IDENTITY]
    credentials = ledger.credentials()
    embedded = EmbeddedBroker(
        settings.data / "broker",
        credentials,
        host=broker.host,
        port=broker.port,
        kind=broker.embedded,
    )
    url = await embedded.start()
    following = asyncio.create_task(_follow_credentials(ledger, embedded, credentials))
    try:
        own = BrokerSettings(
            url=url,
            username=GATEWAY_IDENTITY,
            password=password,
            client_prefix=broker.client_prefix,
            version=embedded.version,
        )
        yield own, embedded.source_url
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await embedded.stop()


async def _follow_credentials(ledger: Ledger, broker: EmbeddedBroker, known: dict[str, str]) -> None:
    """Tells the embedded broker who may connect, soon after it has changed: the console issues passwords in a process
    of its own, and a device that was just registered tries at once."""
    while True:
        await asyncio.sleep(CREDENTIALS_S)
        try:
            found = await asyncio.to_thread(ledger.credentials)
        except LedgerDown:
            continue  # The pipeline says so.
        if found != known:
            known = found
            broker.set_credentials(found)


def open_platform(settings: Settings, catalog: Catalog) -> HttpPlatform | None:
    """The central platform's client, or None where none is configured."""
    section = settings.platform
    if section.url is None:
        return None
    if section.key_file is None:
        raise GatewayError(
            "platform-key", "a platform needs its signing key", "platform.key_file", "set SCG_PLATFORM__KEY_FILE"
        )
    key = _read_secret(section.key_file, "platform.key_file").encode()
    try:
        return HttpPlatform(section.url, key, mapping=catalog.mapping, list_url=section.list_url)
    except ValueError as error:
        raise GatewayError("platform", str(error), "platform.url or platform.key_file", "mend it") from error


def open_stand(settings: Settings) -> HttpStand | None:
    """The test stand's client, or None where none is configured."""
    section = settings.stand
    if section.url is None:
        return None
    if section.key_file is None:
        raise GatewayError("stand-key", "a test stand needs its key", "stand.key_file", "set SCG_STAND__KEY_FILE")
    lines = _read_secret(section.key_file, "stand.key_file").split()
    if not lines:
        raise GatewayError("stand-key", "it holds no key", "stand.key_file", "write the stand's key into it")
    return HttpStand(section.url, lines[0])


def open_notifiers(settings: Settings) -> list[Notifier]:
    """The ways of telling people that are configured."""
    section = settings.notify
    ways: list[Notifier] = []
    if section.sms is not None:
        sms = section.sms
        token = _read_secret(sms.token_file, "notify.sms.token_file") if sms.token_file is not None else ""
        ways.append(
            TextMessageNotifier(sms.url, sms.template, token, (sms.ok_field, sms.ok_value) if sms.ok_field else None)
        )
    if section.webhook is not None:
        key = _read_secret(section.webhook.key_file, "notify.webhook.key_file").encode()
        ways.append(WebhookNotifier(key, section.webhook.url))
    if section.mail is not None:
        mail = section.mail
        password = _read_secret(mail.password_file, "notify.mail.password_file") if mail.password_file else ""
        context = ssl.create_default_context(cafile=str(mail.ca_file) if mail.ca_file is not None else None)
        ways.append(
            MailNotifier(
                mail.host,
                mail.port,
                mail.sender,
                security=mail.security,
                user=mail.user,
                password=password,
                context=context,
            )
        )
    return ways


def open_sign_in(settings: Settings, ledger: SqlLedger) -> SignIn:
    """Accounts with the rules of signing in. Their clock is real time, also where the gateway's runs faster."""
    web = settings.web
    unknown = sorted(set(web.second_factor) - set(ROLE_TITLES))
    if unknown:
        known = ", ".join(ROLE_TITLES)
        raise GatewayError("bad-setting", f"there is no role {unknown[0]}", "web.second_factor", f"known: {known}")
    policy = Policy(
        idle_ms=web.idle_minutes * MINUTE_MS,
        session_ms=web.session_hours * 60 * MINUTE_MS,
        screen_ms=web.screen_days * DAY_MS,
        password_ms=web.password_days * DAY_MS,
        attempts=web.lock_attempts,
        lock_ms=web.lock_minutes * MINUTE_MS,
        second_factor=frozenset(Role(name) for name in web.second_factor),
        portal_has_factor=web.portal is not None and web.portal.has_second_factor,
    )
    secrets = ArgonSecrets(load_key(settings.data / "accounts.key"))
    return SignIn(SqlAccounts(ledger.database), secrets, RunningClock(), policy)


def open_portal(settings: Settings) -> OpenIdPortal | None:
    """The city's portal for signing in, or None where none is configured."""
    portal = settings.web.portal
    if portal is None:
        return None
    secret = (
        _read_secret(portal.client_secret_file, "web.portal.client_secret_file") if portal.client_secret_file else ""
    )
    context = ssl.create_default_context(cafile=str(portal.ca_file)) if portal.ca_file is not None else True
    return OpenIdPortal(
        portal.issuer, portal.client_id, secret, portal.claim, portal.scope, portal.title, RunningClock(), context
    )


def _read_secret(path: Path, setting: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise GatewayError("secret-unreadable", f"cannot read it: {reason}", setting, "give a readable file") from error


async def serve(settings: Settings, *, stats: bool = False, stop: asyncio.Event | None = None) -> None:
    """Runs the gateway until SIGTERM or SIGINT (or until ``stop`` is set)."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(name, stop.set)
    running = open_clock(settings)
    clock = ForwardClock(running, running.speed, running.steady)
    catalog = read_catalog(settings.profiles, settings.rules)
    ledger = open_migrated_ledger(settings)
    platform = open_platform(settings, catalog)
    async with open_broker(settings, ledger, clock) as (broker, source_url):
        inbox = MqttInbox(broker, clock)
        pipeline = Pipeline(
            ledger,
            inbox,
            clock,
            catalog,
            open_catalogs(ledger, catalog),
            open_seal(settings, catalog),
            on_effects=lambda: outbox.kick(),
        )
        ways = open_notifiers(settings)
        is_test = settings.platform.test
        teller = Teller(ledger, pipeline.on_ledger, ways, pipeline.submit, clock, is_test=is_test)
        outbox = Outbox(
            ledger, pipeline.on_ledger, pipeline.submit, platform, inbox, clock, teller=teller, is_test=is_test
        )
        inbox.on_link(pipeline.link_changed)
        await inbox.start()
        await pipeline.start()
        door = DoorServer(settings.door_path, pipeline.submit, pipeline.look)
        await door.start()
        clock.advance_to(max((writer.engine.now for writer in pipeline.writers.values()), default=0))
        _say({"event": "ready", "broker": source_url, "communities": len(pipeline.writers)})
        tasks = [asyncio.create_task(pipeline.run()), asyncio.create_task(outbox.run())]
        if stats:
            tasks.append(asyncio.create_task(_tell_stats(pipeline, ledger)))
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        await door.stop()
        await pipeline.stop()
        await asyncio.wait([tasks[0]], timeout=10)
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
        await inbox.stop()
        await pipeline.close()
        for way in ways:
            await way.close()
        if platform is not None:
            await platform.close()
        ledger.close()
        for task in done:
            if task is not stopping:
                task.result()
        if pipeline.has_lost_all:
            raise GatewayError(
                "replaced", "it holds no community any more", "the ledger", "see the log; run one gateway on one ledger"
            )


async def serve_web(settings: Settings) -> None:
    """Runs the web process until SIGTERM or SIGINT. It reads the ledger and reaches the gateway by its door."""
    section = settings.web
    catalog = read_catalog(settings.profiles, settings.rules)
    ledger = open_migrated_ledger(settings)
    keys: tuple[bytes, ...] = ()
    if section.platform_keys is not None:
        lines = _read_secret(section.platform_keys, "web.platform_keys").split()
        keys = tuple(line.encode() for line in lines)
        short = [number for number, key in enumerate(keys, 1) if len(key) < SHORTEST_KEY]
        if short or not keys:
            what = f"key {short[0]} is shorter than {SHORTEST_KEY} bytes" if short else "it holds no key"
            raise GatewayError("platform-key", what, "web.platform_keys", "write one key a line")
    if (section.public_url or "").startswith("http://"):
        log.warning("web.public_url is no https: passwords and sessions can be read on the way")
    sign_in = open_sign_in(settings, ledger)
    door = DoorClient(settings.door_path)
    app = create_app(
        ledger,
        door,
        catalog,
        keys,
        gate=Gate(sign_in, Officers(sign_in, ledger), Site(section.public_url)),
        portal=open_portal(settings),
        trusted_proxies=section.trusted_proxies,
        gateway_clock=open_clock(settings),
        catalogs=open_catalogs(ledger, catalog),
        desk=open_help_desk(settings, ledger, door),
        webhooks=open_webhook_desk(settings, ledger),
        stand=open_stand(settings),
        products=open_product_desk(settings, ledger, catalog),
        is_test=settings.platform.test,
    )
    try:
        listening = socket.create_server((section.host, section.port))
    except OSError as error:
        where = f"{section.host}:{section.port}"
        raise GatewayError("web-port", f"cannot listen: {error.strerror}", where, "set SCG_WEB__PORT") from error
    with listening:
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, proxy_headers=False)
        config.timeout_graceful_shutdown = LEAVE_S
        host, port = listening.getsockname()[:2]
        _say({"event": "ready", "web": f"http://{host}:{port}"})
        server = uvicorn.Server(config)
        leaving = asyncio.create_task(_end_streams(server, app.state.console.leaving))
        await server.serve(sockets=[listening])
        leaving.cancel()
    ledger.close()


async def _end_streams(server: uvicorn.Server, leaving: asyncio.Event) -> None:
    """A server that has been told to stop waits for its answers to end, and a stream has no end of its own."""
    while not server.should_exit:  # noqa: ASYNC110 - a signal sets it, and tells nobody
        await asyncio.sleep(0.1)
    leaving.set()


def open_help_desk(settings: Settings, ledger: SqlLedger, door: DoorClient) -> HelpDesk:
    """What stands behind the residents' pages, with this installation's keys."""
    calls = SqlCalls(ledger.database, load_key(settings.data / "calls.key"))
    return HelpDesk(ledger, calls, door, PageKeys(settings.data), RunningClock())


def open_webhook_desk(settings: Settings, ledger: SqlLedger) -> WebhookDesk:
    """Webhooks, with this installation's key. Raises GatewayError for a network that is none."""
    section = settings.web.webhooks
    try:
        networks = [ipaddress.ip_network(text) for text in section.networks]
    except ValueError as error:
        raise GatewayError("bad-setting", str(error), "web.webhooks.networks", "give networks: 10.8.0.0/16") from error
    context = ssl.create_default_context(cafile=str(section.ca_file) if section.ca_file is not None else None)
    receivers = HttpReceivers(networks, plain=section.http, verify=context)
    webhooks = SqlWebhooks(ledger.database, load_key(settings.data / "webhooks.key"))
    courier = Courier(ledger, webhooks, receivers, RunningClock(), section.give_up_days * DAY_MS)
    return WebhookDesk(ledger, webhooks, receivers, RunningClock(), courier)


def open_product_desk(settings: Settings, ledger: SqlLedger, catalog: Catalog) -> ProductDesk:
    """Models' secrets, with this installation's key."""
    products = SqlProducts(ledger.database, load_key(settings.data / "products.key"))
    return ProductDesk(ledger, products, catalog, RunningClock())


async def issue_help_pages(
    settings: Settings, community: str, places: Sequence[str], phone: str | None, actor: str, *, renew: bool
) -> list[HelpPage]:
    """Registers the help pages of these places (none: of the whole community) through the running gateway, and gives
    them. Without a ``community`` it is the one that has the places. Raises GatewayError."""
    catalog = read_catalog(settings.profiles, settings.rules)
    ledger = open_migrated_ledger(settings)
    door = DoorClient(settings.door_path)
    try:
        state = _find_registry(ledger, catalog, community, places)
        pages, change = plan_pages(state, places, phone, renew=renew, actor=actor)
        await issue_pages(door, state.community.id, change)
        if change is not None:
            devices = ", ".join(device.id for device in change.devices)
            deed = Deed(RunningClock()(), actor, "pages.issue", state.community.id, detail=devices)
            SqlAccounts(ledger.database).record(deed)
    finally:
        await door.close()
        ledger.close()
    return pages


def _find_registry(ledger: Ledger, catalog: Catalog, community: str, places: Sequence[str]) -> CommunityState:
    catalogs = open_catalogs(ledger, catalog)
    for known in ledger.communities():
        if community in ("", known.id):
            state = load_engine(ledger, known, catalogs, catalog).engine.snapshot()
            if community or any(place.id in places for place in state.places):
                return state
    what = f"there is no community {community}" if community else f"no community has the place {places[0]}"
    raise GatewayError("unknown-place", what, "the ledger", "register it first")


async def reconcile(settings: Settings, days: float, tell: Callable[[Difference], None], *, repair: bool) -> Summary:
    """Compares the ledger with the central platform's list over the last ``days``, and repairs. Raises GatewayError."""
    catalog = read_catalog(settings.profiles, settings.rules)
    platform = open_platform(settings, catalog)
    if platform is None or settings.platform.list_url is None:
        what = "url" if platform is None else "list_url"
        raise GatewayError("no-platform", "there is nothing to compare with", f"platform.{what}", "set it")
    ledger = open_migrated_ledger(settings)
    door = DoorClient(settings.door_path)
    now = open_clock(settings)()
    try:
        reconciler = Reconciler(ledger, platform, door, catalog.mapping, tell)
        return await reconciler.run(now - round(days * DAY_MS), now, repair=repair)
    except PlatformAway as error:
        raise GatewayError("platform-away", str(error), settings.platform.list_url, "run it again") from error
    finally:
        await door.close()
        await platform.close()
        ledger.close()


async def _tell_stats(pipeline: Pipeline, ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(1)
        counts = await pipeline.on_ledger(ledger.counts)
        counters = pipeline.counters
        _say(
            {
                "event": "stats",
                "messages": counters.messages,
                "readings": counters.readings,
                "repeats": counters.repeats,
                "batches": counters.batches,
                **counts,
            }
        )


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()
