"""Layer 2: every finding code of `check`: how bad it is, what it means, who repairs it and how.

Invariant: a code's meaning never changes; a code that is no longer reported keeps its line.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

__all__ = ["CATALOGUE", "CodeInfo", "Severity"]


class Severity(IntEnum):
    """How bad a finding is; `sframe check` exits with 1 if there is an ERROR."""

    NOTE = 0
    """Legal, and worth knowing."""
    WARNING = 1
    """Some readers refuse or misread it, or it is surely not meant."""
    ERROR = 2
    """Against the specification, or wrong about the code."""


class CodeInfo(NamedTuple):
    """What a code stands for.

    Attributes:
        severity: how bad.
        owner: who can repair it: producer (assembler, linker, converter), source (the assembly code), nobody.
        meaning: one sentence.
        fix: one sentence.
    """

    severity: Severity
    owner: str
    meaning: str
    fix: str


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE
_REBUILD: Final = "Make the section again, by the tools that wrote it or by `surefoot sframe convert`."
_TOOL: Final = "producer"
_SOURCE: Final = "source"


def _tool(severity: Severity, meaning: str, fix: str = _REBUILD) -> CodeInfo:
    """Give the entry of a fault that the producing tool has to repair."""
    return CodeInfo(severity, _TOOL, meaning, fix)


CATALOGUE: Final[dict[str, CodeInfo]] = {
    # Structure: the reader cannot go on, or only with a part.
    "sframe-header-short": _tool(_E, "The section is shorter than a header."),
    "sframe-magic": _tool(_E, "The bytes do not start with SFrame's magic number."),
    "sframe-version": _tool(_E, "The version is not 1, 2 or 3."),
    "sframe-abi": _tool(_E, "The ABI number is not one of AArch64, AMD64 and s390x."),
    "sframe-flags": _tool(_E, "Header flags are set that the version does not define."),
    "sframe-byte-order": _tool(_E, "The byte order of the magic number is not that of the ABI."),
    "sframe-aux-short": _tool(_E, "The auxiliary header reaches beyond the section."),
    "sframe-fdes-outside": _tool(_E, "The descriptor table reaches beyond the section."),
    "sframe-fres-outside": _tool(_E, "The row sub-section reaches beyond the section."),
    "sframe-parts-overlap": _tool(_E, "Descriptors and rows share bytes."),
    "sframe-row-count": _tool(_E, "The header's number of rows is not the sum over the descriptors."),
    "sframe-trailing-bytes": _tool(_E, "Bytes that are not zero follow the last table."),
    "sframe-attribute-outside": _tool(_E, "A descriptor's attribute record lies outside the row sub-section."),
    "sframe-fre-type": _tool(_E, "A descriptor's row type (width of row starts) does not exist."),
    "sframe-rows-outside": _tool(_E, "A descriptor's rows reach beyond the row sub-section."),
    "sframe-rows-shared": _tool(_E, "The descriptors claim more rows than the sub-section can hold."),
    "sframe-word-size": _tool(_E, "A row's word size code is 3, which does not exist."),
    "sframe-too-many-tables": _tool(_E, "More tables stand back to back than are read.", "Link with GNU ld."),
    # Header.
    "sframe-machine": _tool(_E, "The ABI is not that of the ELF file."),
    "sframe-aux-present": _tool(_W, "There is an auxiliary header; GNU ld and the kernel's reader refuse it."),
    "sframe-fixed-offsets": _tool(_W, "The fixed FP or RA offset is not the one that the ABI's tools write."),
    "sframe-no-functions": _tool(_N, "The table has no descriptors; the kernel's reader refuses it."),
    "sframe-flag-unsorted": _tool(_W, "A linked table is not marked as sorted; readers cannot search it."),
    "sframe-flag-not-pcrel": _tool(
        _W, "Starts of a linked table are not relative to their fields; new readers ask for it."
    ),
    "sframe-several-tables": _tool(_N, "Several tables stand back to back; many readers see only the first."),
    "sframe-unclaimed-bytes": _tool(_W, "Bytes of the row sub-section belong to no descriptor."),
    # Descriptors.
    "sframe-unsorted": _tool(_E, "The table is marked as sorted, but a start is below its predecessor's."),
    "sframe-equal-starts": _tool(_E, "Two descriptors start at the same address."),
    "sframe-overlap": _tool(_E, "Two functions claim the same addresses."),
    "sframe-zero-size": _tool(_W, "A function covers no address.", "Drop the empty function from the source."),
    "sframe-wraps": _tool(_E, "A function reaches beyond the address space."),
    "sframe-row-blocks-overlap": _tool(_E, "Two descriptors share bytes of the row sub-section."),
    "sframe-narrow-rows": _tool(_E, "Row starts are too narrow for the function's size."),
    "sframe-padding": _tool(_W, "A descriptor's padding is not zero."),
    "sframe-info-bits": _tool(_W, "Bits of func_info are set that the version does not define."),
    "sframe-info2-bits": _tool(_W, "Unused bits of func_info2 are set."),
    "sframe-fde-type": _tool(_E, "A descriptor's type is neither default nor flexible."),
    "sframe-key": _tool(_W, "A key for signed return addresses is chosen on an ABI that has none."),
    "sframe-rep-size": _tool(_E, "The size of a repeated block is missing."),
    "sframe-rep-size-idle": _tool(_W, "The size of a repeated block is given where nothing repeats."),
    "sframe-code-align": _tool(_W, "A function's start or size is no multiple of an instruction's size."),
    "sframe-no-rows": CodeInfo(
        _N,
        _SOURCE,
        "A descriptor has no rows: by the specification an outermost frame; gas also writes it for CFI it cannot "
        "translate.",
        "If the function has a caller, give it CFI that SFrame can hold.",
    ),
    "sframe-relocation-missing": _tool(_N, "No relocation says where a function is; the linker has discarded it."),
    "sframe-relocation-stray": _tool(_E, "A relocation does not point at a descriptor's start."),
    "sframe-relocation-type": _tool(_E, "A relocation is not of the kind that a descriptor's start needs."),
    "sframe-relocation-order": _tool(_W, "Relocations are not in the order of the descriptors, as GNU ld assumes."),
    # Rows.
    "sframe-row-order": _tool(_E, "Rows of a function are not in strictly ascending order."),
    "sframe-row-outside": _tool(_E, "A row starts behind the end of its function or repeated block."),
    "sframe-row-at-end": _tool(_N, "A row starts at the end of its function and covers nothing."),
    "sframe-row-repeats": _tool(_N, "A row says the same as the one before it."),
    "sframe-first-row": _tool(
        _W, "The first row starts above the function's start; the bytes before it have no rule."
    ),
    "sframe-word-count": _tool(_E, "A row has a number of data words that its ABI does not define."),
    "sframe-flex-words": _tool(_E, "The words of a flexible row break off, or words are left over."),
    "sframe-flex-cfa": _tool(_E, "The CFA of a flexible row is not based on a register."),
    "sframe-flex-bits": _tool(_W, "Unused bits of a flexible row are set."),
    "sframe-flex-padding": _tool(_W, "A flexible row ends with padding words."),
    "sframe-flex-register": _tool(_E, "A flexible row names a register that the ABI does not have."),
    "sframe-flex-scratch": CodeInfo(
        _N,
        _SOURCE,
        "A rule depends on a register other than SP and FP; it can only be used for the innermost frame.",
        "Base the CFI of code that calls on SP or FP.",
    ),
    "sframe-outermost-early": _tool(_W, "A row without words has no defined meaning in version 1."),
    "sframe-outermost-bits": _tool(_W, "The info byte of a row without words is not zero."),
    "sframe-signed": _tool(_W, "A return address is marked as signed on an ABI that does not sign."),
    "sframe-below-sp": CodeInfo(
        _E,
        _SOURCE,
        "A row names a slot below SP; the next exception overwrites it before anybody can read it.",
        "Restore the register in the CFI before (or with) the instruction that pops the frame.",
    ),
    "sframe-cfa-below-sp": CodeInfo(_E, _SOURCE, "The CFA lies below SP.", "Correct the CFA offset in the CFI."),
    "sframe-slot-above-cfa": _tool(_W, "A saved register is said to lie at or above the CFA, in the caller's frame."),
    "sframe-ra-above-cfa": _tool(
        _E, "The call instruction pushes the return address below the CFA, but the row says it is above."
    ),
    "sframe-same-slot": _tool(_E, "FP and return address are said to lie in the same slot."),
    "sframe-ra-zero": _tool(
        _W, "A return address offset of 0: padding to GNU tools and the kernel, CFA+0 to the specification."
    ),
    "sframe-cfa-align": _tool(_W, "A CFA offset from SP is no multiple of eight."),
    "sframe-slot-align": _tool(_W, "The offset of a saved register is no multiple of eight."),
    "sframe-entry-state": CodeInfo(
        _N,
        _SOURCE,
        "The rules at a function's first address are not those at entry (right for a part that was split off).",
        "Start the CFI of a function with the entry state.",
    ),
    # Coverage and comparison.
    "sframe-uncovered": CodeInfo(
        _W,
        _SOURCE,
        "A function has no descriptor.",
        "Give assembly code CFI; where the assembler dropped a function, `surefoot sframe convert` may hold it.",
    ),
    "sframe-outside-code": _tool(_E, "A descriptor covers bytes that are not code."),
    "sframe-cfi-differs": _tool(_E, "The rule differs from the CFI of the same file."),
    "sframe-cfi-only": _tool(_W, "The CFI has a rule here, SFrame has none."),
    "sframe-cfi-missing": CodeInfo(
        _N, "nobody", "SFrame has a rule here, the CFI has none to compare it with.", "Nothing needs repair."
    ),
    "sframe-cfi-unusable": CodeInfo(
        _N, _SOURCE, "The CFI of a function could not be decoded, so SFrame was not compared.", "Correct the CFI."
    ),
}
