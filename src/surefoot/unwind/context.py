"""Layer 5: what every step of a walk needs to know, gathered once per walk."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from surefoot.dtypes import Addr, Code, Mask, Row
from surefoot.proof.verdicts import NO_PROOFS, Verdict
from surefoot.unwind.code import CodeMap
from surefoot.unwind.cursor import UNKNOWN_FUNCTION
from surefoot.unwind.regions import FunctionClass, classify
from surefoot.unwind.state import Layout, Source, Stacks, Tasks

__all__ = ["Context", "Mode"]

_NOWHERE = (1 << 64) - 1
_RUST = ("_R", "_ZN", "rust_", "__rust")


class Mode(Enum):
    """How a stack is walked."""

    HYBRID = "hybrid"
    """Frame records and rules together; both must agree."""
    FP = "fp"
    """Exactly what arch_stack_walk_reliable() of Linux 7.3 accepts: the baseline."""
    SFRAME = "sframe"
    """Rules only."""


@dataclass(frozen=True, slots=True)
class Context:
    """The constant side of one walk.

    Attributes:
        code: functions, words, rules, proofs.
        stacks: stack memory.
        tasks: where the walks start.
        layout: structure offsets and the PAC mask.
        mode: how to walk.
        strict: every rule must be proved.
        classes: (f,) uint8, `FunctionClass` per function.
        return_to_handler: address of the function-graph return trampoline; all ones where there is none.
        kretprobe_trampoline: likewise for kretprobes.
        cpu_switch_to: function index, or -1.
        ret_from_fork: address of its first instruction; all ones where there is none.
    """

    code: CodeMap
    stacks: Stacks
    tasks: Tasks
    layout: Layout
    mode: Mode
    strict: bool
    classes: Code
    return_to_handler: int
    kretprobe_trampoline: int
    cpu_switch_to: int
    ret_from_fork: int

    @property
    def has_return_to_handler(self) -> bool:
        """Whether the kernel has function-graph tracing; no pc equals a trampoline that does not exist."""
        return self.return_to_handler != _NOWHERE

    @property
    def has_kretprobe_trampoline(self) -> bool:
        """Whether the kernel has kretprobes."""
        return self.kretprobe_trampoline != _NOWHERE

    @classmethod
    def make(
        cls, code: CodeMap, stacks: Stacks, tasks: Tasks, layout: Layout, *, mode: Mode, strict: bool = False
    ) -> Context:
        """Gather the context of a walk.

        Raises:
            Inconsistent: the inputs do not fit each other.
        """
        stacks.check()
        tasks.check(stacks)
        if not stacks.words.size:
            stacks = stacks.with_nowhere()
        classes = classify(code)
        switch = np.flatnonzero(classes == FunctionClass.SWITCH)
        return cls(
            code=code,
            stacks=stacks,
            tasks=tasks,
            layout=layout,
            mode=mode,
            strict=strict,
            classes=classes,
            return_to_handler=code.labels.get("return_to_handler", _NOWHERE),
            kretprobe_trampoline=code.labels.get("__kretprobe_trampoline", _NOWHERE),
            cpu_switch_to=int(switch[0]) if switch.size else -1,
            ret_from_fork=code.labels.get("ret_from_fork", _NOWHERE),
        )

    def is_exact(self, pc: Addr, source: Code) -> Mask:
        """(n,) bool: pc is an exact instruction address, not a return address.

        A task that has never run starts at ret_from_fork itself (arch/arm64/kernel/process.c: copy_thread).
        """
        never_ran = np.equal(source, Source.TASK) & np.equal(pc, np.uint64(self.ret_from_fork))
        return np.equal(source, Source.REGS) | never_ran

    def function_of(self, pc: Addr, source: Code, known: Row) -> Row:
        """(n,) int64, the function that each pc lies in, -1 for none; looked up where `known` is UNKNOWN_FUNCTION."""
        ask = np.flatnonzero(known == UNKNOWN_FUNCTION)
        function = known.copy()
        function[ask] = self.code.functions.lookup(pc[ask], ~self.is_exact(pc[ask], source[ask]))
        return function

    def class_of(self, function: Row) -> Code:
        """(n,) uint8, `FunctionClass`; NORMAL where there is no function."""
        if not self.classes.size:
            return np.zeros(function.shape, dtype=np.uint8)
        return np.where(function >= 0, self.classes[np.maximum(function, 0)], np.uint8(FunctionClass.NORMAL))

    @property
    def is_proved(self) -> bool:
        """Whether a proof of the code is at hand (its verdict on an address may still be UNPROVEN)."""
        return self.code.proofs is not NO_PROOFS

    def verdict(self, pc: Addr, source: Code) -> Code:
        """(n,) uint8, `Verdict` on the rule that a step from pc uses."""
        exact = self.is_exact(pc, source)
        return self.code.proofs.verdict(np.where(exact, pc, pc - np.uint64(4)))

    def is_calls_only(self, function: Row, verdict: Code) -> Mask:
        """(n,) bool: compiled by rustc, whose unwind tables say nothing of prologues and epilogues.

        A proof overrides the suspicion. Rust symbols are recognised by their mangling, or by the prefix of those
        that are exported unmangled; that some C helpers share the prefix costs coverage only.
        """
        result = np.zeros(function.shape, dtype=np.bool_)
        ask = np.flatnonzero((function >= 0) & (verdict != Verdict.PROVEN))
        distinct, inverse = np.unique(function[ask], return_inverse=True)
        rust = np.array([self.code.functions.names[i].startswith(_RUST) for i in distinct.tolist()], dtype=np.bool_)
        if distinct.size:
            result[ask] = rust[inverse]
        return result
