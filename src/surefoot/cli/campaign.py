"""Layer 9: `surefoot campaign`: every way of walking against the truth, at every instruction of the machine's load.

Invariant: the result depends on the options only, not on how many processes share the work or how often it was
interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from surefoot.cli.console import Globals, global_options, pass_globals, print_json, progress
from surefoot.cli.exits import Exit
from surefoot.errors import Unavailable

if TYPE_CHECKING:
    from surefoot.machine.campaign import Job, Outcome

__all__ = ["campaign"]

_TRACERS: Final = ("none", "graph", "kretprobes", "both")
_CONTENDERS: Final = ("fp-first", "lr-first", "fp-reliable", "sframe", "hybrid")
_WINDOWS: Final = ("body", "prologue", "epilogue", "leaf", "assembly", "bare", "entry", "trampoline")
_EXCUSED: Final = ("bare", "entry", "trampoline")
_COLUMNS: Final = ("exact", "missing", "invented", "refused", "wrong_reliable")
_STATE: Final = "surefoot-campaign/2"


class _Sites(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """`every`, or a number: one in so many."""

    name = "every|N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "every":
            return 1
        if isinstance(value, int):
            return value
        if not str(value).isdigit() or int(str(value)) < 1:
            self.fail(f"{value!r} is neither 'every' nor a number above 0", param, ctx)
        return int(str(value))


@click.command()
@click.option(
    "--mode", "modes", multiple=True, type=click.Choice(_CONTENDERS), help="A walker to try; all by default."
)
@click.option("--sites", type=_Sites(), default="every", help="Try every distinct boundary, or one in N.  [every]")
@click.option("--boundaries", type=click.IntRange(1), default=200_000, show_default=True, help="How many to try.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the first run.")
@click.option("--tracing", "tracers", multiple=True, type=click.Choice(_TRACERS), help="Tracers on; all in turn.")
@click.option("--processes", type=click.IntRange(1), default=None, help="How many share the work; all cores.")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="Go on from this file, and keep it.")
@global_options
@pass_globals
def campaign(
    held: Globals,
    *,
    modes: tuple[str, ...],
    sites: int,
    boundaries: int,
    seed: int,
    tracers: tuple[str, ...],
    processes: int | None,
    state: Path | None,
) -> Exit:
    """Try every walker at every instruction of the emulated machine's load, against the truth.

    A boundary is an instruction reached by a distinct chain of calls and exceptions. Each walker is asked for the
    stack there from outside, as a debugger sees the stopped machine; at some of them an interrupt is injected and
    the stack is walked as its handler would; and so are the tasks that are switched out. The table says how many
    traces are the truth frame by frame, miss a caller, invent one, or are refused; and how many were called reliable
    and are wrong.

    Exit status: 0 if the hybrid walk was never wrong, 1 if it was, 2 if there is no answer.
    """
    from surefoot.machine.campaign import Outcome, plan

    chosen = tuple(dict.fromkeys(modes)) or _CONTENDERS
    tracings = [_TRACERS.index(name) for name in dict.fromkeys(tracers)] or list(range(len(_TRACERS)))
    jobs = plan(boundaries, seed=seed, tracings=tracings, every=sites)
    total = Outcome()
    finished = _load(state, chosen)
    with progress(held, "walking", total=sum(job.boundaries for job in jobs)) as advance:
        for job, found in _run(jobs, chosen, finished, processes or os.cpu_count() or 1):
            finished[job.name] = found.to_json()
            if state is not None:
                _save(state, chosen, finished)
            advance(job.boundaries)
    for job in jobs:  # in the order of the plan, so that the first few wrong verdicts are always the same
        total.add(Outcome.from_json(finished[job.name]))
    if held.json:
        print_json(_json(total, chosen))
    else:
        for line in _table(total, chosen):
            click.echo(line)
    wrong = total.total("hybrid")["wrong_reliable"] if "hybrid" in chosen else 0
    return Exit.NO if wrong else Exit.WELL


def _run(
    jobs: list[Job], modes: tuple[str, ...], finished: dict[str, dict[str, object]], processes: int
) -> Iterator[tuple[Job, Outcome]]:
    """Run the jobs that are not finished, in this process or several."""
    from surefoot.machine.campaign import run_job
    from surefoot.machine.contenders import Contender

    contenders = [Contender(mode) for mode in modes]
    todo = [job for job in jobs if job.name not in finished]
    if processes == 1 or len(todo) == 1:
        for job in todo:
            yield job, run_job(job, contenders)
        return
    with ProcessPoolExecutor(min(processes, len(todo) or 1)) as pool:
        waiting = {pool.submit(run_job, job, contenders): job for job in todo}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _load(path: Path | None, modes: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Read what earlier runs have finished.

    Raises:
        Unavailable: the file is something else, or of other walkers.
    """
    if path is None or not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["state"] != _STATE or tuple(data["modes"]) != modes:
            raise Unavailable(f"{path} is of another campaign", hint="name another file, or the same --mode")
        return {str(name): dict(found) for name, found in data["jobs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"{path} is not the state of a campaign") from error


def _save(path: Path, modes: tuple[str, ...], finished: dict[str, dict[str, object]]) -> None:
    """Keep what is finished; the file is whole at every moment."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps({"state": _STATE, "modes": modes, "jobs": finished}), encoding="utf-8")
    draft.replace(path)


def _counts(total: Outcome, mode: str, *, view: str = "", window: str = "") -> dict[str, int]:
    found = total.total(mode, view=view, window=window)
    return {name: found[name] for name in ("tried", *_COLUMNS)}


def _json(total: Outcome, modes: tuple[str, ...]) -> dict[str, object]:
    """Give the object of surefoot.campaign/1."""
    return {
        "schema": "surefoot.campaign/1",
        "boundaries": total.total(modes[0], view="outside")["tried"],
        "addresses": len(total.addresses),
        "walkers": {mode: _counts(total, mode) for mode in modes},
        "views": {
            view: {mode: _counts(total, mode, view=view) for mode in modes}
            for view in ("outside", "inside", "blocked")
        },
        "windows": {window: {mode: _counts(total, mode, window=window) for mode in modes} for window in _WINDOWS},
        "refusals": {
            "reasons": dict(total.reasons.most_common()),
            "outside_excused_places": total.unexcused,
            "interrupted": {
                window: {"refused": sum(_refused(total, window)), "owed": _refused(total, window)[1]}
                for window in _WINDOWS
            },
        },
        "wrong": [
            {
                "walker": each.contender,
                "instructions": each.count,
                "run": each.job,
                "said": [f"0x{addr:016x}" for addr in each.said],
                "truth": [f"0x{addr:016x}" for addr in each.truth],
            }
            for each in total.wrong
        ],
    }


def _table(total: Outcome, modes: tuple[str, ...]) -> Iterator[str]:
    """Give the tables as lines."""
    tried = total.total(modes[0], view="outside")["tried"]
    yield f"{tried:,} boundaries at {len(total.addresses):,} instruction addresses"
    views = {
        "outside": "at every boundary",
        "inside": "from an injected interrupt",
        "blocked": "of switched-out tasks",
    }
    for view, words in views.items():
        yield ""
        yield from _block(words, {mode: _counts(total, mode, view=view) for mode in modes})
    for window in _WINDOWS:
        yield ""
        yield from _block(window, {mode: _counts(total, mode, window=window) for mode in modes})
    if "hybrid" in modes:
        yield ""
        yield "refusals of the hybrid walk, by reason and place ('!': where an answer was owed)"
        for name, count in total.reasons.most_common():
            yield f"  {count:>12,}  {name}"
        yield ""
        yield from _shares(total)


def _refused(total: Outcome, window: str) -> tuple[int, int]:
    """Give the refusals of the hybrid walk at boundaries of a window: rightly, and where an answer was owed."""
    return total.refused[window], total.refused[f"{window}!"]


def _shares(total: Outcome) -> Iterator[str]:
    """Say how many answers were owed."""
    windows = [window for window in _WINDOWS if window not in _EXCUSED]
    tried = sum(total.total("hybrid", window=window)["tried"] for window in windows)
    outer = sum(_refused(total, window)[0] for window in windows)
    where = "entry code, trampolines and bare assembly"
    yield f"{tried:,} boundaries outside {where}; of these refused:"
    for count, why in (
        (total.unexcused, "where an answer was owed"),
        (outer, "because an exception further out, or a call, came from such a place"),
    ):
        yield f"  {count:>12,}  {count / max(tried, 1):>8.3%}  {why}"


def _block(title: str, counts: dict[str, dict[str, int]]) -> Iterator[str]:
    """Give one table."""
    yield f"{title:<28}{'tried':>12}" + "".join(f"{name.replace('_', ' '):>16}" for name in _COLUMNS)
    for mode, found in counts.items():
        yield f"  {mode:<26}{found['tried']:>12,}" + "".join(f"{found[name]:>16,}" for name in _COLUMNS)
