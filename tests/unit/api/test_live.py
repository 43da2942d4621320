"""api/live: the layout of the page, the reader on pages made by hand, and a page that answers."""

import errno
import mmap
import os
import struct
import threading
import time

import pytest

from whitebox import ffi, lib

HEADER = struct.Struct("=8sIII12sIIII")
MAGIC = b"pyalive\0"
LAYOUT = 1


def page_bytes():
    return ffi.sizeof("pa_live_page")


class Page:
    """A page in memory of our own, as a process in live mode has it."""

    def __init__(self, nbytes=None):
        self.map = mmap.mmap(-1, nbytes or page_bytes())
        self.view = ffi.from_buffer(self.map)
        self.page = ffi.cast("pa_live_page *", self.view)
        ffi.memmove(self.page.magic, MAGIC, 8)
        self.page.layout, self.page.nbytes, self.page.process = LAYOUT, page_bytes(), os.getpid()

    def read(self, seconds=0.0, nbytes=None):
        out = ffi.new("pa_live_figures *")
        return lib.pa_live_read(self.view, nbytes or len(self.map), out, int(seconds * 1e9)), out

    def answer(self, time_ns, seq=2):
        """As the process does, but that the figures are ours."""
        self.page.figures.time_ns = time_ns
        self.page.seq, self.page.answered = seq, self.page.request


def test_the_layout_is_that_of_the_header():
    """Offsets that another version's viewer reads to tell that it is another version."""
    offsets = {name: ffi.offsetof("pa_live_page", name) for name, _ in ffi.typeof("pa_live_page").fields}
    assert offsets == {"magic": 0, "layout": 8, "nbytes": 12, "process": 16, "version": 20, "request": 32,
                       "answered": 36, "seq": 40, "reserved": 44, "figures": HEADER.size}
    assert lib.PA_LIVE_LAYOUT == LAYOUT and page_bytes() == HEADER.size + ffi.sizeof("pa_live_figures")
    assert [name for name, _ in ffi.typeof("pa_live_figures").fields] == ["time_ns", "cost_ns", "snapshot"]


@pytest.mark.parametrize("change, error", [
    (lambda page: ffi.memmove(page.magic, b"pyalivf\0", 8), errno.EINVAL),
    (lambda page: setattr(page, "layout", LAYOUT + 1), errno.EPROTO),
    (lambda page: setattr(page, "nbytes", page_bytes() + 8), errno.EPROTO),
    (lambda page: None, errno.ETIMEDOUT),
])
def test_pages_that_are_none(change, error):
    one = Page()
    change(one.page)
    assert one.read()[0] == error
    assert one.page.request == (error == errno.ETIMEDOUT), "a page of another version is not written to"


def test_short_pages():
    one = Page()
    assert one.read(nbytes=HEADER.size - 1)[0] == errno.EINVAL
    assert one.read(nbytes=page_bytes() - 1)[0] == errno.EPROTO


def test_a_reader_waits_for_an_answer():
    one = Page()
    found = []
    reader = threading.Thread(target=lambda: found.append(one.read(30)))
    reader.start()
    deadline = time.monotonic() + 30
    while one.page.request == 0:
        assert time.monotonic() < deadline
    one.answer(77)
    _wake(one)
    reader.join()
    assert found[0][0] == 0 and found[0][1].time_ns == 77


def _wake(one):
    import ctypes

    futex = {"x86_64": 202, "aarch64": 98}[os.uname().machine]
    address = int(ffi.cast("uintptr_t", ffi.addressof(one.page, "answered")))
    ctypes.CDLL(None).syscall(futex, ctypes.c_void_p(address), 1, 1 << 30, None, None, 0)


def test_half_written_figures_are_not_taken():
    """An odd sequence number: the writer is at it, or died there."""
    one = Page()
    one.answer(5, seq=3)
    one.page.answered = 100
    assert one.read(0.05)[0] == errno.ETIMEDOUT
    one.page.seq = 4
    assert one.read(0.05)[0] == 0


def test_old_answers_are_none():
    one = Page()
    one.page.request = one.page.answered = 2**32 - 1       # and the count goes round
    assert one.read(0.01)[0] == errno.ETIMEDOUT and one.page.request == 0
    one.answer(9)
    one.page.answered = 1                                  # of the request that the next read makes
    code, out = one.read(0.01)
    assert code == 0 and out.time_ns == 9


def _live_fds():
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{entry}").startswith("/memfd:pyalloc-live"):
                found.append(int(entry))
        except OSError:
            pass
    return found


def test_a_page_that_answers(run_python, root):
    """In a process of its own: live mode lasts."""
    run_python("-c", f"""
import errno, mmap, os, stat, sys
sys.path[:0] = [{str(root / 'tests')!r}, {str(root / 'tests/unit/api')!r}]
from test_live import _live_fds, HEADER, MAGIC, page_bytes
from whitebox import ffi, lib
assert _live_fds() == []
assert lib.pa_live_start() == 0 == lib.pa_live_start()
(fd,) = _live_fds()
assert fd >= 200 and not os.get_inheritable(fd)
assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
header = HEADER.unpack(os.pread(fd, HEADER.size, 0))
version = ffi.string(lib.pa_version())
assert header == (MAGIC, 1, page_bytes(), os.getpid(), version.ljust(12, b"\\0"), 0, 0, 0, 0), header
for change in (os.ftruncate, lambda fd, n: os.pwrite(fd, b"x", n + 2**20)):
    try:
        change(fd, 0)
    except OSError as error:
        assert error.errno == errno.EPERM
    else:
        raise AssertionError("the size is not sealed")
shared = mmap.mmap(fd, os.fstat(fd).st_size)
out = ffi.new("pa_live_figures *")
block = lib.pa_malloc(5000)
for n in range(1, 4):
    assert lib.pa_live_read(ffi.from_buffer(shared), len(shared), out, 30 * 10**9) == 0
    seen = HEADER.unpack(shared[:HEADER.size])
    assert seen[5:8] == (n, n, 2 * n), seen
    assert out.snapshot.mem.explicit_objects == 1 and out.snapshot.mem.heap_sys == 64 << 20
""")


@pytest.mark.parametrize("nth", range(1, 8))
def test_without_memory(run_python, root, nth):
    """The n-th request of memory from the OS fails: an error and no page, or a page; and later it works."""
    run_python("-c", f"""
import errno, sys
sys.path[:0] = [{str(root / 'tests')!r}, {str(root / 'tests/unit/api')!r}]
from test_live import _live_fds
from whitebox import ffi, lib
lib.pa_xvm_inject_failure({nth})
error = lib.pa_live_start()
lib.pa_xvm_inject_failure(0)
assert (error, len(_live_fds())) in ((0, 1), (errno.ENOMEM, 0)), (error, _live_fds())
assert lib.pa_live_start() == 0 and len(_live_fds()) == 1
""")
