"""The recorder: what a program asked for is what stands in the file, in order, and nothing else."""

import subprocess
import sys

import pytest

from pyalloc._bench import record, trace
from pyalloc._bench.trace import ALIGNED, CALLOC, FREE, MALLOC, REALLOC, THREAD, Event

SEQUENCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
int main(void)
{
    void *volatile a = malloc(100), *volatile b = calloc(3, 50), *volatile c = NULL;
    free(a);
    free(NULL);
    a = realloc(NULL, 7);
    a = realloc(a, 100000);
    b = reallocarray(b, 10, 20);
    if (reallocarray(b, SIZE_MAX / 2, 4) != NULL || errno != ENOMEM) return 1;
    if (posix_memalign((void **)&c, 256, 33) != 0 || (uintptr_t)c % 256 != 0) return 2;
    if (posix_memalign((void **)&c, 24, 33) != EINVAL) return 3;
    void *volatile d = aligned_alloc(64, 128), *volatile e = memalign(4096, 5), *volatile f = valloc(9);
    volatile size_t absurd = SIZE_MAX / 2;
    if (malloc(absurd) != NULL) return 4;
    free(d);
    free(c);
    free(e);
    (void)f;
    if (realloc(b, 0) != NULL) return 5;
    free(a);
    _exit(0);
}
"""

THREADS = r"""
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
static void *other(void *p) { free(p); return malloc(222); }
int main(void)
{
    pthread_t t;
    void *volatile p = malloc(111), *got;
    pthread_create(&t, NULL, other, p);
    pthread_join(t, &got);
    free(got);
    _exit(0);
}
"""

FORK = r"""
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    void *volatile p = malloc(11);
    pid_t child = fork();
    if (child == 0) {
        p = malloc(22);
        if (argc == 1)
            execl("/proc/self/exe", argv[0], "again", (char *)NULL);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    free(p);
    _exit(status != 0);
}
"""


def events_of(recorder, program, tmp_path, **options):
    raw = tmp_path / "raw"
    assert record.run(recorder, [str(program)], raw, **options) == 0
    return trace.read_raw(raw.read_bytes())


def test_exact_sequence(recorder, compile_c, tmp_path):
    got = events_of(recorder, compile_c(SEQUENCE, "sequence"), tmp_path)
    page = 4096
    assert [e._replace(detail=e.detail if e.size != 9 else page) for e in got.events] == [
        Event(MALLOC, 0, 100),
        Event(CALLOC, 1, 150),
        Event(FREE, 0),
        Event(MALLOC, 2, 7),
        Event(REALLOC, 2, 100000),
        Event(REALLOC, 1, 200),
        Event(ALIGNED, 3, 33, 256),
        Event(ALIGNED, 4, 128, 64),
        Event(ALIGNED, 5, 5, 4096),
        Event(ALIGNED, 6, 9, page),
        Event(FREE, 4),
        Event(FREE, 3),
        Event(FREE, 5),
        Event(FREE, 1),
        Event(FREE, 2),
    ]
    assert got.metadata["unknown_frees"] == 0


def test_threads_are_numbered(recorder, compile_c, tmp_path):
    got = events_of(recorder, compile_c(THREADS, "threads"), tmp_path).events
    births = {e.size: e.block for e in got if e.kind == MALLOC}
    at_other = got.index(Event(THREAD, 0, 0, 1))
    assert got.index(Event(MALLOC, births[111], 111)) < at_other
    assert got.index(Event(FREE, births[111])) > at_other
    assert got.index(Event(MALLOC, births[222], 222)) > at_other
    back = len(got) - 1 - got[::-1].index(Event(THREAD, 0, 0, 0))
    assert got.index(Event(FREE, births[222])) > back


def test_children_are_not_recorded_unless_asked(recorder, compile_c, tmp_path):
    program = compile_c(FORK, "forks")
    events = events_of(recorder, program, tmp_path).events
    assert [e.size for e in events if e.kind == MALLOC] == [11]
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]

    followed = tmp_path / "followed"
    followed.mkdir()
    assert (
        record.run(recorder, [str(program)], followed / "raw", extra_env={"PYALLOC_RECORD_FOLLOW": "1"}) == 0
    )
    sizes = sorted(
        [e.size for e in trace.read_raw(path.read_bytes()).events if e.kind == MALLOC]
        for path in followed.iterdir()
    )
    # the parent; its child up to exec; the program executed there; its child
    assert sizes == [[11], [11], [22], [22]]


def test_limit_and_program_name(recorder, compile_c, tmp_path):
    program = compile_c(SEQUENCE, "sequence")
    got = events_of(recorder, program, tmp_path, most=3).events
    assert got == [Event(MALLOC, 0, 100), Event(CALLOC, 1, 150), Event(FREE, 0)]
    raw = tmp_path / "other"
    assert record.run(recorder, [str(program)], raw, exe="somebody-else") == 0
    with pytest.raises(record.RecordError, match="nothing was recorded"):
        record.convert(raw, "x", "y")
    assert record.run(recorder, [str(program)], raw, exe="sequence") == 0
    assert record.convert(raw, "x", "y").metadata["name"] == "x"


def test_many_events_of_many_threads_stay_in_order(recorder, compile_c, tmp_path):
    text = r"""
    #include <pthread.h>
    #include <stdlib.h>
    static void *churn(void *unused)
    {
        void *volatile kept[16] = {0};
        for (unsigned i = 0; i < 60000; i++) { free(kept[i % 16]); kept[i % 16] = malloc(1 + i % 300); }
        for (int i = 0; i < 16; i++) free(kept[i]);
        return unused;
    }
    int main(void)
    {
        pthread_t t[3];
        for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, churn, NULL);
        for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
        return 0;
    }
    """
    got = events_of(
        recorder, compile_c(text, "churn"), tmp_path
    )  # read_raw raises where an address is in use twice
    counts = trace.summarize(got.events)["counts"]
    assert counts["mallocs"] >= 180000 and counts["frees"] >= 180000
    assert got.metadata["unknown_frees"] == 0


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "pyalloc._bench.record", "--name", "tiny", "--output", str(tmp_path)]
    done = subprocess.run([*command, "--", "/bin/sh", "-c", "true"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metadata = trace.read_metadata(tmp_path / "tiny.patrace.xz")
    assert metadata["command"] == "/bin/sh -c true" and metadata["counts"]["mallocs"] > 0
    done = subprocess.run([*command, "--", "/bin/sh", "-c", "exit 7"], capture_output=True, text=True)
    assert done.returncode == 1 and "exit code 7" in done.stderr
