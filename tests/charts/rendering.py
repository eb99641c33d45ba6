"""Charts as Helm itself renders them: which values files there are, and the objects that come of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as h
import yaml

ROOT = Path(__file__).resolve().parents[2]
HELM = ROOT / "helm"
CHARTS = ("deerfield", "deerfield-site")
RELEASE, NAMESPACE = "lungs", "consortium"
LONG = "a-release-of-fifty-three-characters-and-not-one-more1"  # as long as Helm lets one be

Object = dict[str, Any]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML whose maps name each key once: PyYAML would take the last, Kubernetes refuses it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"keys given twice: {sorted(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[Object]:
    """The objects of a file of YAML."""
    return [each for each in yaml.load_all(text, _Loader) if each]


@dataclass(frozen=True)
class Render:
    """What one chart makes of one values file."""

    chart: str
    values: str  # the file's name; empty: none
    release: str
    texts: Mapping[str, str]  # by template
    objects: tuple[Object, ...]

    def __str__(self) -> str:
        return f"{self.chart}:{self.values or 'defaults'}"


@cache
def chart(name: str) -> h.Chart:
    """The chart as it lies in the repository."""
    return h.Chart.load(HELM / name)


def values_files(name: str) -> list[Path]:
    """The values files that come with a chart: what CI installs, and the examples."""
    folder = HELM / name
    return sorted([*folder.glob("ci/*-values.yaml"), *folder.glob("examples/*.yaml")])


def read(path: Path) -> dict[str, Any]:
    """A values file."""
    return next(iter(documents(path.read_text())), {})


def rendered(name: str, values: dict[str, Any], title: str = "", release: str = RELEASE) -> Render:
    """What Helm makes of these values; raises HelmError for what the schema or a template refuses."""
    texts = chart(name).render(values, name=release, namespace=NAMESPACE)
    objects = [each for path, text in sorted(texts.items()) if path.endswith(".yaml") for each in documents(text)]
    return Render(name, title, release, texts, tuple(objects))


def matrix() -> list[tuple[str, Path | None]]:
    """Every chart with every values file it comes with, and with none where it needs none."""
    files = [(name, path) for name in CHARTS for path in values_files(name)]
    return [("deerfield", None), *files]


@cache
def of(name: str, path: Path | None, release: str = RELEASE) -> Render:
    """One cell of the matrix, rendered once."""
    return rendered(name, read(path) if path else {}, path.stem if path else "", release)


def strings(tree: object) -> Iterator[str]:
    """All strings of a tree of maps and lists."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from strings(value)
