"""base/options and base/text: environments in, values and warning counts out; texts that are cut, never overrun."""

import re

import pytest

import pyalloc
from whitebox import ffi, lib

OFF_BYTES = 2**63 - 1
DEFAULTS = {"background": 0, "stats_at_exit": 0, "decay_ms": 500, "gogc": 100, "memlimit": OFF_BYTES, "gctrace": 0,
            "scavtrace": 0, "madvdontneed": 1, "lockstat": 0}


def parse(*entries):
    """(values that differ from the defaults, warning count, ...) of an environment."""
    words = [ffi.new("char[]", entry.encode() if isinstance(entry, str) else entry) for entry in entries]
    out = ffi.new("pa_xoptions *")
    warnings = lib.pa_xoptions_parse(out, ffi.new("const char *const[]", [*words, ffi.NULL]))
    values = {name: getattr(out, name) for name in DEFAULTS}
    return {name: value for name, value in values.items() if value != DEFAULTS[name]}, warnings


GOOD = {
    "nothing": ([], {}),
    "others": (["PATH=/bin", "PYALLOC=1", "XPYALLOC_GOGC=3", "PYALLOC_GOGC", ""], {}),
    "bool": (["PYALLOC_BACKGROUND=1", "PYALLOC_STATS_AT_EXIT=yes"], {"background": 1, "stats_at_exit": 1}),
    "bool words": (["PYALLOC_BACKGROUND=true", "PYALLOC_STATS_AT_EXIT=off"], {"background": 1}),
    "empty is absent": (["PYALLOC_BACKGROUND=", "PYALLOC_GOGC=", "PYALLOC_DEBUG="], {}),
    "ms": (["PYALLOC_DECAY_MS=0"], {"decay_ms": 0}),
    "percent": (["PYALLOC_GOGC=50"], {"gogc": 50}),
    "percent off": (["PYALLOC_GOGC=off"], {"gogc": -1}),
    "Go's percent": (["GOGC=25"], {"gogc": 25}),
    "ours wins": (["PYALLOC_GOGC=30", "GOGC=25"], {"gogc": 30}),
    "ours empty": (["PYALLOC_GOGC=", "GOGC=25"], {"gogc": 25}),
    "bytes": (["PYALLOC_MEMLIMIT=512MiB"], {"memlimit": 512 << 20}),
    "Go's bytes": (["GOMEMLIMIT=3GiB"], {"memlimit": 3 << 30}),
    "debug": (["PYALLOC_DEBUG=gctrace=1,scavtrace=2,"], {"gctrace": 1, "scavtrace": 2}),
    "lock statistics": (["PYALLOC_DEBUG=lockstat=1"], {"lockstat": 1}),
    "Go's debug": (["GODEBUG=http2debug=1,gctrace=1,inittrace,madvdontneed=0"], {"gctrace": 1, "madvdontneed": 0}),
    "our debug wins": (["PYALLOC_DEBUG=gctrace=2", "GODEBUG=gctrace=1,scavtrace=1"], {"gctrace": 2, "scavtrace": 1}),
    "the first of two counts": (["PYALLOC_DECAY_MS=7", "PYALLOC_DECAY_MS=8"], {"decay_ms": 7}),
    "tools' own": (["PYALLOC_BUILD_ASSERTS=2", "PYALLOC_BENCH_LIB=x", "PYALLOC_RECORD_MAX=1", "PYALLOC_RECORD=f"], {}),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_environments(case, capfd):
    entries, values = GOOD[case]
    assert parse(*entries) == (values, 0)
    assert capfd.readouterr().err == ""


BAD = {
    "PYALLOC_BACKGROUND=maybe": "PYALLOC_BACKGROUND=maybe: not 0 or 1; using the default, 0",
    "PYALLOC_DECAY_MS=-1": "PYALLOC_DECAY_MS=-1: not a number of milliseconds; using the default, 500",
    "PYALLOC_DECAY_MS=99999999999": "not a number of milliseconds",
    "PYALLOC_DECAY_MS=9999999999999999999999": "not a number of milliseconds",
    "PYALLOC_GOGC=1.5": "not a percentage or off; using the default, 100",
    "GOGC=x": "GOGC=x: not a percentage or off",
    "PYALLOC_MEMLIMIT=512MB": "not a size such as 512MiB, or off; using the default, off",
    "PYALLOC_MEMLIMIT=9999999999TiB": "not a size",
    "GOMEMLIMIT=-5": "GOMEMLIMIT=-5: not a size",
    "PYALLOC_DEBUG=gctrac=1": "PYALLOC_DEBUG: unknown key gctrac=1, ignored",
    "PYALLOC_DEBUG=gctrace": "PYALLOC_DEBUG: malformed gctrace, ignored",
    "PYALLOC_DEBUG=gctrace=1x": "malformed gctrace=1x, ignored",
    "PYALLOC_NO_SUCH=1": "PYALLOC_NO_SUCH: unknown option, ignored (python -m pyalloc options lists them)",
    "PYALLOC_=1": "PYALLOC_: unknown option",
    "PYALLOC_gogc=1": "PYALLOC_gogc: unknown option",
}


@pytest.mark.parametrize("entry", BAD)
def test_bad_environments_give_one_line_and_the_default(entry, capfd):
    assert parse(entry) == ({}, 1)
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and error.startswith("pyalloc: ") and BAD[entry] in error


def test_hostile_values(capfd):
    """Long, binary and many: a bounded line each, and the good ones among them count."""
    long = b"PYALLOC_GOGC=" + b"9" * 100_000
    values, warnings = parse(long, b"PYALLOC_" + bytes(range(128, 255)) + b"=1", b"PYALLOC_DEBUG=" + b"a," * 500,
                             b"PYALLOC_BACKGROUND=1", b"PYALLOC_DECAY_MS=\x1b[31m\n")
    assert values == {"background": 1} and warnings == 1 + 1 + 500 + 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == warnings and all(len(line) < 256 and line.isprintable() for line in lines)


@pytest.mark.parametrize("text, value", [
    ("0", 0), ("1", 1), ("17B", 17), ("1KiB", 1 << 10), ("3MiB", 3 << 20), ("2GiB", 2 << 30), ("1TiB", 1 << 40),
    ("off", OFF_BYTES), ("8388607TiB", 8388607 << 40), ("8388608TiB", None), ("", None), ("MiB", None), ("1 MiB", None),
    ("1BKiB", None), ("1KB", None), ("1K", None), ("OFF", None), ("0x10", None), ("+1", None),
])
def test_sizes(text, value):
    out = ffi.new("int64_t *")
    ok = lib.pa_xoptions_value(b"BYTES", text.encode(), out)
    assert (out[0] if ok else None) == value


@pytest.mark.parametrize("capacity", [1, 2, 5, 11, 12, 13, 200])
@pytest.mark.parametrize("n, base, shown", [(0, 10, "0"), (-(2**63), 10, str(-(2**63))), (255, 16, "ff")])
def test_texts_are_cut(capacity, n, base, shown):
    room = ffi.new("char[]", b"\xff" * (capacity + 8))
    length = lib.pa_xtext_build(room, capacity, b"word", n, base, 6)
    whole = "word  " + shown
    assert length == min(len(whole), capacity - 1)
    assert ffi.string(room).decode() == whole[:capacity - 1]
    assert ffi.buffer(room)[capacity:capacity + 8] == b"\xff" * 8


def test_the_table_of_the_package_is_the_core_s(root):
    from pyalloc import _options

    text = (root / "csrc/base/options.h").read_text()
    listed = re.findall(r'^    X\(\w+, "(PYALLOC_\w+)"', text, re.M)
    listed += ["PYALLOC_DEBUG=" + key for key in re.findall(r'^    X\((\w+), \d+, "', text, re.M)]
    assert len(listed) >= 8 and [one.name for one in _options.options()] == listed
    assert not pyalloc.lib.pa_option(-1, pyalloc.ffi.new("pa_option_info *"))
