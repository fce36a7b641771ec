"""Make the golden files of this folder anew; needs llvm-mc of LLVM 22 or later.

`allocation.txt`: for the 4 * 65536 words of `words()`, one bit each, set where LLVM 22.1.8 with every extension
decodes the word; packed, compressed by zlib, written in base 85. `forms.txt`: word, assembler text, and after the bar
what the Arm Architecture Reference Manual says about it (by hand, kept by this program).

Usage: python tests/golden/isa/build.py [LLVM-MC]
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

HERE: Final = Path(__file__).parent
ROUNDS: Final = 4


def words() -> NDArray[np.uint32]:
    """(4 * 65536,) uint32: every upper half four times, the lower halves scattered by multiplication."""
    count = np.arange(ROUNDS << 16, dtype=np.uint64)
    low = ((count * np.uint64(0x9E37_79B9_7F4A_7C15)) >> np.uint64(40)) & np.uint64(0xFFFF)
    return (((count & np.uint64(0xFFFF)) << np.uint64(16)) | low).astype(np.uint32)


def allocation() -> NDArray[np.bool_]:
    """Give the recorded answer for each of `words()`."""
    packed = zlib.decompress(
        base64.b85decode((HERE / "allocation.txt").read_text(encoding="ascii").replace("\n", ""))
    )
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8)).astype(np.bool_)


def forms() -> list[tuple[int, str, str]]:
    """Give word, assembler text and claims of each line of forms.txt."""
    found = []
    for line in (HERE / "forms.txt").read_text(encoding="ascii").splitlines():
        head, _, claims = line.partition("|")
        word, _, text = head.partition(" ")
        found.append((int(word, 16), text.strip(), claims.strip()))
    return found


def _llvm(tool: str, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [tool, "-triple=aarch64", "-mattr=+all", *options]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def main(tool: str) -> None:
    """Write both files."""
    lines = "\n".join(" ".join(f"{byte:#04x}" for byte in word.tobytes()) for word in words())
    refused = re.findall(r"<stdin>:(\d+):\d+: warning: invalid", _llvm(tool, lines, "--disassemble").stderr)
    known = np.ones(words().size, dtype=np.uint8)
    known[np.array(refused, dtype=np.int64) - 1] = 0
    packed = base64.b85encode(zlib.compress(np.packbits(known).tobytes(), 9)).decode("ascii")
    (HERE / "allocation.txt").write_text("\n".join(textwrap.wrap(packed, 116)) + "\n", encoding="ascii")
    written = []
    for _, text, claims in forms():
        answer = re.search(r"encoding: \[(.*)\]", _llvm(tool, text + "\n", "--show-encoding").stdout)
        assert answer, text
        word = int.from_bytes(bytes(int(byte, 16) for byte in answer[1].split(",")), "little")
        written.append(f"{word:08x}  {text} | {claims}\n")
    (HERE / "forms.txt").write_text("".join(written), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "llvm-mc")
