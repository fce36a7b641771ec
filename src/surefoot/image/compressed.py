"""Layer 3: compressed ELF sections (SHF_COMPRESSED).

Invariant: never more memory than the header says, and the header is believed only as far as the compression
method could reach.

Source: System V gABI, "Section Compression"; RFC 1950 and 1951 for zlib.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np

from surefoot.dtypes import Bytes
from surefoot.errors import Inconsistent, Truncated, Unsupported

__all__ = ["inflate_section"]

_CHDR: Final = np.dtype([("type", "<u4"), ("reserved", "<u4"), ("size", "<u8"), ("align", "<u8")])
_ZLIB: Final = 1
_ZSTD: Final = 2
_MAX_RATIO: Final = 1032
"""Bytes that one byte of deflate data can at most stand for: 258 from two bits (zlib technical details)."""

_MAX_BYTES: Final = 2 << 30
"""Bound on the content, for memory; the largest debug section of Debian's 7.3 kernel has 270 MB."""


def inflate_section(data: Bytes) -> Bytes:
    """Give the content of a compressed section, (b,) uint8.

    Raises:
        Truncated: the data end before the content does.
        Inconsistent: damaged, or larger than its header says.
        Unsupported: not compressed with zlib, or 2 GiB and more.
    """
    if data.size < _CHDR.itemsize:
        raise Truncated("compression header is incomplete", offset=int(data.size))
    header = data[: _CHDR.itemsize].view(_CHDR)[0]
    method, size = int(header["type"]), int(header["size"])
    if method == _ZSTD:
        hint = "Decompress it with objcopy --decompress-debug-sections."
        raise Unsupported("section is compressed with zstd", hint=hint)
    if method != _ZLIB:
        raise Unsupported(f"section is compressed with unknown method {method}")
    payload = data[_CHDR.itemsize :]
    if size > _MAX_RATIO * payload.size + 64:
        raise Inconsistent(f"{payload.size} compressed bytes cannot hold {size} bytes")
    if size >= _MAX_BYTES:
        raise Unsupported(f"section holds {size} bytes; less than 2 GiB are decompressed")
    try:
        machine = zlib.decompressobj()
        content = machine.decompress(payload.data, size + 1)
    except zlib.error as error:
        raise Inconsistent(f"compressed data are damaged ({error})") from error
    if len(content) < size:
        raise Truncated(f"compressed data end after {len(content)} of {size} bytes")
    if len(content) > size or not machine.eof:
        raise Inconsistent(f"compressed data hold more than the {size} bytes of the header")
    return np.frombuffer(content, dtype=np.uint8)
