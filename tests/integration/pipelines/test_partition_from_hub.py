"""The partition step on an id of the model hub: from the hub, from its cache where it is away, and from neither."""

import json
import os
import subprocess
import sys

import pytest

from deerfield.runfile import load
from tests import data_hub
from tests.integration.federation import SITES, write

NAME = "hospital/notes"
FILL = "import sys; from huggingface_hub import snapshot_download; snapshot_download(sys.argv[1], repo_type='dataset')"
STEP = "import sys; from pathlib import Path; from pipelines.steps.partition import partition; \
partition(Path(sys.argv[1]).read_text(), sys.argv[2], '', *map(Path, sys.argv[3:]))"


def run(hub, *command):
    """A process that knows this hub and its cache, and no other."""
    here = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | hub.environment
    argv = [sys.executable, *map(str, command)]
    return subprocess.run(argv, env=here, capture_output=True, text=True, timeout=120, check=False)


def refused(done):
    """The one sentence of a process that a person must help."""
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    return sentence


@pytest.mark.e2e
def test_a_hub_id_gives_the_same_parts_from_the_hub_and_from_its_cache_where_the_hub_is_away(tmp_path):
    source = {"path": "notes.csv", "patient": "patient", "site": "hospital"}
    file = load(write(tmp_path, embedded={"source": source})).model_dump(mode="json")
    content = (tmp_path / "notes.csv").read_bytes()
    runs = {}
    for name in (NAME, "hospital/none"):
        file["embedded"]["source"]["path"] = name
        runs[name] = tmp_path / f"{name.replace('/', '-')}.json"
        runs[name].write_text(json.dumps(file))  # JSON is YAML
    manifest, page = tmp_path / "manifest.json", tmp_path / "page.html"

    def split(name, destination):
        return run(
            hub, "-m", "services.client", "partition", "--run", runs[name], "--destination", tmp_path / destination
        )

    with data_hub.serving(NAME, {"train.csv": content}, tmp_path / "cache") as hub:
        done = run(hub, "-c", STEP, runs[NAME], tmp_path / "parts", manifest, page)
        assert done.returncode == 0, done.stderr
        assert "'hospital/none' doesn't exist on the Hub or cannot be accessed" in refused(split("hospital/none", "no"))
        filled = run(hub, "-c", FILL, NAME)
        assert filled.returncode == 0, filled.stderr
    found = json.loads(manifest.read_text())
    assert (found["source"], tuple(found["sites"])) == (NAME, SITES)
    every = (*found["sites"].values(), found["test"])
    assert sum(part["examples"] for part in every) + found["test"]["copies"] == content.count(b"\n") - 1

    done = split(NAME, "again")  # the hub has ended
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout.splitlines()[-1])
    assert [part["sha256"] for part in (*again["sites"].values(), again["test"])] == [part["sha256"] for part in every]
    said = refused(split("hospital/none", "no"))
    assert "hospital/none is no file or folder here, and the model hub cannot be reached" in said
    assert not (tmp_path / "no").exists()
