"""Imports pyalloc when a Python interpreter starts, so that heap profiles have lines of Python code and are written
before the interpreter frees its objects.

Without pyalloc in this interpreter its stacks are native.  The program's own sitecustomize, which this one stands
before, is imported afterwards; nothing of this folder stays in sys.path.
"""

import importlib
import os
import sys

_me = sys.modules.pop(__name__)
_folder = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if not entry or os.path.abspath(entry) != _folder]
try:
    import atexit

    from pyalloc._core import profile_finish

    atexit.register(profile_finish)     # before Python frees its objects; after what the program registers
except Exception:  # of whatever kind: a profile must not keep a program from running
    pass
try:
    importlib.import_module("sitecustomize")
except ImportError as _error:
    if _error.name != "sitecustomize":
        raise
    sys.modules[__name__] = _me
