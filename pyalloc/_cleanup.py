"""Cleanups: functions that run after a managed object became unreachable.

The collector knows a number for each; functions and arguments are kept here, so they are alive until they ran
or were cancelled, and the object itself is not among them.
"""

from __future__ import annotations

import atexit
import itertools
from typing import Any, Callable

from pyalloc import _core

_ids = itertools.count(1)
_table: dict[int, Cleanup] = {}  # by id; every operation on it is one of dict, atomic under the GIL


class Cleanup:
    """A cleanup that was arranged for with add_cleanup()."""

    __slots__ = ("_args", "_func", "_id")

    def __init__(self, func: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._func = func
        self._args = args
        self._id = next(_ids)

    def cancel(self) -> bool:
        """The function will not be called any more; False when it was already, or is being called."""
        return _table.pop(self._id, None) is not None

    @property
    def pending(self) -> bool:
        """True until the function is called or cancelled."""
        return self._id in _table

    def __repr__(self) -> str:
        state = "pending" if self.pending else "done"
        return f"<pyalloc.Cleanup of {self._func!r}, {state}>"


def add_cleanup(obj: _core.Managed, func: Callable[..., object], *args: Any) -> Cleanup:
    """Arranges for func(*args) after the collector has found obj unreachable.

    It runs in the main thread between two bytecodes, or in the thread that calls collect(), or at exit when the
    object was found unreachable by then; an object that is still reachable at exit gets none.  An exception goes to
    sys.unraisablehook.  Several cleanups of one object run in no particular order.

    func must not lead to obj: a bound method of it, or a closure over it, keeps it alive for ever, and so do args.
    Passing obj itself is refused with ValueError.  Raises TypeError for anything but a managed object and a
    callable, RuntimeError in an interpreter other than the main one.  Any thread.  Go counterpart:
    runtime.AddCleanup.
    """
    if not callable(func):
        raise TypeError(f"add_cleanup() takes a callable, not {type(func).__name__!r}")
    for one in (getattr(func, "__self__", None), *args):
        if isinstance(one, _core.Managed) and isinstance(obj, _core.Managed) and one.address == obj.address:
            raise ValueError("the cleanup would keep its own object alive: pass what it needs, not the object")
    cleanup = Cleanup(func, args)
    _table[cleanup._id] = cleanup
    try:
        _core.cleanup_add(obj, cleanup._id)
    except BaseException:
        _table.pop(cleanup._id, None)
        raise
    return cleanup


def deliver() -> None:
    """Calls the cleanups of objects that were found unreachable; any thread, also several at once.

    Exceptions go to sys.unraisablehook.
    """
    while True:
        ids = _core.cleanup_take()
        if not ids:
            return
        for id in ids:
            cleanup = _table.pop(id, None)
            if cleanup is not None:
                _core.call_cleanup(cleanup._func, cleanup._args)


def _at_exit() -> None:
    _core.cleanup_listen(None)
    deliver()


_core.cleanup_listen(deliver)
atexit.register(_at_exit)
