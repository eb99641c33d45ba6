"""Collects the evidence about a version: from files of other steps, from MLflow, read only, and from the proof."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deerfield.errors import InvalidInput
from deerfield.mirror import FOLDER, Mirror
from deerfield.runfile import parse
from deerfield.runspec import RunSpec
from pipelines.gate import Evidence, Held, Lineage, Proven, Rules, Spent
from pipelines.gate.reading import Manifest, read_evaluation, read_manifest
from pipelines.registry.reader import CANDIDATE, RegistryReader, Version

RUN_FILE, LINEAGE = "run.json", "lineage.json"  # artifacts that the aggregator writes


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
    evaluation = read_evaluation(request.evaluation)
    manifest = read_manifest(request.manifest) if request.manifest is not None else None
    version = chosen(registry, request.model, request.version)
    champion = registry.champion(request.model)
    if champion is not None and champion.version == version.version:
        raise InvalidInput(f"{version} is the champion already; there is nothing to promote")
    if not version.run:
        raise InvalidInput(f"{version} was not registered by deerfield: it has no tag deerfield.run")
    spec = parse(RunSpec, registry.document(version, RUN_FILE), f"{RUN_FILE} of {version}")
    documents = [registry.document(version, path) for path in registry.artifacts(version, FOLDER)]
    mirrors = _mirrors(documents)
    proven, spent = _proven(documents, mirrors, spec, version, rules)
    return Evidence(
        model=version.model,
        candidate=_held(version),
        champion=None if champion is None else _held(champion),
        evaluation=evaluation,
        spent=spent,
        proof=proven,
        lineage=_lineage(_kept_lineage(registry, version), manifest, version, spec, mirrors),
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


def _mirrors(documents: Sequence[Mapping[str, Any]]) -> list[Mirror]:
    """Those that can be read, in the order of their phases; what cannot is a finding of the proof."""
    from deerfield.mirror import parse as parse_mirror

    found = []
    for document in documents:
        try:
            found.append(parse_mirror(document))
        except InvalidInput:
            continue
    return sorted(found, key=lambda each: (each.key.incarnation, each.key.round, each.key.phase))


def _proven(
    documents: Sequence[Mapping[str, Any]], mirrors: Sequence[Mirror], spec: RunSpec, version: Version, rules: Rules
) -> tuple[Proven | None, Spent]:
    """What the ledgers' mirror proves, and what was spent by it; without one, what the registry's tags say."""
    from deerfield.proof import prove

    signers = rules.proof
    proof = prove(documents, spec, aggregator_key=signers.aggregator_key, site_keys=signers.site_keys)
    heads = {each.attestation.site: each.head for mirror in mirrors for each in mirror.sealed}
    spent = Spent(
        unit=spec.privacy.unit,
        sites=spec.federation.sites,
        epsilon=_largest(version.epsilon, proof.epsilon) if documents else version.epsilon,
        lifetime=proof.total if documents else {},
        delta=spec.privacy.delta,
        lifetime_delta={site: head.delta_after for site, head in heads.items()},
        run_limit=spec.privacy.epsilon,
        lifetime_limit=spec.federation.lifetime_epsilon,
    )
    if not documents:
        return None, spent
    proven = Proven(
        verified=proof.verified,
        phases=len(mirrors),
        runs=tuple(sorted({mirror.key.run for mirror in mirrors})),
        digest=mirrors[-1].digest if mirrors else "",
        findings=proof.findings,
    )
    return proven, spent


def _largest(tags: Mapping[str, float], proven: Mapping[str, float]) -> Mapping[str, float]:
    """By site, what the registry says or what the proof says, whichever is more."""
    return {site: max(tags.get(site, 0.0), proven.get(site, 0.0)) for site in sorted({*tags, *proven})}


def _kept_lineage(registry: RegistryReader, version: Version) -> Mapping[str, Any]:
    """What the run's lineage.json says; nothing where there is none, or it is of another run."""
    found = registry.document(version, LINEAGE) if LINEAGE in registry.artifacts(version) else {}
    return found if isinstance(found, dict) and found.get("run") == version.run else {}


def _lineage(
    kept: Mapping[str, Any], manifest: Manifest | None, version: Version, spec: RunSpec, mirrors: Sequence[Mirror]
) -> Lineage:
    hashes = (manifest.sha256 if manifest is not None else "", str(kept.get("manifest") or ""))
    return Lineage(
        spec_sha256=version.tags.get("deerfield.spec_sha256", ""),
        run_file=spec.sha256,
        code=str(kept.get("code", "")),
        base_digest=version.tags.get("deerfield.base_digest", ""),
        trained_on=spec.model.digest or "",
        commitments=_commitments(mirrors),
        kind=manifest.kind if manifest is not None else str(kept.get("kind", "")),
        hub=manifest.hub if manifest is not None else dict(kept.get("hub") or {}),
        manifests=tuple(each for each in hashes if each),
    )


def _commitments(mirrors: Sequence[Mirror]) -> Mapping[str, str]:
    """What each site last attested about its data."""
    return {each.attestation.site: each.attestation.data_commitment for mirror in mirrors for each in mirror.sealed}
