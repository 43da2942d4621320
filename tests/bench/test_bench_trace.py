"""The trace formats: raw to events, events to compact and back, compact to flat in C."""

import json
import struct
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyalloc._bench import trace
from pyalloc._bench.trace import ALIGNED, CALLOC, FREE, MALLOC, REALLOC, THREAD, Event

FLAT_HEADER, FLAT_OP, OP_ALIGN = struct.Struct("=8sQQ5Q"), struct.Struct("=II"), 6
MANY_BYTES = 8 * 1024 * 1024


@st.composite
def event_lists(draw):
    """Events that a recorder could have seen."""
    events, alive, births = [], [], 0
    size = st.one_of(st.integers(0, 200), st.integers(0, 2**32 - 1))
    for kind in draw(
        st.lists(st.sampled_from([MALLOC, MALLOC, CALLOC, ALIGNED, REALLOC, FREE, FREE, THREAD]))
    ):
        if kind in (MALLOC, CALLOC):
            events.append(Event(kind, births, draw(size)))
        elif kind == ALIGNED:
            events.append(Event(kind, births, draw(size), 1 << draw(st.integers(0, 31))))
        elif kind == THREAD:
            events.append(Event(kind, 0, 0, draw(st.integers(0, 4095))))
            continue
        elif alive:
            block = draw(st.sampled_from(alive))
            events.append(Event(kind, block, draw(size) if kind == REALLOC else 0))
            if kind == FREE:
                alive.remove(block)
            continue
        else:
            continue
        alive.append(births)
        births += 1
    return events


def flat_ops(events):
    """What kernels expand must write: (kind, slot, number) per operation, and the number of slots."""
    ops, slot_of, spare, slots = [], {}, [], 0
    for kind, block, size, detail in events:
        if kind == THREAD:
            continue
        if kind in (MALLOC, CALLOC, ALIGNED):
            if spare:
                slot_of[block] = spare.pop()
            else:
                slot_of[block] = slots
                slots += 1
            if kind == ALIGNED:
                ops.append((OP_ALIGN, slot_of[block], detail))
        ops.append((kind, slot_of[block], size))
        if kind == FREE:
            spare.append(slot_of.pop(block))
    return ops, slots


def read_flat(path):
    data = path.read_bytes()
    magic, n_ops, slots = FLAT_HEADER.unpack_from(data)[:3]
    assert magic == b"PAFLAT01"
    ops = [(word & 7, word >> 3, number) for word, number in FLAT_OP.iter_unpack(data[FLAT_HEADER.size :])]
    assert len(ops) == n_ops
    return ops, slots


def expand(kernels, folder, compact):
    (folder / "compact").write_bytes(compact)
    command = [kernels, "expand", "--trace", folder / "compact", "--output", folder / "flat"]
    return subprocess.run(command, capture_output=True, text=True)


@given(event_lists(), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
def test_round_trip(events, metadata):
    back = trace.decode(trace.encode(trace.Trace(events, metadata)))
    assert back.events == events
    summary = trace.summarize(events)
    assert back.metadata == {**metadata, **summary}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event_lists())
def test_c_expander_agrees_with_python(kernels, tmp_path, events):
    done = expand(kernels, tmp_path, trace.encode(trace.Trace(events, {})))
    assert done.returncode == 0, done.stderr
    assert read_flat(tmp_path / "flat") == flat_ops(events)


def test_files_round_trip(tmp_path):
    events = [Event(MALLOC, 0, 10), Event(THREAD, 0, 0, 3), Event(REALLOC, 0, 500), Event(FREE, 0)]
    path = tmp_path / "x.patrace.xz"
    assert trace.save(path, trace.Trace(events, {"name": "x"})) == path.stat().st_size
    assert trace.load(path).events == events
    assert trace.read_metadata(path)["counts"] == {
        "mallocs": 1,
        "callocs": 0,
        "aligned": 0,
        "reallocs": 1,
        "frees": 1,
    }
    assert trace.read_metadata(path)["peak_live_bytes"] == 500


@pytest.mark.parametrize(
    "events",
    [
        [Event(FREE, 0)],
        [Event(MALLOC, 0, 1), Event(FREE, 0), Event(FREE, 0)],
        [Event(MALLOC, 1, 1)],
        [Event(MALLOC, 0, 2**32)],
        [Event(ALIGNED, 0, 8, 24)],
        [Event(9, 0)],
    ],
)
def test_impossible_events_are_refused(events):
    with pytest.raises(trace.TraceError):
        trace.encode(trace.Trace(events, {}))


