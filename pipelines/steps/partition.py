"""The first task of a pipeline: splits data that the hub owns over sites, or validates the run of a consortium.

A consortium's data stay where they are. What is known of them is what each site's policy lets it report when it says
Hello to the aggregator, and this task asks the aggregator for that.
"""

from pathlib import Path
from typing import Any

from deerfield import durable
from deerfield.documents.partition_manifest import consortium, text
from deerfield.errors import InvalidInput
from deerfield.runfile import RunFile, parse, read_mapping, resolve
from deerfield.strategies import make
from pipelines.pages import partition_picture
from pipelines.processes.site_process import answer, scratch
from pipelines.steps.roster import roster
from pipelines.steps.rounds import completed
from pipelines.steps.running import say


def partition(run: str, destination: str, aggregator: str, manifest: Path, picture: Path) -> None:
    """Writes each site's part below `destination`, the manifest, and a page with a picture of sites and labels.

    `run` is a run file's text. Without an `embedded:` section no data are read, and `destination` plays no part; with
    one, `aggregator` does not. A second try writes nothing twice.

    Raises:
        InvalidInput: the run file, the source or the destination cannot be used, or too few of a consortium's sites
            would take part; one sentence says why.
        Unreachable: the aggregator did not answer for a minute.
    """
    fields = read_mapping(run, "run", "a run file", "name")
    file = parse(RunFile, fields, "run") if "embedded" in fields else None
    found = _validated(run, aggregator) if file is None else _split(file, destination)
    print(partition_picture.told(found), flush=True)
    _write(picture, partition_picture.page(found))
    _write(manifest, text(found))  # last: others wait for it


def _split(file: RunFile, destination: str) -> dict[str, Any]:
    if not destination:
        raise InvalidInput("destination is empty; name a folder, or s3://BUCKET/PREFIX, for the sites' parts")
    make(file.spec)  # refuses a bad strategy or unit before anything is read
    with scratch("partition") as folder:
        request = folder / "run.json"
        request.write_text(resolve(file, Path.cwd()).model_dump_json())
        return answer("partition", ["--run", str(request), "--destination", destination], folder)


def _validated(run: str, aggregator: str) -> dict[str, Any]:
    """What the hub may know of a consortium before it trains: who takes part, in which labels, and what they report."""
    spec = completed(run, ())
    make(spec)
    return consortium(spec.federation.sites, spec.labels, spec.seed, roster(spec, aggregator, say))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    durable.replaced(path, text.encode())
