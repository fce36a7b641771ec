"""Layer 2: the SFrame format. Pure."""
