"""Programs that people run, with the library as their malloc: the same results as without it.

Every run proves that the library was in use, by its summary at exit (tests/preload/conftest.py) or, for servers, by
/proc/PID/maps. Programs that are missing are skipped with the name of their Debian package; CI installs them.
"""

import hashlib
import http.client
import json
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from preload.support import Server, children_of, free_port, need, uses_library, wait_for


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder of files: texts and random bytes, some thousand lines and a few MiB."""
    folder = tmp_path_factory.mktemp("tree")
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghij", k=rng.randrange(1, 12))) for _ in range(3000)]
    for i in range(80):
        where = folder / f"d{i % 9}" / f"e{i % 4}"
        where.mkdir(parents=True, exist_ok=True)
        (where / f"text{i}").write_text("\n".join(" ".join(rng.choices(words, k=8)) for _ in range(600)) + "\n")
        (where / f"bytes{i}").write_bytes(rng.randbytes(rng.randrange(60_000)))
    for path in folder.rglob("*"):
        os.utime(path, (10**9, 10**9))
    return folder


# ---- Coreutils and friends

COMMANDS = {
    "ls": "ls -lR --time-style=+%s .",
    "sort": "cat $(find . -name 'text*' | sort) | sort --parallel=2 -S 1M -k3,3 -k1",
    "sha256sum": "find . -type f | sort | xargs sha256sum",
    "tar": "tar -c --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner . | tee >(sha256sum >&2) | tar -tv | wc",
    "xargs": "find . -type f -print0 | sort -z | xargs -0 -n 7 md5sum | md5sum",
    "uniq": "cat $(find . -name 'text*' | sort) | tr ' ' '\\n' | sort | uniq -c | sort -rn | head -50",
    "join": "cut -d' ' -f1,2 d1/e1/text1 | sort >../a; cut -d' ' -f1,3 d2/e2/text2 | sort >../b; "
            "join ../a ../b | wc; comm -12 ../a ../b | wc",
    "grep": "grep -rohE '(ab|cd)+[e-j]*' . | sort | uniq -c | sort -rn | head -20",
    "awk": "awk '{for (i = 1; i <= NF; i++) n[$i]++} END {for (w in n) print n[w], w}' d*/e*/text* | sort -rn | head",
    "diff": "diff -u d1/e1/text1 d2/e2/text2 | wc; cmp d1/e1/text1 d2/e2/text2; true",
    "gzip": "cat d*/e*/* | gzip -9n | tee >(gzip -d | sha256sum >&2) | sha256sum",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_coreutils(compare, tree, tmp_path, name):
    """Pipelines under bash: every program of the pipeline is preloaded."""

    def folder(which):
        copy = tmp_path / which / "tree"
        shutil.copytree(tree, copy)
        return copy

    script = COMMANDS[name] + "; wait"
    out = compare([need("bash", "bash"), "-c", script], cwd=folder, program="bash",
                  normal=lambda text: re.sub(r"total \d+", "", text))
    assert out


# ---- git


def test_git_on_this_repository(compare, root, tmp_path):
    git = need("git", "git")
    if subprocess.run([git, "-C", root, "rev-parse", "HEAD"], capture_output=True).returncode != 0:
        pytest.skip("this checkout is not a git repository")
    env = {"GIT_CONFIG_NOSYSTEM": "1", "HOME": str(tmp_path), "GIT_CONFIG_COUNT": "2",
           "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
           "GIT_CONFIG_KEY_1": "pack.threads", "GIT_CONFIG_VALUE_1": "2"}
    for which in ("plain", "preloaded"):
        (tmp_path / which).mkdir()

    def folder(which):
        return tmp_path / which

    def clone(which):
        return tmp_path / which / "clone"

    compare([git, "clone", "-q", "--no-hardlinks", "--no-local", root, "clone"], env=env, cwd=folder, program="git",
            normal=lambda text: re.sub(r"(?m)^remote: .*\n", "", text))    # the other side's summary
    assert compare([git, "log", "--stat", "-p", "-40"], env=env, cwd=clone).count("\ncommit ") > 10
    compare([git, "repack", "-adfq", "--depth=50", "--window=50"], env=env, cwd=clone)
    compare([git, "fsck", "--full", "--no-progress"], env=env, cwd=clone)
    compare([git, "blame", "csrc/api/malloc.c"], env=env, cwd=clone)
    compare([git, "grep", "-n", "pa_malloc"], env=env, cwd=clone)
    compare([git, "archive", "--format=tar", "HEAD", "-o", "../a.tar"], env=env, cwd=clone)
    assert (tmp_path / "plain/a.tar").read_bytes() == (tmp_path / "preloaded/a.tar").read_bytes()


# ---- Compilers and build tools


def large_c(functions):
    parts = ["#include <stddef.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"]
    for i in range(functions):
        parts.append(f"struct s{i} {{ int a[{i % 17 + 1}]; double b; struct s{max(i - 1, 0)} *p;"
                     f" char c[{i % 40 + 1}]; }};\n"
                     f"static int f{i}(struct s{i} *s, int n) {{ int t = {i};"
                     f" for (int k = 0; k < n; k++) {{ switch (k % 5) {{ case 0: t += s->a[k % {i % 17 + 1}]; break;"
                     f" case 1: t ^= (int)s->b * k; break;"
                     f" case 2: s->c[k % {i % 40 + 1}] = (char)t; break; default: t -= n; }} }} return t; }}\n")
    calls = "".join(f"    {{ static struct s{i} s; t += f{i}(&s, argc + {i}); }}\n" for i in range(functions))
    main = f"int main(int argc, char **argv) {{ int t = 0;\n{calls}    return printf(\"%d\\n\", t); }}\n"
    return "".join(parts) + main


CXX = """
#include <algorithm>
#include <map>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>
template <int N> struct tower { std::map<int, std::vector<std::string>> m; tower<N - 1> below;
  int sum() const { int t = N; for (auto &[k, v] : m) t += k + (int)v.size(); return t + below.sum(); } };
