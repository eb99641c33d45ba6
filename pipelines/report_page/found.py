"""What there is to say of a run, and what is missing."""

from dataclasses import dataclass

from deerfield.documents.evaluation import Evaluation
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.verdict import Verdict
from deerfield.errors import InvalidInput
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import Declaration
from pipelines.report_page.documents import ResultDocument
from pipelines.runs.result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Everything that a report may hold; what is None is missing, and `missing` says why, a sentence each."""

    run: str = ""  # as it was asked for
    spec: RunSpec | None = None
    result: ResultDocument | None = None
    evaluation: Evaluation | None = None
    verdict: Verdict | None = None
    manifest: Manifest | None = None
    missing: tuple[str, ...] = ()
    failure: str = ""  # of the pipeline around the run, in its own words

    @property
    def name(self) -> str:
        """What the report calls the run."""
        return self.result.run if self.result else self.run or "a run that was never started"

    @property
    def declares(self) -> Declaration | None:
        """What the run's strategy says of itself; None where there is no run file, or this version does not know it."""
        try:
            return make(self.spec).declares if self.spec else None
        except InvalidInput:
            return None

    @property
    def phases(self) -> int:
        """How many phases the run has when it is complete; 0 where nobody knows."""
        return self.declares.rounds * len(self.declares.phases) if self.declares else 0


def of(result: Result) -> ResultDocument:
    """What the events of a run came to so far."""
    return ResultDocument.model_validate(result.json())
