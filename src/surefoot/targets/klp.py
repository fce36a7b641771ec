"""Layer 7: what Linux tells of its live patches, and the port to the machine that it runs on; parsing is pure.

Sources: Documentation/ABI/testing/sysfs-kernel-livepatch, kernel/livepatch/core.c and fs/proc/base.c:
proc_pid_patch_state (Linux 7.3). One look is one text of lines, however the port gets it:

- ``./PATCH/FILE:VALUE`` and ``./PATCH/OBJECT/FILE:VALUE`` for the files of FILES below /sys/kernel/livepatch, and
  ``./PATCH/OBJECT/FUNCTION,POSITION`` for the folders of functions, which hold no files;
- ``TGID/task/PID/patch_state:VALUE`` and ``TGID/task/PID/comm:NAME`` for every thread.

Invariant: what the lines say is believed to nobody's harm: a line that is none of these is passed over, a number that
is none is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

__all__ = [
    "FILES",
    "LIVEPATCH",
    "KlpPort",
    "Survey",
    "SysfsObject",
    "SysfsPatch",
    "ThreadState",
    "parse_survey",
    "split_source",
]

LIVEPATCH: Final = "/sys/kernel/livepatch"
"""Where the kernel shows its live patches."""
FILES: Final = ("enabled", "transition", "replace", "patched")
"""What is read there. `force` can only be written; whoever reads `stack_order` waits for klp_mutex, which the kernel
holds while it waits for every task to be switched once at the end of a transition: for ever, if one task loops."""

_THREAD: Final = re.compile(r"^(\d{1,10})/task/(\d{1,10})/(patch_state|comm):(.*)$")
_NUMBER: Final = re.compile(r"^-?\d{1,10}$")
_FUNCTION: Final = re.compile(r"^([^,/]+),(\d{1,10})$")


class KlpPort(Protocol):
    """A machine whose kernel has live patching, as seen by root on it."""

    def read_text(self, path: str) -> str | None:
        """Give the content of a file, None if there is none or it cannot be read."""
        ...

    def write_text(self, path: str, text: str) -> None:
        """Write to a file.

        Raises:
            TargetError: the kernel refuses, with its word for the reason.
        """
        ...

    def list_dir(self, path: str) -> list[str]:
        """Give the names in a folder in order, none if there is no such folder."""
        ...

    def load_module(self, source: str, parameters: Iterable[str] = ()) -> str:
        """Load a module.

        Args:
            source: path of a module's file here, or the name of one that lies ready there.
            parameters: of the module, each NAME=VALUE.

        Returns:
            the name of the module.

        Raises:
            TargetError: there is no such file, or the kernel refuses it.
        """
        ...

    def unload_module(self, name: str) -> None:
        """Unload a module.

        Raises:
            TargetError: the kernel refuses.
        """
        ...

    def survey_text(self) -> str:
        """Give one look at all patches and threads; see the module's text for its lines."""
        ...


@dataclass(frozen=True, slots=True)
class SysfsObject:
    """An object of a patch.

    Attributes:
        name: "vmlinux" or a module's name.
        patched: the kernel says so; None if it does not say (before v6.1).
        functions: (name, position) of its functions; position 1 also stands for "must be the only one".
    """

    name: str
    patched: bool | None
    functions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SysfsPatch:
    """A patch that the kernel has.

    Attributes:
        name: of the patch, which is that of its module.
        enabled: it is in force, or about to be; False also while it is being taken back.
        transition: it is under way.
        replace: it replaces all others.
        objects: what it patches.
    """

    name: str
    enabled: bool | None
    transition: bool | None
    replace: bool | None
    objects: tuple[SysfsObject, ...]


