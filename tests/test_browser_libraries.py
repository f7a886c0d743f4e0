"""The browser's libraries are fetched once, held against their hashes, and missing ones are told instead of failing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.servers import ROOT

NAME = "leaflet.markercluster"


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("browser_libraries", ROOT / "tools" / "browser.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def archive(tool: ModuleType, tmp_path: Path) -> Path:
    """A package as a registry has it."""
    folder = tmp_path / "package"
    for file in tool.FILES[NAME]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(f"the content of {file}", encoding="utf-8")
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as made:
        made.add(folder, "package")
    return path


def test_a_package_is_fetched_once_and_again_when_its_version_changes(
    tool: ModuleType, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def fetch(package: str, folder: Path) -> Path:
        fetched.append(package)
        return archive

    monkeypatch.setattr(tool, "fetch", fetch)
    target, hash = tmp_path / "vendor", tool.hash_file(archive)
    for version in ("1.5.3", "1.5.3", "1.5.4"):
        tool.install(target, {NAME: version}, {f"{NAME}@{version}": hash})

    assert fetched == [f"{NAME}@1.5.3", f"{NAME}@1.5.4"]
    names = {path.name for path in (target / NAME).iterdir()}
    assert names == {Path(file).name for file in tool.FILES[NAME]}
    assert json.loads((target / "installed.json").read_text()) == {f"{NAME}@1.5.4": hash}
    assert not target.with_name("vendor.new").exists()


def test_what_is_not_what_its_hash_promises_is_not_used_and_what_was_there_stays(
    tool: ModuleType, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "fetch", lambda package, folder: archive)
    target = tmp_path / "vendor"
    tool.install(target, {NAME: "1.5.3"}, {f"{NAME}@1.5.3": tool.hash_file(archive)})

    with pytest.raises(ValueError, match="do not use it"):
        tool.install(target, {NAME: "1.5.4"}, {f"{NAME}@1.5.4": "sha512-another"})
    assert (target / NAME / "leaflet.markercluster.js").exists()


def test_without_npm_it_says_what_is_missing_and_ends_well(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tool, "PAGES", tmp_path / "vendor")

    assert tool.main(["run"]) == 0
    said = capsys.readouterr().err
    assert "npm is not installed" in said
    assert "lack map and charts" in said


def test_every_version_is_exact_and_has_its_hash_and_no_address_is_named() -> None:
    folder = ROOT / "tools" / "browser"
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    hashes = json.loads((folder / "integrity.json").read_text(encoding="utf-8"))
    packages = {**wanted["dependencies"], **wanted["devDependencies"]}

    assert {f"{name}@{version}" for name, version in packages.items()} == set(hashes)
    assert all(version[0].isdigit() for version in packages.values())
    assert all(hash.startswith("sha512-") and len(hash) == 95 for hash in hashes.values())
    assert "http" not in "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())


def test_none_is_committed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no checkout")
    assert not [path for path in listed.stdout.splitlines() if "/vendor/" in path]
