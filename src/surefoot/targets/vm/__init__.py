"""Layer 7: guests that run real arm64 kernels: fetched from Debian, booted in QEMU, loaded, traced, dumped.

``kernels`` fetches, ``machines`` boots and drives named guests, ``hole`` catches the function-graph hole; the
rest is what these stand on: ``apt`` and ``mirror``, ``initramfs`` (pure), ``qemu`` (process and QMP), ``guest``
(the command channel), ``stacks`` (pure: the kernel's own traces),
``kdump`` (pure: compressed dumps).
"""
