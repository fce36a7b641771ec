"""Layer 3: functions that the compiler takes never to return, read from an image's DWARF.

DW_AT_noreturn stands with few abbreviations of a unit. Units that define such functions are walked, entry by entry.
There are too many units that declare one to walk them all: there, what looks like such an entry (its code, and a
string offset that is a symbol's name) is looked for in all bytes at once, and believed only if a walk over its unit
arrives there.

Invariant: a function is named only if a walk from the unit's first entry arrives at one that says so.

Source:
    DWARF Debugging Information Format, Version 5, sections 3.3.1, 7.5 and 7.5.6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from surefoot.dtypes import Addr, Bytes, Row
from surefoot.errors import Inconsistent, InputError, Unsupported
from surefoot.image.abbreviations import (
    Abbreviation,
    Attribute,
    Form,
    abbreviation_at,
    read_values,
    table_at,
    uleb,
)
from surefoot.image.binary import Image
from surefoot.image.elf import FileType

__all__ = ["Promises", "promises"]

_NORETURN: Final = b"\x87\x01\x19"
"""DW_AT_noreturn, DW_FORM_flag_present: as ULEB128, wherever an abbreviation has it."""
_SUBPROGRAM: Final = 0x2E
_COMPILE_UNITS: Final = (1, 3)
"""DW_UT_compile and DW_UT_partial: the others have longer headers, and no functions."""
_PREFIXES: Final = ("", "__kvm_nvhe_", "__pi_")
"""What the kernel's build puts before every symbol of some objects, and not before names in debug information
(arch/arm64/kvm/hyp/nvhe/Makefile, arch/arm64/kernel/pi/Makefile, Linux 7.3)."""
_TRIES: Final = 12
"""Units that are walked for one name; one of them has it, unless bytes look like it by chance again and again."""
_OLDEST: Final = 4
_NEWEST: Final = 5


@dataclass(frozen=True)
class Promises:
    """Functions that the compiler takes never to return.

    Attributes:
        names: functions with external linkage that are declared or defined so.
        starts: (d,) uint64, ascending, functions of the image that are defined so.
    """

    names: frozenset[str]
    starts: Addr


class _Unit(NamedTuple):
    """A unit of .debug_info: where it and its first entry begin, where it ends, and its abbreviations."""

    start: int
    first: int
    end: int
    table: int


@dataclass
class _Walked:
    """What a walk over a unit found.

    Attributes:
        places: entries of functions that never return.
        names: those of them with external linkage.
        starts: addresses of those that are defined.
        prefix: what the build has put before the unit's symbols, None where no function of it tells.
    """

    places: set[int]
    names: set[str]
    starts: set[int]
    prefix: str | None


class _Guess(NamedTuple):
    """What looks like a declaration: a unit and a place in it."""

    unit: _Unit
    at: int


def promises(image: Image) -> Promises | None:
    """Find the functions that never return as the compiler sees it.

    Returns:
        None for an image without debug information, or whose debug information is still to be relocated (modules).

    Raises:
        Inconsistent, Truncated, Unsupported: the debug information is damaged, or of another version than 4 and 5.
    """
    find = image.sections.find
    wanted = [find(name) for name in (".debug_info", ".debug_abbrev", ".debug_str")]
    if image.elf.type == FileType.REL or not all(len(found) for found in wanted):
        return None
    info, abbrev, strings = (image.elf.section_bytes(int(found[0])) for found in wanted)
    try:
        return _Reader(image, info, abbrev.tobytes(), strings.tobytes()).read()
    except (IndexError, ValueError) as error:
        raise Inconsistent("debug information ends in mid-entry", file=image.path, section=".debug_info") from error
    except InputError as error:
        raise error.at(file=image.path, section=".debug_info") from error.__cause__


class _Reader:
    """Reads one image's debug information."""

    def __init__(self, image: Image, info: Bytes, abbrev: bytes, strings: bytes) -> None:
        self._image = image
        self._info = info
        self._abbrev = abbrev
        self._strings = strings
        self._symbol_addr = image.symbols.addr
        self._walked: dict[int, _Walked] = {}

    def read(self) -> Promises:
        """Walk the units that define functions that never return, and look the declarations of the others up."""
        units: dict[int, list[_Unit]] = {}
        for unit in self._units():
            units.setdefault(unit.table, []).append(unit)
        names: set[str] = set()
        starts: set[int] = set()
        declared: list[tuple[_Unit, Abbreviation]] = []
        for table, found in self._promising(sorted(units)).items():
            if all(each.has(Attribute.DECLARATION) for each in found):
                declared += [(unit, each) for unit in units[table] for each in found]
                continue
            for unit in units[table]:
                walked = self._walk(unit)
                names |= {walked.prefix + name for name in walked.names} if walked.prefix is not None else set()
                starts |= walked.starts
        names = {name for names in self._with_symbols(list(names)).values() for name in names} & names
        names |= self._declared(self._guesses(declared), names)
        return Promises(frozenset(names), np.array(sorted(starts), dtype=np.uint64))

    def _declared(self, guesses: dict[str, list[_Guess]], known: set[str]) -> set[str]:
        """Believe what a walk confirms: the names of symbols, none of them in `known`."""
        names: set[str] = set()
        for name, symbols in self._with_symbols(list(guesses)).items():
            wanted = symbols - known
            # The smallest units first; a unit that seems to have the name and has not is met at times.
            for guess in sorted(guesses[name], key=lambda guess: guess.unit.end - guess.unit.start)[:_TRIES]:
                if not wanted:
                    break
                walked = self._walk(guess.unit)
                if guess.at in walked.places and walked.prefix is not None:
                    names |= {walked.prefix + name} & wanted
                    wanted.discard(walked.prefix + name)
        return names

    def _with_symbols(self, names: list[str]) -> dict[str, set[str]]:
        """Give the names that symbols of the image have, each with these symbols' names, prefixes included."""
        found: dict[str, set[str]] = {}
        for prefix in _PREFIXES:
            rows = self._image.symbols.find_many([prefix + name for name in names])
            for name, row in zip(names, rows, strict=True):
                if name and row.size:
                    found.setdefault(name, set()).add(prefix + name)
        return found

    def _units(self) -> Iterator[_Unit]:
        """Give the units with code."""
        at = 0
        while at < self._info.size:
            head = self._info[at : at + 12].tobytes()
            length, version = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:6], "little")
            end = at + 4 + length
            if not _OLDEST <= version <= _NEWEST or length >= 0xFFFF_FFF0:
                raise Unsupported(f"DWARF version {version}", file=self._image.path, section=".debug_info", offset=at)
            if end > self._info.size:
                raise Inconsistent("unit ends behind its section", file=self._image.path, offset=at)
            new = version == _NEWEST
            table = int.from_bytes(head[8:12] if new else head[6:10], "little")
            if not new or head[6] in _COMPILE_UNITS:
                yield _Unit(at, at + (12 if new else 11), end, table)
            at = end

    def _promising(self, tables: list[int]) -> dict[int, list[Abbreviation]]:
        """Give the abbreviations of functions that never return, by table."""
        found: dict[int, list[Abbreviation]] = {}
        at, which = self._abbrev.find(_NORETURN), 0
        while at >= 0:
            while which + 1 < len(tables) and tables[which + 1] <= at:
                which += 1
            # Two zeros end an abbreviation, and stand nowhere in one: its start is behind the last of them.
            close = self._abbrev.rfind(b"\0\0", tables[which], at)
            start = tables[which] if close < 0 else close + 2
            each, _ = abbreviation_at(self._abbrev, start)
            if each.tag == _SUBPROGRAM and each.has(Attribute.NORETURN):
                found.setdefault(tables[which], []).append(each)
            at = self._abbrev.find(_NORETURN, at + 1)
        return found

    def _walk(self, unit: _Unit) -> _Walked:
        """Walk a unit."""
        found = self._walked.get(unit.start)
        if found is None:
            data = self._info[unit.start : unit.end].tobytes()
            found = self._walked[unit.start] = _Walked(set(), set(), set(), None)
            for at, behind, each in _functions(data, unit.first - unit.start, table_at(self._abbrev, unit.table)):
                self._take(data, found, at, behind, each)
        return found

    def _take(self, data: bytes, found: _Walked, at: int, behind: int, each: Abbreviation) -> None:
        """Note what an entry says: at `at`, its attributes from `behind` on."""
        origin = next((a for a in (Attribute.ORIGIN, Attribute.SPECIFICATION) if each.has(a)), None)
        label = Attribute.LINKAGE if each.has(Attribute.LINKAGE) else Attribute.NAME
        placed = each.form(Attribute.LOW_PC) == Form.ADDR
        names_unit = found.prefix is None and placed and each.has(label)
        never = each.has(Attribute.NORETURN)
        if not never and origin is None and not names_unit:
            return
        values = read_values(data, behind, each)
        name = self._text(data, each.form(label), values[label]) if label in values else ""
        if names_unit and name:
            found.prefix = self._prefix(name, values[Attribute.LOW_PC])
        if not never and (origin is None or values.get(origin) not in found.places):
            return
        found.places.add(at)
        if placed:
            found.starts.add(values[Attribute.LOW_PC])
        if name and each.has(Attribute.EXTERNAL):
            found.names.add(name)

    def _prefix(self, name: str, addr: int) -> str | None:
        """Say what the build has put before the symbols of a unit, by one of its functions; None if that is open."""
        rows = np.flatnonzero(self._symbol_addr == np.uint64(addr))
        for prefix in _PREFIXES:
            if any(self._image.symbols.name(row) == prefix + name for row in rows.tolist()):
                return prefix
        return None

    def _text(self, data: bytes, form: int, value: int) -> str:
        """Give a name; empty where it is in a form that is not read."""
        text = {Form.STRP: self._strings, Form.STRING: data}.get(Form(form) if form in _TEXTS else Form.ADDR)
        return "" if text is None else text[value : text.index(b"\0", value)].decode("utf-8", "backslashreplace")

    def _guesses(self, declared: list[tuple[_Unit, Abbreviation]]) -> dict[str, list[_Guess]]:
        """Find what looks like a declaration: places by name."""
        found: dict[str, list[_Guess]] = {}
        for unit, each in declared:
            label = Attribute.LINKAGE if each.has(Attribute.LINKAGE) else Attribute.NAME
            place = each.place(label)
            if place < 0 or each.form(label) != Form.STRP or not each.has(Attribute.EXTERNAL):
                continue
            code = np.frombuffer(each.code_bytes, dtype=np.uint8)
            data = self._info[unit.start : unit.end]
            room = data.size - code.size - place - 4
            at: Row = np.flatnonzero(data[: max(room, 0)] == code[0]).astype(np.int64)
            for step in range(1, code.size):
                at = at[data[at + step] == code[step]]
            where = at + code.size + place
            off = sum(data[where + k].astype(np.int64) << (8 * k) for k in range(4))
            inside = (off > 0) & (off < len(self._strings))
            for spot, start in zip(at[inside].tolist(), np.asarray(off)[inside].tolist(), strict=True):
                name = self._strings[start : self._strings.index(b"\0", start)].decode("utf-8", "backslashreplace")
                found.setdefault(name, []).append(_Guess(unit, spot))
        return found


_TEXTS: Final = (Form.STRP, Form.STRING)


def _functions(data: bytes, at: int, table: dict[int, Abbreviation]) -> Iterator[tuple[int, int, Abbreviation]]:
    """Walk a unit, past the children of whatever names its sibling.

    Args:
        data: the unit, header included.
        at: its first entry.
        table: its abbreviations.

    Yields:
        the entries of functions: place, place behind the code, abbreviation.
    """
    end = len(data)
    while at < end:
        here, code = at, data[at]
        at += 1
        if code >= 0x80:
            code, at = uleb(data, here)
        if not code:
            continue
        each = table.get(code)
        if each is None:
            raise Inconsistent(f"an entry has the unknown abbreviation {code}")
        if each.tag == _SUBPROGRAM:
            yield here, at, each
        behind = each.skip(data, at)
        if behind < at:
            raise Inconsistent("an entry's sibling lies before it")
        at = behind
