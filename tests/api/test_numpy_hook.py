"""pyalloc.numpy: whose memory an array has, in which thread and context, in any order of install and uninstall."""

import _thread
import asyncio
import contextvars
import ctypes
import gc
import importlib
import pickle
import queue
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

np = pytest.importorskip("numpy")

import pyalloc
import pyalloc.numpy
from pyalloc import _core
from pyalloc.numpy import Status, active, handler, install, status, uninstall

NUMPY_2 = int(np.__version__.split(".")[0]) >= 2
multiarray = np._core.multiarray if NUMPY_2 else np.core.multiarray
NAMES = {16: "pyalloc", 64: "pyalloc_align64", None: "default_allocator"}
MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_installed():
    """Each test starts and ends with NumPy's own handler, in the process and in the main context."""
    assert (status().installed, status().here) == (None, NAMES[None])
    _core.numpy_huge_pages(False)       # the arenas of this process are other tests', too
    yield
    uninstall()
    assert (status().installed, status().here) == (None, NAMES[None])


def name_of(array):
    """The handler that the array will be freed by, which must fit where its data lies."""
    name = multiarray.get_handler_name(array)
    assert pyalloc.owns(array.ctypes.data) == name.startswith("pyalloc")
    return name


def made():
    """Name of the handler of a new array."""
    return name_of(np.full(1000, 7.0))


def in_thread(function=made):
    """What function returns in a thread of its own."""
    results = queue.Queue()
    thread = threading.Thread(target=lambda: results.put(function()))
    thread.start()
    thread.join()
    return results.get_nowait()


# ---- handler()


def test_a_block_makes_arrays_of_ours():
    before = np.ones(1000)
    with handler():
        inside = np.ones(1000)
        assert active() and made() == "pyalloc"
    assert not active()
    assert (name_of(before), name_of(inside), made()) == (NAMES[None], "pyalloc", NAMES[None])
    assert inside.sum() == 1000


def test_blocks_nest_and_end_with_an_exception():
    with handler(align=64):
        with pytest.raises(KeyError):
            with handler():
                assert made() == "pyalloc"
                raise KeyError
        assert made() == "pyalloc_align64"
    assert made() == NAMES[None]


def test_a_block_is_for_its_context_alone():
    with handler():
        assert in_thread() == NAMES[None]
        assert contextvars.copy_context().run(made) == "pyalloc"
        assert contextvars.Context().run(made) == NAMES[None]


def test_a_block_in_one_thread_does_not_reach_others():
    entered, leave, seen = threading.Event(), threading.Event(), []

    def work():
        with handler():
            entered.set()
            leave.wait()
            seen.append(made())

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    assert made() == NAMES[None]
    leave.set()
    thread.join()
    assert seen == ["pyalloc"]


def test_a_block_left_elsewhere_says_so():
    def generator():
        with handler():
            yield

    entered = generator()
    context = contextvars.copy_context()
    context.run(next, entered)
    with pytest.raises(RuntimeError, match="left in another thread or context than it was entered in"):
        next(entered)
    assert made() == NAMES[None] and context.run(made) == "pyalloc"


def test_tasks_have_blocks_of_their_own():
    async def inside(barrier):
        with handler(align=64):
            barrier.append(1)
            while len(barrier) < 2:
                await asyncio.sleep(0)
            return made(), await asyncio.get_running_loop().run_in_executor(None, made)

    async def outside(barrier):
        barrier.append(1)
        while len(barrier) < 2:
            await asyncio.sleep(0)
        return made()

    async def both():
        barrier = []
        return await asyncio.gather(inside(barrier), outside(barrier))

    assert asyncio.run(both()) == [("pyalloc_align64", NAMES[None]), NAMES[None]]


@pytest.mark.parametrize("call", [handler, install])
@pytest.mark.parametrize("align, error", [(0, ValueError), (8, ValueError), (32, ValueError), (128, ValueError),
                                          (-16, ValueError), ("16", TypeError), (16.0, TypeError), (None, TypeError),
                                          (1 << 80, OverflowError)])
def test_alignments_that_there_are_not(call, align, error):
    with pytest.raises(error):
        call(align=align)
    assert made() == NAMES[None]


# ---- install() reaches every thread


def by_executor():
    with ThreadPoolExecutor(2) as pool:
        return {pool.submit(made).result() for _ in range(4)}.pop()


def by_timer():
    results = queue.Queue()
    threading.Timer(0, lambda: results.put(made())).start()
    return results.get(timeout=60)


