"""Allocation traces: raw recordings in, compact files out, and back.

The formats are described in ``traces/FORMAT.md``.  This module is the reference implementation: it encodes
(once, when a trace is recorded) and decodes (in tests).  A benchmark run does not decode in Python: it
decompresses with :func:`decompress` and lets ``kernels expand`` do the rest, in C.

An event is a tuple ``(kind, block, size, detail)``: *block* is the birth number, *size* the bytes
requested (0 for free and thread switch), *detail* the alignment (ALIGNED) or the thread number (THREAD).
"""

from __future__ import annotations

import json
import lzma
import struct
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Tuple, Union

MALLOC, CALLOC, ALIGNED, REALLOC, FREE, THREAD = range(6)
COUNT_NAMES = {MALLOC: "mallocs", CALLOC: "callocs", ALIGNED: "aligned", REALLOC: "reallocs", FREE: "frees"}
SUFFIX = ".patrace.xz"

_MAGIC = b"PATRACE1"
_HEADER = struct.Struct("<8s7Q")
_MAX_SIZE = 2**32 - 1
_LZMA_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 3, "lp": 0, "pb": 0}]

_RAW = struct.Struct("=QQ")
_RAW_MALLOC, _RAW_CALLOC, _RAW_ALIGN, _RAW_ALIGNED, _RAW_REALLOC_FROM, _RAW_REALLOC_TO, _RAW_FREE = range(
    1, 8
)


class TraceError(ValueError):
    """A trace that cannot be read, or events that cannot be written."""


class Event(NamedTuple):
    kind: int
    block: int
    size: int = 0
    detail: int = 0


class Trace(NamedTuple):
    """A whole trace in memory: its events and its metadata."""

    events: List[Event]
    metadata: Dict[str, Any]


def read_raw(data: Union[bytes, bytearray, memoryview]) -> Trace:
    """Turns what the recorder wrote into events with birth numbers instead of addresses.

    Metadata gets ``unknown_frees``: blocks that were freed or resized but never seen being allocated
    (such a resize counts as an allocation).  An address that is handed out twice without a free between
    raises :class:`TraceError`: the recorder's order would be wrong.
    """
    events: List[Event] = []
    alive: Dict[int, int] = {}
    births = unknown = 0
    thread = 0
    align = 0
    before = None
    usable = len(data) // _RAW.size * _RAW.size
    for word, value in _RAW.iter_unpack(memoryview(data)[:usable]):
        kind = word & 15
        if kind == 0:
            break
        if (word >> 4) & 0xFFF != thread:
            thread = (word >> 4) & 0xFFF
            events.append(Event(THREAD, 0, 0, thread))
        address = word >> 16
        if kind == _RAW_FREE:
            block = alive.pop(address, -1)
            if block < 0:
                unknown += 1
            else:
                events.append(Event(FREE, block))
        elif kind == _RAW_ALIGN:
            align = value
        elif kind == _RAW_REALLOC_FROM:
            before = alive.pop(address, -1)
        elif kind == _RAW_REALLOC_TO and before is not None and before >= 0:
            alive[address] = before
            events.append(Event(REALLOC, before, value))
            before = None
        elif kind in (_RAW_MALLOC, _RAW_CALLOC, _RAW_ALIGNED, _RAW_REALLOC_TO):
            if address in alive:
                raise TraceError(f"raw trace: block {address:#x} was handed out twice (event {len(events)})")
            if kind == _RAW_REALLOC_TO:
                unknown += 1
            alive[address] = births
            if kind == _RAW_ALIGNED:
                events.append(Event(ALIGNED, births, value, align))
            else:
                events.append(Event(CALLOC if kind == _RAW_CALLOC else MALLOC, births, value))
            births += 1
        else:
            raise TraceError(f"raw trace: unknown kind {kind}")
    return Trace(events, {"unknown_frees": unknown})


