"""pyalloc.python: CPython's own objects from our heap. A hook is for ever, so each test has a process of its own."""

import shutil
import subprocess
import sys
import sysconfig
import textwrap
import threading

import pytest

import pyalloc
from pyalloc import python as hook

#: What most programs of this file begin with. owned(x): does x's own block come from pyalloc?
START = """
import gc, os, sys, threading, time
import pyalloc
from pyalloc import python as hook
def owned(x): return pyalloc.owns(id(x))
def check_heap():
    # A thread that was joined may still be handing back its cache, and the check is exact for a quiet heap only.
    end = time.monotonic() + 30
    while len(os.listdir("/proc/self/task")) > 1:
        assert time.monotonic() < end, "a thread does not end"
        time.sleep(0.01)
    pyalloc.heap_check()
"""


@pytest.fixture
def program(run_python):
    """Runs a program in a fresh interpreter: it must end well and say nothing on stderr. Returns its output."""

    def run(text, *arguments, options=(), env=None):
        result = run_python(*options, "-c", START + textwrap.dedent(text), *arguments,
                            env={"PYTHONMALLOC": "", "LD_PRELOAD": "", "PYALLOC_BACKGROUND": "0", **(env or {})})
        assert result.stderr == ""
        return result.stdout

    return run


# ---- Installing


@pytest.mark.parametrize("domains, objects, items", [
    ("", True, True), ("obj", True, False), ("mem", False, True), ("raw", False, False), ("raw,mem,obj", True, True)])
def test_new_blocks_are_ours_and_old_ones_are_not(program, domains, objects, items):
    program("""
        before = [object() for _ in range(1000)]
        names = sys.argv[1].split(",") if sys.argv[1] else None
        hook.install(names) if names else hook.install()
        after = [object() for _ in range(1000)]
        assert all(map(owned, after)) == any(map(owned, after)) == (sys.argv[2] == "True")
        assert not any(map(owned, before))
        import ctypes
        few = [None] * 10                                       # more than 512 bytes would be pymalloc's from raw
        items = ctypes.c_void_p.from_address(id(few) + object.__basicsize__ + 8).value      # ob_item
        assert pyalloc.owns(items) == (sys.argv[3] == "True"), items
        status = hook.status()
        assert status.domains == status.hooked == tuple(names or ("mem", "obj"))
        frees = status.foreign_frees
        del before
        assert hook.status().foreign_frees >= frees + (1000 if "obj" in status.domains else 0)
        pyalloc.heap_check()
    """, domains, str(objects), str(items))


def test_one_domain_as_a_string_then_others():
    program = START + ("hook.install('obj'); hook.install(['raw']); hook.install(('obj', 'obj'))\n"
                       "print(hook.status().domains)")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("('raw', 'obj')\n", "")


@pytest.mark.parametrize("domains", ["objects", ("obj", "x"), (), "OBJ"])
def test_unknown_domains(domains):
    with pytest.raises(ValueError, match="'obj', 'mem' or 'raw'"):
        hook.install(domains)
    assert hook.status().hooked == ()


def test_disable_and_on_again(program):
    program("""
        hook.disable()                                      # never installed: nothing happens
        assert hook.status().domains == hook.status().hooked == ()
        hook.install()
        bytes_owned = lambda x: pyalloc.owns(memoryview(x))         # lists and the like have free lists of old blocks
        ours = [bytearray(b"%04d" % i) for i in range(1000)]
        assert all(map(bytes_owned, ours))
        hook.disable(); hook.disable()
        status = hook.status()
        assert status.domains == () and status.hooked == ("mem", "obj")
        theirs = [object() for _ in range(1000)]
        assert not any(map(owned, theirs))
        for one in ours:
            one += bytes(range(100))                        # resizes blocks of ours, which stay ours
        assert [one[:5] for one in ours] == [b"%04d\\0" % i for i in range(1000)] and all(map(bytes_owned, ours))
        live = pyalloc.read_mem_stats().explicit_objects
        del ours, one
        assert pyalloc.read_mem_stats().explicit_objects <= live - 1000
        hook.install("obj")                                 # the others stay off
        assert hook.status().domains == ("obj",) and owned(object())
        hook.install()
        assert hook.status().domains == ("mem", "obj")
        del theirs
        gc.collect()
        pyalloc.heap_check()
    """)


