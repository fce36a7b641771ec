"""Layer 7: where the kernel keeps things, out of its own debug information.

Invariant: every offset and size here was computed from DWARF through drgn, or is the distance of two symbols of
the image. Kernels differ; what a kernel has is found by asking for a struct member, newest layout first, never
by asking for its version. The result is a flat table of numbers, so that it can be cached by build-id and the
debug information need not be loaded again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from surefoot.errors import Inconsistent, Unsupported
from surefoot.unwind.state import Layout

if TYPE_CHECKING:
    from drgn import Program, Type

__all__ = ["MEMBERS", "SYMBOLS", "KernelLayout", "derive_layout"]

_REQUIRED: Final = (
    ("task.stack", "task_struct", ("stack",)),
    # __state: 2f064a59a11f ("sched: Change task_struct::state", v5.14).
    ("task.state", "task_struct", ("__state", "state")),
    ("task.exit_state", "task_struct", ("exit_state",)),
    ("task.flags", "task_struct", ("flags",)),
    ("task.on_cpu", "task_struct", ("on_cpu",)),
    ("task.pid", "task_struct", ("pid",)),
    ("task.tgid", "task_struct", ("tgid",)),
    ("task.comm", "task_struct", ("comm",)),
    ("task.tasks", "task_struct", ("tasks",)),
    ("task.thread_node", "task_struct", ("thread_node",)),
    ("task.signal", "task_struct", ("signal",)),
    ("task.nvcsw", "task_struct", ("nvcsw",)),
    ("task.nivcsw", "task_struct", ("nivcsw",)),
    # thread_info.cpu: bcf9033e5449 ("sched: move CPU field back into thread_info", v5.16).
    ("task.cpu", "task_struct", ("thread_info.cpu", "cpu")),
    ("task.context_fp", "task_struct", ("thread.cpu_context.fp",)),
    ("task.context_sp", "task_struct", ("thread.cpu_context.sp",)),
    ("task.context_pc", "task_struct", ("thread.cpu_context.pc",)),
    ("signal.thread_head", "signal_struct", ("thread_head",)),
    ("rq.curr", "rq", ("curr",)),
    ("rq.idle", "rq", ("idle",)),
    ("pt_regs.fp", "pt_regs", ("regs[29]",)),
    ("pt_regs.lr", "pt_regs", ("regs[30]",)),
    ("pt_regs.sp", "pt_regs", ("sp",)),
    ("pt_regs.pc", "pt_regs", ("pc",)),
    ("pt_regs.pstate", "pt_regs", ("pstate",)),
    ("pt_regs.stackframe", "pt_regs", ("stackframe",)),
)
"""(name, struct, members of which the first that exists is meant)"""

_OPTIONAL: Final = (
    # type: "arm64: stacktrace: unwind exception boundaries" (v6.13); before it nothing marks them.
    ("frame_record_meta.type", "frame_record_meta", ("type",)),
    ("task.curr_ret_stack", "task_struct", ("curr_ret_stack",)),
    ("task.ret_stack", "task_struct", ("ret_stack",)),
    ("task.kretprobe_instances", "task_struct", ("kretprobe_instances",)),
    ("ret_stack.ret", "ftrace_ret_stack", ("ret",)),
    ("ret_stack.func", "ftrace_ret_stack", ("func",)),
    ("ret_stack.fp", "ftrace_ret_stack", ("fp",)),
    ("ret_stack.retp", "ftrace_ret_stack", ("retp",)),
    ("kretprobe.llist", "kretprobe_instance", ("llist",)),
    ("kretprobe.ret_addr", "kretprobe_instance", ("ret_addr",)),
    ("kretprobe.fp", "kretprobe_instance", ("fp",)),
    # struct __arch_ftrace_regs: "ftrace: Make ftrace_regs abstract from direct use" (v6.13).
    ("ftrace_regs.pc", "__arch_ftrace_regs", ("pc",)),
    ("module.list", "module", ("list",)),
    ("module.name", "module", ("name",)),
    ("module.state", "module", ("state",)),
    ("module.sect_attrs", "module", ("sect_attrs",)),
    ("module.notes_attrs", "module", ("notes_attrs",)),
    ("module.build_id", "module", ("build_id",)),
    # mem: ac3b43283923 ("module: replace module_layout with module_memory", v6.4).
    ("module.mem", "module", ("mem", "core_layout")),
    ("module_memory.base", "module_memory", ("base",)),
    ("module_memory.size", "module_memory", ("size",)),
    ("module.kallsyms", "module", ("kallsyms",)),
    ("mod_kallsyms.symtab", "mod_kallsyms", ("symtab",)),
    ("mod_kallsyms.num_symtab", "mod_kallsyms", ("num_symtab",)),
    ("mod_kallsyms.strtab", "mod_kallsyms", ("strtab",)),
    ("sect_attrs.attrs", "module_sect_attrs", ("attrs",)),
    # nsections: dropped by "module: sysfs: Drop member 'module_sect_attrs::nsections'" (v6.14); the count
    # is then that of the NULL-terminated grp.bin_attrs.
    ("sect_attrs.nsections", "module_sect_attrs", ("nsections",)),
    ("sect_attrs.bin_attrs", "module_sect_attrs", ("grp.bin_attrs",)),
    # address: dropped by "module: sysfs: Drop 'struct module_sect_attr'" (v6.14) for bin_attribute.private.
    ("sect_attr.address", "module_sect_attr", ("address",)),
    ("sect_attr.name", "module_sect_attr", ("battr.attr.name",)),
    ("bin_attribute.name", "bin_attribute", ("attr.name",)),
    ("bin_attribute.private", "bin_attribute", ("private",)),
    ("bin_attribute.size", "bin_attribute", ("size",)),
    ("notes_attrs.attrs", "module_notes_attrs", ("attrs",)),
)

_SIZES: Final = {
    "sizeof.task": "task_struct",
    "sizeof.pt_regs": "pt_regs",
    "sizeof.ftrace_regs": "__arch_ftrace_regs",
    "sizeof.ret_stack": "ftrace_ret_stack",
    "sizeof.module": "module",
    "sizeof.module_memory": "module_memory",
    "sizeof.sect_attr": "module_sect_attr",
    "sizeof.bin_attribute": "bin_attribute",
    "sizeof.cpumask": "cpumask",
}

_ENUMERATORS: Final = {
    "system_state.running": "SYSTEM_FREEING_INITMEM",
    "module_state.unformed": "MODULE_STATE_UNFORMED",
    "mod_mem_type.text": "MOD_TEXT",
    "mod_mem_type.init_text": "MOD_INIT_TEXT",
}

MEMBERS: Final = (*_REQUIRED, *_OPTIONAL, *_SIZES.items(), *_ENUMERATORS.items())
"""All that is looked up, for whoever keeps results."""

SYMBOLS: Final = (
    "init_task",
    "runqueues",
    "__per_cpu_offset",
    "__cpu_online_mask",
    "system_state",
    "modules",
    "irq_stack_ptr",
    "overflow_stack",
    "sdei_stack_normal_ptr",
    "sdei_stack_critical_ptr",
    "efi_rt_stack_top",
    "_text",
    "_stext",
    "_etext",
    "__init_begin",
    "__init_end",
    "__start_init_stack",
    "__end_init_stack",
    "__start_init_task",
    "__end_init_task",
)
"""Symbols whose link addresses a capture needs; those that a kernel lacks are absent from the table."""


@dataclass(frozen=True)
class KernelLayout:
    """Offsets, sizes and symbols of one kernel image.

    Attributes:
        numbers: "struct.member" -> bytes from the start of the struct, "sizeof.struct" -> bytes, and a few
            others named where `derive_layout` sets them.
        symbols: name -> link-time address.
    """

    numbers: Mapping[str, int]
    symbols: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    def has(self, *names: str) -> bool:
        """Whether this kernel has all of the named members."""
        return all(name in self.numbers for name in names)

    def walker(self, pac_mask: int) -> Layout:
        """Give the part of the layout that the walker uses."""
        has_ftrace = self.has("sizeof.ftrace_regs", "ftrace_regs.pc")
        return Layout(
            pt_regs_size=self["sizeof.pt_regs"],
            pt_regs_fp=self["pt_regs.fp"],
            pt_regs_lr=self["pt_regs.lr"],
            pt_regs_sp=self["pt_regs.sp"],
            pt_regs_pc=self["pt_regs.pc"],
            pt_regs_pstate=self["pt_regs.pstate"],
            pt_regs_stackframe=self["pt_regs.stackframe"],
            ftrace_regs_size=self["sizeof.ftrace_regs"] if has_ftrace else 0,
            ftrace_regs_pc=self["ftrace_regs.pc"] if has_ftrace else 0,
            pac_mask=pac_mask,
        )

    def to_json(self) -> str:
        """Give the table as text, for the cache."""
        return json.dumps({"numbers": dict(self.numbers), "symbols": dict(self.symbols)})

    @classmethod
    def from_json(cls, text: str) -> KernelLayout:
        """Read the table back.

        Raises:
            Inconsistent: the text is damaged or lacks what every capture needs.
        """
        try:
            data = json.loads(text)
            tables = [{str(k): v for k, v in data[key].items()} for key in ("numbers", "symbols")]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Inconsistent("the cached kernel layout is damaged") from error
        needed = {name for name, _, _ in _REQUIRED} | {"sizeof.task", "sizeof.pt_regs", "thread_size"}
        numbers_only = all(type(value) is int for table in tables for value in table.values())
        if not numbers_only or not needed <= tables[0].keys():
            raise Inconsistent("the cached kernel layout is incomplete")
        return cls(*tables)


def derive_layout(prog: Program, symbol: Callable[[str], int | None]) -> KernelLayout:
    """Work out the layout of a kernel whose debug information is loaded.

    Args:
        prog: the program.
        symbol: gives the link-time address of a symbol of the image, None where there is none.

    Raises:
        Unsupported: the image has no debug information, or its structures are not those of an arm64 kernel
            that this walker knows.
    """
    numbers: dict[str, int] = {}
    structs: dict[str, Type | None] = {}
    for name, struct, members in _REQUIRED + _OPTIONAL:
        offset = _offset(_struct(prog, structs, struct), members)
        if offset is not None:
            numbers[name] = offset
    if "task.stack" not in numbers:
        raise Unsupported(
            "the kernel image has no debug information for struct task_struct",
            hint="use the vmlinux of the kernel's debug package",
        )
    missing = [name for name, _, _ in _REQUIRED if name not in numbers]
    if missing:
        raise Unsupported(f"this kernel's debug information lacks {', '.join(missing)}")
    for name, struct in _SIZES.items():
        found = _struct(prog, structs, struct)
        if found is not None and found.is_complete():
            numbers[name] = _size(found)
    _probe(prog, structs, numbers)
    symbols = {name: addr for name in SYMBOLS if (addr := symbol(name)) is not None}
    numbers["thread_size"] = _thread_size(symbols)
    return KernelLayout(numbers, symbols)


def _probe(prog: Program, structs: dict[str, Type | None], numbers: dict[str, int]) -> None:
    """Set what is not simply the offset of a member.

    task.comm_size, module.name_size, module.mem_count and overflow_stack.size are lengths in bytes or elements,
    ret_stack.words is 1 where task_struct.ret_stack is an array of words with control words ("function_graph:
    Convert ret_stack to a series of longs", v6.11) and 0 where it is an array of structs.
    The names in _ENUMERATORS are values of enumerators.
    """
    from drgn import ObjectNotFoundError, TypeKind, sizeof

    task, module = _struct(prog, structs, "task_struct"), _struct(prog, structs, "module")
    if task is None:  # impossible: its members were found
        return
    numbers["task.comm_size"] = sizeof(task.member("comm").type)
    if "task.ret_stack" in numbers:
        pointee = task.member("ret_stack").type.type
        numbers["ret_stack.words"] = int(pointee.kind == TypeKind.INT)
    if module is not None and "module.name" in numbers:
        numbers["module.name_size"] = sizeof(module.member("name").type)
        if module.has_member("mem"):
            numbers["module.mem_count"] = module.member("mem").type.length or 0
        if module.has_member("build_id"):
            numbers["module.build_id_size"] = sizeof(module.member("build_id").type)
    for name, enumerator in _ENUMERATORS.items():
        with suppress(LookupError, ObjectNotFoundError):
            numbers[name] = int(prog.constant(enumerator))
    with suppress(LookupError, ObjectNotFoundError):
        # By file, because the hypervisor has a variable of that name, too.
        numbers["overflow_stack.size"] = sizeof(prog.variable("overflow_stack", "arch/arm64/kernel/traps.c"))


def _struct(prog: Program, structs: dict[str, Type | None], name: str) -> Type | None:
    """Give a struct type, None where the kernel has none of that name."""
    if name not in structs:
        try:
            structs[name] = prog.type(f"struct {name}")
        except LookupError:
            structs[name] = None
    return structs[name]


def _offset(struct: Type | None, members: tuple[str, ...]) -> int | None:
    """Give the offset of the first member that exists."""
    from drgn import offsetof

    for member in members if struct is not None else ():
        try:
            return int(offsetof(struct, member))
        except (LookupError, TypeError):  # TypeError: the struct is only declared
            continue
    return None


def _size(struct: Type) -> int:
    """Give sizeof(struct)."""
    from drgn import sizeof

    return int(sizeof(struct))


def _thread_size(symbols: Mapping[str, int]) -> int:
    """Give THREAD_SIZE: the linker script reserves exactly that much for the first task's stack.

    Source:
        include/asm-generic/vmlinux.lds.h: INIT_TASK_DATA. Before v6.10 the symbols were called
        __start_init_task and __end_init_task.
    """
    for name in ("init_stack", "init_task"):
        low, high = symbols.get(f"__start_{name}", 0), symbols.get(f"__end_{name}", 0)
        if 0 < low < high and (high - low) & 0xFFF == 0:
            return high - low
    raise Unsupported("the kernel image does not state the size of its stacks (no __start_init_stack)")
