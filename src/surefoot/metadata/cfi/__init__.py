"""Layer 2: DWARF call frame information, .debug_frame and .eh_frame. Pure."""

from surefoot.metadata.cfi.decode import decode_debug_frame, decode_eh_frame
from surefoot.metadata.cfi.pointers import Bases
from surefoot.metadata.cfi.relocate import Relocations

__all__ = ["Bases", "Relocations", "decode_debug_frame", "decode_eh_frame"]
