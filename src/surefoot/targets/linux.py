"""Layer 7: a Linux target behind a drgn program: vmcores, and whatever else drgn reads a kernel's memory from.

Memory goes through drgn (page tables, KASLR); tasks, stacks and modules are then found with raw reads at offsets
that were worked out once from debug information and are kept by build-id, so that a warm start loads none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from surefoot.dtypes import Addr
from surefoot.errors import Unavailable
from surefoot.proof.verdicts import NO_PROOFS
from surefoot.targets.cache import TableCache
from surefoot.targets.capture import Capture
from surefoot.targets.code import Provable, build_code, kernel_piece, module_piece
from surefoot.targets.dumpfile import CpuRegisters
from surefoot.targets.gather import describe, gather, stacks_of_cpu, task_stacks
from surefoot.targets.imagetables import find_symbol
from surefoot.targets.kerneltables import KernelTables
from surefoot.targets.modulefiles import ModuleFiles
from surefoot.targets.modules import LoadedModule, list_modules
from surefoot.targets.placing import CpuStacks, EfiStack, OnCpu, place_registers
from surefoot.targets.reading import DrgnMemory, u32_at
from surefoot.targets.tasks import Cpu, RawTask, list_tasks, online_cpus
from surefoot.targets.vmcoreinfo import VmcoreInfo
from surefoot.unwind.code import CodeMap
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Source, StackKind

if TYPE_CHECKING:
    from drgn import Program

    from surefoot.image.binary import Image
    from surefoot.targets.proofs import CodeProofs, ProofStore

__all__ = ["LinuxTarget", "SourceLine"]

_KindStacks = dict[StackKind, tuple[int, int]]


class SourceLine(NamedTuple):
    """A place in the sources.

    Attributes:
        function: name of the function, of inlined ones too.
        file: path as the compiler saw it.
        line: number, 0 if it is not known.
    """

    function: str
    file: str
    line: int


class LinuxTarget:
    """A stopped or running arm64 Linux kernel.

    Attributes:
        name: for headings.
        prog: the drgn program; its debug information is loaded only by `load_debug_info`.
        memory: kernel virtual memory.
        info: VMCOREINFO.
        tables: what is known of the kernel image.
        bias: KASLR offset, bytes.
    """

    def __init__(
        self,
        prog: Program,
        name: str,
        info: VmcoreInfo,
        tables: KernelTables,
        registers: Callable[[], Sequence[CpuRegisters]],
        *,
        vmlinux: Path,
        modules_dir: Path | Sequence[Path] | None = None,
        cache: TableCache | None = None,
    ) -> None:
        """Describe a target; nothing is read yet.

        Args:
            prog: with its memory set up.
            name: for headings.
            info: VMCOREINFO of the kernel.
            tables: of the kernel image, whose build-id the caller has compared.
            registers: gives the registers of all CPUs at the instant that the memory shows.
            vmlinux: file of the kernel image.
            modules_dir: folder of module files, or several.
            cache: where decoded tables are kept.
        """
        self.name = name
        self.prog = prog
        self.memory = DrgnMemory(prog)
        self.info = info
        self.tables = tables
        self.bias = info.kaslr_offset
        self._registers = registers
        self._vmlinux = vmlinux
        self._files = ModuleFiles(modules_dir)
        self._cache = cache
        self._code: tuple[CodeMap, tuple[str, ...]] | None = None
        self._proofs: ProofStore | None = None
        self._provable: list[tuple[str, Provable]] = []
        self._modules: tuple[list[LoadedModule], list[str]] | None = None
        self._has_debug_info = False

    @property
    def modules(self) -> list[LoadedModule]:
        """The loaded modules, as last read."""
        if self._modules is None:
            self._modules = list_modules(self.memory, self.tables.layout, self.bias)
        return self._modules[0]

    @property
    def code(self) -> CodeMap:
        """The kernel's and its modules' code, as last read; see `refresh_code`."""
        return self._read_code()[0]

    def refresh_code(self) -> None:
        """Forget the code, so that it is read again: a running kernel loads modules and patches itself."""
        self._code = None
        self._modules = None

    def use_code(self, code: CodeMap) -> None:
        """Take code that was read before for that of now; the caller has compared the words and the modules."""
        self._code = code, ()

    def prove(self) -> None:
        """Let walks ask for proofs: captures from now on hold those of all code, modules included."""
        code, notes = self._read_code()
        proofs = self._code_proofs()
        proofs.ask_all()
        proofs.forget()
        self._code = replace(code, proofs=proofs.proof), (*notes, *proofs.notes)

    def prove_boundaries(self, capture: Capture, modes: Collection[Mode] = (Mode.HYBRID,)) -> Capture:
        """Prove what walks need: the functions that exceptions interrupted.

        Crossing one exception boundary can reveal another; so walks and proofs take turns until nothing is new.

        Args:
            capture: of this target, its code as it is in the target still.
            modes: in which the tasks will be walked.

        Returns:
            the capture with proofs at the exception boundaries of these walks. Where all code is proved already, it
            is the same.
        """
        from surefoot.targets.proofs import AskedProofs, no_answers
        from surefoot.unwind.walker import walk

        if capture.code.proofs is not NO_PROOFS:
            return capture
        proofs, answers = self._code_proofs(), no_answers()
        while True:  # each round asks about addresses that are new
            code = replace(capture.code, proofs=answers)
            walks = (walk(code, capture.stacks, capture.tasks, capture.layout, mode=mode) for mode in modes)
            found = [traces.pc[traces.source == Source.REGS] for traces in walks]
            asked = np.unique(np.concatenate([answers.asked, *found]))
            if asked.size == answers.asked.size:
                break
            proofs.ask(np.setdiff1d(asked, answers.asked))
            answers = AskedProofs(proofs.proof, asked)
        proofs.forget()
        return replace(capture, code=code, notes=(*capture.notes, *proofs.notes))

    def _code_proofs(self) -> CodeProofs:
        """Give the proofs of the code as it was last read."""
        from surefoot.audit.moduletext import NORETURN
        from surefoot.image.files import open_image
        from surefoot.targets.proofs import CodeProofs, ImageProofs, Outside, ProofStore

        self._read_code()
        if self._proofs is None:
            self._proofs = ProofStore(self._cache)
        identity = f"{self.info.build_id}.{self.bias}.{','.join(NORETURN)}"
        outside, found = Outside(identity, self._never_return), []
        for name, source in self._provable:
            placed = source.module

            def image(placed: Image | None = placed) -> Image:
                return open_image(self._vmlinux) if placed is None else placed

            found.append((name, ImageProofs(source, self._proofs, image, None if placed is None else outside)))
        return CodeProofs(found)

    def _never_return(self) -> Addr:
        """Give the run-time addresses of the kernel's functions that are known never to return."""
        from surefoot.audit.moduletext import NORETURN
        from surefoot.image.files import open_image

        symbols = open_image(self._vmlinux).symbols
        found = [addr for name in NORETURN if (addr := find_symbol(symbols, name)) is not None]
        return np.array(found, dtype=np.uint64) + np.uint64(self.bias % 2**64)

    def _read_code(self) -> tuple[CodeMap, tuple[str, ...]]:
        """Give the code and notes on what is missing of it."""
        if self._code is None:
            pieces = [kernel_piece(self.memory, self.tables, self.bias, self._freed(), self.info.build_id)]
            notes = []
            provable = [(self._vmlinux.name, pieces[0].provable)]
            for module in self.modules:
                piece, note = module_piece(self.memory, self.tables.layout, module, self._files, self._cache)
                pieces.append(piece)
                provable.append((f"module {module.name}", piece.provable))
                if note:
                    notes.append(note)
            notes += self._modules[1] if self._modules else []
            if not self.tables.layout.has("frame_record_meta.type"):
                notes.append("this kernel's frame records mark neither exception boundaries nor the end of a stack")
            if self.tables.rules is None:
                notes.append("the kernel image has no unwind metadata: only frame records are followed")
            labels = {name: (addr + self.bias) % 2**64 for name, addr in self.tables.labels.items()}
            self._code = build_code(pieces, labels), tuple(notes)
            self._provable = [(name, source) for name, source in provable if source is not None]
        return self._code

    def _freed(self) -> tuple[int, int] | None:
        """Give the link addresses of the code that the kernel has freed after boot, None while it boots."""
        layout = self.tables.layout
        where = [layout.symbols.get(name) for name in ("system_state", "__init_begin", "__init_end")]
        state_addr, low, high = where
        if state_addr is None or low is None or high is None:
            return None
        data = self.memory.read(state_addr + self.bias, 4)
        # SYSTEM_FREEING_INITMEM: from here on the pages may be anybody's (init/main.c: kernel_init).
        running = layout.numbers.get("system_state.running", 2)
        return (low, high) if data is None or u32_at(data, 0) >= running else None

    def image_of(self, name: str) -> tuple[Image, int]:
        """Give the image of the kernel or of a loaded module, at its run-time addresses but for a bias.

        Args:
            name: "vmlinux" or a module's.

        Returns:
            the image, and what the target's addresses are above its own.

        Raises:
            Unavailable: the module is not loaded, or its file is not at hand; the message says which.
            InputError: the file is damaged.
        """
        if name == "vmlinux":
            from surefoot.image.files import open_image

            return open_image(self._vmlinux), self.bias
        module = next((one for one in self.modules if one.name.replace("-", "_") == name.replace("-", "_")), None)
        if module is None:
            raise Unavailable(f"module {name} is not loaded in {self.name}", hint="load it first (insmod)")
        image, note = self._files.open(module.name, module.build_id)
        if image is None:
            raise Unavailable(note, hint="give the folder with its file, debug information included")
        where = {section: addr for section, addr in module.sections.items() if module.holds(addr)}
        return image.placed(image.sections.bases(where)), 0

    def is_freed(self, addr: int) -> bool:
        """Whether an address lies in code that the kernel has freed after boot."""
        low, high = self._freed() or (0, 0)
        return low <= (addr - self.bias) % 2**64 < high

    def capture(self, pids: Iterable[int] | None = None) -> Capture:
        """Copy the tasks, their stacks and their bookkeeping.

        Args:
            pids: process (thread) IDs of the tasks wanted, None for all, the idle tasks included. Pid 0 means
                all idle tasks.

        Returns:
            the tasks in ascending order of pid. What could not be read is marked in `Tasks.start`, in
            `Bookkeeping.broken` or named in `Capture.notes`.

        Raises:
            Unavailable: there is no task of a wanted pid, or the task list cannot be read at all.
        """
        layout = self.tables.layout
        cpus, notes = online_cpus(self.memory, layout, self.bias)
        tasks, task_notes = list_tasks(self.memory, layout, self.bias, cpus)
        if not tasks:
            raise Unavailable(f"{self.name}: the kernel's task list cannot be read", hint="is the dump complete?")
        kinds = [stacks_of_cpu(self.memory, layout, self.bias, cpu) for cpu in cpus]
        on_cpu, cpu_stacks = self._place(tasks, cpus, kinds)
        tasks = self._choose(tasks, None if pids is None else set(pids))
        columns, stacks = gather(self.memory, layout, tasks, on_cpu, list(zip(cpu_stacks, kinds, strict=True)))
        code, code_notes = self._read_code()
        return Capture(
            name=self.name,
            release=self.info.release,
            build_id=self.info.build_id,
            info=describe(layout, tasks, on_cpu),
            tasks=columns,
            stacks=stacks,
            layout=layout.walker(self.info.pac_mask),
            code=code,
            notes=(*notes, *task_notes, *on_cpu.notes, *code_notes),
        )

    def _place(
        self, tasks: Sequence[RawTask], cpus: Sequence[Cpu], kinds: Sequence[_KindStacks]
    ) -> tuple[OnCpu, list[CpuStacks]]:
        """Give every running task its registers."""
        cpu_stacks = [
            CpuStacks(cpu.number, cpu.curr, [bounds for kind, bounds in found.items() if kind != StackKind.EFI])
            for cpu, found in zip(cpus, kinds, strict=True)
        ]
        efi = next((found[StackKind.EFI] for found in kinds if StackKind.EFI in found), None)
        efi_stack = None if efi is None else EfiStack(*efi, self.memory.u64(efi[1] - 8) or 0)
        placed = place_registers(task_stacks(self.tables.layout, tasks), cpu_stacks, self._registers(), efi_stack)
        return placed, cpu_stacks

    def _choose(self, tasks: Sequence[RawTask], pids: set[int] | None) -> list[RawTask]:
        """Give the wanted tasks in ascending order of pid.

        Raises:
            Unavailable: there is no task of a wanted pid.
        """
        at = self.tables.layout["task.pid"]
        keyed = sorted(((u32_at(task.block, at), task) for task in tasks), key=lambda item: item[0])
        if pids is None:
            return [task for _, task in keyed]
        missing = sorted(pids - {pid for pid, _ in keyed})
        if missing:
            listed = ", ".join(str(pid) for pid in missing)
            raise Unavailable(f"{self.name} has no task with pid {listed}", hint="list the tasks without --task")
        return [task for pid, task in keyed if pid in pids]

    def load_debug_info(self) -> None:
        """Load the debug information of the kernel and of the modules whose files match, once."""
        if self._has_debug_info:
            return
        from drgn import MissingDebugInfoError

        opened = (self._files.open(module.name, module.build_id)[0] for module in self.modules)
        paths = [str(self._vmlinux), *(image.path for image in opened if image is not None)]
        with suppress(MissingDebugInfoError):  # some module's is missing; what was found is loaded
            self.prog.load_debug_info(paths)
        self._has_debug_info = True

    def source_lines(self, addrs: Addr) -> list[tuple[SourceLine, ...]]:
        """Give the source lines of code addresses, through drgn.

        Args:
            addrs: (n,) uint64, exact addresses; for a return address subtract one first.

        Returns:
            for each address the innermost inlined function first, the real one last; empty if nothing is known.
        """
        self.load_debug_info()
        found: dict[int, tuple[SourceLine, ...]] = {}
        for addr in np.unique(addrs).tolist():
            try:
                places = self.prog.source_location(addr)
                found[addr] = tuple(SourceLine(p.name() or "", p.filename, p.line) for p in places)
            except LookupError:
                found[addr] = ()
        return [found[addr] for addr in addrs.tolist()]
