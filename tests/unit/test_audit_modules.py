"""Modules: branches resolved from relocations, functions of the kernel that never return, audits of the result."""

from __future__ import annotations

import numpy as np

from audit_kernel import CLOSED, NOP, RET, bl, opened, plain, pop, push
from cfi_builder import Frames, advance
from elf_builder import REL, A, Elf, Rel, X, words
from surefoot.audit.auditing import audit, prepare
from surefoot.audit.moduletext import link_text
from surefoot.image.binary import Image, decode_image
from surefoot.isa.branches import branch_target
from surefoot.isa.fields import add_immediate, adrp_target, load_offset

CALL26, ABS64 = 283, 257


def module(*code: int, calls: dict[int, str], cfi: bytes) -> Image:
    """A module with one function whose calls are relocations."""
    elf = Elf(type=REL)
    elf.section(".text", words(*code), flags=A | X)
    elf.section(".modinfo", b"name=m\0")
    frames = Frames()
    frames.fde(frames.cie(), cfi, start=0, size=4 * len(code))
    elf.section(".debug_frame", frames.bytes())
    elf.symbol("f", 0, 4 * len(code))
    for name in dict.fromkeys(calls.values()):
        if name != "f":
            elf.symbol(name, section=0, kind=0)
    elf.relocate(".text", *(Rel(4 * at, CALL26, name) for at, name in calls.items()))
    # The FDE's CIE pointer and start: 24 bytes of CIE record, then length, pointer, start.
    place = frames.bytes().index(b"\0" * 8 + (4 * len(code)).to_bytes(8, "little"))
    elf.relocate(".debug_frame", Rel(place, ABS64, "f"))
    return decode_image(np.frombuffer(elf.build(), dtype=np.uint8), "m.ko")


def framed(callee: str) -> Image:
    cfi = advance(1) + opened(16) + advance(2) + CLOSED
    return module(push(16), bl(0), pop(16), RET, calls={1: callee}, cfi=cfi)


def test_branches_go_where_the_relocations_say() -> None:
    image = framed("kfree").laid_out()
    linked = link_text(image)
    ((start, code),) = linked.parts
    at = np.array([start + 4], dtype=np.uint64)
    target = int(branch_target(code[1:2], at)[0])
    assert linked.names == {target: "kfree"}
    assert not image.text.contains(np.array([target], dtype=np.uint64))[0]
    inside = link_text(framed("f").laid_out()).parts[0][1]
    assert int(branch_target(inside[1:2], at)[0]) == start


def test_addresses_are_those_of_the_relocations() -> None:
    """ADRP with ADD and with a scaled load form the address of what they name, as the kernel's loader makes them."""
    adrp, add, load = 0x9000_0001, 0x9100_0021, 0xF940_0022
    elf = Elf(type=REL)
    elf.section(".text", words(adrp, add, load, RET), flags=A | X)
    elf.section(".rodata", bytes(0x40), flags=A)
    elf.symbol("f", 0, 16)
    elf.symbol("table", 0x18, 16, section=".rodata", kind=1)
    elf.relocate(".text", Rel(0, 275, "table"), Rel(4, 277, "table"), Rel(8, 286, "table", 8))
    image = decode_image(np.frombuffer(elf.build(), dtype=np.uint8), "m.ko").laid_out(0x1000_0FF0)
    ((start, code),) = link_text(image).parts
    table = int(image.sections.addr[image.sections.find(".rodata")[0]]) + 0x18
    page = int(adrp_target(code[:1], np.array([start], dtype=np.uint64))[0])
    assert page == table & ~0xFFF
    assert page + int(add_immediate(code[1:2])[0]) == table
    assert page + int(load_offset(code[2:3], 8)[0]) == table + 8


def test_a_linked_image_is_as_it_is() -> None:
    image = plain().image()
    linked = link_text(image)
    assert [(addr, code.tolist()) for addr, code in linked.parts] == [
        (addr, code.tolist()) for addr, code in image.text.ranges
    ]
    assert linked.names == {}


def test_calls_that_never_return_are_traps_to_the_prover() -> None:
    """What follows such a call need not fit it; what follows any other call must."""
    cfi = advance(1) + opened(16)
    for callee, codes in (("__stack_chk_fail", set()), ("kfree", {"exit-not-entry"})):
        image = module(push(16), bl(0), RET, calls={1: callee}, cfi=cfi)
        found = {finding.code for finding in audit(prepare(image)).findings}
        assert found - {"site-none", "unproven-unreached"} == codes, callee
    image = module(push(16), bl(0), RET, calls={1: "my_panic"}, cfi=cfi)
    found = {finding.code for finding in audit(prepare(image, {"my_panic"})).findings}
    assert "exit-not-entry" not in found


def test_callees_outside_have_their_names() -> None:
    subject = prepare(module(NOP, bl(0), calls={1: "panic"}, cfi=b""))
    (name,) = subject.outside.values()
    assert name == "panic"
    assert subject.name_at(next(iter(subject.outside))) == "panic"
    assert subject.name_at(subject.parts[0][0] + 4) == "f"


def test_a_sound_module_is_proved() -> None:
    done = audit(prepare(framed("kfree")))
    assert done.coverage.words.tolist()[:4] == [0, 0, 0, 4]
    assert {finding.code for finding in done.findings} == {"site-none"}
