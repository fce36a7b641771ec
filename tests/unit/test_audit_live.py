"""A running kernel's text against its image: announced changes are no findings, others are; proofs are made anew."""

from __future__ import annotations

import numpy as np

from audit_kernel import DATA, NOP, RET, TEXT, Kernel, b, bl, plain, sub_sp
from surefoot.audit.auditing import prepare
from surefoot.audit.findings import Finding
from surefoot.audit.live import Live, audit_live, live_findings
from surefoot.audit.subject import Subject
from surefoot.audit.textmap import Cover
from surefoot.image.livetext import Change
from surefoot.proof.inputs import code_of

MOV_X9_LR = 0xAA1E_03E9


def run_live(kernel: Kernel, changes: dict[int, int]) -> tuple[Subject, Live, list[Finding]]:
    """Compare a kernel with itself after some words have changed."""
    subject = prepare(kernel.image())
    ((start, words),) = subject.parts
    live = words.copy()
    for addr, word in changes.items():
        live[(addr - start) // 4] = word
    result = audit_live(subject, "vmcore", [(start, live)], code_of(subject.image))
    return subject, result, list(live_findings(subject, result))


def traced() -> tuple[Kernel, int]:
    """A kernel with a function that has a patch site with its literal."""
    kernel = plain()
    kernel.align()
    entry = kernel.put(NOP, NOP)
    func = kernel.func("f", NOP, NOP, RET)
    kernel.site(entry)
    return kernel, func


def test_the_image_itself_has_no_findings() -> None:
    _, live, findings = run_live(plain(), {})
    assert (live.words, len(live.differences), findings) == (3, 0, [])


def test_an_unannounced_word_is_found() -> None:
    _, live, findings = run_live(plain(), {TEXT + 4: NOP})
    assert {finding.code for finding in findings} == {"live-unexplained", "live-verdict"}
    assert live.touched.tolist() == live.worse.tolist() == [0]
    assert findings[0].address == TEXT + 4
    assert "a8c17bfd" in findings[0].message
    assert "d503201f" in findings[0].message


def test_ftrace_is_no_finding() -> None:
    """A site that calls ftrace_caller counts as the NOPs it was: ftrace restores x30."""
    kernel, func = traced()
    changes = {func: MOV_X9_LR, func + 4: bl(-0x100), func - 8: 0x1234_5678, func - 4: 0xFFFF_8000}
    _, live, findings = run_live(kernel, changes)
    assert set(live.differences.cause.tolist()) == {Change.PATCH_SITE, Change.OPS_LITERAL}
    assert findings == []


def test_an_alternative_that_breaks_the_frame_is_found_in_the_image() -> None:
    """The image's own proof knows what may be put there: what runs makes nothing worse."""
    kernel = plain()
    start = kernel.func("f", NOP, RET)
    kernel.align()
    kernel.alternative(start, kernel.put(sub_sp(16)))
    subject, live, findings = run_live(kernel, {start: sub_sp(16)})
    assert live.differences.cause.tolist() == [Change.ALTERNATIVE]
    assert findings == []
    assert Cover.UNPROVEN in subject.map.cover
    assert Cover.PROVEN in subject.map.cover


def test_code_that_is_jumped_over_is_no_loss() -> None:
    """A static branch that is on leaves code unreached, whose rows are not worse for it."""
    kernel = plain()
    start = kernel.func("f", NOP, sub_sp(16), 0x9100_43FF, RET, cfi=b"\x41\x0e\x00\x41\x0e\x10\x41\x0e\x00")
    kernel.table("__jump_table", ("i", start), ("i", start + 12), ("q", DATA), relative=3)
    _, live, findings = run_live(kernel, {start: b(12)})
    assert live.differences.cause.tolist() == [Change.JUMP_LABEL]
    assert findings == []


def test_unread_text_is_not_judged() -> None:
    subject = prepare(plain().image())
    part = np.array([NOP], dtype=np.uint32)
    live = audit_live(subject, "vmcore", [(TEXT - 4, part), (TEXT + 0x4000, part)], code_of(subject.image))
    assert (live.words, list(live_findings(subject, live))) == (0, [])


def test_without_metadata_only_words_are_compared() -> None:
    kernel = Kernel(frames=None)
    kernel.func("f", NOP, RET)
    _, live, findings = run_live(kernel, {TEXT: RET})
    assert live.proof is None
    assert [finding.code for finding in findings] == ["live-unexplained"]
