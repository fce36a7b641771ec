"""Layer 3: from an image to its unwind rules.

Invariant: the rules are the compiler's own, of one source for the whole image; which one is known from
`FunctionIndex.provenance`. Sources are never mixed: where they differ, that is a finding for the audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from surefoot.errors import InputError, Unsupported
from surefoot.image.binary import Image
from surefoot.image.elf import FileType
from surefoot.image.model import Relocations, SectionType
from surefoot.metadata import cfi, sframe
from surefoot.metadata.rules import Provenance, RuleTable, concatenate

__all__ = ["PREFERENCE", "load_rules", "rule_sections", "rule_sources"]

PREFERENCE: Final = (Provenance.DEBUG_FRAME, Provenance.EH_FRAME, Provenance.SFRAME)
"""Call frame information first: it covers the most functions of today's kernels, and says the most of each."""
_NAMES: Final = {
    Provenance.DEBUG_FRAME: (".debug_frame",),
    Provenance.EH_FRAME: (".eh_frame",),
    Provenance.SFRAME: (".sframe", ".init.sframe"),
}


def rule_sections(image: Image, source: Provenance) -> list[int]:
    """Give the section header indices that hold metadata of one kind, empty sections left out."""
    table = image.elf.sections
    found = [index for name in _NAMES[source] for index in table.find(name)]
    if source == Provenance.SFRAME:
        found += np.flatnonzero(table.kind == SectionType.SFRAME).tolist()
    return [
        index
        for index in sorted(set(found))
        if table.kind[index] != SectionType.NOBITS and int(table.size[index]) > 0
    ]


def rule_sources(image: Image) -> tuple[Provenance, ...]:
    """Give which kinds of unwind metadata the image has, most preferred first."""
    return tuple(source for source in PREFERENCE if rule_sections(image, source))


def load_rules(image: Image, preference: Sequence[Provenance] = PREFERENCE) -> RuleTable:
    """Decode the unwind metadata of an image, from the first source of `preference` that it has.

    Whether the image is placed does not matter: the table is as in the file, so that it can be kept by
    build-id. For a relocatable object starts are offsets in `functions.section`; `RuleTable.placed(bases)`
    gives addresses.

    Args:
        image: kernel or module.
        preference: sources to try, in order.

    Returns:
        one function per descriptor, unmerged, ABI defaults not applied.

    Raises:
        Unsupported: the image has none of these sources, or one that is of a kind that is not read.
        Truncated, Inconsistent, UnknownVersion: the metadata are damaged.
    """
    for source in preference:
        sections = rule_sections(image, source)
        if sections:
            return concatenate([_decode(image, source, index) for index in sections])
    wanted = ", ".join(name for source in preference for name in _NAMES[source][:1])
    hint = "Give the file with debug symbols of the same build."
    raise Unsupported(f"has no unwind metadata ({wanted})", file=image.path, hint=hint)


def _decode(image: Image, source: Provenance, index: int) -> RuleTable:
    """Decode one section."""
    elf = image.elf
    data = elf.section_bytes(index)
    addr = int(elf.sections.addr[index])
    found = elf.relocations(index) if elf.type == FileType.REL else None
    try:
        if source == Provenance.SFRAME:
            return sframe.decode(data, section_addr=addr, relocations=found).to_rules()
        decode = cfi.decode_debug_frame if source == Provenance.DEBUG_FRAME else cfi.decode_eh_frame
        return decode(data, section_addr=addr, relocations=_for_cfi(found))
    except InputError as error:
        error.section = elf.sections.names[index]
        raise error.at(file=elf.name) from error.__cause__


def _for_cfi(found: Relocations | None) -> cfi.Relocations | None:
    """The same columns in the class that the CFI decoder takes."""
    if found is None:
        return None
    return cfi.Relocations(found.offset, found.type, found.symbol_value, found.symbol_section, found.addend)