template <> struct tower<0> { int sum() const { return 0; } };
int main() { tower<12> t; std::unordered_map<std::string, std::unique_ptr<int>> u;
  u["x"] = std::make_unique<int>(1); std::ostringstream o; o << t.sum() << *u["x"];
  return o.str().size() == 5 ? 0 : 1; }
"""


@pytest.mark.parametrize("compiler, cc1", [("gcc", "cc1"), ("g++", "cc1plus")])
def test_compilers(compare, tmp_path, compiler, cc1):
    path = need(compiler, compiler)
    source = tmp_path / ("large.c" if compiler == "gcc" else "large.cc")
    source.write_text(large_c(120) if compiler == "gcc" else CXX)

    def folder(which):
        (tmp_path / which).mkdir(exist_ok=True)
        return tmp_path / which

    compare([path, "-O2" if compiler == "gcc" else "-O1", "-S", "-w", source, "-o", "out"], cwd=folder, program=cc1)
    assert (tmp_path / "plain/out").read_bytes() == (tmp_path / "preloaded/out").read_bytes() != b""


def test_cmake_and_ninja(compare, tmp_path):
    cmake, ninja = need("cmake", "cmake"), need("ninja", "ninja-build")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(p C CXX)\nadd_library(l a.c b.c c.c d.c)\n"
        "add_executable(e main.cc)\ntarget_link_libraries(e l)\n")
    for name in "abcd":
        (tmp_path / f"{name}.c").write_text(f"int {name}(int x) {{ return x + {ord(name)}; }}\n")
    (tmp_path / "main.cc").write_text(
        "#include <iostream>\nextern \"C\" { int a(int), b(int), c(int), d(int); }\n"
        "int main() { std::cout << a(b(c(d(1)))) << std::endl; }\n")

    def folder(which):
        (tmp_path / which).mkdir(exist_ok=True)
        return tmp_path / which

    def timeless(text):
        return "\n".join(sorted(line for line in text.replace("plain", "X").replace("preloaded", "X").splitlines()
                                if not line.startswith(("[", "-- Configuring done", "-- Generating done"))))

    compare([cmake, "-G", "Ninja", tmp_path], cwd=folder, program="cmake", normal=timeless)
    compare([ninja, "-j2"], cwd=folder, program="ninja", normal=timeless)
    assert compare([tmp_path / "preloaded" / "e"]) == f"{1 + sum(map(ord, 'abcd'))}\n"


# ---- Interpreters

PERL = r"""
use strict; my (%n, @w, $t);
srand(3);
for my $i (1 .. 60000) { my $k = join '', map { chr(97 + int rand 26) } 1 .. 1 + $i % 9;
  $n{$k}{$i % 7}++; push @w, $k; }
