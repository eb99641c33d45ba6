"""Where a run's model comes from, as one JSON object: run file, code, base model, commitments to the data."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import deerfield
from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import parsed
from deerfield.errors import InvalidInput
from deerfield.types import Attestation
from services.aggregator.sql.records import RunRow

SCHEMA = 1
NAME = "lineage.json"
PACKAGES = (Path(deerfield.__file__).parent, Path(__file__).parent)  # what decides how a run is aggregated


def lineage(
    row: RunRow, attested: Mapping[str, Sequence[Attestation]], manifest: bytes | None = None
) -> Mapping[str, object]:
    """What is known of a run: without what sites have `attested`, in the order of the phases, no commitments yet.

    `manifest` is the content of the run's artifact `manifest.json`, where there is one.
    """
    said = {site: [each.data_commitment for each in each_of] for site, each_of in attested.items()}
    earlier = {site: sorted(set(found) - {found[-1], ""}) for site, found in said.items() if found}
    return {
        "schema": SCHEMA,
        "run": row.run,
        "run_file": row.spec.sha256,  # of the artifact run.json
        "code": deerfield.__version__,
        "code_sha256": code_sha256(),
        "base": row.spec.model.base,
        "base_digest": row.spec.model.digest,
        "population": row.spec.population,
        "commitments": {site: found[-1] for site, found in said.items() if found and found[-1]},
        "earlier_commitments": {site: found for site, found in earlier.items() if found},
        **_hub(manifest),
    }


def tags(row: RunRow) -> Mapping[str, str]:
    """What an MLflow run says of its code and base model from its start on."""
    found = {"version": deerfield.__version__, "code_sha256": code_sha256(), "base_digest": str(row.spec.model.digest)}
    return {f"deerfield.{name}": value for name, value in found.items()}


@cache
def code_sha256() -> str:
    """sha256 (hex) over names and contents of every Python file of the core and the aggregator that is running."""
    sha = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            sha.update(f"{package.name}/{path.relative_to(package).as_posix()}\0{content}\n".encode())
    return sha.hexdigest()


def _hub(manifest: bytes | None) -> Mapping[str, object]:
    """The hashes of the data that the hub owns, as the manifest has them; none where it is not one of ours."""
    if manifest is None:
        return {"manifest": None, "kind": "", "hub": {}}
    told = {"manifest": hashlib.sha256(manifest).hexdigest()}
    try:
        found = parsed(Manifest, manifest, MANIFEST)
    except InvalidInput:  # from before such a file was refused
        return {**told, "kind": "", "hub": {}}
    return {**told, "kind": found.kind, "hub": {site: sha256 for site, sha256 in found.hub.items() if sha256}}
