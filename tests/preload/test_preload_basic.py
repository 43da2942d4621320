"""Real programs with libpyalloc.so as their malloc: the same output as without it, and nothing on stderr.

The library is the one of the installed package; a copy of it that asserts more, for example from
PYALLOC_BUILD_ASSERTS=2, serves as well.  That the library is really in use is checked in every run: a program that
silently fell back to the C library's malloc would pass anything.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import textwrap

import pytest

from pyalloc import preload


@pytest.fixture(scope="module")
def library():
    path = os.fspath(preload.path())
    assert os.path.isfile(path), f"{path} is not built: pip install -e ."
    return path


def need(program, package):
    path = shutil.which(program)
    if not path:
        pytest.fail(f"{program} is missing: apt-get install {package}")
    return path


@pytest.fixture
def both(library, tmp_path):
    """Runs a command without and with the library; both must end with 0 and the same stdout, which is returned."""

    def run(command, cwd=None, stdin=None, env=(), timeout=120):
        results = []
        for name, more in (("plain", {}), ("preloaded", {"LD_PRELOAD": library})):
            environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC", **dict(env), **more}
            if not more:
                environment.pop("LD_PRELOAD", None)
            folder = cwd(name) if callable(cwd) else cwd or tmp_path
            result = subprocess.run(
                [str(word) for word in command],
                capture_output=True,
                cwd=folder,
                env=environment,
                timeout=timeout,
                stdin=open(stdin, "rb") if stdin else subprocess.DEVNULL,
            )
            assert result.returncode == 0, (
                name,
                command,
                result.returncode,
                result.stdout[-2000:],
                result.stderr[-2000:],
            )
            assert b"pyalloc:" not in result.stderr and b"ld.so" not in result.stderr, result.stderr
            results.append(result)
        plain, preloaded = results
        assert preloaded.stdout == plain.stdout
        assert preloaded.stderr == plain.stderr
        return preloaded.stdout

    return run


def test_the_library_is_in_use(library):
    """/proc/self/maps of a preloaded program names it, and so does the dynamic linker's own account of malloc."""
    out = subprocess.run(
        ["cat", "/proc/self/maps"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LD_PRELOAD": library},
    )
    assert "libpyalloc.so" in out.stdout
    out = subprocess.run(
        ["true"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LD_PRELOAD": library, "LD_DEBUG": "bindings", "LD_BIND_NOW": "1"},
    )
    bindings = [line for line in out.stderr.splitlines() if "normal symbol `malloc'" in line]
    assert bindings
    for line in bindings:
        assert "libpyalloc.so [0]" in line.split(" to ")[1], line


def test_true(both):
    assert both(["true"]) == b""


def test_echo_through_a_shell(both):
    assert both(["sh", "-c", "for i in 1 2 3; do echo $i; done | sort -r | tr '\\n' ' '"]) == b"3 2 1 "


def test_ls_of_a_tree(both, tmp_path):
    for i in range(60):
        folder = tmp_path / f"folder{i % 7}" / f"deeper{i % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{i}").write_text("x" * i)
    out = both(["ls", "-lR", tmp_path])
    assert out.count(b"file") == 60


@pytest.mark.parametrize(
    "arguments", [[], ["-n", "-r"], ["--parallel=4", "-S", "2M", "-k2"], ["-u", "-S", "64K"]], ids="-".join
)
def test_sort_a_big_file(both, tmp_path, arguments):
    rng = random.Random(5)
    text = "".join(
        f"{rng.randrange(10**9)} {rng.randrange(1000)} {'x' * rng.randrange(60)}\n" for _ in range(120_000)
    )
    path = tmp_path / "big"
    path.write_text(text)
    out = both(["sort", *arguments, path], env={"TMPDIR": str(tmp_path)})
    if "-u" not in arguments:
        assert (
            hashlib.sha256(b"".join(sorted(out.splitlines()))).digest()
            == hashlib.sha256(b"".join(sorted(text.encode().splitlines()))).digest()
        )


def test_awk_sed_grep(both, tmp_path):
    path = tmp_path / "words"
    path.write_text("\n".join(f"word{i % 997} {i}" for i in range(50_000)))
    out = both(
        [
            "sh",
            "-c",
            f"awk '{{n[$1] += $2}} END {{for (w in n) print w, n[w]}}' {path} | sort | sed s/word/w/ | grep -c w9",
        ]
    )
    assert int(out) == sum(1 for i in range(997) if str(i).startswith("9"))


def test_git(both, tmp_path):
    git = need("git", "git")
    repository = tmp_path / "repository"
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "A"), ("EMAIL", "a@example.org"), ("DATE", "2024-01-01T00:00:00Z"))
    }
    env = {**identity, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(tmp_path)}

    def plainly(*arguments):
        subprocess.run(
            [git, *arguments], cwd=repository, check=True, capture_output=True, env={**os.environ, **env}
        )

    repository.mkdir()
    plainly("init", "-q", "-b", "main")
    for i in range(40):
        (repository / f"f{i % 8}").write_text("\n".join(str(n * i) for n in range(500)))
        plainly("add", ".")
        plainly("commit", "-q", "-m", f"change {i}")
    (repository / "f1").write_text("changed")
    (repository / "new").write_text("new")
    log = both([git, "log", "--stat", "-p"], cwd=repository, env=env)
    assert log.count(b"\ncommit ") + log.startswith(b"commit ") == 40
    assert b" M f1" in both([git, "status", "--porcelain"], cwd=repository, env=env)
    both([git, "blame", "f2"], cwd=repository, env=env)
    both([git, "fsck", "--full"], cwd=repository, env=env)
    both([git, "-c", "pack.threads=2", "repack", "-adfq"], cwd=repository, env=env)
    both([git, "diff", "--stat", "HEAD~30"], cwd=repository, env=env)
    assert both([git, "log", "--oneline"], cwd=repository, env=env).count(b"\n") == 40


