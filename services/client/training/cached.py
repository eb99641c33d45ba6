"""One split of a site's data as the model reads it, with what its frozen layers make of it computed once."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from services.client.sources.data import Examples
from services.client.training.device import reproducible
from services.client.training.models import FEATURES, Classifier
from services.client.training.preprocess import Tokens, rows

LIMIT_BYTES = 2 << 30  # kept of one split: several sites may share a machine, and the file cache wants memory too
CHUNK = 64  # examples in one frozen forward pass


class Cached:
    """Examples ready for the model; built once for a run, and used by every phase.

    Keeps the output of the frozen prefix where the model has one and it fits LIMIT_BYTES, else the preprocessed inputs,
    else (images only) nothing, and preprocesses each batch anew. What it keeps of a text is padded to the public limit,
    so that it reads that text alone; a batch is cut to its longest, which changes its cost and not its sums.
    """

    def __init__(self, classifier: Classifier, examples: Examples, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._classifier, self._raw = classifier, examples.inputs
        self.labels = torch.as_tensor(examples.labels, dtype=torch.long)  # (n,)
        self.owners = np.unique(examples.units, return_inverse=True)[1].astype(
            np.int64
        )  # (n,), the patient of each, by number
        self._features: tuple[str, Tensor] | None = None
        self._stored: dict[str, Tensor] | None = None
        if isinstance(classifier.prepare, Tokens) and len(self):
            self._stored = classifier.prepare(self._raw, pad_to="limit")
        for build in (self._frozen, self._read):
            if len(self) and (found := self._collect(build, limit_bytes)) is not None:
                self._stored = found
                break

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, chosen: Tensor) -> dict[str, Tensor]:
        """What the model reads of the examples `chosen` (indices), on its device."""
        return self._here(cut(self._read(chosen)))

    def features(self, slot: str) -> Tensor:
        """Features (n, width) of every example under the adapter of `slot`; computed again only if that changed."""
        adapter = self._classifier.fingerprint(slot)
        if self._features is None or self._features[0] != adapter:
            self._classifier.activate(slot, "")
            found = self._all(lambda chosen: {FEATURES: self._classifier.features(self.inputs(chosen))})
            empty = torch.zeros(0, self._classifier.width)
            self._features = (adapter, found.get(FEATURES, empty))
        return self._features[1]

    def _here(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self._classifier.device.kind) for name, value in inputs.items()}

    def _read(self, chosen: Tensor) -> dict[str, Tensor]:
        if self._stored is not None:
            return rows(self._stored, chosen)
        return self._classifier.prepare([self._raw[int(i)] for i in chosen])

    def _frozen(self, chosen: Tensor) -> dict[str, Tensor] | None:
        """What the skipped layers make of the examples; None if the model has none to skip."""
        prefix, device = self._classifier.prefix, self._classifier.device
        if prefix is None:
            return None
        with device.autocast():
            return prefix.run(self._here(self._read(chosen)))

    def _collect(
        self, build: Callable[[Tensor], dict[str, Tensor] | None], limit_bytes: int
    ) -> dict[str, Tensor] | None:
        """`build` over all examples, unless it has nothing to give or that would be more than `limit_bytes`."""
        with torch.no_grad(), reproducible():
            one = build(torch.arange(1))
        if one is None or len(self) * sum(value.nbytes for value in one.values()) > limit_bytes:
            return None
        return self._all(build)

    def _all(self, build: Callable[[Tensor], dict[str, Tensor] | None]) -> dict[str, Tensor]:
        with torch.no_grad(), reproducible():
            parts = [{k: v.cpu() for k, v in (build(chosen) or {}).items()} for chosen in chunks(len(self), CHUNK)]
        return {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else {})}


def chunks(count: int, size: int) -> Iterable[Tensor]:
    """The indices 0 to `count`, at most `size` at a time."""
    return torch.split(torch.arange(count), size) if count else ()


def cut(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the columns (n, tokens, ...) behind the longest text, which every text only pads; images as they are."""
    mask = inputs.get("attention_mask")
    if mask is None or not len(mask):
        return inputs
    filled = mask.any(0).nonzero()
    length = int(filled.max()) + 1 if len(filled) else 1
    return {name: value[:, :length] for name, value in inputs.items()}
