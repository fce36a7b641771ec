"""Layer 8: versioned JSON and text for people."""
