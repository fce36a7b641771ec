"""Layer 6: a transition of Linux's own livepatch as the kernel has it: who has gone over, and what it searches for.

Source:
    kernel/livepatch/transition.c: klp_check_stack_func, klp_try_switch_task; patch.c: klp_ftrace_handler (Linux 7.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Addr
from surefoot.errors import Inconsistent
from surefoot.patch.check import Range, ranges_of
from surefoot.patch.events import FunctionState, PatchState
from surefoot.unwind.code import CodeMap

__all__ = ["KlpFunction", "KlpKernel", "KlpPatch", "Searched", "Side", "first_hit", "searched", "true_ranges"]


class Side(IntEnum):
    """Which code a task runs, and where a transition leads; the kernel's KLP_TRANSITION_*."""

    IDLE = -1
    UNPATCHED = 0
    PATCHED = 1


@dataclass(frozen=True, slots=True)
class KlpFunction:
    """A function of a patch, as the kernel has it.

    Attributes:
        object: "vmlinux" or the name of a module.
        name: of the old function.
        old: its address, 0 while the object is not loaded.
        old_size: as the kernel reckons: the distance to the next symbol.
        new: address of the new function; of a nop that of the old one.
        new_size: reckoned likewise.
        nop: made for an atomic replace: back to the original.
        patched: it lies on the stack of versions.
        transition: each task's state decides.
        object_patched: the kernel searches stacks for it.
    """

    object: str
    name: str
    old: int
    old_size: int
    new: int
    new_size: int
    nop: bool = False
    patched: bool = True
    transition: bool = False
    object_patched: bool = True


@dataclass(frozen=True, slots=True)
class KlpPatch:
    """A patch that the kernel has.

    Attributes:
        name: of its module.
        replace: it replaces all others.
        enabled: it is in force or about to be.
        forced: a transition of it was forced.
        functions: of its objects.
    """

    name: str
    replace: bool
    enabled: bool
    forced: bool
    functions: tuple[KlpFunction, ...]


@dataclass(frozen=True, slots=True)
class KlpKernel:
    """All live patches of a kernel at one instant.

    Attributes:
        patches: oldest first.
        transition: name of the patch under way, None for none.
        target: where it leads.
        stacks: address of the old function -> addresses of its newer versions, newest first.
    """

    patches: tuple[KlpPatch, ...] = ()
    transition: str | None = None
    target: Side = Side.IDLE
    stacks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def patch(self, name: str | None) -> KlpPatch | None:
        """Give a patch by name, None if there is none."""
        return next((patch for patch in self.patches if patch.name == name), None)

    def state(self, name: str) -> PatchState:
        """Say where a patch stands."""
        patch = self.patch(name)
        if patch is None:
            return PatchState.ABSENT
        if self.transition == name:
            return PatchState.APPLYING if self.target is Side.PATCHED else PatchState.REVERTING
        return PatchState.APPLIED if patch.enabled else PatchState.ABSENT

    def functions(self, name: str) -> tuple[FunctionState, ...]:
        """Give the functions of a patch in the form that every way of patching tells."""
        patch = self.patch(name)
        return tuple(
            FunctionState(func.name, func.object, func.old, func.new, func.patched)
            for func in (patch.functions if patch else ())
        )

    def redirects(self) -> NDArray[np.uint64]:
        """(k, 2) uint64, pairs (old function, new function): a call of the first may run the second."""
        pairs = [(old, new) for old, stack in self.stacks.items() for new in stack if new and new != old]
        return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Searched:
    """What the kernel searches the stacks of tasks for on behalf of one function of a patch.

    Attributes:
        function: of the patch.
        start: first address of the version that is being left.
        size: as the kernel reckons.
        is_read_astray: the kernel takes the address from where no function is described: on reversing the removal
            of a patch that lies below others, it asks for the version under the lowest one.
    """

    function: KlpFunction
    start: int
    size: int
    is_read_astray: bool = False

    @property
    def end(self) -> int:
        """First address behind what is searched for."""
        return self.start + self.size


def _sizes(kernel: KlpKernel) -> dict[int, int]:
    """Give the size that the kernel reckons for each version of each function."""
    found: dict[int, int] = {}
    for patch in kernel.patches:
        for func in patch.functions:
            found[func.old] = func.old_size
            found[func.new] = func.new_size
    return found


def searched(kernel: KlpKernel) -> list[Searched]:
    """Give what the kernel searches for in the transition under way, function by function.

    Towards the new code that is the version below the new one: the original where the new one lies alone. Towards
    the old code it is the new function itself.
    """
    patch = kernel.patch(kernel.transition)
    if patch is None or kernel.target is Side.IDLE:
        return []
    sizes = _sizes(kernel)
    found = []
    for func in patch.functions:
        if not func.object_patched or not func.old:
            continue
        stack = kernel.stacks.get(func.old, ())
        if kernel.target is Side.UNPATCHED:
            found.append(Searched(func, func.new, func.new_size))
        elif len(stack) <= 1:
            found.append(Searched(func, func.old, func.old_size))
        else:
            at = stack.index(func.new) if func.new in stack else 0
            below = stack[at + 1] if at + 1 < len(stack) else 0
            found.append(Searched(func, below, sizes.get(below, 0), is_read_astray=not below))
    return found


def first_hit(addresses: Addr, wanted: Iterable[Searched]) -> Searched | None:
    """Do what the kernel does with a stack: compare the raw addresses, function by function.

    Args:
        addresses: (a,) uint64, what the kernel's walk gives, return addresses not moved into the call.
        wanted: from `searched`.

    Returns:
        the first function with a hit, None for none.

    Source:
        klp_check_stack_func: ``address >= func_addr && address < func_addr + func_size``.
    """
    for item in wanted:
        if bool(np.any((addresses >= np.uint64(item.start)) & (addresses < np.uint64(item.end)))):
            return item
    return None


def true_ranges(code: CodeMap, wanted: Iterable[Searched]) -> list[Range]:
    """Give the code of the versions that are being left, without what the kernel counts to them by mistake.

    Args:
        code: the running kernel's code.
        wanted: from `searched`.

    Returns:
        the code of each, with the parts that the compiler split off; where no symbol is known, what the kernel
        searches for.
    """
    found: list[Range] = []
    for item in wanted:
        if item.is_read_astray or not item.start:
            continue
        try:
            found += ranges_of(code, [item.start])
        except Inconsistent:
            found.append(Range(item.start, max(item.end, item.start + 4), item.function.name))
    return found
