"""Layer 7: which mirror the system's own apt uses; the parsers are pure.

Both forms of sources are read: one line an entry (sources.list(5), ``*.list``) and deb822 (``*.sources``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from surefoot.errors import Unavailable

__all__ = [
    "Mirror",
    "Source",
    "choose_mirror",
    "given_mirror",
    "parse_config_shell",
    "parse_deb822",
    "parse_one_line",
    "read_sources",
]

_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<rest>.*)$")
_RELEASES = (
    "oldoldstable|oldstable|stable|testing|unstable|sid|experimental|buster|bullseye|bookworm|trixie|forky|duke"
)
_DEBIAN_SUITE = re.compile(rf"^(?:{_RELEASES})(?:-updates|-backports|-proposed-updates)?/?$")
_DEBIAN_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)


@dataclass(frozen=True)
class Source:
    """One entry of the system's sources: where binary packages come from.

    Attributes:
        uri: as written, no trailing slash.
        suites: release names.
        components: ``main`` and the like.
        signed_by: value of Signed-By (a path, a key id, or an armoured key), or empty.
        trusted: the entry says that signatures need not be checked.
    """

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: bool = False


@dataclass(frozen=True)
class Mirror:
    """A place that has the Debian archive."""

    uri: str
    signed_by: str = ""
    trusted: bool = False

    def deb822(self, suites: Iterable[str], arch: str) -> str:
        """Give a deb822 sources file for component main of these suites, one stanza each.

        One stanza a suite, because apt refuses all suites of a stanza when one does not exist.
        """
        lines = ["Types: deb", f"URIs: {self.uri}", "Suites: {suite}", "Components: main"]
        lines.append(f"Architectures: {arch}")
        if self.signed_by:
            lines.append("Signed-By:" + _folded(self.signed_by))
        if self.trusted:
            lines.append("Trusted: yes")
        stanza = "\n".join(lines) + "\n"
        return "\n".join(stanza.replace("{suite}", suite, 1) for suite in suites)


def _folded(value: str) -> str:
    """Give a deb822 value; an armoured key spans lines, the empty ones marked with a dot."""
    if "\n" not in value:
        return f" {value}"
    return "".join(f"\n {line.strip() or '.'}" for line in value.strip().splitlines())


def parse_one_line(text: str) -> Iterator[Source]:
    """Give the ``deb`` entries of a one-line-style file; comments and ``deb-src`` are passed over."""
    for line in text.splitlines():
        match = _ONE_LINE.match(line.partition("#")[0].strip())
        if match is None:
            continue
        options = dict(item.partition("=")[::2] for item in (match["options"] or "").split())
        yield Source(
            uri=match["uri"].rstrip("/"),
            suites=(match["suite"],),
            components=tuple(match["rest"].split()),
            signed_by=options.get("signed-by", ""),
            trusted=options.get("trusted", "") == "yes",
        )


def parse_deb822(text: str) -> Iterator[Source]:
    """Give the enabled ``deb`` entries of a deb822-style file, one for each URI of a stanza."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", kept):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in {" ", "\t"} and name:
                fields[name] += "\n" + ("" if line.strip() == "." else line.strip())
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        for uri in fields.get("uris", "").split():
            yield Source(
                uri=uri.rstrip("/"),
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", "").strip(),
                trusted=fields.get("trusted", "").lower() == "yes",
            )


def read_sources(source_list: Path, source_parts: Path) -> list[Source]:
    """Give every enabled binary entry of the system, in apt's order; files that cannot be read are left out.

    Args:
        source_list: ``Dir::Etc::sourcelist``.
        source_parts: ``Dir::Etc::sourceparts``.
    """
    files = [source_list] if source_list.is_file() else []
    if source_parts.is_dir():
        files += sorted(path for path in source_parts.iterdir() if path.suffix in {".list", ".sources"})
    found: list[Source] = []
    for path in files:
        try:
            text = path.read_text("utf-8", "replace")
        except OSError:
            continue
        found += parse_deb822(text) if path.suffix == ".sources" else parse_one_line(text)
    return found


def choose_mirror(sources: Iterable[Source]) -> Mirror:
    """Give the mirror of the Debian archive that the system uses.

    The first entry that has a Debian release's main component counts; security archives do not, because they
    hold neither backports nor sid.

    Raises:
        Unavailable: there is none, as on other distributions.
    """
    for source in sources:
        if "main" in source.components and any(_DEBIAN_SUITE.match(suite) for suite in source.suites):
            return Mirror(source.uri, source.signed_by or _keyring(), source.trusted)
    raise Unavailable(
        "the system's apt sources name no mirror of the Debian archive",
        hint="give one with --mirror, or add a Debian entry to the apt sources",
    )


def given_mirror(uri: str) -> Mirror:
    """Give a mirror that the user named, checked against Debian's own keys."""
    return Mirror(uri.rstrip("/"), _keyring())


def _keyring() -> str:
    return next((path for path in _DEBIAN_KEYRINGS if Path(path).is_file()), "")


def parse_config_shell(text: str) -> dict[str, str]:
    """Give the assignments that ``apt-config shell`` printed."""
    return dict(item.partition("=")[::2] for item in shlex.split(text))
