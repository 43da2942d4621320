"""Memory that goes back from a Python process by itself, lazily, at once, and under a limit."""

import os
import sys

import pytest

import pyalloc

MIB = 1 << 20

PROLOGUE = """
import ctypes, os, signal, sys, threading, time
import pyalloc
MIB = 1 << 20
pyalloc.ffi
def stats():
    out = pyalloc.ffi.new("pa_scavenge_stats *")
    pyalloc.lib.pa_read_scavenge_stats(out)
    return out
# Left of a burst: 1 MiB that any heap may keep, and up to 4 MiB in the bins of the thread that dropped it.
def anonymous():
    return pyalloc.rss().anonymous / MIB
def burst(mib):
    blocks = [pyalloc.empty(4 * MIB) for _ in range(mib // 4)]
    for block in blocks:
        ctypes.memset(block.address, 1, len(block))
    for block in blocks:
        block.free()
def until(what, seconds=30):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, (anonymous(), stats().background_looks)
        time.sleep(0.02)
def scavengers():
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/comm") as file:
            if file.read() == "pyalloc-scav\\n":
                found.append(task)
    return found
def status(task, name):
    with open(f"/proc/self/task/{task}/status") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))
def wakeups(task):
    return int(status(task, "voluntary_ctxt_switches")) + int(status(task, "nonvoluntary_ctxt_switches"))
"""


def python(run_python, script, **env):
    return run_python("-c", PROLOGUE + script, env={"LD_PRELOAD": "", "PYALLOC_DECAY_MS": "100", **env}).stdout


def test_a_dropped_burst_goes_back_by_itself(run_python):
    """The thread comes with the first 4 MiB that are free, not with the import, and sleeps for good when it is done."""
    python(run_python, """
assert not scavengers()
before = anonymous()
burst(100)
until(lambda: anonymous() < before + 7)
thread, = scavengers()
def asleep():
    seen = wakeups(thread)
    time.sleep(0.6)
    return wakeups(thread) == seen
until(asleep)
seen, looks = wakeups(thread), stats().background_looks
time.sleep(2)
assert (wakeups(thread), stats().background_looks) == (seen, looks)
burst(100)
until(lambda: anonymous() < before + 7)
assert scavengers() == [thread] and stats().background_bytes > 180 * MIB
""")


def test_holes_go_back_when_the_only_thread_falls_asleep(run_python):
    """No span becomes empty, so there are no free pages that would call the thread: spans with holes do."""
    python(run_python, """
import random
blocks = [pyalloc.empty(2000) for _ in range(24_000)]
for block in blocks:
    ctypes.memset(block.address, 1, len(block))
survive = set(range(5, 24_000, 23))     # one at least in each span
order = [i for i in range(24_000) if i not in survive]
random.Random(1).shuffle(order)
for i in order:
    blocks[i] = None
mem = pyalloc.read_mem_stats()
assert mem.heap_idle - mem.heap_released < 4 * MIB
until(lambda: pyalloc.read_mem_stats().explicit_hollow > 25 * MIB)
""")



@pytest.mark.soak
def test_an_idle_process_has_no_wake_ups_for_a_minute(run_python):
    python(run_python, """
burst(200)
until(lambda: stats().background_bytes > 190 * MIB)
thread, = scavengers()
time.sleep(3)
seen = wakeups(thread)
time.sleep(60)
assert wakeups(thread) == seen
""", PYALLOC_DECAY_MS="500")


def test_the_thread_can_be_forbidden(run_python):
    python(run_python, """
burst(100)
for _ in range(20):
    pyalloc.empty(9 * MIB).free()
    time.sleep(0.02)
assert not scavengers() and not stats().background_running
""", PYALLOC_BACKGROUND="0")


def test_a_fork_child_gets_its_own(run_python):
    out = python(run_python, """
before = anonymous()
burst(60)
until(lambda: anonymous() < before + 7)
child = os.fork()
if child == 0:
    assert not scavengers()
    before = anonymous()
    burst(60)
    until(lambda: anonymous() < before + 7)
    assert len(scavengers()) == 1
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print("ok")
""")
    assert out == "ok\n"


def test_signals_go_to_the_programs_threads(run_python):
    python(run_python, """
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(threading.get_native_id()))
burst(60)
until(scavengers)
thread, = scavengers()
blocked = int(status(thread, "SigBlk"), 16)
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM, signal.SIGINT, signal.SIGPROF):
    assert blocked >> (number - 1) & 1
for i in range(100):
    os.kill(os.getpid(), signal.SIGUSR1)
    until(lambda: len(got) == i + 1)
assert set(got) == {os.getpid()}
""")


# ---- MADV_FREE


def test_set_madvdontneed():
    assert pyalloc.set_madvdontneed(None) is True
    try:
        assert pyalloc.set_madvdontneed(False) is True
        assert pyalloc.set_madvdontneed(None) is False
        assert pyalloc.set_madvdontneed(True) is False
    finally:
        pyalloc.set_madvdontneed(True)
    assert pyalloc.set_madvdontneed(None) is True


