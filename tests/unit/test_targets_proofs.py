"""Proofs of running code: of what is asked, over the live words, kept for the very words that were proved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audit_kernel import CLOSED, DATA, NOP, RET, TEXT, Kernel, b, bl, cbz_x0, opened, pop, push, sub_sp
from cfi_builder import advance
from surefoot.dtypes import Addr, Insn
from surefoot.errors import Inconsistent
from surefoot.image.binary import Image
from surefoot.image.files import open_image
from surefoot.image.livetext import Change, Differences, mechanisms
from surefoot.proof.compact import VERSION
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import prove
from surefoot.proof.verdicts import Verdict
from surefoot.targets import proofs
from surefoot.targets.cache import TableCache
from surefoot.targets.code import Provable, compare_text
from surefoot.targets.imagetables import image_rules
from surefoot.targets.proofs import AskedProofs, CodeProofs, ImageProofs, Outside, ProofStore, no_answers

KERNEL = Path(__file__).parents[2] / "src" / "surefoot" / "machine" / "kernel"
BIAS = 0x1234_0000
BUILD_ID = "abcdef0123456789"
MOV_X9_LR = 0xAA1E_03E9
BL_AWAY = bl(0x100000)
NO_WORDS = np.zeros(0, dtype=np.uint32)


def addrs(*values: int) -> Addr:
    return np.array(values, dtype=np.uint64)


def source_of(
    image: Image, changes: dict[int, int] | None = None, *, hidden: tuple[int, int] = (0, 0), bias: int = BIAS
) -> Provable:
    """Give the running code of an image with some words changed, and a range of addresses that cannot be read."""
    rules = image_rules(image)
    assert rules is not None
    ranges = image.text.ranges
    live: list[tuple[int, Insn]] = []
    for base, words in ranges:
        now = words.copy()
        for addr, word in (changes or {}).items():
            if base <= addr < base + 4 * words.size:
                now[(addr - base) // 4] = word
        low, high = (min(max(edge - base, 0), 4 * words.size) // 4 for edge in hidden)
        live += [(base, now)] if low == high else [(base, now[:low]), (base + 4 * high, now[high:])]
    differ = compare_text(mechanisms(image), ranges, [(addr + bias, words) for addr, words in live], bias)
    nowhere = np.zeros(0, dtype=np.uint64)
    return Provable(BUILD_ID, bias, rules, ranges, live, [], differ, None, nowhere)


def proofs_of(image: Image, source: Provable, cache: TableCache | None = None) -> ImageProofs:
    return ImageProofs(source, ProofStore(cache), lambda: image)


def everywhere(image: Image) -> Addr:
    """Every instruction of an image."""
    parts = [base + 4 * np.arange(words.size, dtype=np.uint64) for base, words in image.text.ranges]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def machine() -> Image:
    """The emulated machine's kernel: a linked image with rules, patch sites and an exception table."""
    return open_image(min(KERNEL.glob("*.elf")))


def framed() -> tuple[Kernel, int, int]:
    """A kernel with two functions that are right, of five words each; the first has a patch site."""
    kernel = Kernel()
    kernel.align()
    entry = kernel.put(NOP, NOP)
    f = kernel.func("f", NOP, NOP, push(16), pop(16), RET, cfi=advance(3) + opened(16) + advance(1) + CLOSED)
    g = kernel.func("g", NOP, NOP, NOP, NOP, RET)
    kernel.site(entry)
    return kernel, f, g


