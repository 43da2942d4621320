"""Struct classes: layout, construction, attributes, errors, identity, subclassing."""

import copy
import gc
import math
import pickle
import sys
import typing
import weakref

import pytest

import pyalloc
from pyalloc import Ref, Struct, bool_, float32, float64, int8, int16, int32, int64, uint8, uint16, uint32, uint64


class Node(Struct):
    left: Ref
    right: Ref["Node"]
    key: int64


class Scalars(Struct):
    i8: int8
    u8: uint8
    i16: int16
    u16: uint16
    i32: int32
    u32: uint32
    i64: int64
    u64: uint64
    f32: float32
    f64: float64
    yes: bool_


RANGES = {"i8": (-2**7, 2**7 - 1), "u8": (0, 2**8 - 1), "i16": (-2**15, 2**15 - 1), "u16": (0, 2**16 - 1),
          "i32": (-2**31, 2**31 - 1), "u32": (0, 2**32 - 1), "i64": (-2**63, 2**63 - 1), "u64": (0, 2**64 - 1)}


# ---- Layout


def test_offsets_are_naturally_aligned():
    assert {name: field.offset for name, field in Node.__fields__.items()} == {"left": 0, "right": 8, "key": 16}
    offsets = {name: field.offset for name, field in Scalars.__fields__.items()}
    assert offsets == {"i8": 0, "u8": 1, "i16": 2, "u16": 4, "i32": 8, "u32": 12, "i64": 16, "u64": 24, "f32": 32,
                       "f64": 40, "yes": 48}
    for field in Scalars.__fields__.values():
        assert field.offset % field.nbytes == 0
    assert Node.__match_args__ == ("left", "right", "key")


def test_fields_describe_themselves():
    field = Node.key
    assert (field.name, field.type, field.nbytes, field.offset, field.target) == ("key", "int64", 8, 16, None)
    assert field.__objclass__ is Node and field.__name__ == "key"
    assert Node.right.target is Node and Node.left.target is pyalloc.Managed and Node.left.type == "Ref"
    assert repr(field) == "<field 'key' (int64) at byte 16 of 'Node'>"
    with pytest.raises(TypeError):
        Node.__fields__["key"] = None


def test_sizes(run_python):
    """The first seven classes that gain from it have no word for their class."""
    script = """
import sys, pyalloc
classes = [type(pyalloc.Struct)(f"C{i}", (pyalloc.Struct,), {"__annotations__": {
    "left": pyalloc.Ref, "right": pyalloc.Ref}}) for i in range(9)]
reference = pyalloc.Managed.__basicsize__
print([sys.getsizeof(cls()) - reference for cls in classes])
table = pyalloc.ref_array([cls() for cls in classes for _ in range(100)])
for i in range(900):
    table[i].left, table[i].right = table[(i * 7) % 900], table[(i * 11) % 900]
for mode in ("serial", "parallel", "concurrent-1.5", "concurrent-1.6", "concurrent"):
    pyalloc.set_gc_mode(mode)
    for _ in range(3):
        weaks = [pyalloc.weakref(one.right) for one in table] + [pyalloc.weakref(cls(left=table)) for cls in classes]
        pyalloc.collect()
        for i, one in enumerate(table):
            assert type(one) is classes[i // 100] and one.left == table[(i * 7) % 900]
            assert weaks[i]() == one.right and type(weaks[i]()) is type(table[(i * 11) % 900]) and one in table
        assert [weak() for weak in weaks[900:]] == [None] * 9
seen = []
for i, cls in enumerate(classes):
    pyalloc.add_cleanup(cls(), seen.append, i)
pyalloc.collect()
assert sorted(seen) == list(range(9))
class Sub(classes[0]):
    extra: pyalloc.Ref
class Subsub(classes[8]):
    extra: pyalloc.Ref
for cls in (Sub, Subsub):
    one = cls(extra=table, left=table[3])
    pyalloc.collect()
    assert one.extra == table and one.left == table[3] and one.right is None and cls.extra.offset == 16
"""
    assert run_python("-c", script).stdout.split("\n")[0] == str([16] * 7 + [32] * 2)


