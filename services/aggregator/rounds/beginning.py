"""What the first state of a run is made of: an adapter that is drawn, or models that earlier runs have left here."""

from deerfield.errors import InvalidInput
from deerfield.manifest import assemble
from deerfield.runspec import RunSpec
from deerfield.strategy import Declaration
from deerfield.tensors import Tensors, gathered
from services.aggregator.desk import Desk
from services.aggregator.rounds.phase import draw_adapter


def beginning(desk: Desk, spec: RunSpec, declares: Declaration) -> Tensors:
    """The drawn adapter, or the models that the strategy declares, `gathered`.

    Raises:
        InvalidInput: no run that finished here has such a model, or it is none of this run's shapes, base and labels.
    """
    drawn = draw_adapter(spec.adapter, spec.seed)
    if not declares.models:
        return drawn
    return gathered(
        {name: _model(desk, spec, name, digest) if digest else drawn for name, digest in declares.models.items()}
    )


def _model(desk: Desk, spec: RunSpec, name: str, digest: str) -> Tensors:
    with desk.store.edge() as edge:
        row = edge.finished_with(digest)
        last = None if row is None else edge.published(edge.newest_phase(row).key)
    if row is None or last is None:
        raise InvalidInput(
            f"strategy: {name}: no run that finished here has a model with digest {digest}; "
            "`deerfield runs show` has the digest of each"
        )
    if not spec.takes(row.spec) or {each.name: each.shape for each in last.shared.tensors} != dict(spec.adapter):
        raise InvalidInput(
            f"strategy: {name}: the model of run {row.run} has another base model, adapter, head or labels than this "
            "run; score it in a run of its own"
        )
    return assemble(last.shared, desk.published.get)
