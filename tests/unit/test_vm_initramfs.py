"""The guest's root file system: archives that another reader understands, modules in an order that loads."""

from __future__ import annotations

import gzip
import lzma
import stat
import struct
from pathlib import Path

import pytest

from surefoot.errors import Inconsistent, InputError, Truncated, Unsupported
from surefoot.targets.vm.image import gather_modules, guest_scripts
from surefoot.targets.vm.initramfs import (
    Archive,
    index_modules,
    load_order,
    modinfo,
    module_name,
    read_module,
)


def entries(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Read a newc archive: name -> mode, data, device numbers."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        assert data[at + 110 + name_size - 1] == 0
        start = (at + 110 + name_size + 3) // 4 * 4
        at = (start + size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert not data[at:].strip(b"\0")
            return found
        assert name not in found
        found[name] = (mode, data[start : start + size], (fields[9], fields[10]))


def fake_module(info: bytes) -> bytes:
    """Make an ELF64 file whose only sections are .modinfo and the section names."""
    names = b"\0.modinfo\0.shstrtab\0"
    body_at = 64
    table = body_at + len(info) + len(names)
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 1, 183, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    )

    def section(name: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)

    sections = bytes(64) + section(1, 1, body_at, len(info)) + section(10, 3, body_at + len(info), len(names))
    return header + info + names + sections


def test_an_archive_holds_what_was_added_and_the_folders_on_the_way() -> None:
    archive = Archive()
    archive.add_file("a/b/c", b"12345", 0o755)
    archive.add_link("init", "/a/b/c")
    archive.add_device("dev/console", 5, 1)
    found = entries(archive.to_bytes())
    assert list(found) == ["a", "a/b", "a/b/c", "init", "dev", "dev/console"]
    assert found["a/b/c"] == (stat.S_IFREG | 0o755, b"12345", (0, 0))
    assert found["a"][0] == stat.S_IFDIR | 0o755
    assert found["init"] == (stat.S_IFLNK | 0o777, b"/a/b/c", (0, 0))
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))


def test_the_same_entries_give_the_same_bytes() -> None:
    def build() -> bytes:
        archive = Archive()
        archive.add_file("x", b"y" * 1000)
        return archive.to_gzip()

    assert build() == build()
    assert len(gzip.decompress(build())) % 512 == 0


@pytest.mark.parametrize("name", ["", "/etc", "a/", "x", "TRAILER!!!"])
def test_a_name_that_is_taken_or_no_name_is_refused(name: str) -> None:
    archive = Archive()
    archive.add_file("x", b"")
    with pytest.raises(InputError):
        archive.add_file(name, b"")


def test_module_names_are_the_kernels() -> None:
    assert module_name("kernel/drivers/snd-hda.ko.xz") == "snd_hda"
    assert module_name(Path("loop.ko")) == "loop"


@pytest.mark.parametrize("suffix", [".ko", ".ko.xz", ".ko.gz"])
def test_modules_are_found_and_decompressed(tmp_path: Path, suffix: str) -> None:
    raw = fake_module(b"license=GPL\0depends=b,c\0")
    packed = {".ko": raw, ".ko.xz": lzma.compress(raw), ".ko.gz": gzip.compress(raw)}[suffix]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / f"a-b{suffix}").write_bytes(packed)
    assert read_module(index_modules(tmp_path)["a_b"]) == raw


def test_modinfo_gives_every_value() -> None:
    raw = fake_module(b"alias=x\0alias=y\0depends=b,c\0name=a\0")
    assert modinfo(raw) == {"alias": ["x", "y"], "depends": ["b,c"], "name": ["a"]}


def test_damaged_modules_are_refused(tmp_path: Path) -> None:
    raw = fake_module(b"name=a\0")
    with pytest.raises(Truncated):
        modinfo(raw[:100])
    with pytest.raises(Unsupported):
        modinfo(b"\x7fELF\x01\x01" + raw[6:])
    for content in (b"no xz", lzma.compress(b"no ELF")):
        (tmp_path / "a.ko.xz").write_bytes(content)
        with pytest.raises(InputError):
            read_module(tmp_path / "a.ko.xz")


def test_every_cut_of_a_module_is_read_or_refused() -> None:
    raw = fake_module(b"name=a\0")
    for end in range(len(raw)):
        try:
            modinfo(raw[:end])
        except InputError:
            continue


def test_modules_load_after_what_they_depend_on() -> None:
    depends = {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": [], "e": ["a"]}
    assert load_order(["e", "b"], depends) == ["d", "b", "c", "a", "e"]
    with pytest.raises(Inconsistent, match="circle"):
        load_order(["x"], {"x": ["y"], "y": ["x"]})
    with pytest.raises(InputError, match="no kernel module 'z'"):
        load_order(["z"], depends)


def test_gathered_modules_bring_their_dependencies_and_leave_out_unknown_ones(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(fake_module(b"depends=b-c\0"))
    (tmp_path / "b-c.ko").write_bytes(fake_module(b"depends=\0"))
    assert list(gather_modules(tmp_path, ["a", "not_there"])) == ["b_c", "a"]
    (tmp_path / "b-c.ko").unlink()
    with pytest.raises(InputError, match="b_c"):
        gather_modules(tmp_path, ["a"])


def test_the_scripts_of_the_guest_are_installed() -> None:
    scripts = guest_scripts()
    assert {"init.sh", "agent.sh", "load.sh", "stacks.sh", "trace.sh", "walkers.sh"} <= set(scripts)
    assert all(text.startswith(b"#!/bin/busybox sh\n") for text in scripts.values())
