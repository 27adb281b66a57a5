"""
What a metric is made of, and how `/metrics` shows it. Which there are stands in `metrics.py`.

A process shows the metrics of the services that it runs, from the start and with zeros, so that an alert can tell
"nothing happened" from "nobody is there". Whatever customers do, the number of series stays as declared: a label has a
closed set of values, and what is not among them is `other`; or it is open, and only the largest few are shown.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import accumulate, product
from typing import Final, Literal

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import REGISTRY, Collector
from prometheus_client.utils import floatToGoString

from streams.trouble import Trouble

Service = Literal["ingest", "dispatcher", "breaker", "admin"]
Kind = Literal["counter", "gauge", "histogram"]

#: As which a label shows what is not among its values.
OTHER: Final = "other"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Label:
    """A label, and what bounds it."""

    name: str
    #: All of its values; empty where they are not known beforehand.
    values: tuple[str, ...]
    meaning: str
    #: Where it is open: so many series at a time, those with the largest values.
    at_most: int = 0

    def bounded(self, value: str) -> str:
        """The value, or `other` where it is none of ours."""
        return value if self.at_most or value in self.values else OTHER

    @property
    def bound(self) -> int:
        """How many values it can show at a time."""
        return self.at_most or len(self.values) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: what it is called, counts and means. A subclass says who sets it."""

    #: As Prometheus knows it, `_total` of counters included.
    name: str
    #: What one of it is: events, seconds, bytes, ...
    unit: str
    meaning: str
    services: tuple[Service, ...]
    labels: tuple[Label, ...] = ()

    @property
    def kind(self) -> Kind:
        """As Prometheus calls it."""
        raise NotImplementedError

    @property
    def series(self) -> int:
        """How many a process shows at most; of a histogram, each with its buckets."""
        count = 1
        for label in self.labels:
            count *= label.bound
        return count

    def family(self) -> Family:
        """As it stands now."""
        raise NotImplementedError

    def begin(self, service: Service) -> None:
        """Show it from now on, with zeros where it is counted."""

    def bounded(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """These label values, each one of its label's."""
        return tuple(label.bounded(value) for label, value in zip(self.labels, values, strict=True))

    def _beginning(self, service: Service) -> Iterator[tuple[str, ...]]:
        """The label values that a process of the service shows from its start."""
        return product(*((service,) if label.name == "service" else label.values for label in self.labels))

    @property
    def _names(self) -> list[str]:
        return [label.name for label in self.labels]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter(Metric):
    """Counted where it happens, on the event loop's thread: 0.2 µs, where one that locks takes 1."""

    _counted: dict[tuple[str, ...], float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kind(self) -> Kind:
        return "counter"

    def inc(self, *labels: str, by: float = 1) -> None:
        """So many more."""
        key = self.bounded(labels) if labels else labels
        self._counted[key] = self._counted.get(key, 0) + by

    def value(self, *labels: str) -> float:
        """How many by now."""
        return self._counted.get(labels, 0)

    def begin(self, service: Service) -> None:
        for each in self._beginning(service):
            self._counted.setdefault(each, 0)

    def family(self) -> Family:
        found = CounterMetricFamily(self.name, self.meaning, labels=self._names)
        for labels, value in self._counted.items():
            found.add_metric(labels, value)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram(Metric):
    """Observed where it happens, on the event loop's thread."""

    #: Upper bounds, in the metric's unit.
    buckets: tuple[float, ...]
    #: Of each bucket and of what is beyond the last, how many; then their sum.
    _observed: dict[tuple[str, ...], list[float]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kind(self) -> Kind:
        return "histogram"

    def observe(self, value: float, *labels: str) -> None:
        """One more, of this size."""
        key = self.bounded(labels) if labels else labels
        counts = self._observed.get(key) or self._begun(key)
        counts[bisect_left(self.buckets, value)] += 1
        counts[-1] += value

    def begin(self, service: Service) -> None:
        for each in self._beginning(service):
            self._begun(each)

    def family(self) -> Family:
        found = HistogramMetricFamily(self.name, self.meaning, labels=self._names)
        bounds = [*map(floatToGoString, self.buckets), "+Inf"]
        for labels, counts in self._observed.items():
            found.add_metric(labels, list(zip(bounds, accumulate(counts[:-1]), strict=True)), counts[-1])
        return found

    def _begun(self, key: tuple[str, ...]) -> list[float]:
        return self._observed.setdefault(key, [0.0] * (len(self.buckets) + 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Metric):
    """Known to who holds it, and asked when Prometheus asks: see `answering`."""

    #: Whether it only rises for the life of the process.
    is_counter: bool = False

    @property
    def kind(self) -> Kind:
        return "counter" if self.is_counter else "gauge"

    def of(self, value: float, *labels: str) -> "Sample":
        """What to answer."""
        return self, self.bounded(labels), value

    def family(self) -> Family:
        return self.shown({})

    def shown(self, samples: Mapping[tuple[str, ...], float]) -> Family:
        """With these, the largest of them where a label is open."""
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        found: Family = kind(self.name, self.meaning, labels=self._names)
        most = self.series if any(label.at_most for label in self.labels) else len(samples)
        for labels, value in nlargest(most, samples.items(), key=lambda sample: sample[1]):
            found.add_metric(labels, value)  # type: ignore[attr-defined]
        return found


#: A metric, its labels' values, its value.
Sample = tuple[Asked, tuple[str, ...], float]

#: Answers what it knows now.
Source = Callable[[], Iterable[Sample]]


class Exposed(Collector):
    """What this process shows."""

    def __init__(self, declared: Iterable[Metric]) -> None:
        self._declared = tuple(declared)
        self._services: set[Service] = set()
        self._sources: list[Source] = []
        self._trouble = Trouble(log)

    def begin(self, service: Service) -> None:
        """Show the service's metrics from now on: this process runs it."""
        self._services.add(service)
        for metric in self._declared:
            if service in metric.services:
                metric.begin(service)

    def always(self, source: Source) -> None:
        """Ask *source* for the life of the process."""
        self._sources.append(source)

    @contextmanager
    def answering(self, source: Source) -> Iterator[None]:
        """Ask *source* as long as this lasts. Of two that answer the same series the later one counts."""
        self._sources.append(source)
        try:
            yield
        finally:
            self._sources.remove(source)

    def describe(self) -> Iterable[Family]:
        """Nothing: else whoever registers would ask for everything."""
        return ()

    def collect(self) -> Iterable[Family]:
        answers: dict[str, dict[tuple[str, ...], float]] = {}
        has_raised = False
        for source in list(self._sources):
            try:
                for asked, labels, value in source():
                    answers.setdefault(asked.name, {})[labels] = value
            except Exception as error:  # noqa: BLE001
                # A bug in one must not hide all the others.
                self._trouble.raised("metrics.source_raised", error)
                has_raised = True
        if not has_raised:
            self._trouble.over()
        for metric in self._declared:
            if self._services.isdisjoint(metric.services):
                continue
            yield metric.shown(answers.get(metric.name, {})) if isinstance(metric, Asked) else metric.family()


def expose(declared: Iterable[Metric]) -> Exposed:
    """Have `/metrics` show these."""
    exposed = Exposed(declared)
    REGISTRY.register(exposed)
    return exposed
