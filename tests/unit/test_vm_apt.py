"""Which mirror and which packages `surefoot vm fetch` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.errors import SurefootError, Unavailable
from surefoot.targets.vm import apt, folders, kernels
from surefoot.targets.vm import mirror as mirrors

ONE_LINE = """\
# deb http://commented.invalid/debian bookworm main
deb-src http://source.invalid/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://other.invalid/cloud cloud-sdk main
deb http://security.invalid/debian-security bookworm-security main
deb [signed-by=/d.gpg trusted=yes] http://first.invalid/debian/ bookworm main contrib # remark
deb http://second.invalid/debian sid main
"""

DEB822 = """\
# a remark
Types: deb deb-src
URIs: http://a.invalid/debian http://b.invalid/debian/
Suites: trixie trixie-updates
Components: main
# another
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://off.invalid/debian
Suites: sid
Components: main
Enabled: no
"""

SHOW = """\
Package: busybox-static
Version: 1:1.38.0-3
Size: 857920
Description: tiny
 utilities
 Size: not this one
SHA256: 00ff

Package: linux-x
Version: 7.3.4-1
Size: 12
SHA256: aa
"""

NAMES = [
    "linux-image-7.3.4+deb13-cloud-arm64-dbg",
    "linux-image-7.3.4+deb13-arm64-dbg",
    "linux-image-7.3.12+deb13-cloud-arm64-dbg",
    "linux-binary-7.3.12+deb13-cloud-arm64",
    "linux-image-7.3.12+deb13-cloud-arm64",
    "linux-modules-7.3.12+deb13-cloud-arm64",
    "linux-binary-7.3.4+deb13-cloud-arm64",
    "linux-modules-7.3.4+deb13-cloud-arm64",
    "linux-image-6.12.9+deb13-cloud-arm64-dbg",
    "linux-image-6.12.9+deb13-cloud-arm64",
    "linux-image-7.4~rc1-cloud-arm64-dbg",
    "linux-image-cloud-arm64-dbg",
    "linux-libc-dev",
]


def test_the_first_main_archive_of_debian_is_the_mirror() -> None:
    sources = list(mirrors.parse_one_line(ONE_LINE))
    assert [source.suites for source in sources] == [("cloud-sdk",), ("bookworm-security",), ("bookworm",), ("sid",)]
    assert mirrors.choose_mirror(sources) == mirrors.Mirror("http://first.invalid/debian", "/d.gpg", trusted=True)


def test_deb822_stanzas_give_one_source_for_each_address() -> None:
    sources = list(mirrors.parse_deb822(DEB822))
    assert [source.uri for source in sources] == ["http://a.invalid/debian", "http://b.invalid/debian"]
    assert sources[0].suites == ("trixie", "trixie-updates")
    assert "-----END PGP" in sources[0].signed_by
    assert not sources[0].trusted


def test_a_written_sources_file_reads_back_with_its_key() -> None:
    mirror = mirrors.choose_mirror(mirrors.parse_deb822(DEB822))
    again = list(mirrors.parse_deb822(mirror.deb822(["trixie-backports", "sid"], "arm64")))
    assert [source.suites for source in again] == [("trixie-backports",), ("sid",)]
    assert {(source.uri, source.signed_by) for source in again} == {(mirror.uri, mirror.signed_by)}


def test_both_kinds_of_files_are_read_in_apts_order(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://0.invalid/debian stable main\n")
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "b.list").write_text("deb http://2.invalid/debian stable main\n")
    (parts / "a.sources").write_text("Types: deb\nURIs: http://1.invalid/\nSuites: sid\nComponents: main\n")
    (parts / "c.save").write_text("deb http://3.invalid/debian stable main\n")
    found = mirrors.read_sources(tmp_path / "sources.list", parts)
    assert [source.uri for source in found] == [f"http://{i}.invalid" + "/debian" * (i != 1) for i in range(3)]


def test_a_system_without_debian_sources_is_told_what_to_do() -> None:
    with pytest.raises(Unavailable) as caught:
        mirrors.choose_mirror(mirrors.parse_one_line("deb http://x.invalid/ubuntu noble main"))
    assert "--mirror" in caught.value.hint


def test_apt_config_output_is_read() -> None:
    assert mirrors.parse_config_shell("LIST='/etc/apt/a b'\nPARTS='/p/'\n") == {
        "LIST": "/etc/apt/a b",
        "PARTS": "/p/",
    }


def test_an_index_listing_gives_versions_sizes_and_hashes() -> None:
    first, second = apt.parse_show(SHOW)
    assert first == apt.Package("busybox-static", "1:1.38.0-3", 857920, "00ff")
    assert (second.name, second.size_bytes) == ("linux-x", 12)
    with pytest.raises(SurefootError):
        apt.parse_show("Package: x\n")


@pytest.mark.parametrize(
    ("version", "release"),
    [
        ("7.3", "7.3.12+deb13-cloud-arm64"),
        ("7.3.4", "7.3.4+deb13-cloud-arm64"),
        ("7.3.12+deb13-cloud-arm64", "7.3.12+deb13-cloud-arm64"),
        ("6.12.9", "6.12.9+deb13-cloud-arm64"),
    ],
)
def test_a_version_means_the_newest_release_that_begins_with_it(version: str, release: str) -> None:
    assert apt.kernel_packages(NAMES, "cloud-arm64", version).release == release


def test_the_kernel_image_is_taken_from_whichever_package_has_it() -> None:
    split = apt.kernel_packages(NAMES, "cloud-arm64", "7.3")
    assert split.names == tuple(
        f"linux-{kind}-7.3.12+deb13-cloud-arm64{end}"
        for kind, end in (("image", "-dbg"), ("binary", ""), ("modules", ""))
    )
    assert apt.kernel_packages(NAMES, "cloud-arm64", "6.12.9").names[1:] == ("linux-image-6.12.9+deb13-cloud-arm64",)


def test_a_version_that_is_not_there_lists_what_is() -> None:
    with pytest.raises(Unavailable) as caught:
        apt.kernel_packages(NAMES, "cloud-arm64", "7.3.1")
    assert "7.3.4" in caught.value.hint
    with pytest.raises(Unavailable, match="no kernel image"):
        apt.kernel_packages(["linux-image-7.3.4-cloud-arm64-dbg"], "cloud-arm64")


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="qemu-system-aarch64") as caught:
        folders.check_tools(qemu_system_aarch64="qemu-system-arm")
    assert "qemu-system-arm" in caught.value.hint


def test_a_broken_off_download_leaves_nothing_behind(tmp_path: Path) -> None:
    final = tmp_path / "kernels" / "7.3"

    def fail() -> None:
        with folders.staging(final) as work:
            (work / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(final.parent.iterdir())
    with folders.staging(final) as work:
        (work / "whole").write_text("x")
    assert [path.name for path in final.iterdir()] == ["whole"]


def test_a_kernel_whose_files_are_gone_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match="no kernel"):
        kernels.find()
    names = {name: name for name in ("vmlinuz", "vmlinux", "modules", "debug_modules", "busybox")}
    for release in ("7.3.4+deb13-cloud-arm64", "7.3.12+deb13-cloud-arm64"):
        folder = tmp_path / "kernels" / release
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
        folders.write_json(folder / "manifest.json", {**names, "release": release, "build_id": "ab", "packages": {}})
    assert kernels.find().release == "7.3.12+deb13-cloud-arm64"
    assert kernels.find("7.3.4").folder.name == "7.3.4+deb13-cloud-arm64"
    (tmp_path / "kernels" / "7.3.12+deb13-cloud-arm64" / "vmlinux").unlink()
    assert [kernel.release for kernel in kernels.installed()] == ["7.3.4+deb13-cloud-arm64"]


def test_a_damaged_json_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(SurefootError, match="damaged"):
            folders.read_json(path)
