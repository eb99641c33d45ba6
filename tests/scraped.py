"""What a Prometheus would read."""

from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def fetched(address: str) -> str:
    with urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return answer.read().decode()


def samples(address: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(fetched(address)) for sample in family.samples]


def figure(address: str, name: str, **labels: str) -> float | None:
    """The value of one series, or None where there is none."""
    found = [each.value for each in samples(address) if each.name == name and each.labels == labels]
    return found[0] if found else None
