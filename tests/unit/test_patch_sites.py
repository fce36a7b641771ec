"""Patch sites: found where the image says, judged by the live words, and working on a processor as written."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
import unicorn
from unicorn import arm64_const as regs

from elf_builder import A, Elf, X, words
from surefoot.image.binary import decode_image
from surefoot.image.tables import patch_sites
from surefoot.patch.sites import (
    ObjectCode,
    Refusal,
    Refused,
    Site,
    SiteKind,
    branch_word,
    decode_site,
    find_function,
    find_place,
    plan_site,
    redirects_of,
)
from surefoot.targets.imagetables import empty_rules
from surefoot.unwind.code import CodeMap, Functions, TextWords

emulator: Any = unicorn

TEXT = 0xFFFF_8000_8000_0000
DATA = TEXT + 0x10000
BIAS = 0x2B_0000_0000
NOP, RET, MOV_X9, BTI = 0xD503201F, 0xD65F03C0, 0xAA1E03E9, 0xD503245F
MOVZ_OLD, MOVZ_NEW = 0xD2800020, 0xD2800040  # mov x0, #1; mov x0, #2
LDR_X16_8, LDR_X16_12 = 0x58FFFFD0, 0x58FFFFB0  # ldr x16, .-8; ldr x16, .-12 (as GNU as writes them)
BR_X16 = 0xD61F0200
FAR = TEXT + BIAS + (1 << 30)

# Functions by word number: their literal is two words before.
CALLOPS, WITH_BTI, PLAIN, NONE, TWIN_A, TWIN_B = 4, 12, 20, 26, 32, 38


def code() -> ObjectCode:
    """An image with one function of each shape."""
    text = [NOP] * 48
    text[WITH_BTI] = BTI
    for start, body in ((CALLOPS, 2), (WITH_BTI, 3), (PLAIN, 2), (NONE, 0), (TWIN_A, 2), (TWIN_B, 2)):
        text[start + body : start + body + 2] = [MOVZ_OLD, RET]
    elf = Elf().section(".text", words(*text), flags=A | X, addr=TEXT)
    names = ("callops", "with_bti", "plain", "none", "twin", "twin")
    for name, start in zip(names, (CALLOPS, WITH_BTI, PLAIN, NONE, TWIN_A, TWIN_B), strict=True):
        elf.symbol(name, TEXT + 4 * start, 16)
    entries = (CALLOPS - 2, WITH_BTI - 2, PLAIN, TWIN_A - 2, TWIN_B - 2)
    table = b"".join(struct.pack("<Q", TEXT + 4 * entry) for entry in entries)
    elf.section("__patchable_function_entries", table, flags=A, addr=DATA)
    image = decode_image(np.frombuffer(elf.build(), dtype=np.uint8))
    return ObjectCode("vmlinux", image.symbols, patch_sites(image), BIAS)


class Live:
    """The text in the target, as ftrace leaves it after boot: first slots are mov x9, x30."""

    def __init__(self) -> None:
        self.words = dict.fromkeys(range(48), NOP)
        for start in (CALLOPS, PLAIN, TWIN_A, TWIN_B):
            self.words[start] = MOV_X9
            self.words[start + 2], self.words[start + 3] = MOVZ_OLD, RET
        self.words[WITH_BTI], self.words[WITH_BTI + 1] = BTI, MOV_X9
        self.words[WITH_BTI + 3], self.words[WITH_BTI + 4] = MOVZ_OLD, RET

    def read(self, addr: int, size: int) -> bytes | None:
        at, end = (addr - TEXT - BIAS) // 4, (addr + size - TEXT - BIAS) // 4
        found = [self.words.get(i) for i in range(at, end)]
        return None if None in found else struct.pack(f"<{len(found)}I", *found)

    def apply(self, site: Site, upto: int | None = None) -> None:
        for write in site.writes[:upto]:
            at = (write.address - TEXT - BIAS) // 4
            assert self.read(write.address, len(write.old)) == write.old
            for i, word in enumerate(struct.unpack(f"<{len(write.new) // 4}I", write.new)):
                self.words[at + i] = word


def address(word: int) -> int:
    return TEXT + BIAS + 4 * word


def site_of(name: str, new: int, live: Live | None = None, position: int = 0) -> Site:
    found = plan_site(code(), name, position, new, (live or Live()).read)
    assert isinstance(found, Site), found
    return found


def refusal(name: str, new: int = FAR, live: Live | None = None, position: int = 0) -> Refused:
    found = plan_site(code(), name, position, new, (live or Live()).read)
    assert isinstance(found, Refused), found
    return found


def as_words(site: Site) -> list[tuple[int, list[int]]]:
    return [
        ((write.address - TEXT - BIAS) // 4, list(struct.unpack(f"<{len(write.new) // 4}I", write.new)))
        for write in site.writes
    ]


def test_new_code_out_of_reach_is_entered_through_the_eight_bytes() -> None:
    site = site_of("callops", FAR)
    assert site.kind is SiteKind.INDIRECT
    low, high = FAR & 0xFFFFFFFF, FAR >> 32
    assert as_words(site) == [(CALLOPS - 2, [low, high]), (CALLOPS, [LDR_X16_8]), (CALLOPS + 1, [BR_X16])]


def test_a_bti_stays_where_it_is() -> None:
    """The slots follow the BTI, the literal precedes it."""
    site = site_of("with_bti", FAR)
    low, high = FAR & 0xFFFFFFFF, FAR >> 32
    expected = [(WITH_BTI - 2, [low, high]), (WITH_BTI + 1, [LDR_X16_12]), (WITH_BTI + 2, [BR_X16])]
    assert as_words(site) == expected


def test_new_code_within_reach_takes_one_word_and_leaves_ftraces_alone() -> None:
    site = site_of("callops", address(CALLOPS) + 0x1000)
    assert site.kind is SiteKind.DIRECT
    assert as_words(site) == [(CALLOPS, [0x14000400])]  # b .+0x1000


def test_branches_reach_128_mib_to_both_sides() -> None:
    at = 1 << 40
    assert branch_word(at, at + (1 << 27) - 4) == 0x15FFFFFF
    assert branch_word(at, at + (1 << 27)) is None
    assert branch_word(at, at - (1 << 27)) == 0x16000000
    assert branch_word(at, at - (1 << 27) - 4) is None
    assert branch_word(at, at + 2) is None


def test_positions_count_as_old_sympos_does() -> None:
    subject = code()
    assert find_function(subject, "twin", 1) == address(TWIN_A)
    assert find_function(subject, "twin", 2) == address(TWIN_B)
    assert find_function(subject, "callops", 1) == address(CALLOPS)
    assert refusal("twin").refusal is Refusal.AMBIGUOUS
    assert refusal("twin", position=3).refusal is Refusal.POSITION
    assert refusal("nobody").refusal is Refusal.NO_FUNCTION


def test_a_function_without_a_site_is_refused() -> None:
    assert refusal("none").refusal is Refusal.NO_SITE


def test_without_the_eight_bytes_far_code_is_out_of_reach() -> None:
    assert refusal("plain").refusal is Refusal.OUT_OF_REACH
    assert site_of("plain", address(PLAIN) + 0x100).kind is SiteKind.DIRECT


def test_a_function_is_not_patched_by_itself_nor_by_half_an_instruction() -> None:
    assert refusal("callops", address(CALLOPS)).refusal is Refusal.SAME
    assert refusal("callops", FAR + 2).refusal is Refusal.MISALIGNED


def test_a_traced_site_is_refused_with_its_ops() -> None:
    live = Live()
    live.words[CALLOPS + 1] = 0x94000100  # bl .+0x400
    live.words[CALLOPS - 2], live.words[CALLOPS - 1] = 0x12345678, 0xFFFF8000
    found = refusal("callops", live=live)
    assert found.refusal is Refusal.TRACED
    assert "0xffff800012345678" in str(found)
    assert f"{address(CALLOPS + 1) + 0x400:#x}" in str(found)


@pytest.mark.parametrize(
    ("slot", "word", "expected"),
    [
        (0, 0xD4200080, Refusal.PROBED),  # brk #4
        (1, 0xD4200080, Refusal.PROBED),
        (0, 0x14000400, Refusal.PATCHED),  # b .+0x1000
        (0, RET, Refusal.UNKNOWN_WORDS),
        (1, RET, Refusal.UNKNOWN_WORDS),
        (1, BR_X16, Refusal.UNKNOWN_WORDS),  # a branch that nothing loads for
        (0, LDR_X16_8, Refusal.UNKNOWN_WORDS),  # half of an indirect form
    ],
)
def test_sites_in_use_are_refused(slot: int, word: int, expected: Refusal) -> None:
    live = Live()
    live.words[CALLOPS + slot] = word
    assert refusal("callops", live=live).refusal is expected


def test_text_that_cannot_be_read_is_refused() -> None:
    live = Live()
    del live.words[CALLOPS - 1]
    assert refusal("callops", live=live).refusal is Refusal.UNREADABLE


def test_a_bti_that_is_not_there_is_noticed() -> None:
    live = Live()
    live.words[WITH_BTI] = NOP
    assert refusal("with_bti", live=live).refusal is Refusal.UNKNOWN_WORDS


@pytest.mark.parametrize("new", [FAR, TEXT + BIAS + 0x2000])
@pytest.mark.parametrize("name", ["callops", "with_bti"])
def test_what_was_written_is_recognised_and_leads_to_the_new_code(name: str, new: int) -> None:
    live, subject = Live(), code()
    site = site_of(name, new, live)
    live.apply(site)
    found = decode_site(site.place, live.read)
    assert found is not None
    assert (found.kind, found.target) == (site.kind, new)
    assert refusal(name, live=live).refusal is Refusal.PATCHED
    place = find_place(subject, site.place.func)
    assert place == site.place


def test_tracing_may_come_to_a_site_with_a_direct_branch() -> None:
    live = Live()
    site = site_of("callops", TEXT + BIAS + 0x2000, live)
    live.apply(site)
    live.words[CALLOPS + 1] = 0x94000100
    found = decode_site(site.place, live.read)
    assert found is not None
    assert found.kind is SiteKind.DIRECT


def run(live: Live, start: int, new: int) -> int:
    """Call a function on a processor, with x16 and x17 full of nonsense; gives what it returned."""
    cpu = emulator.Uc(emulator.UC_ARCH_ARM64, emulator.UC_MODE_ARM)
    base = address(0) & ~0xFFF
    cpu.mem_map(base, 0x3000)
    if not base <= new < base + 0x3000:
        cpu.mem_map(new & ~0xFFF, 0x1000)
    cpu.mem_write(address(0), struct.pack("<48I", *(live.words[i] for i in range(48))))
    cpu.mem_write(new, struct.pack("<2I", MOVZ_NEW, RET))
    cpu.reg_write(regs.UC_ARM64_REG_X16, 0xDEAD_BEEF_0000)
    home = base + 0x2FF0
    cpu.reg_write(regs.UC_ARM64_REG_X30, home)
    cpu.emu_start(start, home, count=100)
    assert cpu.reg_read(regs.UC_ARM64_REG_PC) == home
    return int(cpu.reg_read(regs.UC_ARM64_REG_X0))


@pytest.mark.parametrize("new", [FAR, TEXT + BIAS + 0x2000])
@pytest.mark.parametrize(("name", "start"), [("callops", CALLOPS), ("with_bti", WITH_BTI)])
def test_a_processor_runs_old_or_new_code_after_every_single_write(name: str, start: int, new: int) -> None:
    site = site_of(name, new)
    results = []
    for count in range(len(site.writes) + 1):
        live = Live()
        live.apply(site, count)
        results.append(run(live, address(start), new))
    assert results == [1] * len(site.writes) + [2]


def code_map(live: Live, changed: list[int]) -> CodeMap:
    start = np.array([address(CALLOPS), address(WITH_BTI), address(PLAIN), FAR], dtype=np.uint64)
    end = start + np.uint64(16)
    functions = Functions(start, end, np.zeros(4, dtype=np.uint8), ("callops", "with_bti", "plain", "new"))
    text = np.array([live.words[i] for i in range(48)], dtype=np.uint32)
    ranges = [(address(0), text), (FAR, np.array([MOVZ_NEW, RET], dtype=np.uint32))]
    at = np.array([address(i) for i in changed], dtype=np.uint64)
    return CodeMap(functions, TextWords.from_ranges(ranges), empty_rules(), changed=at)


@pytest.mark.parametrize(("name", "start", "slot"), [("callops", CALLOPS, 0), ("with_bti", WITH_BTI, 1)])
def test_redirects_are_read_off_the_live_text(name: str, start: int, slot: int) -> None:
    live = Live()
    live.apply(site_of(name, FAR, live))
    found = redirects_of(code_map(live, [start + slot, start + slot + 1]))
    assert found.tolist() == [[address(start), FAR]]


def test_a_direct_branch_to_a_known_function_is_a_redirect() -> None:
    live = Live()
    live.apply(site_of("callops", address(PLAIN), live))
    assert redirects_of(code_map(live, [CALLOPS])).tolist() == [[address(CALLOPS), address(PLAIN)]]
    # The same word somewhere in a function is none, nor is one that leads nowhere known.
    assert redirects_of(code_map(live, [CALLOPS + 1])).shape == (0, 2)
    live.words[CALLOPS] = 0x14000400
    assert redirects_of(code_map(live, [CALLOPS])).shape == (0, 2)
    assert redirects_of(code_map(Live(), [])).shape == (0, 2)


def test_every_refusal_has_its_sentence() -> None:
    sentences = [each.sentence for each in Refusal]
    assert len(set(sentences)) == len(Refusal)
    assert all(len(sentence) > 10 for sentence in sentences)