@pytest.mark.parametrize("variable", ["GODEBUG", "PYALLOC_DEBUG", None])
def test_lazily_freed_pages_show_as_such(run_python, variable):
    """MADV_FREE: they stay in rss, and lazy_free says how much of it is only waiting to be taken."""
    env = {variable: "madvdontneed=0"} if variable else {}
    python(run_python, ("" if variable else "pyalloc.set_madvdontneed(False)\n") + """
assert pyalloc.set_madvdontneed(None) is False
before = pyalloc.rss()
burst(64)
released = pyalloc.free_os_memory()
assert released >= 64 * MIB
after = pyalloc.rss()
assert stats().lazy_bytes >= 64 * MIB
assert after.lazy_free - before.lazy_free >= 60 * MIB and after.rss >= before.rss + 60 * MIB
assert after.heap_released - before.heap_released >= -MIB       # ours: it is given back
pyalloc.set_madvdontneed(True)
burst(64)                                                       # the same pages
pyalloc.free_os_memory()
assert pyalloc.rss().lazy_free <= before.lazy_free + MIB and pyalloc.rss().rss <= before.rss + 3 * MIB
""", PYALLOC_BACKGROUND="0", **env)


# ---- The limit


LIMITED = """
import random
def churn(live_mib, steps, watch):
    rng, live, total = random.Random(1), [], 0
    for step in range(steps):
        nbytes = int(4096 * 128 ** rng.random())
        while total + nbytes > live_mib * MIB:
            i = rng.randrange(len(live))
            live[i], live[-1] = live[-1], live[i]
            block = live.pop()
            total -= len(block)
            block.free()
        block = pyalloc.empty(nbytes)
        ctypes.memset(block.address, 1, nbytes)
        live.append(block)
        total += nbytes
        if step % 50 == 0:
            watch()
        if step % 1500 == 1499:                                 # another phase: everything goes at once
            for block in live:
                block.free()
            live, total = [], 0
    return live
"""


@pytest.mark.parametrize("variable", ["PYALLOC_MEMLIMIT", "GOMEMLIMIT", None])
def test_a_churn_stays_within_the_limit(run_python, variable):
    """Bar 3 at an eighth: 50 MiB live under 64 MiB."""
    env = {variable: "64MiB"} if variable else {}
    python(run_python, ("" if variable else "pyalloc.set_memory_limit('64MiB')\n") + LIMITED + """
before, worst = anonymous(), [0]
def watch():
    worst[0] = max(worst[0], anonymous() - before)
    assert stats().backed_bytes <= 64 * MIB
assert pyalloc.set_memory_limit(None) == 64 * MIB
live = churn(50, 4500, watch)
assert worst[0] <= 64 * 1.02 + 3, worst     # 3: the Buffer objects and lists of this test
assert stats().memory_limit == 64 * MIB and not stats().over_limit_count
""", **env)


def test_over_the_limit_it_keeps_working(run_python):
    python(run_python, LIMITED + """
pyalloc.set_memory_limit("32MiB")
live = churn(50, 700, lambda: None)
assert len(live) > 100
assert stats().over_limit and stats().over_limit_count >= 1
for block in live:
    block.free()
until(lambda: stats().backed_bytes < 32 * MIB)
""")


def test_a_limit_without_managed_objects_collects_nothing(run_python):
    python(run_python, LIMITED + """
pyalloc.set_memory_limit("40MiB")
churn(50, 700, lambda: None)
assert pyalloc.read_gc_stats().cycles == 0
""")


def test_managed_objects_under_a_limit(run_python):
    """Garbage far beyond the limit: the collector and the release of pages keep what is resident near it."""
    python(run_python, """
pyalloc.set_gc_percent("off")
pyalloc.set_memory_limit("96MiB")
before, worst = anonymous(), 0
for step in range(3000):
    kept = pyalloc.managed_bytes(200_000)
    if step % 50 == 0:
        worst = max(worst, anonymous() - before)
assert pyalloc.read_gc_stats().cycles >= 3
assert worst < 96 * 1.1, worst
""")


def test_side_tables_of_garbage_go_back(run_python):
    """A burst of managed objects leaves no more behind than one of plain blocks."""
    python(run_python, """
pyalloc.set_gc_percent("off")
pyalloc.collect()
pyalloc.free_os_memory()
before = anonymous()
blocks = pyalloc.ref_array(8000)
for i in range(8000):
    blocks[i] = pyalloc.managed_bytes(32_000)
assert pyalloc.read_mem_stats().managed_inuse > 240 * MIB
blocks = None
pyalloc.collect()
pyalloc.free_os_memory()
assert anonymous() - before < 1.5, anonymous() - before
""", PYALLOC_BACKGROUND="0")


# ---- Huge pages


