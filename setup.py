"""Builds the C parts; everything else about the package is in pyproject.toml.

In order:

    pyalloc/libpyalloc.so        the core, a plain shared library (not a Python module)
    pyalloc/_core.*.so           csrc/python/, linked against it with rpath $ORIGIN
    pyalloc/_cffi.abi3.so        pyalloc.lib and pyalloc.ffi, cffi API mode, from the text of pyalloc.h
    pyalloc/_bench/kernels       an executable from bench/kernels/, when the sources are there
    pyalloc/_whitebox.*.so       only with PYALLOC_BUILD_WHITEBOX=1: the core once more, asserts on, + csrc/export/

The library and the executable are Extension subclasses, because editable installs and wheels carry what
build_ext makes and nothing else.  Build switches, in the environment:

    PYALLOC_BUILD_ASSERTS=0..3                      assert level of the core (default 0)
    PYALLOC_BUILD_SANITIZE=address|thread|undefined flags for every part; several joined by commas
    PYALLOC_BUILD_WHITEBOX=1                        build pyalloc/_whitebox as well; never for a wheel to publish
"""

import os
import re
import sysconfig
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE_LAYERS = ["base", "sys", "pages", "heap", "world", "gc", "api"]
HEADER = "csrc/include/pyalloc.h"

ASSERTS = os.environ.get("PYALLOC_BUILD_ASSERTS", "0")
SANITIZE = os.environ.get("PYALLOC_BUILD_SANITIZE", "")
WHITEBOX = os.environ.get("PYALLOC_BUILD_WHITEBOX", "0") not in ("", "0")
if ASSERTS not in ("0", "1", "2", "3"):
    raise SystemExit(f"PYALLOC_BUILD_ASSERTS must be 0, 1, 2 or 3, not {ASSERTS!r}")
if set(filter(None, SANITIZE.split(","))) - {"address", "thread", "undefined"}:
    raise SystemExit(f"PYALLOC_BUILD_SANITIZE must be address, thread or undefined, not {SANITIZE!r}")

SANITIZE_FLAGS = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"] if SANITIZE else []
# The compiler must not turn our malloc family into calls of itself.
NO_BUILTIN = [f"-fno-builtin-{name}" for name in (
    "malloc", "calloc", "realloc", "free", "aligned_alloc", "memalign", "posix_memalign", "reallocarray")]
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter"]
# No PLT: calls into libpyalloc.so go straight through the GOT; lazy binding would save nothing here.
PYTHON_FLAGS = ["-std=c11", "-O2", "-fvisibility=hidden", "-fno-plt", *WARNINGS, *SANITIZE_FLAGS]
# Before the flags of the interpreter's own build, which may lack or contradict these.
CORE_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-fno-semantic-interposition",
              "-ftls-model=initial-exec", "-fno-plt", "-pthread", "-ffunction-sections", "-fdata-sections",
              *NO_BUILTIN, *WARNINGS, *SANITIZE_FLAGS]


# What a program that only allocates never calls is linked last, so that its pages need not be read in.
SELDOM = re.compile(r"/(gc|preload)/|/(gc_\w+|mallocgc|report|summary|heapmap|json|outfile|peaks|live|metrics|managed|"
                    r"object|special|gcside|check|pending|walk|fork|gcproc|gcwork|roots|stw|lockstat|"
                    r"profile_proto|sample|sampling|poisson|gzip|symbols|unwind)\.c$")


def sources(*layers):
    found = sorted(path for layer in layers for path in glob(f"csrc/{layer}/*.c"))
    return sorted(found, key=lambda path: bool(SELDOM.search(path)))


def headers():
    return sorted(glob("csrc/*/*.h") + glob("csrc/*.map") + glob("csrc/preload/*.ld"))


