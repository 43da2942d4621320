"""pyalloc.opentelemetry: what a reader of the SDK collects."""

import threading

import pytest

import pyalloc

pytest.importorskip("opentelemetry.sdk.metrics")
from opentelemetry.sdk.metrics import MeterProvider  # noqa: E402
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader, Sum  # noqa: E402

import pyalloc.opentelemetry as fleet  # noqa: E402


class Node(pyalloc.Struct):
    next: pyalloc.Ref


@pytest.fixture
def provider_and_reader():
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    fleet.instrument(provider)
    yield provider, reader
    fleet.uninstrument(provider)
    assert collected(reader) == {}
    provider.shutdown()


@pytest.fixture
def reader(provider_and_reader):
    return provider_and_reader[1]


def collected(reader):
    data = reader.get_metrics_data()
    return {metric.name: metric for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics for metric in scope.metrics if metric.data.data_points}


def by_instrument(found):
    return {fleet.instrument_name(name): one for name, one in found.items()}


def test_names():
    assert fleet.instrument_name("/gc/heap/live:bytes") == "pyalloc.gc.heap.live.bytes"
    assert fleet.instrument_name("/pyalloc/weak-handles:handles") == "pyalloc.weak_handles.handles"
    assert len(by_instrument(pyalloc.metrics())) == len(pyalloc.metrics())


def test_a_collection_is_the_metrics(reader):
    kept = [Node() for _ in range(2000)]
    pyalloc.collect()
    before, found, after = by_instrument(pyalloc.metrics()), collected(reader), by_instrument(pyalloc.metrics())
    del kept
    absent = {name for name, one in before.items() if one.value == 2**64 - 1}
    assert "pyalloc.gc.gomemlimit.bytes" in absent and set(found) == set(before) - absent
    for name, metric in found.items():
        one = before[name]
        assert metric.description == one.doc
        assert isinstance(metric.data, Sum if one.cumulative else Gauge), name
        assert not isinstance(metric.data, Sum) or metric.data.is_monotonic
        if one.kind == "histogram":
            assert metric.unit == "{value}"
            counts = {point.attributes["ge"]: point.value for point in metric.data.data_points}
            assert list(counts) == list(one.value.bounds[:-1]) and tuple(counts.values()) == one.value.counts
            assert [point.attributes["lt"] for point in metric.data.data_points] == list(one.value.bounds[1:])
        else:
            (point,) = metric.data.data_points
            low, high = sorted((one.value, after[name].value))
            assert low <= point.value <= high, name
    assert found["pyalloc.gc.heap.live.bytes"].unit == "By"
    assert found["pyalloc.cpu.classes.gc.total.cpu_seconds"].unit == "s"
    assert found["pyalloc.gc.cycles.total.gc_cycles"].unit == "{gc-cycle}"


def test_a_collection_is_one_snapshot_and_the_next_another(reader):
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            kept = [Node() for _ in range(300)] + [pyalloc.empty(9000) for _ in range(30)]
            del kept

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        allocated = []
        for _ in range(10):
            found = {name: metric.data.data_points[0].value for name, metric in collected(reader).items()}
            parts = [value for name, value in found.items() if name.startswith("pyalloc.memory.classes.")]
            assert 2 * found["pyalloc.memory.classes.total.bytes"] == sum(parts)
            allocated.append(found["pyalloc.gc.heap.allocs.bytes"])
            [Node() for _ in range(5000)]
            pyalloc.collect()
    finally:
        stop.set()
        worker.join()
    assert allocated == sorted(set(allocated))


def test_instrumenting_twice_and_again(provider_and_reader):
    provider, reader = provider_and_reader
    data = reader.get_metrics_data()
    fleet.instrument(provider)
    again = reader.get_metrics_data()
    assert count_points(data) == count_points(again) > 50
    fleet.uninstrument(provider)
    fleet.uninstrument(provider)
    assert collected(reader) == {}
    fleet.instrument(provider)
    assert count_points(reader.get_metrics_data()) == count_points(data)


def count_points(data):
    return sum(len(metric.data.data_points) for resource in data.resource_metrics for scope in resource.scope_metrics
               for metric in scope.metrics)


def test_the_global_provider():
    """Without an SDK it is one that does nothing; that must not fail."""
    fleet.instrument()
    fleet.uninstrument()


def test_without_opentelemetry(run_python):
    code = ("import sys\nsys.modules['opentelemetry'] = None\n"
            "try:\n    import pyalloc.opentelemetry\nexcept ImportError as error:\n    print(error)")
    assert "pip install 'pyalloc[opentelemetry]'" in run_python("-c", code).stdout
