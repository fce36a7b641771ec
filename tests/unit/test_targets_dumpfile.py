"""The outside of memory dumps: what is read of good ones, and one sentence for each bad one."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from dump_builder import INFO, elf_core, flattened, kdump, note, prstatus, vmcoreinfo
from surefoot.errors import Denied, Inconsistent, InputError, SurefootError, Truncated, Unavailable, Unsupported
from surefoot.targets.dumpfile import CpuRegisters, Dump, parse_notes, read_dump
from surefoot.targets.vmcoreinfo import find_vmcoreinfo, parse_vmcoreinfo

REGS = list(range(100, 134))
NOTES = prstatus(REGS) + note(b"OTHER", 7, b"xyz") + prstatus([0] * 34, pid=2) + vmcoreinfo()


def _read(tmp_path: Path, data: bytes) -> Dump:
    path = tmp_path / "vmcore"
    path.write_bytes(data)
    return read_dump(path)


def test_an_elf_dump_gives_registers_and_vmcoreinfo(tmp_path: Path) -> None:
    dump = _read(tmp_path, elf_core(NOTES, bytes(100)))
    assert dump.format == "elf"
    assert dump.registers[0] == CpuRegisters(tuple(REGS[:31]), 131, 132, 133, 1)
    assert [regs.pid for regs in dump.registers] == [1, 2]
    assert dump.vmcoreinfo == INFO
    assert not dump.in_memory


def test_the_count_of_segments_may_lie_in_section_0(tmp_path: Path) -> None:
    assert len(_read(tmp_path, elf_core(NOTES, phnum=0xFFFF)).registers) == 2


def test_vmcoreinfo_is_found_in_memory_where_no_note_holds_it(tmp_path: Path) -> None:
    templates = b"OSRELEASE=%s\nOSRELEASE=x\nSYMBOL(swapper_pg_dir)=%lx\n\0"
    memory = templates + bytes(5000) + INFO.encode() + bytes(50)
    dump = _read(tmp_path, elf_core(prstatus(REGS), memory))
    assert dump.vmcoreinfo == INFO
    assert dump.in_memory


@pytest.mark.parametrize("memory", [b"", b"OSRELEASE=%s\n" * 50, b"OSRELEASE=7\nSYMBOL(swapper_pg_dir)=ff\n"])
def test_a_dump_without_vmcoreinfo_has_none(tmp_path: Path, memory: bytes) -> None:
    assert _read(tmp_path, elf_core(prstatus(REGS), memory)).vmcoreinfo == ""


@pytest.mark.parametrize("wrap", [bytes, flattened])
def test_a_kdump_file_gives_the_same_flattened_or_not(tmp_path: Path, wrap: type[bytes]) -> None:
    dump = _read(tmp_path, wrap(kdump(prstatus(REGS))))
    assert dump.format == "kdump"
    assert dump.registers[0].sp == 131
    assert dump.vmcoreinfo == INFO


@pytest.mark.parametrize(
    ("pstate", "is_user"),
    [(0x3C5, False), (0x3C4, False), (0x3C9, False), (0x1000, True), (0x6000_0000, True), (0x10, True), (0x1F, True)],
)
def test_the_exception_level_is_that_of_pstate(pstate: int, is_user: bool) -> None:
    assert CpuRegisters((0,) * 31, 0, 0, pstate, 1).is_user is is_user


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", Unsupported, "empty"),
        (b"root:x:0:0:root:/root:/bin/bash\n", Unsupported, "not a memory dump"),
        (elf_core(NOTES, machine=62), Unsupported, "x86_64"),
        (elf_core(NOTES, machine=9999), Unsupported, "9999"),
        (elf_core(NOTES, kind=2), Unsupported, "not a core dump"),
        (elf_core(NOTES)[:5] + b"\x02" + elf_core(NOTES)[6:], Unsupported, "little-endian"),
        (elf_core(NOTES, bytes(100))[:-1], Truncated, "ends at"),
        (elf_core(NOTES)[:300], Truncated, "ends at"),
        (elf_core(NOTES)[:100], Truncated, "ends inside"),
        (b"\x7fELF\x02\x01", Truncated, "ends inside"),
        (elf_core(NOTES[:-4], b"") + b"", Truncated, "ends behind"),
        (elf_core(note(b"CORE", 1, bytes(100))), Truncated, "too short"),
        (kdump(NOTES, sysname=b"", machine=b"Unknown"), Unsupported, "QEMU"),
        (kdump(NOTES, machine=b"x86_64"), Unsupported, "x86_64"),
        (kdump(NOTES, version=3), Unsupported, "version 3"),
        (kdump(NOTES)[:4200], Truncated, "ends inside"),
        (flattened(kdump(NOTES))[:5000], Truncated, "inside a piece"),
        (flattened(b"x" * 2000), Inconsistent, "no kdump file"),
    ],
)
def test_what_is_no_arm64_dump_is_refused_in_one_sentence(
    tmp_path: Path, data: bytes, error: type[InputError], words: str
) -> None:
    with pytest.raises(error) as caught:
        _read(tmp_path, data)
    assert words in str(caught.value)
    assert caught.value.file.endswith("vmcore")


def test_files_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="no such file"):
        read_dump(tmp_path / "missing")
    with pytest.raises(Unavailable, match="is a directory"):
        read_dump(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Denied):
        read_dump(tmp_path / "vmcore")


@pytest.mark.parametrize("good", [elf_core(NOTES, INFO.encode()), kdump(NOTES), flattened(kdump(NOTES))])
def test_damaged_dumps_end_in_our_errors(tmp_path: Path, good: bytes) -> None:
    rng = random.Random(1)
    for _ in range(300):
        data = bytearray(good[: rng.randrange(len(good))] if rng.random() < 0.3 else good)
        for _ in range(rng.randint(0, 4)):
            if data:
                data[min(rng.randrange(len(data)), rng.randrange(600)) % len(data)] = rng.randrange(256)
        with suppress(SurefootError):
            _read(tmp_path, bytes(data))


def test_notes_of_no_bytes_hold_nothing() -> None:
    assert parse_notes(b"") == ((), "")


def test_vmcoreinfo_says_what_it_holds() -> None:
    info = parse_vmcoreinfo(INFO)
    assert info.release == "7.3.4-test"
    assert info.build_id == "b114001d8228c02ea1c3170732da3a7b611ce811"
    assert info.kaslr_offset == 0x1A31_AA80_0000
    assert info.pac_mask == 0xFFF0_0000_0000_0000


def test_a_kernel_without_kaslr_and_pointer_authentication_states_neither() -> None:
    info = parse_vmcoreinfo("OSRELEASE=5.4\n")
    assert (info.build_id, info.kaslr_offset, info.pac_mask) == ("", 0, 0)


@pytest.mark.parametrize("text", ["", "PAGESIZE=4096\n", "OSRELEASE=7\nKERNELOFFSET=north\n"])
def test_vmcoreinfo_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Inconsistent):
        parse_vmcoreinfo(text)


def test_the_last_memory_page_may_hold_vmcoreinfo() -> None:
    assert find_vmcoreinfo(INFO.encode()) == INFO
