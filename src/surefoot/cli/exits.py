"""Layer 9: what the exit status of `surefoot` means.

Invariant: a status tells three things apart that must never be mixed: the answer (0 or 1), the absence of an
answer (2 and above), and the reader's own wish to stop. A fault of Surefoot itself never looks like an answer.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """Exit statuses of every command."""

    WELL = 0
    """The command did what it was asked, and the answer to its question is yes."""
    NO = 1
    """The question has an answer and it is no: a stack is unreliable, a finding is at or above the threshold,
    a transition is incomplete."""
    BAD = 2
    """No answer: wrong usage, bad input, or something missing in the environment. A sentence on stderr says what."""
    FAULT = 70
    """No answer: Surefoot itself is at fault. The traceback on stderr belongs in a report (EX_SOFTWARE)."""
    INTERRUPTED = 130
    """Stopped from the keyboard (128 + SIGINT)."""
    PIPE_CLOSED = 141
    """Whoever read the output went away (128 + SIGPIPE); nothing is printed about it."""
