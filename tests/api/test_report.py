"""python -m pyalloc report, timeline, map and classes on programs; the page is looked at in a headless browser."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import traceformat
from pyalloc._pictures import launch, series

MIB = 2**20
SECTIONS = ["summary", "map", "timeline", "classes", "collections", "scavenger", "options"]
PROGRAM = """
import pyalloc, sys, time

class Node(pyalloc.Struct):
    left: pyalloc.Ref
    right: pyalloc.Ref
    key: pyalloc.int64

def tree(depth):
    return Node(left=tree(depth - 1), right=tree(depth - 1), key=depth) if depth else Node(key=0)

kept = tree(12)
for _ in range(3):
    tree(12)
    pyalloc.collect()
blocks = [pyalloc.alloc(30_000) for _ in range(1500)]
time.sleep(0.1)
del blocks
pyalloc.free_os_memory()
time.sleep(0.1)
print("to stdout")
sys.exit(3)
"""


def command(*words, cwd=None, **env):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYALLOC", "LD_PRELOAD"))}
    return subprocess.run([sys.executable, "-m", "pyalloc", *map(str, words)], capture_output=True, text=True, cwd=cwd,
                          env={**clean, **env}, timeout=120)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "forest.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def report(program, tmp_path_factory):
    """The page about it, and what the command said."""
    path = tmp_path_factory.mktemp("report") / "out.html"
    result = command("report", "-o", path, "--", sys.executable, program, PYALLOC_GOGC="80")
    assert result.returncode == 3, result.stderr
    assert result.stdout == "to stdout\n" and result.stderr == f"{path} written\n"
    return path


class Page(HTMLParser):
    """Elements by tag, ids, and the text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.ids, self.text = {}, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elements.setdefault(tag, []).append(found)
        if "id" in found:
            self.ids.append(found["id"])

    def handle_data(self, data):
        self.text += data


# ---- The page as text


def test_sections(report):
    page = Page(report.read_text())
    assert [one["id"] for one in page.elements["section"]] == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    targets = [one["href"] for one in page.elements["a"]]
    assert targets == [f"#{name}" for name in SECTIONS[1:]]


