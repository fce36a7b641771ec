"""The golden answers of LLVM 22 about A64 encodings (tests/golden/isa/build.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

BUILD: Final = Path(__file__).parent / "golden" / "isa" / "build.py"


def recipe() -> ModuleType:
    """Load the recipe, which also reads what it wrote."""
    spec = importlib.util.spec_from_file_location("isa_golden_build", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
