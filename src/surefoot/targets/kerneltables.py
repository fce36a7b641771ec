"""Layer 7: everything taken from a kernel image, worked out once and kept by build-id."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from surefoot.errors import Inconsistent
from surefoot.image.binary import Image
from surefoot.image.livetext import Mechanisms, mechanisms
from surefoot.image.model import Text
from surefoot.image.rulecache import PACKED_VERSION, pack, unpack
from surefoot.metadata.rules import RuleTable
from surefoot.targets.cache import TableCache
from surefoot.targets.imagetables import FunctionColumns, find_symbol, function_columns, image_rules
from surefoot.targets.layouts import MEMBERS, SYMBOLS, KernelLayout
from surefoot.targets.names import NameColumn
from surefoot.unwind.regions import LABELS

__all__ = ["KernelTables", "load_kernel_tables", "load_module_rules"]

_FORMAT: Final = 1
"""To be raised whenever any of the tables changes its meaning, or a decoder behind them its results."""
_KIND: Final = "kernel"
_MODULE_KIND: Final = "module"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class KernelTables:
    """A kernel image as a capture needs it; addresses are link-time.

    Attributes:
        layout: offsets, sizes and symbols.
        labels: addresses of the symbols that the walker asks for.
        functions: code ranges.
        rules: ready for look-ups, ABI defaults applied; None where the image has no metadata.
        mechanisms: where the kernel rewrites its own text.
        text: the words of the file.
    """

    layout: KernelLayout
    labels: Mapping[str, int]
    functions: FunctionColumns
    rules: RuleTable | None
    mechanisms: Mechanisms
    text: Text


def _version() -> int:
    """Give a number that changes with whatever the cached tables depend on."""
    names = [item.name for item in fields(Mechanisms)]
    return zlib.crc32(repr((_FORMAT, PACKED_VERSION, LABELS, SYMBOLS, MEMBERS, names)).encode())


def load_kernel_tables(
    image: Image, cache: TableCache | None, derive: Callable[[Callable[[str], int | None]], KernelLayout]
) -> KernelTables:
    """Give the tables of a kernel image, from the cache if they are there.

    Args:
        image: the kernel.
        cache: where tables are kept; None keeps nothing.
        derive: works out the layout from debug information, given a look-up of link-time symbol addresses;
            called only if the cache does not hold it.

    Raises:
        InputError: the image is damaged, or has no debug information.
    """
    version = _version()
    if cache is not None:
        arrays = cache.load(image.build_id, _KIND, version)
        if arrays is not None:
            try:
                return _from_arrays(arrays, image.text)
            except (Inconsistent, KeyError, ValueError, TypeError):
                pass  # made by a version that counted the same but wrote otherwise: make it anew
    symbols = image.symbols
    labels = {name: addr for name in LABELS if (addr := find_symbol(symbols, name)) is not None}
    tables = KernelTables(
        layout=derive(lambda name: find_symbol(symbols, name)),
        labels=labels,
        functions=function_columns(image),
        rules=image_rules(image),
        mechanisms=mechanisms(image),
        text=image.text,
    )
    # A copy of the image without its metadata has the same build-id: it must not stand in for the whole one.
    if cache is not None and tables.rules is not None:
        cache.store(image.build_id, _KIND, version, _to_arrays(tables))
    return tables


def load_module_rules(image: Image, cache: TableCache | None) -> RuleTable | None:
    """Give a module's rules as in the file, from the cache if they are there; None if it has no metadata."""
    version = _version()
    arrays = cache.load(image.build_id, _MODULE_KIND, version) if cache is not None else None
    if arrays is not None:
        try:
            return _rules(arrays)
        except (Inconsistent, KeyError, ValueError, TypeError):
            pass
    rules = image_rules(image)
    if cache is not None and rules is not None:
        cache.store(image.build_id, _MODULE_KIND, version, _pack(rules))
    return rules


def _text(value: object) -> NDArray[np.uint8]:
    """Give a JSON value as a column of bytes."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _to_arrays(tables: KernelTables) -> Arrays:
    functions = tables.functions
    return {
        "layout": np.frombuffer(tables.layout.to_json().encode(), dtype=np.uint8),
        "labels": _text(dict(tables.labels)),
        "functions.start": functions.start,
        "functions.end": functions.end,
        "functions.kind": functions.kind,
        "functions.blob": functions.names.blob,
        "functions.off": functions.names.off,
        **{f"mechanisms.{item.name}": getattr(tables.mechanisms, item.name) for item in fields(Mechanisms)},
        **_pack(tables.rules),
    }


def _from_arrays(arrays: Arrays, text: Text) -> KernelTables:
    names = NameColumn(arrays["functions.blob"], arrays["functions.off"])
    start, end, kind = (arrays[f"functions.{name}"] for name in ("start", "end", "kind"))
    known = Mechanisms(**{item.name: arrays[f"mechanisms.{item.name}"] for item in fields(Mechanisms)})
    labels = {str(name): int(addr) for name, addr in json.loads(arrays["labels"].tobytes()).items()}
    layout = KernelLayout.from_json(arrays["layout"].tobytes().decode())
    return KernelTables(layout, labels, FunctionColumns(start, end, kind, names), _rules(arrays), known, text)


def _pack(rules: RuleTable | None) -> Arrays:
    """Give a rule table as named arrays; of no table, no arrays."""
    return {} if rules is None else {f"rules.{name}": array for name, array in pack(rules).items()}


def _rules(arrays: Arrays) -> RuleTable | None:
    """Read a rule table back.

    Raises:
        Inconsistent: the columns do not fit each other.
        KeyError, ValueError, TypeError: a column is missing or of another kind.
    """
    packed = {name.removeprefix("rules."): array for name, array in arrays.items() if name.startswith("rules.")}
    return unpack(packed) if packed else None