# ---- Construction


def test_defaults_are_zero_and_none():
    node = Node()
    assert node.left is None and node.right is None and node.key == 0
    blank = Scalars()
    for name in RANGES:
        assert getattr(blank, name) == 0
    assert blank.f64 == 0.0 and blank.yes is False


def test_keywords_positions_and_both():
    a, b = Node(key=1), Node(key=2)
    for node in (Node(left=a, right=b, key=3), Node(a, b, 3), Node(a, key=3, right=b),
                 Node(**{"key": 3}, right=b, left=a)):
        assert node.left == a and node.right == b and node.key == 3
    name = "".join(["k", "ey"])  # not interned
    assert Node(**{name: 9}).key == 9


def test_many_fields():
    cls = type(Struct)("Wide", (Struct,), {"__annotations__": {f"f{i}": int32 for i in range(100)}})
    wide = cls(**{f"f{i}": i for i in range(100)})
    assert [getattr(wide, f"f{i}") for i in range(100)] == list(range(100))
    assert cls(*range(100)).f99 == 99
    with pytest.raises(TypeError, match="no field type"):
        type(Struct)("Bad", (Struct,), {"__annotations__": {"x": int}})


@pytest.mark.parametrize("call, message", [
    (lambda: Node(color=1), r"Node\(\) got an unexpected keyword argument 'color'"),
    (lambda: Node(None, None, 1, 2), "takes 3 positional arguments, its fields, but 4 were given"),
    (lambda: Node(None, left=None), "multiple values for field 'left'"),
    (lambda: Node(left=5), "Node.left must be a managed object or None, not 'int'"),
    (lambda: Node(right=Scalars()), "Node.right must be a Node or None, not 'Scalars'"),
    (lambda: Node(right=pyalloc.ref_array(1)), "Node.right must be a Node or None, not 'pyalloc.RefArray'"),
    (lambda: Node(key="5"), "Node.key is int64 and takes an int, not 'str'"),
    (lambda: Node(key=5.0), "Node.key is int64 and takes an int, not 'float'"),
    (lambda: Scalars(f64="1"), "Scalars.f64 is float64 and takes a number, not 'str'"),
    (lambda: Scalars(yes=1), "Scalars.yes is bool_ and takes True or False, not 'int'"),
    (lambda: Struct(), "subclass Struct"),
    (lambda: pyalloc.Managed(), "cannot create"),
    (lambda: pyalloc.RefArray(), "cannot create"),
    (lambda: object.__new__(Node), "not safe"),
    (lambda: object.__new__(pyalloc.ManagedBytes), "not safe"),
    (lambda: Struct.__new__(int), "not a subtype"),
])
def test_errors(call, message):
    with pytest.raises(TypeError, match=message):
        call()


# ---- Scalars


