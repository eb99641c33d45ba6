"""The evaluation of a candidate: it, the champion and the base model on the hub's own test set, in one file.

Reads the registry, never writes it, and sees no site's data; what a site says of its own data is what its policy let it
report during the run, or lets it report now.
"""

import json
from pathlib import Path

from deerfield.documents.evaluation import CANDIDATE
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import read
from deerfield.errors import InvalidInput
from deerfield.runfile import Source, parse, source_of
from pipelines.evaluation.evaluation_document import document, named, summary
from pipelines.evaluation.scores import Model, TestSet, score
from pipelines.processes.site_process import scratch
from pipelines.registry.reader import CHAMPION, RegistryReader, Version, open_registry
from pipelines.steps.at_sites import report

BASE = "base"
TAG = "deerfield.base_digest"


def evaluate(
    model: str,
    version: str,
    tracking: str,
    base: str,
    test_set: str,
    out: Path,
    manifest: Path | None = None,
    *,
    aggregator: str = "",
    at_sites: float = 0.0,
) -> None:
    """Writes evaluation.json to `out`: candidate, champion, if there is one, and base, with their differences.

    `base` is the base model here, a folder, hub id or package:NAME, and empty for the name that the run has for it.
    `test_set` is a path, or a YAML mapping of `source:` keys, which may name columns for the site and the patient; if
    it is empty, it is the test set of the partition whose `manifest` is given. What that says of training data which
    the hub owns, the test set must not share. Above 0, `at_sites` is the epsilon that the sites of the candidate's run
    may spend on scoring the models too.

    Raises:
        InvalidInput: a model, the base or the test set cannot be used, they do not fit, or a test example is among the
            training data.
        Unreachable: MLflow, or the aggregator, does not answer.
    """
    tested = _tested(test_set, None if manifest is None else _located(manifest))
    registry = open_registry(tracking)
    candidate = registry.version(model, version)
    champion = registry.champion(model)
    with scratch("evaluate") as folder:
        found = score(_models(registry, candidate, champion, base, folder), tested, folder)
    judged = document(found.models, _about(candidate, champion))
    examples = len(found.models[CANDIDATE].labels)
    judged["test_set"] = {"source": tested.source.path, "sha256": found.sha256, "examples": examples}
    judged["reported"] = {site: named(told) for site, told in registry.reported(candidate).items()}
    judged["leakage"] = {"checked": found.checked, "overlap": 0}
    if at_sites:
        report(judged, candidate, champion, aggregator, at_sites)
    print(*summary(judged), sep="\n", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(judged, separators=(",", ":"), allow_nan=False) + "\n")


def _located(path: Path) -> Manifest:
    """The manifest, with what it names beside itself found there."""
    found = read(Manifest, path)
    beside = path.parent / found.example_sha256
    return found.model_copy(update={"example_sha256": str(beside)}) if beside.is_file() else found


def _tested(test_set: str, manifest: Manifest | None) -> TestSet:
    """The test set that was named, or the manifest's, and where the training data's fingerprints are."""
    training = (manifest.example_sha256 if manifest else "") or None
    if test_set:
        return TestSet(source=source_of(test_set, "the test set"), sha256="", training=training)
    part = manifest.test if manifest else None
    if manifest is None or part is None:
        raise InvalidInput(
            "no test set is given, and the partition has none: name a file or folder of examples that belong to the hub"
        )
    if not part.part:
        raise InvalidInput(
            "the manifest does not say where its test set is (test: part): name the test set, by its path, columns and "
            f"rows{f' ({part.rows} beside the manifest)' if part.rows else ''}"
        )
    source = parse(Source, {**manifest.columns, "path": part.part}, "the manifest's test set")
    return TestSet(source=source, sha256=part.sha256, training=training)


def _models(
    registry: RegistryReader, candidate: Version, champion: Version | None, base: str, folder: Path
) -> dict[str, Model]:
    """The models to score, with their adapters fetched below `folder`."""
    own = registry.adapter(candidate, folder / CANDIDATE)
    found = {CANDIDATE: Model(adapter=own, base=base or None)}
    if champion is not None:
        same = champion.tags.get(TAG) == candidate.tags.get(TAG)  # else `base` is not the champion's
        try:
            kept = registry.adapter(champion, folder / CHAMPION)
        except InvalidInput as error:
            raise moved(registry, champion) or error from error
        found[CHAMPION] = Model(adapter=kept, base=base or None if same else None)
    return found | {BASE: Model(adapter=own, base=base or None, trained=False)}


def moved(registry: RegistryReader, champion: Version) -> InvalidInput | None:
    """Why the champion could not be read, if that is because it is champion no longer."""
    now = registry.champion(champion.model)
    if now is not None and now.version == champion.version:
        return None
    other = "there is none now" if now is None else f"it is version {now.version} now"
    return InvalidInput(
        f"{champion} was the champion when the evaluation began, and was deleted or replaced meanwhile: {other}; "
        f"evaluate again"
    )


def _about(candidate: Version, champion: Version | None) -> dict[str, dict[str, str]]:
    about = {
        CANDIDATE: {"version": candidate.version, "digest": candidate.digest},
        BASE: {"version": "", "digest": candidate.tags.get(TAG, "")},
    }
    return about if champion is None else about | {CHAMPION: {"version": champion.version, "digest": champion.digest}}