def test_nothing_comes_from_outside(report):
    text = re.sub(r"data:image/png;base64,[\w+/=]+", "", report.read_text())
    assert not re.search(r"(?:https?:)?//[a-z]|@import|url\(|<iframe", text, re.I)
    assert re.findall(r"<link[^>]*>", text) == ['<link rel="icon" href="data:,">']
    page = Page(report.read_text())
    policy = [one["content"] for one in page.elements["meta"] if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy and policy[0].startswith("default-src 'none';") and "http" not in policy[0]
    for tag in ("img", "source"):
        for one in page.elements[tag]:
            assert (one.get("src") or one["srcset"]).startswith("data:image/png;base64,")
    assert not [one for one in page.elements["script"] if "src" in one]


def test_it_can_be_read_without_seeing(report):
    page = Page(report.read_text())
    assert page.elements["html"][0]["lang"] == "en" and len(page.elements["h1"]) == 1
    assert all(len(one["alt"]) > 40 for one in page.elements["img"])
    for one in page.elements["svg"]:
        assert one["role"] == "img" and set(one["aria-labelledby"].split()) <= set(page.ids)
    assert all(one.get("scope") == "col" for one in page.elements["th"])


def test_figures(report):
    text = Page(report.read_text()).text
    peak = re.search(r"peak heap in use([\d.,]+) MiB", text)
    assert 44 < float(peak[1]) < 70  # 1,500 blocks of 30,000 bytes, Python's own buffers, trees
    assert re.search(r"exit code3after", text) and "forest.py" in text
    assert re.search(r"collections([4-9]|\d\d)[34] of them asked for", text)  # three, and free_os_memory's
    assert re.search(r"PYALLOC_GOGC80PYALLOC_GOGC", text)
    given = re.search(r"the program asked([\d.]+) MiB1", text)
    assert given and float(given[1]) > 30
    data = json.loads(re.search(r'id="timeline-data">(.*?)</script>', report.read_text())[1])
    assert {"RSS", "heap in use", "heap goal"} <= {one["name"] for one in data["series"]}


def test_what_the_program_is_called_is_no_markup(tmp_path):
    name = "<img src=x>&amp;.py"
    (tmp_path / name).write_text("pass")
    result = command("report", "-o", "out.html", "--", sys.executable, name, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = Page((tmp_path / "out.html").read_text())
    assert f"Memory of {os.path.basename(sys.executable)} {name}" in page.text
    assert not [one for one in page.elements["img"] if one.get("src") == "x"]


# ---- Programs of all kinds


def launched(*words, **options):
    return launch.launch(["--", *words], **options)


def page_of(run):
    from pyalloc._pictures import html

    return Page(html.page(run))


def test_a_program_that_is_killed():
    code = ("import pyalloc, os, time; kept = [pyalloc.alloc(1 << 16) for _ in range(500)]; time.sleep(0.2); "
            "os.kill(os.getpid(), 9)")
    run = launched(sys.executable, "-c", code)
    assert run.code == 128 + 9 and run.subject.exit is None and run.subject.peak.inuse > 25 * MIB
    page = page_of(run)
    assert "137 (signal 9)" in page.text and "map" in page.ids


def test_a_program_without_the_library(tmp_path):
    """It is told apart and reported: what the system knows is there."""
    from pyalloc._pictures import html

    run = launched("sh", "-c", "LD_PRELOAD= exec sleep 0.3")
    assert run.code == 0
    assert not run.records  # the shell becomes sleep without an exit
    page = Page(html.page(run))
    assert "left no record of its heap" in page.text and "summary" in page.ids and "map" not in page.ids


def test_the_process_that_matters_is_a_child():
    code = "import pyalloc, time; kept = [pyalloc.alloc(1 << 16) for _ in range(500)]; time.sleep(0.3)"
    run = launched("sh", "-c", f"{sys.executable} -c '{code}'; exit 5")
    assert run.code == 5 and run.subject_pid != run.pid
    assert run.subject.last.peak_heap_inuse > 25 * MIB and len(run.samples) >= 2
    page = page_of(run)
    assert "processes" in page.ids and run.rss_of_all()
    assert max(value for _, value in run.rss_of_all()) >= max(value for _, value in run.samples[run.subject_pid])


def test_rss_goes_up_and_down():
    code = ("import pyalloc, time; kept = pyalloc.empty(64 << 20); memoryview(kept)[::4096] = b'x' * (16384); "
            "time.sleep(0.3); kept.free(); pyalloc.free_os_memory(); time.sleep(0.3)")
    run = launched(sys.executable, "-c", code)
    values = [value for _, value in run.samples[run.pid]]
    assert run.code == 0 and len(values) >= 5 and max(values) - values[-1] > 60 * MIB
    found = run.timeline()
    assert max(value for _, value in found.in_use) >= 64 * MIB > found.in_use[-1][1]
    assert found.releases and abs(found.end - run.seconds) < 0.5 * run.seconds


def test_a_program_that_ends_at_once():
    run = launched("true")
    assert run.code == 0 and run.seconds > 0
    assert "summary" in page_of(run).ids


# ---- The commands


def test_timeline(program, tmp_path):
    pytest.importorskip("matplotlib")
    result = command("timeline", "--save-trace", "t.json", "--", sys.executable, program, cwd=tmp_path)
    assert result.returncode == 3 and "pyalloc-timeline.png written" in result.stderr, result.stderr
    assert re.search(r"peak RSS +\d", result.stdout) and (tmp_path / "pyalloc-timeline.png").stat().st_size > 10_000
    events = traceformat.check((tmp_path / "t.json").read_text())["traceEvents"]
    assert [one for one in events if one["name"] == series.RSS_EVENT]
    again = command("timeline", "--json", "t.json", cwd=tmp_path)
    found = json.loads(again.stdout)
    assert again.returncode == 0 and again.stderr == ""
    assert found["rss"] and found["in_use"] and found["goal"] and found["pauses"] and found["cycles"]
    assert found["cycles"][0]["marked_bytes"] > 0 and found["title"].endswith("(t.json)")


def test_json_is_not_mixed_with_what_the_program_says(program):
    result = command("map", "--json", "--", sys.executable, program)
    assert result.returncode == 3 and json.loads(result.stdout)["pages"]["explicit"] > 5000
    assert result.stderr == "to stdout\n"


def test_map_of_a_report_file(tmp_path):
    pytest.importorskip("matplotlib")
    env = {"PYALLOC_REPORT": str(tmp_path / "heap.jsonl")}
    code = "import pyalloc; kept = [pyalloc.alloc(1 << 16) for _ in range(500)]"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, check=True)
    peak = command("map", "--json", "--png", tmp_path / "p.png", tmp_path / "heap.jsonl")
    final = command("map", "--json", "--at", "exit", tmp_path / "heap.jsonl")
    assert peak.returncode == 0, peak.stderr
    used = [json.loads(one.stdout)["pages"]["explicit"] for one in (peak, final)]
    assert used[0] > 3500 > 1000 > used[1]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_waste_of_a_program_and_of_a_recording(tmp_path):
    pytest.importorskip("matplotlib")
    result = command("classes", "--waste", "--json", "--png", tmp_path / "w.png", "--", "sort", os.devnull)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found["table"]) == 66 and found["measured"]["kind"] == "live" and found["measured"]["classes"]
    assert (tmp_path / "w.png").stat().st_size > 10_000
    recorded = command("classes", "--waste", "--recorded", "sqlite-index")
    assert recorded.returncode == 0 and "Measured: recorded sqlite-index" in recorded.stdout, recorded.stderr
    assert re.search(r"in all [\d,]+ of [\d,]+ bytes: 10\.\d %", recorded.stdout)