def cffi_text(path):
    """The declarations of a header that cffi reads: between the markers, or all but preprocessor lines."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    between = re.findall(r"/\* cffi: begin \*/(.*?)/\* cffi: end \*/", text, re.S)
    if between:
        text = "".join(between)
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


class SharedLibrary(Extension):
    """A shared library that is no Python module: linked without init symbol, named lib<name>.so."""


class Executable(Extension):
    """A program shipped inside the package."""


class CffiExtension(Extension):
    """cffi API mode: header_paths give the declarations, preamble is C in front of the wrappers."""

    def __init__(self, name, header_paths, preamble, **options):
        self.header_paths = header_paths
        self.preamble = preamble
        super().__init__(name, **options)


class BuildExt(build_ext):
    def finalize_options(self):
        super().finalize_options()
        self.parallel = None            # _core links against the library built before it

    def get_ext_filename(self, fullname):
        ext = self.ext_map.get(fullname)
        folder, _, name = fullname.rpartition(".")
        folder = folder.replace(".", os.sep)
        if isinstance(ext, SharedLibrary):
            return os.path.join(folder, name + ".so")
        if isinstance(ext, Executable):
            return os.path.join(folder, name)
        return super().get_ext_filename(fullname)

    def build_extension(self, ext):
        shared_build_temp = self.build_temp
        self.build_temp = os.path.join(shared_build_temp, ext.name)     # two flavours of one source must not meet
        try:
            os.makedirs(self.build_temp, exist_ok=True)
            if isinstance(ext, SharedLibrary):
                self.build_shared_library(ext)
            elif isinstance(ext, Executable):
                self.build_executable(ext)
            else:
                if isinstance(ext, CffiExtension):
                    ext.sources = [self.generate_cffi(ext), *ext.sources]
                if "pyalloc" in ext.libraries:
                    ext.library_dirs = [os.path.dirname(self.get_ext_fullpath("pyalloc.libpyalloc"))]
                super().build_extension(ext)
        finally:
            self.build_temp = shared_build_temp

    def compile_objects(self, ext):
        return self.compiler.compile(ext.sources, output_dir=self.build_temp, macros=ext.define_macros,
                                     include_dirs=ext.include_dirs, debug=self.debug,
                                     extra_postargs=ext.extra_compile_args, depends=ext.depends)

    def build_shared_library(self, ext):
        path = self.get_ext_fullpath(ext.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.compiler.link_shared_object(self.compile_objects(ext), path, libraries=ext.libraries,
                                         extra_postargs=ext.extra_link_args, build_temp=self.build_temp,
                                         target_lang="c")

    def build_executable(self, ext):
        path = self.get_ext_fullpath(ext.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.compiler.link_executable(self.compile_objects(ext), path, libraries=ext.libraries,
                                      extra_postargs=ext.extra_link_args, target_lang="c")

    def generate_cffi(self, ext):
        import cffi

        ffi = cffi.FFI()
        for path in ext.header_paths:
            ffi.cdef(cffi_text(path))
        ffi.set_source(ext.name, ext.preamble)
        path = os.path.join(self.build_temp, ext.name.rpartition(".")[2] + ".c")
        ffi.emit_c_code(path)
        return path


def library():
    return SharedLibrary(
        "pyalloc.libpyalloc",
        sources=sources(*CORE_LAYERS, "preload"),
        depends=headers(),
        include_dirs=["csrc"],
        define_macros=[("PA_ASSERT_LEVEL", ASSERTS)],
        extra_compile_args=CORE_FLAGS,
        extra_link_args=["csrc/preload/aliases.ld", "-Wl,-T,csrc/preload/layout.ld",
                         "-Wl,--version-script=csrc/libpyalloc.map",
                         # A program's own operators new and delete take ours' place, also where the interpreter was
                         # built with -Bsymbolic-functions (Debian's, Ubuntu's).
                         "-Wl,--dynamic-list-cpp-new",
                         "-Wl,-soname,libpyalloc.so", "-Wl,-z,now", "-Wl,-z,nodelete", "-pthread", "-ldl",
                         # One segment for code and constants: fewer mappings and pages in every small program.
                         "-Wl,-z,noseparate-code", *SANITIZE_FLAGS],
    )


def core():
    return Extension(
        "pyalloc._core",
        sources=sources("python"),
        depends=headers(),
        include_dirs=["csrc"],
        libraries=["pyalloc"],
        runtime_library_dirs=["$ORIGIN"],
        define_macros=[("PA_ASSERT_LEVEL", ASSERTS)],
        extra_compile_args=PYTHON_FLAGS,
        extra_link_args=SANITIZE_FLAGS,
    )


def raw_api():
    abi3 = not sysconfig.get_config_var("Py_GIL_DISABLED")      # free-threaded builds have no limited API yet
    return CffiExtension(
        "pyalloc._cffi",
        header_paths=[HEADER],
        preamble='#include "include/pyalloc.h"',
        sources=[],
        depends=headers(),
        include_dirs=["csrc"],
        libraries=["pyalloc"],
        runtime_library_dirs=["$ORIGIN"],
        define_macros=[("Py_LIMITED_API", "0x03090000")] if abi3 else [],
        py_limited_api=abi3,
        extra_compile_args=["-O2", "-Wno-missing-field-initializers", *SANITIZE_FLAGS],
        extra_link_args=SANITIZE_FLAGS,
    )


def whitebox():
    export_headers = sorted(glob("csrc/export/*.h"))
    includes = [f'#include "{os.path.relpath(path, "csrc")}"' for path in (HEADER, *export_headers)]
    return CffiExtension(
        "pyalloc._whitebox",
        header_paths=[HEADER, *export_headers],
        preamble="\n".join(includes),
        sources=sources(*CORE_LAYERS, "export"),
        depends=headers(),
        include_dirs=["csrc"],
        define_macros=[("PA_WHITEBOX", "1"), ("PA_ASSERT_LEVEL", "3")],
        extra_compile_args=CORE_FLAGS + ["-g", "-Wno-missing-field-initializers"],
        # Its pa_* functions are its own heap, also when libpyalloc.so is preloaded.
        extra_link_args=["-Wl,-Bsymbolic", "-pthread", *SANITIZE_FLAGS],
    )


def kernels():
    return Executable(
        "pyalloc._bench.kernels",
        sources=sorted(glob("bench/kernels/*.c")),
        depends=[*sorted(glob("bench/kernels/*.h")), HEADER],
        include_dirs=["bench/kernels", "csrc"],
        # The work of a benchmark must stay: no allocation may be optimised away.
        extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-O2", "-fno-builtin", "-pthread", *WARNINGS],
        extra_link_args=["-pthread", "-ldl", "-lm"],
    )


def extensions():
    found = [library(), core(), raw_api()]
    if glob("bench/kernels/*.c"):
        found.append(kernels())
    if WHITEBOX:
        found.append(whitebox())
    return found


# The licence stands here because pyproject.toml spells it differently before and after setuptools 77.
setup(license="MIT", ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
