"""What Linux tells of its live patches: parsing, the local port on a tree of files, modules' own descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.errors import TargetError
from surefoot.targets.klp import LIVEPATCH, parse_survey, split_source
from surefoot.targets.klp_ports import LocalPort, module_name

TEXT = """\
./fix
./fix/vmlinux
./fix/vmlinux/cmdline_proc_show,1
./fix/enabled:1
./fix/transition:1
./fix/replace:0
./fix/vmlinux/patched:1
./old
./old/enabled:0
1/task/1/patch_state:1
7/task/7/patch_state:0
7/task/8/patch_state:-1
1/task/1/comm:init
7/task/7/comm:a:b c
9/task/9/comm:gone
"""


def test_a_look_is_parsed() -> None:
    survey = parse_survey(TEXT)
    assert survey.transition == "fix"
    fix = survey.patches["fix"]
    assert (fix.enabled, fix.transition, fix.replace) == (True, True, False)
    [part] = fix.objects
    assert (part.name, part.patched, part.functions) == ("vmlinux", True, (("cmdline_proc_show", 1),))
    assert survey.patches["old"].transition is None
    over, left = survey.states(1)
    assert [thread.pid for thread in over] == [1]
    assert [(thread.pid, thread.comm) for thread in left] == [(7, "a:b c")]
    assert survey.threads[8].tgid == 7
    assert survey.threads[9].patch_state is None


@given(st.text(alphabet="./:,-0123456789abtask_stepch\n", max_size=300) | st.text(max_size=100))
def test_garbage_is_passed_over(text: str) -> None:
    """Whatever comes between, what is well-formed is found all the same."""
    survey = parse_survey(f"{text}\n./zz\n./zz/enabled:1\n7654321/task/7654321/patch_state:1\n")
    assert survey.patches["zz"].enabled is not None
    assert survey.threads[7654321].patch_state == 1


def test_numbers_that_are_none_are_none() -> None:
    survey = parse_survey("./x/enabled:yes\n5/task/5/patch_state:99999999999999\n")
    assert survey.patches["x"].enabled is None
    assert survey.threads[5].patch_state is None
    assert survey.states(1) == ([], [])


def tree(root: Path) -> None:
    patch = root / LIVEPATCH.lstrip("/") / "fix"
    (patch / "vmlinux" / "cmdline_proc_show,1").mkdir(parents=True)
    for name, value in (("enabled", "1"), ("transition", "0"), ("replace", "0"), ("vmlinux/patched", "1")):
        (patch / name).write_text(value + "\n")
    # Whoever reads it may wait for ever; here it would spoil the answer.
    (patch / "stack_order").write_text("./bad/enabled:1\n")
    task = root / "proc" / "12" / "task" / "13"
    task.mkdir(parents=True)
    (task / "patch_state").write_text("-1\n")
    (task / "comm").write_text("worker\n")
    (root / "proc" / "cpuinfo").write_text("")


def test_the_local_port_reads_and_writes(tmp_path: Path) -> None:
    tree(tmp_path)
    port = LocalPort(tmp_path)
    survey = parse_survey(port.survey_text())
    assert list(survey.patches) == ["fix"]
    assert survey.patches["fix"].objects[0].functions == (("cmdline_proc_show", 1),)
    assert (survey.threads[13].comm, survey.threads[13].patch_state) == ("worker", -1)
    port.write_text(f"{LIVEPATCH}/fix/enabled", "0")
    assert parse_survey(port.survey_text()).patches["fix"].enabled is False
    assert port.read_text(f"{LIVEPATCH}/fix/nothing") is None
    assert port.list_dir("/nowhere") == []
    with pytest.raises(TargetError, match="did not write"):
        port.write_text(f"{LIVEPATCH}/gone/enabled", "0")
    assert not (tmp_path / LIVEPATCH.lstrip("/") / "gone").exists()


def test_the_local_port_runs_the_usual_programs() -> None:
    ran: list[list[str]] = []

    def run(words: Sequence[str]) -> tuple[int, str]:
        ran.append(list(words))
        return (1, "Device or resource busy") if words[0] == "rmmod" else (0, "")

    port = LocalPort(run=run)
    assert port.load_module("/x/a-fix.ko", ["n=1"]) == "a_fix"
    assert port.load_module("fix") == "fix"
    with pytest.raises(TargetError, match="busy"):
        port.unload_module("fix")
    assert ran == [["insmod", "/x/a-fix.ko", "n=1"], ["modprobe", "--", "fix"], ["rmmod", "fix"]]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fix", ("fix", [])),
        ("/a b/fix.ko", ("/a b/fix.ko", [])),
        ("/a b/fix.ko old=f position=2", ("/a b/fix.ko", ["old=f", "position=2"])),
    ],
)
def test_parameters_follow_the_module(source: str, expected: tuple[str, list[str]]) -> None:
    assert split_source(source) == expected


def test_names_are_the_kernels() -> None:
    assert module_name("/x/livepatch-sample.ko.xz") == "livepatch_sample"
