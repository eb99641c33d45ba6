"""What a run file leaves to its base model: the weights' digest and the shapes that travel. Reads no data."""

from pathlib import Path
from typing import Any

from deerfield.runspec import RunSpec
from deerfield.strategies import make
from services.client.training import backbones, models


def describe(spec: RunSpec, base: Path | str) -> dict[str, Any]:
    """The digest of the base model in the folder `base`, and the adapter that `spec` puts on it.

    Raises:
        InvalidInput: the base model cannot be loaded or does not fit `spec.model`, or a phase would train nothing.
    """
    folder = backbones.locate(str(base))
    classifier = models.load(folder, spec)
    for factors in make(spec).declares.phases:
        classifier.trained(models.SHARED, factors)
    return {
        "digest": backbones.digest(folder),
        "adapter": classifier.schema(),
        "convolutions": classifier.convolutions(),
    }
