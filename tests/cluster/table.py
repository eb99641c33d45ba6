"""What ran of the charts, with its seconds; and what no machine without a cluster can show, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

NOT_HERE = (
    "scheduling of real GPUs, MIG profiles, runtime classes, quotas and queues",
    "enforcement of NetworkPolicies: networks without a way out and the sites' own proof stand in for it",
    "more than one node: topology spread, volumes that move, drains",
    "the kubelet's own probing, back-off and eviction: each probe is made until it passes once",
    "storage classes, load balancers, Ingress and Gateway",
    "cert-manager, the Prometheus Operator, Kubeflow Pipelines: nobody answers their objects",
    "bundled PostgreSQL and SeaweedFS, whose images no registry here has",
    "images on their real base: they stand on a look-alike",
)


@dataclass
class Table:
    """The rows that tests have told."""

    rows: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Tells the seconds of a block."""
        began = monotonic()
        try:
            yield
        except BaseException:
            what = f"FAILED: {what}"
            raise
        finally:
            self.rows.append((what, monotonic() - began))

    def lines(self) -> Iterator[str]:
        """The table; nothing if nothing was told."""
        for what, seconds in self.rows:
            yield f"{seconds:5.0f} s  {what}"
        for what in NOT_HERE if self.rows else ():
            yield f"not here {what}"
