"""Functions that never return: the compiler is believed where the code is silent, and never against it."""

from __future__ import annotations

from audit_kernel import RET, TEXT, Kernel, b, bl, opened, plain, push, sub_sp
from cfi_builder import advance
from dwarf_builder import Dwarf
from surefoot.audit.auditing import prepare
from surefoot.audit.subject import Subject
from surefoot.image.promises import promises
from surefoot.proof.verdicts import Verdict


def calling(*callee: int) -> Kernel:
    """A kernel with a function that calls assembly without rules and has no code of its own to go on with."""
    kernel = plain()
    kernel.debug = Dwarf()
    unit = kernel.debug.unit()
    unit.defined("good", TEXT)
    unit.declared("stop")
    stop = kernel.func("stop", *callee, cfi=None)
    here = kernel.here
    kernel.func("caller", push(16), bl(stop - here - 4), sub_sp(32), RET, cfi=advance(1) + opened(16))
    return kernel


def fate(subject: Subject, name: str) -> list[Verdict]:
    proof, start = subject.proof, subject.address_of(name)
    assert proof is not None
    func = proof.rules.functions.start.tolist().index(start)
    return [Verdict(v) for v in proof.verdicts[int(proof.first[func]) : int(proof.first[func + 1])].tolist()]


def test_the_compiler_decides_what_the_code_does_not() -> None:
    """Assembly without rules may return for all that the code says; what follows its call then has to fit."""
    kernel = calling(b(0))
    image = kernel.image()
    assert fate(prepare(image), "caller") == [Verdict.PROVEN, Verdict.PROVEN, Verdict.PROVEN, Verdict.REFUTED]
    told = prepare(image, debug_info=True)
    assert fate(told, "caller") == [Verdict.PROVEN, Verdict.PROVEN, Verdict.UNPROVEN, Verdict.UNPROVEN]
    assert told.promised is not None
    assert told.promised.believed.tolist() == [told.address_of("stop")]


def test_a_function_with_a_return_is_not_believed() -> None:
    image = calling(RET).image()
    told = prepare(image, debug_info=True)
    assert fate(told, "caller") == fate(prepare(image), "caller")
    assert told.promised is not None
    assert told.promised.broken.tolist() == [True]


def test_the_audited_text_is_the_images() -> None:
    """Traps are for the prover only: listings and counts see the words of the file."""
    kernel = calling(b(0))
    plain_words = prepare(kernel.image()).map.words.tolist()
    assert prepare(kernel.image(), debug_info=True).map.words.tolist() == plain_words


def test_an_image_without_debug_information_is_audited_all_the_same() -> None:
    image = plain().image()
    assert promises(image) is None
    assert prepare(image, debug_info=True).promised is None
