"""``python -m pyalloc top``: a process's heap, looked at while it runs.

On a terminal a picture that is drawn anew, by rich where it is installed; a line a look otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, Callable, Iterator, NoReturn, Optional, Sequence

from pyalloc._live import Figures, LiveError, NotAnswering, Viewer, wait_for_page
from pyalloc._report import human

_GRACE_SECONDS = 5  # between SIGTERM and SIGKILL
_ROWS = 12
_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Frame:
    """One look: what the process said, beside what the operating system says of it."""

    pid: int
    name: str
    status: str  # "running", "sleeping", "stopped", ... as psutil has it
    answering: bool  # False: figures are those of the last answer, or None
    unix_time: float
    rss: int
    peak_rss: Optional[int]
    cpu_percent: float  # of one processor, since the look before
    os_threads: int
    figures: Optional[Figures]
    #: Since the look before; 0 in the first.
    release_rate: float = 0.0  # bytes a second
    cycle_rate: float = 0.0  # cycles a second
    assist_share: float = 0.0  # processor time of assists a second of wall time
    mark_share: float = 0.0  # the same for marking in the background

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))


class Over(Exception):
    """The process has ended."""


class Watch:
    """Takes frames of one process.  LiveError when it cannot be looked at."""

    def __init__(self, viewer: Viewer, timeout: float) -> None:
        import psutil

        self._viewer, self._timeout = viewer, timeout
        self._process = psutil.Process(viewer.pid)
        self._process.cpu_percent()
        self._last: Optional[Figures] = None

    def _ask(self) -> bool:
        try:
            self._last = self._viewer.read(self._timeout)
        except NotAnswering:
            if not self._viewer.find_again():
                return False
            try:  # another program, by exec: the differences to its figures begin anew
                self._last = self._viewer.read(self._timeout)
            except NotAnswering:
                return False
        return True

    def frame(self) -> Frame:
        """One look.  Over when the process has ended."""
        import psutil

        before, was = self._last, self._viewer.inode
        answering = self._ask()
        if self._viewer.inode != was:
            before = None
        try:
            with self._process.oneshot():
                status = str(self._process.status())
                if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) or not self._process.is_running():
                    raise Over
                frame = Frame(
                    pid=self._viewer.pid, name=_name(self._viewer.pid), status=status, answering=answering,
                    unix_time=time.time(), rss=int(self._process.memory_info().rss),
                    peak_rss=_peak_rss(self._viewer.pid),
                    cpu_percent=float(self._process.cpu_percent()), os_threads=int(self._process.num_threads()),
                    figures=self._last)
        except psutil.NoSuchProcess:
            raise Over from None
        return _with_rates(frame, before) if answering else frame


def _with_rates(frame: Frame, before: Optional[Figures]) -> Frame:
    now = frame.figures
    if now is None or before is None or now.time_ns <= before.time_ns:
        return frame
    ns = now.time_ns - before.time_ns
    return dataclasses.replace(
        frame, release_rate=(now.released_total - before.released_total) * 1e9 / ns,
        cycle_rate=(now.cycles - before.cycles) * 1e9 / ns, assist_share=(now.assist_ns - before.assist_ns) / ns,
        mark_share=(now.mark_ns - before.mark_ns) / ns)


def _name(pid: int) -> str:
    """psutil keeps the name that a process had before an exec."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def _peak_rss(pid: int) -> Optional[int]:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


# ---- Words


def _some(nbytes: Optional[float], nothing: str = "none") -> str:
    return nothing if nbytes is None else human(int(nbytes))


