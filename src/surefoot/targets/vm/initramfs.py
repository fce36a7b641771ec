"""Layer 7: a root file system for the guest, as a newc cpio archive; pure but for :func:`read_module`.

The archive is built from bytes in memory, so the same inputs always give the same archive: every time stamp is
zero, inode numbers count from one, and the order of the entries is the order in which they were added.
"""

from __future__ import annotations

import gzip
import lzma
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from surefoot.errors import Inconsistent, InputError, Truncated, Unsupported

__all__ = ["Archive", "index_modules", "load_order", "modinfo", "module_name", "read_module"]

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ELF_MAGIC = b"\x7fELF"
_MAX_FIELD = 0xFFFF_FFFF


@dataclass
class Archive:
    """A cpio archive (format newc, as Documentation/driver-api/early-userspace/buffer-format.rst has it).

    Folders on the way to an entry are added by themselves, once.
    """

    _parts: list[bytes] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def add_folder(self, name: str, mode: int = 0o755) -> None:
        """Have a folder of this name; one that exists already is left as it is."""
        if name and name not in self._names:
            self._add(name, stat.S_IFDIR | mode, b"")

    def add_file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Have a regular file with these bytes.

        Raises:
            InputError: the name is taken, absolute or empty, or the data need 4 GiB or more.
        """
        self._add(name, stat.S_IFREG | mode, data)

    def add_link(self, name: str, to: str) -> None:
        """Have a symbolic link; ``to`` is stored as it is."""
        self._add(name, stat.S_IFLNK | 0o777, to.encode())

    def add_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Have a character device node."""
        self._add(name, stat.S_IFCHR | mode, b"", rdev=(major, minor))

    def to_bytes(self) -> bytes:
        """Give the archive with its trailer, padded to 512 bytes; entries may still be added afterwards."""
        data = b"".join(self._parts) + _entry(_TRAILER, 0, b"", 0, (0, 0))
        return data + bytes(-len(data) % 512)

    def to_gzip(self, level: int = 1) -> bytes:
        """Give the archive gzipped, the same bytes every time."""
        return gzip.compress(self.to_bytes(), compresslevel=level, mtime=0)

    def _add(self, name: str, mode: int, data: bytes, rdev: tuple[int, int] = (0, 0)) -> None:
        if not name or name.startswith("/") or name.endswith("/"):
            raise InputError(f"'{name}' is not a name for an entry of an archive: it has to be relative")
        if name in self._names or name == _TRAILER:
            raise InputError(f"the archive already has an entry '{name}'")
        if len(data) > _MAX_FIELD:
            raise InputError(f"'{name}' is too large for a cpio archive: {len(data)} bytes")
        parent = name.rpartition("/")[0]
        self.add_folder(parent)
        self._names.add(name)
        self._parts.append(_entry(name, mode, data, len(self._names), rdev))


def _entry(name: str, mode: int, data: bytes, inode: int, rdev: tuple[int, int]) -> bytes:
    """Give header, name and data of one entry, each padded to four bytes."""
    raw_name = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, rdev[0], rdev[1], len(raw_name), 0)
    header = _MAGIC + b"".join(b"%08X" % value for value in fields) + raw_name
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)


def module_name(path: str | Path) -> str:
    """Give the kernel's name of a module file: no folder, no suffix, dashes as underscores."""
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def index_modules(root: Path) -> dict[str, Path]:
    """Give the path of every module file under a folder, by module name (the first in path order wins)."""
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.ko*")):
        if path.suffix in {".ko", ".xz", ".gz"}:
            found.setdefault(module_name(path), path)
    return found


def read_module(path: Path) -> bytes:
    """Give the ELF bytes of a module, decompressed if it is stored as ``.xz`` or ``.gz``.

    Raises:
        Unsupported: another compression (``.zst``).
        InputError: the file cannot be read or decompressed.
    """
    try:
        raw = path.read_bytes()
        if path.suffix == ".xz":
            raw = lzma.decompress(raw)
        elif path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(f"the module cannot be read: {error}", file=str(path)) from error
    if not raw.startswith(_ELF_MAGIC):
        raise Unsupported("not an ELF file after decompression by its suffix", file=str(path))
    return raw


def modinfo(elf: bytes) -> dict[str, list[str]]:
    """Give the ``.modinfo`` strings of a module (ELF64, little endian): key -> values in file order.

    Raises:
        Truncated: section headers lie outside the bytes.
        Unsupported: not a little-endian ELF64 file.
    """
    if elf[:6] != _ELF_MAGIC + b"\x02\x01":
        raise Unsupported("not a little-endian ELF64 file")
    try:
        (table,) = struct.unpack_from("<Q", elf, 0x28)
        entry_size, count, names_at = struct.unpack_from("<HHH", elf, 0x3A)
        sections = [struct.unpack_from("<II4Q", elf, table + i * entry_size) for i in range(count)]
    except struct.error as error:
        raise Truncated("the section headers lie outside the file") from error
    if names_at >= count:
        raise Inconsistent("the index of the section names lies outside the section headers")
    names = sections[names_at][4]
    values: dict[str, list[str]] = {}
    for name_off, _type, _flags, _addr, offset, size in sections:
        start = names + name_off
        if elf[start : start + 9] != b".modinfo\0":
            continue
        for item in elf[offset : offset + size].split(b"\0"):
            key, equals, value = item.decode("utf-8", "replace").partition("=")
            if equals:
                values.setdefault(key, []).append(value)
    return values


def load_order(wanted: Iterable[str], depends: Mapping[str, Iterable[str]]) -> list[str]:
    """Give module names so that each comes after all it depends on, every one once.

    Args:
        wanted: names in the order in which they would be loaded if nothing depended on anything.
        depends: for every module that may be reached, the names it needs.

    Raises:
        InputError: a module that is needed is not known.
        Inconsistent: modules depend on each other in a circle.
    """
    order: list[str] = []
    state: dict[str, bool] = {}
    for first in wanted:
        pending = [first]
        while pending:
            name = pending[-1]
            if state.get(name):
                pending.pop()
                continue
            if name not in depends:
                raise InputError(f"there is no kernel module '{name}'")
            state[name] = False
            missing = [need for need in depends[name] if not state.get(need)]
            if any(need in pending for need in missing):
                raise Inconsistent(f"kernel modules depend on each other in a circle: {', '.join(pending)}")
            pending += missing[:1]
            if not missing:
                state[name] = True
                order.append(name)
    return order
