"""Run files of a tiny model over notes of three hospitals, and the table of those notes."""

from deerfield.runfile import RunFile, load
from services.client.sources import data
from tests.integration.federation import write

PATIENT = {"unit": "patient", "epsilon": 8.0}


def file(folder, **changes) -> RunFile:
    return load(write(folder, **changes))


def table(run: RunFile) -> data.Table:
    return data.read(run.embedded.source, run.labels, run.model.input)


def partitioned(kind: str, **more) -> dict:
    return {"embedded": {"partition": {"kind": kind, **more}}}
