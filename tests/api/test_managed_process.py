"""Managed objects at the edges of a process: exit, fork, out of memory, start-up settings."""

import pytest

PROLOGUE = """
import os, sys, threading, time
import pyalloc
from pyalloc import Ref, Struct, int64, add_cleanup, ref_array, weakref, managed_bytes
class Node(Struct):
    left: Ref
    right: Ref
    key: int64
"""


def test_exit_with_live_objects_everywhere(run_python):
    run_python("-c", PROLOGUE + """
Node.cycle = Node(key=1)
Node.cycle.left = Node.cycle
class Holder:
    def __init__(self): self.node = Node(left=Node()); self.me = self
    def __del__(self):
        self.node.left, Node(left=self.node), list(ref_array([self.node]))
        weakref(self.node)(), memoryview(managed_bytes(5))
holder = Holder()
sys.modules["keep"] = Holder()
threading.local().node = Node()
view = memoryview(managed_bytes(100))
""")


def test_cleanups_are_delivered_once_at_exit(run_python):
    result = run_python("-c", PROLOGUE + """
import atexit
from pyalloc import _core
atexit.register(lambda: print("first registered handler"))
add_cleanup(Node(), print, "unreachable")
kept = Node()
add_cleanup(kept, print, "reachable")
_core.cleanup_listen(None)      # nobody is told: the ids wait for the exit
_core.gc_collect()
""")
    assert result.stdout.splitlines() == ["first registered handler", "unreachable"] and result.stderr == ""


def test_no_cleanup_after_finalisation_started(run_python):
    result = run_python("-c", PROLOGUE + """
class Late:
    def __del__(self):
        add_cleanup(Node(), print, "too late")
        pyalloc.collect
        pyalloc._core.gc_collect()
late = Late()
sys.modules["late"] = late
""")
    assert "too late" not in result.stdout


def test_daemon_threads_at_exit(run_python):
    run_python("-c", PROLOGUE + """
def work():
    node = Node()
    while True:
        node = Node(left=node.left, right=Node(), key=5)
        ref_array([node] * 100)
        if node.key == 7: pyalloc.collect()
def collect():
    while True: pyalloc.collect()
for target in (work, work, collect):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.2)
""")


@pytest.mark.parametrize("mode", ["serial", "concurrent-1.5", "concurrent"])
def test_fork_while_threads_work(run_python, mode):
    result = run_python("-c", PROLOGUE + f"""
pyalloc.set_gc_mode({mode!r})
done = threading.Event()
table = ref_array([Node(key=i, left=Node(key=-i)) for i in range(1000)])
def work():
    while not done.is_set():
        for i in range(100): table[i] = Node(key=i, left=Node(key=-i))
def collect():
    while not done.is_set(): pyalloc.collect()
threads = [threading.Thread(target=one) for one in (work, collect)]
for thread in threads: thread.start()
for number in range(20):
    child = os.fork()
    if child == 0:
        for _ in range(3):
            made = [Node(key=i) for i in range(1000)]
            pyalloc.collect()
        ok = all(one.key == i and one.left.key == -i for i, one in enumerate(table))
        ok = ok and all(one.key == i for i, one in enumerate(made))
        seen = []
        add_cleanup(Node(), seen.append, 1)
        pyalloc.collect()
        pyalloc.heap_check()
        os._exit(0 if ok and seen == [1] else 1)
    assert os.waitpid(child, 0)[1] == 0
done.set()
for thread in threads: thread.join()
assert all(one.key == i and one.left.key == -i for i, one in enumerate(table))
print("good")
""", timeout=300)
    assert result.stdout == "good\n"


def test_out_of_memory_is_an_exception(run_python):
    result = run_python("-c", PROLOGUE + """
import resource
kept = [Node(key=i) for i in range(1000)]
pyalloc.collect()
size = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + (300 << 20),) * 2)
seen, many = 0, []
try:
    while True: many.append(managed_bytes(10 << 20))
except MemoryError: seen += 1
try:
    while True: many.append(ref_array(1 << 20))
except MemoryError: seen += 1
try:
    while True: many.append(managed_bytes(30000))
except MemoryError: seen += 1
many.clear()
pyalloc.collect()
managed_bytes(10 << 20)
assert [one.key for one in kept] == list(range(1000))
print(seen)
""")
    assert result.stdout == "3\n"


def test_settings_of_the_environment(run_python):
    script = "import pyalloc; s = pyalloc.read_gc_stats(); print(s.gc_percent, s.memory_limit)"
    assert run_python("-c", script, env={"GOGC": "off"}).stdout.split()[0] == "-1"
    assert run_python("-c", script, env={"GOGC": "50"}).stdout.split()[0] == "50"


def test_import_loads_nothing_heavy(run_python):
    script = ("import sys, pyalloc; "
              "print([name for name in ('ast', 'typing_extensions', 'inspect', 'hypothesis') if name in sys.modules])")
    assert "typing_extensions" not in run_python("-c", script).stdout
