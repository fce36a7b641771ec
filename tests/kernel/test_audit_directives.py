"""Directives suggested for a real kernel's assembly: assembled, proved, and held against an emulated processor."""

from __future__ import annotations

import numpy as np
import pytest

from cfi_assembler import assemble
from cfi_builder import Frames
from emulate import Emulator
from proof_oracle import judge, world_of
from surefoot.audit.auditing import prepare
from surefoot.audit.coverage import coverage_findings
from surefoot.audit.findings import Finding
from surefoot.image.binary import Image
from surefoot.image.files import open_image
from surefoot.metadata.cfi.decode import decode_debug_frame
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import Open, Proof, prove
from surefoot.targets.vm import kernels

pytestmark = [pytest.mark.kernel, pytest.mark.needs("apt-get", "dpkg")]


@pytest.fixture(scope="module")
def image() -> Image:
    return open_image(kernels.fetch().vmlinux)


@pytest.fixture(scope="module")
def suggested(image: Image) -> list[Finding]:
    """The suggestions that leave nothing open."""
    findings = [each for each in coverage_findings(prepare(image)) if each.suggestion]
    return [each for each in findings if not any("not known" in line for line in each.suggestion)]


@pytest.fixture(scope="module")
def proof(image: Image, suggested: list[Finding]) -> Proof:
    """The proof of an image whose only metadata are the suggestions."""
    frames = Frames()
    cie = frames.cie()
    for finding in suggested:
        program, size = assemble(finding.suggestion)
        assert size == finding.size
        frames.fde(cie, program, start=finding.address, size=size)
    rules = decode_debug_frame(frames.bytes()).for_lookup().with_abi_defaults()
    return prove(rules, image.text.ranges, code_of(image))


def test_they_are_proved(suggested: list[Finding], proof: Proof) -> None:
    """Nothing is refuted; what is not proved is fill, or code that other assembly without metadata jumps into."""
    assert len(suggested) >= 100
    assert sum(finding.code != "asm-leaf" for finding in suggested) >= 20
    assert not set(np.unique(proof.open).tolist()) & {Open.CONTRADICTED, Open.UNUSABLE}
    assert np.count_nonzero(proof.open == Open.NONE) >= 0.97 * proof.open.size


def test_they_are_true(image: Image, proof: Proof) -> None:
    """Emulated from their entries, the functions show no other frame than the directives say."""
    emulator = Emulator(world_of(image, np.zeros(0, dtype=np.uint64)), 3)
    found = judge(emulator, proof, list(range(len(proof.rules.functions))), 8, 300)
    assert len(found.reached) > 2500
    assert sorted(map(hex, found.contradicted)) == []
