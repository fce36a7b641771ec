"""Live text: each mechanism is recognised by what it writes, and by nothing else."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from elf_builder import NOTYPE, REL, A, Elf, Rel, X, words
from surefoot.image.binary import Image, decode_image
from surefoot.image.livetext import Change, compare, mechanisms

TEXT = 0xFFFF_8000_8000_0000
DATA = TEXT + 0x10000
NOP, RET, MOV, KPROBE = 0xD503201F, 0xD65F03C0, 0xAA1E03E9, 0xD4200080
PACIASP, AUTIASP = 0xD503233F, 0xD50323BF
MOVZ, UBFM = 0xD29BDE00, 0x53047C00  # movz x0, #0xdef0; ubfx w0, w0, #4, #28

# Word number -> what is there; the replacements begin at word 32.
SITE, JUMP, ALT, CALLBACK, CONST, SHIFT, SCS, PLAIN = 2, 6, 8, 12, 14, 18, 20, 24
BL_AT_32, ADRP_AT_34 = 0x94000010, 0x90000000  # bl .+0x40; adrp x0, this page


def image() -> Image:
    text = [NOP] * 48
    text[4] = RET
    text[CONST : CONST + 4] = [MOVZ, MOVZ | 0x20A00000, MOVZ | 0x20C00000, MOVZ | 0x20E00000]
    text[SHIFT] = UBFM
    text[SCS : SCS + 2] = [PACIASP, AUTIASP]
    text[PLAIN] = RET
    text[32:36] = [BL_AT_32, RET, ADRP_AT_34, 0x54000020]  # bl; ret; adrp; b.eq .+4
    elf = Elf().section(".text", words(*text), flags=A | X, addr=TEXT)
    elf.symbol("f", TEXT + 4 * SITE, 12).symbol("callback", TEXT + 160, 4)

    def at(word: int, place: int) -> int:
        return TEXT + 4 * word - place

    elf.section("__patchable_function_entries", struct.pack("<Q", TEXT), flags=A, addr=DATA)
    jump = struct.pack("<iiq", at(JUMP, DATA + 16), at(30, DATA + 20), 0)
    elf.section("__jump_table", jump, flags=A, addr=DATA + 16)
    place = DATA + 64
    alt = struct.pack("<iiHBB", at(ALT, place), at(32, place + 4), 3, 16, 16)
    alt += struct.pack("<iiHBB", at(CALLBACK, place + 12), at(40, place + 16), 0x8004, 4, 0)
    elf.section(".altinstructions", alt, flags=A, addr=place)
    elf.section("runtime_ptr_x", struct.pack("<i", at(CONST, DATA + 128)), flags=A, addr=DATA + 128)
    elf.section("runtime_shift_x", struct.pack("<i", at(SHIFT, DATA + 136)), flags=A, addr=DATA + 136)
    return decode_image(np.frombuffer(elf.build(), dtype=np.uint8))


def cause(changes: dict[int, int]) -> dict[int, Change]:
    """Change some words of the image and say why each differs."""
    subject = image()
    old = subject.text.words[0]
    live = old.copy()
    for word, value in changes.items():
        live[word] = value
    found = compare(TEXT, old, live, mechanisms(subject))
    assert found.image.tolist() == [int(old[word]) for word in sorted(changes)]
    assert found.live.tolist() == [changes[word] for word in sorted(changes)]
    return {(int(a) - TEXT) // 4: Change(c) for a, c in zip(found.addr.tolist(), found.cause.tolist(), strict=True)}


@pytest.mark.parametrize(
    ("word", "value", "change"),
    [
        (SITE, MOV, Change.PATCH_SITE),
        (SITE + 1, 0x94001234, Change.PATCH_SITE),
        (SITE, 0x94001234, Change.OTHER),
        (SITE + 1, MOV, Change.OTHER),
        (SITE + 1, 0x14001234, Change.OTHER),
        (0, 0x80123456, Change.OPS_LITERAL),
        (1, 0xFFFF8000, Change.OPS_LITERAL),
        (JUMP, 0x14000018, Change.JUMP_LABEL),
        (JUMP, 0x14000017, Change.OTHER),
        (JUMP, 0x94000018, Change.OTHER),
        (ALT, 0x94000028, Change.ALTERNATIVE),  # the same target from where it now stands
        (ALT, BL_AT_32, Change.ALTERNATIVE),  # or copied
        (ALT, 0x94000027, Change.OTHER),
        (ALT, 0x14000028, Change.OTHER),
        (ALT + 1, RET, Change.ALTERNATIVE),
        (ALT + 1, MOV, Change.OTHER),
        (ALT + 2, ADRP_AT_34, Change.ALTERNATIVE),
        (ALT + 2, ADRP_AT_34 | 1, Change.OTHER),
        (ALT + 3, 0x54000320, Change.ALTERNATIVE),
        (ALT + 3, 0x54000321, Change.OTHER),  # b.ne
        (CALLBACK, 0x12345678, Change.CALLBACK),
        (CALLBACK + 1, 0x12345678, Change.OTHER),
        (PLAIN, KPROBE, Change.KPROBE),
        (PLAIN, 0xD4200000, Change.OTHER),
        (CONST, MOVZ ^ 0x1FFFE0, Change.RUNTIME_CONST),
        (CONST + 3, (MOVZ | 0x20E00000) ^ 0x20, Change.RUNTIME_CONST),
        (CONST, MOVZ | 1, Change.OTHER),
        (SHIFT, UBFM ^ 0x3F0000, Change.RUNTIME_CONST),
        (SHIFT, UBFM ^ 0x20, Change.OTHER),
        (SCS, 0xF800865E, Change.SHADOW_STACK),
        (SCS + 1, 0xF85F8E5E, Change.SHADOW_STACK),
        (SCS + 1, 0xF800865E, Change.OTHER),
        (PLAIN, NOP, Change.OTHER),
    ],
)
def test_each_mechanism_and_its_near_misses(word: int, value: int, change: Change) -> None:
    assert cause({word: value}) == {word: change}


def test_unexplained_words_are_listed() -> None:
    subject = image()
    old = subject.text.words[0]
    live = old.copy()
    live[[SITE, PLAIN, 47]] = [MOV, NOP, RET]
    found = compare(TEXT, old, live, mechanisms(subject))
    assert len(found) == 3
    assert found.unexplained.tolist() == [TEXT + 4 * PLAIN, TEXT + 4 * 47]
    assert len(compare(TEXT, old, old, mechanisms(subject))) == 0
    with pytest.raises(ValueError, match="48 words of the image against 47"):
        compare(TEXT, old, live[1:], mechanisms(subject))


def test_an_image_without_mechanisms_explains_nothing() -> None:
    elf = Elf().section(".text", words(NOP, RET), flags=A | X, addr=TEXT).symbol("f", TEXT, 8)
    subject = decode_image(np.frombuffer(elf.build(), dtype=np.uint8))
    old = subject.text.words[0]
    live = np.array([RET, NOP], dtype=np.uint32)
    found = compare(TEXT, old, live, mechanisms(subject))
    assert found.cause.tolist() == [Change.OTHER, Change.OTHER]


def test_words_that_a_module_has_only_as_relocations() -> None:
    """A call (4 bytes) and a literal (8 bytes) have no final word in the file."""
    elf = Elf(REL).section(".text", words(NOP, 0x94000000, RET, 0, 0, RET), flags=A | X)
    elf.symbol("f", 0, 24).symbol("printk", section=0, kind=NOTYPE)
    elf.relocate(".text", Rel(4, 283, "printk"), Rel(12, 257, "printk"))
    subject = decode_image(np.frombuffer(elf.build(), dtype=np.uint8)).laid_out(TEXT)
    old = subject.text.words[0]
    found = compare(TEXT, old, ~old, mechanisms(subject))
    wanted = [Change.OTHER, Change.RELOCATED, Change.OTHER, Change.RELOCATED, Change.RELOCATED, Change.OTHER]
    assert found.cause.tolist() == wanted
