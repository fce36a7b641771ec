"""Layer 7: vmcores and guests, through drgn and QEMU."""
