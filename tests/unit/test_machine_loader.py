"""The machine's kernels as files, and what they export."""

from __future__ import annotations

import numpy as np
import pytest

from surefoot.errors import Inconsistent
from surefoot.image.rules import rule_sources
from surefoot.machine.loader import Variant, load_kernel
from surefoot.metadata.rules import Provenance
from surefoot.unwind.regions import FunctionClass, classify
from surefoot.unwind.state import Layout

_MAX_BYTES = 300 << 10


@pytest.mark.parametrize("variant", list(Variant))
def test_layout_is_that_of_linux(variant: Variant) -> None:
    """The structures that the walker reads are laid out as in Linux 7.3, so that it runs unchanged."""
    layout = load_kernel(variant).layout()
    assert layout == Layout(pac_mask=layout.pac_mask)
    assert layout.strip(np.array([0xFCA1_8000_0800_0100], dtype=np.uint64)).tolist() == [0xFFFF_8000_0800_0100]


@pytest.mark.parametrize(
    ("variant", "source"),
    [
        (Variant.SFRAME, Provenance.SFRAME),
        (Variant.CFI, Provenance.EH_FRAME),
        (Variant.SCS, Provenance.EH_FRAME),
    ],
)
def test_each_variant_has_its_own_metadata(variant: Variant, source: Provenance) -> None:
    """One kind of unwind metadata per build, and small files."""
    kernel = load_kernel(variant)
    assert rule_sources(kernel.image) == (source,)
    assert kernel.image.elf.data.size < _MAX_BYTES


def test_the_walker_knows_the_functions_by_name() -> None:
    """Every class of function that the walker treats apart is there, firmware and SDEI excepted."""
    kernel = load_kernel()
    classes = {FunctionClass(code) for code in classify(kernel.code(kernel.text)).tolist()}
    assert classes == set(FunctionClass) - {FunctionClass.SDEI, FunctionClass.FIRMWARE}


def test_patch_sites_have_their_literals() -> None:
    """Every site is a function start, aligned to 8 bytes."""
    kernel = load_kernel()
    assert kernel.sites.size > 60
    assert not np.any(kernel.sites % np.uint64(8))
    assert set(kernel.sites.tolist()) <= set(kernel.functions.start.tolist())


def test_what_is_missing_is_named() -> None:
    """Symbols and layout numbers that do not exist are refused by name."""
    kernel = load_kernel()
    with pytest.raises(Inconsistent, match="no symbol nosuch"):
        kernel.symbol("nosuch")
    with pytest.raises(Inconsistent, match=r"layout\.nosuch"):
        _ = kernel["nosuch"]
    with pytest.raises(Inconsistent, match="not in the file"):
        kernel.read(0x1000, 8)
