"""NumPy and DLPack: arrays over the memory of a Buffer without a copy."""

import ctypes
import gc
import threading

import pytest

import pyalloc
from pyalloc import alloc, empty

numpy = pytest.importorskip("numpy")


def test_frombuffer_shares_the_memory():
    buf = alloc(800)
    array = numpy.frombuffer(buf, dtype=numpy.float64)
    assert array.ctypes.data == buf.address and array.shape == (100,) and array.flags.writeable
    array[:] = numpy.arange(100)
    assert memoryview(buf).cast("d")[99] == 99.0
    with pytest.raises(BufferError):
        buf.free()
    del array
    buf.free()


def test_array_outlives_the_buffer():
    array = numpy.frombuffer(alloc(1 << 20), dtype=numpy.uint8)
    assert not array.any()
    array[:] = 7
    filler = [alloc(1 << 20) for _ in range(10)]
    assert (array == 7).all() and not any(bytes(one)[0] for one in filler)
    assert pyalloc.owns(array)


@pytest.mark.skipif(not hasattr(numpy, "from_dlpack"), reason="NumPy without from_dlpack")
class TestDlpack:
    def test_from_dlpack_shares_the_memory(self):
        buf = alloc(100)
        array = numpy.from_dlpack(buf)
        assert array.dtype == numpy.uint8 and array.shape == (100,) and array.ctypes.data == buf.address
        memoryview(buf)[5] = 9
        assert array[5] == 9
        with pytest.raises(BufferError):
            buf.free()
        with pytest.raises(BufferError):
            buf.resize(5)
        del array
        gc.collect()
        buf.resize(200)
        again = numpy.from_dlpack(buf)
        assert again.shape == (200,) and again[5] == 9

    def test_array_outlives_the_buffer_object(self):
        buf = alloc(1 << 16)
        array = numpy.from_dlpack(buf)
        memoryview(buf)[:] = b"\x07" * len(buf)
        del buf
        filler = [alloc(1 << 16) for _ in range(50)]
        assert (array == 7).all() and len(filler) == 50

    def test_empty_buffer(self):
        assert numpy.from_dlpack(alloc(0)).shape == (0,)


def capsule_name(capsule):
    function = ctypes.pythonapi.PyCapsule_GetName
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.py_object]
    return function(capsule)


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({}, b"dltensor"),
        ({"max_version": None}, b"dltensor"),
        ({"max_version": (0, 8)}, b"dltensor"),
        ({"max_version": (1, 0)}, b"dltensor_versioned"),
        ({"max_version": (2, 1), "stream": None, "dl_device": (1, 0), "copy": False}, b"dltensor_versioned"),
    ],
)
def test_capsules(arguments, name):
    buf = alloc(10)
    capsule = buf.__dlpack__(**arguments)
    assert capsule_name(capsule) == name
    with pytest.raises(BufferError):
        buf.free()
    del capsule  # nobody took it: its destructor lets go
    buf.free()


def test_copy():
    buf = alloc(5)
    memoryview(buf)[:] = b"hello"
    capsule = buf.__dlpack__(copy=True, max_version=(1, 0))
    buf.free()  # the capsule holds a copy
    assert capsule_name(capsule) == b"dltensor_versioned"


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"stream": 1}, ValueError),
        ({"dl_device": (2, 0)}, BufferError),
        ({"dl_device": 1}, TypeError),
        ({"max_version": (1, 0, 0)}, TypeError),
        ({"max_version": ("1", 0)}, TypeError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_dlpack_errors(arguments, error):
    buf = alloc(10)
    with pytest.raises(error):
        buf.__dlpack__(**arguments)
    with pytest.raises(TypeError):
        buf.__dlpack__(None)
    buf.free()


def test_device():
    assert alloc(1).__dlpack_device__() == (1, 0)


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class DLManagedTensor(ctypes.Structure):
    _fields_ = [
        ("tensor", DLTensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ]


def take(capsule):
    """Consumes a capsule as a C library would; returns address and tensor."""
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(capsule, b"dltensor")
    api.PyCapsule_SetName(capsule, take.used)
    return address, DLManagedTensor.from_address(address)


take.used = b"used_dltensor"  # must outlive the capsule


def test_the_tensor_and_a_deleter_on_another_thread_without_the_gil():
    buf = alloc(30)
    address, managed = take(buf.__dlpack__())
    tensor = managed.tensor
    assert (tensor.data, tensor.ndim, tensor.shape[0], tensor.strides[0]) == (buf.address, 1, 30, 1)
    assert (tensor.device_type, tensor.code, tensor.bits, tensor.lanes, tensor.byte_offset) == (1, 1, 8, 1, 0)
    deleter = managed.deleter  # a CFUNCTYPE call lets the GIL go
    with pytest.raises(BufferError):
        buf.free()
    thread = threading.Thread(target=deleter, args=(address,))
    thread.start()
    thread.join()
    buf.free()


def test_the_last_holder_frees():
    held = []
    for _ in range(50):
        buf = empty(100000)
        held.append(take(buf.__dlpack__()))
        held.append(take(buf.__dlpack__()))
        del buf
    during = pyalloc.read_mem_stats().explicit_inuse
    for address, managed in held:
        managed.deleter(address)
    assert pyalloc.read_mem_stats().explicit_inuse <= during
    pyalloc.free_os_memory()
    assert pyalloc.read_mem_stats().explicit_inuse <= during - 40 * 100000
