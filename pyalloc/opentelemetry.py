"""The metrics of pyalloc for OpenTelemetry (``pip install 'pyalloc[opentelemetry]'``).

    import pyalloc.opentelemetry

    pyalloc.opentelemetry.instrument()        # the global meter provider, or instrument(meter_provider)

Names are made from those of :func:`pyalloc.metrics`: ``/gc/heap/live:bytes`` is ``pyalloc.gc.heap.live.bytes``.  What
only grows is an observable counter, the rest are observable gauges; a limit or goal that is not there is not observed.
OpenTelemetry has no observable histograms: one is a counter of values a bucket, with the attributes ``ge`` and ``lt``,
the bucket's bounds.  All instruments of a collection read one snapshot.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Iterable, Optional

try:
    from opentelemetry.metrics import (
        CallbackOptions,
        MeterProvider,
        Observation,
        get_meter_provider,
    )
except ImportError as _error:
    raise ImportError(
        f"pyalloc.opentelemetry needs opentelemetry-api: pip install 'pyalloc[opentelemetry]' ({_error})") from _error

from pyalloc._metrics import NONE, Histogram, Metric, metrics

_UNITS = {"bytes": "By", "seconds": "s", "cpu-seconds": "s", "percent": "%"}
_STALE_SECONDS = 1.0


def instrument_name(name: str) -> str:
    """The name of a metric's instrument: "pyalloc.gc.heap.live.bytes"."""
    path, _, unit = name.partition(":")
    path = path[len("/pyalloc"):] if path.startswith("/pyalloc/") else path
    return "pyalloc" + f"{path}.{unit}".replace("/", ".").replace("-", "_")


class _Snapshot:
    """One snapshot for all instruments of a collection, which calls each once: who asks twice gets a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, Metric] = {}
        self._taken = 0.0
        self._given: set[str] = set()

    def get(self, name: str) -> Metric:
        with self._lock:
            if not self._found or name in self._given or time.monotonic() - self._taken > _STALE_SECONDS:
                self._found, self._taken = metrics(), time.monotonic()
                self._given = set()
            self._given.add(name)
            return self._found[name]


class _Instruments:
    """The instruments of one provider.  The API cannot take them back: off, they observe nothing."""

    def __init__(self, provider: MeterProvider) -> None:
        import pyalloc

        self.on = True
        self.provider = provider
        self._snapshot = _Snapshot()
        meter = provider.get_meter("pyalloc", pyalloc.__version__)
        for one in metrics().values():
            make = meter.create_observable_counter if one.cumulative else meter.create_observable_gauge
            unit = "{value}" if one.kind == "histogram" else _UNITS.get(one.unit, "{" + one.unit.rstrip("s") + "}")
            make(instrument_name(one.name), [self._reader(one.name)], unit=unit, description=one.doc)

    def _reader(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_options: CallbackOptions) -> Iterable[Observation]:
            return _observations(self._snapshot.get(name)) if self.on else []

        return read


def _observations(metric: Metric) -> list[Observation]:
    value = metric.value
    if isinstance(value, Histogram):
        return [Observation(count, {"ge": low, "lt": high})
                for count, low, high in zip(value.counts, value.bounds, value.bounds[1:])]
    return [] if value == NONE else [Observation(value)]


_lock = threading.Lock()
_instrumented: dict[int, _Instruments] = {}


def instrument(meter_provider: Optional[MeterProvider] = None) -> None:
    """Makes the instruments, of the global meter provider by default.  Once a provider: more calls do nothing.  Any
    thread."""
    provider = get_meter_provider() if meter_provider is None else meter_provider
    with _lock:
        if id(provider) in _instrumented:
            _instrumented[id(provider)].on = True
        else:
            _instrumented[id(provider)] = _Instruments(provider)


def uninstrument(meter_provider: Optional[MeterProvider] = None) -> None:
    """Ends their observations; the instruments stay, as OpenTelemetry has it, and instrument() brings them back."""
    provider = get_meter_provider() if meter_provider is None else meter_provider
    with _lock:
        if id(provider) in _instrumented:
            _instrumented[id(provider)].on = False