@dataclass(frozen=True, slots=True)
class ThreadState:
    """A thread as /proc shows it.

    Attributes:
        pid: thread id.
        tgid: process id.
        comm: its name, empty if it was gone by then.
        patch_state: -1 outside of transitions, 0 old code, 1 new code; None if it was gone.
    """

    pid: int
    tgid: int
    comm: str
    patch_state: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at patches and threads; the threads' states are not of one instant.

    Attributes:
        patches: by name.
        threads: by thread id.
    """

    patches: Mapping[str, SysfsPatch] = field(default_factory=dict)
    threads: Mapping[int, ThreadState] = field(default_factory=dict)

    @property
    def transition(self) -> str | None:
        """Name of the patch that is under way, None for none; there is at most one."""
        return next((name for name, patch in self.patches.items() if patch.transition), None)

    def states(self, target: int) -> tuple[list[ThreadState], list[ThreadState]]:
        """Give the threads that have gone over to `target`, and those that have not."""
        known = [thread for thread in self.threads.values() if thread.patch_state in (0, 1)]
        over = [thread for thread in known if thread.patch_state == target]
        return over, [thread for thread in known if thread.patch_state != target]


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.match(text) else None


def _flag(text: str | None) -> bool | None:
    return None if text is None or text not in {"0", "1"} else text == "1"


def parse_survey(text: str) -> Survey:
    """Give what a look says.

    Args:
        text: of `KlpPort.survey_text`, possibly cut off or mixed with other lines.

    Returns:
        the patches and threads; a patch is given if its folder is named at all.
    """
    files: dict[str, dict[str, str]] = {}
    objects: dict[str, dict[str, list[tuple[str, int]]]] = {}
    values: dict[tuple[str, str], str] = {}
    states: dict[int, int | None] = {}
    comms: dict[int, str] = {}
    tgids: dict[int, int] = {}
    for line in text.splitlines():
        thread = _THREAD.match(line)
        if thread is not None:
            pid = int(thread[2])
            tgids[pid] = int(thread[1])
            if thread[3] == "comm":
                comms[pid] = thread[4]
            else:
                states[pid] = _number(thread[4].strip())
        elif line.startswith("./"):
            _sysfs_line(line[2:], files, objects, values)
    patches = {
        name: SysfsPatch(
            name,
            enabled=_flag(found.get("enabled")),
            transition=_flag(found.get("transition")),
            replace=_flag(found.get("replace")),
            objects=tuple(
                SysfsObject(part, _flag(values.get((name, part))), tuple(sorted(functions)))
                for part, functions in sorted(objects.get(name, {}).items())
            ),
        )
        for name, found in sorted(files.items())
    }
    threads = {pid: ThreadState(pid, tgids[pid], comms.get(pid, ""), states.get(pid)) for pid in sorted(tgids)}
    return Survey(patches, threads)


def _sysfs_line(
    line: str,
    files: dict[str, dict[str, str]],
    objects: dict[str, dict[str, list[tuple[str, int]]]],
    values: dict[tuple[str, str], str],
) -> None:
    """Sort one line about a file or folder below /sys/kernel/livepatch."""
    path, colon, value = line.partition(":")
    parts = path.split("/")
    if not all(parts) or len(parts) > 3:
        return
    found = files.setdefault(parts[0], {})
    value = value.strip()
    if colon and len(parts) == 2:
        found.setdefault(parts[1], value)
    elif colon and len(parts) == 3:
        objects.setdefault(parts[0], {}).setdefault(parts[1], [])
        if parts[2] == "patched":
            values[parts[0], parts[1]] = value
    elif len(parts) > 1:
        functions = objects.setdefault(parts[0], {}).setdefault(parts[1], [])
        match = _FUNCTION.match(parts[2]) if len(parts) == 3 else None
        if match is not None and (match[1], int(match[2])) not in functions:
            functions.append((match[1], int(match[2])))


def split_source(source: str) -> tuple[str, list[str]]:
    """Split what a user names as a module into the module and its parameters.

    Args:
        source: ``FILE.ko`` or ``NAME``, then parameters ``KEY=VALUE``, with spaces between them. A path may hold
            spaces: parameters begin at the first word that is one.

    Returns:
        file or name, and the parameters.
    """
    words = source.split(" ")
    at = next((i for i, word in enumerate(words) if i and re.match(r"^\w+=", word)), len(words))
    return " ".join(words[:at]).strip(), [word for word in words[at:] if word]