@w = sort { length $a <=> length $b or $a cmp $b } @w;
$t = join ' ', @w; my $c = () = $t =~ /([aeiou])[^aeiou ]+\1/g; $t =~ s/(\w+) (\w+)/$2 $1/g;
print scalar(keys %n), " $c ", unpack('%32C*', $t), "\n";
my $pid = fork; if (!$pid) { my @x = map { [1 .. $_ % 50] } 1 .. 2000; exit @x % 7 }
waitpid $pid, 0; print $? >> 8, "\n";
"""

SQL = """
PRAGMA cache_size = 400; CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c BLOB);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
  INSERT INTO t SELECT i, printf('text %d', i * 7919 % 10007), zeroblob(i % 300) FROM n;
CREATE INDEX x ON t (b); UPDATE t SET b = b || 'x' WHERE a % 3 = 0; DELETE FROM t WHERE a % 7 = 0;
SELECT count(*), sum(a), max(b), sum(length(c)) FROM t WHERE b > 'text 5';
SELECT b, group_concat(a) FROM t GROUP BY substr(b, 1, 6) ORDER BY b; VACUUM; PRAGMA integrity_check;
"""

NODE = """
const { Worker, isMainThread, parentPort } = require('worker_threads');
const crypto = require('crypto'), zlib = require('zlib');
function work(n) { let rows = []; for (let i = 0; i < n; i++) rows.push({ i, s: 'x'.repeat(i % 97), a: [i, i * 2] });
  const text = JSON.stringify(rows), packed = zlib.deflateSync(Buffer.from(text));
  const h = crypto.createHash('sha256'); for (let i = 0; i < 200; i++) h.update(Buffer.alloc(1 + i * 331, i));
  return [JSON.parse(zlib.inflateSync(packed)).length, (text.match(/x{10,}/g) || []).length, h.digest('hex')]; }
if (isMainThread) { const out = [work(20000)]; let left = 3;
  for (let k = 0; k < 3; k++) new Worker(__filename).on('message', m => { out.push(m);
    if (--left === 0) console.log(JSON.stringify(out)); });
} else parentPort.postMessage(work(5000));
"""

JAVA = """
import java.util.*; import java.util.stream.*; import java.util.zip.*;
public class Main { public static void main(String[] a) throws Exception {
  List<Thread> ts = new ArrayList<>(); long[] sums = new long[4];
  for (int k = 0; k < 4; k++) { final int id = k; Thread t = new Thread(() -> { try { for (int r = 0; r < 30; r++) {
      Deflater d = new Deflater(); byte[] in = new byte[50000 + r]; Arrays.fill(in, (byte) (r + id));
      d.setInput(in); d.finish();
      byte[] out = new byte[60000]; int n = d.deflate(out); d.end(); Inflater f = new Inflater(); f.setInput(out, 0, n);
      byte[] back = new byte[60000]; sums[id] += f.inflate(back); f.end(); }
      } catch (Exception e) { throw new RuntimeException(e); } });
    t.start(); ts.add(t); }
  for (Thread t : ts) t.join();
  System.out.println(Arrays.stream(sums).sum() + " " + IntStream.range(0, 200000).mapToObj(Integer::toString)
    .collect(Collectors.groupingBy(String::length, TreeMap::new, Collectors.counting()))); } }
