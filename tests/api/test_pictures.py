"""The parts of the pictures: pixels, series, waste, axes, profiles; and the PNG files, which must show the data."""

import gzip
import json
import struct
import zlib
from array import array

import pytest

import pyalloc
from pyalloc._bench.trace import ALIGNED, CALLOC, FREE, MALLOC, REALLOC, THREAD, Event
from pyalloc._heapmap import ArenaMap, HeapMap
from pyalloc._pictures import palette, plots, profile, raster, scale, series, svg, waste
from pyalloc._stats import ClassStats

MIB = 2**20


def arena(at=0xC000000000, **runs):
    """An arena of free pages that are not backed, with runs of others: state=(first page, pages, class)."""
    numbers = {"free": 1, "stock": 2, "explicit": 3, "cached": 4, "managed": 5}
    state, size_class, huge = bytearray(8192), bytearray(8192), bytearray(8192)
    for name, (first, count, cls) in runs.items():
        if name == "huge":
            huge[first:first + count] = b"\1" * count
        else:
            state[first:first + count] = bytes((numbers[name],)) * count
            size_class[first:first + count] = bytes((cls,)) * count
    return ArenaMap(at, bytes(state), bytes(size_class), bytes(8192), bytes(huge), array("I", bytes(4 * 8192)),
                    array("I", bytes(4 * 8192)))


def decode(data):
    """Width, height, rows of palette indexes and the palette, by a reader of its own."""
    at, parts = 8, {}
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        parts[kind] = data[at + 8:at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0] == zlib.crc32(kind + parts[kind])
        at += 12 + length
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    raw = zlib.decompress(parts[b"IDAT"])
    return width, height, [raw[i * (width + 1) + 1:(i + 1) * (width + 1)] for i in range(height)], parts[b"PLTE"]


# ---- Colours


def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_colours_can_be_read(theme):
    assert contrast(theme.text, theme.background) >= 7 and contrast(theme.muted, theme.background) >= 4.5
    for colour in theme.lines.values():
        assert contrast(colour, theme.background) >= 2.4, colour
    for ramp in (theme.explicit, theme.managed):
        steps = [luminance(colour) for colour in ramp]
        assert steps in (sorted(steps), sorted(steps, reverse=True))  # in grey, too, they are in order
    assert len(theme.palette()) == 3 * palette.COLOURS and len(set(theme.colours())) == palette.COLOURS


