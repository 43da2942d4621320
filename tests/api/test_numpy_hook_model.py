"""pyalloc.numpy: sizes, alignments and contents of any array, and any order of calls against a small model."""

import contextvars
import threading

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

import pyalloc
from pyalloc import _core
from pyalloc.numpy import handler, install, status, uninstall

multiarray = (np._core if int(np.__version__.split(".")[0]) >= 2 else np.core).multiarray
NAMES = {16: "pyalloc", 64: "pyalloc_align64", None: "default_allocator"}
DTYPES = ["u1", "i2", "<f4", ">i4", "f8", "c16", "g", "S7", "U5", "V13", "M8[s]", "O", [("a", "i1"), ("b", "f8")]]
#: Around every boundary: tiny, the last size class (32 KiB), an arena's page, what calloc leaves untouched.
COUNTS = st.one_of(st.integers(0, 40), st.integers(0, 5000), st.integers(0, 300_000))
ALIGNS = st.sampled_from([16, 64])


@pytest.fixture(autouse=True, scope="module")
def small_pages():
    """The arenas of this process are other tests', too."""
    status()
    _core.numpy_huge_pages(False)


def usable(array):
    return pyalloc.lib.pa_usable_size(pyalloc.ffi.cast("void *", array.ctypes.data))


def check_block(array, align):
    assert multiarray.get_handler_name(array) == NAMES[align]
    assert pyalloc.owns(array.ctypes.data) == (align is not None)
    if align is not None:
        assert array.ctypes.data % align == 0 and usable(array) >= max(array.nbytes, 1)


def filled(array, seed):
    """The same with values that depend on the seed and the place."""
    if array.dtype.hasobject or array.dtype.names:
        for i in range(array.size):
            array[i] = (i % 100, seed) if array.dtype.names else (i, seed)
    else:
        array.view("u1").reshape(-1)[:] = (np.arange(array.nbytes) * 31 + seed) % 251
    return array


@given(dtype=st.sampled_from(DTYPES), count=COUNTS, align=ALIGNS)
@settings(deadline=None, max_examples=150)
def test_new_arrays(dtype, count, align):
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        count %= 5000
    with handler(align=align):
        for make in (np.empty, np.zeros, np.ones):
            array = make(count, dtype)
            check_block(array, align)
            # A size that is a multiple of 64 may be the next class or two; the first blocks of a class up to 1 KiB
            # may come from one twice as large.
            limit = pyalloc.good_size(max(array.nbytes, dtype.itemsize, align)) * 5 // 4
            assert usable(array) <= (limit if array.nbytes > 1024 else 2 * limit)
            if make is np.zeros and not dtype.hasobject:
                assert not array.view("u1").any()
                filled(array, 255)      # the next zeros() may get this very block
            del array


@given(dtype=st.sampled_from([name for name in DTYPES if name != "O"]), align=ALIGNS,
       counts=st.lists(COUNTS, min_size=2, max_size=8))
@settings(deadline=None, max_examples=100)
def test_resized_arrays(dtype, align, counts):
    with handler(align=align):
        array = filled(np.empty(counts[0] % 3000, dtype), 1)
    for count in counts[1:]:
        before = array.copy()
        array.resize(count, refcheck=False)
        check_block(array, align)
        kept = min(count, before.size)
        assert array[:kept].tobytes() == before[:kept].tobytes()
        assert not any(array[kept:].tobytes())


@given(values=st.lists(st.integers(-1000, 1000), max_size=3000), align=ALIGNS)
@settings(deadline=None, max_examples=30)
def test_arrays_that_grow_while_they_are_made(values, align):
    """fromiter and text reallocate as they go and cut what is left at the end."""
    with handler(align=align):
        array = np.fromiter(iter(values), "i8")
        assert array.tolist() == values
        check_block(array, align)
        if values:
            text = np.fromstring(" ".join(map(str, values)), "i8", sep=" ")
            assert text.tolist() == values
            check_block(text, align)


class Orders(RuleBasedStateMachine):
    """Calls in any order, blocks and threads between them.

    The model: the process's alignment; and a stack of contexts' states, one a block that was entered: what is set
    (None: nothing), and what install() replaced, if it set anything.
    """

    arrays = Bundle("arrays")
    NOTHING = object()

    def __init__(self):
        super().__init__()
        self.process = None
        self.stack = [(None, self.NOTHING)]
        self.blocks = []
        self.context = contextvars.copy_context()
        self.seed = 0

    def expected(self):
        return self.stack[-1][0] or self.process

    def take_back(self):
        explicit, replaced = self.stack[-1]
        self.stack[-1] = (explicit if replaced is self.NOTHING else replaced, self.NOTHING)

    def set_here(self, align):
        if self.expected() != align:
            self.take_back()
            self.stack[-1] = (align, self.stack[-1][0])

    @rule(align=ALIGNS)
    def install(self, align):
        self.context.run(install, align=align)
        self.process = align
        self.set_here(align)

    @rule(align=ALIGNS)
    def install_in_a_thread(self, align):
        thread = threading.Thread(target=install, kwargs={"align": align})
        thread.start()
        thread.join()
        self.process = align

    @rule(align=ALIGNS)
    def install_here(self, align):
        self.context.run(install, False, align=align)
        self.set_here(align)

    @rule()
    def uninstall(self):
        self.context.run(uninstall)
        self.process = None
        self.take_back()

    @rule(align=ALIGNS)
    def enter(self, align):
        block = handler(align=align)
        self.context.run(block.__enter__)
        self.blocks.append(block)
        self.stack.append((align, self.NOTHING))

    @precondition(lambda self: self.blocks)
    @rule()
    def leave(self):
        self.context.run(self.blocks.pop().__exit__, None, None, None)
        self.stack.pop()

    @rule(target=arrays, dtype=st.sampled_from(DTYPES), count=st.integers(0, 20_000))
    def make(self, dtype, count):
        self.seed += 1
        array = self.context.run(np.zeros, count if np.dtype(dtype).itemsize < 50 else count % 100, dtype)
        return filled(array, self.seed), self.seed, self.expected()

    @rule(target=arrays)
    def make_in_a_thread(self):
        self.seed += 1
        made = []
        thread = threading.Thread(target=lambda: made.append(filled(np.zeros(1000, "f8"), self.seed)))
        thread.start()
        thread.join()
        return made.pop(), self.seed, self.process

    @rule(target=arrays, item=consumes(arrays), count=st.integers(0, 40_000))
    def resize(self, item, count):
        array, seed, align = item
        if array.dtype.hasobject:
            count %= 1000
        array.resize(count, refcheck=False)
        return filled(array, seed), seed, align

    @rule(item=consumes(arrays))
    def drop(self, item):
        array, seed, align = item
        check_block(array, align)
        same = filled(array.copy(), seed)
        assert array.tolist() == same.tolist() if array.dtype.hasobject else array.tobytes() == same.tobytes()

    @invariant()
    def names_agree(self):
        assert self.context.run(status)[1:] == (self.process, NAMES[self.expected()])
        assert status().here == NAMES[self.process]

    def teardown(self):
        while self.blocks:
            self.leave()
        self.uninstall()
        self.names_agree()
        assert self.expected() is None
        pyalloc.heap_check()


TestOrders = Orders.TestCase
TestOrders.settings = settings(deadline=None, max_examples=40, stateful_step_count=30,
                               suppress_health_check=[HealthCheck.too_slow])
