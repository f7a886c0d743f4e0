"""The disk under one process: its power can be cut, it can be full, and the machine's clock can be wrong.

The work is done by `tools/powerloss.c`, a library that is loaded into the process before its own.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).resolve().parents[2] / "tools" / "powerloss.c"
_CONTROL: Final = struct.Struct("=iiq")


class NoCompiler(Exception):
    """The library cannot be made here; the text says why, and what that leaves out."""


def compile_library(folder: Path) -> Path:
    """Compiles the library. Raises NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("there is no C compiler (Debian and Ubuntu: apt-get install gcc libc6-dev)")
    library = folder / "powerloss.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoCompiler(f"{SOURCE.name} does not compile here: {done.stderr.strip()[-300:]}")
    return library


class Disk:
    """The disk that ``folder`` lies on. Without a library only the folder is there, and nothing can be done to it."""

    def __init__(self, folder: Path, library: Path | None) -> None:
        self.folder = folder
        self._shadow = folder.with_name(f"{folder.name}.fsynced")
        self._library = library
        self._control = folder.with_name(f"{folder.name}.control")
        self._clock_ns = 0
        self._is_full = False
        folder.mkdir(parents=True, exist_ok=True)
        (self._shadow / "bytes").mkdir(parents=True, exist_ok=True)
        self._control.write_bytes(bytes(_CONTROL.size))

    @property
    def environment(self) -> dict[str, str]:
        """What a process is started with, so that it is on this disk."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "POWERLOSS_FOLDER": str(self.folder),
            "POWERLOSS_SHADOW": str(self._shadow),
            "POWERLOSS_CONTROL": str(self._control),
        }

    def fill(self, *, is_full: bool) -> None:
        """Whether a file may not grow any more."""
        self._is_full = is_full
        self._write()

    def set_clock(self, ahead_s: float) -> None:
        """By how much the wall clock of the process is ahead from now on."""
        self._clock_ns = round(ahead_s * 1e9)
        self._write()

    def cut_power(self) -> int:
        """After the process was killed: puts the folder back to what was fsynced and nothing else. Returns how many
        bytes and names that loses, counted roughly."""
        before = _measure(self.folder)
        names = (self._shadow / "names").read_text(encoding="utf-8") if (self._shadow / "names").exists() else ""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for line in names.splitlines():
            key, _, name = line.partition(" ")
            synced = self._shadow / "bytes" / key
            if synced.exists():
                shutil.copyfile(synced, self.folder / name)
            else:
                (self.folder / name).touch()
        # With an empty shadow the library takes what it finds as lasting.
        shutil.rmtree(self._shadow)
        (self._shadow / "bytes").mkdir(parents=True)
        after = _measure(self.folder)
        return sum(size != after.get(name) for name, size in before.items()) + len(after.keys() - before.keys())

    def _write(self) -> None:
        # In one piece, into the pages that the process has mapped.
        with self._control.open("r+b") as file, mmap.mmap(file.fileno(), _CONTROL.size) as mapped:
            mapped[:] = _CONTROL.pack(self._is_full, 0, self._clock_ns)


def _measure(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"}
