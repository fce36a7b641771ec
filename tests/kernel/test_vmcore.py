"""Captures of a real guest: Debian's kernel in QEMU under load, traced and not, against drgn on the same dump."""

from __future__ import annotations

import mmap
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from peer_drgn import differences, drgn_program
from surefoot.errors import Inconsistent, InputError, SurefootError, Unavailable, Unsupported
from surefoot.targets.cache import TableCache
from surefoot.targets.capture import Capture
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.snapshot import load_snapshot, record
from surefoot.targets.vm import kernels, machines
from surefoot.targets.vmcore import open_vmcore
from surefoot.unwind.code import FunctionKind
from surefoot.unwind.context import Mode
from surefoot.unwind.state import Start
from surefoot.unwind.walker import walk

pytestmark = [pytest.mark.kernel, pytest.mark.needs("qemu-system-aarch64", "apt-get", "dpkg")]

KRETPROBES = ("vfs_read", "do_wait", "do_nanosleep")
MODULES = {"mousedev", "pktgen", "zram"}


@dataclass(frozen=True)
class Inputs:
    """Dumps of one guest."""

    kernel: kernels.Kernel
    plain: Path
    packed: Path
    traced: Path
    cache: TableCache

    def open(self, vmcore: Path) -> LinuxTarget:
        """Open a dump with everything that belongs to it."""
        return open_vmcore(vmcore, self.kernel.vmlinux, self.kernel.debug_modules, cache=self.cache)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    """Give dumps: one as ELF and kdump of the same instant, one with tracing on."""
    folder = tmp_path_factory.mktemp("vmcore")
    kernel = kernels.fetch()
    machine = machines.boot(kernel, name=f"vmcore-{os.getpid()}")
    try:
        machine.console.check("sleep 3")
        machine.pause()
        machine.dump(folder / "plain")
        machine.dump(folder / "packed", dump_format="kdump-zlib")
        machine.resume()
        machine.trace_on(kretprobes=KRETPROBES)
        machine.console.check("sleep 3")
        machine.dump(folder / "traced")
    finally:
        machine.stop()
    yield Inputs(kernel, folder / "plain", folder / "packed", folder / "traced", TableCache(folder))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plain(inputs: Inputs) -> Capture:
    return inputs.open(inputs.plain).capture()


@pytest.fixture(scope="module")
def traced(inputs: Inputs) -> Capture:
    return inputs.open(inputs.traced).capture()


def test_the_tasks_are_those_that_drgn_lists(inputs: Inputs, plain: Capture) -> None:
    from drgn.helpers.linux.pid import for_each_task
    from drgn.helpers.linux.sched import task_cpu, task_state_to_char

    prog = drgn_program(inputs.plain, inputs.kernel.vmlinux)
    theirs = {
        (task.pid.value_(), task.comm.string_().decode()): (
            task.tgid.value_(),
            task_state_to_char(task),
            task_cpu(task),
            task.nvcsw.value_() + task.nivcsw.value_(),
            bool(task.flags & 0x0020_0000),
        )
        for task in for_each_task(prog, idle=True)
    }
    info = plain.info
    columns = (info.tgid.tolist(), info.state, info.cpu.tolist(), info.switches.tolist(), info.kthread.tolist())
    ours = dict(zip(zip(info.pid.tolist(), info.comm, strict=True), zip(*columns, strict=True), strict=True))
    assert ours == theirs
    assert len(plain) >= 60
    assert plain.notes == ()


def test_running_tasks_start_from_the_registers_that_drgn_finds(inputs: Inputs, plain: Capture) -> None:
    from drgn.helpers.linux.pid import for_each_task

    prog = drgn_program(inputs.plain, inputs.kernel.vmlinux)
    rows = {key: row for row, key in enumerate(zip(plain.info.pid.tolist(), plain.info.comm, strict=True))}
    checked = 0
    for task in for_each_task(prog, idle=True):
        row = rows[task.pid.value_(), task.comm.string_().decode()]
        assert bool(plain.info.on_cpu[row]) == bool(task.on_cpu)
        if not task.on_cpu or plain.tasks.start[row] != Start.REGS:
            continue
        registers = prog.stack_trace(task)[0].registers()
        assert registers["sp"] == plain.tasks.sp[row]
        assert registers["x29"] == plain.tasks.fp[row]
        assert registers["x30"] == plain.tasks.lr[row]
        assert prog.stack_trace(task)[0].pc == plain.tasks.pc[row]
        checked += 1
    running = Counter(plain.tasks.start.tolist())
    assert checked == running[Start.REGS]
    assert running[Start.REGS] + running[Start.USER] + running[Start.SWITCHING] >= 2


