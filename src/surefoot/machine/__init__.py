"""Layer 7: the emulated arm64 machine: a small kernel of our own, run instruction by instruction, and the truth."""
