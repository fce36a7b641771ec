"""Windows of return trampolines: every instruction in one, cut where SP moves and where calls return."""

from __future__ import annotations

from itertools import pairwise

from audit_cases import preempted
from audit_kernel import BLR_X1, CODE_KIND, MOV_LR_X0, NOP, RET, add_sp, plain, sub_sp
from surefoot.audit.auditing import prepare
from surefoot.audit.trampolines import windows


def test_windows_cover_the_trampoline() -> None:
    kernel = plain()
    code = (NOP, sub_sp(112), NOP, BLR_X1, MOV_LR_X0, NOP, add_sp(112), RET)
    start = kernel.func("return_to_handler", *code, cfi=None, kind=CODE_KIND)
    found = windows(prepare(kernel.image()))
    assert [(each.phase, (each.low - start) // 4, (each.high - start) // 4) for each in found] == [
        ("entry", 0, 2),
        ("saving", 2, 4),
        ("called", 4, 5),
        ("restoring", 5, 7),
        ("leaving", 7, 8),
    ]
    assert all(one.high == two.low for one, two in pairwise(found))
    assert "return stack" in found[0].place
    assert found[-1].place == "x30"
    assert "newest entry" in found[2].walk


def test_a_trampoline_without_a_frame_is_one_window() -> None:
    kernel = plain()
    start = kernel.func("__kretprobe_trampoline", NOP, NOP, cfi=None, kind=CODE_KIND)
    (only,) = windows(prepare(kernel.image()))
    assert (only.phase, only.low, only.high) == ("entry", start, start + 8)


def test_the_preemption_point_is_a_window() -> None:
    """The return address of the handler's call into the scheduler is what a blocked task shows."""
    subject = prepare(preempted().image())
    start = subject.address_of("ftrace_return_to_handler")
    assert start is not None
    (only,) = windows(subject)
    assert (only.phase, only.low, only.high) == ("preempted", start + 8, start + 12)
