"""The rules about where a version and its evidence come from: lineage, leakage of test data, and freshness."""

import re
from collections.abc import Iterator

from deerfield.documents.partition_manifest import TEST
from deerfield.gate.evidence import Evidence, Held, Lineage, Proven, Scored, Spent
from deerfield.gate.rules import Rules
from deerfield.gate.verdict import Row, row

SHA256 = re.compile("[0-9a-f]{64}")


def origin_rows(rules: Rules, evidence: Evidence) -> Iterator[Row]:
    """The rows `lineage`, `leakage` and `freshness`."""
    yield _lineage(rules, evidence)
    yield _leakage(evidence)
    yield _freshness(evidence)


def _lineage(rules: Rules, evidence: Evidence) -> Row:
    lineage, spent = evidence.lineage, evidence.spent
    left_out = spent.idle | (spent.absent if rules.epsilon.absent == "allowed" else frozenset())
    sites = set(spent.sites) - left_out
    missing = [*_gaps(lineage), *_gaps_of_sites(lineage, sites), *_gaps_of_hub(lineage, spent)]
    if missing:
        return row("lineage", False, len(missing), 0, f"the lineage is not complete: {'; '.join(missing)}")
    hub = f", {len(lineage.hub)} parts of hub-owned data" if lineage.hub else ""
    said = (
        f"run file {lineage.run_file[:12]}, deerfield {lineage.code}, base {lineage.base_digest[:12]}, "
        f"data commitments of {len(sites)} sites{hub}"
    )
    return row("lineage", True, 0, 0, said)


def _gaps(lineage: Lineage) -> Iterator[str]:
    if not SHA256.fullmatch(lineage.run_file):
        yield "the run file is not there"
    elif lineage.run_file != lineage.spec_sha256:
        yield f"the run file has sha256 {lineage.run_file[:12]}, the version says {lineage.spec_sha256[:12]}"
    if not lineage.code:
        yield "the version of the code is not known"
    if not SHA256.fullmatch(lineage.base_digest):
        yield "the digest of the base model is not known"
    elif lineage.base_digest != lineage.trained_on:
        yield f"the base model is {lineage.base_digest[:12]}, the run file names {lineage.trained_on[:12] or 'none'}"


def _gaps_of_sites(lineage: Lineage, sites: set[str]) -> Iterator[str]:
    if without := sorted(site for site in sites if not SHA256.fullmatch(lineage.commitments.get(site, ""))):
        yield f"no commitment to the data of {', '.join(without)}"


def _gaps_of_hub(lineage: Lineage, spent: Spent) -> Iterator[str]:
    if len(set(lineage.manifests.values())) > 1:
        told = ", ".join(f"{where} {sha256[:12]}" for where, sha256 in lineage.manifests.items())
        yield f"there are manifests that differ ({told})"
    if lineage.kind != "simulation":
        return
    if without := sorted(name for name in {*spent.sites, TEST} if not SHA256.fullmatch(lineage.hub.get(name, ""))):
        yield f"the manifest has no sha256 of {', '.join(without)}"
    if strangers := sorted(set(lineage.hub) - {*spent.sites, TEST}):
        yield f"the manifest names {', '.join(strangers)}, which the run has not"


def _leakage(evidence: Evidence) -> Row:
    found = evidence.evaluation
    if found.overlap != 0:
        said = f"{found.overlap} of the test set's {found.examples} examples are among the training data"
        return row("leakage", False, found.overlap, 0, said)
    if found.checked <= 0 and evidence.lineage.kind == "simulation":
        said = "the test set was not held against the training data, which the hub owns: evaluate it with the manifest"
        return row("leakage", False, None, 0, said)
    if evidence.lineage.kind not in ("simulation", "consortium"):
        said = (
            "the run has kept no manifest that says whose the training data are: give one (--manifest), which is kept "
            "with the run from then on"
        )
        return row("leakage", False, None, 0, said)
    if found.checked <= 0:
        said = "the training data are the sites' own, as the manifest says: the hub has nothing to look for"
        return row("leakage", True, 0, 0, said)
    said = f"no example of the test set is among the {found.checked} training examples that the hub owns"
    return row("leakage", True, 0, 0, said)


def _freshness(evidence: Evidence) -> Row:
    found = evidence.evaluation
    wrong = list(_differs("candidate", found.candidate, evidence.candidate))
    if evidence.champion is not None and found.champion is None:
        wrong.append(f"no champion was evaluated, and version {evidence.champion.version} is")
    elif evidence.champion is None and found.champion is not None:
        wrong.append(f"version {found.champion.version} was evaluated as the champion, and there is none")
    elif evidence.champion is not None and found.champion is not None:
        wrong.extend(_differs("champion", found.champion, evidence.champion))
    if found.kept and found.kept != found.sha256:
        wrong.append(f"the evaluation has sha256 {found.sha256[:12]}, the run has kept {found.kept[:12]}")
    if evidence.proof is not None and evidence.proof.phases:
        wrong.extend(_proves_another(evidence.proof, evidence.candidate))
    if wrong:
        return row("freshness", False, len(wrong), 0, f"the evidence is about something else: {'; '.join(wrong)}")
    champion = f"champion {evidence.champion.version}" if evidence.champion is not None else "no champion"
    said = (
        f"the evidence is of version {evidence.candidate.version}, run {evidence.candidate.run}, digest "
        f"{evidence.candidate.digest[:12]}, against {champion}"
    )
    said += "" if found.kept else "; the run has kept no evaluation to compare this one with"
    return row("freshness", True, 0, 0, said)


def _proves_another(proof: Proven, candidate: Held) -> Iterator[str]:
    if others := sorted(set(proof.runs) - {candidate.run}):
        yield f"the ledgers' mirror is of run {others[0]}, the version of run {candidate.run}"
    elif proof.digest != candidate.digest:
        ends = candidate.digest[:12] or "none"
        yield f"the ledgers' mirror ends in digest {proof.digest[:12]}, the version has {ends}"


def _differs(role: str, scored: Scored, held: Held) -> Iterator[str]:
    if scored.version != held.version:
        yield f"version {scored.version or 'unknown'} was evaluated as the {role}, which is version {held.version}"
    elif scored.digest != held.digest or not held.digest:
        yield (
            f"version {held.version} was evaluated with digest {scored.digest[:12] or 'unknown'}, and the registry "
            f"has {held.digest[:12] or 'none'}"
        )
