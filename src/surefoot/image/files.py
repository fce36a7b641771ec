"""Layer 3: the only opener of files below the targets.

Invariant: files are mapped read-only, never read whole; every way in which a file cannot be used is one
`InputError` of ours that names the file.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surefoot.dtypes import Bytes
from surefoot.errors import InputError, Truncated, Unsupported

if TYPE_CHECKING:
    from surefoot.image.binary import Image

__all__ = ["map_file", "open_image"]


def map_file(path: str | os.PathLike[str]) -> Bytes:
    """Map a file read-only: (b,) uint8, backed by the page cache and released with its last view.

    Raises:
        InputError: missing, unreadable, a directory, or not mappable.
        Truncated: empty.
    """
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # before opening: a pipe would block
            raise Unsupported("is not a regular file", file=name)
        with Path(path).open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise Truncated("file is empty", file=name)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(f"cannot be read: {reason}", file=name) from error


def open_image(path: str | os.PathLike[str]) -> Image:
    """Open a kernel or module; nothing but its headers is read yet.

    Raises:
        InputError: see `map_file`.
        Unsupported, Truncated, Inconsistent: see `surefoot.image.elf.decode_elf`.
    """
    from surefoot.image.binary import decode_image

    return decode_image(map_file(path), os.fspath(path))
