"""Layer 9: what `surefoot patch` asks of each way of patching, and how it finds the way for a target.

A way is a module beside this one, imported when it is chosen: `patch_machine` (the emulated machine), `patch_stopped`
(a guest that stands still while it is patched) and `patch_klp` (Linux's own livepatch). Each exports
`open_backend(target, options)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from surefoot.errors import InputError

if TYPE_CHECKING:
    from surefoot.patch.events import Event, Status

__all__ = ["GUEST", "LIVE", "MACHINE", "Backend", "Options", "Way", "choose_way", "guest_name", "open_backend"]

MACHINE: Final = "machine"
"""Target: the emulated machine."""
LIVE: Final = "live"
"""Target: the kernel that this program runs on."""
GUEST: Final = "guest:"
"""A target that begins with this is a guest of `surefoot vm`; its name follows, or nothing for the only one."""

Way = Literal["auto", "stopped", "livepatch"]
_SYMBOL: Final = "klp_enable_patch"
"""A kernel has it if and only if it was built with CONFIG_LIVEPATCH (kernel/livepatch/core.c)."""
_MODULES: Final = {
    "machine": "surefoot.cli.patch_machine",
    "stopped": "surefoot.cli.patch_stopped",
    "livepatch": "surefoot.cli.patch_klp",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about how to patch; a way ignores what it has no use for.

    Attributes:
        vmlinux: the target's kernel with debug information; None lets the way find it.
        modules: folder with the files of its modules; None lets the way find it.
        way: consistency of a guest's patch; see `choose_way`.
        timeout_s: seconds after which an unfinished transition is given up or left to the kernel; None: never.
        interval_s: seconds between two looks at the tasks, or two attempts.
        pause_s: seconds that a guest may be stopped in one attempt.
        seed: decides what the emulated machine does.
    """

    vmlinux: Path | None = None
    modules: Path | None = None
    way: Way = "auto"
    timeout_s: float | None = 60.0
    interval_s: float = 0.1
    pause_s: float = 5.0
    seed: int = 1


class Backend(Protocol):
    """One way of patching one target.

    The iterators are generators. Ctrl-C arrives in them as KeyboardInterrupt, at any point (also thrown in at a
    `yield`), and an end that nobody announced as GeneratorExit. After either the target has to be wholly patched, or
    wholly not, or in a transition that its kernel finishes by itself. A generator that was interrupted may yield
    one last event that says which of these holds, with kind FAILED, and then ends or raises KeyboardInterrupt again.

    Nothing is held between two calls: what a generator opens, it closes.
    """

    def apply(self, source: str, *, force: bool) -> Iterator[Event]:
        """Apply a patch; the last event is COMPLETED or FAILED, unless the transition is left to the kernel.

        Args:
            source: path of a patch description or of a module, or the name of one.
            force: the user said the explicit word: tasks that hold the transition up are overruled.
        """
        ...

    def revert(self, patch: str, *, force: bool) -> Iterator[Event]:
        """Take a patch back, also one that is half applied; as `apply`.

        Args:
            patch: its name, or what `apply` was given.
            force: as for `apply`.
        """
        ...

    def status(self) -> list[Status]:
        """Say how each patch stands that the target has."""
        ...

    def watch(self, patch: str | None) -> Iterator[Event]:
        """Tell what happens until no transition is under way; changes nothing.

        Args:
            patch: watch this one only; None for all.
        """
        ...


def guest_name(target: str) -> str:
    """Give the name of a guest target; empty where the only guest is meant.

    Raises:
        InputError: the target is not a guest.
    """
    if not target.startswith(GUEST):
        raise InputError(f"the target '{target}' is not a guest", hint="a guest is written guest:NAME")
    return target.removeprefix(GUEST)


def _guest_can_livepatch(target: str, options: Options) -> bool:
    """Say whether the kernel of a guest was built with CONFIG_LIVEPATCH."""
    from surefoot.image.files import open_image
    from surefoot.targets.vm import machines

    vmlinux = options.vmlinux or machines.find(guest_name(target)).kernel.vmlinux
    return bool(open_image(vmlinux).symbols.find(_SYMBOL).size)


def choose_way(target: str, options: Options) -> str:
    """Give the way by which a target is patched: "machine", "stopped" or "livepatch".

    A guest gets Linux's own livepatch if its kernel has it and the user asks for nothing else.

    Raises:
        InputError: no such target, or it cannot be patched in the way that was asked for.
        Unavailable: no such guest runs.
    """
    if target.startswith(GUEST):
        can = _guest_can_livepatch(target, options)
        if options.way == "livepatch" and not can:
            raise InputError(
                f"the kernel of {target} was built without CONFIG_LIVEPATCH",
                hint="it can be patched with --way stopped",
            )
        return options.way if options.way != "auto" else "livepatch" if can else "stopped"
    if target not in {MACHINE, LIVE}:
        raise InputError(f"there is no target '{target}'", hint="a target is machine, guest:NAME or live")
    if options.way == "stopped":
        raise InputError(f"the target '{target}' cannot be stopped from outside", hint="leave --way out")
    if target == MACHINE and options.way == "livepatch":
        raise InputError("the emulated machine's kernel is not Linux and has no livepatch", hint="leave --way out")
    return "livepatch" if target == LIVE else "machine"


def open_backend(target: str, options: Options) -> Backend:
    """Open the way of patching that a target asks for.

    Args:
        target: "machine", "guest:NAME" or "live".
        options: what else the command line says.

    Raises:
        InputError: see `choose_way`.
        TargetError: the target cannot be used.
    """
    module = import_module(_MODULES[choose_way(target, options)])
    maker = cast("Callable[[str, Options], Backend]", module.open_backend)
    return maker(target, options)
