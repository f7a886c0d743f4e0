"""Fetches the browser's libraries with npm, checks them against their hashes, and unpacks the few files that are used.

    tools/browser.py run    what the console's pages load, into gateway/web/static/vendor
    tools/browser.py dev    that, and what its tests use, into tests/browser/vendor

Versions stand in tools/browser/package.json, hashes of the whole archives in tools/browser/integrity.json. No script of
a package is run. Nothing is done when everything is there already. Without npm, or when a registry cannot be reached,
it says what is missing and ends well: the pages work without map and charts, and forms load whole pages. After a
change of versions, ``tools/browser.py renew`` writes the new hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tools" / "browser"
PAGES = ROOT / "gateway" / "web" / "static" / "vendor"
TESTS = ROOT / "tests" / "browser" / "vendor"
MARK = "installed.json"

FILES: Mapping[str, Sequence[str]] = {
    "@zxing/library": ["umd/index.min.js", "LICENSE"],
    "echarts": ["dist/echarts.common.min.js", "LICENSE"],
    "htmx.org": ["dist/htmx.min.js", "LICENSE"],
    "leaflet": ["dist/leaflet.js", "dist/leaflet.css", "LICENSE"],
    "leaflet.markercluster": ["dist/leaflet.markercluster.js", "dist/MarkerCluster.css", "MIT-LICENCE.txt"],
    "axe-core": ["axe.min.js", "LICENSE"],
}
"""Which files of a package are used. Its licence goes with it."""


class NotFetched(Exception):
    """A library could not be had; the text says why."""


def main(arguments: Sequence[str]) -> int:
    """Fetches what is missing. The exit status is 1 only for a file that is not what its hash promises."""
    if arguments not in (["run"], ["dev"], ["renew"]):
        print("usage: tools/browser.py run|dev|renew", file=sys.stderr)
        return 2
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))
    integrity = json.loads((HERE / "integrity.json").read_text(encoding="utf-8"))
    sets = [(PAGES, wanted["dependencies"])]
    if arguments == ["dev"]:
        sets.append((TESTS, wanted["devDependencies"]))
    try:
        if arguments == ["renew"]:
            renew({**wanted["dependencies"], **wanted["devDependencies"]})
            return 0
        for folder, packages in sets:
            install(folder, packages, integrity)
    except NotFetched as error:
        print(f"browser libraries: {error}", file=sys.stderr)
        print("browser libraries: the console's pages will lack map and charts; run make setup again", file=sys.stderr)
    except ValueError as error:
        print(f"browser libraries: {error}", file=sys.stderr)
        return 1
    return 0


def install(folder: Path, packages: Mapping[str, str], integrity: Mapping[str, str]) -> None:
    """Puts the packages' files below ``folder``, one folder a package, unless they are there. Raises NotFetched, or
    ValueError for an archive that does not have its hash."""
    known = {f"{name}@{version}": integrity.get(f"{name}@{version}", "") for name, version in packages.items()}
    mark = folder / MARK
    if mark.exists() and json.loads(mark.read_text(encoding="utf-8")) == known:
        return
    print(f"browser libraries: fetching {', '.join(known)}")
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for package, hash in known.items():
                archive = fetch(package, Path(scratch))
                if hash_file(archive) != hash:
                    raise ValueError(f"{package} is not what tools/browser/integrity.json says; do not use it")
                unpack(archive, package.rpartition("@")[0], fresh)
        (fresh / MARK).write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def fetch(package: str, folder: Path) -> Path:
    """The archive of ``name@version``, as the registry that npm is set up for has it. Raises NotFetched."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotFetched("npm is not installed (Debian and Ubuntu: apt-get install npm)")
    folder = folder / package.replace("/", "_")
    folder.mkdir()
    # npm's own time limit is five minutes and more; a closed network says so within half a minute.
    command = [npm, "pack", package, "--silent", "--pack-destination", str(folder), "--fetch-retries", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder)
    except subprocess.TimeoutExpired:
        raise NotFetched(f"npm took too long to fetch {package}") from None
    found = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(found) != 1:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise NotFetched(f"npm could not fetch {package}: {words[0] if words else 'it said nothing'}")
    return found[0]


def unpack(archive: Path, name: str, folder: Path) -> None:
    """Writes the files of one package that are used. Raises NotFetched when one is not in the archive."""
    target = folder / name
    target.mkdir(parents=True)
    with tarfile.open(archive) as opened:
        for file in FILES[name]:
            try:
                member = opened.extractfile(f"package/{file}")
            except KeyError:
                member = None
            if member is None:
                raise NotFetched(f"{name} holds no {file}")
            (target / Path(file).name).write_bytes(member.read())


def hash_file(path: Path) -> str:
    """Its hash as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def renew(packages: Mapping[str, str]) -> None:
    """Writes the hashes of these versions as they are fetched now; look at the difference before you commit it.
    Raises NotFetched."""
    hashes = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, version in sorted(packages.items()):
            hashes[f"{name}@{version}"] = hash_file(fetch(f"{name}@{version}", Path(scratch)))
    (HERE / "integrity.json").write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
