"""Settings, read once at the door: from a TOML file and from the environment (``SCG_…``, ``__`` between levels).

The environment overrides the file. Unknown keys are refused in both: a misspelt setting is an error, never a default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from gateway.errors import GatewayError

PREFIX: Final = "SCG_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BrokerSection(_Section):
    """``url`` ``mqtt://`` or ``mqtts://``; without one an embedded broker is started (``port`` 0: a free one)."""

    url: str | None = None
    username: str = "gateway"
    password: SecretStr | None = None
    ca_file: Path | None = None
    client_prefix: str = "scg"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    embedded: str = Field("auto", pattern="^(auto|mosquitto|amqtt)$")


class LedgerSection(_Section):
    """``url`` of the ledger; without one it is SQLite in the data folder."""

    url: str | None = None


class PlatformSection(_Section):
    """The central platform: its address, the file that holds the signing key, and the address of its list of what it
    holds (for `reconcile`). Without a url nothing is sent, and everything waits in the outbox.

    ``test``: it is a platform to test against, and so are the ways of telling people: only then does what comes of
    simulated devices go there."""

    url: str | None = None
    list_url: str | None = None
    key_file: Path | None = None
    test: bool = False


def _split(value: object) -> object:
    """A list in one variable of the environment: ``a,b c``."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
_PositiveInt = Annotated[int, Field(gt=0)]


class PortalSection(_Section):
    """Sign-in by the city's unified portal (OpenID Connect): its ``issuer``, what we are there, and the ``claim`` of
    its id token that names an account's portal identity. ``has_second_factor``: it has asked for one already."""

    issuer: str
    client_id: str
    client_secret_file: Path | None = None
    claim: str = "sub"
    scope: str = "openid profile"
    title: str = "统一门户 / City portal"
    has_second_factor: bool = False
    ca_file: Path | None = None


class WebhooksSection(_Section):
    """Webhooks of the API: the ``networks`` that may be sent to though they are not public (an intranet's, say
    ``10.8.0.0/16``), whether ``http`` is taken from others than this machine, after how many days without a good
    answer a receiver is switched off, and authorities of one's own that sign receivers' certificates."""

    networks: Words = ()
    http: bool = False
    give_up_days: _PositiveInt = 5
    ca_file: Path | None = None


