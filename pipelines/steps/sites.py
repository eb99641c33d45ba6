"""The sites of a partition, and what the pod of each is given where they are pods beside the rounds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deerfield import durable
from deerfield.documents.partition_manifest import Manifest, SitePart
from deerfield.documents.reading import read
from deerfield.errors import InvalidInput
from deerfield.runfile import RunFile, parse, read_mapping
from pipelines.embedded.simulated_policy import simulated_policy
from pipelines.steps.rounds import Started

POLICIES = "policies"  # folder of the data claim
MODE = 0o644  # of a policy there: a site's pod may be another user's


def members(manifest: Path) -> tuple[str, ...]:
    """The names of the sites of a partition."""
    return tuple(read(Manifest, manifest).sites)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the sites' pods find there."""

    base: str  # where each has the base model: folder, hub id or package:NAME
    names: str  # begins the names of each site's secret and volume claim
    data: Path  # the data claim, where it is mounted


def check_gpus(asked: int, compiled: int) -> None:
    """Holds the GPUs that a pipeline's parameter asks for against what it was compiled for.

    Raises:
        InvalidInput: it was compiled for sites without any, whose pods no parameter can give one.
    """
    if asked < 0:
        raise InvalidInput(f"gpus is {asked}; write how many each site's pod is to have, 0 for none")
    if asked and not compiled:
        raise InvalidInput(
            f"gpus is {asked}, and the pipeline was compiled with sites: gpu: count 0, for pods without any; compile "
            "it with a count of at least 1, which this parameter then replaces, or leave gpus at 0"
        )


def pods(started: Started, run: str, manifest: Path, cluster: Cluster) -> list[dict[str, str]]:
    """What the pod of each site is given; writes its policy to the data claim, as a hospital would have.

    `run` is the run file's text, with an `embedded:` section.

    Raises:
        InvalidInput: the parts are no simulation's, or two sites' names differ in nothing that Kubernetes can name.
    """
    file, parts = parse(RunFile, read_mapping(run, "run", "a run file", "name"), "run"), read(Manifest, manifest)
    if parts.kind != "simulation":
        raise InvalidInput("run: simulated-consortium starts sites over parts of one data set; add embedded: source:")
    slugs = _slugs(started.sites)
    folder = cluster.data / POLICIES / started.run
    folder.mkdir(parents=True, exist_ok=True)
    given = []
    for site, slug in slugs.items():
        path, own = folder / f"{slug}.yaml", cluster.names + slug
        models = {started.base_digest: cluster.base}
        document = {"models": models, **policy(file, site, parts.sites)}
        durable.replaced(path, yaml.safe_dump(document, sort_keys=False).encode(), MODE)  # one that is retried may read
        given.append({"site": site, "secret": own, "claim": own, "policy": str(path)})
    return given


def policy(file: RunFile, site: str, parts: Mapping[str, SitePart]) -> Mapping[str, Any]:
    """The policy of a simulated site but for its models: its part of the data, with the run's own budget."""
    units = [part.units or 0 for part in parts.values()]
    low, high = (1, 1) if file.privacy.unit == "site" else (file.embedded.units_low or min(units), max(units))
    source = file.embedded.source.model_copy(update={"path": parts[site].part, "rows": None})
    return simulated_policy(file, source, low, high)


def _slugs(sites: Sequence[str]) -> dict[str, str]:
    """Each site's name as Kubernetes takes names."""
    slugs = {site: re.sub(r"[^a-z0-9]+", "-", site.lower()).strip("-") for site in sites}
    if len(set(slugs.values())) < len(slugs):
        twice = sorted(site for site in slugs if list(slugs.values()).count(slugs[site]) > 1)
        raise InvalidInput(f"sites: {' and '.join(twice)} would have the same secret and volume claim; rename one")
    return slugs
