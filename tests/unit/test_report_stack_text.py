"""The text of `surefoot stack`: what stands where, and that nothing is left out."""

from __future__ import annotations

import re
import time

import pytest

import report_builder as make
from report_builder import Frame, Task, at
from surefoot.dtypes import Addr
from surefoot.report.stack_build import build_report
from surefoot.report.stack_summary import legend_text, summary_text
from surefoot.report.stack_text import evidence_words, place_text, traces_text
from surefoot.report.stack_view import Place, StackReport, letters
from surefoot.report.style import Style
from surefoot.targets.linux import SourceLine
from surefoot.unwind.context import Mode
from surefoot.unwind.reasons import SENTENCES, Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Evidence

PLAIN = Style.make(width=100, color=False)
CALLED_AND_PROVEN = make.CALLED | Evidence.PROVEN
ESCAPE = re.compile(r"\x1b\[\d+m")


def _blocks(report: StackReport, style: Style = PLAIN) -> dict[int, list[str]]:
    """Give the lines of each task by pid."""
    blocks = traces_text(report, style).rstrip("\n").split("\n\n")
    return {int(block.split()[0]): block.splitlines() for block in blocks}


def test_a_reliable_task() -> None:
    """Heading with verdict, then a line per frame: depth, address, place, letters, evidence."""
    lines = _blocks(make.report())[1]
    assert re.fullmatch(r"1 init  sleeping, cpu 0 ─+ ✔ RELIABLE", lines[0])
    assert len(lines[0]) == 100
    assert [line.split() for line in lines[1:]] == [
        ["0", "ffff800080000010", "__schedule+0x10/0x100", "(T)", "cpu_context"],
        ["1", "ffff800080000110", "schedule+0x10/0x100", "rule+record,", "direct", "call"],
        ["2", "ffff800080000610", "ret_from_fork+0x10/0x100", "rule+record,", "direct", "call"],
    ]


def test_the_evidence_stands_in_one_column() -> None:
    """Over the whole report."""
    lines = [
        line for block in _blocks(make.report()).values() for line in block if re.match(r".. \d  [0-9a-f]{16}", line)
    ]
    begins = {re.search(r"(\(\w+\))? {2,}(?=\S+( \(rule\))?(, .*)?$)", line[26:]) for line in lines}
    assert len({match.end() for match in begins if match}) == 1


def test_an_exception_boundary_is_a_line_of_its_own() -> None:
    """Between the entry code and the interrupted function, with its kind and the registers' address."""
    lines = _blocks(make.report())[46]
    line = next(i for i, text in enumerate(lines) if "interrupted here" in text)
    assert "interrupted here (IRQ): pt_regs at ffff800090000100, pc exact" in lines[line]
    assert "el1h_64_irq" in lines[line - 1]
    assert lines[line + 1].split()[2:] == ["memcpy+0x10/0x100", "(P)", "pt_regs"]
    assert lines[line + 2].endswith("LR (rule), indirect call")
    assert "zram_submit_bio+0x10/0x100 [zram]" in lines[line + 2]
    assert "(F)" in lines[line + 3]
    assert lines[line + 3].endswith("rule+record+fgraph, direct call")
    assert "(K)" in lines[line + 4]


def test_a_mismatch_shows_both_answers() -> None:
    """Reason with frame, address and symbol; the frame is pointed at; what follows is doubtful."""
    lines = _blocks(make.report())[50]
    assert lines[0].endswith("✘ UNRELIABLE")
    text = " ".join(" ".join(lines[1:3]).split())
    assert text.startswith(
        "RULE_RECORD_MISMATCH at frame 1, ffff800080000310 memcpy+0x10/0x100: "
        "the rule and the frame record name different callers"
    )
    lost = next(i for i, line in enumerate(lines) if line.startswith("▸"))
    assert "schedule+0x10" in lines[lost]
    assert lines[lost + 1].split() == ["ffff800080000310", "memcpy+0x10/0x100", "says", "the", "rule"]
    assert lines[lost + 2].split() == ["ffff800080000410", "vfs_read+0x10/0x100", "says", "the", "record"]
    assert lines[lost + 3].startswith("?")


