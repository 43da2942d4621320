"""pyalloc.prometheus: what a scrape gives, read back by prometheus_client's own parser."""

import re
import threading
import urllib.request

import pytest

import pyalloc

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client.openmetrics import exposition as openmetrics  # noqa: E402
from prometheus_client.openmetrics.parser import (  # noqa: E402
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse  # noqa: E402

import pyalloc.prometheus as fleet  # noqa: E402


class Node(pyalloc.Struct):
    next: pyalloc.Ref


class Pair(pyalloc.Struct):
    """48 bytes with the word that names its class, and without."""
    first: pyalloc.Ref
    second: pyalloc.Ref
    third: pyalloc.int64
    fourth: pyalloc.int64
    fifth: pyalloc.int64


@pytest.fixture
def registry():
    """One that has the metrics, and nothing of theirs afterwards."""
    registry = prometheus_client.CollectorRegistry()
    fleet.register(registry)
    yield registry
    fleet.unregister(registry)
    assert list(registry.collect()) == []


def families(registry, form=prometheus_client.generate_latest, read=parse):
    return {family.name: family for family in read(form(registry).decode())}


def by_family(found):
    return {fleet.family_name(name): one for name, one in found.items()}


def test_names():
    names = {
        "/gc/heap/live:bytes": "pyalloc_gc_heap_live_bytes",
        "/gc/cycles/total:gc-cycles": "pyalloc_gc_cycles_total_gc_cycles",
        "/sched/pauses/total/gc:seconds": "pyalloc_sched_pauses_total_gc_seconds",
        "/pyalloc/heap/lock:acquisitions": "pyalloc_heap_lock_acquisitions",
        "/pyalloc/weak-handles:handles": "pyalloc_weak_handles_handles",
    }
    assert {name: fleet.family_name(name) for name in names} == names
    assert len(by_family(pyalloc.metrics())) == len(pyalloc.metrics()), "two metrics have one name"


@pytest.mark.parametrize("form, read", [
    (prometheus_client.generate_latest, parse), (openmetrics.generate_latest, parse_openmetrics)])
def test_a_scrape_is_the_metrics(registry, form, read):
    kept = [Node() for _ in range(3000)]
    pyalloc.collect()
    buffers = [pyalloc.empty(1 << 20) for _ in range(3)]
    before = by_family(pyalloc.metrics())
    found = families(registry, form, read)
    after = by_family(pyalloc.metrics())
    del kept, buffers
    assert list(found) == list(before)
    for name, one in before.items():
        family = found[name]
        assert family.documentation == one.doc
        kind = "histogram" if one.kind == "histogram" else "counter" if one.cumulative else "gauge"
        assert family.type == kind, name
        if kind == "histogram":
            continue
        (sample,) = family.samples
        assert sample.name == name + ("_total" if kind == "counter" else "") and sample.labels == {}
        low, high = sorted((float(one.value), float(after[name].value)))
        assert low <= sample.value <= high, name
    assert found["pyalloc_gc_heap_objects_objects"].samples[0].value >= 3000
    assert found["pyalloc_gc_gomemlimit_bytes"].samples[0].value == float(2**64 - 1)


def test_histograms_are_cumulative(registry):
    kept = [Node() for _ in range(100)] + [pyalloc.managed_bytes(n) for n in (100, 1000, 40000)]
    pyalloc.collect()
    before = pyalloc.metrics()
    found = families(registry)
    del kept
    for name, one in before.items():
        if one.kind != "histogram":
            continue
        samples = found[fleet.family_name(name)].samples
        base = fleet.family_name(name)
        rows = [(sample.labels["le"], sample.value) for sample in samples if sample.name == base + "_bucket"]
        counts = [value for _, value in rows]
        assert len(rows) == len(one.value.counts) and counts == sorted(counts) and rows[-1][0] == "+Inf"
        (count,) = [sample.value for sample in samples if sample.name == base + "_count"]
        assert count == counts[-1] == one.value.total
        differences = [high - low for low, high in zip([0, *counts], counts)]
        assert differences == [float(value) for value in one.value.counts]
        edges = [float(le) for le, _ in rows[:-1]]
        assert edges == sorted(set(edges))
        assert all(low <= edge < high for low, edge, high in zip(one.value.bounds, edges, one.value.bounds[1:]))
    sizes = found["pyalloc_gc_heap_allocs_by_size_bytes"].samples
    assert [one.value for one in sizes if one.name.endswith("_sum")] == [before["/gc/heap/allocs:bytes"].value]
    stops = found["pyalloc_sched_pauses_total_gc_seconds"].samples
    (total,) = [one.value for one in stops if one.name.endswith("_sum")]
    assert total == pytest.approx(pyalloc.read_gc_stats().pause_total_ns * 1e-9)
    stopping = found["pyalloc_sched_pauses_stopping_gc_seconds"].samples
    (estimate,) = [one.value for one in stopping if one.name.endswith("_sum")]
    assert 0 < estimate <= 10


def test_48_bytes_are_in_the_bucket_of_48(registry):
    """Go's bounds are the first value that is outside, Prometheus's the last one inside."""
    def buckets():
        pyalloc.collect()   # counts are exact after it
        samples = families(registry)["pyalloc_gc_heap_allocs_by_size_bytes"].samples
        return {one.labels["le"]: one.value for one in samples if "le" in one.labels}

    before = buckets()
    kept = [Pair() for _ in range(10)]
    after = buckets()
    assert after["48.0"] - before["48.0"] == len(kept) and after["32.0"] == before["32.0"]


def test_register_and_unregister():
    registry = prometheus_client.CollectorRegistry()
    first = fleet.register(registry)
    assert fleet.register(registry) is first
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(fleet.Collector())
    fleet.unregister(registry)
    fleet.unregister(registry)
    assert families(registry) == {}
    assert fleet.register(registry) is not first and families(registry)
    fleet.unregister(registry)


def test_the_default_registry():
    fleet.register()
    try:
        text = prometheus_client.generate_latest().decode()
        assert "# TYPE pyalloc_gc_heap_live_bytes gauge\n" in text
    finally:
        fleet.unregister()
    assert "pyalloc" not in prometheus_client.generate_latest().decode()


def test_scrapes_of_a_server_while_threads_work(registry):
    server, thread = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=registry)
    stop = threading.Event()
    failures = []

    def churn():
        while not stop.is_set():
            kept = [Node() for _ in range(200)] + [pyalloc.empty(5000) for _ in range(50)]
            del kept

    def scrape():
        last = 0.0
        try:
            for _ in range(15):
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=60) as answer:
                    found = {family.name: family for family in parse(answer.read().decode())}
                (allocated,) = found["pyalloc_gc_heap_allocs_bytes"].samples
                assert allocated.value >= last, "a counter went back"
                last = allocated.value
                total = found["pyalloc_memory_classes_total_bytes"].samples[0].value
                parts = sum(family.samples[0].value for name, family in found.items()
                            if name.startswith("pyalloc_memory_classes_"))
                assert 2 * total == parts, "not one snapshot"
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=churn) for _ in range(2)]
    scrapers = [threading.Thread(target=scrape) for _ in range(3)]
    for one in [*workers, *scrapers]:
        one.start()
    for one in scrapers:
        one.join()
    stop.set()
    for one in workers:
        one.join()
    server.shutdown()
    server.server_close()
    thread.join()
    assert not failures


def test_metrics_of_the_how_to_exist(root):
    page = (root / "docs" / "how-to-watch.md").read_text(encoding="utf-8")
    named = set(re.findall(r"pyalloc_\w+", "".join(line for line in page.splitlines() if line.startswith("| `"))))
    names = {fleet.family_name(name) for name in pyalloc.metrics()}
    assert len(named) == 3
    assert not [name for name in named if name not in names and re.sub(r"_(total|bucket)$", "", name) not in names]


def test_without_prometheus_client(run_python):
    code = ("import sys\nsys.modules['prometheus_client'] = None\n"
            "try:\n    import pyalloc.prometheus\nexcept ImportError as error:\n    print(error)")
    assert "pip install 'pyalloc[prometheus]'" in run_python("-c", code).stdout


def test_pyalloc_does_not_import_it(run_python):
    code = ("import sys, pyalloc, pyalloc.__main__\n"
            "print([name for name in sys.modules if 'prom' in name or 'telem' in name])")
    assert run_python("-c", code).stdout == "[]\n"