def test_status_counts_blocks(program):
    program("""
        hook.install()
        before = hook.status()
        kept = [object() for _ in range(10_000)]
        after = hook.status()
        assert 10_000 <= after.heap_blocks - before.heap_blocks < 10_200
        assert 240_000 <= after.heap_bytes - before.heap_bytes < 400_000
    """)


# ---- Where it can't be safe


@pytest.mark.parametrize("options, env", [
    (["-X", "dev"], {}), ([], {"PYTHONMALLOC": "debug"}), ([], {"PYTHONMALLOC": "malloc_debug"}),
    ([], {"PYTHONMALLOC": "pymalloc_debug"}), ([], {"PYTHONDEVMODE": "1"})])
def test_debug_hooks_are_refused(program, options, env):
    out = program("""
        try:
            hook.install()
        except RuntimeError as error:
            print(error)
        assert hook.status().hooked == () and not owned(object())
    """, options=options, env=env)
    assert "debug hooks" in out and "PYTHONMALLOC=debug" in out


def test_without_debug_hooks_dev_mode_is_fine(program):
    program("hook.install(); assert owned(object())", options=["-X", "dev"], env={"PYTHONMALLOC": "malloc"})


@pytest.mark.parametrize("started", ["-X", "call"])
def test_tracemalloc_that_traces_already_is_refused(program, started):
    out = program("""
        import tracemalloc
        if not tracemalloc.is_tracing():
            tracemalloc.start()
        for domains in ("obj", "mem", "raw", ("mem", "obj")):
            try:
                hook.install(domains)
            except RuntimeError as error:
                print(error)
        assert hook.status().hooked == ()
        tracemalloc.stop()
        hook.install()
        assert owned(object())
    """, options=["-X", "tracemalloc"] if started == "-X" else [])
    assert out.count("call tracemalloc.stop(), install(), tracemalloc.start()") == 4


def test_pypy_and_free_threaded_builds_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "abiflags", "t")
    with pytest.raises(RuntimeError, match="free-threaded build"):
        hook.install()
    monkeypatch.setattr(sys, "implementation", type(sys.implementation)(name="pypy"))
    with pytest.raises(RuntimeError, match="pypy does not allocate"):
        hook.install()
    assert hook.status().hooked == ()


HOOKER = """
#include <Python.h>
static PyMemAllocatorEx old;
static void *my_malloc(void *c, size_t n) { return old.malloc(old.ctx, n); }
static void *my_calloc(void *c, size_t k, size_t n) { return old.calloc(old.ctx, k, n); }
static void *my_realloc(void *c, void *p, size_t n) { return old.realloc(old.ctx, p, n); }
static void my_free(void *c, void *p) { old.free(old.ctx, p); }
void attach(void) { PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &old);
  PyMemAllocatorEx mine = {NULL, my_malloc, my_calloc, my_realloc, my_free};
  PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &mine); }
void detach(void) { PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &old); }
"""