def by_plain_thread():
    results = queue.Queue()
    _thread.start_new_thread(lambda: results.put(made()), ())
    return results.get(timeout=60)


def by_foreign_thread():
    """A thread that Python did not start, and whose first Python code is NumPy's."""
    libc, results = ctypes.CDLL(None), []
    start = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: results.append(made()))
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, start, None) == 0
    assert libc.pthread_join(thread, None) == 0
    return results.pop()


def by_subclass():
    class Mine(threading.Thread):
        def run(self):
            self.seen = made()

    thread = Mine()
    thread.start()
    thread.join()
    return thread.seen


def by_task():
    async def main():
        return await asyncio.create_task(coroutine())

    async def coroutine():
        return made()

    return asyncio.run(main())


def by_executor_of_a_loop():
    async def main():
        return await asyncio.get_running_loop().run_in_executor(None, made)

    return asyncio.run(main())


def by_to_thread():
    async def main():
        return await asyncio.to_thread(made)

    return asyncio.run(main())


WAYS = {
    "Thread": in_thread, "Thread's subclass": by_subclass, "Timer": by_timer, "_thread": by_plain_thread,
    "pthread_create": by_foreign_thread, "ThreadPoolExecutor": by_executor, "task": by_task,
    "run_in_executor": by_executor_of_a_loop, "to_thread": by_to_thread,
    "copy_context": lambda: contextvars.copy_context().run(made),
    "Context": lambda: contextvars.Context().run(made),
    "Context in a thread": lambda: in_thread(lambda: contextvars.Context().run(made)),
    "thread in a thread": lambda: in_thread(in_thread),
}
#: Those that run in a copy of the caller's context.
INHERITING = {"task", "to_thread", "copy_context"}


@pytest.mark.parametrize("align", [16, 64])
@pytest.mark.parametrize("way", WAYS)
def test_install_reaches(way, align):
    install(align=align)
    assert WAYS[way]() == NAMES[align]
    uninstall()
    assert WAYS[way]() == NAMES[None]


@pytest.mark.parametrize("way", WAYS)
def test_install_for_here_reaches_what_inherits(way):
    install(threads=False)
    assert made() == "pyalloc"
    assert WAYS[way]() == ("pyalloc" if way in INHERITING else NAMES[None])
    uninstall()
    assert WAYS[way]() == NAMES[None]


def test_threads_that_run_already():
    """Also one that has looked NumPy's variable up before."""
    orders, answers = [queue.Queue() for _ in range(3)], queue.Queue()

    def work(mine):
        while mine.get() is not None:
            answers.put(made())

    threads = [threading.Thread(target=work, args=(one,)) for one in orders]
    for thread in threads:
        thread.start()

    def ask():
        for one in orders:
            one.put(1)
        return {answers.get(timeout=60) for _ in orders}

    pool = ThreadPoolExecutor(1)
    assert ask() == {NAMES[None]} and pool.submit(made).result() == NAMES[None]
    for change, name in ((install, "pyalloc"), (uninstall, NAMES[None]), (lambda: install(align=64), NAMES[64]),
                         (install, "pyalloc"), (uninstall, NAMES[None])):
        change()
        assert ask() == {name} and pool.submit(made).result() == name
    for one in orders:
        one.put(None)
    for thread in threads:
        thread.join()
    pool.shutdown()


def test_install_in_a_thread_is_for_all():
    in_thread(install)
    assert made() == "pyalloc" and status() == Status(np.__version__, 16, "pyalloc")
    in_thread(uninstall)
    assert made() == NAMES[None]


def test_a_block_around_and_inside_install():
    with handler(align=64):
        install()
        assert made() == "pyalloc" and in_thread() == "pyalloc"        # the last call decides
    assert made() == "pyalloc"
    with handler(align=64):
        assert made() == "pyalloc_align64" and in_thread() == "pyalloc"
        uninstall()
        assert made() == "pyalloc_align64" and in_thread() == NAMES[None]
    assert made() == NAMES[None]


def test_a_block_ends_what_install_did_to_its_context():
    install(threads=False)
    with handler(align=64):
        install(threads=False)
        assert made() == "pyalloc"
        uninstall()
        assert made() == "pyalloc_align64"
    assert made() == "pyalloc"
    uninstall()
    assert made() == NAMES[None]


