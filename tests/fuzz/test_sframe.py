"""Damaged SFrame sections: decode and check end in a result or an error of ours, soon, and without much memory.

`python tests/fuzz/test_sframe.py COUNT [SEED]` mutates as many sections as it is told and prints what came out.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))

import sframe_builder as make
import sframe_corpus
from sframe_builder import Fde, Fre
from surefoot.errors import InputError
from surefoot.metadata import sframe
from surefoot.metadata.rules import RuleTable
from surefoot.metadata.sframe import CATALOGUE, RelocationTable, SFrameSection

SECONDS = 2.0
MEMORY_MB = 300
GOLDEN = Path(__file__).parent.parent / "golden" / "sframe"
INTERESTING = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def good_seeds() -> list[bytes]:
    """Give well-formed sections of every version, machine and kind."""
    flex = [Fre(0, (0xF9, 0)), Fre(8, (0xF9, 48, 2, -40, 2, -48)), Fre(20, (0xF9, 48, 0, 2, -48)), Fre(24, ())]
    many = [Fde(16 * i, 16, [Fre(0), Fre(4, (16 * i, -8, -16), size=2)]) for i in range(40)]
    out = [make.section(make.typical(), version, abi=abi) for version in (1, 2, 3) for abi in (1, 2, 4)]
    out.append(make.section([Fde(0, 32, flex, flex=True), Fde(32, 64, mask=True, rep_size=16)]))
    out += [make.section(many), make.section(many, 2), make.section([Fde(0, 4096, [Fre(i) for i in range(250)])])]
    out += [make.section([Fde(0, 32, [Fre(0, (8,)), Fre(1, (16, -16))])], abi=make.AMD64), make.section(many) * 2]
    return out


def seeds() -> list[bytes]:
    """Give good and bad sections to start from."""
    return good_seeds() + [
        case.data for cases in sframe_corpus.CORPUS.values() for case in cases if 0 < len(case.data) < 4096
    ]


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Give the bytes with a few things wrong."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not out:
            return bytes(out)
        at = rng.randrange(min(len(out), 64) if rng.random() < 0.5 else len(out))
        kind = rng.choice((0, 0, 1, 1, 2, 2, 3, 4, 5))
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            size = rng.choice((1, 2, 4))
            value = rng.choice(INTERESTING) % (1 << 8 * size)
            out[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            other = rng.randrange(len(out))
            out[at : at + 8] = out[other : other + 8]
    return bytes(out)


def try_section(data: bytes, *, relocatable: bool = False) -> str:
    """Put a section through everything, and hold what must hold of any bytes; give what came out."""
    begin = time.process_time()
    relocations = sframe_corpus.relocations([28, 44, 60]) if relocatable else None
    findings = sframe.check(data, relocations=relocations, limit=20)
    assert all(finding.code in CATALOGUE for finding in findings)
    section, failed = _decode(data, relocations)
    if section is None:
        assert findings
        assert failed.offset is not None
        assert 0 <= failed.offset <= len(data)
    outcome = type(failed).__name__ if section is None else _hold(data, section)
    assert time.process_time() - begin < SECONDS
    return outcome


def _decode(data: bytes, relocations: RelocationTable | None) -> tuple[SFrameSection | None, InputError]:
    """Give the section, or None and the error."""
    try:
        return sframe.decode(data, relocations=relocations), InputError("")
    except InputError as error:
        return None, error


def _hold(data: bytes, section: SFrameSection) -> str:
    """Hold the laws of a section that decodes."""
    rules = section.to_rules() if len({table.abi for table in section.tables}) == 1 else None
    sframe.dump_readelf(section)
    again = sframe.encode(section)
    assert len(again) == len(data)
    assert sframe.encode(sframe.decode(again, relocations=None)) == again
    if rules is None:
        return "several ABIs"
    rules.check()
    _hold_rules(rules)
    return "decodes"


def _hold_rules(rules: RuleTable) -> None:
    """What was read can be written again, or is named."""
    built = sframe.from_rules(rules)
    assert len(built.source_func) == built.section.num_fdes
    assert len(set(built.source_func.tolist())) + len(built.left_out) == len(rules.functions)


@pytest.mark.parametrize("data", seeds(), ids=range(len(seeds())))
def test_seeds_hold(data: bytes) -> None:
    try_section(data)


@given(st.randoms(use_true_random=False), st.sampled_from(seeds()), st.booleans())
def test_mutated_sections(rng: random.Random, data: bytes, relocatable: bool) -> None:
    try_section(mutate(rng, data), relocatable=relocatable)


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_magic_number(tail: bytes) -> None:
    try_section(b"\xe2\xde" + tail)
    try_section(b"\xe2\xde\x03\x05\x02\x00\x00\x00" + tail)


def test_a_mutation_campaign_in_short() -> None:
    """A small part of the million that were run once; see docs/sframe.md."""
    outcomes = campaign(1500, 1)
    assert sum(outcomes.values()) == 1500
    assert {"decodes", "Truncated", "Inconsistent", "Unsupported", "UnknownVersion"} <= set(outcomes)


def sized_attacks() -> Iterator[tuple[str, bytes]]:
    """Give sections of a megabyte that ask for as much work as they can."""
    row = Fre(0, ())
    yield "one function of many rows", make.section([Fde(0, 2**31, [row] * 500_000)], 2)
    wide = [Fre(0, (0,) * 15)] * 60_000
    yield "fifteen words a row", make.section([Fde(0, 2**31, wide)], 2)
    shared = [Fde(16 * i, 2**31, [], fre_off=0, num_fres=5000) for i in range(50)]
    yield "everybody claims the same rows", make.section([*shared, Fde(0, 2**31, [row] * 100_000)], 2)
    yield "twenty thousand functions at one address", make.section([Fde(0, 2**31)] * 20_000)
    nested = [Fde(4 * i, 2**31 - 8 * i) for i in range(20_000)]
    yield "functions inside functions", make.section(nested)
    yield "thirty thousand tables", make.section([]) * 30_000
    yield "headers that promise", make.section([], num_fdes=2**32 - 1, fre_len=2**32 - 1, num_fres=2**32 - 1)


@pytest.mark.parametrize(("name", "data"), list(sized_attacks()), ids=[name for name, _ in sized_attacks()])
def test_megabytes_of_malice_take_bounded_time_and_memory(name: str, data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    sframe.check(data, limit=20)
    try:
        section = sframe.decode(data)
        sframe.from_rules(section.to_rules())
        assert sframe.encode(section)
    except InputError:
        pass
    assert time.process_time() - begin < 10 * SECONDS, name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_MB * 1024, name


def campaign(count: int, seed: int) -> Counter[str]:
    """Mutate and try `count` sections."""
    rng = random.Random(seed)
    pools = (good_seeds(), good_seeds(), seeds())
    return Counter(
        try_section(mutate(rng, rng.choice(rng.choice(pools))), relocatable=rng.random() < 0.1) for _ in range(count)
    )


def main(words: list[str]) -> None:
    """Run a campaign of the given length."""
    count, seed = int(words[0]), int(words[1]) if len(words) > 1 else 1
    begin = time.perf_counter()
    outcomes = campaign(count, seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(
        f"{count} sections, seed {seed}, {time.perf_counter() - begin:.0f} s, peak {peak} MB: {dict(outcomes)}\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
