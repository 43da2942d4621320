"""Field types, and how the annotations of a Struct class become fields.

The classes are made in C (csrc/python/struct_type.c), which asks read() for the fields, created() to tell that
a class exists, and resolve() for a class that a typed Ref names.

At run time ``int64`` and the like are small marker objects; type checkers see them as ``int``, ``float`` and
``bool``, which is what attributes give, and ``Ref[Node]`` as ``Optional[Node]``.
"""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Union

from pyalloc import _core

if TYPE_CHECKING:
    from typing_extensions import TypeAlias, TypeVar

    int8: TypeAlias = int
    int16: TypeAlias = int
    int32: TypeAlias = int
    int64: TypeAlias = int
    uint8: TypeAlias = int
    uint16: TypeAlias = int
    uint32: TypeAlias = int
    uint64: TypeAlias = int
    float32: TypeAlias = float
    float64: TypeAlias = float
    bool_: TypeAlias = bool

    _T = TypeVar("_T", default=Any)
    Ref: TypeAlias = Optional[_T]


class FieldType:
    """The type of a scalar field: int8 to int64, uint8 to uint64, float32, float64, bool_."""

    __slots__ = ("kind", "name")

    def __init__(self, name: str, kind: int) -> None:
        self.name = name
        self.kind = kind  # pa_kind in csrc/python/scalar.h

    def __repr__(self) -> str:
        return f"pyalloc.{self.name}"


class TypedRef:
    """``Ref[Node]`` or ``Ref["Node"]``: a reference to objects of one class or its subclasses, or None."""

    __slots__ = ("target",)

    def __init__(self, target: Union[type, str]) -> None:
        self.target = target

    def __repr__(self) -> str:
        return f"pyalloc.Ref[{getattr(self.target, '__name__', self.target)!r}]"


if not TYPE_CHECKING:

    class Ref:
        """The type of a field that refers to any managed object, or None; ``Ref[Node]`` checks the class.

        ``Ref["Node"]`` may name a class that is defined later.  Go counterpart: a pointer.
        """

        def __new__(cls) -> Any:
            raise TypeError("Ref is the type of a field: write it as an annotation in a Struct class")

        def __class_getitem__(cls, target):
            if isinstance(target, str) or (isinstance(target, type) and issubclass(target, _core.Managed)):
                return TypedRef(target)
            forward = getattr(target, "__forward_arg__", None)
            if forward is not None:
                return TypedRef(forward)
            raise TypeError(f"Ref[...] takes a class of managed objects or its name, not {target!r}")


_NAMES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "bool_")
for _kind, _name in enumerate(_NAMES, 1):
    globals()[_name] = FieldType(_name, _kind)

#: Fields that wait for a class: (module, qualified name) -> fields; see created().
_waiting: dict[tuple[str, str], list[_core.Field]] = {}


def _evaluate(text: str, module: str, namespace: dict[str, Any], frame_locals: dict[str, Any]) -> Any:
    """A string annotation; the class that a typed Ref names stays a string, since it may not exist yet."""
    names = {**frame_locals, **namespace}
    globals_ = sys.modules[module].__dict__ if module in sys.modules else {}
    tree = ast.parse(text.strip(), mode="eval").body
    if isinstance(tree, ast.Subscript):
        generic: Any = eval(ast.unparse(tree.value), globals_, names)
        if generic is Ref:
            target = tree.slice
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                return TypedRef(target.value)
            expression = ast.unparse(target)
            try:
                return generic[eval(expression, globals_, names)]
            except NameError:
                return TypedRef(expression)
    return eval(text, globals_, names)


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    """Of a class body, on every Python: a dict up to 3.13, a function from 3.14 on."""
    found = namespace.get("__annotations__")
    if found is None and sys.version_info >= (3, 14):
        import annotationlib

        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is not None:
            found = annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF)
    return dict(found or {})


def read(name: str, namespace: dict[str, Any]) -> list[tuple[str, int, Union[None, type, str]]]:
    """(field, kind, target) for every annotation of a class body; called by the class statement."""
    fields: list[tuple[str, int, Union[None, type, str]]] = []
    module = namespace.get("__module__", "")
    frame_locals = sys._getframe(1).f_locals
    for field, annotation in _annotations(namespace).items():
        annotation = getattr(annotation, "__forward_arg__", annotation)
        while isinstance(annotation, str):  # twice one: quoted where all are strings
            if annotation.replace("typing.", "").startswith("ClassVar"):
                annotation = ClassVar[Any]
                break
            try:
                annotation = _evaluate(annotation, module, namespace, frame_locals)
            except Exception as error:
                raise TypeError(f"field {field!r} of class {name}: cannot evaluate {annotation!r}: {error}") from error
        if str(annotation).startswith("typing.ClassVar"):
            continue
        if isinstance(annotation, FieldType):
            fields.append((field, annotation.kind, None))
        elif annotation is Ref:
            fields.append((field, 0, None))
        elif isinstance(annotation, TypedRef):
            fields.append((field, 0, annotation.target))
        else:
            raise TypeError(
                f"field {field!r} of class {name}: {annotation!r} is no field type; use pyalloc.Ref, "
                "pyalloc.int8 to int64, uint8 to uint64, float32, float64 or bool_, "
                "or typing.ClassVar for what is no field"
            )
    return fields


def created(cls: type) -> None:
    """A Struct class exists: typed Refs that wait for its name get it, its own are looked up or wait."""
    for field in _waiting.pop((cls.__module__, cls.__qualname__), ()):
        _core.bind_field(field, cls)
    scope = cls.__qualname__.rpartition(".")[0]
    for field in cls.__dict__.get("__fields__", {}).values():
        if field.__objclass__ is cls and field.target_name is not None:
            qualified = f"{scope}.{field.target_name}" if scope else field.target_name
            _waiting.setdefault((cls.__module__, qualified), []).append(field)


def resolve(cls: type, field: str, target: str) -> type:
    """The class that a typed Ref names, which no class statement has announced: from the module's globals."""
    try:
        found = eval(target, dict(sys.modules[cls.__module__].__dict__))
    except Exception as error:
        raise NameError(f"field {field!r} of {cls.__name__} refers to {target!r}, which is not defined") from error
    if not (isinstance(found, type) and issubclass(found, _core.Managed)):
        raise TypeError(f"field {field!r} of {cls.__name__} refers to {target!r}, which is {found!r}: no managed class")
    return found
