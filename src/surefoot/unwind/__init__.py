"""Layer 5: walking stacks. Pure."""
