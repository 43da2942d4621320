"""ref_array and managed_bytes."""

import gc
import random

import pytest

import pyalloc
from pyalloc import Ref, Struct, int64, managed_bytes, ref_array


class Node(Struct):
    link: Ref
    key: int64


class Special(Node):
    pass


def nodes(count):
    return [Node(key=i) for i in range(count)]


def keys(array):
    return [None if one is None else one.key for one in array]


# ---- ref_array


def test_length_and_defaults():
    array = ref_array(5)
    assert len(array) == 5 and list(array) == [None] * 5 and array.type is None
    assert len(ref_array(0)) == 0 and list(ref_array([])) == [] and not ref_array(0)
    assert ref_array(n_or_iterable=3, type=Node).type is Node
    assert "5 references" in repr(array) and "3 Node" in repr(ref_array(3, Node))


def test_items():
    array = ref_array(3)
    one = Node(key=7)
    array[1] = one
    array[-1] = array
    assert array[1] == one and array[-2].key == 7 and array[2] == array and array[0] is None
    array[1] = None
    assert array[1] is None
    for index in (3, -4, 2**80):
        with pytest.raises(IndexError):
            array[index]
        with pytest.raises(IndexError):
            array[index] = None
    for wrong in (5, "x", object()):
        with pytest.raises(TypeError, match="an item of a RefArray must be a managed object or None"):
            array[0] = wrong
    with pytest.raises(TypeError):
        array["x"]
    with pytest.raises(TypeError, match="cannot be deleted"):
        del array[0]


def test_from_iterables():
    some = nodes(10)
    for source in (some, tuple(some), iter(some), ref_array(some), (one for one in some)):
        assert keys(ref_array(source)) == list(range(10))
    with pytest.raises(TypeError):
        ref_array([1, 2])
    with pytest.raises(TypeError):
        ref_array(5.5)


def test_typed_arrays():
    array = ref_array(3, type=Node)
    array[0] = Special(key=1)
    assert type(array[0]) is Special
    other = Struct.__class__("Other", (Struct,), {"__annotations__": {"x": int64}})()
    for action in (lambda: array.__setitem__(0, other), lambda: array.fill(other), lambda: ref_array([other], Node),
                   lambda: array.__setitem__(slice(0, 1), [other]),
                   lambda: array.__setitem__(slice(0, 1), ref_array([other]))):
        with pytest.raises(TypeError, match="must be a Node or None, not 'Other'"):
            action()
    for wrong in (int, 5, "Node"):
        with pytest.raises(TypeError, match="no class of managed objects"):
            ref_array(3, wrong)
    assert ref_array([ref_array(1)], pyalloc.RefArray).type is pyalloc.RefArray
    assert ref_array([managed_bytes(1)], pyalloc.ManagedBytes)[0] is not None
    assert ref_array([Node()], Struct).type is Struct and ref_array(3, pyalloc.Managed).type is None


@pytest.mark.parametrize("call", [lambda: ref_array(), lambda: ref_array(1, None, 2), lambda: ref_array(1, n=2),
                                  lambda: ref_array(1, n_or_iterable=2), lambda: ref_array(type=Node)])
def test_argument_errors(call):
    with pytest.raises(TypeError, match=r"ref_array\(\)"):
        call()


def test_sizes_that_cannot_be():
    with pytest.raises(ValueError):
        ref_array(-1)
    with pytest.raises(OverflowError):
        ref_array(2**80)
    with pytest.raises(pyalloc.OutOfMemoryError):
        ref_array(2**60)
    with pytest.raises(pyalloc.OutOfMemoryError):
        ref_array(2**50)
    with pytest.raises(ValueError):
        managed_bytes(-1)
    with pytest.raises(pyalloc.OutOfMemoryError):
        managed_bytes(2**60)


def test_slices_against_list():
    rng = random.Random(5)
    count = 40
    some = nodes(count)
    array, model = ref_array(some), list(range(count))

    def bound():
        return rng.choice([None, rng.randrange(-50, 50)])

    for _ in range(500):
        piece = slice(bound(), bound(), rng.choice([None, 1, 2, 3, -1, -2, -5]))
        assert keys(array[piece]) == model[piece]
        width = len(model[piece])
        source = rng.choice(["list", "array", "self"])
        if source == "self" and width == count:
            array[piece] = array
            model[piece] = list(model)
        else:
            values = [rng.randrange(count) for _ in range(width)]
            given = [some[i] for i in values]
            array[piece] = ref_array(given) if source == "array" else given
            model[piece] = values
        assert keys(array) == model


