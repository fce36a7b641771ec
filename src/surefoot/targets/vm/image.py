"""Layer 7: the guest's root file system, put together from a kernel's modules and our own scripts."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

from surefoot.errors import InputError
from surefoot.targets.vm.folders import os_errors
from surefoot.targets.vm.initramfs import Archive, index_modules, load_order, modinfo, read_module
from surefoot.targets.vm.kernels import Kernel

__all__ = ["GUEST_MODULES", "LIVEPATCH_MODULES", "build_initrd", "gather_modules", "guest_scripts"]

GUEST_MODULES = ("qemu_fw_cfg", "mousedev", "pktgen", "zram")
"""Loaded in every guest: qemu_fw_cfg hands VMCOREINFO to QEMU; mousedev (a blocked reader), pktgen (kernel
threads) and zram (busy) put code of modules on stacks."""

LIVEPATCH_MODULES = ("livepatch_*", "test_klp_*")
"""The kernel's own samples and test modules of live patches: they lie in the guest's /livepatch, not loaded."""


def guest_scripts() -> dict[str, bytes]:
    """Give the scripts that run in the guest, by file name."""
    folder = resources.files("surefoot.targets.vm") / "guest"
    return {
        entry.name: entry.read_bytes()
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sh")
    }


def gather_modules(root: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """Give modules and all they depend on, decompressed, in an order in which they can be loaded.

    Args:
        root: folder with the kernel's modules.
        wanted: module names; those that are built in or that this kernel lacks are left out.

    Raises:
        InputError: a module cannot be read, or depends on one that is not there.
    """
    paths = index_modules(root)
    wanted = [name for name in wanted if name in paths]
    loaded: dict[str, bytes] = {}
    depends: dict[str, list[str]] = {}
    pending = list(wanted)
    while pending:
        name = pending.pop()
        if name in depends:
            continue
        if name not in paths:
            raise InputError(f"a module depends on '{name}', which is not there", file=str(root))
        loaded[name] = read_module(paths[name])
        needs = ",".join(modinfo(loaded[name]).get("depends", [])).split(",")
        depends[name] = [need.replace("-", "_") for need in needs if need]
        pending += depends[name]
    return {name: loaded[name] for name in load_order(wanted, depends)}


def build_initrd(kernel: Kernel, modules: Iterable[str] = GUEST_MODULES) -> bytes:
    """Give the guest's root file system as a gzipped cpio archive.

    Raises:
        InputError, TargetError: a file of the kernel cannot be read.
    """
    archive = Archive()
    with os_errors("read busybox"):
        archive.add_file("bin/busybox", kernel.busybox.read_bytes(), 0o755)
    archive.add_device("dev/console", 5, 1)
    gathered = gather_modules(kernel.modules, modules)
    for name, data in gathered.items():
        archive.add_file(f"modules/{name}.ko", data)
    archive.add_file("modules/order", "".join(f"{name}\n" for name in gathered).encode())
    for name, path in index_modules(kernel.modules).items():
        if any(fnmatch(name, pattern) for pattern in LIVEPATCH_MODULES):
            archive.add_file(f"livepatch/{path.name.partition('.ko')[0]}.ko", read_module(path))
    for name, data in guest_scripts().items():
        archive.add_file(f"surefoot/{name}", data, 0o755)
    archive.add_link("init", "/surefoot/init.sh")
    return archive.to_gzip()
