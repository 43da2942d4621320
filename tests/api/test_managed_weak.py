"""Weak references and cleanups of managed objects."""

import gc
import sys
import threading
import time

import pytest

import pyalloc
from pyalloc import Ref, Struct, add_cleanup, int64, is_alive, managed_bytes, ref_array, weakref


class Node(Struct):
    link: Ref
    key: int64


class Tiny(Struct):
    pass


# ---- weakref


def test_weakref_follows_the_object():
    parent = Node(link=Node(key=5))
    weak = weakref(parent.link)
    assert weak() == parent.link and weak().key == 5 and is_alive(weak)
    pyalloc.collect()
    assert weak().key == 5  # no reference from Python, but from parent
    parent.link = None
    pyalloc.collect()
    assert weak() is None and not is_alive(weak) and "dead" in repr(weak)


@pytest.mark.parametrize("make", [Node, Tiny, lambda: ref_array(5), lambda: ref_array(0), lambda: managed_bytes(1),
                                  lambda: managed_bytes(10**6), lambda: ref_array(10**6)])
def test_every_kind_of_object(make):
    one = make()
    weak, other = weakref(one), weakref(one)
    pyalloc.collect()
    assert weak() == one == other() and type(weak()) is type(one)
    del one
    pyalloc.collect()
    assert weak() is None and other() is None


def test_cycles_die_together():
    a, b = Node(key=1), Node(key=2)
    a.link, b.link = b, a
    weaks = [weakref(a), weakref(b)]
    del a
    pyalloc.collect()
    assert [weak().key for weak in weaks] == [1, 2]
    del b
    pyalloc.collect()
    assert [weak() for weak in weaks] == [None, None]


def test_calling_makes_a_root():
    weak = weakref(one := Node(key=5))
    again = weak()
    del one
    pyalloc.collect()
    assert again.key == 5 and weak() == again


def test_weakref_errors():
    for wrong in (5, None, weakref(Node()), object()):
        with pytest.raises(TypeError, match=r"weakref\(\) takes a managed object"):
            weakref(wrong)
    with pytest.raises(TypeError):
        weakref()
    with pytest.raises(TypeError):
        weakref(Node())(1)
    with pytest.raises(TypeError):
        weakref(object=Node())
    with pytest.raises(TypeError, match=r"is_alive\(\) takes a pyalloc.weakref"):
        is_alive(Node())
    assert weakref[Node] is not None


def test_many_weakrefs():
    kept = [Node(key=i) for i in range(1000)]
    weaks = [weakref(one) for one in kept] + [weakref(Node(key=i)) for i in range(1000)]
    before = pyalloc.read_gc_stats().weak_handles
    pyalloc.collect()
    assert [weak() is not None for weak in weaks] == [True] * 1000 + [False] * 1000
    del weaks
    assert pyalloc.read_gc_stats().weak_handles <= before - 2000


# ---- cleanups


def test_cleanup_runs_once_with_its_arguments():
    seen = []
    one = Node()
    cleanup = add_cleanup(one, lambda *args: seen.append(args), 1, "two")
    assert cleanup.pending and "pending" in repr(cleanup)
    pyalloc.collect()
    assert not seen
    del one
    pyalloc.collect()
    assert seen == [(1, "two")] and not cleanup.pending and "done" in repr(cleanup)
    pyalloc.collect()
    assert len(seen) == 1 and cleanup.cancel() is False


def test_several_cleanups_and_cancel():
    seen = []
    one = Node()
    cleanups = [add_cleanup(one, seen.append, i) for i in range(5)]
    assert cleanups[2].cancel() is True and cleanups[2].cancel() is False
    del one
    pyalloc.collect()
    assert sorted(seen) == [0, 1, 3, 4]


def test_object_is_gone_when_its_cleanup_runs():
    seen = []
    one = Node(link=Node())
    weak = weakref(one)
    add_cleanup(one, lambda: seen.append(weak()))
    del one
    pyalloc.collect()
    assert seen == [None]


def test_cleanup_exceptions_are_reported(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda info: seen.append((info.exc_type, info.object)))

    def fail(number):
        raise KeyError(number)

    one = Node()
    for i in range(3):
        add_cleanup(one, fail, i)
    del one
    pyalloc.collect()
    assert seen == [(KeyError, fail)] * 3


def test_cleanups_may_use_managed_objects():
    seen = []

    def again(depth):
        seen.append(depth)
        if depth:
            add_cleanup(Node(key=depth), again, depth - 1)
            pyalloc.collect()

    add_cleanup(Node(), again, 3)
    pyalloc.collect()
    pyalloc.collect()
    assert seen == [3, 2, 1, 0]


def test_cleanup_errors():
    one = Node()
    with pytest.raises(TypeError, match="takes a callable"):
        add_cleanup(one, 5)
    with pytest.raises(TypeError, match="takes a managed object"):
        add_cleanup(5, print)
    with pytest.raises(ValueError, match="keep its own object alive"):
        add_cleanup(one, print, one)
    with pytest.raises(ValueError, match="keep its own object alive"):
        add_cleanup(one, one.__repr__)


def test_a_cleanup_that_captures_its_object_keeps_it():
    seen = []
    one = Node()
    weak = weakref(one)
    cleanup = add_cleanup(one, lambda captured=one: seen.append(captured))
    del one
    pyalloc.collect()
    assert weak() is not None and not seen
    cleanup.cancel()
    del cleanup
    pyalloc.collect()
    assert weak() is None and not seen


def test_cleanups_come_without_collect():
    """A cycle started by allocation delivers too, in the main thread."""
    seen = []
    before = pyalloc.set_gc_percent(50)
    try:
        for i in range(100):
            add_cleanup(Node(), lambda: seen.append(threading.current_thread()))
        deadline = time.monotonic() + 60
        while len(seen) < 100 and time.monotonic() < deadline:
            for _ in range(1000):
                Node()
            managed_bytes(100000)
    finally:
        pyalloc.set_gc_percent(before)
    assert seen == [threading.main_thread()] * 100


def test_collect_in_a_thread_delivers():
    seen = []
    for i in range(2000):
        add_cleanup(Node(key=i), seen.append, i)
    thread = threading.Thread(target=pyalloc.collect)
    thread.start()
    thread.join()
    pyalloc.collect()
    assert sorted(seen) == list(range(2000))


def test_cleanups_do_not_leak():
    for _ in range(3):
        for _ in range(500):
            add_cleanup(Node(), int)
        pyalloc.collect()
    from pyalloc import _cleanup

    gc.collect()
    assert len(_cleanup._table) < 100
