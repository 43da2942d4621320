"""The generated size classes against the published table, and the arithmetic on them against division."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whitebox import ffi, lib

CLASSES = range(1, 67)
SMALL_MAX = 32768
PAGE = 8192


@pytest.fixture(scope="module")
def published(root):
    lines = (root / "tests/data/size_classes.tsv").read_text().splitlines()
    names = lines[0].split("\t")
    rows = [dict(zip(names, map(int, line.split("\t")))) for line in lines[1:]]
    assert [row["class"] for row in rows] == list(CLASSES)
    return rows


@pytest.fixture(scope="module")
def class_of_all_sizes():
    out = ffi.new("uint8_t[]", SMALL_MAX + 1)
    lib.pa_export_class_of_all_sizes(out)
    return list(out)


def test_rows_equal_the_published_table(published):
    for row in published:
        got = lib.pa_export_class(row["class"])
        assert got.object_bytes == row["object_bytes"], row
        assert got.span_pages * PAGE == row["span_bytes"], row
        assert got.objects == row["objects"], row
        assert row["span_bytes"] - got.objects * got.object_bytes == row["tail_waste_bytes"], row


def test_class_0_is_large_and_has_no_numbers():
    row = lib.pa_export_class(0)
    assert (row.object_bytes, row.span_pages, row.cap_pages, row.magic) == (0, 0, 0, 0)
    assert row.objects == 1     # the span itself


@pytest.mark.parametrize(
    "nbytes, size_class, object_bytes",
    [
        (0, 1, 8), (1, 1, 8), (8, 1, 8), (9, 2, 16), (16, 2, 16), (17, 3, 32), (1016, 31, 1024),
        (1024, 31, 1024), (1025, 32, 1152), (1152, 32, 1152), (1153, 33, 1280), (28673, 66, 32768),
        (32768, 66, 32768),
    ],
)
def test_class_of_size(nbytes, size_class, object_bytes):
    assert lib.pa_export_class_of_size(nbytes) == size_class
    assert lib.pa_export_class(size_class).object_bytes == object_bytes


def test_every_size_gets_the_smallest_class_that_holds_it(published, class_of_all_sizes):
    sizes = [0] + [row["object_bytes"] for row in published]
    assert class_of_all_sizes[0] == 1
    for nbytes in range(1, SMALL_MAX + 1):
        size_class = class_of_all_sizes[nbytes]
        assert sizes[size_class - 1] < nbytes <= sizes[size_class], nbytes


def test_alignment_of_classes(published):
    """Objects of 16 bytes and more are 16-byte aligned; above 1 KiB sizes are multiples of 128."""
    for row in published[1:]:
        assert row["object_bytes"] % 16 == 0
    assert all(row["object_bytes"] % 128 == 0 for row in published if row["object_bytes"] > 1024)


@pytest.mark.parametrize("size_class", CLASSES)
def test_index_and_start_of_every_offset_in_512_kib(size_class):
    end = 512 * 1024
    assert lib.pa_export_class_first_wrong_offset(size_class, 0, end) == end


@pytest.mark.parametrize("size_class", CLASSES)
def test_index_and_start_near_the_largest_offset(size_class):
    end = 2**32 - 1
    assert lib.pa_export_class_first_wrong_offset(size_class, end - 100_000, end) == end


@given(size_class=st.sampled_from(CLASSES), offset=st.integers(0, 2**32 - 1))
def test_start_of_any_offset(size_class, offset):
    size = lib.pa_export_class(size_class).object_bytes
    assert bool(lib.pa_export_class_is_object_start(size_class, offset)) == (offset % size == 0)


@pytest.mark.parametrize("size_class", CLASSES)
def test_magic_is_the_rounded_up_reciprocal(size_class):
    row = lib.pa_export_class(size_class)
    assert row.magic == -(-(2**64) // row.object_bytes)


@pytest.mark.parametrize("size_class", CLASSES)
def test_longest_run(size_class):
    row = lib.pa_export_class(size_class)
    target_bytes = 1024 * (64 if row.object_bytes <= 1024 else 128 if row.object_bytes <= 8192 else 256)
    assert row.cap_pages % row.span_pages == 0
    assert row.cap_pages >= row.span_pages
    assert row.cap_pages * PAGE <= target_bytes < (row.cap_pages + row.span_pages) * PAGE


def run_generator(script, *arguments):
    return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)


def test_generated_table_is_current(root):
    result = run_generator(root / "gen/mksizeclasses.py", "--check")
    assert result.returncode == 0, result.stderr


def test_check_notices_a_changed_table(root, tmp_path):
    (tmp_path / "gen").mkdir()
    (tmp_path / "csrc/base").mkdir(parents=True)
    script = tmp_path / "gen/mksizeclasses.py"
    script.write_text((root / "gen/mksizeclasses.py").read_text())
    table = tmp_path / "csrc/base/sizeclass_table.h"
    assert run_generator(script, "--check").returncode == 1, "a missing table"
    assert run_generator(script).returncode == 0
    assert table.read_text() == (root / "csrc/base/sizeclass_table.h").read_text()
    table.write_text(table.read_text().replace("8192", "8193", 1))
    assert run_generator(script, "--check").returncode == 1, "a changed table"
