"""pa_heap_check finds what is planted, and names it: a check that cannot fail checks nothing."""

import re

import pytest

from whitebox import ffi, lib

# plant -> the invariant that must be named
PLANTS = {
    "limit_moved": "span: limit is not the end of the last element",
    "tail_behind_limit": "span: tail outside the span",
    "free_list_interior": "span: free list leaves the span, holds a non-element or loops",
    "free_list_loops": "span: free list leaves the span, holds a non-element or loops",
    "free_list_leaves": "span: free list leaves the span, holds a non-element or loops",
    "remote_interior": "span: remote list leaves the span, holds a non-element or loops",
    "out_and_listed": "span: a block of a page that is out is on a list",
    "aside_and_hollow": "span: a page is both aside and hollow",
    "out_not_carved": "span: a page that is out is not carved",
    "large_with_out": "span: a large or cached one has a page that is out",
    "hollow_bytes": "mheap: hollow pages are miscounted",
    "live_too_high": "span: live + free != carved",
    "live_too_low": "span: live + free != carved",
    "owned_and_unowned": "span: owned, but marked abandoned or listed",
    "owned_and_listed": "span: owned, but marked abandoned or listed",
    "nobodys": "span: without owner, neither abandoned nor listed",
    "listed_and_abandoned": "span: without owner, neither abandoned nor listed",
    "abandoned_not_full": "span: abandoned, but not full",
    "sampled_among_others": "span: a sampled block is not alone, or its free would be taken for another's",
    "page_lost_its_span": "page table: a page of a span does not point at it",
    "page_of_another_span": "page table: a page of a span does not point at it",
    "class_out_of_range": "span: class out of range",
    "large_live_twice": "span: a large one in use must hold one element",
    "large_tail": "span: a large one in use must hold one element",
    "cached_of_a_class": "span: cached, but of a small class or owned: frees into it would pass",
    "cached_owned": "span: cached, but of a small class or owned: frees into it would pass",
    "listed_of_another_kind": "mcentral: a span of another class or kind on the list",
    "listed_with_owner": "mcentral: a listed span has an owner",
    "list_links": "mcentral: list links disagree",
    "list_count": "mcentral: count of listed spans is wrong",
    "lists_count": "mcentral: count of spans on all lists is wrong",
    "leavings_of_a_class": "leavings: count of a class is wrong",
    "leavings_count": "leavings: count of all is wrong",
    "current_of_another_class": "mcache: current span of another class or owner, or without its bias",
    "partial_is_current": "mcache: partial span of another class or owner, empty, or current",
    "direct_entry": "mcache: direct table disagrees with current spans",
    "bin_pages": "mcache: count of binned pages is wrong",
    "binned_in_use": "mcache: a bin holds a span that is not cached or of another bin",
    "inuse_pages": "mheap: pages in spans are miscounted",
    "lost_page": "mheap: pages were lost or counted twice",
    "page_counter": "pages: free pages are miscounted",
}


def plants():
    names = []
    while (name := lib.pa_xplant_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_corruption_is_named(name):
    message = ffi.new("char[]", 200)
    result = lib.pa_xplant(plants().index(name), message, 200)
    said = ffi.string(message).decode()
    assert result == 1, said
    assert said == PLANTS[name]
    assert lib.pa_heap_check(message, 200) == 0, ffi.string(message)


def test_all_plants_are_expected():
    assert plants() and set(plants()) == set(PLANTS)


def test_all_invariants_are_planted(root):
    """A new invariant in the check needs a plant here; those of the page allocator have tests in unit/pages."""
    text = "".join((root / "csrc" / path).read_text() for path in ("heap/check.c", "api/pyalloc.c"))
    named = set(re.findall(r'"((?:span|mcentral|mcache|mheap|page table): [^"]+)"', text))
    assert len(named) > 20
    assert named - set(PLANTS.values()) == set()


def test_messages_are_cut_and_optional():
    message = ffi.new("char[]", b"x" * 20)
    assert lib.pa_heap_check(ffi.NULL, 0) == 0
    assert lib.pa_heap_check(message, 20) == 0 and ffi.string(message) == b""
    assert lib.pa_xplant(plants().index("inuse_pages"), message, 10) == 1
    assert ffi.string(message) == PLANTS["inuse_pages"].encode()[:9]
