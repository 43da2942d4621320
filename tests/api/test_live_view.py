"""pyalloc.live, the viewer, and python -m pyalloc top: as lines, as JSON, and drawn on a terminal."""

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

import pyalloc
from pyalloc import _live, _top

MIB = 2**20
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if not name.startswith(("PYALLOC", "LD_PRELOAD", "GO")) and name not in ("COLUMNS", "LINES")}


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def program(code, live=True, **more):
    """A Python process that runs code; its first line of output is read: it says that it is ready."""
    start = "import pyalloc, sys, time\n" + ("pyalloc.live()\n" if live else "")
    process = subprocess.Popen([sys.executable, "-c", start + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True, env=ENVIRONMENT, **more)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


WAIT = "print('ready', flush=True)\nsys.stdin.read()\n"
HOLD = "kept = [pyalloc.alloc(1000) for _ in range(3000)]\n" + WAIT
CHURN = ("print('ready', flush=True)\n"
         "class N(pyalloc.Struct):\n"
         "    next: pyalloc.Ref\n"
         "while True:\n"
         "    kept = [pyalloc.alloc(4096 + n) for n in range(500)]\n"
         "    head = None\n"
         "    for _ in range(2000):\n"
         "        head = N(next=head)\n")


# ---- The viewer


def test_figures_are_the_process_s():
    with program(HOLD + "") as process, _live.Viewer(process.pid) as viewer:
        figures = viewer.read(60)
    (row,) = [row for row in figures.classes if row.object_bytes == pyalloc.good_size(1000)]
    assert 3000 <= row.objects <= 3010 and row.span_bytes >= 3000 * 1000
    assert figures.alloc >= 3000 * 1000 and figures.inuse >= figures.alloc
    assert figures.inuse + figures.idle == 64 * MIB and 0 < figures.cost_ns < 10**9
    assert abs(time.monotonic_ns() - figures.time_ns) < 60 * 10**9


def test_counts_of_the_collector():
    code = ("print('ready', flush=True)\n"
            "for line in sys.stdin:\n"
            "    pyalloc.collect()\n"
            "    print('done', flush=True)\n")
    with program(code) as process, _live.Viewer(process.pid) as viewer:
        before = viewer.read(60)
        for _ in range(3):
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
        after = viewer.read(60)
    assert after.cycles - before.cycles == after.forced_cycles - before.forced_cycles == 3
    assert after.pause_count - before.pause_count >= 6 and after.pause_longest_ns >= after.pause_last_ns > 0
    assert after.phase == "off" and after.gc_percent == 100


def test_two_viewers_of_a_busy_process():
    with program(CHURN) as process, _live.Viewer(process.pid) as one, _live.Viewer(process.pid) as other:
        times = [viewer.read(60).time_ns for _ in range(200) for viewer in (one, other)]
    assert times == sorted(times) and len(set(times)) == len(times)


def switches(pid):
    """Voluntary context switches of the thread that answers."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text() == "pyalloc-live\n":
            return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.M).group(1))
    raise AssertionError("there is no such thread")


def test_nobody_asks_nobody_wakes():
    with program(WAIT) as process:
        with _live.Viewer(process.pid) as viewer:
            viewer.read(60)
        before = switches(process.pid)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            assert switches(process.pid) - before <= 1     # the one with which it fell asleep
        with _live.Viewer(process.pid) as viewer:
            viewer.read(60)
        wait_for(lambda: switches(process.pid) > before, "it to wake when somebody asks")


def test_not_in_live_mode():
    with program(WAIT, live=False) as process:
        with pytest.raises(_live.LiveError, match=r"pyalloc\.live\(\).*PYALLOC_LIVE=1"):
            _live.Viewer(process.pid)
    with pytest.raises(_live.LiveError, match="no process"):
        _live.Viewer(process.pid)
    with subprocess.Popen(["sleep", "60"], env=ENVIRONMENT) as other:
        try:
            with pytest.raises(_live.LiveError, match="does not use pyalloc"):
                _live.Viewer(other.pid)
        finally:
            other.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_another_user_may_not_look():
    code = "import pyalloc, sys\nfrom pyalloc import _live\n" \
           "import os; os.setgid(65534); os.setuid(65534)\n" \
           "try:\n    _live.Viewer(int(sys.argv[1]))\nexcept _live.LiveError as error:\n    print(error)\n"
    with program(WAIT) as process:
        result = subprocess.run([sys.executable, "-c", "import pyalloc._cffi\n" + code, str(process.pid)],
                                capture_output=True, text=True, env=ENVIRONMENT)
    assert "another user" in result.stdout, result


def test_a_stopped_process_does_not_answer():
    with program(WAIT) as process, _live.Viewer(process.pid) as viewer:
        before = viewer.read(60)
        process.send_signal(signal.SIGSTOP)
        watch = _top.Watch(viewer, 0.1)
        wait_for(lambda: "T" in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2][:3], "it to stop")
        with pytest.raises(_live.NotAnswering):
            viewer.read(0.05)
        frame = watch.frame()
        assert not frame.answering and "NOT ANSWERING (stopped)" in _top.line(frame)
        process.send_signal(signal.SIGCONT)
        assert viewer.read(60).time_ns > before.time_ns


def test_a_process_that_ends():
    with program(WAIT) as process, _live.Viewer(process.pid) as viewer:
        watch = _top.Watch(viewer, 0.2)
        assert watch.frame().answering
        process.kill()
        wait_for(lambda: process.poll() is not None, "it to end")
        with pytest.raises(_top.Over):
            watch.frame()


FORKS = ("import os\n"
         "r, w = os.pipe()\n"
         "pid = os.fork()\n"
         "if pid == 0:\n"
         "    os.read(r, 1)\n"
         "    kept = [pyalloc.empty(100 * MIB // 4) for _ in range(4)] + [pyalloc.empty(64 * n) for n in range(500)]\n"
         "    time.sleep(600)\n"
         "print('ready', flush=True)\n"
         "print(pid, flush=True)\n"
         "sys.stdin.readline()\n"
         "os.write(w, b'x')\n"
         "sys.stdin.read()\n"
         "os.kill(pid, 9)\n").replace("MIB", str(MIB))


def test_a_fork_child_has_a_page_of_its_own():
    with program(FORKS) as process:
        child = int(process.stdout.readline())
        try:
            with _live.Viewer(process.pid) as viewer:
                with pytest.raises(_live.LiveError, match="not in live mode"):
                    _live.Viewer(child)
                assert not [link for link in Path(f"/proc/{child}/fd").iterdir() if "pyalloc-live" in os.readlink(link)]
                assert "pyalloc-live" not in Path(f"/proc/{child}/maps").read_text()
                process.stdin.write("\n")
                process.stdin.flush()
                with wait_for(lambda: viewer_or_none(child), "the child's page") as own:
                    wait_for(lambda: own.read(60).inuse >= 100 * MIB, "the child's blocks")
                assert viewer.read(60).inuse < 100 * MIB
        finally:
            os.kill(child, signal.SIGKILL)


def viewer_or_none(pid):
    try:
        return _live.Viewer(pid)
    except _live.LiveError:
        return None


def test_a_closed_descriptor():
    """A program that closes all descriptors: found by its mapping, which root may, and a message for others."""
    with program("import os\nos.closerange(100, 300)\n" + WAIT) as process:
        viewer = viewer_or_none(process.pid)
        if os.geteuid() == 0 and viewer is not None:
            with viewer:
                assert viewer.read(60).inuse >= 0
        else:
            with pytest.raises(_live.LiveError, match="not in live mode"):
                _live.Viewer(process.pid)


def test_a_page_of_another_version(monkeypatch):
    with program(WAIT) as process, _live.Viewer(process.pid) as viewer:
        viewer._page.layout += 1
        with pytest.raises(_live.LiveError, match=r"pyalloc 0\.1\.0, whose figures"):
            viewer.read(60)


def test_a_refusal_is_an_error(monkeypatch):
    class Library:
        @staticmethod
        def pa_live_start():
            return errno.EMFILE

    monkeypatch.setattr(pyalloc, "lib", Library)
    with pytest.raises(OSError, match="no live view") as raised:
        pyalloc.live()
    assert raised.value.errno == errno.EMFILE


# ---- The command, without a terminal


def top(*words, timeout=120, **more):
    return subprocess.run([sys.executable, "-m", "pyalloc", "top", *words], capture_output=True, text=True,
                          env=ENVIRONMENT, timeout=timeout, **more)


def test_lines():
    with program(HOLD) as process:
        result = top("--interval", "0.05", "--count", "3", str(process.pid))
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr, len(lines)) == (0, "", 3)
    assert all(f" {process.pid} sleeping | rss " in line and "| gc 0 cycles, off" in line for line in lines), lines
    assert all("largest class 1,024 B 2.9" in line or "largest class 1,024 B 3" in line for line in lines), lines
    assert "\x1b" not in result.stdout


def test_json_lines():
    with program(CHURN) as process:
        result = top("--json", "--interval", "0.2", "--count", "3", str(process.pid))
    frames = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0 and len(frames) == 3
    assert all(frame["answering"] and frame["rss"] > MIB and frame["os_threads"] >= 2 for frame in frames)
    assert frames[0]["cycle_rate"] == 0 and frames[-1]["figures"]["time_ns"] > frames[0]["figures"]["time_ns"]
    assert frames[-1]["figures"]["classes"][0]["span_bytes"] > 0


def test_rates_are_differences():
    def figures(**changed):
        values = dict.fromkeys(_live.Figures.__dataclass_fields__, 0)
        return _live.Figures(**{**values, "phase": "off", "background_running": False, "classes": [], **changed})

    def frame(now):
        return _top.Frame(pid=1, name="x", status="running", answering=True, unix_time=0.0, rss=0, peak_rss=None,
                          cpu_percent=0.0, os_threads=1, figures=now)

    before = figures(time_ns=10**9, released_total=100, cycles=2, assist_ns=0, mark_ns=0)
    now = figures(time_ns=3 * 10**9, released_total=2100, cycles=6, assist_ns=5 * 10**8, mark_ns=10**9)
    one = _top._with_rates(frame(now), before)
    assert (one.release_rate, one.cycle_rate, one.assist_share, one.mark_share) == (1000, 2, 0.25, 0.5)
    assert _top._with_rates(frame(now), None).release_rate == 0 == _top._with_rates(frame(before), now).cycle_rate


def test_a_command():
    code = "import time, sys\nx = [bytes(10**6) for _ in range(20)]\nprint('hello')\ntime.sleep(0.7)\nsys.exit(5)"
    result = top("--interval", "0.1", "--", sys.executable, "-c", code)
    assert result.returncode == 5 and result.stderr == "hello\n"
    assert any(re.search(r"heap (2\d|19)[.\d]* MiB in use", line) for line in result.stdout.splitlines()), result.stdout


def test_a_command_ends_with_the_view(tmp_path):
    mark = tmp_path / "ended"
    code = ("import signal, sys, time\n"
            f"signal.signal(signal.SIGTERM, lambda *_: (open({str(mark)!r}, 'w').close(), sys.exit(3)))\n"
            "time.sleep(600)")
    result = top("--interval", "0.3", "--count", "4", "--", sys.executable, "-c", code)
    assert result.returncode == 0 and mark.exists()


def test_another_program_by_exec():
    shell = f"exec '{sys.executable}' -c 'import time; x = [bytes(10**6) for _ in range(30)]; time.sleep(600)'"
    process = subprocess.Popen([sys.executable, "-m", "pyalloc", "top", "--json", "--interval", "0.1", "--", "sh", "-c",
                                shell], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    try:
        for line in process.stdout:
            frame = json.loads(line)
            if frame["answering"] and frame["figures"]["inuse"] > 30 * 10**6:
                break
        else:
            raise AssertionError("the new program was not found")
        assert frame["name"].startswith("python")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
        process.stdout.close()


@pytest.mark.parametrize("words, code, text", [
    ([], 2, "a process id"), (["x"], 2, "behind --"), (["1", "2"], 2, "behind --"), (["--"], 2, "no command"),
    (["--count", "0", "1"], 2, "at least 1"), (["--interval", "0", "1"], 2, "more than 0"),
    (["--interval", "nan", "1"], 2, "more than 0"),
    (["--interval", "inf", "1"], 2, "at most a day"), (["99999999"], 1, "no process 99999999"),
    (["--", "no-such-command"], 127, "no such command"), (["--memory-limit", "x", "--", "true"], 1, "x"),
])
def test_errors_are_one_line(words, code, text):
    result = top(*words)
    assert (result.returncode, result.stdout) == (code, "") and text in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_live_mode_the_command_says_how():
    with program(WAIT, live=False) as process:
        result = top(str(process.pid))
    assert result.returncode == 1 and "pyalloc.live()" in result.stderr and "run --live" in result.stderr


def test_run_live():
    process = subprocess.Popen([sys.executable, "-m", "pyalloc", "run", "--live", "--", "sleep", "600"],
                               env=ENVIRONMENT)
    try:
        with wait_for(lambda: viewer_or_none(process.pid), "its page") as viewer:
            assert viewer.read(60).idle > 0
    finally:
        process.kill()
        process.wait()


def test_a_program_that_has_no_page(tmp_path):
    source, static = tmp_path / "s.c", tmp_path / "s"
    source.write_text("#include <unistd.h>\nint main(void) { sleep(600); return 0; }\n")
    if subprocess.run(["gcc", "-static", "-o", str(static), str(source)], capture_output=True).returncode != 0:
        pytest.skip("no static C library")
    result = top("--", str(static))
    assert result.returncode == 1 and "statically linked" in result.stderr


# ---- On a terminal


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, *words, env=(), size=(40, 120)):
        self.main, self.child = pty.openpty()
        fcntl.ioctl(self.child, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.modes = termios.tcgetattr(self.child)
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, *words], stdin=self.child, stdout=self.child, stderr=self.child, start_new_session=True,
            env={**ENVIRONMENT, "TERM": "xterm-256color", **dict(env)},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def read_until(self, condition, what, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}: {self.shown[-3000:]!r}"
            if select.select([self.main], [], [], 0.05)[0]:
                self.shown += os.read(self.main, 65536)

    def frames(self):
        return re.split(rb"\x1b\[H", self.shown)[1:]

    def type(self, keys):
        os.write(self.main, keys)

    def code(self):
        self.read_until(lambda: self.process.poll() is not None, "the end")
        while select.select([self.main], [], [], 0)[0]:
            self.shown += os.read(self.main, 65536)
        return self.process.returncode

    def is_restored(self):
        """The screen and the cursor are back, and so are the modes."""
        screen = max(self.shown.rfind(b"\x1b[?1049h"), 0) < self.shown.rfind(b"\x1b[?1049l")
        cursor = self.shown.rfind(b"\x1b[?25l") < self.shown.rfind(b"\x1b[?25h")
        return screen and cursor and termios.tcgetattr(self.child) == self.modes

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.kill()
        self.process.wait()
        os.close(self.main)
        os.close(self.child)


PLAIN = ("import sys\nsys.modules['rich'] = sys.modules['rich.console'] = sys.modules['rich.live'] = None\n"
         "from pyalloc.__main__ import main\nsys.exit(main(sys.argv[1:]))")
STARTS = {"rich": ["-m", "pyalloc"], "plain": ["-c", PLAIN]}


@pytest.fixture(params=STARTS)
def start(request):
    if request.param == "rich":
        pytest.importorskip("rich")
    return STARTS[request.param]


def words_of(frame):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame.decode(errors="replace"))


def test_frames_are_drawn_and_q_quits(start):
    with program(HOLD) as process, Terminal(*start, "top", "--interval", "0.1", str(process.pid)) as terminal:
        terminal.read_until(lambda: len(terminal.frames()) >= 4, "frames")
        assert termios.tcgetattr(terminal.child) != terminal.modes
        terminal.type(b"x")
        drawn = len(terminal.frames())
        terminal.read_until(lambda: len(terminal.frames()) >= drawn + 2, "frames after another key")
        terminal.type(b"q")
        assert terminal.code() == 0 and terminal.is_restored()
        text = words_of(terminal.frames()[-2])
        assert process.poll() is None, "a process that was looked at goes on"
    for word in (f"{process.pid}, every 0.1 s; q ends", "in use", "released", "goal", "4 MiB", "cycles", "pause",
                 "assist", "scavenger", "rate", "threads", "rss", "1,024 B"):
        assert word in text, text
    assert len(text.splitlines()) <= 41


@pytest.mark.parametrize("size", [(10, 30), (24, 80), (3, 200)])
def test_small_terminals(start, size):
    words = (*start, "top", "--interval", "0.1")
    with program(HOLD) as process, Terminal(*words, str(process.pid), size=size) as terminal:
        terminal.read_until(lambda: len(terminal.frames()) >= 3, "frames")
        terminal.type(b"Q")
        assert terminal.code() == 0 and terminal.is_restored()
        assert all(len(line) <= size[1] for line in words_of(terminal.frames()[1]).splitlines())


@pytest.mark.parametrize("how, code", [("ctrl-c", 130), ("SIGTERM", 128 + signal.SIGTERM), ("SIGHUP", 129)])
def test_other_ends_restore_the_terminal(start, how, code):
    with program(HOLD) as process, Terminal(*start, "top", "--interval", "0.1", str(process.pid)) as terminal:
        terminal.read_until(lambda: len(terminal.frames()) >= 2, "frames")
        if how == "ctrl-c":
            terminal.type(b"\x03")
        else:
            terminal.process.send_signal(getattr(signal, how))
        assert terminal.code() == code and terminal.is_restored()
        assert b"Traceback" not in terminal.shown


def test_the_end_of_the_process_ends_the_view(start):
    with program(HOLD) as process, Terminal(*start, "top", "--interval", "0.1", str(process.pid)) as terminal:
        terminal.read_until(lambda: len(terminal.frames()) >= 2, "frames")
        process.kill()
        process.wait()
        assert terminal.code() == 0 and terminal.is_restored()


def test_a_stopped_process_is_said_to_be(start):
    with program(HOLD) as process, Terminal(*start, "top", "--interval", "0.1", str(process.pid)) as terminal:
        terminal.read_until(lambda: len(terminal.frames()) >= 2, "frames")
        process.send_signal(signal.SIGSTOP)
        terminal.read_until(lambda: "NOT ANSWERING (stopped)" in words_of(terminal.shown), "its state")
        process.send_signal(signal.SIGCONT)
        drawn = len(terminal.frames())
        terminal.read_until(lambda: any("sleeping" in words_of(frame) for frame in terminal.frames()[drawn + 1:]),
                            "it to go on")
        terminal.type(b"q")
        assert terminal.code() == 0


def test_a_command_s_output_comes_after_the_picture(start, tmp_path):
    said = tmp_path / "said"
    code = ("import pathlib, sys, time\nprint('hello', flush=True)\nprint('trouble', file=sys.stderr, flush=True)\n"
            "pathlib.Path(sys.argv[1]).touch()\ntime.sleep(600)")
    with Terminal(*start, "top", "--interval", "0.1", "--", sys.executable, "-c", code, str(said)) as terminal:
        terminal.read_until(lambda: len(terminal.frames()) >= 4 and said.exists(), "frames and the command's words")
        assert b"hello" not in terminal.shown and b"trouble" not in terminal.shown
        terminal.type(b"q")
        assert terminal.code() == 0 and terminal.is_restored()
        after = terminal.shown[terminal.shown.rfind(b"\x1b[?1049l"):]
        assert b"hello\r\n" in after and b"trouble\r\n" in after


def test_lines_when_only_the_input_is_a_terminal():
    code = ("import subprocess, sys\n"
            "command = [sys.executable, '-m', 'pyalloc', 'top', '--count', '2', '--interval', '0.1', sys.argv[1]]\n"
            "print(len(subprocess.run(command, stdout=subprocess.PIPE).stdout.splitlines()))\n")
    with program(HOLD) as process, Terminal("-c", code, str(process.pid)) as terminal:
        assert terminal.code() == 0 and terminal.shown == b"2\r\n" and not terminal.frames()


def test_lines_on_a_terminal_that_cannot_draw():
    words = ("-m", "pyalloc", "top", "--interval", "0.1", "--count", "2")
    with program(HOLD) as process, Terminal(*words, str(process.pid), env={"TERM": "dumb"}) as terminal:
        assert terminal.code() == 0 and terminal.shown.count(b"\r\n") == 2 and b"\x1b" not in terminal.shown
