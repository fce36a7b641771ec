"""Layer 2: unwind metadata decoded to rule tables. Pure."""