C_PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct tree { struct tree *left, *right; int key; };
static struct tree *insert(struct tree *t, int key)
{
    if (!t) { t = calloc(1, sizeof *t); t->key = key; return t; }
    if (key < t->key) t->left = insert(t->left, key); else t->right = insert(t->right, key);
    return t;
}
static long sum(struct tree *t) { return t ? t->key + sum(t->left) + sum(t->right) : 0; }
int main(void)
{
    struct tree *t = NULL;
    unsigned x = 1;
    for (int i = 0; i < 100000; i++) t = insert(t, (int)((x = x * 1103515245 + 12345) >> 8 & 0xffff));
    char *line = NULL; size_t n = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (getline(&line, &n, f) > 0) if (!strncmp(line, "Threads:", 8)) fputs(line, stdout);
    free(line); fclose(f);
    printf("%ld\\n", sum(t));
    return 0;
}
"""


@pytest.mark.parametrize("compiler, package", [("gcc", "gcc"), ("g++", "g++")])
def test_compile_and_run(both, tmp_path, compiler, package):
    source = tmp_path / "program.c"
    source.write_text(C_PROGRAM)
    cc = need(compiler, package)
    flags = [] if compiler == "gcc" else ["-x", "c++", "-fpermissive", "-w"]

    def folder(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name

    both([cc, *flags, "-O2", "-S", source, "-o", "program.s"], cwd=folder)
    assert (tmp_path / "plain/program.s").read_bytes() == (tmp_path / "preloaded/program.s").read_bytes() != b""
    both([cc, *flags, "-O1", "-g", source, "-o", "program"], cwd=folder)
    assert b"Threads:\t1\n" in both([tmp_path / "preloaded/program"])


PYTHON_JOBS = {
    "json": """
        import json
        rows = [{"id": i, "text": "x" * (i % 300), "list": list(range(i % 50))} for i in range(20000)]
        assert json.loads(json.dumps(rows)) == rows
        print(len(json.dumps(rows)))
    """,
    "threads": """
        import threading, zlib, queue
        jobs, out = queue.Queue(), []
        def work():
            while (item := jobs.get()) is not None:
                data = bytes(range(256)) * item
                out.append((item, len(zlib.compress(data)), zlib.crc32(data)))
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads: t.start()
        for i in range(400): jobs.put(i)
        for t in threads: jobs.put(None)
        for t in threads: t.join()
        for generation in range(50):
            ts = [threading.Thread(target=lambda: [bytearray(n) for n in range(0, 20000, 700)]) for _ in range(8)]
            for t in ts: t.start()
            for t in ts: t.join()
        print(sorted(out)[-1], len(out))
    """,
    "subprocess_and_fork": """
        import os, subprocess, sys, threading
        stop = threading.Event()
        def churn():
            while not stop.is_set(): [bytearray(n) for n in range(0, 60000, 900)]
        threads = [threading.Thread(target=churn) for _ in range(2)]
        for t in threads: t.start()
        total = 0
        for i in range(15):
            total += int(subprocess.run([sys.executable, "-S", "-c", f"print(sum(range({i}000)))"],
                                        capture_output=True, check=True).stdout)
            pid = os.fork()
            if pid == 0:
                blocks = [bytearray(n) for n in range(0, 100000, 1000)]
                del blocks
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        stop.set()
        for t in threads: t.join()
        print(total)
    """,
    "multiprocessing": """
        import multiprocessing
        def square(n): return n * n
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(3) as pool:
                print(sum(pool.map(square, range(3000))))
    """,
    "sqlite": """
        import sqlite3
        db = sqlite3.connect(":memory:")
        db.execute("create table t (a integer, b text, c blob)")
        db.executemany("insert into t values (?, ?, ?)",
                       ((i, "text %d" % (i * 7919 % 10007), bytes(i % 400)) for i in range(30000)))
        db.execute("create index i on t (b)")
        print(db.execute("select count(*), sum(a), max(b), sum(length(c)) from t where b > 'text 5'").fetchone())
        print(db.execute("pragma integrity_check").fetchone())
    """,
    "exceptions_and_decimals": """
        import decimal, re, traceback, ast
        decimal.getcontext().prec = 2000
        print(str(decimal.Decimal(2).sqrt())[-20:])
        tree = ast.parse("\\n".join(f"def f{i}(x): return [x * {i} for _ in range(x) if re.match('a+', str(x))]"
                                    for i in range(800)))
        print(len(ast.dump(tree)), len(re.findall(r"(\\w+) (\\w+)", "hello world " * 20000)))
    """,
}


@pytest.mark.parametrize("job", PYTHON_JOBS)
@pytest.mark.parametrize("pymalloc", [True, False], ids=["pymalloc", "malloc"])
def test_python(both, tmp_path, job, pymalloc):
    """With CPython's own small-object allocator in front, and with every object through malloc."""
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(PYTHON_JOBS[job]))
    both([sys.executable, script], env={} if pymalloc else {"PYTHONMALLOC": "malloc"})


