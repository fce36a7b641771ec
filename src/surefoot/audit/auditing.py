"""Layer 6: one audit: the image in, counts and findings out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from surefoot.audit.calls import EndCalls, call_findings, end_calls, promise_findings
from surefoot.audit.coverage import Coverage, coverage, coverage_findings
from surefoot.audit.entry import Vectors, entry_findings, vectors
from surefoot.audit.findings import Finding
from surefoot.audit.fixups import Fixups, fixup_findings, fixups
from surefoot.audit.moduletext import NORETURN, link_text
from surefoot.audit.patched import Patched, patched, patched_findings
from surefoot.audit.patching import Patching, patching, patching_findings
from surefoot.audit.promised import believe
from surefoot.audit.proofs import proof_findings
from surefoot.audit.signed import signing_findings
from surefoot.audit.subject import Subject
from surefoot.audit.trampolines import Window, trampoline_findings, windows
from surefoot.image.binary import Image
from surefoot.image.promises import promises
from surefoot.image.rules import load_rules, rule_sources
from surefoot.proof.inputs import code_of
from surefoot.proof.prove import Outline, prove_all
from surefoot.proof.signing import check_signing

__all__ = ["Audit", "audit", "prepare"]


def prepare(image: Image, noreturn: Collection[str] | None = None, *, debug_info: bool = False) -> Subject:
    """Decode the rules of an image and prove them.

    Args:
        image: a kernel, or a module; a module that is not placed is laid out.
        noreturn: names of functions outside of a module that never return; None for the well-known ones.
        debug_info: also take the word of a kernel's debug information for functions that never return.

    Raises:
        Inconsistent, Truncated, Unsupported, UnknownVersion: the image or its metadata are damaged.
    """
    placed = image if image.is_placed else image.laid_out()
    linked = link_text(placed, NORETURN if noreturn is None else noreturn)
    told = promises(placed) if debug_info else None
    proved, promised = (linked.proved, None) if told is None else believe(placed, linked.proved, told)
    if not rule_sources(placed):
        return Subject(placed, linked.parts, None, linked.names, promised)
    rules = load_rules(placed)
    if placed.bases is not None:
        rules = rules.placed(placed.bases)
    outline = Outline.of(rules.for_lookup().with_abi_defaults(), proved, code_of(placed, proved))
    proof = prove_all(outline)
    return Subject(placed, linked.parts, proof, linked.names, promised, check_signing(outline, proof))


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        subject: what was audited.
        coverage: which code has metadata.
        end_calls: calls that are their function's last instruction.
        fixups: the exception table.
        patched: alternatives and static branches.
        vectors: the exception vectors.
        windows: return trampolines.
        patching: which functions have patch sites.
        findings: everything that somebody should know, in the order of the report.
    """

    subject: Subject
    coverage: Coverage
    end_calls: EndCalls
    fixups: Fixups
    patched: Patched
    vectors: Vectors
    windows: tuple[Window, ...]
    patching: Patching
    findings: tuple[Finding, ...]


def audit(subject: Subject) -> Audit:
    """Examine one image.

    Raises:
        Inconsistent, Truncated, Unsupported: a table of the image is damaged.
    """
    parts = (
        coverage_findings,
        proof_findings,
        signing_findings,
        call_findings,
        promise_findings,
        fixup_findings,
        patched_findings,
        entry_findings,
        trampoline_findings,
        patching_findings,
    )
    found = tuple(finding for part in parts for finding in part(subject))
    return Audit(
        subject,
        coverage(subject),
        end_calls(subject),
        fixups(subject),
        patched(subject),
        vectors(subject),
        tuple(windows(subject)),
        patching(subject),
        found,
    )
