"""Life inside a memory cgroup. The kernel does not refuse memory there, it kills: so the point is to stay inside."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

LIMIT_MIB = 256
V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


def place_and_file():
    """Folder for a new group and the name of its limit file; None where the kernel offers none."""
    if (V1 / "memory.limit_in_bytes").exists():
        return V1, "memory.limit_in_bytes"
    control = V2 / "cgroup.subtree_control"
    if control.exists() and "memory" in control.read_text().split():
        return V2, "memory.max"
    return None


@pytest.fixture
def run_limited():
    where = place_and_file()
    if not where or not os.access(where[0], os.W_OK):
        pytest.skip("no memory cgroup can be made here: it takes root and a writable cgroup file system")
    folder = where[0] / f"pyalloc-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        (folder / where[1]).write_text(str(LIMIT_MIB << 20))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")

    def run(code):
        command = f'echo $$ > {folder}/cgroup.procs && exec "$0" -c "$1"'
        return subprocess.run(["sh", "-c", command, sys.executable, code], capture_output=True, text=True, timeout=120)

    yield run
    folder.rmdir()


def test_bursts_that_are_freed_stay_within_the_limit(run_limited):
    result = run_limited("""if True:
        import pyalloc
        for size in [4096, 65536, 1 << 20, 16 << 20, 100 << 20] * 3:    # 2.2 GiB in all, 150 MiB at a time
            blocks = [pyalloc.alloc(size) for _ in range((150 << 20) // size)]
            for block in blocks:
                memoryview(block)[::4096] = bytes(len(range(0, size, 4096)))
            del block, blocks
            pyalloc.free_os_memory()
        pyalloc.heap_check()
        print("inside")
    """)
    assert result.returncode == 0 and result.stdout == "inside\n", result.stderr


def test_the_kernel_kills_beyond_the_limit(run_limited):
    """What the limit means, and that the other tests are under it: touching more is no ENOMEM but the end."""
    result = run_limited("""if True:
        import pyalloc
        block = pyalloc.alloc(1 << 30)
        print("got it", flush=True)
        memoryview(block)[::4096] = bytes(1 << 18)
    """)
    assert result.stdout == "got it\n" and result.returncode == -9


def test_the_collector_keeps_garbage_within_the_groups_limit(run_limited):
    result = run_limited("""if True:
        import pyalloc
        pyalloc.set_gc_percent("off")
        pyalloc.set_memory_limit("auto")
        for _ in range(3000):                                           # 3 GiB of garbage
            pyalloc.managed_bytes(1 << 20)
        print(pyalloc.read_gc_stats().cycles > 5)
    """)
    assert result.returncode == 0 and result.stdout == "True\n", (result.returncode, result.stderr)
