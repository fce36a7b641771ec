"""Layer 8: an audit as the reports show it: every finding with its place, its code and its source line.

Invariant: plain data in the order of the audit; text, JSON, SARIF and HTML show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from surefoot.audit.auditing import Audit
from surefoot.audit.catalogue import CATALOGUE, CodeInfo, Part, Severity
from surefoot.audit.findings import Finding
from surefoot.audit.live import Live, live_findings
from surefoot.audit.textmap import Cover
from surefoot.report.audit_code import CodeLine, Disassembly

__all__ = [
    "KEYS",
    "LINED",
    "LISTED",
    "AuditReport",
    "ImageReport",
    "Lines",
    "Place",
    "Shown",
    "build_image",
    "is_local",
]

Lines = Callable[[int], str]
"""Gives "file:line" of an instruction address, empty where it is not known."""

LINED: Final = 20
"""Findings of each code whose source line is looked up unless all are asked for: a look-up costs a millisecond."""
LISTED: Final = 40
"""Findings of each code whose instructions are in the page and in SARIF; the JSON has all."""
KEYS: Final = {
    "proven": Cover.PROVEN,
    "refuted": Cover.REFUTED,
    "unproven": Cover.UNPROVEN,
    "no_metadata": Cover.NO_METADATA,
}
"""What instructions and functions are counted by, in the order of the reports."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a finding is.

    Attributes:
        address: at the addresses of the image.
        symbol: function, empty where there is none.
        offset: bytes into the symbol.
    """

    address: int
    symbol: str
    offset: int

    def __str__(self) -> str:
        return f"{self.symbol}+{self.offset:#x}" if self.symbol else f"{self.address:#x}"


@dataclass(frozen=True, slots=True)
class Shown:
    """A finding as it is shown.

    Attributes:
        finding: what was found.
        info: its code's line of the catalogue.
        place: where.
        source: "file:line", empty where it is not known.
        code: the instructions around it, empty where there is nothing to see.
    """

    finding: Finding
    info: CodeInfo
    place: Place
    source: str
    code: tuple[CodeLine, ...]


@dataclass(frozen=True)
class ImageReport:
    """One image of the report.

    Attributes:
        name: file name.
        module: name of the module, empty for the kernel.
        build_id: hexadecimal, empty where the file has none.
        audit: what was found.
        live: the running kernel, None if none was compared.
        findings: the audit's and the live comparison's.
        disassembly: prints its code.
        lines: gives source lines.
        lined: how many findings of each code have their source line looked up.
    """

    name: str
    module: str
    build_id: str
    audit: Audit
    live: Live | None
    findings: tuple[Finding, ...]
    disassembly: Disassembly
    lines: Lines | None = None
    lined: int = LINED
    _shown: dict[Finding, Shown] = field(default_factory=dict)

    @cached_property
    def _with_line(self) -> frozenset[Finding]:
        """The findings whose source line is looked up."""
        return frozenset(finding for group in self.by_code.values() for finding in group[: self.lined])

    def show(self, finding: Finding, *, code: bool = True) -> Shown:
        """Give a finding with its code and source line; both are worked out here and kept."""
        known = self._shown.get(finding)
        if known is None:
            start = self.disassembly.function_at(finding.address) if finding.address else 0
            place = Place(finding.address, finding.symbol, finding.address - start)
            line = (
                self.lines(finding.address) if self.lines and finding in self._with_line and finding.address else ""
            )
            listing = self.disassembly.around(finding) if code else ()
            known = Shown(finding, finding.info, place, line, listing)
            if code:
                self._shown[finding] = known
        return known

    @cached_property
    def by_code(self) -> dict[str, list[Finding]]:
        """The findings by code, in the order of the catalogue."""
        groups: dict[str, list[Finding]] = {code: [] for code in CATALOGUE}
        for finding in self.findings:
            groups[finding.code].append(finding)
        return {code: group for code, group in groups.items() if group}

    def part(self, part: Part) -> dict[str, list[Finding]]:
        """Give the findings of one section of the report, by code."""
        return {code: group for code, group in self.by_code.items() if group[0].info.part is part}

    def addresses(self) -> dict[str, int]:
        """Count instructions by verdict."""
        return {name: int(self.audit.coverage.words[cover]) for name, cover in KEYS.items()}

    def functions(self) -> dict[str, int]:
        """Count functions by verdict."""
        return {name: int(self.audit.coverage.functions[cover]) for name, cover in KEYS.items()}


@dataclass(frozen=True)
class AuditReport:
    """The kernel and the modules that were audited with it.

    Attributes:
        images: the image that was named first, then modules.
        notes: what could not be examined, as sentences.
    """

    images: Sequence[ImageReport]
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> ImageReport:
        """The image that was named."""
        return self.images[0]

    @cached_property
    def severities(self) -> dict[Severity, int]:
        """How many findings there are of each severity, the worst first."""
        counts = dict.fromkeys(sorted(Severity, reverse=True), 0)
        for image in self.images:
            for finding in image.findings:
                counts[finding.info.severity] += 1
        return counts

    def addresses(self) -> dict[str, int]:
        """Count instructions by verdict over all images."""
        return {name: sum(image.addresses()[name] for image in self.images) for name in KEYS}

    def functions(self) -> dict[str, int]:
        """Count functions by verdict over all images."""
        return {name: sum(image.functions()[name] for image in self.images) for name in KEYS}


def is_local(finding: Finding) -> bool:
    """Whether the instructions around a finding tell more than its message."""
    return bool(finding.edge) or (finding.address > 0 and finding.size == 0 and finding.code not in _WHOLE)


_WHOLE: Final = ("sframe-missing", "site-none", "site-short", "site-literal-missing", "site-misaligned", "site-stray")


def build_image(
    audit: Audit,
    *,
    name: str,
    module: str = "",
    live: Live | None = None,
    lines: Lines | None = None,
    lined: int = LINED,
) -> ImageReport:
    """Prepare one image for the report.

    Args:
        audit: what was found.
        name: file name.
        module: name of the module, empty for the kernel.
        live: the running kernel compared with it.
        lines: gives source lines, asked for what is shown only.
        lined: for how many findings of each code they are asked for.
    """
    more = tuple(live_findings(audit.subject, live)) if live is not None else ()
    disassembly = Disassembly(audit.subject)
    build_id = audit.subject.image.build_id
    return ImageReport(name, module, build_id, audit, live, audit.findings + more, disassembly, lines, lined)