def test_slices_overlap_like_memmove():
    for start, shift in ((0, 1), (1, 0), (0, 1500), (1500, 0)):
        array, model = ref_array(nodes(5000)), list(range(5000))
        array[shift:shift + 3000] = array[start:start + 3000]
        model[shift:shift + 3000] = model[start:start + 3000]
        assert keys(array) == model


def test_slice_lengths_stay():
    array = ref_array(nodes(5))
    for value in ([], [None] * 3, ref_array(3)):
        with pytest.raises(ValueError, match="keeps its length"):
            array[0:2] = value
    with pytest.raises(TypeError):
        array[0:2] = [None, 5]
    assert keys(array) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError):
        array[::0]
    array[2:2] = []
    assert keys(array[10:]) == []


def test_fill_contains_iteration():
    array = ref_array(3000)
    one = Node(key=1)
    array.fill(one)
    assert all(item == one for item in array) and one in array and None not in array
    array[1500] = None
    assert None in array and Node() not in array and 5 not in array
    array.fill(None)
    assert one not in array
    with pytest.raises(TypeError):
        array.fill(5)


def test_contents_are_kept_by_the_array():
    array = ref_array([Node(key=i, link=Node(key=-i)) for i in range(2000)])
    gc.collect()
    pyalloc.collect()
    assert all(one.key == i and one.link.key == -i for i, one in enumerate(array))
    part = array[500:510]
    del array
    pyalloc.collect()
    assert keys(part) == list(range(500, 510))


def test_large_arrays():
    array = ref_array(1 << 20)
    assert len(array) == 1 << 20 and array[-1] is None
    array[-1] = Node(key=5)
    copied = array[:]
    array.fill(None)
    pyalloc.collect()
    assert copied[-1].key == 5


def test_only_bytes_are_buffers():
    for one in (Node(), ref_array(3)):
        with pytest.raises(TypeError):
            memoryview(one)


# ---- managed_bytes


def test_bytes_contents():
    data = managed_bytes(100)
    assert len(data) == 100 and bytes(data) == bytes(100)
    view = memoryview(data)
    assert not view.readonly and view.nbytes == 100 and view.format == "B"
    view[:5] = b"hello"
    assert bytes(data)[:6] == b"hello\0"
    assert repr(data).startswith("<pyalloc.ManagedBytes of 100 bytes at 0x")
    assert len(managed_bytes(0)) == 0 and bytes(managed_bytes(b"")) == b"" and len(memoryview(managed_bytes(0))) == 0


def test_bytes_from_buffers():
    for source in (b"abc", bytearray(b"abc"), memoryview(b"xabcx")[1:4], managed_bytes(b"abc"),
                   memoryview(b"axbxc")[::2]):
        assert bytes(managed_bytes(source)) == b"abc"
    big = bytes(range(256)) * 40000
    assert bytes(managed_bytes(big)) == big
    for wrong in ("abc", 5.5, None, [1, 2]):
        with pytest.raises(TypeError, match="a length or an object with the buffer protocol"):
            managed_bytes(wrong)


def test_tiny_bytes_do_not_touch_each_other():
    many = [managed_bytes(1 + i % 15) for i in range(3000)]
    for i, one in enumerate(many):
        memoryview(one)[:] = bytes([i % 256]) * len(one)
    pyalloc.collect()
    assert all(bytes(one) == bytes([i % 256]) * (1 + i % 15) for i, one in enumerate(many))


def test_exports_outlive_the_reference():
    numpy = pytest.importorskip("numpy")
    views = [memoryview(managed_bytes(bytes([i]) * 1000)) for i in range(200)]
    arrays = [numpy.frombuffer(managed_bytes(8000), dtype=numpy.int64) for _ in range(50)]
    for i, array in enumerate(arrays):
        array[:] = i
    for _ in range(3):
        garbage = [managed_bytes(b"\xff" * 1000) for _ in range(500)]
        del garbage
        gc.collect()
        pyalloc.collect()
    assert all(bytes(view) == bytes([i]) * 1000 for i, view in enumerate(views))
    assert all((array == i).all() for i, array in enumerate(arrays))
