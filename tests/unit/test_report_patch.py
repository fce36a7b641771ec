"""Live patching as text, JSON and a live view: what events say comes out, whole, and nothing else does."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import json_schema
import patch_fake
from surefoot.cli.patch import FORCE_WORD
from surefoot.patch.events import FIGURES, Event, EventKind, Hold, PatchState, Status, TaskState
from surefoot.report.patch_json import event_json, foremost, status_json
from surefoot.report.patch_live import LiveView
from surefoot.report.patch_progress import HOWS, Pauses, Progress
from surefoot.report.patch_text import HOLDS, event_line, groups, status_text, summary_text
from surefoot.report.style import Style

EVENT_SCHEMA = json_schema.load("patch-event-1.json")
STATUS_SCHEMA = json_schema.load("patch-1.json")
PLAIN = Style.make(width=80, color=False)
HOSTILE = "\x1b[2J[bold red]\n\r\u202eevil[/]"

NAMES = st.one_of(st.sampled_from(["cat", "漢字漢字", HOSTILE, "[/]", ""]), st.text(max_size=20))
TASKS = st.builds(
    TaskState,
    pid=st.integers(0, 1 << 22),
    comm=NAMES,
    crossed=st.booleans(),
    hold=st.none() | st.sampled_from(Hold),
    blocked_by=st.none() | NAMES,
    address=st.integers(0, (1 << 64) - 1),
    reason=NAMES,
    trace=st.lists(NAMES, max_size=8).map(tuple),
    advice=NAMES,
)
EVENTS = st.builds(
    Event,
    kind=st.sampled_from(EventKind),
    patch=NAMES,
    state=st.sampled_from(PatchState),
    elapsed_s=st.floats(0, 1e6),
    tasks=st.lists(TASKS, max_size=12).map(tuple),
    left=st.integers(0, 5000),
    message=NAMES,
    figures=st.dictionaries(st.sampled_from(sorted(FIGURES)), st.floats(0, 1e5), max_size=4),
)


def _blocked(at: float, *tasks: TaskState) -> Event:
    return Event(EventKind.BLOCKED, "p", PatchState.APPLYING, at, tasks=tasks, left=len(tasks))


def _crossed(at: float, *tasks: TaskState, left: int) -> Event:
    over = tuple(replace(task, crossed=True, hold=None) for task in tasks)
    return Event(EventKind.CROSSED, "p", PatchState.APPLYING, at, tasks=over, left=left)


def _after(*events: Event) -> Progress:
    progress = Progress()
    for event in events:
        progress.take(event)
    return progress


def _script(*, stuck: bool = False) -> list[Event]:
    return list(patch_fake.FakeBackend(stuck=stuck).apply("p", force=False))


def _picture(view: LiveView, width: int, height: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None, force_terminal=True).print(view)
    return out.getvalue().split("\n")[:-1]


def _view(*events: Event, encoding: str = "utf-8", now: float = 10.0) -> LiveView:
    view = LiveView("apply", "p", "machine", progress=Progress(), now=lambda: now, timeout_s=60.0, encoding=encoding)
    for event in events:
        view.take(event)
    return view


# What is known after some events


def test_a_blocker_keeps_the_time_since_when_it_blocks() -> None:
    """It begins anew for a task that did not block in between, and ends where the task goes over."""
    one, two = patch_fake.ON_STACK, patch_fake.RUNNING
    progress = _after(_blocked(1.0, one, two), _blocked(2.0, one), _blocked(3.0, one, two))
    assert {b.task.pid: b.since_s for b in progress.blockers} == {one.pid: 1.0, two.pid: 3.0}
    progress.take(_crossed(4.0, one, left=1))
    assert [b.task for b in progress.blockers] == [two]
    assert [task.pid for task in progress.recent] == [one.pid]


def test_idle_tasks_are_told_apart() -> None:
    """They all have the pid 0."""
    idle = [TaskState(0, f"swapper/{cpu}", crossed=False, hold=Hold.RUNNING) for cpu in range(3)]
    progress = _after(_blocked(1.0, *idle))
    assert len(progress.blockers) == 3
    progress.take(_crossed(2.0, idle[1], left=2))
    assert [b.task.comm for b in progress.blockers] == ["swapper/0", "swapper/2"]


def test_counts_follow_the_events() -> None:
    """The figures add up to what the script did: 27 tasks cross, three to a way each time."""
    progress = _after(*_script(stuck=True)[:-1])
    assert (progress.total, progress.left, progress.crossed) == (30, 3, 27)
    assert progress.hows == {"by_stack": 9, "by_exit": 9, "by_idle": 9}
    assert (progress.attempts, progress.pauses_ms, progress.words) == (2, [12.25], 0)
    assert len(progress.blockers) == 3
    progress = _after(*_script())
    assert (progress.left, progress.words, progress.pauses_ms) == (0, 2, [12.25, 11.5])
    assert progress.blockers == []
    assert progress.finished()


def test_a_pause_counts_once() -> None:
    """Several events of one attempt tell of the same pause; of another attempt, or of none, it is another one."""

    def event(kind: EventKind, **figures: float) -> Event:
        return Event(kind, "p", PatchState.APPLYING, 1.0, figures=figures)

    progress = _after(
        event(EventKind.RETRIED, attempt=1, pause_ms=5.0),
        event(EventKind.BLOCKED),
        event(EventKind.WRITTEN, attempt=2, pause_ms=5.0),
        event(EventKind.CROSSED, attempt=2, pause_ms=5.0),
        event(EventKind.RETRIED, pause_ms=7.0),
        event(EventKind.RETRIED, pause_ms=7.0),
    )
    assert progress.pauses_ms == [5.0, 5.0, 7.0, 7.0]


def test_where_all_go_over_at_once_clear_stacks_are_counted() -> None:
    """Nobody is over before all are: the view counts the stacks that are clear."""
    figures = {"tasks": 30.0, "clear": 27.0, "attempt": 1.0, "pause_ms": 9.0}
    event = Event(EventKind.RETRIED, "p", PatchState.APPLYING, 1.0, left=30, figures=figures)
    progress = _after(event)
    assert (progress.crossed, progress.left, progress.clear) == (0, 30, 27)
    text = "\n".join(_picture(_view(event), 80, 24))
    assert "27 of 30 stacks clear" in text
    assert "over" not in text


@pytest.mark.parametrize("kind", [EventKind.WARNING, EventKind.WRITTEN])
def test_events_that_count_nothing_leave_the_count(kind: EventKind) -> None:
    """A warning does not say how many tasks are left, although the field is there."""
    progress = _after(_crossed(1.0, patch_fake.RUNNING, left=7), Event(kind, "p", PatchState.APPLYING, 2.0))
    assert progress.left == 7


def test_nobody_left_is_believed_of_those_who_cross_only() -> None:
    """An event that did not count has a zero there, and the transition is not over."""
    forced = Event(EventKind.FORCED, "p", PatchState.APPLYING, 2.0)
    progress = _after(_crossed(1.0, patch_fake.RUNNING, left=7), forced)
    assert progress.left == 7
    assert _after(_crossed(1.0, patch_fake.RUNNING, left=7), _crossed(2.0, patch_fake.UNRELIABLE, left=0)).left == 0


@pytest.mark.parametrize("kind", [EventKind.REVERSED, EventKind.FAILED, EventKind.CROSSED])
def test_who_held_up_one_direction_does_not_hold_up_the_other(kind: EventKind) -> None:
    """Tasks that have not gone over are on the side already to which a transition turns round."""
    before = [_crossed(1.0, patch_fake.UNRELIABLE, left=1), _blocked(2.0, patch_fake.ON_STACK)]
    progress = _after(*before, Event(kind, "p", PatchState.REVERTING, 3.0, left=1))
    assert progress.blockers == []
    assert progress.recent == []
    assert progress.reversed
    assert (progress.total, progress.left) == (1, 1)


def test_work_without_a_name_ends_with_the_first_name() -> None:
    """Somebody else works on the target, and nobody knows on which patch before it is done."""
    nameless = Event(EventKind.RETRIED, "", PatchState.APPLYING, 1.0)
    assert not _after(nameless).finished()
    assert _after(nameless, Event(EventKind.COMPLETED, "p", PatchState.APPLIED, 2.0)).finished()


def test_one_patch_of_several_in_transition_is_not_the_end() -> None:
    """finished() asks for every patch, or for those named."""
    progress = _after(
        Event(EventKind.STARTED, "a", PatchState.APPLYING, 0.0),
        Event(EventKind.COMPLETED, "b", PatchState.APPLIED, 1.0),
    )
    assert not progress.finished()
    assert progress.finished(["b"])
    progress.take(Event(EventKind.FAILED, "a", PatchState.PARTIAL, 2.0))
    assert not progress.finished()
    progress.take(Event(EventKind.FAILED, "a", PatchState.ABSENT, 2.0))
    assert progress.finished()


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_pauses_are_summed_up_by_nearest_rank(pauses: list[float]) -> None:
    """At least 95 of 100 pauses are not longer than p95, and it is one of them."""
    told = Pauses.of(pauses)
    assert told.count == len(pauses)
    assert told.longest == max(pauses)
    assert told.p95 in pauses
    assert 100 * sum(pause <= told.p95 for pause in pauses) >= 95 * len(pauses)
    assert 100 * sum(pause < told.p95 for pause in pauses) < 95 * len(pauses)


# JSON


@given(EVENTS)
def test_every_event_is_what_the_schema_says(event: Event) -> None:
    """One line of ASCII, with the keys of the contract."""
    text = json.dumps(event_json(event, "machine"), allow_nan=False)
    assert text.isascii()
    assert "\n" not in text
    assert json_schema.findings(EVENT_SCHEMA, json.loads(text)) == []


@given(st.lists(st.builds(Status, NAMES, st.sampled_from(PatchState), st.lists(TASKS).map(tuple)), max_size=4))
def test_every_status_is_what_the_schema_says(statuses: list[Status]) -> None:
    """Also of a target without a patch."""
    taken = json.loads(json.dumps(status_json(statuses, "machine"), allow_nan=False))
    assert json_schema.findings(STATUS_SCHEMA, taken) == []
    assert [each["patch"] for each in taken["patches"]] == [each.patch for each in statuses]


def test_the_schemas_know_every_word() -> None:
    """The enumerations are those of the code, and each figure is described in the same words."""
    for schema in (EVENT_SCHEMA, STATUS_SCHEMA):
        assert schema["$defs"]["state"]["enum"] == [state.value for state in PatchState]
        hold = schema["$defs"]["task"]["properties"]["hold"]["anyOf"][0]
        assert hold["enum"] == [each.value for each in Hold]
    assert EVENT_SCHEMA["properties"]["event"]["enum"] == [kind.value for kind in EventKind]
    figures = EVENT_SCHEMA["$defs"]["figures"]["properties"]
    assert {name: each["description"] for name, each in figures.items()} == dict(FIGURES)
    assert set(HOLDS) == set(Hold)
    assert set(HOWS) <= set(FIGURES)


def test_a_figure_that_is_no_number_is_left_out() -> None:
    """JSON has no word for it, and a transition must not end for its sake."""
    event = Event(EventKind.RETRIED, "p", PatchState.APPLYING, 1.0, figures={"pause_ms": float("nan"), "words": 1.0})
    assert event_json(event, "machine")["figures"] == {"words": 1.0}


def test_the_foremost_patch_is_the_one_to_worry_about() -> None:
    """Half written before in transition before applied; of equals the last one applied."""
    by_state = {state: Status(state.value, state) for state in PatchState}
    order = [PatchState.PARTIAL, PatchState.APPLYING, PatchState.APPLIED, PatchState.ABSENT]
    for i, state in enumerate(order):
        assert foremost([by_state[each] for each in order[i:]]) is by_state[state]
    assert foremost([Status("a", PatchState.APPLIED), Status("b", PatchState.APPLIED)]) == Status(
        "b", PatchState.APPLIED
    )
    assert foremost([]) is None


def test_the_guide_explains_every_hold() -> None:
    """docs/patch.md explains each, in the order of the code; so it does the word for --force."""
    guide = (json_schema.SCHEMAS.parent / "patch.md").read_text(encoding="utf-8")
    assert re.findall(r"^`([a-z_]+)`\n: \S", guide, flags=re.MULTILINE) == [hold.value for hold in Hold]
    assert f"--force={FORCE_WORD}" in guide


# Text


def test_every_event_is_one_line() -> None:
    """Time, kind, patch, and the tasks with what holds them."""
    lines = [event_line(event, PLAIN) for event in _script(stuck=True)]
    assert all(line.count("\n") == 1 and line.endswith("\n") for line in lines)
    blocked = next(line for line in lines if "blocked" in line)
    assert "28 mousedev_cat (mousedev_read on its stack: It will return into mousedev_read+0x240/0x388" in blocked
    assert "30 kworker/0:1 (runs on a CPU: It runs on CPU 1) (24 left)" in blocked
    assert lines[0] == "    0.100 s  started    cmdline: 30 tasks, attempt 1\n"


@given(EVENTS)
def test_nothing_from_a_target_acts_on_the_terminal(event: Event) -> None:
    """Names and messages with control characters come out as escapes, in lines, summary and view."""
    progress = _after(event)
    summary = summary_text(progress, "machine", PLAIN, good=False, elapsed_s=1.0)
    for text in (event_line(event, PLAIN), summary):
        assert text.replace("\n", "").isprintable()
    assert event_line(event, PLAIN).count("\n") == 1


def test_the_summary_of_a_failure_names_every_blocker() -> None:
    """With function, reason, stack and advice; what went over before the patch was taken back is not counted."""
    events = _script(stuck=True)
    text = summary_text(_after(*events), "guest:a", PLAIN, good=False, elapsed_s=60.0)
    flat = " ".join(text.split())
    for task in (patch_fake.ON_STACK, patch_fake.UNRELIABLE, patch_fake.RUNNING):
        assert f"{task.pid} {task.comm}" in flat
        assert task.reason in flat
        assert task.advice in flat
        assert ", ".join(task.trace) in flat
    assert "3 tasks hold it up:" in text
    assert events[-1].message in text
    assert "gone over" not in text


def test_the_summary_of_a_success_has_the_figures() -> None:
    """How tasks went over, the attempts and the pauses."""
    text = summary_text(_after(*_script()), "guest:a", PLAIN, good=True, elapsed_s=5.0)
    assert text.startswith("✔ cmdline is applied: every task runs the new code (guest:a, 5.0 s)\n")
    assert "30 of 30 tasks: 9 by their stacks, 9 between kernel and user mode, 9 idle" in " ".join(text.split())
    assert "pauses    2, median 11.9 ms, 95 of 100 up to 12.2 ms, longest 12.2 ms" in text
    assert "hold" not in text


@pytest.mark.parametrize("width", [40, 80, 140])
def test_text_keeps_to_the_width(width: int) -> None:
    """Sentences are wrapped; names and tables alone may be longer."""
    style = Style.make(width=width, color=False)
    text = summary_text(_after(*_script(stuck=True)), "machine", style, good=False, elapsed_s=1.0)
    held = [line for line in text.splitlines() if line.startswith("   ▸ ")]
    assert [line for line in text.splitlines() if len(line) > width and line not in held] == []


def test_colour_changes_no_character() -> None:
    """Without the escape sequences, coloured text is the plain text."""
    colored = Style.make(width=80, color=True)
    strip = re.compile(r"\x1b\[\d*m")
    progress = _after(*_script(stuck=True))
    texts: list[Callable[[Style], str]] = [
        lambda style: summary_text(progress, "machine", style, good=False, elapsed_s=1.0),
        lambda style: status_text(patch_fake.statuses(), "machine", style),
        lambda style: "".join(event_line(event, style) for event in _script()),
    ]
    for style_text in texts:
        assert strip.sub("", style_text(colored)) == style_text(PLAIN)
        assert style_text(colored) != style_text(PLAIN)


def test_status_tells_patches_functions_tasks_and_warnings() -> None:
    """Everything that the state holds is there."""
    text = status_text(patch_fake.statuses(), "guest:a", PLAIN)
    assert text.splitlines()[0].startswith("pair ")
    assert text.splitlines()[0].endswith(" APPLIED")
    assert "✔ cmdline_proc_show  vmlinux   ffff800080451230  ffff80007ab01000" in text
    assert "╌ mousedev_read      mousedev  ffff80007ab01000  not loaded" in text
    assert "27 of 30 tasks went over" in text
    assert "! The kernel's own check may take mousedev_read's neighbour for it." in text
    assert "2 patches on guest:a: 1 applying, 1 applied" in text
    assert status_text([], "guest:a", PLAIN) == "guest:a has no patch.\n"


def test_a_half_written_patch_is_said_loudly() -> None:
    """In the summary and in the status."""
    event = Event(EventKind.FAILED, "p", PatchState.PARTIAL, 1.0, message="Sites 1 and 2 are written, 3 is not.")
    text = summary_text(_after(event), "machine", PLAIN, good=False, elapsed_s=1.0)
    assert "PARTLY WRITTEN" in text
    assert event.message in text
    assert "PARTLY WRITTEN" in status_text([Status("p", PatchState.PARTIAL)], "machine", PLAIN)


def test_what_is_alike_is_told_once() -> None:
    """Blockers of the same function and reason form a group, in order."""
    twin = replace(patch_fake.ON_STACK, pid=99)
    progress = _after(_blocked(1.0, patch_fake.ON_STACK, patch_fake.RUNNING, twin))
    told = groups(progress.blockers)
    assert [[b.task.pid for b in group.blockers] for group in told] == [[28, 99], [30]]
    text = summary_text(progress, "machine", PLAIN, good=False, elapsed_s=1.0)
    assert text.count(patch_fake.ON_STACK.reason) == 1
    assert "99 mousedev_cat" in text


# The live view


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=6), st.integers(30, 180), st.integers(8, 60))
def test_the_view_fits_into_the_terminal(events: list[Event], width: int, height: int) -> None:
    """Whatever is told, no line is wider, there are fewer lines than rows, and nothing acts on the terminal."""
    lines = _picture(_view(*events), width, height)
    assert len(lines) < height
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("width", [80, 140])
def test_the_view_shows_what_an_operator_needs(width: int) -> None:
    """Progress, the blockers with function, reason and stack, how long, what to do, and who went over."""
    flat = " ".join(" ".join(_picture(_view(*_script(stuck=True)[:-1]), width, 40)).split())
    for words in (
        "applying cmdline on machine",
        "10.0 s of 60 s",
        "27 of 30 tasks over",
        "attempt 2 · paused 12 ms · 9 by their stacks",
        "3 tasks hold it up",
        "▸ 28 mousedev_cat mousedev_read on its stack 9 s",
        patch_fake.ON_STACK.reason,
        "__schedule ← schedule ← mousedev_read ← vfs_read ← ksys_read",
        "▸ 29 pktgen_1 stack not certain",
        f"→ {patch_fake.ON_STACK.advice}",
        "just over 27 cc1, 26 make",
        "Ctrl-C interrupts and leaves the target consistent.",
    ):
        assert words in flat, words


def test_many_alike_leave_room_for_others() -> None:
    """A hundred tasks in one function do not hide the one that is held by something else."""
    crowd = [replace(patch_fake.ON_STACK, pid=pid) for pid in range(100, 200)]
    lines = _picture(_view(_blocked(1.0, *crowd, patch_fake.UNRELIABLE)), 80, 24)
    text = "\n".join(lines)
    assert "101 tasks hold it up" in text
    assert "29 pktgen_1" in text
    assert "more of the same" in text


def test_a_small_terminal_says_what_it_leaves_out() -> None:
    """Of blockers for different reasons, those that find no room are counted."""
    tasks = [replace(patch_fake.ON_STACK, pid=pid, reason=f"reason {pid}") for pid in range(100, 120)]
    text = "\n".join(_picture(_view(_blocked(1.0, *tasks)), 80, 24))
    shown = sum(f"reason {pid}" in text for pid in range(100, 120))
    assert 0 < shown < 20
    assert f"and {20 - shown} more for other reasons" in text


def test_the_view_draws_with_what_the_terminal_has() -> None:
    """In ASCII no other character of ours appears."""
    lines = _picture(_view(*_script(stuck=True)[:-1], encoding="ascii"), 80, 30)
    drawn = "".join(lines).replace("━", "").replace("╸", "").replace("╺", "")  # rich decides about its bar
    assert drawn.isascii(), drawn


def test_the_view_before_the_first_event_and_after_the_last() -> None:
    """It says what is being done before anything is known of it, and how it ended."""
    assert "applying p on machine" in _picture(_view(), 80, 24)[0]
    assert "applied cmdline on machine" in _picture(_view(*_script()), 80, 24)[0]
    turned = Event(EventKind.REVERSED, "p", PatchState.REVERTING, 1.0)
    forced = Event(EventKind.FORCED, "p", PatchState.REVERTING, 2.0)
    assert "reverting p on machine turned round FORCED" in " ".join(
        _picture(_view(turned, forced), 80, 24)[0].split()
    )
