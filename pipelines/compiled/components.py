"""The tasks of the pipelines, as KFP reads them: each calls one function of `pipelines.steps`, and no more.

KFP copies the source of each function into the pipeline, so imports stand inside. Every function takes `compiled_by`:
an image of another version refuses to run it.
"""

from typing import NamedTuple

from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Output, PipelineTaskFinalStatus


def partition(
    compiled_by: str,
    run: str,
    destination: str,
    rules: str,
    manifest: Output[Dataset],
    picture: Output[HTML],
    aggregator: str = "",
    evaluate_at_sites: float = 0.0,
) -> None:
    """Validates the run of a consortium, its sites and what is asked later, or splits hub-owned data over sites."""
    from pathlib import Path

    from deerfield.gate.rules import rules_of
    from pipelines.steps.at_sites import check
    from pipelines.steps.partition import partition as work
    from pipelines.steps.running import step

    with step(compiled_by):
        rules_of(rules, "rules")  # mistakes in these are found before anything is spent
        check(evaluate_at_sites)
        work(run, destination, aggregator, Path(manifest.path), Path(picture.path))


def start(
    compiled_by: str,
    run: str,
    request_id: str,
    aggregator: str,
    base: str,
    names: str,
    gpus: int,
    gpus_compiled: int,
    manifest: Input[Dataset],
) -> NamedTuple("Started", [("run_id", str), ("sites", list)]):  # type: ignore[valid-type]  # KFP's own form
    """Starts the run that the sites' pods are told to take part in; answers its name, and what each pod is given."""
    from pathlib import Path

    from pipelines.steps.keep import begin
    from pipelines.steps.running import step
    from pipelines.steps.sites import Cluster, check_gpus, pods

    with step(compiled_by):
        check_gpus(gpus, gpus_compiled)
        parts, cluster = Path(manifest.path), Cluster(base=base, names=names, data=Path("/data"))
        started = begin(run, request_id, aggregator, parts)
        return started.run, pods(started, run, parts, cluster)


def rounds(
    compiled_by: str, run: str, request_id: str, aggregator: str, join_timeout_s: int, manifest: Input[Dataset]
) -> str:
    """Starts the run or re-attaches to it, and follows it to its end; answers its name."""
    from pathlib import Path

    from pipelines.steps.keep import begin
    from pipelines.steps.rounds import rounds as work
    from pipelines.steps.running import say, step

    with step(compiled_by):
        begun = begin(run, request_id, aggregator, Path(manifest.path))
        return work(run, request_id, aggregator, say, begun.sites, join_timeout_s).run


def register(compiled_by: str, run_id: str, aggregator: str) -> NamedTuple(  # type: ignore[valid-type]  # KFP's own
    "Registered", [("model", str), ("version", str)]
):
    """Answers the model version that the aggregator has registered."""
    from pipelines.steps.register import register as work
    from pipelines.steps.running import step

    with step(compiled_by):
        found = work(run_id, aggregator)
        return found.model, found.version


def evaluate(
    compiled_by: str,
    run_id: str,
    model: str,
    version: str,
    aggregator: str,
    tracking: str,
    base: str,
    test_set: str,
    evaluate_at_sites: float,
    manifest: Input[Dataset],
    evaluation: Output[Dataset],
    metrics: Output[Metrics],
    classes: Output[ClassificationMetrics],
    page: Output[HTML],
) -> None:
    """Scores the candidate, the champion and the base model on the hub's test set, and at the sites if asked to."""
    from pathlib import Path

    from pipelines.steps.evaluate import evaluate as work
    from pipelines.steps.keep import EVALUATION, keep
    from pipelines.steps.running import step
    from pipelines.steps.shown import show

    with step(compiled_by):
        out = Path(evaluation.path)
        tested = base, test_set, out, Path(manifest.path)
        work(model, version, tracking, *tested, aggregator=aggregator, at_sites=evaluate_at_sites)
        keep(run_id, aggregator, EVALUATION, out)
        show(out, metrics, classes, Path(page.path))


def gate(
    compiled_by: str,
    model: str,
    version: str,
    rules: str,
    tracking: str,
    aggregator: str,
    evaluation: Input[Dataset],
    manifest: Input[Dataset],
    verdict: Output[Artifact],
) -> bool:
    """Judges the candidate by the rules; answers whether it may be promoted."""
    from pathlib import Path

    from pipelines.steps.gate import gate as work
    from pipelines.steps.running import step

    with step(compiled_by):
        paths = (Path(each.path) for each in (evaluation, manifest, verdict))
        return work(model, version, rules, tracking, aggregator, *paths)


def promote(compiled_by: str, aggregator: str, verdict: Input[Artifact]) -> str:
    """Makes the candidate the champion; answers the version that was champion before."""
    from pathlib import Path

    from pipelines.steps.promote import promote as work
    from pipelines.steps.running import step

    with step(compiled_by):
        return work(aggregator, Path(verdict.path)).previous


def report(
    compiled_by: str,
    run: str,
    request_id: str,
    aggregator: str,
    tracking: str,
    status: PipelineTaskFinalStatus,
    page: Output[HTML],
) -> None:
    """Writes the page of the run, whatever has become of the pipeline."""
    from pathlib import Path

    from pipelines.steps.closing import close
    from pipelines.steps.running import say, step

    with step(compiled_by):
        failure = "" if status.state == "SUCCEEDED" else status.error_message or status.state
        close(run, request_id, aggregator, tracking, failure, Path(page.path), say)
