"""The doubly linked list of spans against a Python list."""

from hypothesis import given, settings
from hypothesis import strategies as st

from whitebox import ffi, lib


def spans_of(l):
    out = ffi.new("pa_xspan *[]", 100)
    count = lib.pa_xspanlist_spans(l, out, 100)
    return list(out[0:count])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["push", "push", "pop", "remove"]), st.integers(0, 100)), max_size=80))
def test_against_a_list(steps):
    l = lib.pa_xspanlist_new()
    off, on, made = [], [], []
    try:
        for name, n in steps:
            if name == "push":
                if not off:
                    off.append(lib.pa_xspan_new(0, 1))
                    made.append(off[-1])
                s = off.pop(n % len(off))
                lib.pa_xspanlist_push_back(l, s)
                on.append(s)
            elif name == "pop":
                expected = on.pop(0) if on else ffi.NULL
                assert lib.pa_xspanlist_pop_front(l) == expected
                if expected != ffi.NULL:
                    off.append(expected)
            elif on:
                s = on.pop(n % len(on))
                lib.pa_xspanlist_remove(l, s)
                off.append(s)
            assert spans_of(l) == on
    finally:
        for s in made:
            lib.pa_xspan_delete(s)
        lib.pa_xspanlist_delete(l)