def test_both_at_once_are_one_heap(library, run_python):
    """Preloaded and imported: import pyalloc finds the very same library, one heap for both."""
    program = textwrap.dedent("""
        import ctypes, json, pyalloc
        from pyalloc import _cffi
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.malloc.argtypes = libc.free.argtypes = [ctypes.c_size_t]
        block = libc.malloc(12345)
        buffer = pyalloc.alloc(100_000)
        maps = {line.split()[-1] for line in open("/proc/self/maps") if "libpyalloc" in line}
        print(json.dumps([pyalloc.owns(block), len(maps)]))
        libc.free(block)
    """)
    out = run_python("-c", program, env={"LD_PRELOAD": library}).stdout
    assert json.loads(out) == [True, 1]
    out = run_python("-c", program).stdout
    assert json.loads(out) == [False, 1]  # imported only: the program keeps its own malloc


def test_a_misused_pointer_ends_a_preloaded_program_with_one_line(library, tmp_path):
    source = tmp_path / "bad.c"
    source.write_text(
        "#include <stdlib.h>\nint main(void) { char *volatile p = malloc(100); free(p); free(p); return 0; }\n"
    )
    subprocess.run([need("gcc", "gcc"), "-O0", source, "-o", tmp_path / "bad"], check=True)
    result = subprocess.run(
        [tmp_path / "bad"], capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": library}
    )
    assert result.returncode == -6
    assert len(result.stderr.splitlines()) == 1 and "already freed (double free)" in result.stderr