def test_every_trace_is_drgns(inputs: Inputs, plain: Capture) -> None:
    """Without tracing nothing rewrites return addresses: certain traces and drgn's are the same addresses."""
    traces = walk(plain.code, plain.stacks, plain.tasks, plain.layout)
    prog = drgn_program(inputs.plain, inputs.kernel.vmlinux)
    compared, found = differences(plain, traces, prog)
    assert compared >= 60
    doubtful = {int(plain.info.pid[row]) for row in np.flatnonzero(traces.reason != 0)}
    assert [item for item in found if item.pid not in doubtful] == []


def test_traced_functions_are_ours_only(inputs: Inputs, traced: Capture) -> None:
    """With tracing drgn shows the trampolines' addresses where the original ones are in the bookkeeping."""
    assert int(traced.tasks.fgraph.first[-1]) >= 5
    assert int(traced.tasks.kretprobe.first[-1]) >= 3
    assert not traced.tasks.fgraph.broken.any()
    assert not traced.tasks.kretprobe.broken.any()
    traces = walk(traced.code, traced.stacks, traced.tasks, traced.layout)
    compared, found = differences(traced, traces, drgn_program(inputs.traced, inputs.kernel.vmlinux))
    assert compared >= 60
    labels = traced.code.labels
    trampolines = {labels["return_to_handler"], labels["__kretprobe_trampoline"]}
    doubtful = {int(traced.info.pid[row]) for row in np.flatnonzero(traces.reason != 0)}
    explained = 0
    for item in found:
        if item.pid in doubtful:
            continue
        handler = [name for name, addr in item.ours if labels["return_to_handler"] < addr - 4]
        assert handler or len(item.ours) == len(item.theirs), item
        for (name, addr), (_, other) in zip(item.ours, item.theirs, strict=False):
            if addr == other:
                continue
            assert other in trampolines or any(labels["return_to_handler"] < a for _, a in item.theirs), (name, item)
            break
        explained += 1
    assert explained >= 3


def test_a_kdump_file_of_the_same_instant_gives_the_same_capture(inputs: Inputs, plain: Capture) -> None:
    packed = inputs.open(inputs.packed).capture()
    for name in ("start", "pc", "sp", "fp", "lr", "stacks", "final_record"):
        assert np.array_equal(getattr(packed.tasks, name), getattr(plain.tasks, name)), name
    assert np.array_equal(packed.stacks.words, plain.stacks.words)
    assert np.array_equal(packed.code.text.words, plain.code.text.words)


