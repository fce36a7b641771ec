"""Layer 1: A64 instruction words, classified as arrays. Pure."""
