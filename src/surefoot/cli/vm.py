"""Layer 9: ``surefoot vm``: real arm64 kernels in QEMU guests, and dumps of them.

Everything heavy is imported inside the commands.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from surefoot.cli.console import Globals, global_options, pass_globals, print_json

if TYPE_CHECKING:
    from surefoot.targets.vm.folders import Report
    from surefoot.targets.vm.kernels import Kernel

__all__ = ["vm"]

_GUEST = click.argument("name", required=False, default="")
_MIB = 1 << 20


@contextmanager
def _steps(held: Globals) -> Iterator[Report]:
    """Show the step that a long command is at, on a terminal only; leave nothing behind."""
    if held.quiet or not sys.stderr.isatty():
        yield lambda _step: None
        return
    with held.stderr().status("") as status:
        yield status.update


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end a long command as Ctrl-C does, so that it tidies up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(held: Globals, command: str, value: Mapping[str, object], lines: Callable[[], list[str]]) -> None:
    """Print the answer as JSON, or as lines of text unless quiet."""
    if held.json:
        print_json({"schema": f"surefoot.vm-{command}/1", **value})
    elif not held.quiet:
        for line in lines():
            click.echo(line)


@click.group()
@global_options
def vm() -> None:
    """Run real arm64 kernels in QEMU: fetch or build, boot, trace, dump.

    Where a guest's NAME may be left out, the only one that runs is meant. Kernels and running guests are kept in
    the user's cache folder, or in $SUREFOOT_CACHE.
    """


@vm.command()
@click.option("--version", default="", help="A release or its beginning, such as 7.3.4; the newest if not given.")
@click.option("--suite", "suites", multiple=True, help="Debian release to look in (repeatable).")
@click.option("--mirror", default="", help="Address of a Debian mirror; the system's own if not given.")
@click.option("--flavour", default="cloud-arm64", show_default=True, help="End of the kernel's release name.")
@global_options
@pass_globals
def fetch(held: Globals, version: str, suites: tuple[str, ...], mirror: str, flavour: str) -> None:
    """Fetch a Debian kernel with debug symbols, and busybox.

    apt works in a private folder: the system's package state is neither used nor changed.
    """
    from surefoot.targets.vm import apt, kernels

    with _steps(held) as report:
        kernel = kernels.fetch(
            version, suites=suites or apt.DEFAULT_SUITES, mirror=mirror, flavour=flavour, report=report
        )
    _answer(
        held,
        "fetch",
        kernel.to_json(),
        lambda: [
            f"{kernel.release}, build-id {kernel.build_id}",
            f"vmlinux  {kernel.vmlinux}",
            f"modules  {kernel.debug_modules}",
        ],
    )


@vm.command()
@click.option("--version", default="", help="Upstream version or its beginning; the newest 7.3 if not given.")
@click.option("--scs/--no-scs", default=True, show_default=True, help="Shadow call stack.")
@click.option("--sframe", is_flag=True, help="Let the assembler write .sframe sections.")
@click.option(
    "--config",
    "fragments",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="More kernel options, as in a .config file (repeatable; the last one counts).",
)
@click.option("--jobs", "-j", type=click.IntRange(1), help="Compilers at once; one a CPU if not given.")
@click.option("--suite", "suites", multiple=True, help="Debian release to take the source from (repeatable).")
@click.option("--mirror", default="", help="Address of a Debian mirror; the system's own if not given.")
@click.option("--refresh", is_flag=True, help="Ask the archive for a newer source and toolchain.")
@global_options
@pass_globals
def build(
    held: Globals,
    version: str,
    scs: bool,
    sframe: bool,
    fragments: tuple[Path, ...],
    jobs: int | None,
    suites: tuple[str, ...],
    mirror: str,
    refresh: bool,
) -> None:
    """Build a Linux kernel with live patching, tracing and debug symbols.

    Source and cross compiler come from Debian and stay in the cache folder: nothing is installed. It takes about ten
    minutes on two CPUs, once; the same kernel is not built again.
    """
    from surefoot.targets.vm import apt, folders, recipe
    from surefoot.targets.vm import build as builds

    with folders.os_errors("read the configuration"):
        extra = tuple(path.read_text("utf-8") for path in fragments)
    with _sigterm_interrupts(), _steps(held) as report:
        built = builds.build(
            recipe.Recipe(scs, sframe, extra),
            version=version,
            jobs=jobs or 0,
            suites=suites or apt.DEFAULT_SUITES,
            mirror=mirror,
            refresh=refresh,
            report=report,
        )
    kernel = built.kernel
    for option, value in kernel.build["refused"].items():
        held.note(f"CONFIG_{option} came out as {value}: this kernel lacks it, or something else forces it")
    _answer(held, "build", {**kernel.to_json(), "new": built.new}, lambda: _describe_build(kernel, new=built.new))


def _describe_build(kernel: Kernel, *, new: bool) -> list[str]:
    took = f"built in {kernel.build['seconds'] / 60:.1f} min" if new else "was there already"
    dropped = [f"sframe   none for {n} functions: {why}" for why, n in kernel.build["sframe_dropped"].items()]
    return [
        f"{kernel.name}, build-id {kernel.build_id}, {took}",
        *dropped,
        f"vmlinux  {kernel.vmlinux}",
        f"modules  {kernel.debug_modules}",
    ]


@vm.command()
@click.option("--version", default="", help="A release in the cache or its beginning; the newest if not given.")
@click.option("--kernel", default="", help="A kernel in the cache by its name, as list shows it.")
@click.option("--name", default="default", show_default=True, help="For later commands.")
@click.option("--cpus", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--memory", type=click.IntRange(128), default=512, show_default=True, help="In MiB.")
@click.option("--load/--no-load", default=True, show_default=True, help="Keep the guest busy.")
@click.option("--append", multiple=True, help="More words for the kernel command line (repeatable).")
@click.option("--gdb", is_flag=True, help="Listen for gdb on a UNIX socket.")
@click.option("--cpu", default="", help="QEMU's CPU model; lpa2=off after a comma gives 48-bit addresses.")
@click.option("--timeout", type=click.FloatRange(1), default=120.0, show_default=True, help="Seconds.")
@global_options
@pass_globals
def boot(
    held: Globals,
    version: str,
    kernel: str,
    name: str,
    cpus: int,
    memory: int,
    load: bool,
    append: tuple[str, ...],
    gdb: bool,
    cpu: str,
    timeout: float,
) -> None:
    """Boot a kernel of the cache in a guest that runs until it is stopped."""
    from surefoot.targets.vm import kernels, machines, qemu

    with _steps(held) as report:
        machine = machines.boot(
            kernels.find(version, kernel),
            name=name,
            cpus=cpus,
            memory_mib=memory,
            load=load,
            append=" ".join(append),
            gdb=gdb,
            cpu=cpu or qemu.DEFAULT_CPU,
            timeout=timeout,
            report=report,
        )
    value: dict[str, Any] = {**machine.to_json(), "gdb_socket": _text(machine.gdb_socket)}
    _answer(held, "boot", value, lambda: [f"{machine.name} runs {machine.kernel.release} (pid {machine.pid})"])


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@vm.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", type=click.FloatRange(1), default=60.0, show_default=True, help="Seconds.")
@global_options
@pass_globals
@click.pass_context
def run(ctx: click.Context, held: Globals, name: str, command: tuple[str, ...], timeout: float) -> None:
    """Run a shell command in a guest, as in: surefoot vm run NAME -- uname -a.

    Its output and its exit status are passed on; with --json, they are in the answer and the status is 0.
    """
    from surefoot.targets.vm import machines

    # As ssh does it: one word may be a whole script, several are one command line.
    words = command[1:] if command[0] == "--" else command
    answer = machines.find(name).console.run(" ".join(words), timeout=timeout)
    if held.json:
        print_json(
            {
                "schema": "surefoot.vm-run/1",
                "name": name,
                "command": " ".join(words),
                "status": answer.status,
                "output": answer.text,
            }
        )
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(answer.output)
    sys.stdout.buffer.flush()
    ctx.exit(answer.status)


@vm.command()
@click.argument("action", type=click.Choice(["on", "off"]))
@_GUEST
@click.option("--graph/--no-graph", default=True, show_default=True, help="The function-graph tracer.")
@click.option("--filter", "graph_filter", default="", help="Functions it follows: names and globs with spaces.")
@click.option("--kretprobe", "kretprobes", multiple=True, metavar="FUNC", help="Probe a return (repeatable).")
@global_options
@pass_globals
def trace(held: Globals, action: str, name: str, graph: bool, graph_filter: str, kretprobes: tuple[str, ...]) -> None:
    """Turn tracing that rewrites return addresses on or off."""
    from surefoot.targets.vm import machines

    machine = machines.find(name)
    notes: list[str] = []
    wanted = (graph_filter or machines.GRAPH_FILTER) if graph else ""
    with _steps(held) as report:
        report(f"turning tracing {action}")
        if action == "on":
            notes = machine.trace_on(graph=wanted, kretprobes=kretprobes)
        else:
            machine.trace_off()
    for note in notes:
        held.note(note)
    value: dict[str, Any] = {
        "name": machine.name,
        "on": action == "on",
        "graph": wanted if action == "on" else "",
        "kretprobes": list(kretprobes) if action == "on" else [],
        "notes": notes,
    }
    _answer(held, "trace", value, lambda: [f"tracing is {action} in {machine.name}"])


@vm.command()
@_GUEST
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="NAME.vmcore if not given.")
@click.option(
    "--format",
    "dump_format",
    type=click.Choice(["elf", "kdump-zlib"]),
    default="elf",
    show_default=True,
)
@click.option(
    "--stacks",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the kernel's own trace of every thread, taken just before, as JSON.",
)
@global_options
@pass_globals
def dump(held: Globals, name: str, output: Path | None, dump_format: str, stacks: Path | None) -> None:
    """Write a guest's memory and registers to a file."""
    from surefoot.targets.vm import folders, machines

    machine = machines.find(name)
    with _steps(held) as report:
        report("dumping")
        made = machine.dump(
            output or Path(f"{machine.name}.vmcore"), dump_format=dump_format, stacks=stacks is not None
        )
        if stacks is not None:
            threads = [thread.to_json() for thread in made.stacks or []]
            folders.write_json(stacks, {"schema": "surefoot.vm-stacks/1", "threads": threads})
    value: dict[str, Any] = {
        "name": machine.name,
        "vmcore": str(made.path),
        "format": made.dump_format,
        "bytes": made.size_bytes,
        "paused_s": round(made.paused_s, 6),
        "stacks": _text(stacks),
        "vmlinux": str(made.kernel.vmlinux),
        "modules": str(made.kernel.debug_modules),
        "build_id": made.kernel.build_id,
        "release": made.kernel.release,
    }
    _answer(
        held,
        "dump",
        value,
        lambda: [
            f"vmcore   {made.path} ({made.size_bytes / _MIB:.0f} MiB, guest stopped for {made.paused_s:.2f} s)",
            f"vmlinux  {made.kernel.vmlinux}",
            f"modules  {made.kernel.debug_modules}",
        ],
    )


