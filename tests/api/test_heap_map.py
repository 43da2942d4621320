"""heap_map(): every page has a state, the states sum to the statistics, and the picture is one."""

import struct
import zlib

import pytest

import pyalloc

MIB = 1 << 20
PAGE = 8192


def test_pages_sum_to_the_statistics():
    kept = [pyalloc.empty(size) for size in (10, 100, 5000, 100_000, 3 * MIB)]
    managed = pyalloc.managed_bytes(50_000)
    stats, found = pyalloc.read_mem_stats(), pyalloc.heap_map()
    pages = found.counts()
    assert sum(pages.values()) * PAGE == stats.heap_sys and kept and managed
    assert (pages["explicit"] + pages["cached"]) * PAGE == stats.explicit_inuse
    assert pages["cached"] * PAGE == stats.explicit_cached and pages["managed"] * PAGE == stats.managed_inuse
    assert pages["released"] * PAGE == stats.heap_released
    assert (pages["released"] + pages["free"] + pages["stock"]) * PAGE == stats.heap_idle


def test_a_block_is_where_it_is():
    buf = pyalloc.empty(5 * PAGE)
    small = pyalloc.empty(48)
    found = {arena.address: arena for arena in pyalloc.heap_map().arenas}
    arena = found[buf.address & -(64 << 20)]
    at = (buf.address - arena.address) // PAGE
    assert set(arena.state[at:at + 5]) == {pyalloc._heapmap.STATES.index("explicit")}
    assert list(arena.first[at:at + 5]) == [1, 0, 0, 0, 0] and arena.live[at] == arena.capacity[at] == 1
    arena = found[small.address & -(64 << 20)]
    at = (small.address - arena.address) // PAGE
    assert arena.size_class[at] == 5 - 1 and 1 <= arena.live[at] <= arena.capacity[at]


def test_survivors_pin_spans():
    pyalloc.collect()  # what earlier tests left must not be swept meanwhile
    before = pyalloc.heap_map().pinned()
    kept = [pyalloc.empty(1000) for _ in range(20_000)]
    full = pyalloc.heap_map().pinned()
    assert full["live"] - before["live"] == 20_000 and full["capacity"] >= full["live"]
    kept = kept[::100]
    pyalloc.free_os_memory()  # brings blocks that are on their way home there
    few = pyalloc.heap_map().pinned()
    assert few["live"] - before["live"] == 200 and few["nearly_empty_pages"] > before["nearly_empty_pages"] + 200
    assert few["spans"] - before["spans"] <= 200


def decode(path):
    """Width, height and rows of palette indexes, read by a decoder of its own."""
    data, at, parts = path.read_bytes(), 8, {}
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0] == zlib.crc32(kind + body)
        parts[kind] = body
        at += 12 + length
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    raw = zlib.decompress(parts[b"IDAT"])
    assert len(raw) == height * (width + 1) and len(parts[b"PLTE"]) % 3 == 0
    rows = [raw[i * (width + 1) + 1:(i + 1) * (width + 1)] for i in range(height)]
    assert max(map(max, rows)) < len(parts[b"PLTE"]) // 3
    return width, height, rows


def test_others_can_read_the_picture(tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="to get it: pip install 'pyalloc[plot]'")
    pyalloc.heap_map().save_png(tmp_path / "map.png", scale=1)
    assert image.imread(tmp_path / "map.png").shape[:2] == decode(tmp_path / "map.png")[1::-1]


def test_picture(tmp_path):
    buf = pyalloc.empty(1000 * PAGE)
    found = pyalloc.heap_map()
    found.save_png(tmp_path / "map.png", scale=1)
    width, height, rows = decode(tmp_path / "map.png")
    assert (width, height) == (128, 66 * len(found.arenas))
    assert sum(row.count(16 + 15) for row in rows) >= 1000  # explicit and full
    assert sum(row.count(0) for row in rows) == found.counts()["released"] and buf
    found.save_png(tmp_path / "large.png", scale=4)
    assert decode(tmp_path / "large.png")[:2] == (512, (64 * 4 + 2) * len(found.arenas))
    with pytest.raises(ValueError):
        found.save_png(tmp_path / "no.png", scale=0)
    with pytest.raises(OSError):
        found.save_png(tmp_path / "nowhere" / "map.png")
