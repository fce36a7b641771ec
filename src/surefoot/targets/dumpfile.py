"""Layer 7: what the outside of a memory dump says: its format, machine, notes and the CPUs' registers.

The memory itself is read through drgn. Notes are read here because drgn gives them only through a full stack
trace, which needs all debug information loaded. Formats: ELF core files (QEMU's dump-guest-memory,
/proc/vmcore) and compressed kdump files (makedumpfile), flattened or not.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from surefoot.errors import Denied, Inconsistent, InputError, Truncated, Unavailable, Unsupported
from surefoot.targets.vmcoreinfo import find_vmcoreinfo

__all__ = ["CpuRegisters", "Dump", "ExceptionLevel", "parse_notes", "read_dump"]

_EM_AARCH64: Final = 183
_MACHINES: Final = {3: "i386", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 243: "riscv", 258: "loongarch"}
_ET_CORE: Final = 4
_PT_LOAD, _PT_NOTE = 1, 4
_PN_XNUM: Final = 0xFFFF
_NT_PRSTATUS: Final = 1
_PRSTATUS_PID: Final = 32
_PRSTATUS_REGS: Final = 112
"""Offsets of pr_pid and pr_reg in struct elf_prstatus of a 64-bit machine (include/linux/elfcore.h): file format."""
_REGS: Final = struct.Struct("<34Q")
"""struct user_pt_regs of arm64 (uapi/asm/ptrace.h): x0..x30, sp, pc, pstate."""
_MAX_NOTES: Final = 64 << 20
_FLATTENED_HEADER: Final = 4096


class ExceptionLevel:
    """Meaning of the mode bits of PSTATE (Arm ARM, C5.2.19 SPSR_EL1)."""

    AARCH32: Final = 0x10
    MASK: Final = 0xC
    """The exception level times four; bit 0 selects the stack pointer."""


class CpuRegisters(NamedTuple):
    """The registers of one CPU at an instruction boundary.

    Attributes:
        regs: x0..x30.
        sp: stack pointer in use.
        pc: address of the next instruction.
        pstate: processor state as in SPSR_ELx.
        pid: pr_pid of the note: the task's process ID in dumps of the kernel's own making, the CPU's number plus
            one in those of QEMU.
    """

    regs: tuple[int, ...]
    sp: int
    pc: int
    pstate: int
    pid: int

    @property
    def is_user(self) -> bool:
        """Whether the CPU was at exception level 0."""
        return bool(self.pstate & ExceptionLevel.AARCH32) or self.pstate & ExceptionLevel.MASK == 0


@dataclass(frozen=True, slots=True)
class Dump:
    """A memory dump as seen from outside.

    Attributes:
        path: the file.
        format: "elf" or "kdump".
        registers: those of the CPUs, in the order of the notes.
        vmcoreinfo: the text, empty where the dump holds none.
        in_memory: the text is not in a note but was found in the dumped memory.
    """

    path: Path
    format: str
    registers: tuple[CpuRegisters, ...]
    vmcoreinfo: str
    in_memory: bool = False


def read_dump(path: Path) -> Dump:
    """Recognise a memory dump and read its notes.

    Args:
        path: the file.

    Raises:
        Unavailable: no such file, or it cannot be read.
        Denied: the file may not be read by this user.
        Unsupported: not a memory dump of a 64-bit little-endian Arm machine.
        Truncated: the file ends before its contents do.
    """
    name = str(path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            head = file.read(16)
            if head[:4] == b"\x7fELF":
                return _read_elf(path, file)
            if head[:8] == b"KDUMP   " or head[:12] == b"makedumpfile":
                return _read_kdump(path, file, flattened=head[:8] != b"KDUMP   ")
        except PermissionError as error:
            raise Denied(f"{name}: permission denied", hint="read the file as its owner or as root") from error
        except OSError as error:
            raise Unavailable(f"{name}: {(error.strerror or str(error)).lower()}") from error
        except struct.error as error:
            raise Truncated("the file ends inside its header", file=name) from error
        except InputError as error:
            raise error.at(file=name) from error
    raise Unsupported(
        "not a memory dump: neither an ELF core file nor a kdump file" if head else "the file is empty",
        file=name,
        hint="make one with `surefoot vm dump`, QEMU's dump-guest-memory, or kdump",
    )


def _read_elf(path: Path, file: BinaryIO) -> Dump:
    """Read the notes of an ELF core file and check that its segments are there."""
    head = _exactly(file, 0, 64)
    if head[4:6] != b"\x02\x01":
        raise Unsupported("not a 64-bit little-endian ELF file")
    kind, machine = struct.unpack_from("<HH", head, 16)
    phoff, shoff = struct.unpack_from("<QQ", head, 32)
    phentsize, phnum = struct.unpack_from("<HH", head, 54)
    if machine != _EM_AARCH64:
        raise Unsupported(f"a file of machine {_MACHINES.get(machine, str(machine))}, not arm64")
    if kind != _ET_CORE:
        raise Unsupported("an ELF file, but not a core dump", hint="give the kernel image with --vmlinux")
    if phnum == _PN_XNUM:  # more segments than e_phnum holds: the count is sh_info of section 0
        (phnum,) = struct.unpack_from("<I", _exactly(file, shoff, 64), 44)
    if phentsize != 56:
        raise Inconsistent(f"program headers of {phentsize} bytes, not 56")
    table = _exactly(file, phoff, phnum * 56)
    size = os.fstat(file.fileno()).st_size
    notes, loads = bytearray(), []
    for at in range(0, len(table), 56):
        (p_type,) = struct.unpack_from("<I", table, at)
        offset, _, _, filesz = struct.unpack_from("<4Q", table, at + 8)
        if p_type in {_PT_LOAD, _PT_NOTE} and offset + filesz > size:
            raise Truncated(f"the dump ends at {size:#x}, its contents at {offset + filesz:#x}")
        if p_type == _PT_NOTE and len(notes) + filesz <= _MAX_NOTES:
            notes += _exactly(file, offset, filesz)
        elif p_type == _PT_LOAD and filesz:
            loads.append((offset, filesz))
    registers, text = parse_notes(bytes(notes))
    if text:
        return Dump(path, "elf", registers, text)
    return Dump(path, "elf", registers, _search(file, loads), in_memory=True)


def _search(file: BinaryIO, loads: list[tuple[int, int]]) -> str:
    """Look for VMCOREINFO in the dumped memory, where no note holds it."""
    if not loads:
        return ""
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
        for offset, size in loads:
            with view[offset : offset + size] as part:
                text = find_vmcoreinfo(part)
            if text:
                return text
    return ""


def _read_kdump(path: Path, file: BinaryIO, *, flattened: bool) -> Dump:
    """Read the notes of a kdump file.

    Source:
        makedumpfile's diskdump_mod.h: struct disk_dump_header, struct kdump_sub_header (64-bit).
    """
    pieces = tuple(_pieces(file)) if flattened else None
    head = _at(file, pieces, 0, 464)
    if head[:8] != b"KDUMP   ":
        raise Inconsistent("a flattened dump that holds no kdump file")
    (version,) = struct.unpack_from("<i", head, 8)
    uts = [head[12 + 65 * i : 12 + 65 * (i + 1)].split(b"\0")[0].decode("ascii", "replace") for i in range(6)]
    (block_size,) = struct.unpack_from("<i", head, 428)
    if uts[0] != "Linux":
        raise Unsupported(
            "a kdump file that does not say which kernel and machine it is of, as QEMU writes them",
            hint="let QEMU write an ELF dump: dump-guest-memory without -z, -l or -s",
        )
    if uts[4] != "aarch64":
        raise Unsupported(f"a dump of machine {uts[4] or 'unknown'}, not arm64")
    if version < 4 or not 512 <= block_size <= 1 << 20:
        raise Unsupported(f"a kdump file of version {version}; 4 or later holds the CPUs' registers")
    sub = _at(file, pieces, block_size, 80)
    info_off, info_size, note_off, note_size = struct.unpack_from("<4Q", sub, 32)
    if max(info_size, note_size) > _MAX_NOTES:
        raise Inconsistent("the kdump header gives notes an absurd size")
    registers, text = parse_notes(_at(file, pieces, note_off, note_size))
    if info_size:
        text = _at(file, pieces, info_off, info_size).rstrip(b"\0").decode("ascii", "replace")
    return Dump(path, "kdump", registers, text)


def _pieces(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """List the pieces of a flattened dump: (offset in the dump, size, offset in the file), in file order.

    Source:
        makedumpfile's makedumpfile.h: struct makedumpfile_data_header, big-endian.
    """
    size, at = os.fstat(file.fileno()).st_size, _FLATTENED_HEADER
    while True:
        offset, length = struct.unpack(">qq", _exactly(file, at, 16))
        if offset < 0:
            return
        at += 16
        if length <= 0 or at + length > size:
            raise Truncated("the flattened dump ends inside a piece", offset=at)
        yield offset, length, at
        at += length


def _at(file: BinaryIO, pieces: tuple[tuple[int, int, int], ...] | None, offset: int, size: int) -> bytes:
    """Read bytes of the dump, wherever a flattened file has put them (later pieces win)."""
    if pieces is None:
        return _exactly(file, offset, size)
    result, seen = bytearray(size), 0
    for start, length, at in pieces:
        low, high = max(start, offset), min(start + length, offset + size)
        if low < high:
            result[low - offset : high - offset] = _exactly(file, at + low - start, high - low)
            seen += high - low
    if seen < size:
        raise Truncated("the flattened dump lacks a part of its header", offset=offset)
    return bytes(result)


def _exactly(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read `size` bytes at `offset`."""
    if offset > 2**62 or size > _MAX_NOTES:
        raise Inconsistent("the header points far outside the file")
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise Truncated("the file ends inside its headers", offset=offset + len(data))
    return data


