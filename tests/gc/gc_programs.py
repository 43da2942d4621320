"""The collector's programs: as users get the core, with all asserts, and under the sanitizers."""

from __future__ import annotations

from pathlib import Path

import cprograms

HERE = Path(__file__).resolve().parent
BINARY = ["-DPA_WHITEBOX=1", "-DPA_ASSERT_LEVEL=2"]     # as tests/stress: the sanitizers' cores are compiled once
PROGRAMS = cprograms.Programs(HERE, {
    "plain": ["-O2"],
    "asserts": ["-O2", "-DPA_ASSERT_LEVEL=3", "-DPA_WHITEBOX=1"],
    "asan": [*cprograms.ASAN, *BINARY],
    "tsan": [*cprograms.TSAN, *BINARY],
})
MODES = {"serial": 0, "parallel": 1, "concurrent-1.5": 2, "concurrent-1.6": 3, "concurrent": 4}
