"""The parts of `surefoot vm build` that need no compiler: configuration, names, keys, commands, logs, roots."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from surefoot.cli.vm import vm
from surefoot.errors import InputError, SurefootError, Unavailable
from surefoot.targets.vm import build, kconfig, kernels, recipe, sid
from surefoot.targets.vm.apt import Package, parse_simulation
from surefoot.targets.vm.folders import write_json

TOOLCHAIN = {"gcc-16-aarch64-linux-gnu": "16.2.0-3cross1", "binutils-aarch64-linux-gnu": "2.47"}

SIMULATION = """\
NOTE: This is only a simulation!
Inst gcc-16-base (16.2.0-4 Debian:unstable [amd64])
Inst libc6 (2.43-7 Debian:unstable [amd64]) []
Inst libold:amd64 [1-1] (1:1.2+b1 Debian:unstable [all])
Conf gcc-16-base (16.2.0-4 Debian:unstable [amd64])
"""

LOG = """\
$ make -j2
  CC      kernel/fork.o
/tmp/cc1.s: Warning: no SFrame FDE emitted; FP without RA on stack
/tmp/cc2.s: Warning: no SFrame FDE emitted; FP without RA on stack
/tmp/cc3.s: Warning: no SFrame FDE emitted; non-SP/FP register 9 in .cfi_def_cfa
  CC [M]  samples/livepatch/livepatch-sample.o
