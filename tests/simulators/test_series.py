"""Recorded series are played as they were recorded, and what is wrong with a file is said in one line."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simulators.__main__ import app
from simulators.series import (
    Series,
    SeriesError,
    Stage,
    find_reading,
    judge,
    read_series,
    read_speed,
    read_time,
    read_value,
)
from tests.conftest import StartProcess
from tests.simulators.children import children_of, is_running

CLIMATE = Stage("c001", "agent-001", "replay-1", "temperature-humidity", "temperature", "degF")
START = "2013-07-04 00:00:00"


def write_csv(folder: Path, *rows: str, head: str = "timestamp,value") -> Path:
    path = folder / "series.csv"
    path.write_text("\n".join([head, *rows, ""]), encoding="utf-8")
    return path


def read(path: Path) -> Series:
    return read_series(path, "value", find_reading("temperature-humidity", None, "value", "degF"))


def replay(*arguments: str | Path) -> tuple[int, str, str]:
    """The command to its end: exit status, standard output, standard error."""
    done = CliRunner().invoke(app, ["replay", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def last_line(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_time_without_a_zone_is_local() -> None:
    assert read_time("2013-07-04 08:00:00") == read_time("2013-07-04T00:00:00+00:00") == 1_372_896_000_000


def test_spacing_and_gaps_are_kept(tmp_path: Path) -> None:
    series = read(write_csv(tmp_path, f"{START},70", "2013-07-04 01:00:00,71", "2013-07-11 01:00:00,72"))
    assert [sample.time - series.start for sample in series.samples] == [0, 3_600_000, 3_600_000 + 7 * 86_400_000]
    assert [sample.value for sample in series.samples] == [70, 71, 72]
    assert series.bad == ()


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("2013-07-04 01:00:00,", "'' is no number"),
        ("2013-07-04 01:00:00", "'' is no number"),
        ("2013-07-04 01:00:00,warm", "'warm' is no number"),
        ("2013-07-04 01:00:00,NaN", "'NaN' is no finite number"),
        ("2013-07-04 01:00:00,-inf", "'-inf' is no finite number"),
        (",70", "'' is no time such as 2013-07-04 00:00:00"),
        ("yesterday,70", "'yesterday' is no time such as 2013-07-04 00:00:00"),
        ("2013-07-03 23:00:00,70", "2013-07-03 23:00:00 is before the row above, 2013-07-04 00:00:00"),
    ],
)
def test_a_bad_row_is_named_and_takes_nothing_with_it(tmp_path: Path, row: str, says: str) -> None:
    series = read(write_csv(tmp_path, f"{START},70", row, "2013-07-04 02:00:00,71"))
    assert [sample.value for sample in series.samples] == [70, 71]
    assert series.bad == (f"series.csv:3: {says}; the row is left out",)


def test_rows_are_counted_in_the_file_also_after_a_quoted_line_break(tmp_path: Path) -> None:
    path = write_csv(tmp_path, f'{START},70,"two\nlines"', "x,71,", head="timestamp,value,note")
    assert read(path).bad == ("series.csv:4: 'x' is no time such as 2013-07-04 00:00:00; the row is left out",)


def test_values_are_what_the_reading_is() -> None:
    smoke = find_reading("nb-smoke", "smoke", "value", None)
    assert [read_value(text, smoke) for text in ("1", "0", "TRUE", "false")] == [True, False, True, False]
    with pytest.raises(ValueError, match="'2' is neither 0 nor 1"):
        read_value("2", smoke)


def test_the_column_says_which_reading_it_is_where_it_can() -> None:
    assert find_reading("temperature-humidity", None, "humidity", None).id == "humidity"
    assert find_reading("temperature-humidity", None, "value", None).id == "temperature"
    assert find_reading("temperature-humidity", "battery", "humidity", None).id == "battery"


# --- one clear error -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--profile", "thermometer"], "--profile: there is no profile 'thermometer'; there are cold-water-meter, "),
        (["--profile", "temperature-humidity", "--reading", "rain"], "has no reading 'rain'; it has temperature, "),
        (["--profile", "temperature-humidity", "--unit", "bar"], "temperature is not measured in 'bar'; known: Cel, "),
        (["--profile", "temperature-humidity", "--column", "t"], "there is no column 't'; it has timestamp, value"),
        (["--profile", "temperature-humidity", "--speed", "fast"], "--speed: fast is neither max nor a number"),
        (["--profile", "temperature-humidity", "--speed", "nan"], "--speed: nan is neither max nor a number"),
        (["--profile", "temperature-humidity", "--speed", "1e9"], "up to 10000"),
    ],
)
def test_what_cannot_be_played_is_one_line_and_status_2(tmp_path: Path, arguments: list[str], says: str) -> None:
    status, out, err = replay(write_csv(tmp_path, f"{START},70"), *arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"timestamp,value\n", "no row can be played"),
        (b"timestamp,value\nx,1\n", "the first of 1 bad rows: series.csv:2: 'x' is no time"),
        (b"when,value\n2013-07-04 00:00:00,1\n", "there is no column 'timestamp'; it has when, value"),
        (b"timestamp,value\n\xff\xfe\x00,1\n", "it is no UTF-8 text"),
    ],
)
def test_a_file_without_a_series_is_one_line_and_status_2(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(content)
    status, _, err = replay(path, "--profile", "temperature-humidity")
    assert status == 2
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_missing_file_is_one_line_and_status_2(tmp_path: Path) -> None:
    status, _, err = replay(tmp_path / "none.csv", "--profile", "temperature-humidity")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "none.csv: cannot read it" in err


def test_max_publishes_nothing() -> None:
    assert read_speed("max", None) is None
    assert read_speed("3600", "mqtt://127.0.0.1:1883") == 3600
    with pytest.raises(SeriesError, match="publishes nothing"):
        read_speed("max", "mqtt://127.0.0.1:1883")


# --- playing ---------------------------------------------------------------------------------------------------------


def hot_hours() -> list[str]:
    """Three hours at 68 degF every five minutes, then the room heats up to 140 degF and stays there for an hour."""
    return [f"2013-07-04 {n // 12:02}:{n % 12 * 5:02}:00,{68 if n < 36 else 140}" for n in range(48)]


def test_max_judges_each_reading_at_its_own_time_in_the_canonical_unit(tmp_path: Path) -> None:
    series = read(write_csv(tmp_path, *hot_hours()))
    outcome = judge(series, CLIMATE)
    assert (outcome.played, outcome.judged, outcome.rejected) == (48, 48, {})
    assert outcome.opened is not None
    # 68 and 140 degF are 20 and 60 Cel: 40 K within the hour, held for 10 min; out of range joins the same case.
    assert [(one.sort, one.rule, one.at - series.start) for one in outcome.opened] == [
        ("incident", "rooms.temperature-changing", 190 * 60_000)
    ]


def test_a_value_out_of_range_is_rejected_and_opens_nothing(tmp_path: Path) -> None:
    rows = [f"2013-07-04 00:{minute:02}:00,{value}" for minute, value in enumerate((70, 9000, 71))]
    outcome = judge(read(write_csv(tmp_path, *rows)), CLIMATE)
    assert (outcome.judged, outcome.rejected, outcome.opened) == (2, {"out-of-range": 1}, ())


def test_over_mqtt_it_opens_what_the_core_alone_opens(tmp_path: Path, start_process: StartProcess) -> None:
    """A gateway is started for it, hears every reading, and ends with it."""
    gap = ["2013-07-04 09:00:00,68", "2013-07-04 09:30:00,68"]
    path = write_csv(tmp_path, *hot_hours(), "2013-07-04 04:00:00,hot", "2013-07-04 04:05:00,9000", *gap)
    arguments = [str(path), "--profile", "temperature-humidity", "--unit", "degF"]
    process = start_process("simulators", "replay", *arguments, "--speed", "3600")
    assert process.wait(90) == 0, process.output()
    found = last_line(process.output())
    exact = last_line(replay(*arguments, "--speed", "max")[1])
    same = ("readings", "bad_rows", "judged", "rejected", "incidents", "notices")
    assert {name: found[name] for name in same} == {name: exact[name] for name in same}
    assert (found["receipted"], found["judged"], found["rejected"]) == (51, 50, 1)
    assert (found["incidents"], found["notices"], found["bad_rows"]) == (1, 1, 1)
    assert "series.csv:50: 'hot' is no number; the row is left out" in process.output()
    assert "rooms.temperature-changing" in process.output()
    assert "ops.device-offline" in process.output(), "its heartbeat ran out in the gap, on the gateway's clock"


def test_interrupted_it_ends_its_gateway_too(tmp_path: Path, start_process: StartProcess) -> None:
    path = write_csv(tmp_path, *hot_hours())
    process = start_process("simulators", "replay", str(path), "--profile", "temperature-humidity", "--speed", "60")
    deadline = time.monotonic() + 30
    while not (children := children_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    children |= children_of(process.pid)
    process.send(signal.SIGINT)
    assert process.wait(30) == 130, process.output()
    assert "stopped" in process.output()
    assert "Traceback" not in process.output()
    assert children
    assert not [pid for pid in children if is_running(pid)]


def test_nobody_at_the_url_is_one_line_and_status_2(tmp_path: Path, start_process: StartProcess) -> None:
    path = write_csv(tmp_path, f"{START},70")
    process = start_process(
        "simulators", "replay", str(path), "--profile", "temperature-humidity", "--url", "mqtt://127.0.0.1:9"
    )
    assert process.wait(60) == 2
    assert "replay: mqtt://127.0.0.1:9: cannot connect as agent-001" in process.output()
    assert "Traceback" not in process.output()


# --- the recorded data -----------------------------------------------------------------------------------------------


def test_the_office_opens_offline_notices_for_its_gaps_and_no_incident(shared_data: Path) -> None:
    series = read(shared_data / "sensors" / "ambient_temperature_system_failure.csv")
    outcome = judge(series, CLIMATE)
    assert (outcome.played, outcome.judged, outcome.rejected) == (7267, 7267, {})
    assert outcome.opened is not None
    assert {(one.sort, one.rule) for one in outcome.opened} == {("notice", "ops.device-offline")}
    heartbeat = 3 * 3_600_000
    pairs = zip(series.samples, series.samples[1:], strict=False)
    ran_out = [before.time + heartbeat for before, after in pairs if after.time - before.time > heartbeat]
    assert [one.at for one in outcome.opened] == ran_out
    assert len(ran_out) == 8


def test_the_machine_opens_one_incident_and_its_hour_lived_twice_is_told(shared_data: Path) -> None:
    series = read(shared_data / "sensors" / "machine_temperature_system_failure.csv")
    outcome = judge(series, CLIMATE)
    assert outcome.judged == outcome.played == 22695 - len(series.bad)
    assert len(series.bad) == 11
    assert outcome.opened is not None
    assert [(one.sort, one.rule, one.at) for one in outcome.opened] == [
        ("incident", "rooms.temperature-changing", read_time("2013-12-16 18:05:00"))
    ]
