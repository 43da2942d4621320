"""The metrics of pyalloc for Prometheus, by ``prometheus_client`` (``pip install 'pyalloc[prometheus]'``).

    import prometheus_client
    import pyalloc.prometheus

    pyalloc.prometheus.register()
    prometheus_client.start_http_server(8000)

Names are made from those of :func:`pyalloc.metrics` as Go's client makes them from runtime/metrics:
``/gc/heap/live:bytes`` is ``pyalloc_gc_heap_live_bytes``, ``/gc/cycles/total:gc-cycles`` is
``pyalloc_gc_cycles_total_gc_cycles_total``.  A scrape takes one snapshot; 2**64 - 1 stands for no limit and no goal.

The figures are this process's.  In prometheus_client's multi-process mode, which knows no collectors of this kind, let
every worker have a port, or use pyalloc.opentelemetry.
"""

from __future__ import annotations

import re
import threading
from typing import Any, Iterable, Iterator, Optional, Union

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.metrics_core import Metric as _Family
    from prometheus_client.registry import Collector as _Collector
except ImportError as _error:
    raise ImportError(
        f"pyalloc.prometheus needs prometheus_client: pip install 'pyalloc[prometheus]' ({_error})") from _error

from pyalloc._gc import read_gc_stats
from pyalloc._metrics import Histogram, Metric, metrics

#: Where the sum of a histogram's values is another metric of the same snapshot.
_SUMS = {
    "/gc/heap/allocs-by-size:bytes": "/gc/heap/allocs:bytes",
    "/gc/heap/frees-by-size:bytes": "/gc/heap/frees:bytes",
}
_STOPS = "/sched/pauses/total/gc:seconds"


def family_name(name: str) -> str:
    """The name that Prometheus has for a metric, without the _total of counters: "pyalloc_gc_heap_live_bytes"."""
    path, _, unit = name.partition(":")
    path = path[len("/pyalloc"):] if path.startswith("/pyalloc/") else path
    return "pyalloc" + re.sub(r"[^a-zA-Z0-9]", "_", f"{path}_{unit}")


def _last_inside(bound: float, unit: str) -> float:
    """The largest value below a bound: bytes and ns are whole, and Prometheus's bounds belong to the bucket."""
    if bound == float("inf"):
        return bound
    return bound - 1 if unit == "bytes" else (round(bound * 1e9) - 1) / 1e9


def _sum(metric: Metric, value: Histogram, found: dict[str, Metric]) -> float:
    """Exact for sizes and stops.  Of the time until threads stood only the buckets are known: their middles."""
    if metric.name in _SUMS:
        known: Any = found[_SUMS[metric.name]].value
        return float(known)
    if metric.name == _STOPS:
        return read_gc_stats().pause_total_ns * 1e-9
    ends = [high if high != float("inf") else 2 * low for low, high in zip(value.bounds, value.bounds[1:])]
    return sum(count * (low + high) / 2 for count, low, high in zip(value.counts, value.bounds, ends))


def _buckets(value: Histogram, unit: str) -> list[tuple[str, float]]:
    total, rows = 0, []
    for count, bound in zip(value.counts, value.bounds[1:]):
        total += count
        le = _last_inside(bound, unit)
        rows.append(("+Inf" if le == float("inf") else repr(float(le)), float(total)))
    return rows


def _family(metric: Metric, found: Optional[dict[str, Metric]]) -> _Family:
    """A metric's family; with its value where found, all metrics of the snapshot, is given."""
    name, value = family_name(metric.name), metric.value
    if isinstance(value, Histogram):
        histogram = HistogramMetricFamily(name, metric.doc)
        if found is not None:
            histogram.add_metric([], _buckets(value, metric.unit), _sum(metric, value, found))
        return histogram
    number: Union[CounterMetricFamily, GaugeMetricFamily]
    number = CounterMetricFamily(name, metric.doc) if metric.cumulative else GaugeMetricFamily(name, metric.doc)
    if found is not None:
        number.add_metric([], float(value))
    return number


class Collector(_Collector):
    """Gives every metric of this process, from one snapshot a scrape.  Any thread; stops nobody."""

    def describe(self) -> Iterable[_Family]:
        """The names alone, for the registry to see doubles."""
        return [_family(one, None) for one in metrics().values()]

    def collect(self) -> Iterator[_Family]:
        """One snapshot, as families of metrics."""
        found = metrics()
        for one in found.values():
            yield _family(one, found)


_lock = threading.Lock()
_registered: dict[int, tuple[CollectorRegistry, Collector]] = {}


def register(registry: CollectorRegistry = REGISTRY) -> Collector:
    """Adds the metrics to a registry, by default the one that prometheus_client's servers show.  Once: more calls give
    the same collector.  Any thread."""
    with _lock:
        if id(registry) not in _registered:
            collector = Collector()
            registry.register(collector)
            _registered[id(registry)] = (registry, collector)
        return _registered[id(registry)][1]


def unregister(registry: CollectorRegistry = REGISTRY) -> None:
    """Takes them out again.  Nothing happens where they are not in.  Any thread."""
    with _lock:
        found = _registered.pop(id(registry), None)
        if found is not None:
            registry.unregister(found[1])
