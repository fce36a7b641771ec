"""Layer 2: DWARF call frame information, .debug_frame and .eh_frame. Pure."""
