"""The command as a user calls it, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def bench(kernels, tmp_path):
    def call(*words, **env):
        environment = {**os.environ, "PYALLOC_BENCH_KERNELS": str(kernels), "COLUMNS": "200", **env}
        command = [sys.executable, "-m", "pyalloc._bench", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)

    return call


def test_json_shape(bench, tmp_path):
    done = bench(
        "--only",
        "pair-64",
        "--only",
        "trace-sqlite*",
        "--peers",
        "glibc",
        "--rounds",
        "2",
        "--scale",
        "0.01",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert got["schema"] == 1 and got["rounds"] == 2 and got["seconds"] > 0
    assert list(got["allocators"]) == ["pyalloc", "glibc"]
    assert [test["name"] for test in got["tests"]] == ["pair-64", "pair-64k", "trace-sqlite-index"]
    for test in got["tests"]:
        for name in ("pyalloc", "glibc"):
            assert [
                set(s) >= {"ops", "seconds", "peak_rss_kib", "minor_faults"} for s in test["samples"][name]
            ] == [True, True]
        assert test["ratios"]["glibc"]["rss"]["median"] > 0
    assert got["geometric_means"]["glibc"]["recorded programs"]["time"] > 0
    assert len(got["headline"]) == 1 and got["machine"]["processors"] >= 1
    # no temporary trace is left behind, nothing was written here
    assert list(tmp_path.iterdir()) == [] or all(path.is_dir() for path in tmp_path.iterdir())


def test_tables_json_file_and_chart(bench, tmp_path):
    words = [
        "--only",
        "pair-16",
        "--peers",
        "glibc",
        "--rounds",
        "1",
        "--scale",
        "0.01",
        "--json",
        "out.json",
    ]
    done = bench(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pyalloc vs glibc: time ") and "Peak RSS" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["tests"][0]["name"] == "pair-16"
    assert "round 1 of 1" in done.stderr
    assert bench(*words[:-1], "no/such/folder.json").returncode == 2
    pytest.importorskip("matplotlib")
    assert bench(*words, "--png", "out.png").returncode == 0
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_processor_time_is_told(bench):
    words = ["--only", "pair-16", "--peers", "glibc", "--rounds", "1", "--scale", "0.01"]
    assert json.loads(bench(*words, "--cpu-time", "--json").stdout)["clock"] == "processor time"
    assert json.loads(bench(*words, "--json").stdout)["clock"] == "elapsed time"


def test_list(bench):
    done = bench("--list")
    assert done.returncode == 0 and "trace-python-json" in done.stdout and "(the C library)" in done.stdout
    got = json.loads(bench("--list", "--json").stdout)
    assert got["allocators"]["glibc"] is None and {"name", "group", "about"} == set(got["tests"][0])


def test_bars_give_verdicts_and_exit_code(bench):
    done = bench(
        "--bars", "--only", "pair-1m", "--peers", "glibc", "--rounds", "3", "--scale", "0.01", "--json"
    )
    got = json.loads(done.stdout)
    (bar,) = got["bars"]
    assert bar["bar"] == 1 and bar["limit"] == 1.1 and bar["measured"]["n"] == 3
    assert done.returncode == (0 if bar["status"] == "pass" else 1)


@pytest.mark.parametrize(
    "words, env, text",
    [
        (["--only", "nosuch"], {}, "no test matches 'nosuch'"),
        (["--peers", "nosuch"], {}, "no such allocator here: nosuch"),
        (["--peers", ""], {}, "nothing to compare with"),
        (["--only", "pair-16"], {"PYALLOC_BENCH_KERNELS": "/nowhere"}, "/nowhere is missing"),
        (["--only", "pair-16"], {"PYALLOC_BENCH_LIB": "/nowhere.so"}, "/nowhere.so is missing"),
        (["--rounds", "0"], {}, "at least 1"),
        (["--time-limit", "nan"], {}, "greater than 0"),
    ],
)
def test_mistakes_end_with_a_message(bench, words, env, text):
    done = bench(*words, **env)
    assert done.returncode == 2 and text in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_other_libraries_are_not_measured_by_mistake(bench, compile_c):
    library = compile_c("int nothing;", "empty.so", "-shared", "-fPIC")
    done = bench("--only", "pair-16", "--peers", "odd", PYALLOC_BENCH_PEERS=f"odd={library}")
    assert done.returncode == 2 and "did not take effect" in done.stderr
