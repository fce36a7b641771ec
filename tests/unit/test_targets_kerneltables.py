"""What may be kept by build-id, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from surefoot.image.files import open_image
from surefoot.targets import kerneltables
from surefoot.targets.cache import TableCache
from surefoot.targets.imagetables import image_rules
from surefoot.targets.kerneltables import load_module_rules

TINY = Path(__file__).parents[1] / "golden" / "elf" / "tiny.so"


def test_tables_of_an_image_without_metadata_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stripped copy has the build-id of the whole file; its lack of rules must not be remembered for both."""
    image, cache = open_image(TINY), TableCache(tmp_path)
    real: Callable[..., object] = image_rules
    monkeypatch.setattr(kerneltables, "image_rules", lambda _image: None)
    assert load_module_rules(image, cache) is None
    monkeypatch.setattr(kerneltables, "image_rules", real)
    rules = load_module_rules(image, cache)
    assert rules is not None
    assert len(rules) > 0
    monkeypatch.setattr(kerneltables, "image_rules", lambda _image: None)
    kept = load_module_rules(image, cache)
    assert kept is not None
    assert len(kept) == len(rules)
