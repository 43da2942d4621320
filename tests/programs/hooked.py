"""Programs with pyalloc.python.install() in every process: a sitecustomize that PYTHONPATH names, for children too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pyalloc

#: Tests of programs look closely at stderr, warnings and open files, so this leaves no trace but a byte in a file that
#: is there already. Debug hooks and tracemalloc from the start are reasons not to install: RuntimeError.
_SITE = """
import os
try:
    import pyalloc.python
    pyalloc.python.install({domains!r})
except RuntimeError:
    pass
else:
    try:
        _file = os.open({log!r}, os.O_WRONLY | os.O_APPEND)
        os.write(_file, b".")
        os.close(_file)
        del _file
    except OSError:         # a test that has changed its user or root
        pass
"""


class Hooked:
    """A folder for PYTHONPATH that hooks these domains; says how many processes have done so."""

    def __init__(self, folder: Path, domains: "tuple[str, ...]" = ("mem", "obj")) -> None:
        folder.mkdir()
        self._log = folder / "hooked"
        self._log.write_bytes(b"")
        self._log.chmod(0o666)
        (folder / "sitecustomize.py").write_text(_SITE.format(domains=domains, log=str(self._log)))
        # Not the checkout or site-packages: what else is there would change what programs' tests find.
        (folder / "pyalloc").symlink_to(Path(pyalloc.__file__).parent, target_is_directory=True)
        self.folder = folder

    def environment(self) -> "dict[str, str]":
        return {**plain_environment(), "PYTHONPATH": str(self.folder)}

    def processes(self) -> int:
        return len(self._log.read_bytes())


def plain_environment() -> "dict[str, str]":
    unwanted = ("PYALLOC_", "LD_PRELOAD", "PYTHONMALLOC", "PYTHONPATH", "PYTHONDEVMODE", "PYTHONTRACEMALLOC")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def interruptible() -> None:
    """For preexec_fn: SIGINT as in a terminal. A background job ignores it, and tests of it wait for ever then."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def python_with(module: str) -> Optional[str]:
    """This interpreter, or the system's of the same version, whichever has the module; None when neither has."""
    for path in (sys.executable, "/usr/bin/python%d.%d" % sys.version_info[:2]):
        code = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
        if os.path.exists(path) and subprocess.run([path, "-c", code], stderr=subprocess.DEVNULL).returncode == 0:
            return path
    return None
