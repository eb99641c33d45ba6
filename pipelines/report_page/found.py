"""What there is to say of a run, and what is missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from deerfield.errors import InvalidInput
from deerfield.runspec import RunSpec
from deerfield.strategies import make
from deerfield.strategy import Declaration
from pipelines.report_page.documents import Evaluation, Manifest, Part, ResultDocument, Verdict
from pipelines.runs.result import Result

LARGEST = 64_000_000  # bytes of a document; a larger one is none of ours
Document = TypeVar("Document", bound=Part)


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


def read(model: type[Document], path: Path) -> Document:
    """The document in `path`.

    Raises:
        InvalidInput: there is none, or it is not what deerfield writes.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise InvalidInput(f"{path.name} has {size} bytes; the limit is {LARGEST}")
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path.name} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole of it"
        raise InvalidInput(f"{path.name} is not what deerfield writes: {where}: {first['msg']}") from None
