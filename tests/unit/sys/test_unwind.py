"""sys/unwind and sys/cfi: rules of our own give the stacks that libgcc gives, whatever the functions look like."""

import ctypes
import functools
import json
import os
import re
import subprocess
import threading

import pytest

from whitebox import ffi, lib

# Each calls its argument from a frame of another kind; volatile, so that nothing is a tail call.
SHAPES = r"""
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
typedef void call(void *);
static volatile int zero;
static void *volatile sink;

int plain(call *f, void *p) { f(p); return zero; }
__attribute__((noinline)) int deep(call *f, void *p, int n) { return n ? deep(f, p, n - 1) + zero : plain(f, p); }
int large(call *f, void *p) { char room[5000]; sink = room; f(p); return zero; }
int grows(call *f, void *p, int n) { sink = alloca((size_t)n * 100); f(p); return zero; }
int variable(call *f, void *p, int n) { char room[n * 50 + 1]; sink = room; f(p); return zero; }
int registers(call *f, void *p, int a, int b, int c, int d)
{
    int e = a * b, g = b * c, h = c * d, i = d * a;
    f(p);
    return zero * (a + b + c + d + e + g + h + i);
}
int realigned(call *f, void *p, int n)
{
    _Alignas(64) char room[64];
    char more[n * 50 + 1];
    memset(room, n, sizeof room);
    sink = room, sink = more;
    f(p);
    return zero + room[3] * zero;
}
int pushes(call *f, void *p, int a, int b, int c, int d, int e, int g, int h) { f(p); return zero * (a + e + g + h); }
int seven(call *f, void *p) { int r = pushes(f, p, 1, 2, 3, 4, 5, 6, zero); f(p); return r; }
static call *compared; static void *with;
static int compare(const void *a, const void *b) { compared(with); return *(int *)a - *(int *)b; }
int sorts(call *f, void *p) { int n[3] = {2, 3, 1}; compared = f, with = p; qsort(n, 3, sizeof *n, compare); return 0; }
static void handler(int number) { compared(with); }
int signalled(call *f, void *p) { compared = f, with = p; signal(SIGUSR1, handler); raise(SIGUSR1); return zero; }
static void *thread(void *unused) { compared(with); return unused; }
int threaded(call *f, void *p)
{
    pthread_t id;
    compared = f, with = p;
    return pthread_create(&id, NULL, thread, NULL) || pthread_join(id, NULL);
}
int early(call *f, void *p, int n)
{
    if (n < 0)
        return zero;
    f(p);
    if (n > 100)
        abort();
    f(p);
    return zero;
}
"""
CALLS = {
    "plain": (), "deep": (50,), "large": (), "grows": (9,), "variable": (31,), "registers": (1, 2, 3, 4), "seven": (),
    "sorts": (), "threaded": (), "early": (5,),
}
ALL = {**CALLS, "signalled": (), "realigned": (3,)}
WALK = ctypes.cast(int(ffi.cast("uintptr_t", ffi.addressof(lib, "pa_xunwind_walk_both"))), ctypes.c_void_p)


@functools.lru_cache(maxsize=None)
def shapes(folder, *flags):
    source, library = folder / "shapes.c", folder / ("shapes" + "".join(flags) + ".so")
    source.write_text(SHAPES)
    subprocess.run([os.environ.get("CC", "cc").split()[0], "-w", "-shared", "-fPIC", "-pthread", "-o", library, source,
                    *flags], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    lib.pa_xunwind_prepare()
    return tmp_path_factory.mktemp("shapes")


def both(call):
    """The stack by rules and by libgcc, from the caller of the walk outwards; call(function, argument) leads there."""
    out = ffi.new("pa_xunwind_both *")
    call(WALK, ctypes.c_void_p(int(ffi.cast("uintptr_t", out))))
    return out.by_rules, list(out.frames[0:out.count]), list(out.libgcc_frames[0:out.libgcc_count])


FLAGS = [("-O0",), ("-O2",), ("-O2", "-fno-omit-frame-pointer"), ("-Os", "-fno-asynchronous-unwind-tables"), ("-O3",)]


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_frames_of_every_shape(folder, flags, name):
    function = getattr(shapes(folder, *flags), name)
    for _ in range(3):          # read, then kept
        by_rules, frames, expected = both(lambda f, p: function(f, p, *ALL[name]))
        if by_rules:
            assert frames == expected
        if "-fno-asynchronous-unwind-tables" not in flags:
            assert len(expected) > (1 if name == "threaded" else 5)
    if os.uname().machine == "x86_64" and name in CALLS:
        assert by_rules


def test_stacks_of_the_interpreter(folder):
    """From under C code that calls back, in threads, and deep."""
    plain = shapes(folder, "-O2").plain
    found = []

    def look(*unused):
        found.append(both(plain))
        return "0"

    def nested(n):
        return nested(n - 1) if n else look()

    nested(30)
    re.sub("a", look, "bab")
    sorted([3, 1, 2], key=look)
    json.dumps(object(), default=look)
    list(map(look, [1, 2]))
    thread = threading.Thread(target=nested, args=(10,))
    thread.start()
    thread.join()
    assert len(found) == 9
    assert all(frames == expected for by_rules, frames, expected in found if by_rules)
    if os.uname().machine == "x86_64":
        assert sum(by_rules for by_rules, _, _ in found) == len(found)


def test_a_library_that_takes_anothers_place(folder):
    """Its code is at the addresses of one that was unloaded, and its frames are not."""
    import _ctypes

    places = {}
    for round in range(8):
        source = folder / f"other{round}.c"
        room = 3000 if round % 2 else 5000       # same code but for one number
        source.write_text("typedef void call(void *); static volatile int zero; static void *volatile sink;\n"
                          f"int plain(call *f, void *p) {{ char room[{room}]; sink = room; f(p); return zero; }}\n")
        library = source.with_suffix(".so")
        subprocess.run([os.environ.get("CC", "cc").split()[0], "-w", "-O2", "-shared", "-fPIC", "-o", library, source],
                       check=True)
        loaded = ctypes.CDLL(str(library))
        by_rules, frames, expected = both(loaded.plain)
        assert not by_rules or frames == expected
        places.setdefault(frames[0], set()).add(room)
        _ctypes.dlclose(loaded._handle)
    assert any(len(rooms) == 2 for rooms in places.values()), "none took another's place: this tested nothing"


def test_a_walk_ends_where_it_should(folder):
    _, frames, _ = both(shapes(folder, "-O2").plain)
    ended = ffi.new("bool *")
    everything = lib.pa_xunwind_until(0, 0, ended)
    assert everything > 5 and not ended[0]
    there = lib.pa_xunwind_until(frames[-3], frames[-3] + 1, ended)     # a frame that is below us, too
    assert ended[0] and 0 < there < everything
