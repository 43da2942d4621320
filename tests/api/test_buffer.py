"""alloc, empty and Buffer: the whole behaviour of the table in the design, one test a sentence."""

import copy
import ctypes
import gc
import io
import pickle
import random
import socket
import sys
import weakref

import pytest

import pyalloc
from pyalloc import Buffer, OutOfMemoryError, alloc, empty

SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 64, 1000, 1024, 1025, 8192, 32768, 32769, 65536, 1 << 20, (1 << 22) + 3]


# ---- Making them


@pytest.mark.parametrize("nbytes", SIZES)
def test_alloc_is_zero_and_writable_to_the_last_byte(nbytes):
    for _ in range(3):  # the second and third come from memory that was written
        buf = alloc(nbytes)
        assert bytes(buf) == bytes(nbytes)
        memoryview(buf)[:] = b"\xff" * nbytes
        assert bytes(buf) == b"\xff" * nbytes
        del buf


@pytest.mark.parametrize("nbytes", SIZES)
def test_empty_has_the_length_and_takes_writes(nbytes):
    buf = empty(nbytes)
    assert len(buf) == buf.nbytes == nbytes
    memoryview(buf)[:] = b"\x5a" * nbytes
    assert bytes(buf) == b"\x5a" * nbytes


@pytest.mark.parametrize("make", [alloc, empty])
@pytest.mark.parametrize("nbytes", SIZES)
def test_default_alignment_is_16(make, nbytes):
    kept = [make(nbytes) for _ in range(5)]
    assert all(buf.address % 16 == 0 for buf in kept)
    assert all(buf.usable_size >= nbytes for buf in kept)


@pytest.mark.parametrize("align", [1, 2, 8, 16, 32, 64, 4096, 8192, 1 << 16, 1 << 21])
@pytest.mark.parametrize("nbytes", [0, 1, 100, 5000, 40000, 300000])
@pytest.mark.parametrize("zero", [True, False])
def test_alignment_asked_for(align, nbytes, zero):
    buf = alloc(nbytes, align=align, zero=zero)
    assert buf.address % align == 0
    assert not zero or bytes(buf) == bytes(nbytes)


def test_live_buffers_do_not_overlap():
    buffers = [empty(random.Random(i).choice(SIZES)) for i in range(300)]
    spans = sorted((buf.address, buf.address + max(len(buf), 1)) for buf in buffers)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))


def test_keywords():
    assert len(alloc(nbytes=5)) == 5
    assert len(alloc(zero=False, nbytes=6)) == 6
    assert len(empty(nbytes=7)) == 7


