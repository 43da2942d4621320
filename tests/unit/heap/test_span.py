"""Spans: format, the block test, carving, remote lists, allocation bits - on headers outside any page table."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whitebox import ffi, lib

PAGE = 8192
CLASSES = range(1, 67)
FAKE = 0x7000_0000_0000  # nothing lies there: whoever touches the span's memory faults


def object_bytes(size_class):
    return lib.pa_export_class(size_class).object_bytes


def page_counts(size_class):
    row = lib.pa_export_class(size_class)
    return sorted({row.span_pages, 2 * row.span_pages, row.cap_pages, row.cap_pages - 1 or 1, row.span_pages + 1})


@contextlib.contextmanager
def span(npages, base=FAKE):
    s = lib.pa_xspan_new(base, npages)
    yield s
    lib.pa_xspan_delete(s)


@contextlib.contextmanager
def backed_span(size_class, npages):
    memory = lib.pa_xvm_map((npages + 1) * PAGE)
    base = -(-int(ffi.cast("uintptr_t", memory)) // PAGE) * PAGE
    with span(npages, base) as s:
        lib.pa_xspan_format_explicit(s, size_class)
        yield s
    lib.pa_xvm_unmap(int(ffi.cast("uintptr_t", memory)), (npages + 1) * PAGE)


def take_free(s, capacity=9000):
    out = ffi.new("uintptr_t[]", capacity)
    count = lib.pa_xspan_take_free(s, out, capacity)
    assert count <= capacity
    return list(out[0:count])


def test_the_header_is_three_cache_lines():
    assert lib.pa_xspan_header_bytes() == 192


@pytest.mark.parametrize("size_class", CLASSES)
def test_format(size_class):
    size = object_bytes(size_class)
    for npages in page_counts(size_class):
        with span(npages) as s:
            lib.pa_xspan_set_live(s, 99)
            lib.pa_xspan_format_explicit(s, size_class)
            v = lib.pa_xspan_look(s)
            assert (v.base, v.tail, v.free, v.remote, v.live) == (FAKE, FAKE, 0, 0, 0)
            assert v.limit == FAKE + npages * PAGE // size * size
            assert (v.size_class, v.kind, v.listed, v.npages) == (size_class, 0, 0, npages)
            assert v.magic == -(-(1 << 64) // size)


@pytest.mark.parametrize("npages", [1, 5, 512, 100000])
def test_format_large(npages):
    with span(npages) as s:
        lib.pa_xspan_format_large(s)
        v = lib.pa_xspan_look(s)
        assert (v.size_class, v.magic, v.live, v.free, v.remote) == (0, 1, 1, 0, 0)
        assert v.limit == FAKE + npages * PAGE
        lib.pa_xspan_set_tail(s, v.limit)
        inside = [FAKE + i for i in (1, 8, 16, 4096, PAGE, npages * PAGE - 8)]
        assert lib.pa_xspan_is_element(s, FAKE) and lib.pa_xspan_is_carved_element(s, FAKE)
        assert not any(lib.pa_xspan_is_element(s, p) or lib.pa_xspan_is_carved_element(s, p) for p in inside)
        lib.pa_xspan_set_tail(s, 0)  # nothing carved: nothing in it is a block
        assert not lib.pa_xspan_is_carved_element(s, FAKE)


@pytest.mark.parametrize("size_class", CLASSES)
def test_the_block_test_at_every_offset(size_class):
    """One multiplication against division, uncarved, half carved and carved."""
    size = object_bytes(size_class)
    for npages in page_counts(size_class):
        with span(npages) as s:
            lib.pa_xspan_format_explicit(s, size_class)
            count = npages * PAGE // size
            for carved in sorted({0, 1, count // 2, count}):
                lib.pa_xspan_set_tail(s, FAKE + carved * size)
                assert lib.pa_xspan_first_wrong_offset(s) == npages * PAGE


def test_a_span_too_short_for_its_class_has_no_element():
    with span(3) as s:
        lib.pa_xspan_format_explicit(s, 66)  # 32 KiB objects, 24 KiB
        assert lib.pa_xspan_look(s).limit == FAKE
        assert not lib.pa_xspan_is_element(s, FAKE)


@pytest.mark.parametrize("size_class", CLASSES)
def test_carving_hands_out_every_element_once_in_order(size_class):
    size = object_bytes(size_class)
    for npages in page_counts(size_class):
        with backed_span(size_class, npages) as s:
            base, count = lib.pa_xspan_look(s).base, npages * PAGE // size
            step = max(4096, npages * PAGE // 8) if size <= 1024 else 4096
            blocks = []
            while lib.pa_xspan_carve(s):
                piece = take_free(s)
                assert piece, "a carve that succeeds gives at least one block"
                assert len(piece) == min(max(1, step // size), count - len(blocks))
                blocks += piece
                assert lib.pa_xspan_look(s).tail == base + len(blocks) * size
            assert blocks == [base + i * size for i in range(count)]
            assert lib.pa_xspan_look(s).tail == lib.pa_xspan_look(s).limit
            assert not lib.pa_xspan_carve(s) and not take_free(s)


def test_carving_touches_only_what_it_hands_out():
    npages = 8
    with backed_span(2, npages) as s:  # 16-byte objects
        base = lib.pa_xspan_look(s).base
        memory = ffi.buffer(ffi.cast("char *", base), npages * PAGE)
        memory[:] = b"\xee" * len(memory)
        assert lib.pa_xspan_carve(s)
        tail = lib.pa_xspan_look(s).tail
        assert bytes(memory[tail - base :]) == b"\xee" * (npages * PAGE - (tail - base))


# ---- Remote frees, one thread


def word(p):
    return int(ffi.cast("uintptr_t *", p)[0])


@pytest.mark.parametrize("owned", [True, False])
def test_push_and_collect(owned):
    with backed_span(10, 1) as s:
        while lib.pa_xspan_carve(s):
            blocks = take_free(s)
        size, v = object_bytes(10), lib.pa_xspan_look(s)
        blocks = list(range(v.base, v.limit, size))
        lib.pa_xspan_set_live(s, len(blocks))
        if not owned:
            assert lib.pa_xspan_abandon(s)
            assert lib.pa_xspan_look(s).remote == 1  # the unowned bit
        claims = [lib.pa_xspan_push_remote(s, p, p) for p in blocks[:3]]
        assert claims == [not owned, False, False]
        ffi.cast("uintptr_t *", blocks[4])[0] = blocks[5]  # two at once
        assert not lib.pa_xspan_push_remote(s, blocks[4], blocks[5])
        assert lib.pa_xspan_look(s).remote == blocks[4]
        assert lib.pa_xspan_collect_remote(s) == 5
        assert lib.pa_xspan_look(s).live == len(blocks) - 5
        assert lib.pa_xspan_look(s).remote == 0
        assert sorted(take_free(s)) == sorted(blocks[:3] + blocks[4:6])
        assert lib.pa_xspan_collect_remote(s) == 0


def test_abandon_fails_when_a_push_came_first():
    with backed_span(10, 1) as s:
        while lib.pa_xspan_carve(s):
            take_free(s)
        v = lib.pa_xspan_look(s)
        lib.pa_xspan_set_live(s, (v.limit - v.base) // object_bytes(10))
        lib.pa_xspan_push_remote(s, v.base, v.base)
        assert not lib.pa_xspan_abandon(s)
        assert take_free(s) == [v.base] and lib.pa_xspan_look(s).remote == 0


# ---- Allocation bits of managed spans


def is_free(words, i):
    return not words[i // 64] >> (i % 64) & 1


def oracle(words, nelems, at, most):
    """First and length of the next window from slot `at` on: free slots without a gap, within a group of 64."""
    first = next((i for i in range(at, nelems) if is_free(words, i)), nelems)
    end = first
    while end < min(nelems, first + most, first // 64 * 64 + 64) and is_free(words, end):
        end += 1
    return first, end - first


def open_window(s, most):
    first = ffi.new("uint32_t *")
    n = lib.pa_xspan_open_window(s, most, first)
    return first[0], n


@contextlib.contextmanager
def managed_span(words, nelems, free_idx=0):
    bits = ffi.new("uint64_t[]", words)
    with span(1) as s:
        lib.pa_xspan_format_explicit(s, 2)  # 16-byte slots
        lib.pa_xspan_set_bits(s, bits, nelems, free_idx)
        yield s


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_windows_against_an_oracle(data):
    nelems = data.draw(st.integers(1, 300))
    sparse = st.one_of(
        st.just(0),
        st.just(2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 63).map(lambda i: 1 << i),
        st.integers(0, 63).map(lambda i: 2**64 - 1 - (1 << i)),
    )
    words = data.draw(st.lists(sparse, min_size=-(-nelems // 64), max_size=-(-nelems // 64)))
    at = data.draw(st.integers(0, (nelems - 1) // 64)) * 64
    handed_out = 0
    with managed_span(words, nelems, at) as s:
        while True:
            most = data.draw(st.integers(1, 70))
            first, n = open_window(s, most)
            assert n == oracle(words, nelems, at, most)[1]
            if n == 0:
                break
            assert first == oracle(words, nelems, at, most)[0]
            used = data.draw(st.integers(0, n))
            lib.pa_xspan_hand_out(s, used)
            handed_out += used
            assert lib.pa_xspan_handed_out_count(s) == handed_out
            lib.pa_xspan_close_window(s)
            assert lib.pa_xspan_handed_out_count(s) == handed_out
            at = first + used if used < n else first + n
            assert lib.pa_xspan_look(s).free_idx == at
            if used == 0:  # the same again, this time all of it
                assert open_window(s, most) == (first, n)
                lib.pa_xspan_hand_out(s, n)
                handed_out += n
                at = first + n
        assert lib.pa_xspan_look(s).free_idx == nelems
        assert open_window(s, 64)[1] == 0  # and stays there


@pytest.mark.parametrize("nelems", [1, 63, 64, 65, 127, 128, 129, 512])
def test_all_free_and_all_taken(nelems):
    words = -(-nelems // 64)
    with managed_span([0] * words, nelems) as s:
        found = []
        while (window := open_window(s, 64))[1]:
            found += range(window[0], sum(window))
            lib.pa_xspan_hand_out(s, window[1])
        assert found == list(range(nelems))
    with managed_span([2**64 - 1] * words, nelems) as s:
        assert open_window(s, 64)[1] == 0
