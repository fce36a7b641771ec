"""Layer 7: what the kernel itself knows of its live patches, read from its memory.

sysfs names functions; memory says which addresses the kernel searches stacks for, how stacked patches lie on each
other, and where every task stands, the idle tasks included, which /proc does not show. Offsets come from the types
of the kernel's debug information.

Source:
    include/linux/livepatch.h, kernel/livepatch/{core,patch,transition}.{c,h} (Linux 7.3).

Invariant: a damaged list ends with a note; nothing here raises because of what the target holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from surefoot.errors import Unsupported
from surefoot.targets.reading import DrgnMemory, u32_at, u64_at

if TYPE_CHECKING:
    from drgn import Program

    from surefoot.targets.linux import LinuxTarget

__all__ = ["KlpLayout", "KlpMemory", "RawFunction", "RawPatch", "klp_layout", "patch_state", "read_klp"]

_MEMBERS: Final = (
    ("klp_func", ("old_name", "new_func", "old_func", "node", "stack_node", "old_size", "new_size")),
    ("klp_func", ("nop", "patched", "transition")),
    ("klp_object", ("name", "func_list", "node", "patched")),
    ("klp_patch", ("mod", "replace", "list", "obj_list", "enabled", "forced")),
    ("klp_ops", ("node", "func_stack")),
    ("module", ("name",)),
    ("task_struct", ("patch_state",)),
)
_SYMBOLS: Final = ("klp_patches", "klp_ops", "klp_transition_patch", "klp_target_state")
_MAX_ENTRIES: Final = 65536


class RawFunction(NamedTuple):
    """A struct klp_func.

    Attributes:
        object: "vmlinux" or the name of a module.
        name: of the old function.
        old: its address, 0 while the object is not loaded.
        old_size: its size as the kernel reckons: the distance to the next symbol.
        new: address of the new function; of a nop that of the old one.
        new_size: its size, reckoned likewise.
        nop: made by the kernel for an atomic replace: back to the original.
        patched: it is on the stack of its ops.
        transition: the handler asks each task's state.
        object_patched: the kernel searches stacks for it.
    """

    object: str
    name: str
    old: int
    old_size: int
    new: int
    new_size: int
    nop: bool
    patched: bool
    transition: bool
    object_patched: bool


class RawPatch(NamedTuple):
    """A struct klp_patch.

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
    functions: tuple[RawFunction, ...]


@dataclass(frozen=True, slots=True)
class KlpLayout:
    """Where the kernel keeps these things.

    Attributes:
        offsets: "struct.member" -> bytes.
        symbols: name -> run-time address.
    """

    offsets: Mapping[str, int]
    symbols: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class KlpMemory:
    """All live patches at one instant.

    Attributes:
        patches: oldest first.
        transition: name of the patch under way, None for none.
        target: klp_target_state: -1 none, 0 to the old code, 1 to the new.
        stacks: address of the old function -> addresses of the new ones, newest first.
        notes: sentences on what could not be read.
    """

    patches: tuple[RawPatch, ...] = ()
    transition: str | None = None
    target: int = -1
    stacks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def klp_layout(prog: Program) -> KlpLayout:
    """Work out where a kernel keeps its live patches.

    Args:
        prog: with the kernel's debug information loaded.

    Raises:
        Unsupported: this kernel has no live patching, or its debug information lacks it.
    """
    from drgn import offsetof

    offsets: dict[str, int] = {}
    try:
        for struct, members in _MEMBERS:
            for member in members:
                offsets[f"{struct}.{member}"] = offsetof(prog.type(f"struct {struct}"), member)
        symbols = {name: prog[name].address_ for name in _SYMBOLS}
    except LookupError as error:
        raise Unsupported(
            f"the kernel image tells nothing of live patching: {error}",
            hint="was it built with CONFIG_LIVEPATCH and debug information?",
        ) from error
    return KlpLayout(offsets, {name: addr for name, addr in symbols.items() if addr is not None})


def read_klp(target: LinuxTarget, layout: KlpLayout) -> KlpMemory:
    """Read all live patches of a target, which should stand still.

    Args:
        target: to be read.
        layout: of its kernel.
    """
    return _Reader(target.memory, layout).read()


