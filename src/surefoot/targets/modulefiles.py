"""Layer 7: module files in folders, found by name and checked by build-id."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from surefoot.errors import InputError
from surefoot.image.binary import Image
from surefoot.image.files import open_image

__all__ = ["ModuleFiles"]

_ENDINGS = (".ko.debug", ".ko")
_COMPRESSED = (".ko.xz", ".ko.zst", ".ko.gz")


class ModuleFiles:
    """The modules below one folder or several, or none."""

    def __init__(self, folder: Path | Sequence[Path] | None) -> None:
        self._folders = () if folder is None else (folder,) if isinstance(folder, Path) else tuple(folder)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Module name (with underscores) -> files; uncompressed ones first."""
        found: dict[str, list[str]] = {}
        for place, _, names in (entry for folder in self._folders for entry in os.walk(folder)):
            for name in names:
                ending = next((end for end in (*_ENDINGS, *_COMPRESSED) if name.endswith(end)), None)
                if ending is not None:
                    key = name[: -len(ending)].replace("-", "_")
                    found.setdefault(key, []).append(os.path.join(place, name))  # noqa: PTH118 - thousands of files
        for files in found.values():
            files.sort(key=lambda path: (path.endswith(_COMPRESSED), path))
        return found

    def open(self, name: str, build_id: str) -> tuple[Image | None, str]:
        """Open the file of a module.

        Args:
            name: of the module.
            build_id: of the module in the target, lower-case hexadecimal; empty if it is not known.

        Returns:
            the image and "", or None and a sentence that says why there is none.
        """
        if not self._folders:
            return None, f"module {name}: no folder of module files was given (--modules)"
        files = self._by_name.get(name.replace("-", "_"), [])
        if not files:
            return None, f"module {name}: no file of that name in {' or '.join(map(str, self._folders))}"
        if not build_id:
            return None, f"module {name}: has no build-id in the target, so that no file can be matched to it"
        problem = ""
        for path in files:
            if path.endswith(_COMPRESSED):
                problem = problem or "is compressed"
                continue
            try:
                image = open_image(path)
                if image.build_id == build_id:
                    return image, ""
                problem = f"is of another build (build-id {image.build_id or 'missing'}, target {build_id})"
            except InputError as error:
                problem = f"cannot be used ({error.message})"
        return None, f"module {name}: {Path(files[0]).name} {problem}"
