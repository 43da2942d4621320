"""The names beside malloc and free: C++ operators, and what a program may ask its malloc about itself."""

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

from preload.support import need

NAMES = set("""
    malloc free calloc realloc reallocarray cfree memalign aligned_alloc posix_memalign valloc pvalloc
    malloc_usable_size free_sized free_aligned_sized mallinfo mallinfo2 malloc_trim mallopt malloc_stats malloc_info
    _Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t _ZnwmSt11align_val_t _ZnamSt11align_val_t
    _ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t
    _ZdlPv _ZdaPv _ZdlPvm _ZdaPvm _ZdlPvRKSt9nothrow_t _ZdaPvRKSt9nothrow_t _ZdlPvSt11align_val_t
    _ZdaPvSt11align_val_t _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t _ZdlPvSt11align_val_tRKSt9nothrow_t
    _ZdaPvSt11align_val_tRKSt9nothrow_t
    __libc_malloc __libc_free __libc_cfree __libc_calloc __libc_realloc __libc_memalign __libc_valloc __libc_pvalloc
    __posix_memalign
""".split())


def test_exported_names(library):
    """All there, none with a version (a program asks for malloc@GLIBC_x: only a plain name answers), nothing else."""
    out = subprocess.run([need("nm", "binutils"), "-D", "--defined-only", library], capture_output=True, text=True,
                         check=True).stdout
    names = {line.split()[2] for line in out.splitlines()}
    ours = {name for name in names if name.startswith("pa_")}
    assert all(name.endswith("@@LIBPYALLOC_1") for name in ours) and "pa_malloc@@LIBPYALLOC_1" in ours
    assert names - ours - {"LIBPYALLOC_1"} == NAMES


def test_it_needs_the_c_library_only(library):
    out = subprocess.run([need("readelf", "binutils"), "-d", library], capture_output=True, text=True, check=True)
    assert re.findall(r"NEEDED.*\[(.*)\]", out.stdout) == ["libc.so.6"]


def test_malloc_is_an_alias(library):
    """malloc and pa_malloc are one address, free and operator delete too: no jump on the way."""
    out = subprocess.run([need("nm", "binutils"), "-D", library], capture_output=True, text=True, check=True).stdout
    at = {line.split()[2].partition("@")[0]: line.split()[0] for line in out.splitlines() if " T " in line}
    assert at["malloc"] == at["pa_malloc"]
    assert at["free"] == at["pa_free"] == at["_ZdlPv"] == at["cfree"]
    assert at["calloc"] == at["pa_calloc"] and at["realloc"] == at["pa_realloc"]


@pytest.mark.parametrize("standard", ["c++17", "c++20"])
@pytest.mark.parametrize("case", ["forms", "out_of_memory", "handler"])
def test_operators(compiled, preloaded, case, standard):
    program = compiled("news.cc", f"-std={standard}", "-ldl")
    result = preloaded([program, case])
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_replaced_operators(compiled, preloaded):
    """A program that replaces the two primary operators only gets every other form through them."""
    program = compiled("news.cc", "-std=c++17", "-DREPLACED", "-Wno-sized-deallocation", "-ldl")
    result = preloaded([program, "replaced"])
    assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_operators_in_a_plugin_of_a_c_program(compiled, preloaded):
    plugin = compiled("plugin.cc", "-shared", "-fPIC")
    result = preloaded([compiled("host.c", "-ldl"), plugin])
    assert (result.returncode, result.stdout, result.stderr) == (0, "42\n", "")


def test_operators_without_a_cxx_library(compiled, library):
    result = subprocess.run([compiled("host.c", "-ldl")], capture_output=True, text=True,
                            env={**os.environ, "LD_PRELOAD": library})
    assert (result.returncode, result.stdout) == (-6, "1\n")
    assert result.stderr == "pyalloc: operator new: out of memory, and no C++ library to throw std::bad_alloc\n"


@pytest.mark.skipif(not shutil.which("clang++"), reason="clang++ is missing: apt-get install clang")
def test_operators_by_clang(library, tmp_path):
    here = os.path.dirname(__file__)
    flags = ["-O2", "-std=c++17", "-fno-builtin", "-fsized-deallocation", "-ldl"]
    subprocess.run(["clang++", f"{here}/news.cc", "-o", tmp_path / "news", *flags], check=True)
    for case in ("forms", "out_of_memory", "handler"):
        result = subprocess.run([tmp_path / "news", case], capture_output=True, text=True,
                                env={**os.environ, "LD_PRELOAD": library})
        assert (result.returncode, result.stdout, result.stderr) == (0, "ok\n", "")


def test_what_malloc_says_about_itself(compiled, preloaded):
    result = preloaded([compiled("introspect.c", "-Wno-deprecated-declarations", "-ldl")])
    assert result.returncode == 0, result.stderr
    assert re.match(r"pyalloc \S+: malloc_stats, process \d+ \(\S*introspect\)\n(  .*\n)+$", result.stderr)
    root = ElementTree.fromstring(result.stdout)
    assert root.tag == "malloc" and root.get("version") == "1"
    (heap,) = root.findall("heap")
    sizes = heap.findall("sizes/size")
    assert sizes
    total = heap.find("total[@type='rest']")
    assert int(total.get("count")) == sum(int(size.get("count")) for size in sizes)
    assert int(total.get("size")) == sum(int(size.get("total")) for size in sizes)
    for size in sizes:
        assert int(size.get("from")) <= int(size.get("to")) and int(size.get("count")) > 0
        assert int(size.get("total")) == int(size.get("count")) * int(size.get("to"))
    assert int(root.find("system[@type='current']").get("size")) <= int(root.find("aspace[@type='total']").get("size"))


def test_realloc_grows_large_blocks_where_they_are(compiled, preloaded):
    result = preloaded([compiled("growing.c")])
    assert (result.returncode, result.stderr) == (0, "")
    assert int(result.stdout) < 1.1 * 256 * 1024
