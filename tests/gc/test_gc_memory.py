"""Managed objects without memory, misuse, and the documented example."""

import re
import shutil
import signal
import subprocess

import pytest

import cprograms
from cprograms import must_pass, run
from gc_programs import MODES

# ---- Without memory


@pytest.mark.parametrize("variant", ["plain", "asserts", "asan"])
def test_absurd_sizes(built, variant):
    must_pass([built(variant) / "oom", "case=absurd"])


@pytest.mark.parametrize("mode", [0, 4], ids=["serial", "concurrent"])
def test_until_nothing_is_left(built, mode):
    must_pass([built("plain") / "oom", "case=fill", "MIB=200", f"mode={mode}"])


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_marking_without_memory_for_work_buffers(built, mode):
    for shape in range(4):
        must_pass([built("asserts") / "oom", "case=workbufs", f"mode={mode}", f"shape={shape}"])


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_graphs_without_memory_for_work_buffers(built, mode):
    must_pass([built("asserts") / "mutator", "seconds=1", f"mode={mode}", "gogc=20", "threads=3", "checkmark=1",
               "workbufs=1"])


@pytest.mark.parametrize("limit_kib", [800_000, 500_000])
def test_under_ulimit_v(built, limit_kib):
    must_pass([built("plain") / "oom", "case=fresh"], limit_kib=limit_kib)


def test_the_oom_program_insists_on_a_limit(built):
    result = run([built("plain") / "oom", "case=fresh"])
    assert result.returncode == 1 and "ulimit" in result.stderr


@pytest.mark.parametrize("variant", ["asserts", "asan"])
def test_every_call_to_the_system_may_fail(built, variant):
    must_pass([built(variant) / "oom", "case=inject"])


# ---- Misuse: one line on stderr, then abort.  Words that the line must have, any one of each group.

OUTSIDE = ("outside", "inside", "pa_enter")
MISUSES = {
    "new_outside": OUTSIDE,
    "new_inline_outside": OUTSIDE,
    "new_bytes_outside": OUTSIDE,
    "new_array_outside": OUTSIDE,
    "new_pointers_outside": OUTSIDE,
    "new_conservative_outside": OUTSIDE,
    "new_after_leave": OUTSIDE,
    "unbalanced_leave": ("pa_leave", *OUTSIDE),
    "unbalanced_leave_after_nesting": ("pa_leave", *OUTSIDE),
    "free_small": ("managed",),
    "free_large": ("managed",),
    "free_tiny": ("managed",),
    "free_small_in_other_thread": ("managed",),
    "realloc_managed": ("managed",),
    "free_with_range": ("range", "roots"),
    "free_with_range_inside": ("range", "roots"),
    "free_large_with_range": ("range", "roots"),
    "realloc_with_range": ("range", "roots"),
    "free_with_range_in_other_thread": ("range", "roots"),
}
# Caught where asserts are on.
ASSERTED = {
    "safepoint_outside": (),
    "handle_outside": (),
    "frame_outside": (),
    "pop_in_wrong_order": (),
    "store_to_stack": (),
    "store_to_explicit_block": (),
    "store_range_to_explicit_block": (),
}


def must_abort(command, words):
    result = run(command)
    assert result.returncode == -signal.SIGABRT, (result.returncode, result.stdout, result.stderr)
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and result.stderr.endswith("\n"), result.stderr
    assert lines[0].startswith("pyalloc: "), lines
    assert not words or any(word in lines[0] for word in words), lines
    return result.stdout.split(), lines[0]


@pytest.mark.parametrize("case", MISUSES)
def test_misuse_ends_the_process_with_one_line(built, case):
    addresses, line = must_abort([built("plain") / "misuse", case], MISUSES[case])
    assert "check failed" not in line, "a line for the user, not for us"
    for address in addresses:
        assert address in line


@pytest.mark.parametrize("case", {**MISUSES, **ASSERTED})
def test_misuse_where_asserts_are_on(built, case):
    must_abort([built("asserts") / "misuse", case], {**MISUSES, **ASSERTED}[case])


@pytest.mark.parametrize("variant", ["plain", "asserts", "asan"])
def test_what_is_allowed_passes(built, variant):
    must_pass([built(variant) / "misuse", "allowed"])