def test_a_warm_cache_changes_nothing(inputs: Inputs, plain: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    cold = open_vmcore(inputs.plain, inputs.kernel.vmlinux, inputs.kernel.debug_modules).capture()
    inputs.open(inputs.plain)

    def unwanted(*_: object) -> None:
        raise AssertionError("debug information was loaded although the cache holds the layout")

    monkeypatch.setattr("surefoot.targets.vmcore.derive_layout", unwanted)
    warm = inputs.open(inputs.plain).capture()
    for capture in (cold, warm):
        assert capture.layout == plain.layout
        assert capture.code.labels == plain.code.labels
        assert list(capture.code.functions.names) == list(plain.code.functions.names)
        for name in ("start", "cfa_base", "cfa_off", "fp_rule", "fp_off", "ra_rule", "ra_off", "ra_signed"):
            assert np.array_equal(getattr(capture.code.rules, name), getattr(plain.code.rules, name)), name
        assert np.array_equal(capture.code.changed, plain.code.changed)


def test_modules_without_files_keep_their_functions(inputs: Inputs, plain: Capture) -> None:
    target = open_vmcore(inputs.plain, inputs.kernel.vmlinux, cache=inputs.cache)
    capture = target.capture()
    assert list(capture.code.functions.names) == list(plain.code.functions.names)
    assert np.array_equal(capture.code.functions.start, plain.code.functions.start)
    named = {note.split()[1].rstrip(":") for note in capture.notes}
    assert named >= MODULES
    assert len(capture.code.rules) < len(plain.code.rules)


def test_all_rules_and_functions_are_those_of_live_code(plain: Capture) -> None:
    code = plain.code
    assert (code.functions.kind == FunctionKind.CODE).sum() >= 50
    assert len(code.rules) >= 300_000
    words, known = code.text.words_at(code.functions.start)
    assert known.mean() > 0.999
    assert (words != 0).mean() > 0.99
    inside = code.functions.lookup(code.changed, np.zeros(code.changed.shape, dtype=np.bool_))
    assert (inside < 0).all(), "no function of a stock kernel without probes differs without explanation"


def test_probed_words_count_as_changed(traced: Capture) -> None:
    code = traced.code
    index = code.functions.lookup(code.changed, np.zeros(code.changed.shape, dtype=np.bool_))
    assert {code.functions.names[row] for row in index.tolist() if row >= 0} == set(KRETPROBES)


def test_a_record_replays_as_the_whole(traced: Capture, tmp_path: Path) -> None:
    pids = sorted({int(pid) for pid in traced.info.pid})
    record(traced, pids, tmp_path / "all.npz")
    replayed = load_snapshot(tmp_path / "all.npz")
    for mode in Mode:
        one = walk(traced.code, traced.stacks, traced.tasks, traced.layout, mode=mode)
        two = walk(replayed.code, replayed.stacks, replayed.tasks, replayed.layout, mode=mode)
        for name in ("first", "pc", "source", "evidence", "sp", "fp", "reason", "reason_frame", "reason_addr"):
            assert np.array_equal(getattr(one, name), getattr(two, name)), (mode, name)
    assert (tmp_path / "all.npz").stat().st_size < 300_000


def test_source_lines_name_the_place(inputs: Inputs, plain: Capture) -> None:
    target = inputs.open(inputs.plain)
    where = np.array([plain.code.labels["cpu_switch_to"], 4096], dtype=np.uint64)
    (place,), nothing = target.source_lines(where)
    assert place.file.endswith("arch/arm64/kernel/entry.S")
    assert place.line > 0
    assert nothing == ()


def test_a_dump_without_the_note_is_identified_by_its_memory(inputs: Inputs, plain: Capture, tmp_path: Path) -> None:
    copy = tmp_path / "vmcore"
    shutil.copyfile(inputs.plain, copy)
    _replace(copy, b"VMCOREINFO\0", b"XMCOREINFO\0")
    capture = inputs.open(copy).capture()
    assert np.array_equal(capture.tasks.pc, plain.tasks.pc)


def _replace(path: Path, old: bytes, new: bytes) -> None:
    """Overwrite the first occurrence of some bytes in a file."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        at = view.find(old)
        assert at >= 0
        view[at : at + len(new)] = new


def _refused(inputs: Inputs, vmcore: Path, vmlinux: Path, error: type[SurefootError], words: str) -> None:
    with pytest.raises(error) as caught:
        open_vmcore(vmcore, vmlinux, inputs.kernel.debug_modules, cache=None)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_build_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    copy = tmp_path / "vmcore"
    shutil.copyfile(inputs.packed, copy)
    old = f"BUILD-ID={inputs.kernel.build_id}".encode()
    _replace(copy, old, old[:-4] + b"0000")
    _refused(inputs, copy, inputs.kernel.vmlinux, Inconsistent, "is not the kernel of")
    shutil.copyfile(inputs.packed, copy)
    _replace(copy, b"BUILD-ID=", b"BUILD_ID=")
    _refused(inputs, copy, inputs.kernel.vmlinux, Inconsistent, "states no build-id")


def test_an_image_without_debug_information_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    stripped = tmp_path / "vmlinux"
    shutil.copyfile(inputs.kernel.vmlinux, stripped)
    _replace(stripped, b"\0.debug_info\0", b"\0.xebug_info\0")
    _refused(inputs, inputs.packed, stripped, Unsupported, "debug information")


def test_files_of_another_kind_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    module = next(inputs.kernel.debug_modules.rglob("zram.ko*"))
    for vmcore, vmlinux, error, words in (
        (inputs.kernel.vmlinux, inputs.kernel.vmlinux, Unsupported, "not a core dump"),
        (inputs.packed, inputs.kernel.vmlinuz, Unsupported, "boot image"),
        (inputs.packed, inputs.packed, InputError, "packed"),
        (inputs.packed, module, Unsupported, "not a kernel image"),
        (inputs.packed, tmp_path / "missing", InputError, "No such file"),
        (tmp_path / "missing", inputs.kernel.vmlinux, Unavailable, "no such file"),
        (inputs.kernel.busybox, inputs.kernel.vmlinux, Unsupported, "not a core dump"),
    ):
        _refused(inputs, vmcore, vmlinux, error, words)
    with pytest.raises(Unavailable, match="no such folder"):
        open_vmcore(inputs.packed, inputs.kernel.vmlinux, tmp_path / "nowhere")
    with pytest.raises(Unavailable, match="no task with pid 999999"):
        inputs.open(inputs.packed).capture([999999])


def test_modules_of_another_build_give_no_rules(inputs: Inputs, tmp_path: Path) -> None:
    original = next(inputs.kernel.debug_modules.rglob("zram.ko*"))
    copy = tmp_path / original.name
    shutil.copyfile(original, copy)
    target = inputs.open(inputs.plain)
    build_id = next(module.build_id for module in target.modules if module.name == "zram")
    _replace(copy, bytes.fromhex(build_id), bytes(20))
    other = open_vmcore(inputs.plain, inputs.kernel.vmlinux, tmp_path, cache=inputs.cache)
    notes = [note for note in other.capture([0]).notes if "zram" in note]
    assert len(notes) == 1
    assert "of another build" in notes[0]
