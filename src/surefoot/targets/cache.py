"""Layer 7: decoded tables kept by build-id in the user's cache folder.

Invariant: what `load` gives is exactly what `store` was given, or None. Files appear by atomic rename, so readers and
writers need no lock; a damaged, truncated or foreign file fails its checksum, counts as missing and is replaced.
A cache that cannot be written or read costs time, never an answer: nothing here raises for the state of the disk.

File: 8 bytes magic, uint32 length and uint32 CRC-32 of the header; the header, JSON; from the next multiple of
64 the arrays, each at a multiple of 64. The header names every array, its type, shape, place and CRC-32.
"""

from __future__ import annotations

import ast
import json
import mmap
import os
import re
import struct
import tempfile
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from surefoot.targets.vm.folders import cache_folder

__all__ = ["TableCache"]

_MAGIC: Final = b"SFTABLE1"
_PREFIX: Final = struct.Struct("<8sII")
_ALIGN: Final = 64
_MAX_HEADER: Final = 1 << 20
_MAX_BYTES: Final = 2 << 30
"""What the folder may hold; the entries that were used longest ago go first."""
_STALE_SECONDS: Final = 3600
"""Age after which an unfinished file belongs to a writer that died."""
_HEX: Final = re.compile(r"[0-9a-f]{8,128}")
_WORD: Final = re.compile(r"[a-z0-9_]{1,40}")

Arrays = dict[str, NDArray[Any]]


class TableCache:
    """Tables of arrays, one file for each (build-id, kind, version).

    Attributes:
        folder: where the files are.
    """

    def __init__(self, root: Path | None = None) -> None:
        """Use a folder; nothing is created before something is stored.

        Args:
            root: the cache folder, by default $SUREFOOT_CACHE or the user's own.
        """
        self.folder = (cache_folder() if root is None else root) / "tables"

    def path(self, build_id: str, kind: str, version: int) -> Path | None:
        """Give where an entry is kept, None for a build-id that is no hexadecimal number.

        Raises:
            ValueError: `kind` is no word of lower-case letters, digits and underscores (a bug of the caller).
        """
        if not _WORD.fullmatch(kind):
            raise ValueError(f"kind of table: {kind!r}")
        if not _HEX.fullmatch(build_id):
            return None
        return self.folder / f"{build_id}-{kind}-{version}.tables"

    def load(self, build_id: str, kind: str, version: int) -> Arrays | None:
        """Give the arrays that were stored, mapped read-only; None if there are none that are intact.

        Args:
            build_id: hexadecimal; the empty one of an image without build-id finds nothing.
            kind: what the tables are, e.g. "rules".
            version: of their meaning; another version is not found.
        """
        path = self.path(build_id, kind, version)
        if path is None:
            return None
        try:
            with path.open("rb") as file:
                data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        except (OSError, ValueError):
            return None
        found = _decode(data, {"build_id": build_id, "kind": kind, "version": version})
        if found is not None:
            with suppress(OSError):
                os.utime(path)
        return found

    def store(self, build_id: str, kind: str, version: int, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """Keep arrays of plain types; tell whether that worked.

        Raises:
            ValueError: an array holds Python objects (a bug of the caller).
        """
        path = self.path(build_id, kind, version)
        if path is None:
            return False
        parts = _encode(arrays, {"build_id": build_id, "kind": kind, "version": version})
        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".new-", delete=False) as file:
                temporary = Path(file.name)
                for part in parts:
                    file.write(part)
            temporary.replace(path)
        except OSError:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink()
            return False
        self._prune(path)
        return True

    def _prune(self, newest: Path) -> None:
        """Remove what dead writers left, and the oldest entries beyond the folder's limit."""
        entries = []
        with suppress(OSError):
            for path in self.folder.iterdir():
                with suppress(OSError):
                    status = path.stat()
                    if path.name.startswith(".new-"):
                        if time.time() - status.st_mtime > _STALE_SECONDS:
                            path.unlink()
                    elif path.suffix == ".tables" and path != newest:
                        entries.append((status.st_mtime, status.st_size, path))
        entries.sort(key=lambda entry: entry[0], reverse=True)
        total = 0
        for _, size, path in entries:
            total += size
            if total > _MAX_BYTES:
                with suppress(OSError):
                    path.unlink()


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _encode(arrays: Mapping[str, NDArray[Any]], identity: dict[str, Any]) -> list[bytes | memoryview]:
    """Lay out a file as a list of byte strings to be written one after the other."""
    entries, parts = [], list[bytes | memoryview]()
    at = 0
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"array {name} holds Python objects")
        flat = np.ascontiguousarray(array)
        data = flat.reshape(-1).view(np.uint8).data if flat.size else memoryview(b"")
        descr = repr(np.lib.format.dtype_to_descr(flat.dtype))
        entries.append([name, descr, list(flat.shape), at, data.nbytes, zlib.crc32(data)])
        parts += [data, bytes(_aligned(data.nbytes) - data.nbytes)]
        at += _aligned(data.nbytes)
    header = json.dumps({"of": identity, "arrays": entries, "bytes": at}).encode()
    start = _PREFIX.pack(_MAGIC, len(header), zlib.crc32(header)) + header
    return [start + bytes(_aligned(len(start)) - len(start)), *parts]


def _decode(data: NDArray[np.uint8], identity: dict[str, Any]) -> Arrays | None:
    """Give the arrays of a file, None unless everything fits."""
    if data.size < _PREFIX.size:
        return None
    magic, length, crc = _PREFIX.unpack(data[: _PREFIX.size].tobytes())
    if magic != _MAGIC or length > min(_MAX_HEADER, data.size - _PREFIX.size):
        return None
    header = data[_PREFIX.size : _PREFIX.size + length].tobytes()
    if zlib.crc32(header) != crc:
        return None
    try:
        return _arrays(data[_aligned(_PREFIX.size + length) :], json.loads(header), identity)
    except (ValueError, KeyError, TypeError, SyntaxError):  # a header with the right checksum and foreign content
        return None


def _arrays(body: NDArray[np.uint8], header: dict[str, Any], identity: dict[str, Any]) -> Arrays | None:
    if header["of"] != identity or header["bytes"] != body.size:
        return None
    found: Arrays = {}
    for name, descr, shape, at, size, crc in header["arrays"]:
        data = body[at : at + size]
        if data.size != size or zlib.crc32(data.data) != crc:
            return None
        dtype = np.lib.format.descr_to_dtype(ast.literal_eval(descr))
        found[name] = data.view(dtype).reshape(shape) if size else np.zeros(shape, dtype=dtype)
    return found