GOOD = trace.encode(trace.Trace([Event(MALLOC, 0, 300), Event(FREE, 0), Event(MALLOC, 1, 5)], {}))


def damaged():
    yield "empty", b""
    yield "magic", b"X" + GOOD[1:]
    yield "cut off", GOOD[:-1]
    yield "header only", GOOD[:64]
    yield "huge column", GOOD[:32] + struct.pack("<Q", 2**63) + GOOD[40:]
    yield "kinds", GOOD.replace(bytes([MALLOC, FREE, MALLOC]), bytes([MALLOC, 7, MALLOC]))
    yield "free first", GOOD.replace(bytes([MALLOC, FREE, MALLOC]), bytes([FREE, MALLOC, MALLOC]))
    yield "endless varint", GOOD[:-4] + b"\xff" * 4


@pytest.mark.parametrize("name, data", list(damaged()), ids=[name for name, _ in damaged()])
def test_damaged_traces_are_refused_by_both(kernels, tmp_path, name, data):
    assert data != GOOD
    with pytest.raises((trace.TraceError, StopIteration)):
        trace.decode(data)
    done = expand(kernels, tmp_path, data)
    assert done.returncode == 3 and "trace" in done.stderr


def raw(*events):
    return b"".join(
        struct.pack("=QQ", address << 16 | thread << 4 | kind, value)
        for kind, address, value, thread in events
    )


def test_raw_events_get_birth_numbers():
    data = raw(
        (1, 0x1000, 24, 0),
        (2, 0x2000, 64, 0),
        (7, 0x1000, 0, 1),
        (1, 0x1000, 8, 1),
        (5, 0x2000, 0, 1),
        (6, 0x3000, 128, 1),
        (3, 0, 4096, 0),
        (4, 0x8000, 100, 0),
        (7, 0x3000, 0, 0),
    )
    got = trace.read_raw(data + bytes(160))
    assert got.events == [
        Event(MALLOC, 0, 24),
        Event(CALLOC, 1, 64),
        Event(THREAD, 0, 0, 1),
        Event(FREE, 0),
        Event(MALLOC, 2, 8),
        Event(REALLOC, 1, 128),
        Event(THREAD, 0, 0, 0),
        Event(ALIGNED, 3, 100, 4096),
        Event(FREE, 1),
    ]
    assert got.metadata == {"unknown_frees": 0}


def test_raw_blocks_from_before_the_recording():
    got = trace.read_raw(raw((7, 0x10, 0, 0), (5, 0x20, 0, 0), (6, 0x30, 7, 0), (7, 0x30, 0, 0)))
    assert got.events == [Event(MALLOC, 0, 7), Event(FREE, 0)]
    assert got.metadata["unknown_frees"] == 2


def test_raw_address_in_use_twice_is_an_error():
    with pytest.raises(trace.TraceError, match="twice"):
        trace.read_raw(raw((1, 0x10, 1, 0), (1, 0x10, 1, 0)))


def test_shipped_traces():
    paths = trace.shipped()
    assert len(paths) >= 4
    assert sum(path.stat().st_size for path in paths) <= MANY_BYTES
    readme = (paths[0].parent / "README.md").read_text()
    for path in paths:
        metadata = trace.read_metadata(path)
        events = sum(metadata["counts"].values())
        assert 500_000 <= events <= 5_000_000
        assert metadata["name"] == trace.trace_name(path)
        assert f"`{metadata['name']}`" in readme and f"{events:,}" in readme
        assert not metadata["truncated"]


def test_damaged_file(tmp_path):
    path = tmp_path / "y.patrace.xz"
    path.write_bytes(trace.shipped()[0].read_bytes()[:1000])
    with pytest.raises(trace.TraceError, match="y.patrace"):
        trace.decompress(path)
    path.write_bytes(b"no xz at all")
    with pytest.raises(trace.TraceError, match="y.patrace"):
        trace.read_metadata(path)


def test_metadata_of_a_shipped_trace_is_true():
    path = next(p for p in trace.shipped() if trace.trace_name(p) == "sqlite-index")
    loaded = trace.load(path)
    assert {k: loaded.metadata[k] for k in trace.summarize([])} == trace.summarize(loaded.events)
    assert json.dumps(loaded.metadata)
