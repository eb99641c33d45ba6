"""Collects the evidence about a version: from files of other steps, from MLflow, read only, and from the proof."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from deerfield.documents import reading
from deerfield.documents.evaluation import NAME as EVALUATION
from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.documents.partition_manifest import Manifest
from deerfield.errors import InvalidInput
from deerfield.gate import Evidence, Held, Lineage, Rules
from deerfield.gate.evaluated import read_evaluation
from deerfield.gate.ledgers import commitments, proven
from deerfield.mirror import FOLDER
from deerfield.runfile import parse
from deerfield.runspec import RunSpec
from pipelines.registry.reader import CANDIDATE, RegistryReader, Version

RUN_FILE, LINEAGE = "run.json", "lineage.json"  # artifacts that the aggregator writes
KEPT = (LINEAGE, MANIFEST, EVALUATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which version is to be judged, and by which files; without a manifest, what the run has kept of one counts."""

    model: str
    version: str  # empty: the one with the alias `candidate`
    evaluation: Path
    manifest: Path | None


def collect(registry: RegistryReader, rules: Rules, request: Request) -> Evidence:
    """Everything that the rules are held against.

    Raises:
        InvalidInput: a file cannot be used, or the version is not there, is the champion already, or is none of ours.
        Unreachable: MLflow does not answer.
    """
    read_evaluation(request.evaluation)  # refused before anybody is asked
    given = None if request.manifest is None else reading.content(request.manifest, Manifest.WHAT)
    version = chosen(registry, request.model, request.version)
    champion = registry.champion(request.model)
    if champion is not None and champion.version == version.version:
        raise InvalidInput(f"{version} is the champion already; there is nothing to promote")
    if not version.run:
        raise InvalidInput(f"{version} was not registered by deerfield: it has no tag deerfield.run")
    spec = parse(RunSpec, registry.document(version, RUN_FILE), f"{RUN_FILE} of {version}")
    documents = [registry.document(version, path) for path in registry.artifacts(version, FOLDER)]
    proof, spent = proven(documents, spec, rules.proof, version.epsilon)
    kept = {name: registry.content(version, name) for name in KEPT if name in registry.artifacts(version)}
    return Evidence(
        model=version.model,
        candidate=_held(version),
        champion=None if champion is None else _held(champion),
        evaluation=read_evaluation(request.evaluation, _sha256(kept.get(EVALUATION))),
        spent=spent,
        proof=proof,
        lineage=_lineage(version, spec, documents, {"given": given, "kept": kept.get(MANIFEST)}, kept.get(LINEAGE)),
        time=time.time(),
    )


def chosen(registry: RegistryReader, model: str, version: str) -> Version:
    """The version of that number, or else the one with the alias `candidate`.

    Raises:
        InvalidInput: there is none.
        Unreachable: MLflow does not answer.
    """
    if version:
        return registry.version(model, version)
    found = next((each for each in registry.versions(model) if CANDIDATE in each.aliases), None)
    if found is None:
        raise InvalidInput(f"{model} has no candidate; name a version, as in {model}/2")
    return found


def _held(version: Version) -> Held:
    return Held(version=version.version, run=version.run, digest=version.digest)


def _lineage(
    version: Version,
    spec: RunSpec,
    documents: Sequence[Mapping[str, Any]],
    manifests: Mapping[str, bytes | None],
    lineage: bytes | None,
) -> Lineage:
    told = _told(lineage, version)
    found = {where: content for where, content in manifests.items() if content is not None}
    manifest = next((reading.parsed(Manifest, each, f"{MANIFEST} ({where})") for where, each in found.items()), None)
    named = {LINEAGE: str(told["manifest"])} if told.get("manifest") else {}
    return Lineage(
        spec_sha256=version.tags.get("deerfield.spec_sha256", ""),
        run_file=spec.sha256,
        code=str(told.get("code", "")),
        base_digest=version.tags.get("deerfield.base_digest", ""),
        trained_on=spec.model.digest or "",
        commitments=commitments(documents),
        kind="" if manifest is None else manifest.kind,
        hub={} if manifest is None else manifest.hub,
        test_examples=None if manifest is None or manifest.test is None else manifest.test.examples,
        manifests={**{where: _sha256(each) for where, each in found.items()}, **named},
    )


def _told(lineage: bytes | None, version: Version) -> Mapping[str, Any]:
    """What the run's lineage.json says; nothing where there is none, or it is of another run."""
    try:
        found = json.loads(lineage or b"{}")
    except ValueError:
        raise InvalidInput(
            f"{LINEAGE} of {version} is no JSON; the aggregator writes it, somebody has changed it"
        ) from None
    return found if isinstance(found, dict) and found.get("run") == version.run else {}


def _sha256(content: bytes | None) -> str:
    return "" if content is None else sha256(content).hexdigest()
