"""Layer 9: lets a way of patching run, shows its events, and hands it every interruption in an orderly manner.

Invariant: whatever ends a command (Ctrl-C, SIGTERM, a lost terminal, a closed pipe, an error of the view), the
generator of the backend gets to its end: it is told by KeyboardInterrupt where it may speak once more, else by
GeneratorExit. An interruption never strikes while an event is being shown.
"""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from types import FrameType, TracebackType
from typing import Final, Self, TypeVar, cast

from surefoot.patch.events import Event, EventKind

__all__ = ["Interrupts", "follow"]

_T = TypeVar("_T")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ABANDON: Final = 3
"""The first Ctrl-C asks for an orderly end, the second one is told to wait, this one is obeyed at once."""
_FINAL: Final = frozenset({EventKind.COMPLETED, EventKind.FAILED})


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as KeyboardInterrupt while a step of the backend runs; elsewhere they wait.

    A signal that is ignored (nohup) stays so. Ctrl-Z is refused: it could stop this program while a guest is paused.

    Args:
        note: says a sentence to the person at the keyboard.

    Attributes:
        count: how many came.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._before: dict[signal.Signals, object] = {}
        self._open = False
        self._pending = False
        self.count = 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for each in (*_SIGNALS, signal.SIGTSTP):
                if signal.getsignal(each) is not signal.SIG_IGN:
                    self._before[each] = signal.signal(each, self._take if each in _SIGNALS else self._refuse)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, cast("signal.Handlers", signal.SIG_DFL if handler is None else handler))

    @property
    def abandoned(self) -> bool:
        """Whether somebody insisted, so that the backend may not have finished."""
        return self.count >= _ABANDON

    def _take(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.count += 1
        if self.abandoned:
            raise KeyboardInterrupt
        if self.count > 1:
            self._note("still putting the target in order; press Ctrl-C once more to abandon it as it is")
        elif self._open:
            raise KeyboardInterrupt
        else:
            self._pending = True

    def _refuse(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._note("this cannot be suspended while it works on its target")

    @property
    def delivered(self) -> bool:
        """Whether an interruption came and does not wait."""
        return self.count > 0 and not self._pending

    def take_pending(self) -> bool:
        """Say whether an interruption waited, and take it."""
        pending, self._pending = self._pending, False
        return pending

    def run(self, step: Callable[[], _T]) -> _T:
        """Run a step in which an interruption may strike.

        Raises:
            KeyboardInterrupt: it did, and the step did not deal with it.
        """
        self._open = True
        try:
            return step()
        finally:
            self._open = False


def follow(events: Iterator[Event], show: Callable[[Event], None], interrupts: Interrupts, *, watching: bool) -> bool:
    """Show events until there are no more; an interruption goes into the generator, which may say its last word.

    Args:
        events: a generator of a `Backend`.
        show: called with each event.
        interrupts: in force.
        watching: COMPLETED and FAILED are not the end: another patch may follow.

    Returns:
        whether the last event shown is where the target stands. It is not if the generator let itself be
        interrupted without a word.

    Raises:
        KeyboardInterrupt: the third interruption; the generator may not have finished.
    """
    generator = cast("Generator[Event, None, None]", events)
    told, final, struck, heard = True, False, False, False
    try:
        while True:
            try:
                event = _step(generator, interrupts, final=final, struck=struck)
            except StopIteration:
                return told
            except KeyboardInterrupt:
                if interrupts.abandoned:
                    raise
                # What the generator said after it had been told stands; so does its last word.
                told = final or (heard and told)
                heard = True
                if inspect.getgeneratorstate(generator) == inspect.GEN_CLOSED:
                    return told
                # It struck between us and the generator, which has not heard of it.
                struck = True
                continue
            struck, told, heard = False, True, heard or interrupts.delivered
            final = not watching and event.kind in _FINAL
            show(event)
    finally:
        generator.close()


def _step(generator: Generator[Event, None, None], interrupts: Interrupts, *, final: bool, struck: bool) -> Event:
    """Get the next event; what waited is thrown in, except after the last word."""
    if final:
        return next(generator)
    if struck or interrupts.take_pending():
        return generator.throw(KeyboardInterrupt())
    return interrupts.run(lambda: next(generator))