def summarize(events: Iterable[Event]) -> Dict[str, Any]:
    """Counts and peaks of a sequence of events, as they stand in the metadata."""
    counts = {name: 0 for name in COUNT_NAMES.values()}
    sizes: Dict[int, int] = {}
    live = peak = peak_blocks = total = 0
    threads = {0}
    for kind, block, size, detail in events:
        if kind == THREAD:
            threads.add(detail)
            continue
        counts[COUNT_NAMES[kind]] += 1
        if kind == FREE:
            live -= sizes.pop(block)
            continue
        live += size - sizes.get(block, 0)
        total += size
        sizes[block] = size
        peak = max(peak, live)
        peak_blocks = max(peak_blocks, len(sizes))
    return {
        "counts": counts,
        "threads": len(threads),
        "peak_live_bytes": peak,
        "peak_live_blocks": peak_blocks,
        "total_bytes": total,
    }


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def encode(trace: Trace) -> bytes:
    """The compact form, not yet compressed.  The metadata is completed with :func:`summarize`."""
    kinds, sizes, references = bytearray(), bytearray(), bytearray()
    births = last = 0
    alive = set()
    peak_blocks = 0
    for kind, block, size, detail in trace.events:
        if size > _MAX_SIZE:
            raise TraceError(f"a size of {size} bytes cannot be stored")
        if kind in (MALLOC, CALLOC, ALIGNED):
            if block != births:
                raise TraceError(f"allocation {births} is numbered {block}")
            births += 1
            alive.add(block)
            peak_blocks = max(peak_blocks, len(alive))
            if kind == ALIGNED:
                if detail <= 0 or detail & (detail - 1) or detail > 2**31:
                    raise TraceError(f"{detail} is no alignment")
                kinds.append(kind | (detail.bit_length() - 1) << 3)
            else:
                kinds.append(kind)
            _put_varint(sizes, size)
        elif kind in (REALLOC, FREE):
            if block not in alive:
                raise TraceError(f"block {block} is not alive")
            kinds.append(kind)
            _put_varint(references, _zigzag(block - last))
            last = block
            if kind == FREE:
                alive.discard(block)
            else:
                _put_varint(sizes, size)
        elif kind == THREAD:
            kinds.append(kind)
            _put_varint(references, detail)
        else:
            raise TraceError(f"unknown kind {kind}")
    metadata = dict(trace.metadata)
    metadata.update(summarize(trace.events))
    text = json.dumps(metadata, sort_keys=True).encode()
    header = _HEADER.pack(
        _MAGIC, len(kinds), peak_blocks, len(kinds), len(sizes), len(references), len(text), 0
    )
    return b"".join((header, text, kinds, sizes, references))


def _split(data: bytes) -> Tuple[int, int, Dict[str, Any], bytes, bytes, bytes]:
    if len(data) < _HEADER.size:
        raise TraceError("trace: too short")
    magic, events, slots, n_kinds, n_sizes, n_references, n_text, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise TraceError("trace: wrong magic")
    if len(data) < _HEADER.size + n_text + n_kinds + n_sizes + n_references or n_kinds != events:
        raise TraceError("trace: cut off")
    at = _HEADER.size
    parts = []
    for length in (n_text, n_kinds, n_sizes, n_references):
        parts.append(data[at : at + length])
        at += length
    try:
        metadata = json.loads(parts[0])
    except ValueError as error:
        raise TraceError(f"trace: bad metadata: {error}") from error
    return events, slots, metadata, parts[1], parts[2], parts[3]


def _varints(data: bytes, name: str) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            yield value
            value = shift = 0
    raise TraceError(f"trace: the column of {name} ends too early")


def decode(data: bytes) -> Trace:
    """Events and metadata of a compact trace (decompressed)."""
    _, _, metadata, kinds, size_bytes, reference_bytes = _split(data)
    sizes, references = _varints(size_bytes, "sizes"), _varints(reference_bytes, "references")
    events: List[Event] = []
    births = last = 0
    for byte in kinds:
        kind = byte & 7
        if kind in (MALLOC, CALLOC):
            events.append(Event(kind, births, next(sizes)))
            births += 1
        elif kind == ALIGNED:
            events.append(Event(kind, births, next(sizes), 1 << (byte >> 3)))
            births += 1
        elif kind in (REALLOC, FREE):
            code = next(references)
            last += (code >> 1) ^ -(code & 1)
            if not 0 <= last < births:
                raise TraceError(f"trace: no block {last}")
            events.append(Event(kind, last, next(sizes) if kind == REALLOC else 0))
        elif kind == THREAD:
            events.append(Event(kind, 0, 0, next(references)))
        else:
            raise TraceError(f"trace: unknown kind {kind}")
    return Trace(events, metadata)


def compress(data: bytes) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_XZ, filters=_LZMA_FILTERS)


def decompress(path: Union[str, Path]) -> bytes:
    """The compact form out of a ``.patrace.xz`` file; :class:`TraceError` if it is damaged."""
    try:
        data = lzma.decompress(Path(path).read_bytes(), format=lzma.FORMAT_XZ)
    except (lzma.LZMAError, EOFError) as error:
        raise TraceError(f"{path}: {error}") from error
    return data


def read_metadata(path: Union[str, Path]) -> Dict[str, Any]:
    """The metadata of a shipped trace, reading no more than the beginning of the file."""
    with lzma.open(path, "rb") as stream:
        try:
            header = stream.read(_HEADER.size)
            if len(header) < _HEADER.size or header[:8] != _MAGIC:
                raise TraceError(f"{path}: not a trace")
            return dict(json.loads(stream.read(_HEADER.unpack(header)[6])))
        except (lzma.LZMAError, EOFError, ValueError) as error:
            raise TraceError(f"{path}: {error}") from error


def save(path: Union[str, Path], trace: Trace) -> int:
    """Writes a compact, compressed trace; returns its size in bytes."""
    packed = compress(encode(trace))
    Path(path).write_bytes(packed)
    return len(packed)


def load(path: Union[str, Path]) -> Trace:
    return decode(decompress(path))


def shipped() -> List[Path]:
    """The traces that come with the package, by name."""
    return sorted((Path(__file__).parent / "traces").glob("*" + SUFFIX))


def trace_name(path: Union[str, Path]) -> str:
    return Path(path).name[: -len(SUFFIX)]