@pytest.mark.parametrize("words, code, message", [
    (["report"], 2, "no command; for example"),
    (["report", "--", "no-such-command-here"], 127, "no such command"),
    (["report", "-o", "/nowhere/x.html", "--", "true"], 1, "there is no folder /nowhere"),
    (["report", "--hz", "0", "--", "true"], 2, "samples a second"),
    (["report", "--memory-limit", "lots", "--", "true"], 2, "is no memory limit"),
    (["timeline"], 2, "of what?"),
    (["timeline", "/dev/null"], 1, "is no execution trace"),
    (["timeline", "no-such-file.json"], 1, "No such file"),
    (["timeline", "a", "b"], 2, "one trace, or a program behind --"),
    (["map", "/dev/null"], 1, "is no report"),
    (["map", "--at", "exit", "--", "sh", "-c", "kill -9 $$"], 137, "left no record"),
    (["classes", "--png", "x.png"], 2, "that is for --waste"),
    (["classes", "--waste", "--recorded", "nothing"], 2, "gcc-c, gcc-cxx"),
])
def test_errors_are_words(words, code, message, tmp_path):
    result = command(*words, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (code, "") and message in result.stderr
    assert result.stderr.startswith(f"pyalloc {words[0]}: ") and "Traceback" not in result.stderr


def test_a_missing_profile_is_left_out(tmp_path):
    result = command("report", "-o", "out.html", "--profile", "no.pb.gz", "--", "true", cwd=tmp_path)
    assert result.returncode == 0 and "there is no profile no.pb.gz" in result.stderr
    assert "profile" not in Page((tmp_path / "out.html").read_text()).ids


def test_a_profile_is_shown(tmp_path):
    from test_pictures import a_profile

    (tmp_path / "p.pb.gz").write_bytes(a_profile())
    result = command("report", "-o", "out.html", "--profile", "p.pb.gz", "--", "true", cwd=tmp_path)
    page = Page((tmp_path / "out.html").read_text())
    assert result.returncode == 0 and "profile" in page.ids and "leaf (app.py:10) ← main (app.py:20)" in page.text


def test_the_page_needs_no_matplotlib(program, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    env = {"PYTHONPATH": str(tmp_path)}
    result = command("report", "-o", "out.html", "--", "true", cwd=tmp_path, **env)
    assert result.returncode == 0 and (tmp_path / "out.html").exists(), result.stderr
    for words in (["timeline", "--", "true"], ["map", "--png", "x.png"], ["classes", "--waste", "--png", "x.png"]):
        result = command(*words, cwd=tmp_path, **env)
        assert result.returncode == 1 and "pip install 'pyalloc[plot]'" in result.stderr, result.stderr
    result = command("map", "--png", "x.png", "--bare", cwd=tmp_path, **env)
    assert result.returncode == 0 and (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG"), result.stderr


# ---- In a browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Runs chromium without a window; gives its output and errors."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not path:
        pytest.skip("chromium is missing: apt-get install chromium")
    home = tmp_path_factory.mktemp("browser")

    def run(page, *options):
        words = [path, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={home}",
                 "--no-first-run", "--disable-background-networking", "--disable-component-update",
                 "--disable-extensions", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000",
                 # Whatever it might look up is not found: the page must not need it.
                 "--host-resolver-rules=MAP * ~NOTFOUND", *options, f"file://{page}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(home)})

    return run


def from_the_page(errors):
    """Lines of the console and of refused or failed requests; the browser's others are about its surroundings."""
    return [line for line in errors.splitlines() if "CONSOLE" in line or "net::" in line or "Refused" in line]


#: A script at the end of a copy of the page: what a reader's browser makes of it, as text.
PROBE = """<script>
addEventListener('load', function () {
  var chart = document.getElementById('timeline-chart').getBoundingClientRect();
  document.getElementById('timeline-chart').dispatchEvent(
    new PointerEvent('pointermove', {clientX: chart.left + chart.width / 2, clientY: chart.top + 50}));
  var image = document.querySelector('.map img');
  document.body.dataset.probe = JSON.stringify({
    requests: performance.getEntriesByType('resource').map(function (one) { return one.name.slice(0, 40); }),
    readout: document.getElementById('readout').textContent,
    image: [image.naturalWidth, image.naturalHeight, image.complete],
    wide: document.documentElement.scrollWidth, window: innerWidth,
    dark: getComputedStyle(document.body).backgroundColor,
    narrow: getComputedStyle(document.querySelector('.narrow')).display
  });
});
</script></body>"""


def probed(browser, report, tmp_path, *options):
    copy = tmp_path / "probe.html"
    copy.write_text(report.read_text().replace("</body>", PROBE))
    result = browser(copy, "--dump-dom", *options)
    found = re.search(r'data-probe="([^"]*)"', result.stdout)
    assert found, result.stdout[-500:] + result.stderr[-2000:]
    return json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&")), result


def test_in_a_browser(browser, report, tmp_path):
    found, result = probed(browser, report, tmp_path, "--window-size=1200,900")
    assert from_the_page(result.stderr) == []
    page = Page(result.stdout)
    assert [one["id"] for one in page.elements["section"]] == SECTIONS
    assert [name for name in found["requests"] if not name.startswith("data:")] == []
    assert re.match(r"[\d.]+ s: RSS [\d.]+ MiB · heap in use [\d.]+ [KM]iB", found["readout"])
    assert found["image"] == [1024, found["image"][1], True] and found["image"][1] >= 512
    assert found["wide"] <= found["window"] == 1200 and found["narrow"] == "none"
    assert found["dark"] == "rgb(255, 255, 255)"


def test_on_a_telephone(browser, report, tmp_path):
    found, result = probed(browser, report, tmp_path, "--window-size=400,900")
    assert from_the_page(result.stderr) == []
    assert found["wide"] <= found["window"] <= 500 and found["narrow"] == "block"


def test_in_the_dark(browser, report, tmp_path):
    found, _ = probed(browser, report, tmp_path, "--window-size=1200,900", "--blink-settings=preferredColorScheme=0")
    assert found["dark"] == "rgb(22, 24, 28)"


def test_the_browser_would_tell(browser, report, tmp_path):
    """That the checks above can fail: a copy of the page that asks for a picture and throws."""
    bad = tmp_path / "bad.html"
    worse = '<img src="https://example.org/x.png"><script>nothing()</script></main>'
    bad.write_text(report.read_text().replace("</main>", worse))
    errors = "\n".join(from_the_page(browser(bad, "--dump-dom").stderr))
    assert "nothing is not defined" in errors and "example.org" in errors and "Content Security Policy" in errors


@pytest.mark.parametrize("width", [1200, 400])
def test_screenshot(browser, report, tmp_path, width):
    image = pytest.importorskip("matplotlib.image", reason="to get it: pip install 'pyalloc[plot]'")
    browser(report, f"--screenshot={tmp_path}/shot.png", f"--window-size={width},2400")
    picture = image.imread(tmp_path / "shot.png")[:, :, :3]
    assert picture.shape[:2] == (2400, width)
    colours = {tuple(round(255 * part) for part in pixel) for row in picture[::3, ::3] for pixel in row}
    assert len(colours) > 50
    by_name = {"large blocks and lines": (26, 101, 169), "paper": (255, 255, 255), "tiles": (246, 246, 244)}
    assert {name for name, colour in by_name.items() if colour not in colours} == set()
    ink = (picture.min(axis=2) < 0.9).mean(axis=1)
    assert (ink[:1800] > 0).mean() > 0.4  # no large part of it is empty