"""


def test_perl(compare):
    assert compare([need("perl", "perl"), "-e", PERL], program="perl", env={"PERL_HASH_SEED": "0"}).endswith("\n5\n")


def test_sqlite3(compare, tmp_path):
    for which in ("plain", "preloaded"):
        (tmp_path / which).mkdir()
    out = compare([need("sqlite3", "sqlite3"), "file.db", SQL], cwd=lambda which: tmp_path / which, program="sqlite3")
    assert out.endswith("ok\n")
    digests = {hashlib.sha256((tmp_path / which / "file.db").read_bytes()).digest() for which in ("plain", "preloaded")}
    assert len(digests) == 1


def test_node(compare, tmp_path):
    (tmp_path / "job.js").write_text(NODE)
    out = compare([need("node", "nodejs"), tmp_path / "job.js"], program="node",
                  normal=lambda text: re.sub(r"^\[\[20000.*", lambda m: str(sorted(m.group().split("],["))), text))
    assert len(json.loads(out)) == 4


def test_java(compare, tmp_path):
    java = need("java", "default-jdk-headless")
    (tmp_path / "Main.java").write_text(JAVA)
    probe = subprocess.run([java, "--list-modules"], capture_output=True, text=True)
    if "jdk.compiler" not in probe.stdout:
        pytest.skip("java has no compiler: apt-get install default-jdk-headless")
    out = compare([java, "-Xmx256m", tmp_path / "Main.java"], program="java")
    assert out.startswith("6001740 ")


# ---- Servers


def results_of_redis(port):
    """Some thousand commands over one connection; the replies."""
    import socket

    rng = random.Random(11)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        lines = []
        for i in range(4000):
            key = f"k{rng.randrange(400)}"
            lines.append(rng.choice([f"SET {key} {'v' * rng.randrange(2000)}", f"APPEND {key} x", f"STRLEN {key}",
                                     f"DEL {key}", f"LPUSH l{i % 9} {i}", f"HSET h{i % 5} f{i % 300} {i}",
                                     f"ZADD z {rng.randrange(999)} m{i % 500}", f"SADD s{i % 3} {i}"]))
        lines += ["ZRANGE z 0 -1", "HGETALL h1", "LRANGE l3 0 -1", "SCARD s1", "DBSIZE", "BGSAVE"]
        connection.sendall("".join(line + "\r\n" for line in lines).encode() + b"ECHO the-end\r\n")
        data = b""
        while not data.endswith(b"$7\r\nthe-end\r\n"):
            data += connection.recv(1 << 16) or pytest.fail("redis closed the connection")
    return data


def test_redis(library, tmp_path):
    program, benchmark = need("redis-server", "redis-server"), need("redis-benchmark", "redis-tools")
    replies = []
    for preloaded in (False, True):
        port = free_port()
        home = tmp_path / str(preloaded)    # BGSAVE leaves a file that the next server would load
        home.mkdir()
        command = [program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", home]
        with Server(command, port, library if preloaded else None) as server:
            replies.append(results_of_redis(port))
            result = subprocess.run([benchmark, "-p", str(port), "-n", "6000", "-c", "20", "-d", "300", "-r", "1000",
                                     "-q", "-t", "set,get,incr,lpush,lrange_100,sadd,hset,mset"],
                                    capture_output=True, text=True, timeout=100)
            assert result.returncode == 0 and result.stdout.count("requests per second") >= 8, result.stdout
            subprocess.run(["redis-cli", "-p", str(port), "shutdown", "nosave"], capture_output=True, timeout=30)
            assert server.wait() == 0
    assert replies[0] == replies[1]


def under_load(port, paths):
    """Digests of what the server gives for each path, while other clients keep it busy."""

    def fetch(path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, hashlib.sha256(body).hexdigest()

    stop, errors = threading.Event(), []

    def load():
        try:
            while not stop.is_set():
                for path in paths[:10]:
                    fetch(path)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    found = [fetch(path) for path in paths for _ in range(3)]
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    return found


NGINX = """
daemon off; pid {home}/nginx.pid; error_log {home}/error.log; worker_processes 2; user root;
events {{ worker_connections 200; }}
http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s; gzip on; gzip_types *; gzip_min_length 1;
  server {{ listen 127.0.0.1:{port}; root {tree}; autoindex on; autoindex_localtime off; }} }}
"""
LIGHTTPD = """
server.document-root = "{tree}"
server.bind = "127.0.0.1"
server.port = {port}
dir-listing.activate = "enable"
server.modules = ("mod_dirlisting", "mod_staticfile")
"""


@pytest.mark.parametrize("name", ["nginx", "lighttpd"])
def test_web_servers(library, tree, tmp_path, name):
    program = need(name, "nginx-light" if name == "nginx" else name)
    if name == "nginx" and os.getuid() != 0:
        pytest.skip("the configuration of this test names a user, which only root may do")
    paths = ["/" + str(path.relative_to(tree)) for path in sorted(tree.rglob("*")) if path.is_file()][:60] + ["/none"]
    os.chmod(tree, 0o755)
    found = []
    for preloaded in (False, True):
        port = free_port()
        home = tmp_path / str(preloaded)
        home.mkdir()
        text = NGINX if name == "nginx" else LIGHTTPD
        (home / "conf").write_text(text.format(home=home, port=port, tree=tree))
        command = [program, "-c", home / "conf"] if name == "nginx" else [program, "-D", "-f", home / "conf"]
        with Server(command, port, library if preloaded else None) as server:
            found.append(under_load(port, paths))
            server.process.terminate()
            assert server.wait() == 0
    assert found[0] == found[1] and found[0][0][0] == 200 and found[0][-1][0] == 404


# ---- Longer ones

CPYTHON_TESTS = """
    test_threading test_thread test_fork1 test_subprocess test_json test_re
    test_dict test_list test_gc test_set test_tuple test_bytes test_memoryview test_array test_struct test_pickle
    test_zlib test_bz2 test_lzma test_hashlib test_sqlite3 test_ctypes test_mmap test_weakref test_deque
    test_collections test_itertools test_sort test_ast test_threading_local test_posix
