"""The evaluation of a candidate: it, the champion and the base model on the hub's own test set, in one file.

Reads the registry, never writes it, and sees no site's data; what a site says of its own data is what its policy let it
report during the run.
"""

import json
from hashlib import file_digest, sha256
from pathlib import Path

from deerfield.errors import InvalidInput
from deerfield.fingerprint import read_fingerprints
from deerfield.runfile import Source, source_of
from pipelines import scores
from pipelines.evaluation_document import CANDIDATE, document, named, summary
from pipelines.registry_reader import CHAMPION, RegistryReader, Version, open_registry
from pipelines.scores import Model, Scores
from pipelines.site_process import scratch

BASE = "base"
TAG = "deerfield.base_digest"


def evaluate(
    model: str,
    version: str,
    tracking: str,
    base: str,
    test_set: str,
    out: Path,
    training: str = "",
) -> None:
    """Writes evaluation.json to `out`: candidate, champion, if there is one, and base, with their differences.

    `base` is the base model here, a folder, hub id or package:NAME, and empty for the name that the run has for it.
    `test_set` is a path, or a YAML mapping of `source:` keys, which may name columns for the site and the patient.
    `training` names a file of fingerprints of hub-owned training data, empty if the hub has none.

    Raises:
        InvalidInput: a model, the base or the test set cannot be used, they do not fit, or a test example is among the
            training data.
        Unreachable: MLflow does not answer.
    """
    source = source_of(test_set, "the test set")
    against = Path(training) if training else None
    if against is not None:
        read_fingerprints(against)  # before any model is fetched
    registry = open_registry(tracking)
    candidate = registry.version(model, version)
    champion = registry.champion(model)
    with scratch("evaluate") as folder:
        models = _models(registry, candidate, champion, base, folder)
        found, checked = scores.score(models, source, against, folder)
    judged = document(found, _about(candidate, champion))
    judged["test_set"] = {
        "source": source.path,
        "sha256": _sha256(source, found[CANDIDATE]),
        "examples": len(found[CANDIDATE].labels),
    }
    judged["reported"] = {site: named(told) for site, told in registry.reported(candidate).items()}
    judged["leakage"] = {"checked": checked, "overlap": 0}
    print(*summary(judged), sep="\n", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(judged, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n")


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


def _sha256(source: Source, found: Scores) -> str:
    """Of the test set's file; where it is a folder, a hub id or chosen rows, of its examples and their labels."""
    path = Path(source.path)
    if path.is_file() and source.rows is None:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    rows = (
        f"{example} {found.classes[label]}\n" for example, label in zip(found.fingerprints, found.labels, strict=True)
    )
    return sha256("".join(rows).encode()).hexdigest()
