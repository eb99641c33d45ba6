"""`python -m pipelines.selftest`: shows that the pipelines' image works, in a container of its own."""

import sys
from collections.abc import Iterator

from deerfield import selftest
from deerfield.runfile import load_spec


def own() -> Iterator[str]:
    """The command, what the tasks import, both pipelines compiled, and the files of a trial."""
    from typer.main import get_command

    from pipelines import cli
    from pipelines.compiled import compile_options, compiling

    yield f"deerfield has {len(get_command(cli.app).commands)} commands"  # type: ignore[attr-defined]
    import kfp.dsl.executor_main
    import matplotlib.pyplot
    import mlflow
    import torch

    versions = {each.__name__: each.__version__ for each in (kfp, matplotlib, mlflow, torch)}
    yield ", ".join(f"{name} {version}" for name, version in versions.items())
    for name in compiling.NAMES:
        size = len(compiling.compiled(name, compile_options.load(None)))
        yield f"{name} compiles to {size} characters"
    spec = load_spec(selftest.TRIAL / "run.yaml")
    yield f"the trial is {spec.name}, {spec.rounds} rounds"


if __name__ == "__main__":
    sys.exit(selftest.run("deerfield-pipelines", own))