def test_hostile_names_are_escaped() -> None:
    """A task's name cannot write escape sequences."""
    text = traces_text(make.report(), PLAIN)
    assert "\x1b" not in text
    assert "ev\\x1b[31mil" in text


def test_ambiguous_lr_is_shown() -> None:
    """At a boundary without a rule, with its symbol."""
    lines = _blocks(make.report())[51]
    assert any(
        re.match(r" +LR\? ffff800080000510 zram_submit_bio\+0x10/0x100 \[zram\] +perhaps a caller", x) for x in lines
    )
    assert lines[0].startswith("51 cat  running, on cpu 1")
    assert next(line for line in lines if line.startswith("▸")).endswith("CPU registers")


def test_tasks_without_frames_say_why() -> None:
    """In user mode there are none, without registers nobody knows."""
    blocks = _blocks(make.report())
    assert blocks[60][1].strip() == "runs in user mode: no kernel frames"
    assert blocks[61][1].strip() == f"NO_REGISTERS: {SENTENCES[Reason.NO_REGISTERS]}"


def test_a_thread_names_its_process() -> None:
    """And an address in no function says so."""
    lines = _blocks(make.report())[175]
    assert "sleeping, cpu 1, thread of 174" in lines[0]
    assert lines[-1].split()[2:5] == ["ffff8000a0000040", "<no", "known"]


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_every_width_and_encoding(width: int, encoding: str) -> None:
    """The text can be encoded, and from 80 columns on no line is longer than the terminal is wide."""
    style = Style.make(width=width, color=False, encoding=encoding)
    report = make.report()
    text = traces_text(report, style) + legend_text(report, style) + summary_text(report, style)
    assert text.encode(encoding)
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("width", [80, 120])
def test_colour_changes_nothing_but_colour(mode: Mode, width: int) -> None:
    """Without its escape sequences the coloured text is the plain text, and every line ends plain."""
    report = make.report(mode=mode)
    plain, colored = (Style.make(width=width, color=color) for color in (False, True))
    for draw in (traces_text, legend_text, summary_text):
        text = draw(report, colored)
        assert "\x1b" in text
        assert ESCAPE.sub("", text) == draw(report, plain)
        for line in text.splitlines():
            codes = ESCAPE.findall(line)
            assert not codes or codes[-1] == "\x1b[0m"


