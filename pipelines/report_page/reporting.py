"""Where a report comes from: a run at the aggregator, or the folder of one, and the documents that were made of it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deerfield.documents.evaluation import Evaluation
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import Document, read
from deerfield.documents.verdict import Verdict
from deerfield.errors import InvalidInput
from deerfield.exchange import ENDINGS
from deerfield.runfile import parse
from deerfield.runspec import RunSpec
from deerfield.wire.client import RunsClient
from pipelines.report_page.documents import ResultDocument
from pipelines.report_page.found import Found, of
from pipelines.report_page.page import render
from pipelines.runs.result import Result

NAME = "report.html"
DOCUMENTS: Mapping[str, type[Document]] = {"evaluation": Evaluation, "verdict": Verdict, "manifest": Manifest}


def at_aggregator(runs: RunsClient, run: str) -> Found:
    """What the aggregator knows of a run so far; it need not have ended.

    Raises:
        UnknownRun, Unreachable: as every call of `runs`.
    """
    view = runs.get(run)
    result, events = Result(view.spec, run), runs.past(run)
    for event in events:
        result.seen(event)
    last = next((event for event in events if event.kind in ENDINGS), events[-1])  # scores and files follow the end
    result.seconds = last.time - view.started_at
    result.state, result.reason = view.state.lower(), view.reason
    return Found(run=run, spec=view.spec, result=of(result))


def in_folder(folder: Path) -> Found:
    """What `deerfield run` has left in its folder, with the documents that lie there under their own names.

    Raises:
        InvalidInput: it never ran there, or one of the documents cannot be used.
    """
    if not (folder / "run.json").exists() and not (folder / "result.json").exists():
        raise InvalidInput(
            f"{folder} holds no run, neither result.json nor run.json; name a folder that a run has left"
        )
    found = Found(run=folder.name)
    try:
        found = replace(found, spec=_spec(folder / "spec.json"))
        found = replace(found, result=read(ResultDocument, folder / "result.json", "result.json"))
    except InvalidInput as error:
        found = replace(found, missing=(str(error),))
    return completed(found, {name: path for name in DOCUMENTS if (path := folder / f"{name}.json").exists()})


def _spec(path: Path) -> RunSpec:
    try:
        return parse(RunSpec, json.loads(path.read_bytes()), path.name)
    except OSError as error:
        raise InvalidInput(f"{path.name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InvalidInput(f"{path.name} is no JSON: {error}") from None


def completed(found: Found, documents: Mapping[str, Path]) -> Found:
    """The same with the documents that are named; raises InvalidInput if one cannot be used."""
    changes: dict[str, Any] = {name: read(DOCUMENTS[name], path, path.name) for name, path in documents.items()}
    return replace(found, **changes)


def check_out(out: Path) -> None:
    """Raises InvalidInput if a page cannot go to `out`."""
    if out.exists() or out.is_symlink():
        raise InvalidInput(f"--out {out} is there already, and is never overwritten; name another file")
    if not out.parent.is_dir():
        raise InvalidInput(f"--out {out}: {out.parent} is no folder; make it first")


def write(found: Found, out: Path) -> None:
    """Writes the page; raises InvalidInput where it cannot."""
    page = render(found)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written ({error.strerror}); name another file") from error
