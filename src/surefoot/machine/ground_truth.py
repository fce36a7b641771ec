"""Layer 7: the truth: which functions each task may still return into, kept from what the CPU really does.

A shadow call stack per task, moved by executed calls, returns, exceptions, exception returns and task switches. It
shares no code with the walker, the rules or the decoder of instructions: four kinds of instruction are told apart by
masks of its own, and everything else follows from where the next instruction is.

Invariant: a chain is immutable and numbered; two boundaries have the same number if and only if the same calls and
exceptions lead there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np

from surefoot.machine.board import Board, MachineFault
from surefoot.machine.loader import KernelFile

__all__ = ["EMPTY", "Chains", "Shadow", "Truth"]

EMPTY: Final = 0
"""The chain of a task that is in no function."""

_USER_END: Final = 1 << 63


class _Kind(IntEnum):
    """What an instruction does to the shadow stack."""

    NONE = 0
    CALL = 1
    RETURN = 2
    SITE = 3
    ERET = 4
    SWITCH = 5


@dataclass(slots=True)
class _Exception:
    """An exception that has not returned.

    Attributes:
        pc_at: where the entry code saves the address to return to.
        sync: a fault or a BRK, whose handler may change that address.
        armed: the entry code is done: the address has been saved.
    """

    pc_at: int
    sync: bool
    armed: bool = False


class Chains:
    """Call chains as a tree: each knows its innermost entry and the chain below it.

    Attributes:
        parent: chain below each chain.
        addr: innermost address: a return address, or where an exception came in between.
        exact: whether it is the latter.
    """

    def __init__(self) -> None:
        self.parent: list[int] = [EMPTY]
        self.addr: list[int] = [0]
        self.exact: list[bool] = [False]
        self._known: dict[tuple[int, int, bool], int] = {}

    def push(self, chain: int, addr: int, *, exact: bool = False) -> int:
        """Give the chain with one more entry."""
        key = (chain, addr, exact)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.parent)
            self.parent.append(chain)
            self.addr.append(addr)
            self.exact.append(exact)
        return found

    def entries(self, chain: int) -> list[tuple[int, bool]]:
        """Give (address, exact) of a chain, innermost first."""
        found = []
        while chain != EMPTY:
            found.append((self.addr[chain], self.exact[chain]))
            chain = self.parent[chain]
        return found

    def __len__(self) -> int:
        return len(self.parent)


@dataclass(frozen=True, slots=True)
class Shadow:
    """The shadow stacks at one instant; what `Truth.save` gives."""

    chain: int
    slot: int
    of_slot: dict[int, int]
    last: int
    pending: _Kind
    opened: list[_Exception]
    opened_of: dict[int, list[_Exception]]


class Truth:
    """An observer of the board that keeps the shadow stacks.

    Attributes:
        chains: all chains met so far.
        chain: of the running task.
        slot: which stack the running task has; -1 before the first.
        of_slot: chain of each task that is switched out, by its stack.
    """

    def __init__(self, kernel: KernelFile) -> None:
        """Prepare for a run.

        Args:
            kernel: what runs.
        """
        self.chains = Chains()
        self.chain = EMPTY
        self.slot = 0
        self.of_slot: dict[int, int] = {}
        self._board: Board | None = None
        self._kernel = kernel
        self._area, self._stride = kernel["stack_area"], kernel["stack_slot"]
        self._size, self._slots = kernel["thread_size"], kernel["nr_tasks"] + 1
        self._tracer = kernel.span("ftrace_caller")
        self._probe = kernel.span("__kretprobe_trampoline")
        self._fork = kernel.symbol("ret_from_fork")
        self._kinds = self._classify(kernel)
        self._last = 0
        self._pending = _Kind.NONE
        self._open: list[_Exception] = []
        self._open_of: dict[int, list[_Exception]] = {}

    def attach(self, board: Board) -> None:
        """Name the board, whose stack pointer tells tasks apart."""
        self._board = board

    @property
    def _attached(self) -> Board:
        if self._board is None:
            raise MachineFault("the shadow stacks are not attached to a board")
        return self._board

    def _classify(self, kernel: KernelFile) -> dict[int, _Kind]:
        """Find the instructions that matter, by address."""
        kinds: dict[int, _Kind] = {}
        switch = kernel.span("cpu_switch_to")
        for base, words in kernel.text:
            word = words.astype(np.uint32)
            call = (word & 0xFC000000 == 0x94000000) | (word & 0xFFFFFC1F == 0xD63F0000)
            ret = (word & 0xFFFFFC1F == 0xD65F0000) | (word & 0xFFFFFBFF == 0xD65F0BFF)
            eret = word == 0xD69F03E0
            for mask, kind in ((call, _Kind.CALL), (ret, _Kind.RETURN), (eret, _Kind.ERET)):
                kinds |= dict.fromkeys((base + 4 * at for at in np.flatnonzero(mask).tolist()), kind)
            to_sp = [base + 4 * at for at in np.flatnonzero(word & 0xFFFFFC1F == 0x9100001F).tolist()]  # MOV SP, Xn
            kinds |= dict.fromkeys((at for at in to_sp if switch[0] <= at < switch[1]), _Kind.SWITCH)
        # A patch site is a NOP or a call, whatever the kernel has made of it.
        return kinds | dict.fromkeys((kernel.sites + np.uint64(4)).tolist(), _Kind.SITE)

    def step(self, addr: int) -> None:
        """Hear that the instruction at `addr` is next: settle the one before."""
        if self._pending:
            self._settle(addr)
        self._pending = self._kinds.get(addr, _Kind.NONE)
        if self._pending is _Kind.ERET:
            self.refresh()
        self._last = addr

    def _settle(self, addr: int) -> None:
        """Move the shadow stack by what the last instruction did, seen from where it led."""
        kind, last = self._pending, self._last
        if kind is _Kind.CALL or (kind is _Kind.SITE and addr != last + 4):
            self.chain = self.chains.push(self.chain, last + 4)
            if self._open:
                self._open[-1].armed = self._open[-1].sync
        elif kind is _Kind.RETURN:
            self._return(addr)
        elif kind is _Kind.ERET:
            self._exception_return(addr)
        elif kind is _Kind.SWITCH:
            self._switch()

    def _return(self, addr: int) -> None:
        """A return that leads elsewhere than to the caller leaves the caller for later: a return trampoline."""
        chains = self.chains
        if self._tracer[0] <= self._last < self._tracer[1]:
            # The tracer goes back into the traced function, or into the one that replaces it: either way it is over.
            self.chain = chains.parent[self.chain]
        elif addr == self._fork:
            self.chain, self._open = EMPTY, []  # a task begins; its stack may have had another owner
        elif self.chain != EMPTY and chains.addr[self.chain] == addr and not chains.exact[self.chain]:
            self.chain = chains.parent[self.chain]

    def _exception_return(self, addr: int) -> None:
        if addr < _USER_END:
            self.chain = EMPTY
            self._open = []
            return
        chains = self.chains
        if not self._open or not chains.exact[self.chain]:
            raise MachineFault(f"an exception return at {self._last:#x} ends a call")
        if chains.addr[self.chain] != addr:
            raise MachineFault(f"an exception at {chains.addr[self.chain]:#x} returned to {addr:#x}")
        self._open.pop()
        self.chain = chains.parent[self.chain]

    def _switch(self) -> None:
        """The stack pointer is another task's now."""
        self.refresh()
        sp = self._attached.sp()
        self.of_slot[self.slot], self._open_of[self.slot] = self.chain, self._open
        self.slot = self.slot_of(sp)
        self.chain, self._open = self.of_slot.get(self.slot, EMPTY), self._open_of.get(self.slot, [])

    def slot_of(self, sp: int) -> int:
        """Give the task stack that a stack pointer lies on; -1 for none."""
        slot, offset = divmod(sp - self._area, self._stride)
        return slot if 0 <= slot < self._slots and offset <= self._size else -1

    def exception(self, pc: int, *, user: bool, sync: bool) -> None:
        """Hear of an exception: settle the last instruction, whose successor is `pc`."""
        if self._pending:
            # The instruction itself may be what trapped: then it has not been executed.
            if pc != self._last:
                self._settle(pc)
            self._pending = _Kind.NONE
        if user:
            self.chain, self._open = EMPTY, []
            return
        self.refresh()
        self.chain = self.chains.push(self.chain, pc, exact=True)
        regs = self._attached.sp() - self._kernel["pt_regs_size"]
        self._open.append(_Exception(regs + self._kernel["pt_regs_pc"], sync))

    def refresh(self) -> None:
        """Follow a handler that has changed where its exception will return to: a fix-up, a probe.

        That address is in the saved registers, right below the stack pointer that the exception found.
        """
        if not self._open or not self._open[-1].armed:
            return
        pc = self._attached.read_u64(self._open[-1].pc_at)
        chains, above = self.chains, []
        chain = self.chain
        while not chains.exact[chain]:
            above.append(chains.addr[chain])
            chain = chains.parent[chain]
        was, chain = chains.addr[chain], chains.parent[chain]
        if was == pc:
            return
        if self._is_probe(was) and chain != EMPTY and chains.addr[chain] == pc and not chains.exact[chain]:
            chain = chains.parent[chain]  # the probed function's caller goes on there: that return has happened
        chain = chains.push(chain, pc, exact=True)
        for addr in reversed(above):
            chain = chains.push(chain, addr)
        self.chain = chain

    def _is_probe(self, addr: int) -> bool:
        return self._probe[0] <= addr < self._probe[1]

    def expected(self, pc: int) -> list[tuple[int, bool]]:
        """Give what a complete trace from the running task's `pc` must show."""
        self.refresh()
        return [(pc, True), *self.chains.entries(self.chain)]

    def blocked(self, slot: int) -> list[tuple[int, bool]]:
        """Give what a complete trace of a task that is switched out must show."""
        return self.chains.entries(self.of_slot.get(slot, EMPTY))

    def settle(self, pc: int) -> None:
        """Settle the last instruction where a run has ended before `pc` was announced."""
        if self._pending:
            self._settle(pc)
            self._pending = _Kind.NONE

    def save(self) -> Shadow:
        """Give the state, for `load`; chains are never forgotten."""
        held = {slot: [replace(each) for each in found] for slot, found in self._open_of.items()}
        opened = [replace(each) for each in self._open]
        return Shadow(self.chain, self.slot, dict(self.of_slot), self._last, self._pending, opened, held)

    def load(self, state: Shadow) -> None:
        """Go back to a saved state, as when the board is restored."""
        self.chain, self.slot, self.of_slot = state.chain, state.slot, dict(state.of_slot)
        self._last, self._pending = state.last, state.pending
        self._open = [replace(each) for each in state.opened]
        self._open_of = {slot: [replace(each) for each in found] for slot, found in state.opened_of.items()}
