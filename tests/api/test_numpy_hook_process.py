"""pyalloc.numpy and whole processes: fork, shutdown, laziness, memory short and given back, no NumPy or an old one."""

import subprocess
import sys

import pytest

np = pytest.importorskip("numpy")

import cprograms
import pyalloc

PROLOGUE = """
import atexit, gc, os, signal, sys, threading, time, warnings
import numpy as np
import pyalloc
from pyalloc.numpy import active, handler, install, status, uninstall
MIB = 1 << 20
def owned(array):
    return pyalloc.owns(array.ctypes.data)
def anonymous():
    return pyalloc.rss().anonymous / MIB
pyalloc.rss()
"""


@pytest.fixture
def python(run_python):
    """Runs a script that must end with 0 and say nothing on standard error; gives what it prints."""

    def run(script, **env):
        result = run_python("-W", "ignore", "-c", PROLOGUE + script, env={"LD_PRELOAD": "", **env})
        assert result.stderr == ""
        return result.stdout

    return run


# ---- Fork


def test_fork_of_a_process_whose_threads_make_arrays(python):
    """Children inherit the handler, free what the parent made, and may install and uninstall for themselves."""
    out = python("""
install()
stop = threading.Event()
def churn(n):
    while not stop.is_set():
        kept = [np.ones(n * k) for k in (1, 10, 1000, 30_000)]
threads = [threading.Thread(target=churn, args=(n,)) for n in (3, 7, 11)]
for thread in threads: thread.start()
mine, large = np.arange(1000), np.arange(MIB)
for i in range(30):
    child = os.fork()
    if child == 0:
        try:
            assert status().installed == 16 and owned(np.ones(10)) and mine.sum() == 499500
            mine.resize(5000, refcheck=False)
            kept = [np.zeros(n) for n in (1, 100, 5000, MIB)]
            assert not any(one.any() for one in kept)
            del large, kept
            seen = []
            thread = threading.Thread(target=lambda: seen.append(owned(np.ones(10))))
            thread.start(); thread.join()
            uninstall()
            assert seen == [True] and not owned(np.ones(1000)) and owned(mine) and mine[999] == 999
            install(align=64)
            assert np.ones(3).ctypes.data % 64 == 0
            pyalloc.free_os_memory()
            pyalloc.heap_check()
            os._exit(7)
        except BaseException as error:
            os.write(1, repr(error).encode())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert status().installed == 16 and mine.size == 1000 and large[-1] == MIB - 1
stop.set()
for thread in threads: thread.join()
pyalloc.heap_check()
print("good")
""")
    assert out == "good\n"


def test_multiprocessing(python):
    python("""
import multiprocessing
install()
with multiprocessing.get_context("fork").Pool(2) as pool:
    for array in pool.map(np.ones, [1000, 2000, 300_000]):
        assert array.sum() in (1000, 2000, 300_000)
    assert all(pool.map(owned, [np.ones(1000).astype(object) for _ in range(4)]))
""")


# ---- The end of the process

ENDS = {
    "kept by a module": "install(); sys.kept = np.ones(1000), np.ones(MIB); kept = np.arange(10)",
    "kept by a cycle": "install()\nclass Node: pass\nnode = Node(); node.me = node; node.array = np.ones(MIB)",
    "uninstalled": "install(); kept = np.ones(1000), np.ones(MIB); uninstall(); other = np.ones(MIB)",
    "uninstalled at exit": "install(); kept = np.ones(MIB); atexit.register(uninstall)",
    "installed at exit": "kept = np.ones(MIB); atexit.register(install); "
                         "atexit.register(lambda: sys.__dict__.update(late=np.ones(MIB)))",
    "in a block": "block = handler(); block.__enter__(); kept = np.ones(MIB)",
    "thread's arrays": "install()\ndef run(): sys.kept = np.ones(1000), np.ones(MIB)\n"
                       "thread = threading.Thread(target=run); thread.start(); thread.join()",
    "thread-local arrays": "install()\nlocal = threading.local(); local.array = np.ones(MIB)\n"
                           "def run(): local.array = np.ones(MIB); other.wait()\n"
                           "other = threading.Event(); threading.Thread(target=run, daemon=True).start()",
    "busy daemon threads": "install()\ndef run():\n    while True: np.ones(1000); np.ones(100_000)\n"
                           "for _ in range(3): threading.Thread(target=run, daemon=True).start()",
    "daemon threads that switch": "def run():\n    while True: install(); np.ones(1000); uninstall()\n"
                                  "for _ in range(2): threading.Thread(target=run, daemon=True).start()",
    "arrays made by finalizers": "install()\nclass Late:\n    def __del__(self): self.array = np.ones(1000).sum()\n"
                                 "sys.late = Late(); late = Late()",
    "modules gone first": "install(); sys.kept = np.ones(MIB); sys.modules.clear()",
    "exit without finalization": "install(); kept = np.ones(MIB); sys.stdout.flush(); os._exit(0)",
    "exit by an exception": "install(); kept = np.ones(MIB); raise SystemExit(0)",
}


