"""The C workloads: each runs, tells the truth about itself, and refuses nonsense."""

import json
import subprocess

import pytest

from pyalloc._bench import catalog, runner, trace
from pyalloc._bench.allocators import Allocator, BenchError

GLIBC = Allocator("glibc", None)
FIELDS = {
    "kernel",
    "ops",
    "seconds",
    "ns_per_op",
    "peak_rss_kib",
    "vm_hwm_kib",
    "fixed_kib",
    "rss_kib",
    "minor_faults",
}
WORKLOADS = [test for test in catalog.all_tests() if test.group == catalog.KERNELS]


def run(kernels, *words):
    return subprocess.run([str(kernels), *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("test", WORKLOADS, ids=[test.name for test in WORKLOADS])
def test_each_workload_runs_small(kernels, test):
    sample = runner.measure(kernels, test.arguments(scale=200 / test.ops), GLIBC)
    assert FIELDS <= set(sample)
    assert sample["kernel"] == test.kernel and sample["ops"] > 0 and sample["seconds"] > 0
    assert sample["ns_per_op"] == pytest.approx(1e9 * sample["seconds"] / sample["ops"], rel=1e-3)
    assert sample["peak_rss_kib"] == sample["vm_hwm_kib"] - sample["fixed_kib"] > 0
    assert sample["vm_hwm_kib"] >= sample["rss_kib"]


def test_the_catalogue_covers_every_kernel(kernels):
    listed = {line.split("\t")[0] for line in run(kernels, "--list").stdout.splitlines()}
    assert listed - {"expand"} == {test.kernel for test in [*catalog.all_tests(), *catalog.dropin()]}


def test_operations_are_what_was_asked_for(kernels):
    assert runner.measure(kernels, ["pair", "--ops", "1000"], GLIBC)["ops"] == 1000
    sample = runner.measure(kernels, ["batch", "--live", "10", "--ops", "200", "--order", "fifo"], GLIBC)
    assert sample["ops"] == 200
    sample = runner.measure(kernels, ["pair", "--ops", "1000", "--threads", "2"], GLIBC)
    assert sample["ops"] == 1000 and sample["threads"] == 2


def test_page_faults_are_those_of_the_measured_part(kernels):
    """glibc told to map every 4 MiB block faults each time; told to keep them, never."""
    eager = Allocator("glibc", None, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1048576"})
    words = ["large", "--size", "4194304", "--ops", "20"]
    assert runner.measure(kernels, words, eager)["minor_faults"] >= 20
    keeps = Allocator(
        "glibc",
        None,
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=16777216:glibc.malloc.trim_threshold=99999999"},
    )
    assert runner.measure(kernels, words, keeps)["minor_faults"] == 0


def test_peak_rss_sees_what_was_live(kernels):
    sample = runner.measure(kernels, ["fragment", "--live", "8192", "--ops", "600000"], GLIBC)
    assert sample["peak_live_kib"] >= 8192 <= sample["peak_rss_kib"]


@pytest.mark.parametrize(
    "words, code, text",
    [
        ([], 2, "which kernel"),
        (["nosuch"], 2, "no such kernel: nosuch"),
        (["pair", "--size"], 2, "missing after --size"),
        (["pair", "--size", "12x"], 2, "not a number"),
        (["pair", "--size", "-1"], 2, "not a number"),
        (["pair", "--frob", "1"], 2, "no such option: --frob"),
        (["pair", "--threads", "0"], 2, "--threads"),
        (["batch", "--size", "10", "--size-max", "9"], 2, "--size-max"),
        (["batch", "--order", "sideways"], 3, "sideways"),
        (["xthread", "--threads", "3"], 3, "even"),
        (["replay"], 3, "no --trace"),
        (["replay", "--trace", "/nowhere/at/all"], 3, "/nowhere/at/all"),
        (["pair", "--expect", "/nowhere/libx.so"], 4, "did not take effect"),
    ],
)
def test_nonsense_is_refused(kernels, words, code, text):
    done = run(kernels, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def expanded(kernels, folder, path):
    (folder / "compact").write_bytes(trace.decompress(path))
    done = run(kernels, "expand", "--trace", folder / "compact", "--output", folder / "flat")
    assert done.returncode == 0, done.stderr
    return folder / "flat"


@pytest.mark.parametrize("path", trace.shipped(), ids=trace.trace_name)
def test_replay_of_each_shipped_trace(kernels, tmp_path, path):
    metadata = trace.read_metadata(path)
    flat = expanded(kernels, tmp_path, path)
    sample = runner.measure(kernels, ["replay", "--trace", str(flat)], GLIBC)
    assert {name: sample[name] for name in metadata["counts"]} == metadata["counts"]
    assert sample["ops"] == sum(metadata["counts"].values())
    assert sample["peak_rss_kib"] * 1024 > metadata["peak_live_bytes"]
    assert sample["fixed_kib"] * 1024 >= 16 * metadata["peak_live_blocks"]
    part = runner.measure(kernels, ["replay", "--trace", str(flat), "--ops", "1000"], GLIBC)
    assert part["ops"] == 1000


BAD_MALLOC = r"""
#include <stddef.h>
extern void *__libc_malloc(size_t);
static void *last;
static unsigned count;
void *malloc(size_t n)
{
    if (n == 333 && ++count == 50)
        return last; /* a live block, once more */
    void *p = __libc_malloc(n);
    if (n == 333)
        last = p;
    return p;
}
"""


def test_replay_notices_overlapping_blocks(kernels, compile_c, tmp_path):
    events = [trace.Event(trace.MALLOC, i, 333) for i in range(100)] + [
        trace.Event(trace.FREE, i) for i in range(100)
    ]
    path = tmp_path / "x.patrace.xz"
    trace.save(path, trace.Trace(events, {}))
    flat = expanded(kernels, tmp_path, path)
    bad = Allocator("bad", str(compile_c(BAD_MALLOC, "bad.so", "-shared", "-fPIC")))
    with pytest.raises(BenchError, match="bad: kernels replay .* was overwritten"):
        runner.measure(kernels, ["replay", "--trace", str(flat)], bad)
    assert runner.measure(kernels, ["replay", "--trace", str(flat)], GLIBC)["ops"] == 200


def test_replay_refuses_slots_out_of_range(kernels, tmp_path):
    flat = tmp_path / "flat"
    header = b"PAFLAT01" + (1).to_bytes(8, "little") * 2 + bytes(40)
    flat.write_bytes(header + (5 << 3).to_bytes(4, "little") + bytes(4))
    done = run(kernels, "replay", "--trace", flat)
    assert done.returncode == 3 and "out of range" in done.stderr


def test_large_measures_release_where_the_library_can(kernels, compile_c):
    """Only a library with pa_free_os_memory gets the figure; it is called after everything was freed."""
    text = "#include <stddef.h>\n#include <malloc.h>\nextern void *__libc_malloc(size_t);\n"
    text += "void *malloc(size_t n) { return __libc_malloc(n); }\n"
    text += "size_t pa_free_os_memory(void) { malloc_trim(0); return 1; }"
    library = Allocator("trims", str(compile_c(text, "trims.so", "-shared", "-fPIC")))
    words = ["large", "--size", "65536", "--live", "64", "--ops", "2000"]
    assert "rss_released_kib" not in runner.measure(kernels, words, GLIBC)
    for threads in ("1", "2"):
        sample = runner.measure(kernels, [*words, "--threads", threads], library)
        assert json.dumps(sample) and sample["rss_released_kib"] - sample["rss_start_kib"] <= 3072
