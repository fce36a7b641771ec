"""What is read of a guest from outside: VMCOREINFO in its memory, and the registers that QEMU's monitor prints."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from surefoot.errors import Inconsistent, TargetError, Unavailable
from surefoot.targets.guestlive import GuestMemory, find_kernel_info, parse_monitor_registers
from surefoot.targets.vm.kernels import Kernel
from surefoot.targets.vm.machines import Machine

PAGE = 4096
TEXT = (
    b"OSRELEASE=7.3.4\nBUILD-ID=abcd\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffff800082c3a000\n"
    b"NUMBER(KERNELPACMASK)=0x7f000000000000\nKERNELOFFSET=2b000000\n"
)


def memory(*pages: bytes) -> memoryview:
    return memoryview(b"".join(page.ljust(PAGE, b"\0") for page in pages))


def test_vmcoreinfo_is_found_where_the_kernel_keeps_it() -> None:
    info = find_kernel_info(memory(b"x", b"", TEXT, b"y"))
    assert (info.release, info.build_id, info.kaslr_offset) == ("7.3.4", "abcd", 0x2B000000)
    assert info.pac_mask == 0x7F000000000000


def test_a_copy_is_no_contradiction_but_another_text_is() -> None:
    assert find_kernel_info(memory(TEXT, TEXT)).release == "7.3.4"
    with pytest.raises(Inconsistent, match="2 different"):
        find_kernel_info(memory(TEXT, TEXT.replace(b"7.3.4", b"7.3.5")))


def test_text_in_the_middle_of_a_page_or_without_addresses_is_somebody_elses() -> None:
    for pages in ((b"  " + TEXT,), (b"OSRELEASE=%s\n",), (b"OSRELEASE=7.3.4\nPAGESIZE=4096\n",), (b"",)):
        with pytest.raises(Unavailable, match="VMCOREINFO"):
            find_kernel_info(memory(*pages))


def printed(cpu: int, pstate: str = "21400005 --C- EL1h") -> str:
    """As target/arm/cpu.c prints it: PC and the first register in one line, then three a line."""
    words = [f"X{i:02}={1000 * cpu + i:016x}" for i in range(31)] + [f"SP={1000 * cpu + 31:016x}"]
    lines = [f" PC={1000 * cpu + 32:016x} {words[0]} {words[1]}"]
    lines += [" ".join(words[i : i + 3]) for i in range(2, len(words), 3)]
    return f"\nCPU#{cpu}\n" + "\n".join(lines) + f"\nPSTATE={pstate}     FPCR=00000000 FPSR=00000000\nQ00=0000:0000\n"


def test_registers_are_read_off_the_monitors_text() -> None:
    first, second = parse_monitor_registers((printed(0) + printed(1, "60001000 -ZC- EL0t")).replace("\n", "\r\n"))
    assert first.regs == tuple(range(31))
    assert (first.sp, first.pc, first.pstate, first.pid, first.is_user) == (31, 32, 0x21400005, 1, False)
    assert (second.regs[30], second.sp, second.pid, second.is_user) == (1030, 1031, 2, True)


@pytest.mark.parametrize("name", ["X17", "SP", "PC", "PSTATE"])
def test_a_register_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(TargetError, match=name):
        parse_monitor_registers(printed(0).replace(f"{name}=", f"{name}:"))


def test_no_cpu_gives_no_registers() -> None:
    assert parse_monitor_registers("") == ()


def machine(tmp_path: Path, pid: int) -> Machine:
    folder = tmp_path / "k"
    kernel = Kernel("7.3", folder, folder, folder, folder, folder, folder, "00", {})
    return Machine("n", tmp_path, pid, kernel, 1, 1)


def test_a_guest_that_has_ended_has_no_memory(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="has ended"):
        GuestMemory(machine(tmp_path, 1 << 30))


def test_memory_is_found_among_the_files_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process plays QEMU: a file of the name and size of its memory is open."""
    monkeypatch.setattr(Machine, "is_running", property(lambda _: True))
    subject = machine(tmp_path, os.getpid())
    with pytest.raises(Unavailable, match="keeps its memory to itself"):
        GuestMemory(subject)
    handle = os.memfd_create("memory-backend-memfd")
    try:
        os.ftruncate(handle, 1 << 20)
        os.pwrite(handle, b"here", 4096)
        assert bytes(GuestMemory(subject).read(0, 4, 4096, _physical=True)) == b"here"
        with pytest.raises(Unavailable):
            GuestMemory(replace(subject, memory_mib=2))
    finally:
        os.close(handle)
