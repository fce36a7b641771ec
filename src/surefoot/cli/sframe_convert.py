"""Layer 9: `surefoot sframe convert`: the work behind the command.

Invariant: the output file is complete or absent; the input is never written to.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from surefoot.errors import Unsupported
from surefoot.image.elfwrite import Addition, add_sframe, sframe_address
from surefoot.metadata import sframe
from surefoot.metadata.sframe import fitting
from surefoot.report.schema import address as show_address
from surefoot.report.sframe_dump import header_json
from surefoot.report.sframe_text import SCHEMA_CONVERT

if TYPE_CHECKING:
    from surefoot.cli.sframe_input import Input
    from surefoot.metadata.rules import RuleTable
    from surefoot.metadata.sframe import Built, LeftOut

__all__ = ["Summary", "convert_file"]

_HARMLESS: Final = frozenset(fitting.LEFT_OUT[code] for code in (fitting.EMPTY, fitting.DUPLICATE, fitting.NO_RULES))
"""Reasons that lose nothing: no address, no rule, or the same rules are written once."""


@dataclass(frozen=True)
class Summary:
    """What was written, and what was not.

    Attributes:
        output: the file.
        source: where the rules came from.
        built: the section.
        names: symbol of each function left out.
        cfi_sizes: bytes of the file's CFI sections.
    """

    output: Path
    source: str
    built: Built
    names: list[str]
    cfi_sizes: dict[str, int]

    @property
    def is_complete(self) -> bool:
        """Whether every function with rules of its own was written."""
        return all(item.reason in _HARMLESS for item in self.built.left_out)

    def _entry(self, item: LeftOut, name: str) -> dict[str, object]:
        """Give a function that was left out as JSON."""
        place = {"start": show_address(item.start), "size": item.size, "section": item.section}
        return {"symbol": name} | place | {"reason": item.reason}

    def json(self) -> dict[str, object]:
        """Give the object of `surefoot.sframe-convert/1`."""
        left = [self._entry(item, name) for item, name in zip(self.built.left_out, self.names, strict=True)]
        head: dict[str, object] = {"schema": SCHEMA_CONVERT, "output": str(self.output), "source": self.source}
        flexible = sum(int(table.fdes.is_flex.sum()) for table in self.built.section.tables)
        more = {"flexible": flexible, "cfi": self.cfi_sizes, "left_out": left}
        return head | header_json(self.built.section) | more

    def text(self) -> Iterator[str]:
        """Yield the summary for people."""
        made = self.built.section
        yield f"{self.output}: SFrame version {made.version} from {self.source}: "
        yield f"{made.num_fdes} functions, {made.num_fres} rows, {made.size} bytes\n"
        for reason, count in Counter(item.reason for item in self.built.left_out).most_common():
            yield f"{count} left out: {reason}\n"
        for item, name in zip(self.built.left_out, self.names, strict=True):
            where = f" section {item.section}" if item.section >= 0 else ""
            yield f"    {item.start:016x}{where} {name or '(no symbol)'} {item.size} bytes: {item.reason}\n"


def convert_file(given: Input, output: Path, *, version: int, source: str, raw: bool, address: int | None) -> Summary:
    """Convert and write.

    Raises:
        Unsupported: no such source in the file; a bare section of a relocatable object was asked for.
        InputError: the source is damaged.
        OSError: the output cannot be written.
    """
    from_cfi = source == "cfi" or (source == "auto" and given.has_usable_cfi)
    rules: RuleTable = given.cfi() if from_cfi else given.section.to_rules()
    bare = raw or given.elf is None
    if bare and given.is_relocatable:
        hint = "Leave out --raw: the section of an object needs its relocations."
        raise Unsupported("is relocatable", file=str(given.path), hint=hint)
    if address is not None and not bare:
        raise Unsupported("an address is chosen for bare sections only (--raw)", file=str(given.path))
    where = address
    if where is None:
        where = given.address if given.elf is None else sframe_address(given.elf)
    built = sframe.from_rules(rules, version=version, section_addr=where, relocatable=given.is_relocatable)
    content = sframe.encode(built.section)
    if bare or given.elf is None:
        _write(output, None, Addition(content, b""))
    else:
        _write(output, given.path, add_sframe(given.elf, content, built.relocations))
    index = rules.functions
    named = given.symbols_of(index) if built.left_out else []
    names = [named[item.func] for item in built.left_out]
    return Summary(output, "CFI" if from_cfi else "SFrame", built, names, given.cfi_sizes)


def _write(output: Path, base: Path | None, change: Addition) -> None:
    """Write a file beside its final place and move it there; `base` is copied first."""
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if base is not None:
                with base.open("rb") as old:
                    shutil.copyfileobj(old, file, 1 << 20)
            file.write(change.tail)
            file.seek(0)
            file.write(change.header)
        mode = base.stat().st_mode & 0o777 if base is not None else 0o666 & ~_umask()
        Path(temporary).chmod(mode)
        Path(temporary).replace(output)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Give the process's file mode mask."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
