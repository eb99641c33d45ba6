"""The first task of a pipeline: splits data that the hub owns over sites, or validates the run file of a consortium.

A consortium's data stay where they are and are not asked for: what a site says of them its policy decides, once the run
asks, by a typed refusal or by what it reports.
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
from pipelines.steps.rounds import completed


def partition(run: str, destination: str, manifest: Path, picture: Path) -> None:
    """Writes each site's part below `destination`, the manifest, and a page with a picture of sites and labels.

    `run` is a run file's text. Without an `embedded:` section nothing is read, and `destination` plays no part.
    A second try writes nothing twice.

    Raises:
        InvalidInput: the run file, the source or the destination cannot be used; one sentence says why.
    """
    fields = read_mapping(run, "run", "a run file", "name")
    found = _split(parse(RunFile, fields, "run"), destination) if "embedded" in fields else _validated(run)
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


def _validated(run: str) -> dict[str, Any]:
    """What the hub may know of a consortium before it trains: who takes part, and in which labels."""
    spec = completed(run, ())
    make(spec)
    return consortium(spec.federation.sites, spec.labels, spec.seed)


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    durable.replaced(path, text.encode())
