"""The agent's configuration: one TOML file, read once. It holds the link, the secrets' files and the buses; the devices
come from the gateway's registry.

Unknown keys are refused, and every fault is told with its file and line.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.ports import Driver
from edge.spool import Limits
from gateway.errors import GatewayError

DRIVERS: Final = {
    "gb26875": ("edge.drivers.gb26875", "Gb26875Driver"),
    "modbus": ("edge.drivers.modbus", "ModbusDriver"),
    "mqtt_local": ("edge.drivers.mqtt_local", "MqttLocalDriver"),
    "http": ("edge.drivers.webhook", "WebhookDriver"),
    "button": ("edge.drivers.button", "ButtonDriver"),
    "speaker": ("edge.drivers.speaker", "SpeakerDriver"),
}
"""Kind → its module and class. A module is imported only when a bus of its kind is configured."""

_ID: Final = r"^[a-z0-9-]{1,48}$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LinkSection(_Section):
    """The broker: ``mqtt://host:port`` or ``mqtts://host:port``; the user name is the source's id."""

    url: Annotated[str, Field(pattern=r"^mqtts?://[^/@\s]+$")]
    password_file: Path | None = None
    ca_file: Path | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=300)] = 20
    drain_per_s: Annotated[float, Field(gt=0, le=1000)] = 10
    """Messages of telemetry a second at most while a backlog drains: live alarms have the line to themselves."""


class SpoolSection(_Section):
    """See `edge.spool.Limits`."""

    max_mb: Annotated[float, Field(ge=1, le=4096)] = 64
    alarm_reserve_mb: Annotated[float, Field(ge=0.25)] = 4
    max_age_days: Annotated[float, Field(gt=0, le=60)] = 7
    pack_readings: Annotated[int, Field(ge=1, le=1000)] = 200
    pack_s: Annotated[float, Field(ge=0, le=600)] = 5

    @property
    def limits(self) -> Limits:
        mib = 1024 * 1024
        return Limits(
            max_bytes=round(self.max_mb * mib),
            alarm_reserve_bytes=round(self.alarm_reserve_mb * mib),
            max_age_ms=round(self.max_age_days * 86_400_000),
            pack_readings=self.pack_readings,
            pack_ms=round(self.pack_s * 1000),
        )


class ClockSection(_Section):
    """For simulation: a clock ``speed`` times as fast, which showed ``anchor`` ms at real time ``anchor_real`` ms."""

    speed: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    anchor_real: int = 0
    anchor: int = 0


class AgentConfig(_Section):
    """All that an agent is told. ``buses`` are the driver sections, one table ``[[bus]]`` each, checked by their
    drivers. ``language`` is the one that is spoken aloud; ``status_s`` is how often the agent reports its own state."""

    community: Annotated[str, Field(pattern=_ID)]
    source: Annotated[str, Field(pattern=_ID)]
    data: Path = Path("agent-data")
    profiles: Path = Path("device_profiles")
    rules: Path = Path("rules")
    language: Literal["zh", "en"] = "zh"
    status_s: Annotated[float, Field(ge=1, le=3600)] = 60
    link: LinkSection
    spool: SpoolSection = SpoolSection()
    clock: ClockSection = ClockSection()
    bus: tuple[dict[str, Any], ...] = ()


class Bus(BaseModel):
    """What every ``[[bus]]`` has; the rest is its driver's."""

    model_config = ConfigDict(extra="allow")
    driver: str
    bus: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]


def read_config(file: Path) -> tuple[AgentConfig, dict[str, Driver]]:
    """The configuration and its drivers by bus, none of them started. Raises GatewayError: file, line, key, and what
    is expected."""
    try:
        text = file.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise GatewayError(
            "config-unreadable", f"cannot read it: {error.strerror}", str(file), "give a file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{file}:{line[1]}" if line else str(file)
        raise GatewayError("config-not-toml", str(error), where, "mend the TOML there") from error
    lines = _Lines(file, text)
    config = cast(AgentConfig, _check(AgentConfig, values, (), lines))
    try:
        _ = config.spool.limits
    except ValueError as error:
        raise GatewayError("bad-setting", str(error), lines.find(("spool",)), "mend [spool]") from error
    drivers: dict[str, Driver] = {}
    for index, section in enumerate(config.bus):
        path = ("bus", index)
        common = cast(Bus, _check(Bus, section, path, lines))
        if common.bus in drivers:
            raise GatewayError(
                "bad-setting", f"there are two buses {common.bus}", lines.find((*path, "bus")), "name them apart"
            )
        drivers[common.bus] = _make_driver(common.driver, section, path, lines)
    return config, drivers


def _make_driver(kind: str, section: dict[str, Any], path: tuple[str | int, ...], lines: _Lines) -> Driver:
    if kind not in DRIVERS:
        known = ", ".join(DRIVERS)
        raise GatewayError(
            "bad-setting", f"there is no driver {kind}", lines.find((*path, "driver")), f"known: {known}"
        )
    module_name, class_name = DRIVERS[kind]
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise GatewayError(
            "driver-missing", f"driver {kind} cannot be loaded: {error}", lines.find(path), "install what it needs"
        ) from error
    settings = _check(module.Settings, section, path, lines)
    return cast(Driver, getattr(module, class_name)(settings))


def _check(model: type[BaseModel], values: dict[str, Any], path: tuple[str | int, ...], lines: _Lines) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A misspelt key explains why another one is missing.
        errors = error.errors()
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        where = (*path, *first["loc"])
        key = ".".join(str(part) for part in where if not isinstance(part, int))
        what = f"there is no setting {key}" if first["type"] == "extra_forbidden" else f"{key}: {first['msg']}"
        known = ", ".join(model.model_fields)
        raise GatewayError("bad-setting", what, lines.find(where), f"known here: {known}") from error


class _Lines:
    """Where a setting stands in the file, for messages: tables by their headers, keys by their names."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self._lines: dict[tuple[str | int, ...], int] = {(): 1}
        counts: dict[str, int] = {}
        here: tuple[str | int, ...] = ()
        for number, line in enumerate(text.splitlines(), start=1):
            if header := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
                name = header[1]
                here = (name, counts.get(name, 0))
                counts[name] = counts.get(name, 0) + 1
                self._lines[here] = number
            elif header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
                here = tuple(header[1].split("."))
                self._lines[here] = number
            elif key := re.match(r"\s*([\w-]+)\s*=", line):
                self._lines.setdefault((*here, key[1]), number)

    def find(self, path: tuple[str | int, ...]) -> str:
        """``file:line`` of the setting, or of the nearest table around it."""
        while path not in self._lines:
            path = path[:-1]
        return f"{self.file}:{self._lines[path]}"
