"""The stress programs: plain, ASan+UBSan and TSan."""

from __future__ import annotations

from pathlib import Path

import cprograms

HERE = Path(__file__).resolve().parent
BINARY = ["-DPA_WHITEBOX=1", "-DPA_ASSERT_LEVEL=2"]
PROGRAMS = cprograms.Programs(HERE, {
    "plain": ["-O2", *BINARY],
    "asan": [*cprograms.ASAN, *BINARY],
    "tsan": [*cprograms.TSAN, *BINARY],
})