def test_a_handler_that_another_library_set_in_a_context():
    """It stays in its context, unless install() is called right there; uninstall() puts it back."""
    own = _core.numpy_default()
    context = contextvars.copy_context()
    context.run(_core.numpy_set_current, own)
    install()
    assert context.run(made) == NAMES[None] and made() == "pyalloc"
    context.run(install)
    assert context.run(made) == "pyalloc"
    context.run(uninstall)
    assert context.run(made) == NAMES[None] and made() == NAMES[None]
    context.run(install, threads=False)
    context.run(_core.numpy_set_current, own)       # set over ours: not ours to take back
    context.run(uninstall)
    assert context.run(made) == NAMES[None] and context.run(_core.numpy_current) is own


def test_uninstall_in_a_copy_of_the_context():
    install(threads=False)
    copy = contextvars.copy_context()
    copy.run(uninstall)
    assert copy.run(made) == NAMES[None] and made() == "pyalloc"
    install()
    assert copy.run(made) == NAMES[None]            # it was set there, to NumPy's own


def test_again_and_again():
    for _ in range(3):
        uninstall()
        install()
        install()
        assert made() == "pyalloc"
        install(align=64)
        assert made() == "pyalloc_align64" and in_thread() == "pyalloc_align64"
    uninstall()
    uninstall()
    assert made() == NAMES[None]


def test_reloading_the_module_forgets_nothing():
    install()
    again = importlib.reload(pyalloc.numpy)
    assert again.status() == (np.__version__, 16, "pyalloc")
    again.uninstall()
    assert made() == NAMES[None]


def test_references_are_kept_even():
    """No capsule is lost or gathered by coming and going."""
    capsules = [_core.numpy_default(), _core.numpy_handler(16), _core.numpy_handler(64)]
    before = [sys.getrefcount(capsule) for capsule in capsules]
    for _ in range(50):
        install()
        install(align=64)
        with handler():
            made()
        uninstall()
        install(threads=False)
        uninstall()
        status()
    assert [sys.getrefcount(capsule) for capsule in capsules] == before


def test_status_and_active():
    assert status() == Status(np.__version__, None, NAMES[None]) and not active()
    install(align=64)
    assert status() == Status(np.__version__, 64, NAMES[64]) and active()
    with handler():
        assert status() == Status(np.__version__, 64, NAMES[16])
    uninstall()
    assert not active()
    install(threads=False)
    assert status() == Status(np.__version__, None, NAMES[16]) and active()
    assert in_thread(status) == Status(np.__version__, None, NAMES[None])


# ---- Arrays outlive everything


@pytest.mark.parametrize("order", range(3))
def test_arrays_are_freed_by_who_made_them(order):
    arrays = {None: [np.arange(n) for n in (1, 100, 10_000, 1_000_000)]}
    if order == 0:      # made before, freed under ours
        install()
    elif order == 1:    # ours, freed after uninstall
        install()
        arrays[16] = [np.arange(n) for n in (1, 100, 10_000, 1_000_000)]
        uninstall()
    else:               # one handler after the other, freed under the last one
        with handler():
            arrays[16] = [np.arange(n) for n in (1, 100, 10_000, 1_000_000)]
        install(align=64)
        arrays[64] = [np.arange(n) for n in (1, 100, 10_000, 1_000_000)]
    for align, several in arrays.items():
        for array in several:
            assert name_of(array) == NAMES[align]
            n = array.size
            array.resize(n * 3 // 2, refcheck=False)
            assert name_of(array) == NAMES[align] and (array[:n] == np.arange(n)).all()
    del array, several
    arrays.clear()
    pyalloc.heap_check()


def test_arrays_of_threads_that_have_ended():
    install()
    arrays = [in_thread(lambda n=n: np.arange(n)) for n in (1, 1000, 100_000, 3_000_000)]
    uninstall()
    for array in arrays:
        assert name_of(array) == "pyalloc" and array[-1] == array.size - 1
        array.resize(2 * array.size, refcheck=False)
        assert array[array.size // 2 - 1] == array.size // 2 - 1 and not array[array.size // 2:].any()


def test_threads_that_hand_arrays_on_while_others_switch():
    """Producers and consumers while install, uninstall and other alignments go on: contents stay, nothing leaks."""
    line, stop = queue.Queue(maxsize=50), threading.Event()

    def produce(seed):
        for i in range(400):
            n = (i * 7919 + seed) % 50_000
            line.put((n, np.full(n, i + seed)))
        line.put(None)

    def consume():
        for _ in range(2):
            while (item := line.get()) is not None:
                n, array = item
                assert array.size == n and (n == 0 or array[0] == array[-1])
                name_of(array)

    def switch():
        while not stop.is_set():
            for change in (install, uninstall, lambda: install(align=64)):
                change()
                made()

    errors = []

    def guard(function, *args):
        try:
            function(*args)
        except BaseException as error:
            errors.append(error)
            raise

    install()
    uninstall()
    pyalloc.free_os_memory()
    before = pyalloc.read_mem_stats().explicit_objects
    switcher = threading.Thread(target=guard, args=(switch,))
    workers = [threading.Thread(target=guard, args=job) for job in ((produce, 1), (produce, 2), (consume,))]
    for thread in (switcher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    switcher.join()
    uninstall()
    assert not errors
    gc.collect()
    pyalloc.free_os_memory()
    assert pyalloc.read_mem_stats().explicit_objects <= before + 16


# ---- What shows elsewhere


def test_bytes_show_in_the_statistics():
    with handler():
        before = pyalloc.read_mem_stats()
        small, large = np.empty(5000, "u1"), np.empty(100 * MIB, "u1")
        during = pyalloc.read_mem_stats()
    assert during.explicit_alloc - before.explicit_alloc == pyalloc.good_size(5000) + 100 * MIB
    assert during.explicit_objects - before.explicit_objects == 2
    assert pyalloc.owns(small.ctypes.data) and pyalloc.owns(large.ctypes.data + 99 * MIB) and pyalloc.owns(large)
    del small, large
    after = pyalloc.read_mem_stats()
    assert after.explicit_alloc == before.explicit_alloc


def test_tracemalloc_sees_the_data():
    install()
    tracemalloc.start()
    try:
        array = np.ones(3 * MIB, "u1")
        found = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, 389047)])  # NumPy's domain
        assert sum(trace.size for trace in found.traces) >= 3 * MIB
        del array
    finally:
        tracemalloc.stop()


