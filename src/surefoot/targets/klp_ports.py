"""Layer 7: ports to kernels with live patching: a guest of `surefoot vm`, and the machine that this runs on."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from surefoot.errors import TargetError
from surefoot.targets.klp import FILES, LIVEPATCH
from surefoot.targets.vm.guest import Console

__all__ = ["GuestPort", "LocalPort", "module_name"]

_GUEST_FOLDER: Final = "/livepatch"
"""Where `surefoot vm` puts the kernel's own live patches and test modules."""
_PUSHED: Final = "/run"
_TIMEOUT_S: Final = 60.0
_LOAD_TIMEOUT_S: Final = 120.0
_NAME: Final = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")

_SURVEY: Final = (
    f"cd {LIVEPATCH} 2>/dev/null && {{ find . -mindepth 1 -type d; "
    f"grep -Hs '' {' '.join(f'./*/{name} ./*/*/{name}' for name in FILES)}; }}; "
    "cd /proc && grep -Hs '' [0-9]*/task/[0-9]*/patch_state [0-9]*/task/[0-9]*/comm; true"
)
"""One process for all threads; a file that is not there (any more) is passed over."""


def module_name(source: str) -> str:
    """Give the name that the kernel knows a module by: of its file without the ending, dashes as underscores."""
    return Path(source).name.partition(".ko")[0].replace("-", "_")


class GuestPort:
    """A guest, through its console.

    Args:
        console: runs commands in the guest as root.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def read_text(self, path: str) -> str | None:
        """Give the content of a file; see `KlpPort`."""
        answer = self._console.run(f"cat {shlex.quote(path)}", timeout=_TIMEOUT_S)
        return None if answer.status else answer.text

    def write_text(self, path: str, text: str) -> None:
        """Write to a file; see `KlpPort`."""
        self._do(f"echo {shlex.quote(text)} >{shlex.quote(path)}", f"write {text} to {path}")

    def list_dir(self, path: str) -> list[str]:
        """Give the names in a folder; see `KlpPort`."""
        answer = self._console.run(f"ls -1 {shlex.quote(path)}", timeout=_TIMEOUT_S)
        return [] if answer.status else sorted(answer.text.split("\n")[:-1])

    def load_module(self, source: str, parameters: Iterable[str] = ()) -> str:
        """Load a module: a file here, or one that lies in the guest's /livepatch; see `KlpPort`."""
        name = module_name(source)
        path = Path(source)
        if path.is_file():
            place = f"{_PUSHED}/{name}.ko"
            self._console.push(path.read_bytes(), place)
        elif _NAME.match(source):
            place = self._ready(name)
        else:
            raise TargetError(f"there is no module file {source}")
        words = shlex.join(["insmod", place, *parameters])
        self._do(words, f"load {name}", timeout=_LOAD_TIMEOUT_S)
        return name

    def _ready(self, name: str) -> str:
        """Find a module among those that lie ready in the guest."""
        have = self.list_dir(_GUEST_FOLDER)
        for file in have:
            if module_name(file) == name:
                return f"{_GUEST_FOLDER}/{file}"
        listed = ", ".join(sorted(module_name(file) for file in have)) or "nothing"
        raise TargetError(
            f"there is no module '{name}', neither here nor in the guest", hint=f"the guest has {listed}"
        )

    def unload_module(self, name: str) -> None:
        """Unload a module; see `KlpPort`."""
        self._do(f"rmmod {shlex.quote(name)}", f"unload {name}", timeout=_LOAD_TIMEOUT_S)

    def survey_text(self) -> str:
        """Give one look at patches and threads; see `KlpPort`."""
        return self._console.run(_SURVEY, timeout=_TIMEOUT_S).text

    def _do(self, command: str, what: str, *, timeout: float = _TIMEOUT_S) -> None:
        answer = self._console.run(command, timeout=timeout)
        if answer.status:
            lines = [line for line in answer.text.splitlines() if line.strip()]
            raise TargetError(f"the guest's kernel did not {what}: {lines[-1] if lines else 'no message'}")


def _run_program(words: Sequence[str]) -> tuple[int, str]:
    """Run a program and give its status and the last line that it said."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        return 127, f"{words[0]}: {error.strerror}"
    lines = (done.stderr or done.stdout).strip().splitlines()
    return done.returncode, lines[-1] if lines else "no message"


class LocalPort:
    """The machine that this program runs on.

    Args:
        root: folder that stands for "/"; another one than that is for tests.
        run: runs a program: words -> (status, what it said).
    """

    def __init__(
        self, root: Path = Path("/"), run: Callable[[Sequence[str]], tuple[int, str]] = _run_program
    ) -> None:
        self._root = root
        self._run = run

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def read_text(self, path: str) -> str | None:
        """Give the content of a file; see `KlpPort`."""
        try:
            return self._at(path).read_text("utf-8", "replace")
        except OSError:
            return None

    def write_text(self, path: str, text: str) -> None:
        """Write to a file; see `KlpPort`."""
        try:
            # Not created if it is missing: sysfs has the file or the kernel has no such patch.
            with self._at(path).open("r+b", buffering=0) as file:
                file.write(text.encode())
        except OSError as error:
            raise TargetError(f"the kernel did not write {text} to {path}: {error.strerror}") from error

    def list_dir(self, path: str) -> list[str]:
        """Give the names in a folder; see `KlpPort`."""
        try:
            return sorted(entry.name for entry in self._at(path).iterdir())
        except OSError:
            return []

    def load_module(self, source: str, parameters: Iterable[str] = ()) -> str:
        """Load a module: insmod for a file, modprobe for a name; see `KlpPort`."""
        program = "insmod" if "/" in source or source.endswith(".ko") else "modprobe"
        self._do([program, "--", source, *parameters] if program == "modprobe" else [program, source, *parameters])
        return module_name(source)

    def unload_module(self, name: str) -> None:
        """Unload a module; see `KlpPort`."""
        self._do(["rmmod", name])

    def _do(self, words: Sequence[str]) -> None:
        status, said = self._run(words)
        if status:
            raise TargetError(f"the kernel refused '{' '.join(words)}': {said}", hint="this needs root")

    def survey_text(self) -> str:
        """Give one look at patches and threads; see `KlpPort`."""
        lines: list[str] = []
        for patch in self.list_dir(LIVEPATCH):
            self._survey_patch(patch, lines)
        proc = self._at("/proc")
        for tgid in (name for name in self.list_dir("/proc") if name.isdigit()):
            for pid in self.list_dir(f"/proc/{tgid}/task"):
                for file in ("patch_state", "comm"):
                    text = self.read_text(f"/{proc.relative_to(self._root)}/{tgid}/task/{pid}/{file}")
                    if text is not None:
                        lines.append(f"{tgid}/task/{pid}/{file}:{text.rstrip()}")
        return "\n".join(lines)

    def _survey_patch(self, patch: str, lines: list[str]) -> None:
        """Add the lines of one patch's folder."""
        for name in self.list_dir(f"{LIVEPATCH}/{patch}"):
            place = f"{LIVEPATCH}/{patch}/{name}"
            if not self._at(place).is_dir():
                text = self.read_text(place) if name in FILES else None
                if text is not None:
                    lines.append(f"./{patch}/{name}:{text.rstrip()}")
                continue
            lines.append(f"./{patch}/{name}")
            for item in self.list_dir(place):
                if self._at(f"{place}/{item}").is_dir():
                    lines.append(f"./{patch}/{name}/{item}")
                elif item in FILES:
                    text = self.read_text(f"{place}/{item}") or ""
                    lines.append(f"./{patch}/{name}/{item}:{text.rstrip()}")
