"""The agent's configuration: what the manual shows is taken, and every fault is told with its file and line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge.config import read_config
from gateway.errors import GatewayError
from tests.core.worlds import ROOT

MANUAL = (ROOT / "docs" / "agent.md").read_text(encoding="utf-8")
SOUND = """\
community = "c001"
source = "agent-1"

[link]
url = "mqtt://127.0.0.1:1883"

[[bus]]
driver = "speaker"
bus = "hall"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "agent.toml"
    file.write_text(text, encoding="utf-8")
    return file


def run_check(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", "check", "--config", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_manuals_example_is_taken(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", MANUAL, re.DOTALL)
    assert found is not None
    text = found[1].replace("/etc/agent", str(tmp_path)).replace("/var/lib/agent", str(tmp_path / "data"))
    for secret in re.findall(rf'"({re.escape(str(tmp_path))}/[^"]*\.token)"', text):
        Path(secret).write_text("a token of sixteen characters")
    done = run_check(write(tmp_path, text))
    assert done.returncode == 0, done.stderr
    assert "gate (http), meters (modbus), hall (speaker): no problems" in done.stdout
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("community =", "comunity =", 1, "there is no setting comunity"),
        ('source = "agent-1"', "", 1, "source: Field required"),
        ('url = "mqtt://127.0.0.1:1883"', 'url = "http://x"', 5, "link.url"),
        ('url = "mqtt://127.0.0.1:1883"', 'url = "mqtt://user:secret@x"', 5, "link.url"),
        ("[link]", "[link]\nkeepalive_s = 1", 5, "link.keepalive_s"),
        ("[[bus]]", "[spool]\nmax_mb = 2\nalarm_reserve_mb = 3\n[[bus]]", 7, "alarm_reserve_bytes"),
        ('driver = "speaker"', 'driver = "telepathy"', 8, "there is no driver telepathy"),
        ('driver = "speaker"', 'driver = "speaker"\nvolume = 11', 9, "there is no setting bus.volume"),
        ('bus = "hall"', 'bus = "The Hall"', 9, "bus.bus"),
        ("[[bus]]", '[[bus]]\ndriver = "speaker"\nbus = "hall"\n[[bus]]', 12, "there are two buses hall"),
        ("[link]", "[link", 4, "config-not-toml"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, what: str) -> None:
    assert SOUND.count(old) == 1
    file = write(tmp_path, SOUND.replace(old, new))
    with pytest.raises(GatewayError) as caught:
        read_config(file)
    assert caught.value.where == f"{file}:{line}"
    assert what in f"{caught.value.code} {caught.value.message}"
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_and_a_secret_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    missing = run_check(tmp_path / "none.toml")
    assert (missing.returncode, "cannot read it" in missing.stderr) == (1, True)
    text = SOUND.replace("[link]", f'data = "{tmp_path}"\n\n[link]\npassword_file = "{tmp_path}/none"')
    command = [sys.executable, "-m", "edge", "--config", str(write(tmp_path, text))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"{tmp_path}/none: " in done.stderr