def test_numbers_by_index():
    class Three:
        def __index__(self):
            return 3

    assert len(alloc(Three())) == 3 and len(empty(True)) == 1
    assert alloc(3, align=Three.__index__(Three()) + 1).address % 16 == 0


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: alloc(-1), ValueError, "nbytes must not be negative"),
        (lambda: empty(-1), ValueError, "nbytes must not be negative"),
        (lambda: alloc(-(2**100)), ValueError, "nbytes must not be negative"),
        (lambda: alloc(8, align=3), ValueError, "align must be a power of two, not 3"),
        (lambda: alloc(8, align=0), ValueError, "align must be a power of two, not 0"),
        (lambda: alloc(8, align=-16), ValueError, "align must not be negative"),
        (lambda: alloc(8, align=2**80), OverflowError, "align is too large"),
        (lambda: alloc(sys.maxsize + 1), OverflowError, "nbytes is too large"),
        (lambda: empty(2**64), OverflowError, "nbytes is too large"),
        (lambda: alloc(sys.maxsize), OutOfMemoryError, f"cannot allocate {sys.maxsize} bytes"),
        (lambda: empty(2**62), OutOfMemoryError, f"cannot allocate {2**62} bytes"),
        (lambda: alloc(8, align=2**62), OutOfMemoryError, "cannot allocate 8 bytes"),
        (lambda: alloc(100000, align=2**62), OutOfMemoryError, "cannot allocate 100000 bytes"),
        (lambda: alloc(8.0), TypeError, "'float' object cannot be interpreted as an integer"),
        (lambda: empty("8"), TypeError, "'str' object cannot be interpreted as an integer"),
        (lambda: alloc(), TypeError, "alloc() missing required argument 'nbytes'"),
        (lambda: empty(), TypeError, "empty() missing required argument 'nbytes'"),
        (lambda: alloc(8, True), TypeError, "alloc() takes 1 positional argument but 2 were given"),
        (lambda: empty(8, 8), TypeError, "empty() takes 1 positional argument but 2 were given"),
        (lambda: alloc(8, nbytes=8), TypeError, "alloc() got multiple values for argument 'nbytes'"),
        (lambda: alloc(8, size=8), TypeError, "alloc() got an unexpected keyword argument 'size'"),
        (lambda: empty(8, zero=True), TypeError, "empty() got an unexpected keyword argument 'zero'"),
        (lambda: Buffer(8), TypeError, "cannot create 'pyalloc.Buffer' instances"),
        (lambda: type("Sub", (Buffer,), {}), TypeError, "not an acceptable base type"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error and text in str(caught.value)


def test_an_error_in_a_keyword_comes_through():
    class Bad:
        def __bool__(self):
            raise LookupError("bad truth")

    with pytest.raises(LookupError):
        alloc(8, zero=Bad())


def test_out_of_memory_is_a_memory_error():
    assert issubclass(OutOfMemoryError, MemoryError)
    assert OutOfMemoryError.__module__ == "pyalloc"


# ---- The buffer protocol


def test_memoryview():
    buf = alloc(10)
    view = memoryview(buf)
    assert (view.format, view.ndim, view.shape, view.strides, view.itemsize) == ("B", 1, (10,), (1,), 1)
    assert not view.readonly and view.contiguous and view.obj is buf
    view[3] = 200
    assert memoryview(buf)[3] == 200


def test_simple_consumers():
    buf = alloc(4)
    memoryview(buf)[:] = b"abcd"
    assert bytes(buf) == b"abcd" and bytearray(buf) == b"abcd" and b"".join([buf, buf]) == b"abcdabcd"
    assert (ctypes.c_char * 4).from_buffer(buf).raw == b"abcd"
    assert ctypes.string_at(buf.address, 4) == b"abcd"


def test_files_and_sockets_read_into_it(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 8)
    buf = alloc(2048)
    with open(path, "rb", buffering=0) as file:
        assert file.readinto(buf) == 2048
    assert bytes(buf) == bytes(range(256)) * 8
    assert io.BytesIO(b"xyz").readinto(buf) == 3 and bytes(buf)[:4] == b"xyz\x03"
    with open(path, "wb") as file:
        file.write(buf)
    assert path.read_bytes() == bytes(buf)
    left, right = socket.socketpair()
    with left, right:
        left.sendall(buf)
        target = empty(2048)
        assert right.recv_into(target, 2048, socket.MSG_WAITALL) == 2048
    assert bytes(target) == bytes(buf)


def test_a_view_outlives_its_owner():
    buf = alloc(1 << 20)
    address = buf.address
    view = memoryview(buf)[5:10]
    view[:] = b"alive"
    del buf
    gc.collect()
    others = [alloc(1 << 20) for _ in range(20)]
    assert all(not other.address <= address < other.address + len(other) for other in others)
    assert view.tobytes() == b"alive"


# ---- free, with, resize


def test_free_is_idempotent_and_then_everything_raises():
    buf = alloc(100)
    assert buf and not buf.freed
    buf.free()
    buf.free()
    assert buf.freed and not buf and repr(buf) == "<pyalloc.Buffer freed>"
    for use in (
        lambda: len(buf),
        lambda: buf.nbytes,
        lambda: buf.usable_size,
        lambda: buf.address,
        lambda: memoryview(buf),
        lambda: bytes(buf),
        lambda: buf.resize(10),
        lambda: buf.__enter__(),
        lambda: buf.__dlpack__(),
    ):
        with pytest.raises(ValueError, match="operation on a freed Buffer"):
            use()
    assert sys.getsizeof(buf) < 200


def test_free_and_resize_while_exported():
    buf = alloc(100)
    for make in (lambda: memoryview(buf), lambda: memoryview(buf)[1:2], lambda: (ctypes.c_char * 100).from_buffer(buf)):
        export = make()
        with pytest.raises(BufferError, match="cannot free a Buffer that is exported"):
            buf.free()
        with pytest.raises(BufferError, match="cannot resize a Buffer that is exported"):
            buf.resize(200)
        assert not buf.freed and len(buf) == 100
        del export
        gc.collect()
    buf.resize(200)
    buf.free()
    assert buf.freed


def test_with_frees():
    with alloc(50) as buf:
        assert isinstance(buf, Buffer) and not buf.freed
    assert buf.freed
    with pytest.raises(KeyError):
        with alloc(50) as buf:
            raise KeyError
    assert buf.freed
    with alloc(50) as buf:
        buf.free()
    assert buf.freed


def test_with_refuses_while_exported():
    with pytest.raises(BufferError):
        with alloc(50) as buf:
            view = memoryview(buf)
    assert not buf.freed and view[0] == 0


@pytest.mark.parametrize("align", [16, 64, 8192])
def test_resize_walk(align):
    """Random lengths against a bytearray: contents stay, a zeroed Buffer grows by zeros, alignment stays."""
    rng = random.Random(align)
    buf, model = alloc(10, align=align), bytearray(10)
    for _ in range(150):
        nbytes = rng.choice([0, 1, 9, 63, 64, 65, 500, 1024, 9000, 40000, 70000, 1 << 20, (1 << 21) + 5])
        buf.resize(nbytes)
        model = model[:nbytes] + bytes(nbytes - len(model[:nbytes]))
        assert len(buf) == nbytes and buf.usable_size >= nbytes and buf.address % align == 0
        assert bytes(buf) == model
        if nbytes:
            at = rng.randrange(nbytes)
            fill = rng.randbytes(min(nbytes - at, 3000)) if hasattr(rng, "randbytes") else b"x"
            memoryview(buf)[at : at + len(fill)] = fill
            model[at : at + len(fill)] = fill
            memoryview(buf)[-1] = model[-1] = 255


def test_resize_of_an_undefined_buffer_keeps_contents():
    buf = empty(6)
    memoryview(buf)[:] = b"hello!"
    for nbytes in (100, 100000, 3 << 20, 50000, 6):
        buf.resize(nbytes)
        assert bytes(buf)[:6] == b"hello!"
    buf.resize(nbytes=3)
    assert bytes(buf) == b"hel"


def test_resize_very_large_zeroed():
    buf = alloc(20 << 20)
    memoryview(buf)[-1] = 1
    buf.resize(38 << 20)  # less than double: zeroes with the GIL let go
    assert memoryview(buf)[(20 << 20) - 1] == 1
    assert not any(memoryview(buf)[20 << 20 :: 4096])


@pytest.mark.parametrize(
    "argument, error", [(-1, ValueError), (2**70, OverflowError), (2**62, OutOfMemoryError), (1.5, TypeError)]
)
@pytest.mark.parametrize("align", [16, 128])
def test_failed_resize_changes_nothing(argument, error, align):
    buf = alloc(10, align=align)
    memoryview(buf)[:] = b"0123456789"
    address = buf.address
    with pytest.raises(error):
        buf.resize(argument)
    assert bytes(buf) == b"0123456789" and buf.address == address
    with pytest.raises(TypeError):
        buf.resize()
    with pytest.raises(TypeError):
        buf.resize(1, 2)
    with pytest.raises(TypeError):
        buf.resize(1, n=2)


# ---- The object


def test_equality_is_identity_and_hashable():
    one, two = alloc(3), alloc(3)
    assert one == one and one != two and len({one, two}) == 2


def test_repr_and_sizeof():
    buf = alloc(1000)
    assert repr(buf) == f"<pyalloc.Buffer of 1000 bytes at {buf.address:#x}>"
    assert buf.usable_size < sys.getsizeof(buf) < buf.usable_size + 200
    assert not alloc(0) and len(alloc(0)) == 0


def test_no_attributes_can_be_set():
    buf = alloc(1)
    for name in ("nbytes", "address", "freed", "other"):
        with pytest.raises(AttributeError):
            setattr(buf, name, 1)


def test_weak_references():
    buf = alloc(10)
    seen = []
    reference = weakref.ref(buf, seen.append)
    assert reference() is buf and weakref.getweakrefcount(buf) == 1
    del buf
    assert reference() is None and seen == [reference]
    assert weakref.getweakrefcount(alloc(10)) == 0  # the recycled object carries nothing over


@pytest.mark.parametrize(
    "attempt", [pickle.dumps, copy.copy, copy.deepcopy, lambda buf: buf.__reduce__(), lambda buf: pickle.dumps(buf, 0)]
)
def test_pickle_and_copy_are_refused(attempt):
    with pytest.raises(TypeError, match=r"bytes\(buf\)"):
        attempt(alloc(3))


def test_many_objects_through_the_free_list():
    for _ in range(3):
        kept = [alloc(i % 100) for i in range(1000)]
        assert len({id(buf) for buf in kept}) == 1000
        assert all(len(buf) == i % 100 and not buf.freed for i, buf in enumerate(kept))
        del kept


def test_nothing_is_lost():
    gc.collect()
    before = pyalloc.read_mem_stats()
    for _ in range(200):
        buf = alloc(3000)
        buf.resize(100000)
        view = memoryview(buf)
        del view
        buf.free()
        empty(5)
        with pytest.raises(OutOfMemoryError):
            alloc(2**60)
    del buf
    after = pyalloc.read_mem_stats()
    assert after.explicit_objects <= before.explicit_objects + 8
