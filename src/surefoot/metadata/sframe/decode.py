"""Layer 2: the strict decoder: a section, or an error that says where it is wrong.

Invariant: any bytes give a result or an `InputError` with an offset, in time and memory bounded by their number.
"""

from __future__ import annotations

import numpy as np

from surefoot.dtypes import Bytes
from surefoot.metadata.sframe.descriptors import Source
from surefoot.metadata.sframe.faults import Strict
from surefoot.metadata.sframe.model import Relocations, SFrameSection
from surefoot.metadata.sframe.scan import scan_section

__all__ = ["decode"]


def decode(
    data: bytes | bytearray | memoryview | Bytes, *, section_addr: int = 0, relocations: Relocations | None = None
) -> SFrameSection:
    """Read an SFrame section of version 1, 2 or 3.

    Args:
        data: the bytes of the section; one table, or several back to back, then zeros.
        section_addr: address of the first byte; starts are resolved against it, modulo 2**64.
        relocations: those of the section in a relocatable object; starts become offsets inside the sections that
            the relocations name. None for linked images.

    Returns:
        the section, lossless; `.to_rules()` interprets it.

    Raises:
        Truncated: something reaches beyond the section or its own sub-section.
        UnknownVersion: a version other than 1, 2 and 3.
        Unsupported: no SFrame magic number, or an unknown ABI.
        Inconsistent: the section contradicts itself: row counts, flags, byte order, word sizes, row types,
            descriptors that claim more rows than there are bytes.

    Source:
        SFrame specification (libsframe/doc/sframe-spec.texi of binutils 2.47), chapters 2 and 3.
    """
    view = np.frombuffer(data, dtype=np.uint8)
    tables = scan_section(Source(view, section_addr, relocations, Strict()))
    return SFrameSection(tables=tables, size=view.size, address=section_addr)