@pytest.mark.parametrize("case", ENDS)
def test_the_end_of_the_process(python, case):
    assert python(ENDS[case]) == ""


@pytest.mark.parametrize("case", ["kept by a module", "uninstalled", "thread-local arrays", "busy daemon threads"])
def test_the_end_of_a_process_whose_malloc_we_are(python, case):
    assert python(ENDS[case], LD_PRELOAD=pyalloc.preload.path()) == ""


# ---- Laziness, and memory that goes back


@pytest.mark.parametrize("align", [16, 64])
@pytest.mark.parametrize("huge", ["0", "1"])
def test_zeros_are_lazy(python, align, huge):
    """A large array of zeros is not resident until it is touched, and then by the (huge) pages that are touched."""
    python(f"""
huge = {huge} and "[never]" not in open("/sys/kernel/mm/transparent_hugepage/enabled").read()
install(align={align})
np.zeros(MIB, "u1").fill(1)
before = anonymous()
array = np.zeros(256 * MIB, "u1")
assert anonymous() - before < 1, anonymous() - before
array[:32 * MIB] = 1
assert 31 < anonymous() - before < 35, anonymous() - before
assert not array[32 * MIB:64 * MIB:4096].any()
small = [np.zeros(20_000, "u1") for _ in range(1000)]           # 19 MiB
assert not any(one.any() for one in small[::100])
table = np.zeros((1 << 14, 1 << 14))                            # 2 GiB
table[5, 5] = 1
assert anonymous() - before < (60 if huge else 40), anonymous() - before
assert table.sum(axis=1)[5] == 1
""", NUMPY_MADVISE_HUGEPAGE=huge)


def test_large_arrays_use_huge_pages_unless_told_not_to(python):
    """As NumPy's own do, by the same variable; small arrays alone never ask for them."""
    script = """
def huge():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("AnonHugePages"))
install()
before = huge()
small = [np.ones(20_000, "u1") for _ in range(300)]
assert huge() == before
array = np.ones(64 * MIB, "u1")
print(huge() - before)
del array, small
pyalloc.free_os_memory()
assert huge() == before
"""
    assert python(script, NUMPY_MADVISE_HUGEPAGE="0") == "0\n"
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
        if "[never]" in file.read():
            pytest.skip("transparent huge pages are turned off on this machine")
    assert int(python(script, NUMPY_MADVISE_HUGEPAGE="1")) >= 32


def test_advice_for_any_address(python):
    """Foreign, empty and wide ranges; managed objects and the collector in arenas that were advised before."""
    python("""
lib, ffi = pyalloc.lib, pyalloc.ffi
lib.pa_advise_huge_pages(ffi.NULL, 5)
lib.pa_advise_huge_pages(ffi.from_buffer(bytearray(100)), 100)
small, wide = pyalloc.empty(100), pyalloc.empty(200 * MIB)      # the second one spans four arenas
for buf, nbytes in ((small, 0), (small, 100), (wide, 200 * MIB), (wide, 200 * MIB)):
    lib.pa_advise_huge_pages(ffi.cast("void *", buf.address), nbytes)
    pyalloc.heap_check()
wide.free()
kept = [pyalloc.managed_bytes(100_000) for _ in range(1000)] + [pyalloc.managed_bytes(24) for _ in range(10_000)]
del kept[::2]
pyalloc.collect()
pyalloc.heap_check()
del kept[:]
pyalloc.free_os_memory()
pyalloc.heap_check()
""")


def test_zeros_of_memory_that_was_used_are_zero(python):
    python("""
install()
for n in (100, 5000, 40_000, MIB, 5 * MIB, 70 * MIB):
    for _ in range(5):
        array = np.zeros(n, "u1")
        assert not array.any()
        array[:] = 255
        del array
""")


def test_a_peak_goes_back(python):
    """The resident set is back at the start 12 s after a peak of temporaries, without a call."""
    python("""
install()
a = np.ones(1000)
before = anonymous()
def work():
    a = np.ones(4 * MIB // 8)
    kept = [np.sqrt(a * 2 + 1) for _ in range(50)]
    for _ in range(20): np.sqrt(a * 2 + 1) - a
    assert anonymous() - before > 150
work()
end = time.monotonic() + 12
while anonymous() - before > 6:         # 4 MiB in bins of the thread that worked, 1 MiB that any heap may keep
    assert time.monotonic() < end, anonymous() - before
    time.sleep(0.05)
""")


def test_steady_temporaries_fault_no_page(python):
    """After a few laps every temporary of 100 KiB to 4 MiB reuses memory that is there."""
    python("""
import resource
install()
arrays = [np.ones(n // 8) for n in (100 * 1024, 300 * 1024, MIB, 4 * MIB)]
def laps(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        for a in arrays: np.sqrt(a * 2 + a) - a
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
laps(5)
faults = laps(40)
assert faults <= 40, faults             # 160 steps of three to four temporaries; the default takes thousands
uninstall()
""")


