"""Metrics as values: each is declared once, and made, documented and tested from that."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600, 14_400)  # from a small adapter to a slow night


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: its name as Prometheus shows it, its labels, its unit and what it says."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    unit: str = "1"

    def counter(self, registry: CollectorRegistry) -> Counter:
        """A counter of this family."""
        return Counter(self.name, self.meaning, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """A histogram of this family, from a hundredth of a second to four hours."""
        return Histogram(self.name, self.meaning, self.labels, buckets=SECONDS, registry=registry)


Reading: TypeAlias = tuple[Family, tuple[str, ...], float]  # family, values of its labels, value


class Live(Collector):
    """Gauges that are read when they are asked for: a label's value is gone as soon as what it names is."""

    def __init__(self, families: Sequence[Family], read: Callable[[], Iterable[Reading]]) -> None:
        self._families = families
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """The families, without reading."""
        return [GaugeMetricFamily(each.name, each.meaning, labels=each.labels) for each in self._families]

    def collect(self) -> Iterable[Metric]:
        """The families with what there is now."""
        found = {each: GaugeMetricFamily(each.name, each.meaning, labels=each.labels) for each in self._families}
        for family, labels, value in self._read():
            found[family].add_metric(labels, value)
        return found.values()
