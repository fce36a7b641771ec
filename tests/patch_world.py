"""A little kernel for the engine of per-task consistency, with a truth of its own.

Tasks run programs of a few operations, one small step at a time: entering a redirected function takes several, and so
does leaving the kernel; a task can be stopped between any two. The world knows which version of which function every
task is in. A call is a *mix* if the version it enters has never stood beside one of the versions below it on the
stack in any configuration of patches that was in force: nothing of the engine's is asked for that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np

from surefoot.errors import PatchError, TargetError
from surefoot.metadata.rules import RuleTable
from surefoot.patch import check
from surefoot.patch.check import Range
from surefoot.patch.model import Callbacks, Patch, PatchFunction, PatchObject, PatchStateVersion
from surefoot.patch.stack import Body, Place, Redirect, Side
from surefoot.patch.transition import Look, TaskRow
from surefoot.unwind.code import CodeMap, Functions, TextWords
from surefoot.unwind.reasons import Reason
from surefoot.unwind.state import Source
from surefoot.unwind.trace import Traces
from world import make_rules

__all__ = ["MODULE", "ORIGINAL", "PATCHES", "Frame", "Task", "World", "naive"]

BASE: Final = 0xFFFF_8000_8000_0000
ORIGINAL: Final = ""
"""Label of the version that the kernel was built with."""

PROGRAMS: Final[dict[str, tuple[str, ...]]] = {
    "pair": ("nop", "call f", "maybe sleep", "call asm", "call g", "ret"),
    "f": ("nop", "maybe sleep", "ret"),
    "die": ("nop", "call last"),  # this call never returns
    "g": ("nop", "maybe sleep", "call h", "ret"),
    "h": ("nop", "maybe sleep", "nop", "ret"),
    "m": ("nop", "maybe sleep", "call mm", "ret"),
    "mm": ("nop", "maybe sleep", "ret"),
    "asm": ("nop", "nop", "ret"),
    "last": ("maybe sleep", "call g", "exit"),
    "entry": ("nop", "leave"),
    "kthread": ("nop", "maybe sleep", "again"),
    "idle": ("nop", "idle"),
}
"""What each function does; every version of a function does the same."""
ROOTS: Final = ("pair", "h", "m", "die", "pair")
MODULE: Final = {"m": "mod", "mm": "mod"}
"""Functions that are not in the kernel image."""


def _patch(name: str, functions: dict[str, tuple[str, ...]], *, replace: bool = False, state: int = 0) -> Patch:
    """Make a patch whose new functions are called after it, with all four callbacks on each object."""
    names = ("pre_patch", "post_patch", "pre_unpatch", "post_unpatch")
    callbacks = Callbacks(*(f"{name}.{callback}" for callback in names))
    objects = tuple(
        PatchObject(owner, tuple(PatchFunction(old, 0, f"{old}.{name}", "") for old in olds), callbacks)
        for owner, olds in functions.items()
    )
    return Patch(name, objects, (PatchStateVersion(1, state),), replace=replace)


PATCHES: Final[dict[str, Patch]] = {
    patch.name: patch
    for patch in (
        _patch("A", {"vmlinux": ("pair", "f", "g", "die")}),
        _patch("B", {"vmlinux": ("pair", "f", "g", "die", "h")}),
        _patch("C", {"mod": ("m", "mm"), "vmlinux": ("h",)}),
        _patch("R", {"vmlinux": ("pair", "f", "g", "die")}, replace=True),
    )
}
"""pair calls f and g, die leads to g, and m calls mm: a patch of one has the others too, or they would be mixed."""


class Code(NamedTuple):
    """A version of a function in memory."""

    name: str
    label: str
    start: int
    end: int


@dataclass(slots=True)
class Frame:
    """A live activation: its code, and the operation that comes next."""

    code: Code
    at: int = 0


@dataclass(slots=True)
class Task:
    """A task of the little kernel.

    Attributes:
        step: where between two operations it is: "run", "user", "sleep", "site", "tracer", "handler", "handled" (it
            has chosen, and is in the handler still), "chosen", "leaving" (it has read the flag and the goal).
        parked: it sleeps until the test lets it go.
    """

    pid: int
    kind: str
    side: Side = Side.IDLE
    pending: bool = False
    frames: list[Frame] = field(default_factory=list)
    step: str = "run"
    parked: bool = False
    target: str = ""
    row: Redirect | None = None
    seen: Side = Side.IDLE
    entry: int = 0
    latched: Side = Side.IDLE


def naive(patches: Sequence[str]) -> dict[str, str]:
    """Give the version of every function when these patches, oldest first, are wholly in force."""
    versions = dict.fromkeys(PROGRAMS, ORIGINAL)
    for name in patches:
        for _, function in PATCHES[name].functions():
            versions[function.old] = name
    return versions


class World:
    """The kernel, as the engine's target and as the truth.

    Attributes:
        mixes: what went wrong, in words.
        called: callbacks, in order.
        fail_redirect: the next calls of `redirect` fail.
        fail_callbacks: symbols that fail.
        interrupt_in: calls of the target until one is interrupted, before or after it had its effect.
        broken: then it is not an interrupt, but an error of the target.
        restless: the module comes and goes by itself.
    """

    def __init__(self, seed: int, tasks: int = 5) -> None:
        self.rng = random.Random(seed)
        self.side_first = self.rng.random() < 0.5
        self.codes: dict[tuple[str, str], Code] = {}
        self.by_entry: dict[int, Code] = {}
        self._lay_out()
        self.map = self._code_map()
        self.tasks_by_pid: dict[int, Task] = {}
        self.goal = Side.IDLE
        self.table: dict[int, Redirect] = {}
        self.modules = {"vmlinux"}
        self.engine: Any = None
        self.mixes: list[str] = []
        self.called: list[tuple[str, str]] = []
        self.fail_redirect = 0
        self.fail_callbacks: set[str] = set()
        self.interrupt_in: int | None = None
        self.masked = self.broken = False
        self.restless = True
        self.current: Task | None = None
        self.ticks = 0
        self.allowed: set[tuple[str, str, str, str]] = set()
        self.next_pid = 1
        self.configure([])
        self._spawn("idle").pid = 0
        self.tasks_by_pid = {0: self.tasks_by_pid.popitem()[1]}
        for i in range(tasks):
            self._spawn("kthread" if i == 0 else "user")

    # The code.

    def _lay_out(self) -> None:
        """Put functions behind each other without gaps: the return address of die's last call is h's start."""
        addr = BASE
        order = ["pair", "g", "f", "die", "h", "m", "mm", "asm", "last", "entry", "kthread", "idle"]
        for label in (ORIGINAL, *PATCHES):
            for name in order:
                touched = label == ORIGINAL or any(f.old == name for _, f in PATCHES[label].functions())
                if touched:
                    size = 8 + 4 * len(PROGRAMS[name])
                    code = Code(name, label, addr, addr + size)
                    self.codes[name, label] = self.by_entry[addr] = code
                    addr += size
        self.tracer = Range(addr, addr + 64, "ftrace_caller")
        self.handler = Range(addr + 64, addr + 128, "klp_handler")
        self.leaving = Range(addr + 128, addr + 192, "exit_to_user_mode")

    def _code_map(self) -> CodeMap:
        named = [
            (code.start, code.end, f"{code.name}{'.' if code.label else ''}{code.label}")
            for code in self.codes.values()
        ]
        named += [(item.start, item.end, item.name) for item in (self.tracer, self.handler, self.leaving)]
        start, end = (np.array([item[side] for item in named], dtype=np.uint64) for side in (0, 1))
        functions = Functions(start, end, np.zeros(start.size, dtype=np.uint8), [item[2] for item in named])
        rules: RuleTable = make_rules([], []).for_lookup()
        return CodeMap(functions, TextWords.from_ranges([]), rules)

    def configure(self, patches: Sequence[str]) -> None:
        """Say that these patches are, or may come to be, wholly in force: their versions belong together."""
        versions = naive(patches)
        for (a, va), (b, vb) in product(versions.items(), repeat=2):
            self.allowed.add((a, va, b, vb))

    # The target.

    def _called(self, effect: Callable[[], Any], *, whole: bool = True) -> Any:
        """Do something for the engine, or be interrupted before or after it; only before if it is not `whole`."""
        if self.interrupt_in is not None and not self.masked:
            self.interrupt_in -= 1
            if self.interrupt_in <= 0:
                self.interrupt_in = None
                if whole and self.rng.random() < 0.5:
                    effect()
                if self.broken:
                    self.broken = False
                    raise TargetError("the connection to the target broke")
                raise KeyboardInterrupt
        return effect()

    def loaded(self) -> set[str]:
        return set(self.modules)

    def resolve(self, owner: str, function: PatchFunction) -> Place:
        def body(label: str) -> Body:
            code = self.codes[function.old, label]
            return Body(f"{function.old}.{label}", code.start, (Range(code.start, code.end, code.name),))

        assert MODULE.get(function.old, "vmlinux") == owner
        place: Place = self._called(lambda: Place(body(ORIGINAL), body(function.new.partition(".")[2])))
        return place

    def tasks(self) -> list[TaskRow]:
        rows: list[TaskRow] = self._called(self._rows)
        return rows

    def _rows(self) -> list[TaskRow]:
        return [
            TaskRow(task.pid, task.pid, task.kind, task.side, task.pending, task.kind == "idle")
            for task in self.tasks_by_pid.values()
        ]

    def look(self, keys: Sequence[int], ranges: Sequence[Range], sites: Sequence[Range]) -> list[Look]:
        traces = self.traces([self.tasks_by_pid[key] for key in keys])
        found = check.holds(traces, self.map, ranges, choosing=[self.tracer], sites=sites)
        looks = [Look(item, check.trace_of(traces, self.map, i)) for i, item in enumerate(found)]
        result: list[Look] = self._called(lambda: looks)
        return result

    def set_goal(self, goal: Side) -> None:
        def effect() -> None:
            self.goal = goal

        self._called(effect)

    def set_side(self, keys: Sequence[int], side: Side) -> None:
        def effect() -> None:
            for key in keys:
                self.tasks_by_pid[key].side = side

        self._called(effect)

    def set_pending(self, keys: Sequence[int], pending: bool) -> None:
        def effect() -> None:
            for key in keys:
                self.tasks_by_pid[key].pending = pending

        self._called(effect)

    def redirect(self, table: Sequence[Redirect]) -> None:
        def effect() -> None:
            if self.fail_redirect:
                self.fail_redirect -= 1
                raise PatchError("a word of the target could not be written")
            self.table = {row.site: row for row in table if (row.unpatched, row.patched) != (row.site, row.site)}

        self._called(effect)

    def callback(self, owner: str, symbol: str) -> None:
        def effect() -> None:
            if symbol in self.fail_callbacks:
                self.fail_callbacks.remove(symbol)
                raise PatchError(f"{symbol} says no")
            self.called.append((owner, symbol))

        self._called(effect, whole=False)

    def barrier(self) -> None:
        def effect() -> None:
            self.steps(self.rng.randrange(6))
            self._maybe_module(0.2)
            for task in list(self.tasks_by_pid.values()):
                while (
                    task.step in {"tracer", "handler", "handled", "chosen", "leaving"}
                    and task.pid in self.tasks_by_pid
                ):
                    self.step(task)

        self._called(effect)

    def run(self) -> bool:
        def effect() -> None:
            self.steps(self.rng.randrange(1, 40))
            self._maybe_module(0.03)

        self._called(effect)
        return True

    # What happens by itself.

    def _spawn(self, kind: str, parent: Task | None = None) -> Task:
        task = Task(self.next_pid, kind)
        self.next_pid += 1
        if parent is not None:
            task.side, task.pending = parent.side, parent.pending
        task.step = "user" if kind == "user" else "run"
        if kind != "user":
            task.frames = [Frame(self.codes[kind, ORIGINAL])]
        self.tasks_by_pid[task.pid] = task
        return task

    def _maybe_module(self, chance: float) -> None:
        if self.engine is not None and self.restless and self.rng.random() < chance:
            self.toggle_module()

    def toggle_module(self) -> bool:
        """Load the module, or unload it if no task is in it; gives whether that was possible."""
        used = any(
            MODULE.get(name)
            for task in self.tasks_by_pid.values()
            for name in (task.target, *(frame.code.name for frame in task.frames))
        )
        if used:
            return False
        self.masked = True
        here = "mod" in self.modules
        try:
            self.modules.add("mod")
            (self.engine.object_going if here else self.engine.object_coming)("mod")
            here = not here
        except PatchError:
            return False
        finally:
            self.masked = False
            if not here:
                self.modules.remove("mod")
        return True

    def steps(self, count: int) -> None:
        """Let tasks run, in any order."""
        for _ in range(count):
            self.step(self.rng.choice(list(self.tasks_by_pid.values())))

    def step(self, task: Task) -> None:
        """Let one task take its smallest step."""
        self.ticks += 1
        self.current = task
        getattr(self, f"_in_{task.step}")(task)

    def _in_user(self, task: Task) -> None:
        draw = self.rng.random()
        if draw < 0.08 and len(self.tasks_by_pid) < 9:
            self._spawn(self.rng.choice(("user", "user", "kthread")), task)
        elif draw < 0.1 and len(self.tasks_by_pid) > 3:
            del self.tasks_by_pid[task.pid]
        else:
            self._enter_kernel(task)

    def _enter_kernel(self, task: Task) -> None:
        task.frames, task.step = [Frame(self.codes["entry", ORIGINAL], 1)], "run"
        self._call(task, self.rng.choice(ROOTS))

    def _call(self, task: Task, name: str) -> None:
        """Enter a function: straight, or through its patch site."""
        if name in MODULE and MODULE[name] not in self.modules:
            return
        task.target = name
        task.step = "site"

    def _in_site(self, task: Task) -> None:
        site = self.codes[task.target, ORIGINAL].start
        if site in self.table:
            task.step = "tracer"
        else:
            self._enter(task, site)

    def _in_tracer(self, task: Task) -> None:
        self._read(task, first=True)
        task.step = "handler"

    def _in_handler(self, task: Task) -> None:
        self._read(task, first=False)
        row = task.row
        site = self.codes[task.target, ORIGINAL].start
        task.entry = site if row is None else row.patched if task.seen is Side.PATCHED else row.unpatched
        task.step = "handled"

    def _in_handled(self, task: Task) -> None:
        task.step = "chosen"

    def _read(self, task: Task, *, first: bool) -> None:
        """Read the table's row and the task's side, in one order or the other."""
        if first is self.side_first:
            task.seen = task.side
        else:
            task.row = self.table.get(self.codes[task.target, ORIGINAL].start)

    def _in_chosen(self, task: Task) -> None:
        self._enter(task, task.entry)

    def _enter(self, task: Task, entry: int) -> None:
        code = self.by_entry[entry]
        for frame in task.frames:
            pair = (frame.code.name, frame.code.label, code.name, code.label)
            if pair not in self.allowed:
                self.mixes.append(f"task {task.pid}: {pair[0]}.{pair[1]} called {pair[2]}.{pair[3]}")
        task.frames.append(Frame(code))
        task.step, task.target = "run", ""

    def _in_run(self, task: Task) -> None:
        frame = task.frames[-1]
        op, _, name = PROGRAMS[frame.code.name][frame.at].partition(" ")
        if op == "ret":
            task.frames.pop()
        elif op == "exit":
            del self.tasks_by_pid[task.pid]
            if len(self.tasks_by_pid) < 4:
                self._spawn("user", task)
        elif op == "leave":
            self._leave(task)
        elif op in {"again", "idle"}:
            frame.at = 0
            if op == "idle" and task.pending:
                task.side, task.pending = self.goal, False
            elif op == "again":
                self._call(task, self.rng.choice([root for root in ROOTS if root != "die"]))
        else:
            frame.at += 1
            if op == "call":
                self._call(task, name)
            elif op == "maybe" and self.rng.random() < 0.5:
                task.step = "sleep"

    def _leave(self, task: Task) -> None:
        if task.pending:
            task.latched, task.step = self.goal, "leaving"
        else:
            task.frames, task.step = [], "user"

    def _in_leaving(self, task: Task) -> None:
        task.side, task.pending = task.latched, False
        task.frames, task.step = [], "user"

    def _in_sleep(self, task: Task) -> None:
        if not task.parked and self.rng.random() < 0.4:
            task.step = "run"

    # What a walk shows.

    def traces(self, tasks: Sequence[Task]) -> Traces:
        """Give what a walker would, which sees neither a running task nor behind assembly."""
        pcs: list[int] = []
        sources: list[int] = []
        first, reasons = [0], []
        for task in tasks:
            frames, reason = self._walk(task)
            pcs += [pc for pc, _ in frames]
            sources += [source for _, source in frames]
            first.append(len(pcs))
            reasons.append(reason)
        pc, source = np.array(pcs, dtype=np.uint64), np.array(sources, dtype=np.uint8)
        none, zero = np.zeros(pc.size, dtype=np.uint64), np.zeros(len(tasks), dtype=np.uint64)
        return Traces(
            first=np.array(first, dtype=np.int64),
            pc=pc,
            source=source,
            evidence=np.zeros(pc.size, dtype=np.uint16),
            function=self.map.functions.lookup(pc, source != Source.REGS),
            sp=none,
            fp=none,
            ambiguous=none,
            regs=none,
            reason=np.array(reasons, dtype=np.uint8),
            reason_frame=np.zeros(len(tasks), dtype=np.int64),
            reason_addr=zero,
            reason_other=zero,
        )

    def _walk(self, task: Task) -> tuple[list[tuple[int, int]], Reason]:
        if task is self.current and task.step not in {"user", "sleep"} and self.rng.random() < 0.5:
            return [], Reason.ON_CPU
        inner = self._innermost(task)
        if task.step == "leaving":
            return inner, Reason.NONE
        if task.step in {"site", "tracer", "handler", "handled", "chosen"}:
            return [*inner, *(self._return(frame) for frame in task.frames[::-1])], Reason.NONE
        if not task.frames:
            return [], Reason.NONE
        top = task.frames[-1]
        if task.step == "sleep":
            return [self._return(frame) for frame in task.frames[::-1]], Reason.NONE
        here = (top.code.start + 8 + 4 * top.at, int(Source.REGS))
        if top.code.name == "asm":
            return [here], Reason.NO_RULE_AT_BOUNDARY
        return [here, *(self._return(frame) for frame in task.frames[-2::-1])], Reason.NONE

    def _innermost(self, task: Task) -> list[tuple[int, int]]:
        """Give the frames of a task that is on its way into a function, or out of the kernel."""
        exact, frame = int(Source.REGS), int(Source.FRAME)
        site = self.codes[task.target, ORIGINAL].start if task.target else 0
        return {
            "site": [(site + 4, exact)],
            "tracer": [(self.tracer.start + 8, exact), (site + 8, frame)],
            "handler": [(self.handler.start + 8, exact), (self.tracer.start + 20, frame), (site + 8, frame)],
            "handled": [(self.handler.start + 48, exact), (self.tracer.start + 20, frame), (site + 8, frame)],
            "chosen": [(self.tracer.start + 40, exact)],
            "leaving": [(self.leaving.start + 8, exact)],
        }.get(task.step, [])

    def _return(self, frame: Frame) -> tuple[int, int]:
        """Give a return address: behind the operation that was begun last."""
        return frame.code.start + 8 + 4 * frame.at, int(Source.FRAME)

    # What is true.

    def astray(self, patches: Sequence[str]) -> list[str]:
        """Name the tasks that are in, or about to enter, another version than these patches in force give."""
        versions, found = naive(patches), []
        for task in self.tasks_by_pid.values():
            codes = [frame.code for frame in task.frames]
            if task.step in {"handled", "chosen"}:
                codes.append(self.by_entry[task.entry])
            found += [f"task {task.pid} is in {c.name}.{c.label}" for c in codes if c.label != versions[c.name]]
        return found

    def is_in(self, pid: int, name: str) -> bool:
        """Whether a task really is in some version of a function, on its way in counted."""
        task = self.tasks_by_pid[pid]
        return task.target == name or any(frame.code.name == name for frame in task.frames)