# ---- Short of memory


def test_out_of_memory_is_an_error_and_nothing_is_lost(python):
    python("""
import resource
install()
kept = [np.arange(1000), np.arange(MIB)]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20), resource.RLIM_INFINITY))
more = []
for make in (np.empty, np.zeros):
    try:
        while True: more.append(make(30 * MIB, "u1"))
    except MemoryError as error:
        assert "Unable to allocate" in str(error)
    assert len(more) >= 5
    if make is np.empty: more.clear()
try:
    kept[1].resize(400 * MIB, refcheck=False)
except MemoryError:
    pass
assert (kept[1][:MIB] == np.arange(MIB)).all() and owned(kept[1])
more.clear()
for size in (1 << 62, (1 << 63) - 1):
    try:
        np.empty(size, "u1")
    except (MemoryError, ValueError):
        pass
    else:
        raise AssertionError(size)
assert np.ones(100 * MIB // 8).sum() == 100 * MIB // 8
pyalloc.heap_check()
""")


# ---- Sizes that NumPy tells


def test_numpy_frees_with_the_sizes_that_it_asked_for(tmp_path):
    """Under a core with asserts, pa_free_sized ends the process when a size is larger than its block."""
    library = cprograms.shared_library("asserts", "libpyalloc.so", cprograms.core_sources(),
                                       ["-O1", "-DPA_ASSERT_LEVEL=2", "-ftls-model=initial-exec"])
    script = PROLOGUE + """
assert "asserts" in pyalloc.preload.loaded_path()
for align in (16, 64):
    install(align=align)
    for dtype in ("u1", "f8", "S7", "O", [("a", "i1"), ("b", "f8")]):
        for shape in (0, 1, 7, (3, 0), (100, 7), (40, 50, 60), ()):
            array = np.zeros(shape, dtype)
            other = array.copy(); other.shape = (-1,) if array.size else (0, 5)
            other = array.T.copy(order="F"); array.view(); array.astype("O"); np.array([array, array])
            flat = np.empty(array.size, dtype); flat.resize(array.size * 2 + 1, refcheck=False)
            flat.resize(1, refcheck=False); flat.resize(0, refcheck=False); flat.resize(5000, refcheck=False)
    array = np.arange(10.0); array.dtype = "c16"; array.sort()
    np.fromiter(range(1000), "i8"); np.repeat(array, 500); np.sort(np.ones((50, 50)), axis=0); np.unique([1, 2, 1])
    np.linalg.inv(np.eye(100)); np.fft.fft(np.ones(1000)); np.random.default_rng(1).normal(size=10_000).cumsum()
    array = np.ones(1000); array.setflags(write=False); array.astype("f4").tobytes(); del array
try:
    lib, ffi = pyalloc.lib, pyalloc.ffi
    block = lib.pa_malloc(100)
    sys.stdout.write("checked\\n"); sys.stdout.flush()
    lib.pa_free_sized(block, 1 << 20)
finally:
    os._exit(3)
"""
    result = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, timeout=120, cwd=tmp_path,
                            env={**cprograms.ENVIRONMENT, "LD_PRELOAD": str(library / "libpyalloc.so")})
    assert result.stdout == "checked\n", result.stdout + result.stderr
    assert result.returncode < 0 and "nbytes <= pa_usable_size(p)" in result.stderr      # such a size would be seen


# ---- Another NumPy, or none


def test_without_numpy(python):
    python("""
import importlib
for name in [name for name in sys.modules if name.split(".")[0] == "numpy"]: del sys.modules[name]
sys.modules["numpy"] = None
for call in (install, handler, lambda: install(False)):
    try:
        call()
    except ImportError as error:
        assert "pyalloc.numpy needs NumPy 1.22 or newer" in str(error) and "pip install 'pyalloc[numpy]'" in str(error)
    else:
        raise AssertionError(call)
assert status() == (None, None, None) and not active()
uninstall()
""")


def test_an_old_numpy(run_python):
    run_python("-c", """
import sys, types
old = sys.modules["numpy"] = types.ModuleType("numpy")
import pyalloc.numpy as hook
for old.__version__ in ("1.21.6", "1.9.3", "0.9"):
    for call in (hook.install, hook.handler):
        try:
            call()
        except RuntimeError as error:
            assert "needs NumPy 1.22 or newer" in str(error) and f"this is {old.__version__}" in str(error)
        else:
            raise AssertionError(call)
    assert hook.status() == (None, None, None) and not hook.active()
    hook.uninstall()
""")


def test_importing_it_imports_no_numpy(run_python):
    out = run_python("-c", "import sys, pyalloc.numpy as hook; print(hook.active(), hook.status(), hook.uninstall(), "
                           "'numpy' in sys.modules)").stdout
    assert out == "False Status(numpy=None, installed=None, here=None) None False\n"