def test_every_misuse_is_expected(built):
    assert set(must_pass([built("plain") / "misuse", "list"]).split()) == {*MISUSES, *ASSERTED, "allowed"}


# ---- Memory that is not the program's, under AddressSanitizer: free slots, uncarved tails, freed pages

POISONED = ["freed_first_word", "freed_middle", "freed_8_bytes", "freed_large", "freed_huge", "freed_by_other_thread",
            "freed_write", "behind_the_last_block", "shrunk", "free_pages", "swept_small", "swept_tiny", "swept_large",
            "never_handed_out"]


@pytest.mark.parametrize("case", POISONED)
def test_asan_sees_the_use_of(built, case):
    result = run([built("asan") / "poison", case])
    assert result.returncode != 0 and result.stdout == "now\n", (result.stdout, result.stderr)
    assert "AddressSanitizer: use-after-poison" in result.stderr, result.stderr


@pytest.mark.parametrize("variant", ["plain", "asan"])
def test_asan_accepts_what_was_handed_out(built, variant):
    must_pass([built(variant) / "poison", "allowed"])


def test_every_poisoned_case_is_expected(built):
    assert must_pass([built("plain") / "poison", "list"]).split() == [*POISONED, "allowed"]


# ---- The example of the documentation, against the library and the public header alone

EXAMPLE = cprograms.ROOT / "docs" / "examples" / "collector.c"


@pytest.fixture(scope="module")
def library():
    """A folder with libpyalloc.so as it is shipped, public symbols only."""
    return cprograms.shared_library("shipped", "libpyalloc.so", cprograms.core_sources(),
                                    ["-O2", "-ftls-model=initial-exec"])


def need_compiler(name):
    """The README asks for gcc; others are tried where they are."""
    if name != "gcc" and shutil.which(name) is None:
        pytest.skip(f"no {name}; to get it: apt-get install {name}")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_example_compiles_and_runs(library, tmp_path, compiler):
    need_compiler(compiler)
    program = tmp_path / "collector"
    built = subprocess.run(
        [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{cprograms.CSRC / 'include'}", EXAMPLE,
         f"-L{library}", "-lpyalloc", f"-Wl,-rpath,{library}", "-o", program], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    out = must_pass([program]).splitlines()
    keys, state = 0, 1
    for i in range(20 * 20000):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        keys += state >> 44 if i >= 19 * 20000 else 0
    assert out[0] == f"sum of the keys: {keys}"
    made, alive, cycles = map(int, re.fullmatch(
        r"(\d+) objects made, (\d+) bytes of them alive after (\d+) collections", out[1]).groups())
    assert made == 20 * 20000 and alive == 20000 * 32 and cycles >= 2
    assert re.fullmatch(r"stopped [1-9]\d* times, \d+\.\d{3} ms in all", out[2])


def test_the_example_is_short():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert 50 <= len(text.splitlines()) <= 75
    assert re.findall(r'#include "', text) == []


@pytest.mark.parametrize("compiler, suffix", [("gcc", "c"), ("g++", "cc"), ("clang", "c")])
def test_the_headers_are_plain_c_and_cplusplus(library, tmp_path, compiler, suffix):
    """Alone and together; the inlined calls link against what the shipped library exports."""
    texts = {"pyalloc.h": "int main(void) { return pa_abi_version() < 0; }",
             "pyalloc_inline.h": "int main(void) { if (!pa_enter_inline()) return 1; pa_handle *h = pa_handle_new(0);"
                                 " pa_store_inline((void **)h, pa_new_bytes(40)); pa_safepoint_inline();"
                                 " if (!pa_new_inline(pa_type_new(40, 0, 0))) return 1;"
                                 " pa_handle_free(h); pa_leave_inline(); return pa_is_inside(); }"}
    need_compiler(compiler)
    for header, text in texts.items():
        source, program = tmp_path / f"use.{suffix}", tmp_path / "use"
        source.write_text(f"#include <pyalloc.h>\n#include <{header}>\n{text}\n", encoding="utf-8")
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic",
                        f"-I{cprograms.CSRC / 'include'}", str(source), f"-L{library}", "-lpyalloc",
                        f"-Wl,-rpath,{library}", "-o", str(program)], check=True)
        must_pass([program])