def test_pickles_and_copies_are_current():
    with handler():
        mine = np.arange(1000).astype(object)
    other = pickle.loads(pickle.dumps(mine))
    assert name_of(other) == name_of(mine.copy()) == NAMES[None] and (other == mine).all()
    with handler():
        assert name_of(pickle.loads(pickle.dumps(other))) == name_of(other.copy()) == "pyalloc"
    view = mine[10:20]
    del mine
    assert name_of(view.base) == "pyalloc" and view[0] == 10


def test_the_package_offers_it_and_hides_nothing():
    assert pyalloc.numpy is sys.modules["pyalloc.numpy"]
    assert "numpy" not in pyalloc.__all__       # `from pyalloc import *` must not hide NumPy itself


# ---- The private calls refuse what is not theirs


def test_handlers_of_others_are_described():
    assert _core.numpy_describe(_core.numpy_default()) == (NAMES[None], 0)
    assert _core.numpy_describe(_core.numpy_handler(64)) == (NAMES[64], 64)
    for wrong in (None, 5, multiarray._ARRAY_API):
        for call in (_core.numpy_describe, _core.numpy_set_current):
            with pytest.raises(TypeError, match="capsule with a memory handler"):
                call(wrong)
    variable = pyalloc.numpy._attached().variable
    with pytest.raises(TypeError, match="capsule with a memory handler"):
        _core.numpy_set_default(variable, 5)
    with pytest.raises(TypeError):
        _core.numpy_set_default(5, _core.numpy_handler(16))


def test_another_layout_of_variables_is_refused():
    """A variable that is not NumPy's has another default, as one that is laid out differently would seem to have."""
    other = contextvars.ContextVar("current_allocator", default="untouched")
    with pytest.raises(RuntimeError, match=r"use install\(threads=False\)"):
        _core.numpy_set_default(other, _core.numpy_handler(16))
    assert other.get() == "untouched" and made() == NAMES[None]


def table(abi, features):
    """A capsule like numpy's _ARRAY_API, of another version."""
    numbers = [ctypes.CFUNCTYPE(ctypes.c_uint)(lambda number=number: number) for number in (abi, features)]
    entries = (ctypes.c_void_p * 400)()
    for index, number in zip((0, 211), numbers):
        entries[index] = ctypes.cast(number, ctypes.c_void_p)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(entries), None, None), (numbers, entries)


@pytest.mark.parametrize("abi, features, message", [(0x01000009, 0x0E, "NumPy 1.22 or newer is needed"),
                                                    (0x03000000, 0x20, "install a newer pyalloc")])
def test_tables_of_other_versions(abi, features, message):
    capsule, alive = table(abi, features)
    with pytest.raises(RuntimeError, match=message):
        _core.numpy_attach(capsule)
    assert alive and made() == NAMES[None] and not active()
    with pytest.raises((ValueError, TypeError)):
        _core.numpy_attach(5)
