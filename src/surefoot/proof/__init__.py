"""Layer 4: metadata as an inductive invariant of the code. Pure."""
