"""Layer 7: where downloaded kernels and running guests are kept, and how files get there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from surefoot.errors import Denied, SurefootError, TargetError, Unavailable

__all__ = [
    "Report",
    "cache_folder",
    "check_tools",
    "locked",
    "os_errors",
    "read_json",
    "silent",
    "staging",
    "write_json",
]

Report: TypeAlias = Callable[[str], None]
"""Takes one line that says what is being done now."""


def silent(_step: str) -> None:
    """Report nothing."""


def cache_folder() -> Path:
    """Give the folder for everything that may be deleted at any time: $SUREFOOT_CACHE or the user's own.

    The folder need not exist.
    """
    chosen = os.environ.get("SUREFOOT_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("surefoot", appauthor=False)


def check_tools(**packages: str) -> None:
    """Make sure that programs can be run.

    Args:
        packages: program (underscores for dashes) -> the Debian package that has it.

    Raises:
        Unavailable: the first program that is not on PATH, with the package in the hint.
    """
    for key, package in packages.items():
        program = key.replace("_", "-")
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is needed but not installed", hint=f"on Debian: apt-get install {package}")


@contextlib.contextmanager
def os_errors(action: str) -> Iterator[None]:
    """Turn the operating system's errors into ours, with what was being done.

    Raises:
        Denied: no permission.
        TargetError: anything else, a full disk among it.
    """
    try:
        yield
    except PermissionError as error:
        raise Denied(f"cannot {action}: {error}") from error
    except OSError as error:
        raise TargetError(f"cannot {action}: {error}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, made if needed; another process waits until the block ends."""
    with os_errors(f"lock {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(final: Path) -> Iterator[Path]:
    """Give an empty folder next to ``final`` that becomes ``final`` if the block ends well, else vanishes.

    What stood at ``final`` before is replaced.
    """
    with os_errors(f"make {final}"):
        final.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        yield folder
        with os_errors(f"make {final}"):
            folder.chmod(0o755)
            if final.exists():
                shutil.rmtree(final)
            folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        Denied, TargetError: it cannot be written; the old file, if any, is as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with os_errors(f"write {path}"):
            partial.write_text(json.dumps(value, indent=1) + "\n")
            partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Give the object in a JSON file.

    Raises:
        SurefootError: it cannot be read or does not hold an object.
    """
    with os_errors(f"read {path}"):
        text = path.read_text()
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SurefootError(f"{path} is damaged: {error}", hint="delete it") from error
    if not isinstance(value, dict):
        raise SurefootError(f"{path} is damaged: not a JSON object", hint="delete it")
    return value
