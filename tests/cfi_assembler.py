"""Turns .cfi_* directives with offsets, as the audit suggests them, into the bytes an assembler would write.

Source:
    GNU as manual, "CFI directives"; DWARF 5, section 6.4.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cfi_builder import advance, def_cfa, def_cfa_offset, offset, restore

__all__ = ["assemble"]

_LINE: Final = re.compile(r"\+0x([0-9a-f]+): (.+)")


def assemble(lines: Sequence[str]) -> tuple[bytes, int]:
    """Assemble lines such as "+0x8: .cfi_def_cfa_offset 16; .cfi_offset 29, -16".

    Returns:
        the instructions of a call frame program (code alignment 4, data alignment -8), and the size of the function.
    """
    code, at, end = b"", 0, 0
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        assert match, line
        where = int(match[1], 16)
        if where > at and number < len(lines) - 1:
            delta = (where - at) // 4
            code += advance(delta) if delta < 0x40 else advance(delta, 4)
            at = where
        for words in match[2].split("; "):
            name, _, rest = words.partition(" ")
            numbers = [int(each) for each in rest.split(", ")] if rest else []
            assert (name == ".cfi_startproc") == (number == 0), line
            assert (name == ".cfi_endproc") == (number == len(lines) - 1), line
            if name == ".cfi_def_cfa":
                code += def_cfa(*numbers)
            elif name == ".cfi_def_cfa_offset":
                code += def_cfa_offset(*numbers)
            elif name == ".cfi_offset":
                code += offset(numbers[0], numbers[1] // -8)
            elif name == ".cfi_restore":
                code += restore(*numbers)
            else:
                assert name in {".cfi_startproc", ".cfi_endproc"}, line
        end = where
    return code, end
