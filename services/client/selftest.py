"""`python -m services.client.selftest`: shows that the client's image works, in a container of its own."""

import sys
from collections.abc import Iterator

from deerfield import selftest
from deerfield.runfile import load_spec
from deerfield.strategies import make
from deerfield.strategy import completed


def own() -> Iterator[str]:
    """PyTorch and what stands on it, and that private training on the trial's model computes what it says."""
    import opacus
    import peft
    import torch
    import transformers

    from services.client.training.engine_check import check_engine
    from services.client.training.models import load

    versions = {each.__name__: each.__version__ for each in (torch, transformers, peft, opacus)}
    yield ", ".join(f"{name} {version}" for name, version in versions.items())
    yield f"trains on {torch.cuda.get_device_name() if torch.cuda.is_available() else 'the CPU'}"
    run = load_spec(selftest.TRIAL / "run.yaml")
    spec = completed(run, make(run).declares)
    check_engine(load(selftest.TRIAL / "model", spec), spec, "AB")
    yield f"gradients of {spec.model.base} are clipped one by one"


if __name__ == "__main__":
    sys.exit(selftest.run("deerfield-client", own))
