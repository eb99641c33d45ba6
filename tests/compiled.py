"""A small pipeline, compiled as deerfield's own are: every task says which version compiled it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kfp import compiler, dsl

from deerfield import __version__
from pipelines.compiled import compiling
from pipelines.compiled.compile_options import CompileOptions
from tests.fakes import run_spec

SPEC = run_spec("north", "south", name="notes")
UNDESCRIBED = SPEC.canonical()  # a run file's text: JSON is YAML, too
RUN = SPEC.model_copy(update={"model": SPEC.model.model_copy(update={"digest": "d" * 64})}).canonical()
DEFAULTS = CompileOptions()
EMPTY_LIST: list = []
EMPTY_STRUCT: dict = {}


@dsl.component(base_image="python:3.11")
def train(  # noqa: PLR0917 (one parameter of each kind)
    compiled_by: str, run: str, rounds: int, rate: float, fast: bool, sites: list, limits: dict
) -> str:
    return run


def text(name: str, options: CompileOptions = DEFAULTS, **form) -> str:
    """A pipeline of deerfield's own; in a thread, because KFP reads the stack at every call, and pytest's is deep."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(compiling.compiled, name, options, **form).result()


def write(folder: Path, *, name: str = "federated-training", by: str | None = __version__, rounds: int = 3) -> Path:
    """The compiled pipeline's file; `rounds` is a default, and makes it another version."""

    @dsl.pipeline(name=name)
    def pipeline(  # noqa: PLR0917 (one parameter of each kind)
        run: str,
        rounds: int = rounds,
        rate: float = 0.1,
        fast: bool = False,
        sites: list = EMPTY_LIST,
        limits: dict = EMPTY_STRUCT,
    ):
        train(compiled_by=by or "", run=run, rounds=rounds, rate=rate, fast=fast, sites=sites, limits=limits)

    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    with ThreadPoolExecutor(1) as thread:  # as in `text`
        thread.submit(compiler.Compiler().compile, pipeline, str(path)).result()
    if by is None:
        path.write_text(path.read_text().replace("compiled_by", "made_by"))
    return path
