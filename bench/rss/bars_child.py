"""One measurement of bars.py in a process of its own: what, scale; prints its figures as JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import random
import sys
import threading
import time
from array import array

MIB = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_mib() -> float:
    with open("/proc/self/statm", "rb") as file:
        words = file.read().split()
    return (int(words[1]) - int(words[2])) * PAGE / MIB     # without pages of files


def faults() -> int:
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[7])


def scavenger_cpu(pyalloc) -> float:
    stats = pyalloc.ffi.new("pa_scavenge_stats *")
    pyalloc.lib.pa_read_scavenge_stats(stats)
    return stats.background_cpu_ns / 1e9


def watch_return(pyalloc, before: float, top: float) -> dict[str, float]:
    """Samples for 31 s what is left of a burst, without a call of pyalloc that allocates."""
    start, samples = time.monotonic(), []
    while not samples or samples[-1][0] < 31:
        samples.append((time.monotonic() - start, rss_mib() - before, scavenger_cpu(pyalloc)))
        time.sleep(0.1)

    def left(at: float) -> float:
        return next(mib for when, mib, _ in samples if when >= at)

    def worst(rows) -> float:
        """The largest share of a processor over any 5 s, in %."""
        shares = [0.0]
        for when, _, cpu in rows:
            later = [row for row in rows if row[0] <= when + 5]
            shares.append((later[-1][2] - cpu) / 5 * 100)
        return max(shares)

    got = {"back_5s": (1 - left(5) / top) * 100, "back_30s": (1 - left(30) / top) * 100, "cpu_worst": worst(samples)}
    got["cpu_late"] = worst([row for row in samples if row[1] < 256])
    return got


def burst(scale: float) -> dict[str, float]:
    import pyalloc

    pyalloc.ffi         # loaded before, so that it does not count
    scavenger_cpu(pyalloc)
    before = rss_mib()
    blocks = [pyalloc.empty(MIB) for _ in range(int(2048 * scale))]
    for block in blocks:
        ctypes.memset(block.address, 1, MIB)
    top = rss_mib() - before
    for block in blocks:
        block.free()
    got = watch_return(pyalloc, before, top)
    pyalloc.free_os_memory()
    got["after_mib"] = rss_mib() - before - sys.getsizeof(blocks) / MIB
    return got


def managed(scale: float) -> dict[str, float]:
    import pyalloc

    pyalloc.ffi
    scavenger_cpu(pyalloc)
    pyalloc.collect()
    before = rss_mib()
    pyalloc.set_gc_percent("off")
    root = pyalloc.ref_array(int(2048 * scale) * 16)
    for i in range(len(root)):
        block = pyalloc.managed_bytes(65536)
        ctypes.memset(memoryview_address(block), 1, 65536)
        root[i] = block
    top = rss_mib() - before
    del root, block
    pyalloc.collect()
    got = watch_return(pyalloc, before, top)
    pyalloc.free_os_memory()
    got["after_mib"] = rss_mib() - before
    return got


def memoryview_address(block) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(block))


def ask(scale: float) -> dict[str, float]:
    """free_os_memory() for touched, free pages in one piece, against madvise on as much of a plain mapping."""
    os.environ["PYALLOC_BACKGROUND"] = "0"
    import pyalloc

    nbytes, ours, plain, difference = int(2048 * scale) * MIB, [], [], []
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for _ in range(5):
        pyalloc.free_os_memory()
        block = pyalloc.empty(nbytes)
        ctypes.memset(block.address, 1, nbytes)
        block.free()
        rss, start = rss_mib(), time.thread_time()
        released = pyalloc.free_os_memory()
        ours.append(time.thread_time() - start)
        difference.append(released / MIB - (rss - rss_mib()))
        mapping = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = memoryview_address(mapping)
        ctypes.memset(address, 1, nbytes)
        start = time.thread_time()
        if madvise(address, nbytes, mmap.MADV_DONTNEED) != 0:
            raise OSError(ctypes.get_errno(), "madvise")
        plain.append(time.thread_time() - start)
        gc.collect()
        mapping.close()
    return {"ratio": min(ours) / min(plain), "difference_mib": max(difference, key=abs)}


def hot(scale: float) -> dict[str, float]:
    import pyalloc

    pyalloc.ffi
    scavenger_cpu(pyalloc)
    before, rng = rss_mib(), random.Random(1)
    sizes = [int(100 * 1024 * (4 * MIB / (100 * 1024)) ** rng.random()) for _ in range(16)]

    def step() -> None:
        held = []
        for nbytes in sizes:
            block = pyalloc.empty(nbytes)
            ctypes.memset(block.address, 1, nbytes)
            held.append(block)
            if len(held) == 4:
                held.pop(0).free()
        for block in held:
            block.free()

    end = time.monotonic() + 4
    while time.monotonic() < end:
        step()
    steps, from_faults, end = 0, faults(), time.monotonic() + max(4.0, 10 * scale)
    while time.monotonic() < end:
        step()
        steps += 1
    got = {"faults": (faults() - from_faults) / steps, "steps": steps}
    time.sleep(12)
    got["after_mib"] = rss_mib() - before
    return got


def limit(scale: float) -> dict[str, float]:
    """Blocks from 4 KiB on, 400 MiB of them live, replaced at random and written to; three phases of other sizes."""
    addresses, sizes = array("Q", bytes(8 * 200000)), array("Q", bytes(8 * 200000))
    before = rss_mib()
    import pyalloc

    lib, ffi = pyalloc.lib, pyalloc.ffi
    live_bytes, allowed = int(400 * MIB * scale), int(512 * MIB * scale) / MIB * 1.02
    peak, breach, longest, stop = 0.0, None, 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak, breach, longest
        while not stop.wait(0.02):
            now, mib = time.monotonic(), rss_mib() - before
            peak = max(peak, mib)
            if mib <= allowed:
                breach = None
            else:
                breach = breach or now
                longest = max(longest, now - breach)

    watcher = threading.Thread(target=watch)
    watcher.start()
    phases = {int(60000 * scale) * part // 3 + 1 for part in (1, 2)}
    rng, count, total, start = random.Random(7), 0, 0, time.monotonic()
    for step in range(int(60000 * scale)):
        largest = (256, 16, 64)[step * 3 // int(60000 * scale)]
        if step in phases:
            while count:
                count -= 1
                lib.pa_free(ffi.cast("void *", addresses[count]))
            total = 0
        nbytes = int(4096 * largest ** rng.random())
        while total + nbytes > live_bytes:
            i, count = rng.randrange(count), count - 1
            lib.pa_free(ffi.cast("void *", addresses[i]))
            total -= sizes[i]
            addresses[i], sizes[i] = addresses[count], sizes[count]
        p = int(ffi.cast("uintptr_t", lib.pa_malloc(nbytes)))
        ctypes.memset(p, 1, nbytes)
        addresses[count], sizes[count] = p, nbytes
        count, total = count + 1, total + nbytes
    seconds = time.monotonic() - start
    stop.set()
    watcher.join()
    stats = ffi.new("pa_scavenge_stats *")
    lib.pa_read_scavenge_stats(stats)
    return {"seconds": seconds, "peak_mib": peak, "breach_seconds": longest, "limit_mib": stats.limit_bytes / MIB,
            "background_mib": stats.background_bytes / MIB, "over_limit_count": stats.over_limit_count,
            "backed_mib": stats.backed_bytes / MIB, "inuse_mib": pyalloc.read_mem_stats().heap_inuse / MIB}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](float(sys.argv[2]))))