def _simple(held: Globals, command: str, name: str, done: str) -> None:
    """Do something to a guest that has no other answer."""
    from surefoot.targets.vm import machines

    machine = machines.find(name)
    getattr(machine, command)()
    _answer(held, command, {"name": machine.name}, lambda: [f"{machine.name} {done}"])


@vm.command()
@_GUEST
@global_options
@pass_globals
def pause(held: Globals, name: str) -> None:
    """Stop a guest's CPUs until resume."""
    _simple(held, "pause", name, "is paused")


@vm.command()
@_GUEST
@global_options
@pass_globals
def resume(held: Globals, name: str) -> None:
    """Let a paused guest run on."""
    _simple(held, "resume", name, "runs")


@vm.command()
@_GUEST
@click.option("--all", "everyone", is_flag=True, help="Every guest that runs.")
@global_options
@pass_globals
def stop(held: Globals, name: str, everyone: bool) -> None:
    """End a guest; its serial log goes with it."""
    from surefoot.targets.vm import machines

    if everyone and name:
        raise click.UsageError("a name and --all exclude each other")
    ended = machines.running() if everyone else [machines.find(name)]
    for machine in ended:
        machine.stop()
    names = [machine.name for machine in ended]
    _answer(held, "stop", {"names": names}, lambda: [f"{name} has ended" for name in names])


@vm.command("list")
@global_options
@pass_globals
def list_(held: Globals) -> None:
    """List running guests and the kernels in the cache."""
    from surefoot.targets.vm import kernels, machines

    guests = [machine.to_json() for machine in machines.running()]
    have = [kernel.to_json() for kernel in kernels.installed()]

    def lines() -> list[str]:
        text = [f"guest   {g['name']}  {g['release']}  pid {g['pid']}" for g in guests]
        text += [f"kernel  {k['name']}  {k['folder']}" for k in have]
        return text or ["no guest runs and no kernel is in the cache"]

    _answer(held, "list", {"guests": guests, "kernels": have}, lines)
