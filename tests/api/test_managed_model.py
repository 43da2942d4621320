"""Random graphs against a reachability oracle in Python."""

import gc

import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

import pyalloc
from pyalloc import Ref, Struct, int64

MODES = ("serial", "parallel", "concurrent-1.5", "concurrent-1.6", "concurrent")


class Node(Struct):
    first: Ref
    second: Ref["Node"]
    key: int64


class Wide(Node):
    third: Ref
    extra: int64


FIELDS = {"Node": ("first", "second"), "Wide": ("first", "second", "third"), "RefArray": ()}


class Graphs(RuleBasedStateMachine):
    """The model: number -> (class, edges); held: numbers that Python refers to."""

    numbers = Bundle("numbers")

    def __init__(self):
        super().__init__()
        self.edges = {}
        self.kinds = {}
        self.weak = {}
        self.held = {}
        self.cleaned = set()
        self.next = 0

    def adopt(self, one, kind, edges):
        number = self.next
        self.next += 1
        self.kinds[number], self.edges[number] = kind, edges
        self.weak[number], self.held[number] = pyalloc.weakref(one), one
        pyalloc.add_cleanup(one, self.cleaned.add, number)
        return number

    def reachable(self):
        todo, seen = list(self.held), set()
        while todo:
            number = todo.pop()
            if number is not None and number not in seen:
                seen.add(number)
                todo.extend(self.edges[number].values())
        return seen

    @rule(target=numbers, wide=st.booleans())
    def make(self, wide):
        number = self.next
        kind = Wide if wide else Node
        return self.adopt(kind(key=number), kind.__name__, dict.fromkeys(FIELDS[kind.__name__]))

    @rule(target=numbers, size=st.integers(0, 40))
    def make_array(self, size):
        return self.adopt(pyalloc.ref_array(size), "RefArray", dict.fromkeys(range(size)))

    @rule(target=numbers, a=numbers, b=numbers)
    def make_with(self, a, b):
        if a not in self.held or b not in self.held or self.kinds[b] == "RefArray":
            return self.make(False)
        number = self.next
        return self.adopt(Node(first=self.held[a], second=self.held[b], key=number), "Node", {"first": a, "second": b})

    @rule(a=numbers, b=numbers, which=st.integers(0, 100))
    def connect(self, a, b, which):
        if a not in self.held or b not in self.held or not self.edges[a]:
            return
        name = sorted(self.edges[a])[which % len(self.edges[a])]
        if isinstance(name, int):
            self.held[a][name] = self.held[b]
        elif name == "second" and self.kinds[b] == "RefArray":
            with pytest.raises(TypeError):
                self.held[a].second = self.held[b]
            return
        else:
            setattr(self.held[a], name, self.held[b])
        self.edges[a][name] = b

    @rule(a=numbers, which=st.integers(0, 100))
    def disconnect(self, a, which):
        if a in self.held and self.edges[a]:
            name = sorted(self.edges[a])[which % len(self.edges[a])]
            if isinstance(name, int):
                self.held[a][name] = None
            else:
                setattr(self.held[a], name, None)
            self.edges[a][name] = None

    @rule(number=consumes(numbers))
    def drop(self, number):
        self.held.pop(number, None)

    @rule(number=numbers)
    def fetch_again(self, number):
        """From a weak reference back to a root, if something still leads there."""
        one = self.weak[number]()
        if number in self.reachable():
            assert one is not None
        if one is not None:
            self.held[number] = one

    @rule(mode=st.sampled_from(MODES))
    def change_mode(self, mode):
        pyalloc.set_gc_mode(mode)

    @rule(percent=st.sampled_from([1, 100, 1000, -1]))
    def change_percent(self, percent):
        pyalloc.set_gc_percent(percent)

    @rule(count=st.integers(1, 500))
    def garbage(self, count):
        for _ in range(count):
            Wide(first=Node())

    @rule()
    def collect(self):
        gc.collect()
        pyalloc.collect()
        alive = self.reachable()
        for number in list(self.weak):
            one = self.weak[number]()
            assert (one is not None) == (number in alive), number
            if one is None:
                assert number in self.cleaned
                del self.weak[number]
                self.weak[number] = lambda: None
            else:
                self.check_contents(number, one)

    def check_contents(self, number, one):
        assert number not in self.cleaned and type(one).__name__ == self.kinds[number]
        if self.kinds[number] != "RefArray":
            assert one.key == number
        for name, target in self.edges[number].items():
            value = one[name] if isinstance(name, int) else getattr(one, name)
            assert (value is None) == (target is None)
            if target is not None:
                assert value == self.weak[target]()

    @invariant()
    def roots_are_what_they_were(self):
        for number, one in self.held.items():
            if self.kinds[number] != "RefArray":
                assert one.key == number

    def teardown(self):
        self.held.clear()
        pyalloc.set_gc_mode("concurrent")
        pyalloc.set_gc_percent(100)
        pyalloc.collect()
        assert self.cleaned == set(range(self.next))


Graphs.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None,
                                    suppress_health_check=list(HealthCheck))
TestGraphs = Graphs.TestCase