make[3]: *** Waiting for unfinished jobs....
fs/open.c:7:1: error: expected ';'
make: *** [Makefile:1: all] Error 2
"""


def test_a_fragment_gives_its_options_and_nothing_else() -> None:
    text = '# words\n\nCONFIG_A=y\n# CONFIG_B is not set\n CONFIG_N=-8\nCONFIG_S="a \\" b"\nCONFIG_A=m\n'
    assert kconfig.parse(text) == {"A": "m", "B": "n", "N": "-8", "S": '"a \\" b"'}


@pytest.mark.parametrize("line", ["CONFIG_A", "CONFIG_A=yes", "A=y", 'CONFIG_A="x', "CONFIG_A=y # why"])
def test_a_line_that_is_no_option_is_named(line: str) -> None:
    with pytest.raises(InputError, match="line 2"):
        kconfig.parse(f"# first\n{line}\n", "f")


_OPTIONS = st.dictionaries(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,9}", fullmatch=True), st.sampled_from(["y", "m", "n", "7", "0x1f", '"a"'])
)


@given(_OPTIONS, _OPTIONS)
def test_a_merged_configuration_reads_back_and_the_last_fragment_counts(
    first: dict[str, str], second: dict[str, str]
) -> None:
    merged = kconfig.merge([first, second])
    assert kconfig.parse(kconfig.config_text(merged)) == merged == {**first, **second}
    assert list(merged) == sorted(merged)
    assert not kconfig.refused(merged, merged)


def test_options_that_the_kernel_changed_are_told_and_absent_ones_count_as_not_set() -> None:
    got = {"A": "y", "B": "m"}
    assert kconfig.refused({"A": "y", "B": "y", "C": "y", "D": "n"}, got) == {"B": "m", "C": "n"}


def test_our_own_configuration_asks_for_what_the_tests_of_others_need() -> None:
    options = kconfig.parse(kconfig.base_fragment())
    needed = "LIVEPATCH FUNCTION_GRAPH_TRACER DYNAMIC_FTRACE KPROBES ARM64_PTR_AUTH_KERNEL PREEMPT DEBUG_INFO_DWARF5"
    assert {options[name] for name in needed.split()} == {"y"}
    assert options["SAMPLE_LIVEPATCH"] == "m"
    assert "SHADOW_CALL_STACK" not in options
    lines = [line for line in kconfig.base_fragment().splitlines() if "CONFIG_" in line]
    assert len(lines) == len(options), "an option is named twice"


def test_the_release_says_which_variant_it_is() -> None:
    assert recipe.Recipe().label == "surefoot-scs"
    assert recipe.Recipe(scs=False, sframe=True).label == "surefoot-noscs-sframe"
    other = recipe.Recipe(extra=("CONFIG_NET=n\n",)).label
    assert other.startswith("surefoot-scs-")
    assert other != recipe.Recipe(extra=("CONFIG_NET=m\n",)).label
    assert recipe.Recipe(extra=("CONFIG_SHADOW_CALL_STACK=n\n",)).options["SHADOW_CALL_STACK"] == "y"


def test_the_key_changes_with_everything_that_decides_the_result() -> None:
    keys = {
        recipe.Recipe().key("7.3.4-1", TOOLCHAIN),
        recipe.Recipe().key("7.3.5-1", TOOLCHAIN),
        recipe.Recipe().key("7.3.4-1", {**TOOLCHAIN, "binutils-aarch64-linux-gnu": "2.48"}),
        recipe.Recipe(scs=False).key("7.3.4-1", TOOLCHAIN),
        recipe.Recipe(sframe=True).key("7.3.4-1", TOOLCHAIN),
        recipe.Recipe(extra=("CONFIG_NET=n",)).key("7.3.4-1", TOOLCHAIN),
    }
    assert len(keys) == 6
    backwards = dict(reversed(TOOLCHAIN.items()))
    assert recipe.Recipe().key("7.3.4-1", backwards) == recipe.Recipe().key("7.3.4-1", TOOLCHAIN)


def test_make_is_told_of_sframe_only_when_asked() -> None:
    plain = recipe.Recipe(scs=False).make(3, "Image")
    words = ["make", "-j3", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-", "LOCALVERSION=-surefoot-noscs", "Image"]
    assert plain == words
    assert "KAFLAGS=-Wa,--gsframe" in recipe.Recipe(sframe=True).make(3, "Image")


def _source(series: str, version: str) -> Package:
    return Package(f"linux-source-{series}", version, 1, "")


def test_the_newest_source_of_the_wanted_version_is_taken() -> None:
    offer = [
        _source("7.3", "7.3.4-1~bpo13+1"),
        _source("7.3", "7.3.12-1"),
        _source("7.4", "7.4-1"),
        Package("linux-source", "7.4-1", 1, ""),
    ]
    assert recipe.choose_source(offer).version == "7.3.12-1"
    assert recipe.choose_source(offer, "7.3.4").version == "7.3.4-1~bpo13+1"
    assert recipe.choose_source(offer[2:]).version == "7.4-1"
    with pytest.raises(Unavailable) as caught:
        recipe.choose_source(offer, "7.3.1")
    assert "7.3.12" in caught.value.hint
    with pytest.raises(Unavailable):
        recipe.choose_source([])


@pytest.mark.parametrize(
    ("version", "upstream"), [("7.3.4-1~bpo13+1", "7.3.4"), ("1:1.38.0-3+b1", "1.38.0"), ("7.4~rc3-1", "7.4~rc3")]
)
def test_the_upstream_version_is_what_stands_between_epoch_and_revision(version: str, upstream: str) -> None:
    assert recipe.upstream_version(version) == upstream


def test_a_log_tells_what_the_assembler_left_out_and_what_went_wrong() -> None:
    assert recipe.dropped_functions(LOG) == {
        "FP without RA on stack": 2,
        "non-SP/FP register 9 in .cfi_def_cfa": 1,
    }
    assert recipe.first_error(LOG) == "fs/open.c:7:1: error: expected ';'"
    assert recipe.first_error("a\nb\n\n") == "b"
    assert recipe.first_error("") == "no message"
    steps = [recipe.progress(line) for line in LOG.splitlines()]
    assert [step for step in steps if step] == ["CC kernel/fork.o", "CC samples/livepatch/livepatch-sample.o"]


def test_a_simulation_gives_names_without_architecture() -> None:
    assert parse_simulation(SIMULATION) == [
        ("gcc-16-base", "16.2.0-4"),
        ("libc6", "2.43-7"),
        ("libold", "1:1.2+b1"),
    ]


def test_only_compiler_and_assembler_count_as_toolchain() -> None:
    versions = {"libc6": "1", "cpp-aarch64-linux-gnu": "2", **TOOLCHAIN}
    assert recipe.toolchain_versions({name: {"version": value} for name, value in versions.items()}) == TOOLCHAIN


def test_root_enters_by_chroot_and_others_by_namespaces_of_their_own() -> None:
    for_root = sid.entrances(Path("/r"), is_root=True)
    for_others = sid.entrances(Path("/r"), is_root=False)
    assert for_root["chroot"] == ["chroot", "/r"]
    assert "chroot" not in for_others
    assert "--user" in for_others["user namespace"]
    assert "--user" not in for_root["mount namespace"]


def _root(folder: Path) -> sid.Root:
    for name in ("usr/bin/as", "usr/lib64/ld-linux-x86-64.so.2"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return sid.Root(folder, {"binutils": {"version": "2.47", "sha256": ""}})


def test_a_tool_runs_by_the_roots_own_loader(tmp_path: Path) -> None:
    root = _root(tmp_path)
    assert root.version("binutils") == "2.47"
    loader, option, libraries, program = root.tool("as")
    assert (option, program) == ("--library-path", str(tmp_path / "usr/bin/as"))
    assert loader.startswith(str(tmp_path))
    assert libraries == str(tmp_path / "usr/lib/x86_64-linux-gnu")
    for missing in (lambda: root.tool("ld"), lambda: root.version("gcc")):
        with pytest.raises(Unavailable):
            missing()


def test_a_user_who_cannot_enter_is_told_what_would_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sid, "entrances", lambda _folder, **_: {"one": ["false"], "two": ["/nonexistent/x"]})
    with pytest.raises(Unavailable, match=r"one: .*; two: No such file") as caught:
        _root(tmp_path / "r").inside(["true"])
    assert "bubblewrap" in caught.value.hint


def test_a_command_inside_gets_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sid, "entrances", lambda folder, **_: {"here": ["env", f"ROOT={folder}"]})
    monkeypatch.setenv("SECRET", "1")
    words = _root(tmp_path / "r2").inside(["sh", "-c", "env; pwd"], cwd="/", env={"A": "b c"})
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "A=b c" in said
    assert said[-1] == "/"
    assert not [line for line in said if line.startswith("SECRET")]


def test_a_root_that_holds_the_packages_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    monkeypatch.setattr(sid, "PrivateApt", None)
    with pytest.raises(Unavailable):
        sid.open_root("mine")
    with pytest.raises(SurefootError, match="cannot name"):
        sid.open_root("../x")
    (tmp_path / "roots/mine").mkdir(parents=True)
    write_json(tmp_path / "roots/mine/root.json", {"packages": {"make": {"version": "4.4", "sha256": ""}}})
    with sid.using("mine"):
        assert sid.prepare("mine", ["make"]).version("make") == "4.4"
    write_json(tmp_path / "roots/mine/root.json", {"packages": 7})
    with pytest.raises(SurefootError, match="damaged"):
        sid.open_root("mine")


def test_an_interrupted_command_takes_its_children_with_it(tmp_path: Path) -> None:
    """The child would write a file later; nothing of the group is left to do so."""

    def heard(line: str) -> None:
        raise KeyboardInterrupt(line)

    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $$ $! > {pids}; echo ready; wait"
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="ready"):
        build._run_logged(["sh", "-c", script], heard)
    assert time.monotonic() - begin < 5
    deadline = time.monotonic() + 5
    alive = [int(pid) for pid in pids.read_text().split()]
    while alive and time.monotonic() < deadline:
        alive = [pid for pid in alive if _is_alive(pid)]
    assert not alive


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_status_of_a_command_is_given_and_its_lines_are_handed_on() -> None:
    lines: list[str] = []
    status = build._run_logged([sys.executable, "-c", "print('a\\nb'); raise SystemExit(3)"], lines.append)
    assert (status, lines) == (3, ["a\n", "b\n"])


class _Archive:
    """Stands for a build: an `inside` that runs scripts in place of make."""

    def __init__(self, tmp_path: Path, script: str) -> None:
        self.root = _root(tmp_path / "root")
        self.script = script
        source = tmp_path / "source.tar.xz"
        source.touch()
        self.source = build.Source("linux-source-7.3", "7.3.4-1", source, source, {})

    def session(self, monkeypatch: pytest.MonkeyPatch) -> build._Session:
        folder = self.root.folder / "build/linux"
        script = self.script
        monkeypatch.setattr(
            sid.Root,
            "inside",
            lambda _self, command, **_: ["env", "-C", str(folder), "sh", "-c", script, "sh", *command],
        )
        return build._Session(self.root, recipe.Recipe(), self.source, 1, "7.3.4-test", lambda _step: None)


def test_a_failed_build_names_the_first_complaint_and_keeps_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "cache"))
    script = 'case $1 in make) echo "x.c:1: error: no"; exit 2;; esac'
    session = _Archive(tmp_path, script).session(monkeypatch)
    with pytest.raises(SurefootError, match=r"x\.c:1: error: no") as caught:
        session.make_all()
    log = tmp_path / "cache/logs/build-7.3.4-test.log"
    assert str(log) in caught.value.hint
    assert "$ tar -xJf" in log.read_text()
    session.clean()
    assert not (tmp_path / "root/build").exists()


def test_a_full_disk_is_noticed_before_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_NEEDED_BYTES", 1 << 60)
    with pytest.raises(SurefootError, match="GiB left"):
        _Archive(tmp_path, "true").session(monkeypatch).make_all()


def _installed(cache: Path, name: str, release: str, **more: object) -> kernels.Kernel:
    folder = cache / "kernels" / name
    folder.mkdir(parents=True)
    names = {name: name for name in ("vmlinuz", "vmlinux", "modules", "debug_modules", "busybox")}
    for path in names:
        (folder / path).touch()
    value = {**names, "release": release, "build_id": hashlib.sha1(name.encode()).hexdigest(), "packages": {}, **more}  # noqa: S324
    write_json(folder / "manifest.json", value)
    return kernels.open_kernel(folder)


BUILD = {"key": "k", "seconds": 60.0, "sframe_dropped": {"why": 3}, "refused": {"CALL": "n"}}


def test_a_fetched_kernel_goes_before_a_built_one_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    built = _installed(tmp_path, "7.9.1-surefoot-scs", "7.9.1-surefoot-scs", build=BUILD)
    assert kernels.find() == built
    fetched = _installed(tmp_path, "7.3.4+deb13-arm64", "7.3.4+deb13-arm64")
    assert kernels.find() == fetched
    assert kernels.find("7.9") == kernels.find(name=built.name) == built
    assert built.to_json()["name"] == built.name
    for version, name in (("7.3.4", built.name), ("", "7.9.1"), ("7.3.1", "")):
        with pytest.raises(Unavailable) as caught:
            kernels.find(version, name)
        assert built.name in caught.value.hint


def test_the_command_hands_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = _installed(tmp_path, "7.3.4-surefoot-noscs", "7.3.4-surefoot-noscs", build=BUILD)
    asked: list[tuple[recipe.Recipe, dict[str, object]]] = []

    def fake(wanted: recipe.Recipe, **options: object) -> build.Built:
        asked.append((wanted, options))
        return build.Built(kernel, new=True)

    monkeypatch.setattr(build, "build", fake)
    fragment = tmp_path / "fragment"
    fragment.write_text("CONFIG_NET=n\n")
    result = CliRunner().invoke(vm, ["build", "--no-scs", "--sframe", "--config", str(fragment), "-j", "3"])
    assert result.exit_code == 0
    assert "built in 1.0 min" in result.stdout
    assert "none for 3 functions: why" in result.stdout
    assert "CONFIG_CALL came out as n" in result.stderr
    assert asked[0][0] == recipe.Recipe(scs=False, sframe=True, extra=("CONFIG_NET=n\n",))
    assert asked[0][1]["jobs"] == 3
    answer = json.loads(CliRunner().invoke(vm, ["build", "--json"]).stdout)
    assert (answer["schema"], answer["new"], answer["name"]) == ("surefoot.vm-build/1", True, kernel.name)
    assert asked[1][0] == recipe.Recipe()


def test_a_kernel_in_the_cache_is_given_while_another_is_being_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the archive nor the root's lock is touched; another key is another kernel."""
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    monkeypatch.setattr(sid, "using", None)
    source, root = tmp_path / "sources/s", tmp_path / "roots" / build.ROOT
    for folder in (source, root):
        folder.mkdir(parents=True)
    (source / "source.tar.xz").touch()
    (source / "busybox").touch()
    write_json(source / "manifest.json", {"package": "linux-source-7.3", "version": "7.3.4-1", "packages": {}})
    write_json(root / "root.json", {"packages": {name: {"version": TOOLCHAIN[name]} for name in TOOLCHAIN}})
    key = recipe.Recipe().key("7.3.4-1", TOOLCHAIN)
    kernel = _installed(tmp_path, "7.3.4-surefoot-scs", "7.3.4-surefoot-scs", build={**BUILD, "key": key})
    assert (
        build.build(recipe.Recipe()) == build.build(recipe.Recipe(), version="7.3") == build.Built(kernel, new=False)
    )
    for other, version in ((recipe.Recipe(scs=False), ""), (recipe.Recipe(), "7.4")):
        assert build._in_cache(other, version) is None


def test_a_source_in_the_cache_is_used_without_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "PrivateApt", None)
    for series, version in (("7.3", "7.3.4-1"), ("7.3", "7.3.12-1"), ("7.4", "7.4-1")):
        folder = tmp_path / f"sources/linux-source-{series}_{version}"
        folder.mkdir(parents=True)
        for name in ("source.tar.xz", "busybox"):
            (folder / name).touch()
        manifest = {"package": f"linux-source-{series}", "version": version, "packages": {}}
        write_json(folder / "manifest.json", manifest)
    assert build.fetch_source().version == "7.3.12-1"
    assert build.fetch_source("7.4").version == "7.4-1"
    for version in ("7.3.12-1", "7.3.4-1"):
        (tmp_path / f"sources/linux-source-7.3_{version}/busybox").unlink()
    assert build.fetch_source().version == "7.4-1"


def test_a_group_is_asked_to_end_before_it_is_made_to() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True, text=True) as process:
        build._end_group(process)
        assert process.returncode == -signal.SIGTERM