def seen_without(colour, cone):
    """As somebody sees it who lacks the red ("protan") or the green ("deutan") cones; Viénot et al. 1999."""
    red, green, blue = ((int(colour[i:i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    if cone == "protan":
        red = green = 0.11238 * red + 0.88762 * green
        blue = 0.00401 * red - 0.00401 * green + blue
    else:
        red = green = 0.29275 * red + 0.70725 * green
        blue = -0.02234 * red + 0.02234 * green + blue
    return tuple(max(part, 0.0) ** (1 / 2.2) for part in (red, green, blue))


@pytest.mark.parametrize("cone", ["protan", "deutan"])
@pytest.mark.parametrize("theme", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_kinds_are_told_apart_without_red_or_green(theme, cone):
    """Blue stays bluer than it is yellow, orange the other way round."""
    for explicit in theme.explicit:
        red, _, blue = seen_without(explicit, cone)
        assert blue > red, explicit
    for managed in theme.managed:
        red, _, blue = seen_without(managed, cone)
        assert red > blue + 0.1, managed


def test_every_class_has_a_group():
    groups = palette.group_by_class()
    assert len(groups) == 67 and groups[0] == len(palette.GROUPS) and groups[1:] == sorted(groups[1:])
    for row in pyalloc.size_classes():
        most = palette.GROUPS[groups[row.size_class]][0]
        assert most // 4 < row.object_bytes <= most or row.object_bytes <= 64


# ---- The heap map as pixels


@pytest.mark.parametrize("arenas", [1, 2, 4, 5, 24, 25, 200, 400, 3000])
def test_layouts(arenas):
    layout = raster.layout_for(arenas)
    assert layout.columns * layout.scale == raster.WIDTH
    assert layout.rows * layout.columns * layout.pages_a_pixel == 8192
    assert layout.height(arenas) <= 4200
    if arenas <= 200:
        assert layout.pages_a_pixel == 1 and layout.gap


def test_pixels_are_where_the_pages_are():
    found = HeapMap((arena(explicit=(3, 2, 5), managed=(8000, 10, 0), free=(100, 1, 0), cached=(200, 1, 0)),))
    layout = raster.layout_for(1)
    width, height, rows, colours = decode(raster.png(raster.rows_of(found, layout), palette.DARK))
    assert (width, height) == (1024, 512) and colours == palette.DARK.palette()

    def at(page):
        x, y = page % layout.columns * layout.scale, page // layout.columns * layout.scale
        values = {rows[y + dy][x + dx] for dy in range(layout.scale) for dx in range(layout.scale)}
        assert len(values) == 1
        return values.pop()

    released, explicit = palette.RELEASED, palette.EXPLICIT
    assert [at(page) for page in (2, 3, 4, 5)] == [released, explicit, explicit, released]
    assert at(8009) == palette.MANAGED + len(palette.GROUPS) and at(8010) == palette.RELEASED
    assert at(100) == palette.FREE and at(200) == palette.KEPT
    assert sum(row.count(palette.EXPLICIT) for row in rows) == 2 * layout.scale**2


@pytest.mark.parametrize("arenas", [1, 3, 30])
def test_huge_pages_are_hatched_and_nothing_else_is(arenas):
    found = HeapMap(tuple(arena(explicit=(0, 512, 0), huge=(256, 256, 0)) for _ in range(arenas)))
    layout = raster.layout_for(arenas)
    rows = raster.rows_of(found, layout)
    marked = {x // layout.scale + y % layout.band // layout.scale * layout.columns
              for y, row in enumerate(rows) for x, value in enumerate(row) if value == palette.HUGE}
    assert marked <= set(range(256, 512)) and len(marked) >= 30
    plain = sum(row.count(palette.EXPLICIT + len(palette.GROUPS)) for row in rows)
    assert plain >= arenas * 512 * layout.scale**2 * 0.8  # what lies below can still be seen


def test_what_is_in_use_wins_where_pixels_are_few():
    found = HeapMap((arena(explicit=(17, 1, 1)),) * 500)
    layout = raster.layout_for(500)
    rows = raster.rows_of(found, layout)
    assert layout.pages_a_pixel > 1 and sum(row.count(palette.EXPLICIT) for row in rows) == 500


def test_amounts():
    sums = raster.amounts(HeapMap((arena(explicit=(0, 10, 0), managed=(20, 5, 3), huge=(0, 256, 0)), arena())))
    assert sums.by_value[palette.EXPLICIT + len(palette.GROUPS)] == 10 * 8192
    assert sums.by_value[palette.MANAGED] == 5 * 8192 and sums.huge == 2 * MIB
    assert sum(sums.by_value) == 2 * 64 * MIB


def test_no_arena():
    rows = raster.rows_of(HeapMap(()), raster.layout_for(0))
    assert decode(raster.png(rows, palette.LIGHT))[:2] == (1024, 1)


def test_huge_pages_of_this_process():
    """Linux 6.7 says which pages are huge; asked in C and, here, in smaps."""
    kernel = tuple(int(part) for part in open("/proc/sys/kernel/osrelease").read().split("-")[0].split(".")[:2])
    policy = open("/sys/kernel/mm/transparent_hugepage/enabled").read()
    if kernel < (6, 7) or "[never]" in policy:
        pytest.skip(f"Linux {kernel} with {policy.strip()}: there is nothing to see")
    kept = [pyalloc.managed_bytes(30_000) for _ in range(5000)]
    huge = sum(sum(one.huge) for one in pyalloc.heap_map().arenas) * 8192
    base = min(one.address for one in pyalloc.heap_map().arenas)
    top = max(one.address for one in pyalloc.heap_map().arenas) + 64 * MIB
    expected, inside = 0, False
    for line in open("/proc/self/smaps"):
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start = int(first.split("-")[0], 16)
            inside = base <= start < top
        elif first == "AnonHugePages:" and inside:
            expected += int(line.split()[1]) * 1024
    assert kept and abs(huge - expected) <= 4 * MIB, (huge, expected)


# ---- Series


def event(name, ph, ts, **more):
    return {"name": name, "ph": ph, "pid": 1, "tid": 1, "cat": "x", "ts": ts, **more}


TRACE = {"otherData": {"lost_events": 7}, "traceEvents": [
    event("process_name", "M", 0, args={"name": "prog"}),
    event("heap memory", "C", 1_000_000.0, args={"in_use": 10, "free": 1, "released": 2}),
    event("heap in use", "C", 1_500_000.0, args={"in_use": 30}),
    event("managed heap", "C", 1_600_000.0, args={"live": 4}),
    event("managed heap", "C", 2_000_000.0, args={"live": 5, "goal": 12}),
    event("cycle", "X", 1_600_000.0, dur=400_000.0, args={"cycle": 3, "marked_bytes": 9, "forced": True}),
    event("mark", "X", 1_600_000.0, dur=300_000.0, args={"cycle": 3, "background_cpu_ns": 5e8, "assist_cpu_ns": 1e8}),
    event("stop", "X", 1_610_000.0, dur=50.0, args={"stopping_ns": 10}),
    event("stop", "X", 1_990_000.0, dur=150.0, args={"stopping_ns": 10}),
    event("stop", "X", 2_500_000.0, dur=900.0, args={"stopping_ns": 10}),
    event("release", "X", 2_400_000.0, dur=100_000.0, args={"heap_bytes": 77, "metadata_bytes": 0, "reason": "tick"})]}


def test_a_timeline_out_of_a_trace():
    found = series.timeline("x", TRACE, [(0.5, 100), (3.0, 50)])
    assert found.rss == [(0.0, 100), (2.5, 50)] and found.end == 2.5 and found.lost == 7
    assert found.in_use == [(0.5, 10), (1.0, 30)] and found.goal == [(1.5, 12)]
    assert [value for _, value in found.live] == [4, 5]
    assert [round(length * 1e6) for _, length in found.pauses] == [50, 150, 900]
    assert found.releases == [(2.0, 77, "tick")]
    (cycle,) = found.cycles
    assert (cycle.number, cycle.marked_bytes, cycle.forced) == (3, 9, True)
    assert (cycle.background_cpu, cycle.assist_cpu) == (0.5, 0.1)
    assert cycle.start == pytest.approx(1.1) and cycle.longest_pause == pytest.approx(150e-6)  # not the stop behind it
    assert series.program_of(TRACE) == "prog"


def test_rss_travels_in_the_trace(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(series.with_rss(TRACE, 1, [(0.5, 100), (3.0, 50)])))
    found = series.timeline("x", series.load_trace(path))
    assert found.rss == [(0.0, 100), (2.5, 50)] and found.in_use[0] == (0.5, 10)


def test_nothing_at_all():
    found = series.timeline("x", None)
    assert found.end == 0 and not found.rss and not svg.shown(found)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"traceEvents": 3}', "\x00"])
def test_what_is_no_trace(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(series.TraceError, match="bad.json is no execution trace"):
        series.load_trace(tmp_path / "bad.json")


def test_events_of_another_program():
    with pytest.raises(series.TraceError, match="marked_bytes"):
        series.timeline("x", {"traceEvents": [event("cycle", "X", 1.0, dur=1.0, args={"cycle": 1, "forced": False})]})


def test_percentiles():
    values = list(range(1, 101))
    assert [series.percentile(values, p) for p in (0, 1, 50, 99, 100)] == [1, 1, 50, 99, 100]
    assert series.percentile([], 50) == 0 and series.percentile([7], 1) == 7


def test_thinning_keeps_the_outline():
    points = [(float(i), float(i % 997)) for i in range(50_000)]
    points[12_345] = (12_345.0, 1e6)
    few = series.thinned(points, 400)
    assert len(few) <= 400 and few[0] == points[0] and few[-1] == points[-1] and (12_345.0, 1e6) in few
    assert few == sorted(few) and set(few) <= set(points)
    assert series.thinned(points[:300], 400) == points[:300]


# ---- Waste


def test_the_table_of_waste():
    """Go's own "max waste" column, for classes where it is well known."""
    by_bytes = {row.object_bytes: row for row in waste.by_class()}
    for object_bytes, worst in ((8, 87.50), (16, 43.75), (32, 46.88), (48, 31.52), (64, 23.44), (96, 15.95),
                                (1024, 12.40)):
        assert by_bytes[object_bytes].worst_percent == pytest.approx(worst, abs=0.01)
    for row in waste.by_class():
        sizes = range(row.smallest_request, row.object_bytes + 1)
        mean = sum(1 - size * row.objects / row.span_bytes for size in sizes) / len(sizes)
        assert row.average_percent == pytest.approx(100 * mean)
        assert waste.at_size(row.smallest_request, pyalloc.size_classes()) == pytest.approx(row.worst_percent / 100)


def test_waste_of_large_requests():
    assert waste.at_size(32769, []) == pytest.approx(1 - 32769 / 40960) and waste.at_size(40960, []) == 0


def test_measured_waste_adds_up():
    kept = [pyalloc.empty(100) for _ in range(10_000)]
    rows = {row.size_class: row for row in waste.measured(pyalloc.class_stats())}
    row = next(row for row in rows.values() if row.object_bytes == 112)
    assert len(kept) * 112 <= row.live and row.live % 112 == 0
    for row in rows.values():
        assert row.live + row.free + row.tail == row.span_bytes and row.free >= 0
        assert 0 <= row.rounding <= row.rounding_most <= row.live and row.wasted == row.rounding + row.free + row.tail


def test_measured_waste_of_large_blocks():
    stats = ClassStats(0, 0, 3, 10 * 8192, 3, 0, 0, 0, 0)
    (row,) = waste.measured([stats, ClassStats(5, 64, 0, 0, 0, 0, 0, 0, 0)])
    assert (row.live, row.rounding, row.rounding_most) == (81920, 3 * 4096, 3 * 8191)


def test_recorded_waste_is_exact():
    events = [Event(THREAD, 0, 0, 0), Event(MALLOC, 0, 17), Event(CALLOC, 1, 100), Event(ALIGNED, 2, 64, 64),
              Event(MALLOC, 3, 40_000), Event(REALLOC, 0, 33), Event(FREE, 3), Event(MALLOC, 4, 17), Event(FREE, 4),
              Event(MALLOC, 5, 0)]
    rows = {row.size_class: row for row in waste.recorded(events)}
    by_bytes = {row.object_bytes: row for row in rows.values()}
    assert (rows[0].requested, rows[0].slots) == (40_000, 40_960)
    assert (by_bytes[48].requested, by_bytes[48].slots) == (33, 48)  # at the peak block 0 had grown
    assert (by_bytes[32].requested, by_bytes[32].total_requested, by_bytes[32].total_slots) == (0, 34, 64)
    assert (by_bytes[112].requested, by_bytes[112].wasted) == (100, 12) and by_bytes[64].wasted == 0
    assert (by_bytes[8].total_requested, by_bytes[8].total_slots) == (0, 8)


def test_recorded_requests_take_the_slot_that_the_heap_gives():
    slots = waste._slots()
    for nbytes in [*range(1, 3000), 32767, 32768]:
        assert slots[(nbytes + 7) // 8][1] == pyalloc.good_size(nbytes)


# ---- Axes


@pytest.mark.parametrize("most, binary, expected", [
    (0, False, [0]), (10, False, [0, 2, 4, 6, 8, 10]), (0.9, False, [0, 0.2, 0.4, 0.6, 0.8]),
    (230, True, [0, 64, 128, 192]), (1.4, True, [0, 0.5, 1])])
def test_ticks(most, binary, expected):
    assert scale.ticks(most, 5, binary) == pytest.approx(expected)


@pytest.mark.parametrize("value, text", [
    (0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (53.44 * MIB, "53.4 MiB"), (2**40 * 3, "3 TiB")])
def test_sizes(value, text):
    assert scale.size(value) == text


@pytest.mark.parametrize("value, text", [
    (0, "0 µs"), (12.3e-6, "12.3 µs"), (0.0034, "3.4 ms"), (1.25, "1.25 s"), (125, "2 min 5 s")])
def test_lengths_of_time(value, text):
    assert scale.seconds(value) == text


# ---- Profiles


def varint(value):
    value &= 2**64 - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + bytes((value,))


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def a_profile():
    strings = ["", "inuse_objects", "count", "inuse_space", "bytes", "leaf", "main", "app.py", "other"]
    body = b"".join(field(6, text.encode()) for text in strings)
    body += field(1, field(1, 1) + field(2, 2)) + field(1, field(1, 3) + field(2, 4))
    for number, (name, line) in enumerate(((5, 10), (6, 20), (8, 0)), 1):
        body += field(5, field(1, number) + field(2, name) + field(4, 7 if line else 0))
        body += field(4, field(1, number) + field(4, field(1, number) + field(2, line)))
    for stack, values in (((1, 2), (3, 3000)), ((3,), (1, 500)), ((1, 2), (1, 1000))):
        body += field(2, field(1, b"".join(map(varint, stack))) + field(2, b"".join(map(varint, values))))
    return body + varint(9 << 3) + varint(12345)  # time_nanos


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_profile_is_read(tmp_path, pack):
    (tmp_path / "p.pb.gz").write_bytes(pack(a_profile()))
    found = profile.read(tmp_path / "p.pb.gz")
    assert found.types == (("inuse_objects", "count"), ("inuse_space", "bytes"))
    assert found.largest(1, 1) == [profile.Site(("leaf (app.py:10)", "main (app.py:20)"), (4, 4000))]
    assert found.largest(1)[1].stack == ("other",)


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"hello", gzip.compress(a_profile())[:-20], a_profile()[:-200]])
def test_what_is_no_profile(tmp_path, data):
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(profile.ProfileError, match="bad is no pprof profile"):
        profile.read(tmp_path / "bad")


# ---- PNG files


@pytest.fixture
def pixels(tmp_path):
    """Draws, and gives the picture as an array of height, width, red green blue."""
    image = pytest.importorskip("matplotlib.image", reason="to get it: pip install 'pyalloc[plot]'")

    def drawn(function, *arguments):
        function(tmp_path / "x.png", *arguments)
        return image.imread(tmp_path / "x.png")[:, :, :3]

    return drawn


def share_of(picture, colour, tolerance=0.01):
    """Of the pixels, the part that has that colour; thin lines are blended with what is around them."""
    wanted = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    return (abs(picture - wanted).max(axis=2) < tolerance).mean()


@pytest.mark.parametrize("arenas", [1, 24, 200])
def test_heap_map_png(pixels, arenas):
    found = HeapMap(tuple(arena(0xC000000000 + i * 2**26, explicit=(0, 4096, 40), managed=(4096, 2048, 0))
                          for i in range(arenas)))
    picture = pixels(plots.heap_map, found, "Heap of a test")
    height, width = picture.shape[:2]
    assert width == 1172 and height > raster.layout_for(arenas).height(arenas)
    inner = raster.layout_for(arenas).rows * raster.layout_for(arenas).scale * arenas * raster.WIDTH / (width * height)
    group = palette.group_by_class()[40]
    assert share_of(picture, palette.LIGHT.explicit[group]) == pytest.approx(inner / 2, rel=0.05)
    assert share_of(picture, palette.LIGHT.managed[-1]) == pytest.approx(inner / 4, rel=0.05)


def test_heap_map_of_this_process(tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="to get it: pip install 'pyalloc[plot]'")
    kept = [pyalloc.empty(100_000) for _ in range(100)]
    pyalloc.heap_map().plot(tmp_path / "heap.png")
    heap_bytes = 64 * 2**20 * len(pyalloc.heap_map().arenas)    # how much of it other tests left behind
    expected = 100_000 * len(kept) / heap_bytes
    assert share_of(image.imread(tmp_path / "heap.png")[:, :, :3], palette.LIGHT.explicit[-1]) > expected / 5


def test_timeline_png(pixels):
    picture = pixels(plots.timeline, series.timeline("x" * 200, TRACE, [(0.5, 100), (3.0, 50)]))
    assert picture.shape[1] == 1200
    for key in ("rss", "in use", "pause"):
        assert share_of(picture, palette.LIGHT.lines[key], 0.3) > 0.0001, key
    assert pixels(plots.timeline, series.timeline("nothing", None)).shape[1] == 1200


def test_waste_png(pixels):
    kept = [pyalloc.empty(100) for _ in range(3000)]
    rows = waste.measured(pyalloc.class_stats())
    picture = pixels(plots.waste, waste.by_class(), rows, "Waste")
    assert kept and share_of(picture, palette.LIGHT.explicit[3]) > 0.005
    assert pixels(plots.waste, waste.by_class(), [], "Waste").shape[0] < picture.shape[0]


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'pyalloc\[plot\]'"):
        plots.heap_map(tmp_path / "x.png", pyalloc.heap_map(), "x")
