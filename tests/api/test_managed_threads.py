"""Threads that change graphs while collections run: nothing is lost, nothing dangles."""

import random
import sys
import threading
import time

import pytest

import pyalloc
from pyalloc import Ref, Struct, int64, managed_bytes, ref_array, weakref

MODES = ("serial", "parallel", "concurrent-1.5", "concurrent-1.6", "concurrent")


class Node(Struct):
    left: Ref
    right: Ref["Node"]
    key: int64
    check: int64


def make(key, left=None, right=None):
    return Node(left=left, right=right, key=key, check=~key)


@pytest.fixture(params=MODES)
def mode(request):
    before = pyalloc.set_gc_mode(request.param)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield request.param
    sys.setswitchinterval(interval)
    pyalloc.set_gc_mode(before)


def run(*targets):
    errors = []

    def guarded(target):
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def collector(done, seconds=0.4):
    def work():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pyalloc.collect()
        done.set()

    return work


def walk(node, limit=200):
    seen = set()
    while node is not None and node not in seen and limit:
        assert node.check == ~node.key
        seen.add(node)
        node = node.right
        limit -= 1


def test_shared_graph(mode):
    """Threads move subgraphs between slots of one array, the way objects get lost when a barrier is missing."""
    done = threading.Event()
    table = ref_array([make(i, make(-i), make(i + 1000)) for i in range(64)], Node)

    def mutate(seed):
        def work():
            rng = random.Random(seed)
            while not done.is_set():
                for _ in range(50):
                    i, j = rng.randrange(64), rng.randrange(64)
                    one, two = table[i], table[j]
                    if one is not None and two is not None:
                        one.right, two.right = two.right, one.right  # moved between scanned and unscanned
                        two.left = make(rng.randrange(10**6), one.left if rng.random() < 0.1 else None)
                    table[i], table[j] = two, one
                    if rng.random() < 0.1:
                        table[i] = make(i)
                    walk(table[j])

        return work

    run(collector(done), mutate(1), mutate(2), mutate(3))
    pyalloc.collect()
    for one in table:
        walk(one)
    pyalloc.heap_check()


def test_handover_through_python(mode):
    """Objects whose only root is a Python reference that threads hand to each other."""
    done = threading.Event()
    box = [make(0)]

    def pass_on(seed):
        def work():
            rng = random.Random(seed)
            while not done.is_set():
                for _ in range(100):
                    try:
                        one = box.pop()
                    except IndexError:
                        one = make(seed)
                    assert one.check == ~one.key
                    follower = make(rng.randrange(10**6), one)
                    if rng.random() < 0.3:
                        follower.left = one.left
                    box.append(follower)
                    box.append(one)
                    del box[:-10]

        return work

    run(collector(done), pass_on(1), pass_on(2))
    for one in box:
        assert one.check == ~one.key


def test_weak_references_under_fire(mode):
    done = threading.Event()

    def work():
        while not done.is_set():
            kept = [make(i) for i in range(50)]
            weaks = [weakref(one) for one in kept] + [weakref(make(i)) for i in range(50)]
            for i, weak in enumerate(weaks):
                one = weak()
                if i < 50:
                    assert one == kept[i]
                assert one is None or (one.key == i % 50 and one.check == ~one.key)

    run(collector(done), work, work)


def test_arrays_and_bytes_under_fire(mode):
    done = threading.Event()

    def arrays():
        rng = random.Random(5)
        array = ref_array([make(i) for i in range(3000)])
        model = list(range(3000))
        while not done.is_set():
            a, b, n = rng.randrange(1500), rng.randrange(1500), rng.randrange(1500)
            array[a:a + n] = array[b:b + n]
            model[a:a + n] = model[b:b + n]
            assert [one.key for one in array[::100]] == model[::100]
        assert [one.key for one in array] == model

    def data():
        parent = Node()
        while not done.is_set():
            parent.left = managed_bytes(b"x" * 5000)
            view = memoryview(parent.left)
            parent.left = None
            fillers = [managed_bytes(b"y" * 5000) for _ in range(20)]
            assert bytes(view) == b"x" * 5000 and len(fillers) == 20

    run(collector(done), arrays, data)


def test_threads_come_and_go(mode):
    done = threading.Event()
    table = ref_array(32)

    def spawn():
        count = 0
        while not done.is_set():
            def one(slot=count % 32):
                table[slot] = make(slot, table[(slot + 1) % 32])
                table[slot].left = None

            run(one, one)
            count += 1

    run(collector(done), spawn)
    for one in table:
        walk(one)


def test_free_list_of_references_is_per_process():
    """References made in one thread and dropped in another."""
    made = [make(i) for i in range(2000)]

    def drop():
        while made:
            try:
                made.pop()
            except IndexError:
                pass

    run(drop, drop)
    assert [make(i).key for i in range(300)] == list(range(300))