@pytest.mark.parametrize("name", RANGES)
def test_integers_keep_their_range(name):
    low, high = RANGES[name]
    one = Scalars()
    for value in {low, high, 0, 1, high // 2, low // 2}:
        setattr(one, name, value)
        assert getattr(one, name) == value == getattr(Scalars(**{name: value}), name)
    setattr(one, name, 7)
    for value in (low - 1, high + 1, 2**100, -(2**100)):
        with pytest.raises(OverflowError, match=f"Scalars.{name}: .* does not fit {Scalars.__fields__[name].type}"):
            setattr(one, name, value)
        with pytest.raises(OverflowError):
            Scalars(**{name: value})
    assert getattr(one, name) == 7
    neighbours = {other: getattr(one, other) for other in Scalars.__fields__ if other != name}
    assert not any(neighbours.values())


def test_floats_and_bool():
    one = Scalars(f32=0.5, f64=0.1, yes=True)
    assert (one.f32, one.f64, one.yes) == (0.5, 0.1, True)
    one.f64 = math.inf
    one.f32 = -math.inf
    assert one.f64 == math.inf and one.f32 == -math.inf
    one.f64 = one.f32 = math.nan
    assert math.isnan(one.f64) and math.isnan(one.f32)
    one.f64 = 3
    assert one.f64 == 3.0 and isinstance(one.f64, float)
    for name in ("f32", "f64"):
        with pytest.raises(OverflowError):
            setattr(one, name, 10**400)
    with pytest.raises(OverflowError):
        one.f32 = 1e300
    one.yes = False
    assert one.yes is False


def test_index_and_float_methods_are_used_and_their_errors_kept():
    numpy = pytest.importorskip("numpy")
    assert Node(key=numpy.int32(7)).key == 7 and Scalars(f64=numpy.float32(0.5)).f64 == 0.5

    class Bad:
        def __index__(self):
            raise KeyError("mine")

        __float__ = __index__

    with pytest.raises(KeyError):
        Node(key=Bad())
    with pytest.raises(KeyError):
        Scalars().f64 = Bad()


def test_conversion_may_run_anything():
    node = Node(key=1)

    class Evil:
        def __index__(self):
            for _ in range(100):
                Node(left=Node())
            pyalloc.collect()
            return 7

    made = Node(left=Node(key=4), right=Node(key=5), key=Evil())
    assert made.left.key == 4 and made.right.key == 5 and made.key == 7
    node.key = Evil()
    assert node.key == 7


# ---- Attributes


def test_get_set_and_cycles():
    a, b = Node(key=1), Node(key=2)
    a.left, a.right, b.right = b, a, a
    assert a.left.right.left == b and a.right.right.right.key == 1
    a.left = None
    assert a.left is None
    a.right = None
    pyalloc.collect()
    assert b.right == a and b.right.key == 1


def test_attributes_that_do_not_exist():
    node = Node()
    with pytest.raises(AttributeError):
        node.color = 1
    with pytest.raises(AttributeError):
        node.color
    with pytest.raises(TypeError, match="cannot be deleted: assign None"):
        del node.left
    with pytest.raises(TypeError, match="cannot be deleted: assign 0"):
        del node.key
    assert not hasattr(node, "__dict__")


def test_descriptors_refuse_other_objects():
    class Small(Struct):
        a: int8

    small = Small()
    for wrong in (small, 5, pyalloc.ref_array(3), pyalloc.managed_bytes(3)):
        with pytest.raises(TypeError, match="does not apply"):
            Node.key.__get__(wrong, type(wrong))
        with pytest.raises(TypeError, match="does not apply"):
            Node.key.__set__(wrong, 5)
    for setter in (lambda: setattr(small, "__class__", Node), lambda: object.__setattr__(small, "__class__", Node),
                   lambda: object.__dict__["__class__"].__set__(small, Node)):
        try:
            setter()
        except TypeError:
            pass
        with pytest.raises((TypeError, AttributeError)):
            small.key
    assert Small.a.__get__(small) == 0


def test_changed_bases_do_not_reach_memory():
    class A(Struct):
        a: int8

    class B(Struct):
        b: int64
        c: int64

    class C(A):
        pass

    one = C(a=5)
    try:
        C.__bases__ = (B,)
    except TypeError:
        pass
    with pytest.raises((TypeError, AttributeError)):
        one.c
    assert A.a.__get__(one) == 5


# ---- Identity


def test_equality_and_hash_are_by_address():
    parent = Node(left=Node(key=5))
    one, two = parent.left, parent.left
    assert one == two and hash(one) == hash(two) and not one != two and one.address == two.address
    assert one != parent and one != 5 and (one == 5) is False
    assert {one: "x"}[two] == "x" and len({one, two, parent}) == 2
    with pytest.raises(TypeError):
        one < two


def test_the_class_comes_back():
    class Special(Node):
        extra: int32

    parent = Node(left=Special(extra=5), right=Special(extra=6))
    assert type(parent.left) is Special and parent.right.extra == 6 and isinstance(parent.right, Node)
    parent.left = pyalloc.ref_array(2)
    assert type(parent.left) is pyalloc.RefArray and len(parent.left) == 2
    parent.left = pyalloc.managed_bytes(b"abc")
    assert bytes(parent.left) == b"abc"
    assert parent.__class__ is Node


def test_repr_does_not_follow_cycles():
    node = Node(key=5)
    node.left = node
    text = repr(node)
    assert text == f"<Node at {node.address:#x}: left=<Node at {node.address:#x}>, right=None, key=5>"
    assert str(Scalars(f64=0.5)).startswith("<Scalars at 0x")


@pytest.mark.parametrize("make", [Node, lambda: pyalloc.ref_array(2), lambda: pyalloc.managed_bytes(2),
                                  lambda: pyalloc.weakref(Node())])
def test_no_pickle_and_no_copy(make):
    one = make()
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle or copy"):
            action(one)


def test_standard_weakrefs_follow_the_reference():
    node = Node()
    seen = []
    weak = weakref.ref(node, seen.append)
    assert weak() is node
    del node
    assert weak() is None and len(seen) == 1
    keyed = weakref.WeakKeyDictionary()
    node = Node()
    keyed[node] = 5
    assert keyed[node] == 5


def test_references_are_not_in_pythons_collector():
    assert not gc.is_tracked(Node()) and not gc.is_tracked(pyalloc.ref_array(5))


# ---- Classes


def test_subclass_appends_fields():
    class Wide(Node):
        weight: float64
        flag: bool_

    assert list(Wide.__fields__) == ["left", "right", "key", "weight", "flag"]
    assert Wide.__fields__["left"] is Node.__fields__["left"] and Wide.weight.offset == 24 and Wide.flag.offset == 32
    one = Wide(Node(key=3), None, 5, 0.5, True)
    assert (one.left.key, one.key, one.weight, one.flag) == (3, 5, 0.5, True)
    assert Node(right=one).right == one
    with pytest.raises(AttributeError):
        Node().weight


def test_methods_properties_and_class_attributes():
    class Point(Struct):
        x: float64
        y: float64
        unit: typing.ClassVar[str] = "m"

        @property
        def norm(self):
            return math.hypot(self.x, self.y)

        def moved(self, dx, dy):
            return type(self)(self.x + dx, self.y + dy)

        @classmethod
        def origin(cls):
            return cls()

        def __eq__(self, other):
            return self.x == other.x and self.y == other.y

        __hash__ = None

    assert Point(3, 4).norm == 5 and Point(1, 1).moved(1, 2) == Point(2, 3) and Point.origin().x == 0
    assert Point.unit == "m" and list(Point.__fields__) == ["x", "y"]


def test_own_init_and_new():
    class Counted(Struct):
        key: int64
        twice: int64

        def __init__(self, key, *, bonus=0):
            super().__init__(key=key)
            self.twice = 2 * key + bonus

    class Sub(Counted):
        more: int8

        def __init__(self, key):
            super().__init__(key, bonus=1)
            self.more = 3

    class Made(Struct):
        key: int64

        def __new__(cls, key):
            made = super().__new__(cls)
            return made

    assert (Counted(5).twice, Counted(key=5, bonus=2).twice, Sub(4).twice, Sub(4).more) == (10, 12, 9, 3)
    assert Made(7).key == 7
    with pytest.raises(TypeError):
        Counted()
    Node.__init__(node := Node(), key=5)
    assert node.key == 5
    with pytest.raises(TypeError, match="unexpected keyword"):
        Node.__init__(node, nothing=5)
    with pytest.raises(TypeError, match="multiple values"):
        Node.__init__(node, None, left=None)

    class Late(Struct):
        key: int64

    Late.__init__ = lambda self, a, b: setattr(self, "key", a * b)
    assert Late(2, 3).key == 6
    del Late.__init__
    assert Late(key=4).key == 4


def test_init_subclass_and_class_keywords():
    seen = []

    class Base(Struct):
        def __init_subclass__(cls, tag=None, **kwargs):
            super().__init_subclass__(**kwargs)
            seen.append((cls.__name__, tag, list(cls.__fields__)))
            with pytest.raises(TypeError, match="not complete"):
                cls()

    class Derived(Base, tag="x"):
        key: int64

    assert seen == [("Derived", "x", ["key"])] and Derived(key=1).key == 1


def test_a_field_of_the_class_itself_during_init_subclass():
    class Base(Struct):
        def __init_subclass__(cls):
            assert cls.link.target is pyalloc.Managed or cls.link.target is None

    class Derived(Base):
        link: Ref["Derived"]

    assert Derived.link.target is Derived


def test_mixins_without_dict():
    class Mixin:
        __slots__ = ()

        def double(self):
            return 2 * self.key

    class Mixed(Node, Mixin):
        pass

    assert Mixed(key=4).double() == 8


class HasDict:
    pass


def test_class_errors():
    def slots():
        class Bad(Struct):
            __slots__ = ("a",)

    def default():
        class Bad(Struct):
            a: int64 = 5

    def twice():
        class Bad(Node):
            key: int64

    def wrong():
        class Bad(Struct):
            a: int

    def finaliser():
        class Bad(Struct):
            a: int64

            def __del__(self):
                pass

    def has_dict():
        class Bad(Struct, HasDict):
            a: int64

    def two_bases():
        class Bad(Node, Scalars):
            pass

    def text():
        class Bad(Struct):
            a: "nonsense["

    def subscript():
        class Bad(Struct):
            a: Ref[int]

    for make, message in ((slots, "not __slots__"), (default, "cannot have a default"), (twice, "has the field"),
                          (wrong, "no field type"), (finaliser, "add_cleanup"), (has_dict, "__slots__ = ()"),
                          (two_bases, "one Struct base"), (text, "cannot evaluate"), (subscript, "takes a class")):
        with pytest.raises(TypeError) as caught:
            make()
        assert message in str(caught.value)
    with pytest.raises(TypeError, match="subclasses of pyalloc.Struct only"):
        pyalloc.StructType("Bad", (), {})
    with pytest.raises(TypeError, match="type of a field"):
        Ref()


def test_forward_references():
    class First(Struct):
        other: Ref["Second"]
        missing: Ref["Nowhere"]

    assert First(other=None, missing=None).other is None
    with pytest.raises(NameError, match="'Second', which is not defined"):
        First(other=Node())
    with pytest.raises(NameError, match="Nowhere"):
        First.missing.target

    class Second(Struct):
        first: Ref[First]

    assert First.other.target is Second and First(other=Second()).other.first is None
    with pytest.raises(TypeError, match="must be a Second"):
        First(other=Node())


def test_string_annotations(run_python):
    program = (
        "from __future__ import annotations\n"
        "import typing\n"
        "import pyalloc\n"
        "from pyalloc import Ref\n"
        "class Tree(pyalloc.Struct):\n"
        "    left: pyalloc.Ref\n"
        "    right: Ref[Tree]\n"
        "    leaf: Ref[Leaf]\n"
        "    other: 'Ref[\"Leaf\"]'\n"
        "    key: pyalloc.int64\n"
        "    note: typing.ClassVar[str] = 'x'\n"
        "class Leaf(pyalloc.Struct):\n"
        "    value: pyalloc.float64\n"
        "def local():\n"
        "    from pyalloc import int8 as tiny\n"
        "    class Local(pyalloc.Struct):\n"
        "        a: tiny\n"
        "        b: Ref[Local]\n"
        "    return Local\n"
        "assert [f.type for f in Tree.__fields__.values()] == ['Ref', 'Ref', 'Ref', 'Ref', 'int64']\n"
        "assert Tree.right.target is Tree and Tree.leaf.target is Leaf is Tree.other.target\n"
        "Local = local()\n"
        "assert Local.a.type == 'int8' and Local.b.target is Local\n"
        "assert Tree(leaf=Leaf(value=0.5)).leaf.value == 0.5\n"
    )
    run_python("-c", program)


def test_structural_matching_names():
    assert Node.__match_args__ == ("left", "right", "key") and Struct.__match_args__ == ()
    assert dict(Struct.__fields__) == {}
