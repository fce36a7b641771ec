"""Layer 3: ELF images of kernels and modules as arrays; files.py alone opens files."""
