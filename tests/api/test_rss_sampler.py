"""RssSampler: what it samples, how often, and what it says when something is missing."""

import subprocess
import sys
import time

import pytest

import pyalloc

MIB = 1 << 20


def touch(nbytes):
    buf = pyalloc.empty(nbytes)
    memoryview(buf)[::4096] = b"x" * len(memoryview(buf)[::4096])
    return buf


def wait_for(sampler, count):
    deadline = time.monotonic() + 30
    while len(sampler) < count and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(sampler) >= count


def test_a_burst_is_seen():
    with pyalloc.RssSampler(hz=200, full=True) as sampler:
        wait_for(sampler, 3)
        buf = touch(64 * MIB)
        wait_for(sampler, len(sampler) + 2)
        buf.free()
        pyalloc.free_os_memory()
        wait_for(sampler, len(sampler) + 2)
    data = sampler.arrays()
    assert set(data) == set(sampler.columns) and len({len(column) for column in data.values()}) == 1
    assert list(data["seconds"]) == sorted(data["seconds"]) and data["seconds"][0] < 1
    assert max(data["rss"]) - data["rss"][-1] > 60 * MIB and max(data["rss"]) - data["rss"][0] > 60 * MIB
    assert max(data["heap_inuse"]) - data["heap_inuse"][-1] >= 64 * MIB
    assert data["minor_faults"][-1] - data["minor_faults"][0] > 30  # huge pages: 32 for 64 MiB
    if data["uss"][0] >= 0:
        assert all(0 < uss <= pss for uss, pss in zip(data["uss"], data["pss"]))
    assert all(idle >= released for idle, released in zip(data["heap_idle"], data["heap_released"]))


def test_rate_and_thread():
    with pyalloc.RssSampler(hz=50) as sampler:
        wait_for(sampler, 11)
    seconds = sampler.arrays()["seconds"]
    assert (len(sampler) - 2) / 50 <= seconds[-1]  # never faster than asked
    assert min(sampler.arrays()["uss"]) == -1 == max(sampler.arrays()["lazy_free"])  # not asked for
    count = len(sampler)
    sampler.hz = 1
    with sampler:  # anew
        assert len(sampler) <= 2
        with pytest.raises(RuntimeError, match="running"):
            sampler.__enter__()
    assert 2 <= len(sampler) < count


def test_an_error_inside_passes_through():
    with pytest.raises(KeyError), pyalloc.RssSampler(hz=100) as sampler:
        raise KeyError
    assert len(sampler) >= 2


def test_another_process_and_its_end():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with pyalloc.RssSampler(hz=100, pid=child.pid) as sampler:
        wait_for(sampler, 3)
        child.communicate(b"\n")
    data = sampler.arrays()
    assert min(data["rss"][:3]) > 0 and set(data["heap_inuse"]) == {-1}
    with pytest.raises(Exception, match=str(child.pid)):
        pyalloc.RssSampler(pid=child.pid).__enter__()


@pytest.mark.parametrize("hz", [0, -1, float("inf"), float("nan")])
def test_bad_rates(hz):
    with pytest.raises(ValueError, match="samples a second"):
        pyalloc.RssSampler(hz=hz)


def test_plot(tmp_path):
    pytest.importorskip("matplotlib")
    with pyalloc.RssSampler(hz=100) as sampler:
        wait_for(sampler, 3)
    sampler.plot(tmp_path / "rss.png")
    assert (tmp_path / "rss.png").read_bytes().startswith(b"\x89PNG")


def test_without_numpy_and_matplotlib(run_python):
    result = run_python("-c", """if True:
        import sys
        sys.modules["numpy"] = sys.modules["matplotlib"] = None
        import pyalloc
        with pyalloc.RssSampler(hz=100) as sampler:
            pass
        print(type(sampler.arrays()["rss"]).__module__, len(sampler))
        try:
            sampler.plot("x.png")
        except ImportError as error:
            print(error)
    """)
    assert "array 2" in result.stdout and "pip install matplotlib" in result.stdout