def test_what_is_asked_is_judged_as_by_the_proof_of_all(machine: Image) -> None:
    """Functions by functions, at run-time addresses; and all of them at once."""
    source = source_of(machine)
    whole = prove(source.rules, machine.text.ranges, code_of(machine))
    every = everywhere(machine)
    linked = whole.verdict(every)
    assert (linked == Verdict.PROVEN).sum() > 1000
    some = proofs_of(machine, source)
    asked = every[:: every.size // 40]
    some.ask(asked + np.uint64(BIAS))
    found = some.proof.verdict(asked + np.uint64(BIAS))
    assert found.tolist() == whole.verdict(asked).tolist()
    assert 0 < some.proof.start.size < 200
    some.ask_all()
    assert some.proof.verdict(every + np.uint64(BIAS)).tolist() == linked.tolist()


def test_only_what_was_asked_is_answered(machine: Image) -> None:
    """Whatever else may be known: a walk depends on nothing but its own stack."""
    source = source_of(machine)
    some = proofs_of(machine, source)
    some.ask_all()
    every = everywhere(machine) + np.uint64(BIAS)
    good = every[some.proof.verdict(every) == Verdict.PROVEN]
    answers = AskedProofs(some.proof, good[5:6])
    assert answers.verdict(good[4:7]).tolist() == [Verdict.UNPROVEN, Verdict.PROVEN, Verdict.UNPROVEN]
    assert no_answers().verdict(good[:2]).tolist() == [Verdict.UNPROVEN] * 2


def test_nothing_is_known_before_something_is_asked(machine: Image) -> None:
    some = proofs_of(machine, source_of(machine))
    some.ask(addrs(0, 0xFFFF_9000_0000_0000))
    assert some.proof.start.size == 0


def stopped(patch: pytest.MonkeyPatch) -> None:
    """Let every further proof fail."""
    patch.setattr(proofs, "prove", None)
    patch.setattr(proofs, "prove_functions", None)


def test_kept_proofs_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the functions that were proved; one more is proved and kept with them; then all."""
    kernel, f, g = framed()
    image, cache = kernel.image(), TableCache(tmp_path)
    source = source_of(image)
    proofs_of(image, source, cache).ask(addrs(f + BIAS))
    with monkeypatch.context() as patch:
        stopped(patch)
        again = proofs_of(image, source, cache)
        again.ask(addrs(f + 4 + BIAS))
        assert again.proof.verdict(addrs(f + BIAS, g + BIAS)).tolist() == [Verdict.PROVEN, Verdict.NO_METADATA]
        with pytest.raises(TypeError):
            again.ask(addrs(g + BIAS))
    proofs_of(image, source, cache).ask(addrs(g + BIAS))
    with monkeypatch.context() as patch:
        stopped(patch)
        third = proofs_of(image, source, cache)
        third.ask(addrs(f + BIAS, g + BIAS))
        assert set(third.proof.verdict(addrs(f + BIAS, g + BIAS)).tolist()) == {Verdict.PROVEN}
        with pytest.raises(TypeError):
            third.ask_all()
    proofs_of(image, source, cache).ask_all()
    stopped(monkeypatch)
    last = proofs_of(image, source, cache)
    last.ask_all()
    last.ask(addrs(g + BIAS))


@pytest.mark.parametrize("what", ["word", "rules", "version", "damage"])
def test_a_kept_proof_of_something_else_is_not_used(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another live word, other rules, another prover, a damaged file."""
    kernel, f, g = framed()
    image, cache = kernel.image(), TableCache(tmp_path)
    proofs_of(image, source_of(image), cache).ask_all()
    source = source_of(image, {g + 8: 0xD503_203F} if what == "word" else {})
    if what == "rules":
        fewer = source.rules.take_rows(np.arange(len(source.rules) - 1, dtype=np.int64)).for_lookup()
        source = Provable(BUILD_ID, BIAS, fewer, source.ranges, source.live, [], source.differ, None, addrs())
    if what == "version":
        monkeypatch.setattr(proofs, "VERSION", VERSION + 1)
    if what == "damage":
        (path,) = tmp_path.rglob("*-proof-*")
        path.write_bytes(path.read_bytes()[:-64])
    stopped(monkeypatch)
    with pytest.raises(TypeError):
        proofs_of(image, source, cache).ask(addrs(f + BIAS))


def test_what_the_kernel_announces_changes_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch site that calls a tracer: the proof made before it was switched on is used."""
    kernel, f, _ = framed()
    image, cache = kernel.image(), TableCache(tmp_path)
    proofs_of(image, source_of(image), cache).ask(addrs(f + BIAS))
    traced = source_of(image, {f: MOV_X9_LR, f + 4: BL_AWAY})
    assert set(traced.differ.cause.tolist()) == {Change.PATCH_SITE}
    stopped(monkeypatch)
    proofs_of(image, traced, cache).ask(addrs(f + BIAS))


def test_changed_words_are_proved_as_they_are() -> None:
    """A word that nothing explains: its function is judged by what runs, not by the image alone."""
    kernel, f, g = framed()
    image = kernel.image()
    before, after = (proofs_of(image, source_of(image, changes)) for changes in ({}, {g + 4: sub_sp(16)}))
    where = addrs(g + 8, f + 4) + np.uint64(BIAS)
    for some in (before, after):
        some.ask(where)
    assert before.proof.verdict(where).tolist() == [Verdict.PROVEN, Verdict.PROVEN]
    assert after.proof.verdict(where).tolist() == [Verdict.UNPROVEN, Verdict.PROVEN]


def test_tasks_may_be_where_changed_words_lead_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that was patched away by a branch at its start: who is in it was there before."""
    kernel, f, g = framed()
    image, cache = kernel.image(), TableCache(tmp_path)
    changed = source_of(image, {f + 4: b(g - f - 4)})
    assert set(changed.differ.cause.tolist()) == {Change.OTHER}
    some = proofs_of(image, changed, cache)
    where = addrs(f, f + 8, f + 12, f + 16) + np.uint64(BIAS)
    some.ask(where)
    assert set(some.proof.verdict(where).tolist()) == {Verdict.PROVEN}
    # The proof of an image that has this very branch is another one: there nobody got any further.
    nothing = Differences(addrs(), NO_WORDS, NO_WORDS, NO_WORDS.astype(np.uint8))
    other = Provable(BUILD_ID, BIAS, changed.rules, changed.live, changed.live, [], nothing, None, addrs())
    stopped(monkeypatch)
    with pytest.raises(TypeError):
        proofs_of(image, other, cache).ask(where)


def test_functions_that_cannot_be_read_are_not_proved() -> None:
    kernel, f, g = framed()
    image = kernel.image()
    some = proofs_of(image, source_of(image, hidden=(g + 8, g + 12)))
    where = addrs(f, g, g + 12) + np.uint64(BIAS)
    some.ask(where)
    assert some.proof.verdict(where).tolist() == [Verdict.PROVEN, Verdict.NO_METADATA, Verdict.NO_METADATA]
    some.ask_all()
    assert some.proof.verdict(where).tolist() == [Verdict.PROVEN, Verdict.NO_METADATA, Verdict.NO_METADATA]


def test_calls_of_a_module_that_never_return_end_there() -> None:
    """Directly, and by way of the veneer that the module loader builds."""
    kernel = Kernel()
    panic = TEXT + 0x40_0000
    # adrp x16, panic's page; add x16, x16, #0; br x16
    veneer = kernel.put(0x9000_0010 | (0x400 >> 2) << 5, 0x9100_0210, 0xD61F_0200)
    assert (panic >> 12) - (veneer >> 12) == 0x400
    direct = kernel.func("direct", NOP, bl(panic - kernel.here - 4), sub_sp(16), RET)
    linked = kernel.func("linked", cbz_x0(8), RET, bl(veneer - kernel.here - 8), sub_sp(16), RET)
    image = kernel.image()
    plain = source_of(image, bias=0)
    source = Provable(BUILD_ID, 0, plain.rules, plain.ranges, plain.live, [], plain.differ, image, plain.relocated)

    def judge(*never: int) -> list[int]:
        some = ImageProofs(source, ProofStore(None), lambda: image, Outside("", lambda: addrs(*never)))
        some.ask_all()
        found: list[int] = some.proof.verdict(addrs(direct + 4, direct + 12, linked + 8, linked + 16)).tolist()
        return found

    yes, no, never = Verdict.PROVEN, Verdict.REFUTED, Verdict.UNPROVEN
    assert judge(panic) == [yes, never, yes, never]
    assert judge(DATA) == judge() == [yes, no, yes, no]


def test_an_image_with_a_damaged_table_has_no_proofs() -> None:
    """It is named; the others go on."""
    kernel, f, _ = framed()
    image = kernel.image()

    def damaged() -> Image:
        raise Inconsistent("the exception table is damaged")

    bad = ImageProofs(source_of(image, bias=0), ProofStore(None), damaged)
    some = CodeProofs([("bad.ko", bad), ("vmlinux", proofs_of(image, source_of(image)))])
    some.ask(addrs(f, f + BIAS))
    assert some.proof.verdict(addrs(f, f + BIAS)).tolist() == [Verdict.NO_METADATA, Verdict.PROVEN]
    assert some.notes == ["bad.ko: its rules cannot be proved: the exception table is damaged"]
    some.forget()
    some.ask_all()
    assert len(some.notes) == 1
