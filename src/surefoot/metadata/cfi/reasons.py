"""Layer 2: why the rows of a function are incomplete.

Invariant: the first thing in a program that cannot be decoded exactly ends it, by name; what came before stands.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from surefoot.dtypes import Off, Row, Row32

__all__ = ["Refusals"]

_LIMIT: Final = 32_000
"""Different sentences that a table can hold (its index has 16 bits); only made-up input has more."""
_OVERFULL: Final = "refused for a reason that is no longer listed: the table holds too many different ones"


class Refusals:
    """Collects (program, place, sentence) and keeps the first place of each program.

    Attributes:
        sentences: what `reason` indexes.
    """

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self._index: dict[str, int] = {}
        self._found: list[tuple[Row, Row, Row]] = []

    def number(self, sentence: str) -> int:
        """Give the index of a sentence, which is added if it is new."""
        if sentence not in self._index:
            if len(self.sentences) >= _LIMIT:
                sentence = _OVERFULL
            self._index.setdefault(sentence, len(self.sentences))
            if self._index[sentence] == len(self.sentences):
                self.sentences.append(sentence)
        return self._index[sentence]

    def add(self, lane: Row | Row32, place: Row, sentence: str) -> None:
        """Refuse programs from a place on.

        Args:
            lane: (k,) program numbers.
            place: (k,) int64, offset of the instruction in the section, or -1 for the whole program.
            sentence: the reason.
        """
        if lane.size:
            reason = np.full(lane.size, self.number(sentence))
            self._found.append((lane.astype(np.int64), place.astype(np.int64), reason))

    def add_whole(self, sentences: list[str], which: Row) -> None:
        """Refuse whole programs.

        Args:
            sentences: reasons; an empty one refuses nothing.
            which: (programs,) int64, index of each program's.
        """
        used = np.bincount(which, minlength=len(sentences)).tolist()
        both = zip(sentences, used, strict=True)
        number = np.array([self.number(text) if text and count else -1 for text, count in both], dtype=np.int64)
        lane = np.flatnonzero(number[which] >= 0)
        if lane.size:
            self._found.append((lane, np.full(lane.size, -1), number[which][lane]))

    def first(self, lanes: int) -> tuple[Off, NDArray[np.int16]] | None:
        """Give the first refused place of each program.

        Returns:
            (lanes,) int64 place, beyond everything where nothing was refused, and (lanes,) int16 index of the
            sentence or -1; None where no program was refused.
        """
        if not self._found:
            return None
        lane = np.concatenate([item[0] for item in self._found])
        place = np.concatenate([item[1] for item in self._found])
        reason = np.concatenate([item[2] for item in self._found])
        order = np.lexsort((-np.arange(lane.size), -place))  # the last write wins: earliest place, then first added
        where = np.full(lanes, np.iinfo(np.int64).max, dtype=np.int64)
        why = np.full(lanes, -1, dtype=np.int16)
        where[lane[order]] = place[order]
        why[lane[order]] = reason[order]
        return where, why
