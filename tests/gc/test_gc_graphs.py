"""Random graphs: against a shadow while threads race, and against a search when one thread stands still."""

import os
import re

import pytest

from cprograms import must_pass
from gc_programs import MODES, PROGRAMS
from pyalloc._pictures import record

# variant, seconds, mode, gogc; -1: changing all the time
MUTATIONS = [
    *[("asserts", "1", mode, gogc) for mode, gogc in zip(MODES.values(), (100, 20, 1, 1000, 50))],
    ("plain", "1", 4, 1), ("plain", "1", 4, 100), ("plain", "2", -1, -1),
    ("asan", "1", 4, 5), ("asan", "2", -1, -1),
    ("tsan", "1", 4, 5), ("tsan", "2", -1, -1), ("tsan", "1", 0, 100),
]
SOAKS = [
    *[("plain", "4", mode, gogc) for mode in MODES.values() for gogc in (1, 1000)],
    ("plain", "12", -1, -1), ("asserts", "12", -1, -1), ("asan", "12", 4, 1), ("tsan", "12", 4, 10),
]


# PYALLOC_SOAK_SECONDS: how long all of SOAKS take together, in seconds; they share it in the proportion above.
SOAK_FACTOR = float(os.environ.get("PYALLOC_SOAK_SECONDS", 0)) / sum(int(soak[1]) for soak in SOAKS) or 1.0


def mutate(built, variant, seconds, mode, gogc, seed, threads=3):
    # Checkmark hides nothing but time: without it more cycles fit in.
    checkmark = 0 if variant == "plain" and gogc == 100 else 1
    out = must_pass([built(variant) / "mutator", f"seconds={seconds}", f"mode={mode}", f"gogc={gogc}", f"seed={seed}",
                     f"threads={threads}", f"checkmark={checkmark}"], timeout=120 + 2 * float(seconds))
    operations, cycles = map(int, re.match(r"mutator: (\d+) operations, (\d+) cycles", out).groups())
    assert operations >= 1000 and cycles >= 3
    return out


@pytest.mark.parametrize("variant, seconds, mode, gogc", MUTATIONS)
def test_mutator(built, variant, seconds, mode, gogc):
    mutate(built, variant, seconds, mode, gogc, seed=1)


@pytest.mark.parametrize("variant", ["asserts", "tsan"])
def test_mutator_while_peaks_are_written(built, variant, tmp_path):
    """PYALLOC_REPORT: snapshots by threads that are inside, while the collector stops them."""
    must_pass([built(variant) / "mutator", "seconds=1", "mode=-1", "gogc=-1", "seed=3", "checkmark=0"],
              env={"PYALLOC_REPORT": str(tmp_path / "heap.jsonl")})
    found = record.read(tmp_path / "heap.jsonl")
    assert found.peak and found.exit and found.exit.number("/gc/cycles/total:gc-cycles") >= 3


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_one_thread(built, mode):
    mutate(built, "asserts", "1", mode, 20, seed=7, threads=1)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(len(SOAKS)), ids=lambda n: "-".join(map(str, SOAKS[n])))
def test_mutator_soak(built, number):
    variant, seconds, mode, gogc = SOAKS[number]
    seconds = max(1, round(int(seconds) * SOAK_FACTOR))
    mutate(built, variant, seconds, mode, gogc, seed=1000 + number, threads=2 + number % 4)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("variant", ["plain", "asserts", "asan"])
def test_exactly_the_reachable_is_alive(built, variant, mode):
    rounds = {"plain": 12, "asserts": 6, "asan": 4}[variant]
    out = must_pass([built(variant) / "oracle", f"mode={mode}", f"rounds={rounds}", f"seed={mode + 1}"])
    assert out.startswith(f"oracle: {list(MODES)[mode]}: ")


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("variant", ["plain", "asserts", "asan", "tsan"])
def test_what_hangs_together_within_a_span(built, variant, mode):
    nodes = 1500 if variant == "tsan" else 6000
    out = must_pass([built(variant) / "near", f"mode={mode}", f"nodes={nodes}", f"seed={mode + 1}",
                     f"exact={int(mode == 0)}"])
    assert out == "near: 32 graphs, a list\n"


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_oracle_soak(built, seed):
    must_pass([built("asserts") / "oracle", f"mode={seed % 5}", "rounds=25", f"seed={seed}"])


def test_every_program_has_a_test():
    assert set(PROGRAMS.names()) == {
        "mutator", "oracle", "litmus", "attach", "inline", "weak", "stopall", "oom", "misuse", "poison", "trace",
        "moves", "near", "slices", "tail", "tracing", "profile"}