def _ns(ns: float) -> str:
    """A length of time for people."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


def _state(frame: Frame) -> str:
    return frame.status if frame.answering else f"NOT ANSWERING ({frame.status})"


def line(frame: Frame) -> str:
    """One look as one line."""
    clock = time.strftime("%H:%M:%S", time.localtime(frame.unix_time))
    words = [f"{clock} {frame.name} {frame.pid} {_state(frame)}", f"rss {human(frame.rss)}"]
    f = frame.figures
    if f is not None:
        words += [
            f"heap {human(f.inuse)} in use, {human(f.idle - f.released)} free, {human(f.released)} released, goal "
            f"{_some(f.goal, 'off')}",
            f"gc {f.cycles} cycles, {f.phase}, last pause {_ns(f.pause_last_ns)}",
            f"scavenger {human(int(frame.release_rate))}/s",
            f"threads {f.threads}",
        ]
        if f.classes:
            words.append("largest class " + _class_name(f.classes[0].object_bytes) + " " +
                         human(f.classes[0].span_bytes))
    return " | ".join(words)


def _class_name(object_bytes: int) -> str:
    return f"{object_bytes:,} B" if object_bytes else "large"


def sections(frame: Frame) -> list[tuple[str, list[tuple[str, str]]]]:
    """The picture's parts: titles, and rows of name and value."""
    f = frame.figures
    process = [("state", _state(frame)), ("rss", human(frame.rss)), ("peak rss", _some(frame.peak_rss, "?")),
               ("processor", f"{frame.cpu_percent:.0f} %"), ("threads", str(frame.os_threads))]
    if f is None:
        return [("process", process)]
    heap = [("in use", human(f.inuse)), ("live objects", human(f.alloc)), ("count", f"{f.objects:,}"),
            ("free, backed", human(f.idle - f.released)), ("released", human(f.released)),
            ("limit", _some(f.limit))]
    gc = [("goal", _some(f.goal, "off")), ("managed", human(f.live)),
          ("cycles", f"{f.cycles:,} ({f.forced_cycles:,} asked for), {frame.cycle_rate:.1f}/s"), ("phase", f.phase),
          ("pause", f"last {_ns(f.pause_last_ns)}, longest {_ns(f.pause_longest_ns)}"),
          ("assist", f"{100 * frame.assist_share:.1f} % of a processor"),
          ("marking", f"{100 * frame.mark_share:.1f} % of a processor")]
    scavenger = [("rate", f"{human(int(frame.release_rate))}/s"), ("released", human(f.released_total)),
                 ("in background", human(f.released_background)),
                 ("thread", f"{_ns(f.background_cpu_ns)} of processor" if f.background_running else "not running"),
                 ("caches", f"{f.threads} threads")]
    return [("process", process), ("heap", heap), ("collector", gc), ("scavenger", scavenger)]


def class_rows(frame: Frame, most: int) -> list[tuple[str, str, str, str]]:
    """Size classes with most memory: size, bytes, count, part of them that is in live objects."""
    rows = []
    for one in frame.figures.classes[:most] if frame.figures else []:
        used = one.objects * one.object_bytes if one.object_bytes else one.span_bytes
        rows.append((_class_name(one.object_bytes), human(one.span_bytes), f"{one.objects:,}",
                     f"{100 * used / one.span_bytes:.0f} %"))
    return rows


_CLASS_COLUMNS = ("class", "spans", "objects", "live")


def _title(frame: Frame, interval: float) -> str:
    return f"pyalloc top: {frame.name} {frame.pid}, every {interval:g} s; q ends"


def text(frame: Frame, interval: float, width: int, height: int) -> list[str]:
    """The picture without rich."""
    lines = [_title(frame, interval), ""]
    for title, rows in sections(frame):
        lines.append(title + "  " + "  ".join(f"{name} {value};" for name, value in rows).rstrip(";"))
    lines += ["", " ".join(name.rjust(12) for name in _CLASS_COLUMNS)]
    lines += [" ".join(cell.rjust(12) for cell in row) for row in class_rows(frame, _ROWS)]
    return [one[:width] for one in lines[:height]]


def _rich_picture(frame: Frame, interval: float, height: int) -> Any:
    from rich.columns import Columns
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    panels = []
    for title, rows in sections(frame):
        grid = Table.grid(padding=(0, 1))
        for name, value in rows:
            alarm = "bold red" if name == "state" and not frame.answering else "bold"
            grid.add_row(Text(name, style="dim"), Text(value, style=alarm))
        panels.append(Panel(grid, title=title, title_align="left"))
    classes = Table(box=None, pad_edge=False)
    for name in _CLASS_COLUMNS:
        classes.add_column(name, justify="right", header_style="dim")
    for row in class_rows(frame, min(_ROWS, max(3, height - 14))):
        classes.add_row(*row)
    return Group(Text(_title(frame, interval), style="bold"), Columns(panels),
                 Panel(classes, title="size classes", title_align="left", expand=False))


# ---- The terminal


