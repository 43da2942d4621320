"""The core once more, asserts on and insides open: ``from whitebox import lib, ffi``.

Tests under tests/unit and tests/model use it.  It is a build of its own (the switch keeps it out of wheels), and a
missing one is an error, not a reason to skip: a skipped white-box test looks like a passed one.
"""

try:
    from pyalloc._whitebox import ffi, lib
except ImportError as error:
    raise ImportError(
        f"pyalloc._whitebox is not built ({error}); build it into the checkout with\n"
        "    PYALLOC_BUILD_WHITEBOX=1 pip install -e '.[test]'\n"
        "or, when the checkout is installed already,\n"
        "    PYALLOC_BUILD_WHITEBOX=1 python setup.py build_ext --inplace"
    ) from error

__all__ = ["ffi", "lib"]