def test_no_huge_page_stays_behind(run_python):
    """A large managed heap is advised to use huge pages; after free_os_memory() nothing of them stays resident, and
    the kernel is not left with advice that would fill the holes again."""
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
        if "[never]" in file.read():
            pytest.skip("transparent huge pages are turned off on this machine")
    python(run_python, """
def huge_pages():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("AnonHugePages"))
blocks = pyalloc.ref_array(3000)
for i in range(3000):
    blocks[i] = pyalloc.managed_bytes(65_000)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(blocks[i])), 1, 65_000)
assert huge_pages() > 20 * MIB, "no huge page was used: this test shows nothing"
for i in range(0, 3000):
    if i % 100:
        blocks[i] = None
pyalloc.collect()
pyalloc.free_os_memory()
def heap(field):                        # of the arenas, in MiB; they begin at 0xc0 << 32
    with open("/proc/self/smaps") as file:
        total, inside = 0, False
        for line in file:
            word = line.split()
            if not word[0].endswith(":"):
                inside = int(word[0].split("-")[0], 16) >> 32 == 0xC0
            elif inside and word[0] == field + ":":
                total += int(word[1]) / 1024
    return total
inuse = pyalloc.read_mem_stats().heap_inuse / MIB
assert 1 < inuse < 20 and heap("Rss") <= inuse + 0.5, (heap("Rss"), inuse)
for _ in range(10):                     # reading what is kept must not bring its neighbours back
    for i in range(0, 3000, 100):
        memoryview(blocks[i])[0]
assert heap("Rss") <= inuse + 0.5
blocks = None
pyalloc.collect()
pyalloc.free_os_memory()
assert heap("AnonHugePages") == 0 and heap("Rss") <= 0.5, (heap("AnonHugePages"), heap("Rss"))
""", PYALLOC_BACKGROUND="0")


def test_managed_objects_go_back_after_one_collection(run_python):
    """No call of malloc or free follows the collection: the collector itself wakes the thread."""
    python(run_python, """
before = anonymous()
blocks = pyalloc.ref_array(2000)
for i in range(2000):
    blocks[i] = pyalloc.managed_bytes(65_000)
    ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(blocks[i])), 1, 65_000)
assert anonymous() - before > 120
blocks = None
pyalloc.collect()
until(lambda: anonymous() - before < 25)        # the rest: side tables, and what any heap may keep
""")


SMALL_BLOCKS = """
def arenas(name):
    # What /proc/self/smaps says of the arenas, in MiB.
    total = inside = 0
    with open("/proc/self/smaps") as file:
        for line in file:
            word = line.split()[0]
            if not word.endswith(":"):
                inside = word.startswith("c0")       # where the first arena is asked for
            elif inside and word == name + ":":
                total += int(line.split()[1]) / 1024
    return total
lib, ffi = pyalloc.lib, pyalloc.ffi
def fill(mib, nbytes=400):
    return [[lib.pa_calloc(1, nbytes) for _ in range(1000)] for _ in range(mib * MIB // nbytes // 1000)]
"""


def test_the_whole_heap_asks_for_huge_pages_only_when_told_to(python_with_huge_pages):
    script = SMALL_BLOCKS + """
kept = fill(100)                                                    # two arenas
print(int(arenas("AnonHugePages")))
"""
    assert int(python_with_huge_pages(script, "0")) == 0
    assert int(python_with_huge_pages(script, "1")) >= 80


@pytest.mark.parametrize("background", ["0", "1"])
def test_blocks_in_huge_pages_go_back(python_with_huge_pages, background):
    """Whole spans and pages between blocks that live, to what small pages would hold; nothing fills the holes again."""
    python_with_huge_pages(SMALL_BLOCKS + """
start = arenas("Rss")
kept = fill(100)
peak = arenas("Rss")
for some in kept:
    for i, block in enumerate(some):
        if i % 100 >= 10:                                           # a tenth survives, in rows of ten blocks
            lib.pa_free(block)
def look():
    lib.pa_free(lib.pa_malloc(3000))
    for nbytes in range(16, 20000, 500):                            # slow paths now and then
        lib.pa_free(lib.pa_malloc(nbytes))
    pyalloc.heap_check()
    return arenas("Rss") - start
until(lambda: look() < 0.45 * (peak - start), 40)
low = look()
time.sleep(1)
assert look() < low + 3, (low, look())
for some in kept:
    for i, block in enumerate(some):
        if i % 100 < 10:
            lib.pa_free(block)
until(lambda: look() < 8, 40)
pyalloc.free_os_memory()
assert arenas("AnonHugePages") < 5 and look() < 6, (arenas("AnonHugePages"), look())
""", "1", PYALLOC_BACKGROUND=background)


@pytest.fixture
def python_with_huge_pages(run_python):
    with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
        if "[madvise]" not in file.read():
            pytest.skip("transparent huge pages are not by request on this machine")
    return lambda script, huge, **env: python(run_python, script, PYALLOC_HUGE_PAGES=huge, **env)