@pytest.fixture(scope="module")
def hooker(tmp_path_factory):
    """A library with another hook of the domain obj: attach() and detach()."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is missing: apt-get install gcc")
    folder = tmp_path_factory.mktemp("hooker")
    (folder / "hooker.c").write_text(HOOKER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-I", sysconfig.get_path("include"), folder / "hooker.c", "-o",
                    folder / "hooker.so"], check=True)
    return str(folder / "hooker.so")


def test_another_extension_s_hook_is_refused_before_and_fine_after(program, hooker):
    out = program("""
        import ctypes
        other = ctypes.PyDLL(sys.argv[1])
        other.attach()
        try:
            hook.install()
        except RuntimeError as error:
            print(error)
        assert hook.status().hooked == ()           # all or none: "mem" had no hook
        other.detach()
        hook.install()
        other.attach()
        kept = [object() for _ in range(100)]
        assert all(map(owned, kept))
        hook.install(("raw", "mem", "obj"))
        hook.disable()
        assert not owned(object())
        other.detach()
        del kept
        assert not owned(object())
        pyalloc.heap_check()
    """, hooker)
    assert out.startswith(hooker) and "before it" in out


# ---- tracemalloc afterwards


def test_tracemalloc_afterwards(program):
    program("""
        import tracemalloc
        hook.install()
        early = [bytearray(5000) for _ in range(10)]
        tracemalloc.start()
        traced = [bytearray(4000) for _ in range(100)]
        assert all(pyalloc.owns(memoryview(one)) for one in traced)
        here = tracemalloc.Filter(True, "<string>")
        found = tracemalloc.take_snapshot().filter_traces([here]).statistics("lineno")[0]
        assert 400_000 <= found.size < 420_000, found
        hook.disable()                              # tracemalloc wraps the hook: it must not be unhooked
        theirs = [bytearray(3000) for _ in range(100)]
        assert not any(pyalloc.owns(memoryview(one)) for one in theirs)
        hook.install()                              # hooked already
        again = [bytearray(2000) for _ in range(100)]
        assert all(pyalloc.owns(memoryview(one)) for one in again)
        try:
            hook.install("raw")                     # not hooked yet
        except RuntimeError as error:
            assert "tracemalloc is tracing" in str(error)
        else:
            assert False
        del traced[:50], theirs[:50], again[:50], early[:5]
        peak = tracemalloc.get_traced_memory()[1]
        assert peak > 900_000
        tracemalloc.stop()
        assert owned(object())
        del traced, theirs, again, early
        hook.disable()
        tracemalloc.start(5); tracemalloc.stop()
        assert not owned(object())
        gc.collect()
        pyalloc.heap_check()
    """)


# ---- What CPython asks of an allocator


CONTRACT = """
    import ctypes
    api = ctypes.CDLL(None) if sys.argv[1] == "Raw" else ctypes.pythonapi       # CDLL: without the GIL
    prefix = {"Raw": "PyMem_Raw", "Mem": "PyMem_", "Obj": "PyObject_"}[sys.argv[1]]
    void, size = ctypes.c_void_p, ctypes.c_size_t
    malloc, calloc, realloc, free = (getattr(api, prefix + name) for name in ("Malloc", "Calloc", "Realloc", "Free"))
    for function, arguments in ((malloc, [size]), (calloc, [size, size]), (realloc, [void, size])):
        function.restype, function.argtypes = void, arguments
    free.restype, free.argtypes = None, [void]
    text = bytes(range(256)) * 4
    foreign = [malloc(n) for n in (1, 100, 500, 5000, 100_000)]
    for p, n in zip(foreign, (1, 100, 500, 5000, 100_000)):
        ctypes.memmove(p, text, min(n, 1024))
    hook.install(sys.argv[1].lower())
    nothing = [malloc(0), malloc(0), calloc(0, 8), calloc(8, 0), realloc(None, 0), realloc(malloc(100), 0)]
    assert None not in nothing and len(set(nothing)) == 6 and all(map(pyalloc.owns, nothing))
    for n in (1, 7, 8, 9, 16, 17, 100, 512, 513, 4096, 40_000, 3_000_000):
        p = malloc(n)
        assert p % (16 if n > 8 else 8) == 0 and pyalloc.owns(p)
        ctypes.memmove(p, text, min(n, 1024))
        for bigger in (n * 2, n * 9 + 1, n // 2 + 1):
            p = realloc(p, bigger)
            assert ctypes.string_at(p, min(n // 2, bigger, 1024)) == text[:min(n // 2, bigger, 1024)]
        q = calloc(n, 3)
        assert ctypes.string_at(q, n * 3) == bytes(n * 3) and pyalloc.owns(q)
        free(p); free(q)
    for absurd in (2**62, 2**63, 2**64 - 1):
        assert malloc(absurd) is None and calloc(absurd, 2) is None
        p = malloc(10)
        assert realloc(p, absurd) is None
        free(p)
    for p, n in zip(foreign, (1, 100, 500, 5000, 100_000)):
        keep = min(n, 1024)
        for bytes_now in (n + 5, n * 20, n):
            p = realloc(p, bytes_now)
            assert not pyalloc.owns(p) and ctypes.string_at(p, keep) == text[:keep]
        free(p)
    free(None)
    status = hook.status()
    assert status.foreign_reallocs >= 15 and status.foreign_frees >= 5, status
    for p in nothing:
        free(p)
    pyalloc.heap_check()
"""


@pytest.mark.parametrize("domain", ["Raw", "Mem", "Obj"])
def test_the_contract(program, domain):
    program(CONTRACT, domain)


def test_raw_without_the_gil_while_hooks_come_and_go(program):
    """Threads that hold no GIL allocate while the main thread installs and disables."""
    program("""
        import ctypes
        api = ctypes.CDLL(None)
        api.PyMem_RawMalloc.restype, api.PyMem_RawMalloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        api.PyMem_RawRealloc.restype = ctypes.c_void_p
        api.PyMem_RawRealloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        api.PyMem_RawFree.argtypes = [ctypes.c_void_p]
        seen, rounds = set(), [0] * 3
        def work(me):
            kept = []
            while not (rounds[me] >= 300 and seen == {True, False}) and rounds[me] < 100_000:
                p = api.PyMem_RawRealloc(api.PyMem_RawMalloc(10 + me), 100)
                seen.add(pyalloc.owns(p))
                kept.append(p)
                if len(kept) > 50:
                    api.PyMem_RawFree(kept.pop(0))
                rounds[me] += 1
            for p in kept:
                api.PyMem_RawFree(p)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
        for thread in threads: thread.start()
        while any(thread.is_alive() for thread in threads):
            hook.install("raw")
            threads[0].join(0.001)
            hook.disable()
            threads[1].join(0.001)
        assert seen == {True, False} and min(rounds) >= 300
        check_heap()
    """)


# ---- Processes


def test_threads_hand_objects_to_each_other(program):
    program("""
        import queue
        hook.install(("raw", "mem", "obj"))
        line, results = queue.Queue(), []
        def make():
            for i in range(300):
                line.put([{str(j): [j] * (i % 9), "t": (i, j)} for j in range(30)])
        def drop():
            total = 0
            while (got := line.get()) is not None:
                total += sum(one["t"][0] for one in got)
            results.append(total)
        makers = [threading.Thread(target=make) for _ in range(4)]
        droppers = [threading.Thread(target=drop) for _ in range(4)]
        for thread in makers + droppers: thread.start()
        for thread in makers: thread.join()
        for _ in droppers: line.put(None)
        for thread in droppers: thread.join()
        assert sum(results) == 4 * 30 * sum(range(300))
        for _ in range(500):
            thread = threading.Thread(target=lambda: [str(i) for i in range(50)])
            thread.start(); thread.join()
        check_heap()
    """)


def test_fork(program):
    program("""
        hook.install(("raw", "mem", "obj"))
        stop = threading.Event()
        def churn():
            while not stop.is_set():
                [dict(a=[i] * 20, b=str(i)) for i in range(100)]
        threads = [threading.Thread(target=churn) for _ in range(2)]
        for thread in threads: thread.start()
        kept = [str(i) * 3 for i in range(5000)]
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                kept = kept[::2] + [object() for _ in range(1000)]
                pyalloc.heap_check()
                thread = threading.Thread(target=lambda: kept.append([1] * 100))
                thread.start(); thread.join()
                os._exit(len(kept) % 100)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3501 % 100
        stop.set()
        for thread in threads: thread.join()
        import subprocess
        assert subprocess.run([sys.executable, "-c", "print(5)"], capture_output=True).stdout == b"5\\n"
        check_heap()
    """, options=["-W", "ignore::DeprecationWarning"])       # threads and fork, from 3.12 on


INTERPRETERS = """
    try:
        import _interpreters as interpreters                # 3.13
    except ImportError:
        import _xxsubinterpreters as interpreters
    hook.install(("raw", "mem", "obj"))
    text = "import json, re; x = [dict(a=[i] * 9, b=str(i)) for i in range(500)]; assert json.loads(json.dumps(x)) == x"
    def work():
        for _ in range(3):
            one = interpreters.create()
            found = getattr(interpreters, "exec", getattr(interpreters, "run_string", None))(one, text)
            assert found is None, found
            interpreters.destroy(one)
    work()
    threads = [threading.Thread(target=work) for _ in range(int(sys.argv[1]))]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    left = interpreters.create()                            # ends with the process
    check_heap()
"""


def test_sub_interpreters(program):
    """Their own GIL each from 3.12 on, so in threads at once there; before, such threads are not safe without a hook
    either."""
    program(INTERPRETERS, "3" if sys.version_info >= (3, 12) else "0")


@pytest.mark.parametrize("domains", ["mem,obj", "raw,mem,obj"])
def test_blocks_are_freed_after_the_module_is_gone(program, domains):
    """At exit: objects of ours in globals, cycles, daemon threads, threads under way, atexit; no module any more."""
    assert program("""
        import atexit
        hook.install(sys.argv[1].split(","))
        class Late:
            def __del__(self, list=list, range=range):
                self.more = list(range(1000))
        kept = [Late() for _ in range(100)]
        kept.append(kept)
        sys.late = Late(), {str(i): [i] for i in range(5000)}       # one of the last to go
        def forever():
            while True:
                [str(i) * 5 for i in range(100)]
        threading.Thread(target=forever, daemon=True).start()
        threading.Thread(target=lambda: [[i] * 50 for i in range(20_000)]).start()
        atexit.register(lambda: [str(i) for i in range(1000)])
        for name in [name for name in sys.modules if name.startswith("pyalloc")]:
            del sys.modules[name]
        del pyalloc, hook
        gc.collect()
        again = [[i] * 20 for i in range(20_000)]
        print("end")
    """, domains) == "end\n"


def test_out_of_memory_is_a_memory_error(program):
    program("""
        import resource
        hook.install()
        kept = []
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + (300 << 20), resource.RLIM_INFINITY))
        try:
            while len(kept) < 10_000:
                kept.append(bytes(1 << 20))
            assert False, "no limit"
        except MemoryError:
            count = len(kept)
        assert count > 50
        del kept[::2]
        kept += [bytes(1 << 20) for _ in range(count // 3)]
        pyalloc.heap_check()
    """)


def test_free_or_tells_of_what_is_not_ours():
    """pa_free_or, which the hook's frees are: of ours it frees, of the rest it only tells."""
    lib, ffi = pyalloc.lib, pyalloc.ffi
    told = []
    tell = ffi.callback("void(void *)", told.append)
    before = pyalloc.read_mem_stats().explicit_objects
    blocks = [lib.pa_malloc(n) for n in (0, 8, 500, 5000, 100_000) for _ in range(100)]
    assert pyalloc.read_mem_stats().explicit_objects - before >= 500
    thread = threading.Thread(target=lambda: [lib.pa_free_or(block, tell) for block in blocks[::2]])
    thread.start()
    thread.join()
    for block in blocks[1::2]:
        lib.pa_free_or(block, tell)
    assert told == [] and pyalloc.read_mem_stats().explicit_objects - before < 100
    foreign = ffi.new("char[100]")      # of Python's allocator
    lib.pa_free_or(foreign, tell)
    lib.pa_free_or(ffi.NULL, tell)
    assert told == [ffi.cast("void *", foreign), ffi.NULL]


def test_the_package_has_it(run_python):
    assert pyalloc.python is hook
    run_python("-c", "import sys, pyalloc; assert 'pyalloc.python' not in sys.modules; pyalloc.python.status()")