class WebSection(_Section):
    """The web process (`python -m gateway web`): where it listens (``port`` 0: a free one), and the file with the keys,
    one a line, by which the central platform signs what its people do.

    ``public_url`` is where people reach it by a proxy that ends TLS (docs/security.md); without one they do on this
    machine only. ``trusted_proxies`` are the addresses or networks of such proxies: of them alone it is believed who
    asks. ``second_factor``: the roles that need one."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    platform_keys: Path | None = None
    public_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+/?$")] | None = None
    trusted_proxies: Words = ()
    idle_minutes: _PositiveInt = 30
    session_hours: _PositiveInt = 12
    screen_days: _PositiveInt = 30
    password_days: _PositiveInt = 90
    lock_attempts: _PositiveInt = 5
    lock_minutes: _PositiveInt = 15
    second_factor: Words = ("administrator", "security", "auditor", "dispatcher")
    portal: PortalSection | None = None
    webhooks: WebhooksSection = WebhooksSection()


class MailSection(_Section):
    """Mail over SMTP; ``password_file`` holds the password of ``user``."""

    host: str
    port: Annotated[int, Field(gt=0, le=65535)] = 587
    sender: str
    security: str = Field("starttls", pattern="^(none|starttls|tls)$")
    user: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None


class TextMessageSection(_Section):
    """A gateway for text messages: JSON is POSTed to ``url``; ``template`` names its fields, with ``$phone``, ``$text``
    and ``$id``; ``ok_field`` and ``ok_value`` are what a good answer holds."""

    url: str
    template: dict[str, str] = {"phone": "$phone", "text": "$text"}
    token_file: Path | None = None
    ok_field: str = ""
    ok_value: str = ""


class WebhookSection(_Section):
    """A webhook for all notifications (``url``; otherwise each contact's own), signed with the key in ``key_file``."""

    key_file: Path
    url: str | None = None


class NotifySection(_Section):
    """How people are told, in this order: text messages, webhook, mail."""

    sms: TextMessageSection | None = None
    webhook: WebhookSection | None = None
    mail: MailSection | None = None


class StandSection(_Section):
    """The test stand (`python -m simulators stand`) that testers play scenarios with: its address on this machine, and
    the file with the key that it asks for. Without a url there is none."""

    url: Annotated[str, Field(pattern=r"^http://(127\.0\.0\.1|localhost)(:\d+)?/?$")] | None = None
    key_file: Path | None = None


class ClockSection(_Section):
    """For simulation: a clock ``speed`` times as fast, which showed ``anchor`` ms up to real time ``anchor_real``
    ms."""

    speed: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    anchor_real: int = 0
    anchor: int = 0


class LevelSection(_Section):
    """How the codes of one level of the grid are built: so many ``digits``, below which ``parents`` (levels), how many
    leading digits are ``shared`` with the parent's code, and the range of the ``serial`` that the last digits make."""

    digits: Annotated[int, Field(gt=0, le=48)]
    parents: tuple[str, ...] = ()
    shared: Annotated[int, Field(ge=0)] = 0
    serial: tuple[int, int] | None = None


class DistrictSection(_Section):
    """The district: its administrative code (``prefix``), the ``box`` in which its places lie (west, south, east,
    north in degrees, with a margin), and the ``levels`` of its grid by name where they are not those of
    docs/decisions/0003-grid-codes.md."""

    prefix: str = Field("370215", pattern="^[0-9]{2,12}$")
    box: tuple[float, float, float, float] | None = None
    levels: dict[str, LevelSection] = {}


class Settings(_Section):
    """All settings of the gateway."""

    data: Path = Path("data")
    profiles: Path = Path("device_profiles")
    rules: Path = Path("rules")
    broker: BrokerSection = BrokerSection()
    ledger: LedgerSection = LedgerSection()
    platform: PlatformSection = PlatformSection()
    clock: ClockSection = ClockSection()
    notify: NotifySection = NotifySection()
    web: WebSection = WebSection()
    district: DistrictSection = DistrictSection()
    stand: StandSection = StandSection()
    door: Path | None = None

    @property
    def door_path(self) -> Path:
        """The socket by which other processes reach the gateway."""
        return self.door or self.data.absolute() / "door.sock"

    @property
    def ledger_url(self) -> str:
        return self.ledger.url or f"sqlite:///{self.data.absolute()}/ledger.db"


def read_settings(file: Path | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads the settings. Raises GatewayError naming the file or variable, the key, and what is expected."""
    values: dict[str, Any] = {}
    where = "the environment"
    if file is not None:
        where = str(file)
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise GatewayError(
                "settings-unreadable", f"cannot read it: {error.strerror}", where, "give the path of a file"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise GatewayError("settings-not-toml", str(error), where, "mend the TOML there") from error
    names: dict[tuple[str, ...], str] = {}
    for name, text in environ.items():
        if name.startswith(PREFIX):
            path = tuple(name[len(PREFIX) :].lower().split("__"))
            names[path] = name
            _put(values, path, text, name)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        key = ".".join(path)
        known = ", ".join(_known_keys(path[:-1]))
        what = f"there is no setting {key}" if first["type"] == "extra_forbidden" else f"{key}: {first['msg']}"
        raise GatewayError("bad-setting", what, names.get(path, where), f"known here: {known}") from error


def _put(values: dict[str, Any], path: tuple[str, ...], text: str, name: str) -> None:
    here = values
    for part in path[:-1]:
        inner = here.setdefault(part, {})
        if not isinstance(inner, dict):
            raise GatewayError("bad-setting", f"{part} is one value, not a section", name, "remove the part after it")
        here = inner
    here[path[-1]] = text


def _known_keys(path: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            break
        model = field.annotation
    return list(model.model_fields)