""".split()


@pytest.mark.soak
def test_cpython_s_own_tests(library, tmp_path):
    """A selection, pymalloc off; what fails with the library must fail without it too. Many of them look at what
    their children write to stderr, so there is no summary at exit: the workers' maps prove that the library is in use.
    """
    which = ("import test.support, importlib.util as util, sys\n"
             "print(*[name for name in sys.argv[1:] if util.find_spec('test.' + name)])")
    have = subprocess.run([sys.executable, "-c", which, *CPYTHON_TESTS], capture_output=True, text=True)
    if have.returncode != 0:
        pytest.skip("CPython's tests are missing: apt-get install libpython3-testsuite")
    modules = have.stdout.split()
    assert len(modules) >= 25
    command = [sys.executable, "-m", "test", "-j2", "--timeout", "120", *modules]
    env = {**os.environ, "PYTHONMALLOC": "malloc"}

    def failures(text):
        listed = re.search(r"tests? failed:\n((?:    .*\n)+)", text)
        return set(listed.group(1).split()) if listed else set()

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
                          env={**env, "LD_PRELOAD": library}) as process:
        wait_for(lambda: uses_library(process.pid) and any(map(uses_library, children_of(process.pid))),
                 "a worker with the library", 60)
        out, _ = process.communicate(timeout=580)
    failed = failures(out)
    assert process.returncode == 0 or failed, out[-4000:]
    if failed:
        command[-len(modules):] = sorted(failed)
        plain = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, env=env)
        assert failed <= failures(plain.stdout), out[-6000:]


@pytest.mark.soak
def test_numpy_s_own_tests(preloaded, tmp_path):
    pytest.importorskip("numpy")
    pytest.importorskip("hypothesis")
    modules = ["test_mem_policy", "test_regression", "test_shape_base", "test_numeric"]
    out = preloaded([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-x", "--pyargs",
                     *(f"numpy._core.tests.{module}" for module in modules)],
                    env={"PYTHONMALLOC": "malloc"}, cwd=tmp_path, timeout=580)
    assert out.returncode == 0 and re.search(r"\d{3,} passed", out.stdout), out.stdout[-4000:]


SOAK = """
import os, random, sys, threading, time
end = time.monotonic() + float(sys.argv[1])
def work(seed):
    rng, live = random.Random(seed), {}
    while time.monotonic() < end:
        for _ in range(2000):
            key = rng.randrange(3000)
            live[key] = bytes([key % 251]) * int(2 ** rng.uniform(0, 18))
            other = live.pop(rng.randrange(3000), None)
            assert other is None or other[0] == other[-1]
        if rng.random() < 0.1:
            live.clear()
threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for t in threads: t.start()
while time.monotonic() < end:
    pid = os.fork()
    if pid == 0:
        blocks = [bytes(n) for n in range(0, 200000, 997)]
        os._exit(len(blocks) % 100)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 201 % 100
    t = threading.Thread(target=lambda: [bytes(n) for n in range(0, 60000, 501)])
    t.start(); t.join()
for t in threads: t.join()
print("survived")
"""


@pytest.mark.soak
@pytest.mark.parametrize("background", ["0", "1"])
def test_soak(preloaded, background):
    """Threads that come and go, forks, blocks of all sizes; SOAK_SECONDS=900 for the long run, 20 in CI."""
    seconds = float(os.environ.get("SOAK_SECONDS", "20"))
    result = preloaded([sys.executable, "-c", textwrap.dedent(SOAK), str(seconds)], timeout=seconds + 120,
                       env={"PYTHONMALLOC": "malloc", "PYALLOC_BACKGROUND": background})
    assert (result.returncode, result.stdout, result.stderr) == (0, "survived\n", "")
