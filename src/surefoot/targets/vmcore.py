"""Layer 7: opening a memory dump together with the image of its kernel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from surefoot.errors import Inconsistent, InputError, Unavailable, Unsupported
from surefoot.image.binary import Image, ImageKind
from surefoot.image.files import open_image
from surefoot.targets.cache import TableCache
from surefoot.targets.dumpfile import Dump, read_dump
from surefoot.targets.kerneltables import load_kernel_tables
from surefoot.targets.layouts import KernelLayout, derive_layout
from surefoot.targets.linux import LinuxTarget
from surefoot.targets.vmcoreinfo import VmcoreInfo, parse_vmcoreinfo

if TYPE_CHECKING:
    from drgn import Program

__all__ = ["layout_from_debug_info", "open_kernel", "open_vmcore", "require_same_build"]


def open_vmcore(
    vmcore: Path | str,
    vmlinux: Path | str,
    modules_dir: Path | str | None = None,
    *,
    cache: TableCache | None = None,
) -> LinuxTarget:
    """Open a memory dump of an arm64 Linux kernel.

    Args:
        vmcore: ELF core (QEMU's dump-guest-memory, /proc/vmcore) or kdump file.
        vmlinux: the kernel image with debug symbols, of the same build.
        modules_dir: folder with the module files of the same build, with debug symbols.
        cache: where decoded tables are kept; None keeps nothing.

    Raises:
        Unavailable, Denied: a file is not there or may not be read.
        Truncated, Unsupported: a file is not what it has to be.
        Inconsistent: the dump is of another kernel than the image.
    """
    dump = read_dump(Path(vmcore))
    image = open_kernel(Path(vmlinux))
    info = _vmcoreinfo(dump)
    require_same_build(str(dump.path), info, image)
    folder = None if modules_dir is None else Path(modules_dir)
    if folder is not None and not folder.is_dir():
        raise Unavailable(f"{folder}: no such folder of modules")
    prog = _open_program(dump)
    tables = load_kernel_tables(image, cache, layout_from_debug_info(Path(vmlinux)))
    return LinuxTarget(
        prog,
        dump.path.name,
        info,
        tables,
        lambda: dump.registers,
        vmlinux=Path(vmlinux),
        modules_dir=folder,
        cache=cache,
    )


def open_kernel(vmlinux: Path) -> Image:
    """Open a kernel image.

    Raises:
        InputError: not a linked arm64 kernel.
    """
    image = open_image(vmlinux)
    if image.kind != ImageKind.KERNEL:
        raise Unsupported("a module or object file, not a kernel image", file=str(vmlinux))
    return image


def _vmcoreinfo(dump: Dump) -> VmcoreInfo:
    """Give the dump's VMCOREINFO.

    Raises:
        Unsupported: it has none.
    """
    if not dump.vmcoreinfo:
        raise Unsupported(
            "holds no VMCOREINFO, so that its kernel cannot be identified",
            file=str(dump.path),
            hint="start QEMU with -device vmcoreinfo and load qemu_fw_cfg in the guest before dumping",
        )
    try:
        return parse_vmcoreinfo(dump.vmcoreinfo)
    except InputError as error:
        raise error.at(file=str(dump.path)) from error


def require_same_build(name: str, info: VmcoreInfo, image: Image) -> None:
    """Verify that a target runs the very build that an image is of.

    Raises:
        Inconsistent: it does not, or one of the two does not say.
    """
    hint = f"give the vmlinux of the debug package of {info.release}"
    if not info.build_id or not image.build_id:
        where = name if not info.build_id else image.path
        raise Inconsistent("states no build-id, so that dump and image cannot be matched", file=where, hint=hint)
    if info.build_id != image.build_id:
        raise Inconsistent(
            f"is not the kernel of {name}: build-id {image.build_id}, the dump's is {info.build_id}",
            file=image.path,
            hint=hint,
        )


def _open_program(dump: Dump) -> Program:
    """Open the dump's memory with drgn.

    Raises:
        Unsupported: drgn cannot read it.
    """
    from drgn import Architecture, Program

    # VMCOREINFO that lay in memory only has to be handed over before the dump is opened.
    prog = Program(vmcoreinfo=dump.vmcoreinfo) if dump.in_memory else Program()
    try:
        prog.set_core_dump(str(dump.path))
    except Exception as error:
        # drgn reports what libkdumpfile says as a bare Exception.
        raise Unsupported(f"drgn cannot open it: {error}", file=str(dump.path)) from error
    if prog.platform is None or prog.platform.arch != Architecture.AARCH64:
        raise Unsupported("not a dump of an arm64 machine", file=str(dump.path))
    return prog


def layout_from_debug_info(vmlinux: Path) -> Callable[[Callable[[str], int | None]], KernelLayout]:
    """Give a function that works out the layout of a kernel image from its debug information.

    It uses a program of its own, without a target: indexing the image alone is faster than for a target.
    """

    def derive(symbol: Callable[[str], int | None]) -> KernelLayout:
        from drgn import Architecture, Platform, PlatformFlags, Program

        flags = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
        prog = Program(Platform(Architecture.AARCH64, flags))
        module = prog.extra_module("vmlinux", 0, create=True)
        try:
            module.try_file(str(vmlinux), force=True)
            return derive_layout(prog, symbol)
        except InputError as error:
            raise error.at(file=str(vmlinux)) from error
        except Exception as error:
            # Damaged DWARF: drgn raises whatever its decoder met.
            raise Unsupported(f"its debug information cannot be read: {error}", file=str(vmlinux)) from error

    return derive