def test_a_name_that_is_too_long_takes_a_second_line() -> None:
    """No symbol is ever cut off."""
    name = "f" * 70
    place_names = (name, *make.NAMES[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "NAMES", place_names)
        report = make.report([Task(1, "a", [Frame(make.BASE + 0x10), Frame(make.BASE + 0x110)])])
        text = traces_text(report, Style.make(width=80, color=False))
    lines = text.splitlines()
    assert f"{name}+0x10/0x100" in lines[1]
    assert lines[2].strip() == "rule+record →"


def test_a_thousand_doubtful_frames_are_folded() -> None:
    """The text stays readable; the JSON has them all."""
    doubt = Frame(at("vfs_read"), evidence=Evidence.RECORD | Evidence.DOUBTFUL)
    given = [Task(1, "loop", [Frame(at("schedule")), *[doubt] * 1000], reason=Reason.TOO_DEEP)]
    lines = traces_text(make.report(given), PLAIN).splitlines()
    assert len(lines) < 60
    assert any("952 more doubtful frames" in line for line in lines)


def test_source_lines_stand_under_their_frames() -> None:
    """Innermost inlined function first; of a return address those of the call."""
    asked: list[int] = []

    def lines(addrs: Addr) -> list[tuple[SourceLine, ...]]:
        asked.extend(addrs.tolist())
        return [(SourceLine("copy", "a.h", 3), SourceLine("outer", "a.c", 7)) for _ in asked]

    text = _blocks(make.report([make.tasks()[1]], lines=lines))[46]
    assert asked == sorted({at("memcpy"), *(at(name) - 4 for name in make.NAMES if name != "memcpy")})
    frame = next(i for i, line in enumerate(text) if "memcpy" in line)
    assert text[frame + 1].strip() == "a.h:3  copy (inlined)"
    assert text[frame + 2].strip() == "a.c:7"


def test_a_task_that_never_ran_is_at_its_first_instruction() -> None:
    """No call precedes it, in the sources neither."""
    asked: list[int] = []

    def lines(addrs: Addr) -> list[tuple[SourceLine, ...]]:
        asked.extend(addrs.tolist())
        return [() for _ in asked]

    make.report([Task(1, "a", [Frame(at("ret_from_fork", 0), Source.TASK, Evidence.SAVED)])], lines=lines)
    assert asked == [at("ret_from_fork", 0)]


def test_only_unreliable_tasks() -> None:
    """`--unreliable` shows those only and counts all."""
    report = make.report(unreliable=True)
    assert [task.meta.pid for task in report.tasks] == [50, 51, 61, 175]
    assert not report.reliable
    assert "8 tasks, 4 shown" in summary_text(report, PLAIN)
    good = make.report([make.tasks()[0]], unreliable=True)
    assert good.reliable
    assert traces_text(good, PLAIN) == "No unreliable stack among 1 tasks.\n\n"
    assert legend_text(good, PLAIN) == ""


def test_the_summary_compares_the_modes() -> None:
    """Counts by mode, reasons by mode, and the tasks on which the modes differ."""
    text = summary_text(make.report(), PLAIN)
    head, *lines = text.split("\n\n")[0].splitlines()[1:]
    assert head.split() == ["fp", "hybrid"]
    rows = {line.split()[0]: line.split()[1:3] for line in lines}
    assert rows["reliable"] == ["3", "4"]
    assert rows["unreliable"] == ["5", "4"]
    assert rows["EXCEPTION_BOUNDARY"] == ["2", "0"]
    assert rows["NO_REGISTERS"] == ["1", "1"]
    assert "hybrid reliable, fp not: 2\n" in text
    assert "    EXCEPTION_BOUNDARY: 46 kworker/u8:2\n    ON_CPU: 60 busy\n" in text
    assert "fp reliable, hybrid not: 1\n    RULE_RECORD_MISMATCH: 50 ev\\x1b[31mil\n" in text
    assert "both reliable, traces differ: 1\n    174 ls: fp omits vfs_read+0x10/0x100\n" in text
    assert "note: module odd: no file with its build-id" in text


def test_the_mode_shown_has_its_column() -> None:
    """Those of fp and hybrid always stand there, that of sframe when asked for."""
    assert [tally.mode for tally in make.report(mode=Mode.SFRAME).tallies] == [Mode.FP, Mode.HYBRID, Mode.SFRAME]
    assert [tally.mode for tally in make.report(mode=Mode.FP).tallies] == [Mode.FP, Mode.HYBRID]


def test_after_a_refusal_of_fp_frames_are_doubtful() -> None:
    """The kernel's walk goes on behind a boundary without saying so; the text says so."""
    task = next(task for task in make.report(mode=Mode.FP).tasks if task.meta.pid == 46)
    assert [frame.doubtful for frame in task.frames] == [False] * 4 + [True] * 3


def test_the_legend_explains_what_occurs() -> None:
    """And nothing else."""
    all_words = legend_text(make.report(), PLAIN)
    for word in (
        "rule ",
        "record ",
        "LR (rule)",
        "fgraph, F",
        "kretprobe, K",
        "direct call",
        "indirect call",
        "(T)",
        "?",
    ):
        assert f"  {word}" in all_words
    assert "tail call" not in all_words
    assert "unproven" in all_words
    few = legend_text(make.report([make.tasks()[0]]), PLAIN)
    assert [line.split()[0] for line in few.splitlines() if line] == ["rule", "record", "direct", "(T)"]


def test_the_legend_says_what_is_proved() -> None:
    """Nothing, everything, or some of it."""
    proved = Frame(at("schedule"), evidence=CALLED_AND_PROVEN)
    assert "proven against the code" in legend_text(make.report([Task(1, "a", [proved])]), PLAIN)
    mixed = legend_text(make.report([Task(1, "a", [proved, Frame(at("vfs_read"))])]), PLAIN)
    assert "unproven where it does not say 'proven'" in mixed


@pytest.mark.parametrize(
    ("evidence", "source", "words", "short"),
    [
        (Evidence.SAVED, Source.TASK, "cpu_context", "cpu_context"),
        (Evidence.SAVED, Source.REGS, "CPU registers", "CPU registers"),
        (Evidence.SAVED, Source.CALLER, "caller", "caller"),
        (Evidence.METADATA, Source.REGS, "pt_regs", "pt_regs"),
        (Evidence.RECORD, Source.FRAME, "record", "record"),
        (CALLED_AND_PROVEN, Source.FRAME, "proven rule+record, direct call", "proven rule+record →"),
        (
            Evidence.RULE | Evidence.LR | Evidence.CALL_TAIL,
            Source.FRAME,
            "LR (rule), tail call",
            "LR (rule) →~",
        ),
        (
            Evidence.RECORD | Evidence.KRETPROBE | Evidence.CALL_INDIRECT,
            Source.FRAME,
            "record+kretprobe, indirect call",
            "record+kretprobe →*",
        ),
        (Evidence.FGRAPH | Evidence.CALL_DIRECT, Source.FRAME, "fgraph, direct call", "fgraph →"),
    ],
)
def test_evidence_in_words(evidence: Evidence, source: Source, words: str, short: str) -> None:
    """What vouches for a frame, with room and without."""
    assert evidence_words(evidence, source) == words
    assert evidence_words(evidence, source, "→") == short


@pytest.mark.parametrize(
    ("source", "evidence", "expected"),
    [
        (Source.CALLER, Evidence.SAVED, "C"),
        (Source.TASK, Evidence.SAVED, "T"),
        (Source.REGS, Evidence.METADATA, "P"),
        (Source.UNKNOWN, Evidence.RECORD, "U"),
        (Source.FRAME, Evidence.RECORD, ""),
        (Source.FRAME, Evidence.RECORD | Evidence.FGRAPH, "F"),
        (Source.FRAME, Evidence.RECORD | Evidence.FGRAPH | Evidence.KRETPROBE, "FK"),
        (Source.TASK, Evidence.SAVED | Evidence.KRETPROBE, "TK"),
    ],
)
def test_letters_are_the_kernels(source: Source, evidence: Evidence, expected: str) -> None:
    """As dump_backtrace_entry() prints them."""
    report = make.report([Task(1, "a", [Frame(at("schedule"), source, evidence)])])
    assert letters(report.tasks[0].frames[0]) == expected


def test_places() -> None:
    """As the kernel prints them, with the address where there is no symbol."""
    assert place_text(Place(0x10)) == "0000000000000010"
    assert place_text(Place(0x10, module="odd")) == "0000000000000010 [odd]"
    assert place_text(Place(0x10, "f", 4, 8, "m")) == "f+0x4/0x8 [m]"
    assert place_text(Place(0x10, "f", 4, 8), addr=True) == "0000000000000010 f+0x4/0x8"


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.NONE])
def test_every_reason_can_be_shown(reason: Reason) -> None:
    """By name and sentence, in the trace and in the summary."""
    report = make.report([Task(1, "a", [Frame(at("schedule"))], reason=reason, addr=at("vfs_read"))])
    text = " ".join(traces_text(report, PLAIN).split())
    assert f"{reason.name} at frame 0, ffff800080000410 vfs_read+0x10/0x100: {SENTENCES[reason]}" in text
    assert reason.name in summary_text(report, PLAIN)


def test_many_tasks_are_quick() -> None:
    """1,500 frames of 150 tasks are built and written in 60 ms of processor time."""
    given = [
        Task(pid, "worker", [Frame(at("__schedule"), Source.TASK, Evidence.SAVED), *[Frame(at("vfs_read"))] * 9])
        for pid in range(150)
    ]
    walks = {mode: make.traces(given) for mode in Mode}
    taken = make.capture(given)
    style = Style.make(width=110, color=True)

    def once() -> float:
        begin = time.process_time()
        report = build_report(taken, walks, Mode.HYBRID, module_of=make.module_of)
        text = traces_text(report, style) + legend_text(report, style) + summary_text(report, style)
        assert len(text.splitlines()) > 1650
        return time.process_time() - begin

    assert min(once() for _ in range(5)) < 0.06
