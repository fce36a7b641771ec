"""Layer 9: `surefoot demo`: the whole flow once, on the emulated machine or on a real kernel.

Invariant: whatever happens on the way, the guest is ended; what was downloaded and the dump stay in the cache.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from surefoot.cli.console import Globals, global_options, pass_globals, print_json
from surefoot.errors import Unavailable

if TYPE_CHECKING:
    from surefoot.targets.vm.machines import Dump

__all__ = ["demo"]

_QEMU: Final = "qemu-system-aarch64"
_QEMU_PACKAGE: Final = "qemu-system-arm"
_REPEAT_S: Final = 5.0


class _Steps:
    """Says what is being done and how long each step took, on stderr."""

    def __init__(self, held: Globals) -> None:
        self._held = held
        self._count = 0
        self._last = ("", 0.0)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Announce a step, and say at its end how long it took."""
        self._count += 1
        self._held.note(f"[{self._count}] {what}")
        begin = time.monotonic()
        yield
        self._held.note(f"    {time.monotonic() - begin:.1f} s")

    def report(self, line: str) -> None:
        """Say what a step is busy with; of a count that grows ("downloading: ..."), a line now and then."""
        what, now = line.partition(":")[0], time.monotonic()
        if what != self._last[0] or now - self._last[1] > _REPEAT_S:
            self._last = (what, now)
            self._held.note(f"    {line}")


def _install_qemu(steps: _Steps) -> None:
    """Have QEMU on PATH: installed by apt where that is possible, else asked for.

    Raises:
        Unavailable: it is not there and cannot be installed from here.
    """
    hint = f"install it (Debian and Ubuntu: apt install {_QEMU_PACKAGE}) and run the demo again"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(f"the demo boots a guest and needs {_QEMU}, which is not installed", hint=hint)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-qq", "-y", "-o", "DPkg::Lock::Timeout=120", "--no-install-recommends"]
    install = ["apt-get", *options, "install", _QEMU_PACKAGE]
    for words in (["apt-get", "-qq", "update"], install):
        steps.report(shlex.join(words))
        done = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Unavailable(f"apt could not install QEMU: {said[-1] if said else 'it said nothing'}", hint=hint)


def _take_dump(steps: _Steps, version: str, seconds: float) -> Dump:
    """Boot a kernel under load, trace it, dump it, end it.

    Raises:
        TargetError: a step failed; the guest is ended.
    """
    from surefoot.targets.vm import kernels, machines
    from surefoot.targets.vm.folders import cache_folder, os_errors

    with steps.step("fetching a Debian arm64 kernel with debug symbols (kept in the cache)"):
        kernel = kernels.fetch(version, report=steps.report)
    folder = cache_folder() / "demo"
    with os_errors(f"make {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with steps.step(f"booting Linux {kernel.release} in QEMU, with a load"):
        machine = machines.boot(kernel, name=f"demo-{os.getpid()}", report=steps.report)
    try:
        with steps.step("turning on function-graph tracing and a kretprobe, which rewrite return addresses"):
            for line in machine.trace_on(kretprobes=["vfs_read"]):
                steps.report(line)
        with steps.step(f"letting the load run for {seconds:g} s, then dumping memory and registers"):
            time.sleep(seconds)
            return machine.dump(folder / "vmcore")
    finally:
        machine.stop()


_NEXT: Final = """
Next, on kernels of your own:
  surefoot demo --real                 the same on a stock arm64 kernel in QEMU (fetched once, some 400 MB)
  surefoot stack --vmcore F --vmlinux F
                                       every task of a dump
  surefoot audit F                     where the unwind metadata of an image are missing, wrong or unproved
  surefoot patch apply --target machine
                                       the patch again, on a machine that is kept: status, watch, revert
  surefoot campaign                    every walker against the truth, at every instruction of this machine
"""


@click.command()
@click.option("--real", is_flag=True, help="Use a stock Debian kernel in QEMU instead of the emulated machine.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the emulated machine's run.")
@click.option(
    "--version",
    default="",
    help="With --real: a kernel release or its beginning, such as 7.3.4; the newest if not given.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="With --real: how long the load runs.",
)
@global_options
@pass_globals
@click.pass_context
def demo(ctx: click.Context, held: Globals, *, real: bool, seed: int, version: str, seconds: float) -> None:
    """Show the whole system on an emulated arm64 machine, in seconds.

    The machine is part of Surefoot and needs nothing else: it boots a small kernel of its own, whose stacks, tracing
    and interrupts work as in Linux. With --real a stock Debian arm64 kernel runs in QEMU under load, with
    function-graph tracing and a kretprobe on, until its memory and registers are dumped at an arbitrary instant; the
    traces and the comparison of the kernel's own walk with Surefoot's are then those of surefoot stack. Unreliable
    stacks are part of the picture: the exit status is 0 if the flow worked.
    """
    steps = _Steps(held)
    if real:
        _real_kernel(ctx, held, steps, version, seconds)
        return
    from surefoot.cli.demo_machine import machine_json, machine_show
    from surefoot.cli.stack import output_style, write_text

    if held.json:
        with steps.step("booting the emulated machine"):
            print_json(machine_json(seed))
        return
    for part in machine_show(seed, output_style(held), steps.step):
        write_text(part)
    held.note(_NEXT.rstrip())


def _real_kernel(ctx: click.Context, held: Globals, steps: _Steps, version: str, seconds: float) -> None:
    """Boot a real kernel, dump it, and trace every task of the dump."""
    from surefoot.cli.stack import stack

    if shutil.which(_QEMU) is None:
        with steps.step(f"installing {_QEMU_PACKAGE}, which is missing"):
            _install_qemu(steps)
    dump = _take_dump(steps, version, seconds)
    files = {"vmcore": dump.path, "vmlinux": dump.kernel.vmlinux, "modules": dump.kernel.debug_modules}
    with steps.step(f"tracing every task of {dump.path}"):
        ctx.invoke(stack, **files)
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    held.note(f"The dump stays in the cache. To look at it again: surefoot stack {shlex.join(words)}")
