"""The one kernel that tests build: shadow call stack, the assembler's own .sframe, `kernel/small.config` on top.

Every test that wants a kernel of our own asks here, so that a run builds one and no more; it stays in the cache
folder (the user's, or $SUREFOOT_CACHE) for later runs.
"""

from __future__ import annotations

from pathlib import Path

from surefoot.targets.vm import build
from surefoot.targets.vm.recipe import Recipe

__all__ = ["NEEDS", "SMALL", "small_scs_kernel"]

NEEDS = ("apt-get", "dpkg", "unshare")
"""Programs without which it cannot be built."""

SMALL = Recipe(scs=True, sframe=True, extra=((Path(__file__).parent / "kernel" / "small.config").read_text("utf-8"),))


def small_scs_kernel() -> build.Built:
    """Have the kernel: a matter of minutes the first time, of a moment later."""
    return build.build(SMALL)
