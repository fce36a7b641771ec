"""Layer 2: the SFrame format, versions 1 to 3: decode, encode, check and print. Pure.

Bytes and arrays in, columns out:

>>> from surefoot.metadata import sframe
>>> section = sframe.decode(bytes.fromhex("e2de0304020000000000000000000000000000000000000000000000"))
>>> section.version, section.abi.name, section.num_fdes
(3, 'AARCH64_LE', 0)
>>> rules = section.to_rules()

`decode` is strict: any violation of the structure is an `InputError` with its byte offset. `check` reads on and
reports every violation, of structure and of meaning, as a `Finding` with a stable code.
"""

from typing import TYPE_CHECKING

from surefoot.metadata.sframe.constants import ABI_INFO, HeaderFlag, Version
from surefoot.metadata.sframe.decode import decode
from surefoot.metadata.sframe.encode import encode
from surefoot.metadata.sframe.model import (
    FdeColumns,
    FreColumns,
    Header,
    Relocations,
    RelocationTable,
    SFrameSection,
    SFrameTable,
)

if TYPE_CHECKING:
    from surefoot.metadata.sframe.build import Built, LeftOut, from_rules
    from surefoot.metadata.sframe.catalogue import CATALOGUE, CodeInfo, Severity
    from surefoot.metadata.sframe.checker import check
    from surefoot.metadata.sframe.coverage import Extents, check_against, check_coverage
    from surefoot.metadata.sframe.faults import Finding
    from surefoot.metadata.sframe.readelf import dump_readelf, iter_readelf
    from surefoot.metadata.sframe.rules import REASONS, to_rules

__all__ = [
    "ABI_INFO",
    "CATALOGUE",
    "REASONS",
    "Built",
    "CodeInfo",
    "Extents",
    "FdeColumns",
    "Finding",
    "FreColumns",
    "Header",
    "HeaderFlag",
    "LeftOut",
    "RelocationTable",
    "Relocations",
    "SFrameSection",
    "SFrameTable",
    "Severity",
    "Version",
    "check",
    "check_against",
    "check_coverage",
    "decode",
    "dump_readelf",
    "encode",
    "from_rules",
    "iter_readelf",
    "to_rules",
]


def __getattr__(name: str) -> object:
    """Import what reading alone does not need when it is asked for (PEP 562)."""
    home: object = None
    if name in {"Built", "LeftOut", "from_rules"}:
        from surefoot.metadata.sframe import build as home
    elif name in {"CATALOGUE", "CodeInfo", "Severity"}:
        from surefoot.metadata.sframe import catalogue as home
    elif name == "check":
        from surefoot.metadata.sframe import checker as home
    elif name in {"Extents", "check_against", "check_coverage"}:
        from surefoot.metadata.sframe import coverage as home
    elif name == "Finding":
        from surefoot.metadata.sframe import faults as home
    elif name in {"dump_readelf", "iter_readelf"}:
        from surefoot.metadata.sframe import readelf as home
    elif name in {"REASONS", "to_rules"}:
        from surefoot.metadata.sframe import rules as home
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)
