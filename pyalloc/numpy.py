"""The data of NumPy's arrays in pyalloc's heap (NEP 49), for NumPy 1.22 and newer.

    import pyalloc.numpy

    pyalloc.numpy.install()                  # every thread, from its next array on
    with pyalloc.numpy.handler(align=64):    # or: this block only
        a = numpy.zeros(1000)

An array keeps the handler that made it: arrays from before install() go back to where they came from, and arrays of
pyalloc's stay valid after uninstall(), after their thread has ended, and while the interpreter shuts down.

A handler that somebody set in a context on purpose (handler(), install(threads=False), or another library) holds there
whatever the process-wide one is; in the calling context the last call decides.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import sys
from typing import Any, ContextManager, Iterator, NamedTuple, Optional

from pyalloc import _core

__all__ = ["Status", "active", "handler", "install", "status", "uninstall"]

_FIRST_VERSION = (1, 22)


class Status(NamedTuple):
    """What :func:`status` found."""

    numpy: Optional[str]
    """Version of the NumPy in this process, None when nobody has imported one that is new enough."""
    installed: Optional[int]
    """Alignment in bytes of the handler of the whole process (16 or 64), None when it is not pyalloc's."""
    here: Optional[str]
    """Name of the handler of new arrays in the calling thread and context: "pyalloc", "pyalloc_align64", NumPy's own
    "default_allocator", or another library's; None without NumPy."""


# ---- NumPy's side


class _Hook(NamedTuple):
    version: str
    own: Any  # the capsule of NumPy's own handler
    variable: contextvars.ContextVar[Any]  # NumPy's: the current handler


_hook: Optional[_Hook] = None
_set_here: contextvars.ContextVar[Optional[tuple[Any, contextvars.Token[Any]]]] = contextvars.ContextVar(
    "pyalloc_numpy_set_here", default=None)  # what install() set in this very context, and how to take it back


def _find_variable() -> contextvars.ContextVar[Any]:
    """NumPy's variable: the one that its own function sets; to be called in an empty context."""
    _core.numpy_set_current(_core.numpy_current())
    (variable,) = contextvars.copy_context()
    return variable


def _attached() -> _Hook:
    global _hook
    if _hook is None:
        try:
            import numpy
        except ImportError as error:
            raise ImportError("pyalloc.numpy needs NumPy 1.22 or newer, and `import numpy` fails: "
                              f"{error}; pip install 'pyalloc[numpy]'") from error
        version = str(numpy.__version__)
        if tuple(int(part) for part in version.split(".")[:2]) < _FIRST_VERSION:
            raise RuntimeError(f"pyalloc.numpy needs NumPy 1.22 or newer, which has memory handlers (NEP 49); this is "
                               f"{version}: pip install -U numpy")
        package = "numpy.core" if version.startswith("1.") else "numpy._core"
        own = _core.numpy_attach(importlib.import_module(f"{package}._multiarray_umath")._ARRAY_API)
        _core.numpy_huge_pages(os.environ.get("NUMPY_MADVISE_HUGEPAGE", "1") != "0")  # as NumPy reads it
        _hook = _Hook(version, own, contextvars.Context().run(_find_variable))
    return _hook


# ---- Ours


@contextlib.contextmanager
def _handler(hook: _Hook, capsule: Any) -> Iterator[None]:
    token, around = hook.variable.set(capsule), _set_here.set(None)
    try:
        yield
    finally:
        try:
            hook.variable.reset(token)
            _set_here.reset(around)
        except ValueError as error:
            raise RuntimeError("pyalloc.numpy.handler() was left in another thread or context than it was entered in: "
                               "arrays there are still pyalloc's; enter and leave it in one function") from error


def handler(*, align: int = 16) -> ContextManager[None]:
    """Arrays made inside the ``with`` block, in its thread and context, have their data in pyalloc's heap.

    align: 16, or 64 for data on cache lines; large arrays begin on a page either way.  Blocks nest; at the end of one
    the context has again what it had before.  Tasks, asyncio.to_thread and copy_context().run() inherit it, other new
    threads do not.

    Raises ImportError without NumPy, RuntimeError before NumPy 1.22, ValueError for other alignments, and RuntimeError
    when the block is left in another context than it was entered in (a generator that another thread finishes).  Any
    thread.  Go counterpart: none.
    """
    hook = _attached()
    return _handler(hook, _core.numpy_handler(align))


def install(threads: bool = True, *, align: int = 16) -> None:
    """From now on new arrays have their data in pyalloc's heap.

    threads: True for every thread of the process, those that run already (from their next array on) and those to come,
    however they were started: executors' workers, tasks and empty contexts too.  Other contexts in which somebody set a
    handler on purpose keep that one.  False: in the calling context only, and in what inherits it (tasks,
    asyncio.to_thread, copy_context().run(), not other threads).
    align: 16, or 64 for data on cache lines; large arrays begin on a page either way.

    May be called again, with another alignment too.  Arrays that exist stay as they are.  A fork child inherits it.
    Raises ImportError without NumPy, RuntimeError before NumPy 1.22, ValueError for other alignments, and RuntimeError
    when this Python does not let the whole process be reached (no released CPython; use threads=False then).  Any
    thread.  Go counterpart: none.
    """
    hook = _attached()
    capsule = _core.numpy_handler(align)
    if threads:
        _core.numpy_set_default(hook.variable, capsule)
    if _core.numpy_current() is not capsule:  # somebody set another one in this context, or it is for here only
        _take_back(hook)
        _set_here.set((capsule, hook.variable.set(capsule)))


def uninstall() -> None:
    """Undoes install(): new arrays are NumPy's own again, in every thread; those that exist stay valid.

    What install(threads=False) set is taken back in the calling context; contexts that were copied from it meanwhile
    (running tasks) keep it until they end.  Inside a handler() block the block still holds, and after it what
    install(threads=False) set before it.  Nothing happens when there was no install().  Any thread.
    """
    hook = _looked_at()
    if hook is None:
        return
    if _core.numpy_describe(_core.numpy_default())[1]:
        _core.numpy_set_default(hook.variable, hook.own)
    _take_back(hook)


def _take_back(hook: _Hook) -> None:
    """Undoes what install() set in the calling context, unless another library set a handler there since."""
    found = _set_here.get()
    if found is None:
        return
    capsule, token = found
    _set_here.set(None)
    if contextvars.copy_context().get(hook.variable) is not capsule:
        return
    try:
        hook.variable.reset(token)
    except ValueError:  # set in the context that this one was copied from
        old = token.old_value
        hook.variable.set(hook.own if old is contextvars.Token.MISSING else old)


def active() -> bool:
    """True when an array that is made now, in the calling thread and context, has its data in pyalloc's heap.

    Does not import NumPy: False when nobody has.  For an array that exists ask pyalloc.owns(array.ctypes.data).
    """
    return _looked_at() is not None and _core.numpy_describe(_core.numpy_current())[1] != 0


def status() -> Status:
    """What holds for the process, and what in the calling thread and context; see :class:`Status`.  Any thread."""
    hook = _looked_at()
    if hook is None:
        return Status(None, None, None)
    align = _core.numpy_describe(_core.numpy_default())[1]
    return Status(hook.version, align or None, _core.numpy_describe(_core.numpy_current())[0])


def _looked_at() -> Optional[_Hook]:
    """The hook, if there is a NumPy in the process already that has handlers."""
    if _hook is None and "numpy" not in sys.modules:
        return None
    try:
        return _attached()
    except (ImportError, RuntimeError):
        return None
