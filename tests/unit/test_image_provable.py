"""Words for proofs: what proofs know of anyway is the image's, what changes from boot to boot is made equal."""

from __future__ import annotations

import numpy as np
import pytest

from surefoot.image.livetext import Change, Differences
from surefoot.image.provable import provable_words
from surefoot.isa.effects import effects

BASE = 0xFFFF_8000_8000_0000
IMAGE, LIVE = 0x1111_1111, 0x2222_2222
NOWHERE = np.zeros(0, dtype=np.uint64)
WEAK = 0x9ADF_27E0  # lsrv x0, xzr, xzr


def one(cause: Change, live: int = LIVE, *, relocated: bool | None = None) -> tuple[int, list[int]]:
    """Give the word for one that differs, in the middle of three, and what is not known.

    `relocated` None stands for a linked image, otherwise for a module whose word is relocated or not.
    """
    where = np.array([BASE + 4], dtype=np.uint64)
    before, now = (np.array([word], dtype=np.uint32) for word in (IMAGE, live))
    differ = Differences(where, before, now, np.array([cause], dtype=np.uint8))
    table = {None: NOWHERE, True: where, False: where + np.uint64(8)}[relocated]
    fresh, hidden = provable_words(BASE, np.full(3, IMAGE, dtype=np.uint32), differ, table)
    assert fresh[[0, 2]].tolist() == [IMAGE, IMAGE]
    return int(fresh[1]), hidden.tolist()


@pytest.mark.parametrize("cause", [Change.PATCH_SITE, Change.OPS_LITERAL, Change.KPROBE])
def test_what_tracers_write_is_undone(cause: Change) -> None:
    """Their handlers restore every register."""
    assert one(cause) == (IMAGE, [])
    assert one(cause, relocated=False) == (IMAGE, [])


@pytest.mark.parametrize("cause", [Change.JUMP_LABEL, Change.ALTERNATIVE])
def test_what_tables_announce_is_undone(cause: Change) -> None:
    """A proof of the image has both words."""
    assert one(cause)[0] == IMAGE


@pytest.mark.parametrize("cause", [Change.OTHER, Change.SHADOW_STACK])
def test_everything_else_stays_as_it_runs(cause: Change) -> None:
    assert one(cause) == (LIVE, [])
    assert one(cause, relocated=False) == (LIVE, [])


def test_relocated_words() -> None:
    """A kernel has them among data; a module's file has not the words that run."""
    assert one(Change.RELOCATED)[0] == IMAGE
    assert one(Change.RELOCATED, relocated=True)[0] == LIVE
    assert one(Change.ALTERNATIVE, relocated=True)[0] == LIVE
    assert one(Change.KPROBE, relocated=True) == (LIVE, [BASE + 4])


@pytest.mark.parametrize("cause", [Change.RUNTIME_CONST, Change.CALLBACK])
@pytest.mark.parametrize(
    "live",
    [
        0xD282_4680,  # mov x0, #0x1234
        0xF2A2_4680,  # movk x0, #0x1234, lsl #16
        0xD344_7C20,  # ubfx x0, x1, #4, #28
        0x93C1_0C20,  # extr x0, x1, x1, #3
        0x9240_1C20,  # and x0, x1, #0xff
        0x9100_0420,  # add x0, x1, #1
        0xD140_0420,  # sub x0, x1, #1, lsl #12
    ],
)
def test_immediates_fixed_at_boot_count_for_nothing(cause: Change, live: int) -> None:
    """Only the register that they write does; and so it does to the prover."""
    assert one(cause, live)[0] == WEAK
    assert one(cause, live & ~31 | 30)[0] == WEAK | 30
    both = effects(np.array([live & ~31 | 30, WEAK | 30], dtype=np.uint32))
    assert both.lr[0] == both.lr[1]


@pytest.mark.parametrize(
    "live",
    [
        0xD503_201F,  # nop
        0x1400_0010,  # b
        0xF240_1C20,  # ands x0, x1, #0xff
        0xB100_0420,  # adds x0, x1, #1
        0x9100_041F,  # add sp, x0, #1
        0x9240_1C3F,  # and sp, x1, #0xff
        0x9100_43E0,  # add x0, sp, #16
        0xF940_0020,  # ldr x0, [x1]
        0xD53C_1101,  # mrs x1, hcr_el2
    ],
)
def test_whatever_does_more_stays(live: int) -> None:
    """Flags, SP, memory, control flow."""
    assert one(Change.CALLBACK, live)[0] == live


def test_differences_elsewhere_are_left_out() -> None:
    where = np.array([BASE - 4, BASE + 8], dtype=np.uint64)
    word = np.array([LIVE, LIVE], dtype=np.uint32)
    differ = Differences(where, word, word, np.array([Change.OTHER, Change.OTHER], dtype=np.uint8))
    fresh, hidden = provable_words(BASE, np.full(2, IMAGE, dtype=np.uint32), differ, NOWHERE)
    assert (fresh.tolist(), hidden.tolist()) == ([IMAGE, IMAGE], [])