class _Screen:
    """Draws pictures on the terminal's other screen; by rich where it is installed."""

    def __init__(self) -> None:
        self._live: Any = None
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            return
        self._live = Live(console=Console(), screen=True, auto_refresh=False)

    def __enter__(self) -> _Screen:
        if self._live is not None:
            self._live.start()
        else:
            sys.stdout.write("\x1b[?1049h\x1b[?25l")
        return self

    def __exit__(self, *unused: object) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            sys.stdout.write("\x1b[?25h\x1b[?1049l")
            sys.stdout.flush()

    def draw(self, frame: Frame, interval: float) -> None:
        width, height = shutil.get_terminal_size()
        if self._live is not None:
            self._live.update(_rich_picture(frame, interval, height), refresh=True)
            return
        sys.stdout.write("\x1b[H" + "\x1b[K\n".join(text(frame, interval, width, height)) + "\x1b[K\x1b[J")
        sys.stdout.flush()


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds and says whether q was pressed; the terminal is as before in the end."""
    if not sys.stdin.isatty():
        def sleep(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield sleep
        return
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        modes = termios.tcgetattr(fd)
        modes[6][termios.VSUSP] = b"\0"  # Ctrl-Z would leave the other screen on
        termios.tcsetattr(fd, termios.TCSANOW, modes)

        def wait(seconds: float) -> bool:
            deadline = time.monotonic() + seconds
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if select.select([fd], [], [], left)[0]:
                    typed = os.read(fd, 64)
                    if not typed or b"q" in typed.lower():
                        return True

        yield wait
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM and SIGHUP end the view as Ctrl-C does, so that the terminal is restored."""

    def end(number: int, _frame: Optional[FrameType]) -> NoReturn:
        raise SystemExit(128 + number)

    before = [(number, signal.signal(number, end)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _draw(watch: Watch, interval: float, count: Optional[int]) -> None:
    with _keys() as quit_within, _Screen() as screen:
        while True:
            screen.draw(watch.frame(), interval)
            if count is not None:
                count -= 1
            if count == 0 or quit_within(interval):
                return


def _print(watch: Watch, interval: float, count: Optional[int], show: Callable[[Frame], str]) -> None:
    due = time.monotonic()
    while True:
        print(show(watch.frame()), flush=True)
        if count is not None:
            count -= 1
            if count == 0:
                return
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


# ---- The command


class _Command:
    """A command that is started to be looked at.  Its output would fall into the picture: on a terminal it is kept and
    shown in the end; else it goes to our standard error, as standard output has the lines."""

    def __init__(self, words: Sequence[str], drawing: bool, **options: Any) -> None:
        from pyalloc import _run

        command = _run.command_of(words)
        self._warning = _run.warning_about(command[0])
        env = _run.environment(os.environ, live=True, **options)
        self._kept: list[tuple[IO[bytes], IO[bytes]]] = []
        out: Any = sys.stderr.buffer
        errors: Any = None
        if drawing:
            out, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()
            self._kept = [(out, sys.stdout.buffer), (errors, sys.stderr.buffer)]
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)

    def viewer(self) -> Optional[Viewer]:
        try:
            return wait_for_page(self._process.pid, lambda: self._process.poll() is not None)
        except LiveError as error:
            raise LiveError(self._warning or str(error)) from None

    def ended(self) -> int:
        """Its exit code, as shells have it; it has ended, or ends now."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def end(self) -> None:
        """Ends it if it has not: SIGTERM, a while later SIGKILL; then shows what it wrote."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # a stopped process takes no SIGTERM
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for kept, shown in self._kept:
            kept.seek(0)
            shutil.copyfileobj(kept, shown)
            shown.flush()
        self._kept = []


def _is_drawn(as_json: bool) -> bool:
    return sys.stdout.isatty() and not as_json and os.environ.get("TERM", "dumb") not in ("", "dumb")


def _look(viewer: Viewer, interval: float, count: Optional[int], as_json: bool) -> None:
    with viewer:
        watch = Watch(viewer, timeout=min(1.0, max(0.2, interval)))
        if _is_drawn(as_json):
            _draw(watch, interval, count)
        else:
            _print(watch, interval, count, Frame.as_json if as_json else line)


def _look_at_command(words: Sequence[str], interval: float, count: Optional[int], as_json: bool,
                     options: dict[str, Any]) -> int:
    command = _Command(words, _is_drawn(as_json), **options)
    try:
        viewer = command.viewer()
        if viewer is not None:
            _look(viewer, interval, count, as_json)
            return 0
        return command.ended()
    except Over:
        return command.ended()
    finally:
        command.end()


def top(words: Sequence[str], *, interval: float, count: Optional[int], as_json: bool, **options: Any) -> int:
    """Looks at a process (one word, its id) or at a command, which ends with the view.  Returns the exit code."""
    from pyalloc._run import RunError

    if not 0 < interval <= _DAY_SECONDS:
        print(f"pyalloc top: --interval {interval:g}: more than 0 seconds, at most a day", file=sys.stderr)
        return 2
    if count is not None and count < 1:
        print(f"pyalloc top: --count {count}: at least 1", file=sys.stderr)
        return 2
    if not words:
        print("pyalloc top: a process id, or -- and a command", file=sys.stderr)
        return 2
    with _terminated():
        try:
            if words[0] == "--":
                return _look_at_command(words[1:], interval, count, as_json, options)
            if len(words) > 1 or not words[0].isdigit():
                print(f"pyalloc top: {' '.join(words)!r} is no process id; a command stands behind --", file=sys.stderr)
                return 2
            _look(Viewer(int(words[0])), interval, count, as_json)
            return 0
        except Over:
            return 0
        except KeyboardInterrupt:
            return 130
        except (RunError, LiveError, ValueError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            print(f"pyalloc top: {error}", file=sys.stderr)
            return error.code if isinstance(error, RunError) else 1
