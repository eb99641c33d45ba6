"""What the mirror of a run's ledgers says to the gate: what was proven, what was spent, and of which data."""

from collections.abc import Mapping, Sequence
from typing import Any

from deerfield.errors import InvalidInput
from deerfield.gate.evidence import Proven, Spent
from deerfield.gate.rules import Signers
from deerfield.mirror import Mirror, parse
from deerfield.proof import prove
from deerfield.runspec import RunSpec


def proven(
    documents: Sequence[Mapping[str, Any]], spec: RunSpec, signers: Signers, tags: Mapping[str, float]
) -> tuple[Proven | None, Spent]:
    """What the parsed objects of a mirror prove, and what was spent by them or by the registry's `tags`, if more.

    Without a mirror there is no proof, and the tags alone say what was spent.
    """
    mirrors = readable(documents)
    proof = prove(documents, spec, aggregator_key=signers.aggregator_key, site_keys=signers.site_keys)
    heads = {each.attestation.site: each.head for mirror in mirrors for each in mirror.sealed}
    spent = Spent(
        unit=spec.privacy.unit,
        sites=spec.federation.sites,
        epsilon=_largest(tags, proof.epsilon) if documents else tags,
        lifetime=proof.total if documents else {},
        delta=spec.privacy.delta,
        lifetime_delta={site: head.delta_after for site, head in heads.items()},
        run_limit=spec.privacy.epsilon,
        lifetime_limit=spec.federation.lifetime_epsilon,
    )
    if not documents:
        return None, spent
    found = Proven(
        verified=proof.verified,
        phases=len(mirrors),
        runs=tuple(sorted({mirror.key.run for mirror in mirrors})),
        digest=mirrors[-1].digest if mirrors else "",
        findings=proof.findings,
        notes=proof.notes,
    )
    return found, spent


def commitments(documents: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """What each site last attested about its data."""
    mirrors = readable(documents)
    return {each.attestation.site: each.attestation.data_commitment for mirror in mirrors for each in mirror.sealed}


def readable(documents: Sequence[Mapping[str, Any]]) -> list[Mirror]:
    """The objects that can be read, in the order of their phases; what cannot is a finding of the proof."""
    found = []
    for document in documents:
        try:
            found.append(parse(document))
        except InvalidInput:
            continue
    return sorted(found, key=lambda each: (each.key.incarnation, each.key.round, each.key.phase))


def _largest(tags: Mapping[str, float], proven: Mapping[str, float]) -> Mapping[str, float]:
    """By site, what the registry says or what the proof says, whichever is more."""
    return {site: max(tags.get(site, 0.0), proven.get(site, 0.0)) for site in sorted({*tags, *proven})}
