"""Layer 7: fragments of a kernel configuration; pure.

A fragment is a text of lines ``CONFIG_NAME=value`` and ``# CONFIG_NAME is not set``; other comments and empty lines
mean nothing. An option that a fragment does not name keeps the default of its Kconfig file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import resources

from surefoot.errors import InputError

__all__ = ["base_fragment", "config_text", "merge", "parse", "refused"]

_SET = re.compile(r'^CONFIG_(?P<name>\w+)=(?P<value>[ymn]|-?\d+|0x[0-9a-fA-F]+|"(?:[^"\\]|\\.)*")$')
_UNSET = re.compile(r"^# CONFIG_(?P<name>\w+) is not set$")


def base_fragment() -> str:
    """Give the configuration that every kernel built here starts from."""
    return (resources.files("surefoot.targets.vm") / "kernel.config").read_text("utf-8")


def parse(text: str, file: str = "") -> dict[str, str]:
    """Give the options of a fragment: name without ``CONFIG_`` -> value as written, ``n`` for one that is not set.

    Args:
        text: the fragment; of an option that is named twice, the last line counts.
        file: its name, for errors.

    Raises:
        InputError: a line is neither an option, a comment nor empty.
    """
    options: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if match := _UNSET.match(line):
            options[match["name"]] = "n"
        elif match := _SET.match(line):
            options[match["name"]] = match["value"]
        elif line and not line.startswith("#"):
            raise InputError(f"line {number} is no kernel option: '{line}'", file=file)
    return options


def merge(fragments: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Give all options of several fragments, sorted by name; where they differ, the last one counts."""
    merged: dict[str, str] = {}
    for fragment in fragments:
        merged |= fragment
    return dict(sorted(merged.items()))


def config_text(options: Mapping[str, str]) -> str:
    """Give options as the kernel's own tools write them, in the order of the mapping."""
    return "".join(
        f"# CONFIG_{name} is not set\n" if value == "n" else f"CONFIG_{name}={value}\n"
        for name, value in options.items()
    )


def refused(wanted: Mapping[str, str], got: Mapping[str, str]) -> dict[str, str]:
    """Give the options that did not come out as wanted: name -> value in the finished configuration.

    An option that the finished configuration does not name is not set.
    """
    return {name: got.get(name, "n") for name, value in wanted.items() if got.get(name, "n") != value}