def parse_notes(notes: bytes) -> tuple[tuple[CpuRegisters, ...], str]:
    """Give the registers of every CPU and the VMCOREINFO text out of ELF notes.

    Args:
        notes: the contents of a PT_NOTE segment.

    Returns:
        the registers in the order of their notes, and the text ("" for none). Notes of other kinds are skipped.

    Raises:
        Truncated: a note ends behind the notes.
    """
    registers, text, at = [], "", 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        start = at + 12 + (name_size + 3 & ~3)
        if start + size > len(notes):
            raise Truncated("an ELF note ends behind the notes", offset=at)
        name = notes[at + 12 : at + 12 + name_size].rstrip(b"\0")
        if name == b"CORE" and kind == _NT_PRSTATUS:
            if size < _PRSTATUS_REGS + _REGS.size:
                raise Truncated("an NT_PRSTATUS note is too short for the registers of arm64", offset=at)
            (pid,) = struct.unpack_from("<i", notes, start + _PRSTATUS_PID)
            values = _REGS.unpack_from(notes, start + _PRSTATUS_REGS)
            registers.append(CpuRegisters(values[:31], values[31], values[32], values[33], pid))
        elif name == b"VMCOREINFO":
            text = notes[start : start + size].rstrip(b"\0").decode("ascii", "replace")
        at = start + (size + 3 & ~3)
    return tuple(registers), text
