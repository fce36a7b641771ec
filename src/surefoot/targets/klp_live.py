"""Layer 7: the kernel of the machine that this runs on, as a target: /proc/kcore through drgn.

What is read is of no single instant; see `klp_look.LiveLooker`. The registers of running tasks are not at hand.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.errors import Denied, Unavailable, Unsupported
from surefoot.targets.cache import TableCache
from surefoot.targets.kerneltables import load_kernel_tables
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.vmcore import layout_from_debug_info, open_kernel, require_same_build
from surefoot.targets.vmcoreinfo import parse_vmcoreinfo

if TYPE_CHECKING:
    from surefoot.targets.klp import KlpPort

__all__ = ["find_vmlinux", "open_live"]

_PLACES = (
    "/usr/lib/debug/boot/vmlinux-{release}",
    "/usr/lib/debug/lib/modules/{release}/vmlinux",
    "/boot/vmlinux-{release}",
    "/lib/modules/{release}/build/vmlinux",
)


def find_vmlinux(port: KlpPort) -> Path | None:
    """Find the image of the running kernel where debug packages put it.

    Args:
        port: to the machine.

    Returns:
        the first that exists, None for none.
    """
    release = (port.read_text("/proc/sys/kernel/osrelease") or "").strip()
    for place in _PLACES:
        path = Path(place.format(release=release))
        if release and path.name in port.list_dir(str(path.parent)):
            return path
    return None


def open_live(vmlinux: Path | None, modules: Sequence[Path] = ()) -> LinuxTarget:
    """Open the kernel of this machine.

    Args:
        vmlinux: its image, with debug information.
        modules: folders with files of its modules.

    Raises:
        Unsupported: this is not an arm64 machine.
        Unavailable: there is no image, or the kernel gives no access to its memory.
        Denied: this user may not read the kernel's memory.
        Inconsistent: the image is not that of the running kernel.
    """
    if platform.machine() != "aarch64":
        raise Unsupported(f"this machine is {platform.machine()}, not arm64", hint="name a guest: guest:NAME")
    if vmlinux is None:
        raise Unavailable("there is no image of the running kernel", hint="name it with --vmlinux")
    from drgn import Program

    prog = Program()
    try:
        prog.set_kernel()
    except PermissionError as error:
        raise Denied(f"the kernel's memory may not be read: {error}", hint="run as root") from error
    except OSError as error:
        raise Unavailable(f"the kernel's memory cannot be read: {error}") from error
    text = prog["VMCOREINFO"].string_().decode("ascii", "replace")
    info = parse_vmcoreinfo(text)
    image = open_kernel(vmlinux)
    require_same_build("the running kernel", info, image)
    cache = TableCache()
    tables = load_kernel_tables(image, cache, layout_from_debug_info(vmlinux))
    return LinuxTarget(
        prog, "live", info, tables, lambda: (), vmlinux=vmlinux, modules_dir=tuple(modules), cache=cache
    )
