"""What there is to say of a run, and what is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from deerfield.runspec import RunSpec
from deerfield.strategies import make
from pipelines.report_page.documents import Evaluation, Manifest, Part, ResultDocument, Verdict
from pipelines.result import Result

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
    def phases(self) -> int:
        """How many phases the run has when it is complete; 0 where its run file is missing."""
        if self.spec is None:
            return 0
        declares = make(self.spec).declares
        return declares.rounds * len(declares.phases)


def of(result: Result) -> ResultDocument:
    """What the events of a run came to so far."""
    return ResultDocument.model_validate(result.json())


def read(model: type[Document], path: Path, gap: Callable[[str], None]) -> Document | None:
    """The document in `path`; without a usable one it tells `gap` why, and answers None."""
    try:
        if (size := path.stat().st_size) > LARGEST:
            gap(f"{path.name} has {size} bytes; the limit is {LARGEST}")
            return None
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        gap(f"{path.name} cannot be read ({error.strerror})")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole of it"
        gap(f"{path.name} is not what deerfield writes: {where}: {first['msg']}")
    return None
