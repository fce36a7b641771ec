"""Layer 7: VMCOREINFO, the few lines in which a kernel describes itself to readers of its memory (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from surefoot.errors import Inconsistent

__all__ = ["VmcoreInfo", "find_vmcoreinfo", "parse_vmcoreinfo"]

_MAX_BYTES: Final = 16384
"""Upper bound of one VMCOREINFO text; the kernel keeps it in one page (VMCOREINFO_BYTES)."""


@dataclass(frozen=True, slots=True)
class VmcoreInfo:
    """What the walk needs of VMCOREINFO.

    Attributes:
        text: all lines, as found.
        release: `uname -r` of the kernel.
        build_id: GNU build-id in lower-case hexadecimal; empty for kernels before 5.9, which do not state it.
        kaslr_offset: bytes by which the kernel runs above its link address.
        pac_mask: bits of a kernel pointer that may hold an authentication code; 0 where none is used.

    Source:
        Documentation/admin-guide/kdump/vmcoreinfo.rst of Linux 7.3.
    """

    text: str
    release: str
    build_id: str
    kaslr_offset: int
    pac_mask: int


def parse_vmcoreinfo(text: str) -> VmcoreInfo:
    """Give the meaning of a VMCOREINFO text.

    Raises:
        Inconsistent: a line that must hold a number does not, or the text names no kernel.
    """
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    release = values.get("OSRELEASE", "")
    if not release:
        raise Inconsistent("VMCOREINFO does not name a kernel release")
    return VmcoreInfo(
        text=text,
        release=release,
        build_id=values.get("BUILD-ID", "").lower(),
        kaslr_offset=_number(values, "KERNELOFFSET", 16),
        pac_mask=_number(values, "NUMBER(KERNELPACMASK)", 0),
    )


def _number(values: dict[str, str], key: str, base: int) -> int:
    """Read one number; 0 where the line is missing (the kernel then does not use what it describes)."""
    try:
        return int(values.get(key, "0"), base) % 2**64
    except ValueError as error:
        raise Inconsistent(f"VMCOREINFO line {key} holds {values[key]!r}, not a number") from error


def find_vmcoreinfo(memory: bytes | memoryview) -> str:
    """Search raw memory for a VMCOREINFO text; empty where there is none.

    The kernel keeps the text in a page of its own, padded with zeros. Parts of it also occur elsewhere (in the
    kernel's own format strings, with conversions instead of values), so that a text counts only if it names both
    a release and the address of swapper_pg_dir in plain figures.
    """
    for hit in re.finditer(rb"OSRELEASE=[!-~]{1,64}\n", memory):
        chunk = bytes(memory[hit.start() : hit.start() + _MAX_BYTES])
        lines = re.match(rb"(?:[ -~]*\n)+", chunk)
        text = lines.group() if lines else b""
        if re.search(rb"SYMBOL\(swapper_pg_dir\)=[0-9a-f]{16}\n", text):
            return text.decode("ascii")
    return ""