class _Reader:
    """Reads lists and structs; collects notes."""

    def __init__(self, memory: DrgnMemory, layout: KlpLayout) -> None:
        self._memory = memory
        self._at = layout.offsets
        self._symbols = layout.symbols
        self._notes: list[str] = []
        self._modules: dict[int, str] = {}

    def read(self) -> KlpMemory:
        found = {addr: self._patch(addr) for addr in self._list(self._symbols["klp_patches"], "klp_patch.list")}
        moving = self._memory.u64(self._symbols["klp_transition_patch"]) or 0
        name = None
        if moving:
            # A patch whose loading has just begun is on no list yet.
            found.setdefault(moving, self._patch(moving))
            name = found[moving].name
        state = self._memory.read(self._symbols["klp_target_state"], 4)
        target = -1 if state is None else int.from_bytes(state, "little", signed=True)
        return KlpMemory(
            tuple(found.values()), name, target if target in (0, 1) else -1, self._stacks(), tuple(self._notes)
        )

    def _list(self, head: int, member: str) -> Iterator[int]:
        """Walk a struct list_head and give the structs that its nodes lie in."""
        offset = self._at[member]
        node = self._memory.u64(head)
        for _ in range(_MAX_ENTRIES):
            if node == head:
                return
            if not node:
                break
            yield (node - offset) % 2**64
            node = self._memory.u64(node)
        self._notes.append(f"the list of {member} at {head:#x} breaks off")

    def _patch(self, addr: int) -> RawPatch:
        at = self._at
        mod = self._memory.u64(addr + at["klp_patch.mod"]) or 0
        name = self._memory.text(mod + at["module.name"], 56) if mod else None
        functions = [
            function
            for obj in self._list(addr + at["klp_patch.obj_list"], "klp_object.node")
            for function in self._object(obj)
        ]
        replace, enabled, forced = (
            self._flag(addr + at[f"klp_patch.{flag}"]) for flag in ("replace", "enabled", "forced")
        )
        return RawPatch(name or f"patch at {addr:#x}", replace, enabled, forced, tuple(functions))

    def _flag(self, addr: int) -> bool:
        data = self._memory.read(addr, 1)
        return bool(data and data[0])

    def _object(self, addr: int) -> Iterator[RawFunction]:
        at = self._at
        where = self._memory.u64(addr + at["klp_object.name"]) or 0
        name = (self._memory.text(where, 64) or f"object at {addr:#x}") if where else "vmlinux"
        patched = self._flag(addr + at["klp_object.patched"])
        size = max(offset for member, offset in at.items() if member.startswith("klp_func.")) + 8
        for func in self._list(addr + at["klp_object.func_list"], "klp_func.node"):
            block = self._memory.read(func, size)
            if block is None:
                self._notes.append(f"the function at {func:#x} cannot be read")
                continue
            text = self._memory.text(u64_at(block, at["klp_func.old_name"]), 512)
            words = {part: u64_at(block, at[f"klp_func.{part}"]) for part in ("old_func", "new_func")}
            sizes = {part: u64_at(block, at[f"klp_func.{part}"]) for part in ("old_size", "new_size")}
            flags = {part: bool(block[at[f"klp_func.{part}"]]) for part in ("nop", "patched", "transition")}
            yield RawFunction(
                object=name,
                name=text or f"function at {func:#x}",
                old=words["old_func"],
                old_size=sizes["old_size"],
                new=words["new_func"] or (words["old_func"] if flags["nop"] else 0),
                new_size=sizes["new_size"] or (sizes["old_size"] if flags["nop"] else 0),
                **flags,
                object_patched=patched,
            )

    def _stacks(self) -> dict[int, tuple[int, ...]]:
        """Give what lies on the stack of each patched function, newest first."""
        at = self._at
        stacks: dict[int, tuple[int, ...]] = {}
        for ops in self._list(self._symbols["klp_ops"], "klp_ops.node"):
            old, new = 0, []
            for func in self._list(ops + at["klp_ops.func_stack"], "klp_func.stack_node"):
                old = old or self._memory.u64(func + at["klp_func.old_func"]) or 0
                # A nop has no address of its own until it is set up.
                new.append(self._memory.u64(func + at["klp_func.new_func"]) or old)
            if old:
                stacks[old] = tuple(new)
        return stacks


def patch_state(block: bytes, layout: KlpLayout) -> int | None:
    """Give a task's side out of its struct: 0 old code, 1 new, None outside of transitions."""
    value = u32_at(block, layout.offsets["task_struct.patch_state"])
    return value if value in (0, 1) else None
