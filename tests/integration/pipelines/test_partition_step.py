"""The partition step: parts that a site can train on, in a folder or a bucket, written once; sentences for the rest."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from deerfield.errors import InvalidInput
from deerfield.fingerprint import fingerprint, read_fingerprints
from deerfield.runfile import RunFile, load
from deerfield.wire.backoff import Backoff
from pipelines.steps.partition import partition
from services import objects
from services.client.sources import data, parts, store
from services.client.sources.store import S3
from tests import s3
from tests.integration.federation import SITES, write
from tests.unit.client import tiny

CONSORTIUM: dict[str, Any] = {
    "name": "notes",
    "population": "notes",
    "labels": ["a", "b"],
    "model": {"base": "tiny", "input": "text", "digest": "0" * 64},
    "privacy": {"unit": "none"},
    "federation": {"sites": ["east", "west"], "quorum": 2},
    "adapter": {"head.weight": [2, 4], "head.bias": [2]},
}
STEP = "import sys; from pathlib import Path; from pipelines.steps.partition import partition; \
from pipelines.steps.running import step; from deerfield import __version__\n\
with step(__version__): partition(Path(sys.argv[1]).read_text(), sys.argv[2], '', Path(sys.argv[3]), Path(sys.argv[4]))"


@pytest.fixture(scope="module")
def server():
    with s3.serving() as found:
        yield found


def text(path: Path) -> str:
    """A run file as a pipeline is given it: its paths are whole."""
    return yaml.safe_dump(load(path).model_dump(mode="json"))


def run(file: Path | str, destination: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    (folder / "given.yaml").write_text(file if isinstance(file, str) else text(file))
    here = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | environment
    argv = [folder / "given.yaml", destination, folder / "manifest.json", folder / "page.html"]
    command = [sys.executable, "-c", STEP, *map(str, argv)]
    return subprocess.run(command, env=here, capture_output=True, text=True, timeout=120, check=False)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def read(part: dict[str, Any], file) -> data.Table:
    source = file.embedded.source.model_copy(update={"path": part["part"], "rows": None})
    return data.read(source, file.labels, file.model.input)


def test_every_example_is_in_one_part_as_the_manifest_says_and_a_second_try_writes_nothing(tmp_path):
    path = write(tmp_path)
    done = run(path, tmp_path / "parts", tmp_path)
    assert done.returncode == 0, done.stderr
    found, file = manifest(tmp_path), load(path)
    assert tuple(found["sites"]) == SITES
    every = {**found["sites"], "test": found["test"]}
    tables = {name: read(part, file) for name, part in every.items()}
    whole = data.read(file.embedded.source, file.labels, "text").examples
    kept = Counter(each for table in tables.values() for each in table.examples.inputs)
    trained = {fingerprint(each) for site in SITES for each in tables[site].examples.inputs}
    left_out = Counter(whole.inputs) - kept  # of the test set, what a site trains on too
    assert kept <= Counter(whole.inputs)
    assert left_out.total() == found["test"]["copies"] > 0
    assert {fingerprint(each) for each in left_out} <= trained
    assert not {fingerprint(each) for each in tables["test"].examples.inputs} & trained
    for name, part in every.items():
        examples = tables[name].examples
        assert part["examples"] == part["units"] == len(examples)
        assert list(part["labels"].values()) == np.bincount(examples.labels, minlength=3).tolist()
        assert part["sha256"] in part["part"]
    assert all(set(tables[site].sites) == {site} for site in SITES)
    training = [fingerprint(each) for site in SITES for each in tables[site].examples.inputs]
    assert sorted(training) == list(read_fingerprints(Path(found["example_sha256"])))
    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "parts").rglob("*") if each.is_file()}
    assert len(before) == 5
    (tmp_path / "manifest.json").unlink()
    assert run(path, tmp_path / "parts", tmp_path).returncode == 0
    assert {each: each.stat().st_mtime_ns for each in (tmp_path / "parts").rglob("*") if each.is_file()} == before
    assert manifest(tmp_path) == found
    page = (tmp_path / "page.html").read_text()
    assert "<svg" in page
    assert all(word in page for word in (*SITES, *tiny.LABELS))


@pytest.mark.e2e
def test_a_part_that_was_torn_by_a_full_disk_is_written_again(tmp_path):
    path = write(tmp_path)
    run(path, tmp_path / "parts", tmp_path)
    part = Path(manifest(tmp_path)["sites"]["east"]["part"])
    content = part.read_bytes()
    part.write_bytes(content[:100])
    assert run(path, tmp_path / "parts", tmp_path).returncode == 0
    assert part.read_bytes() == content


@pytest.mark.e2e
def test_source_and_parts_in_a_bucket(tmp_path, server):
    bucket = server.bucket()
    write(tmp_path)
    server.client.fput_object(bucket, "in/notes.csv", str(tmp_path / "notes.csv"))
    source = {"path": server.url(bucket, "in/notes.csv"), "patient": "patient", "site": "hospital"}
    elsewhere = write(tmp_path, embedded={"source": source})
    done = run(elsewhere, server.url(bucket, "out"), tmp_path, **s3.ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    found = manifest(tmp_path)
    objects = {
        each.object_name: each.last_modified for each in server.client.list_objects(bucket, "out/", recursive=True)
    }
    assert len(objects) == 5
    assert run(elsewhere, tmp_path / "parts", tmp_path, **s3.ENVIRONMENT).returncode == 0
    here = manifest(tmp_path)
    assert {name: part["sha256"] for name, part in found["sites"].items()} == {
        name: part["sha256"] for name, part in here["sites"].items()
    }
    assert run(elsewhere, server.url(bucket, "out"), tmp_path, **s3.ENVIRONMENT).returncode == 0
    again = {
        each.object_name: each.last_modified for each in server.client.list_objects(bucket, "out/", recursive=True)
    }
    assert again == objects


def test_a_part_of_pictures_has_their_pixels(tmp_path):
    rng, pixels = np.random.default_rng(0), {}
    for at in range(40):
        place = tmp_path / "pictures" / tiny.LABELS[at % 3] / f"{at}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels[at] = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels[at]).save(place)
    embedded = {
        "base": None,
        "source": {"path": "pictures", "input": "image"},
        "partition": {"kind": "iid", "sites": 2, "minimum": 2},
    }
    path = write(tmp_path, model={"input": "image"})
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "embedded": embedded}))
    file = load(path)
    found = parts.partition(file, store.open_store(str(tmp_path / "parts")))
    tables = [read(part, file) for part in (*found["sites"].values(), found["test"])]
    assert sum(len(table.examples) for table in tables) == 40
    seen = {fingerprint(np.asarray(each)) for table in tables for each in table.examples.inputs}
    assert seen == {fingerprint(each) for each in pixels.values()}


def test_the_parts_of_a_hundred_sites_make_a_page(tmp_path):
    changes = {"partition": {"kind": "iid", "sites": 60, "minimum": 1}, "source": {"path": "notes.csv"}}
    path = write(tmp_path)
    document = yaml.safe_load(path.read_text())
    document["embedded"] = {**changes, "base": "model"}
    path.write_text(yaml.safe_dump(document))
    partition(text(path), str(tmp_path / "parts"), "", tmp_path / "manifest.json", tmp_path / "page.html")
    assert len(manifest(tmp_path)["sites"]) == 60
    assert "site-60" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"federation": {}}, "federation: sites is empty"),
        ({"adapter": {}}, "does not describe its base model"),
        ({"federation": {"sites": ["east"], "quorum": 2}}, "quorum"),
        ({"labels": ["a"]}, "labels"),
    ],
)
def test_a_consortium_that_cannot_train_is_one_sentence(tmp_path, changes, says):
    done = run(yaml.safe_dump(CONSORTIUM | changes), "", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert says in done.stderr
    assert not (tmp_path / "manifest.json").exists()


def written(path: Path, destination: str | Path, environment: dict[str, str] | None = None, **changes: Any) -> Any:
    """What a site's process does for the step."""
    file = load(path)
    file = RunFile.model_validate(file.model_dump() | changes)
    return parts.partition(file, store.open_store(str(destination), environment or {}))


def test_data_that_cannot_be_split_are_one_sentence(tmp_path):
    path = write(tmp_path)
    with pytest.raises(InvalidInput, match=r"'gout' occurs in none of the 120 rows of .*notes.csv, column 'label'"):
        written(path, tmp_path, labels=[*tiny.LABELS, "gout"])
    (tmp_path / "notes.csv").write_text("hospital,patient,label,text\n")
    with pytest.raises(InvalidInput, match="no rows"):
        written(path, tmp_path)
    (tmp_path / "notes.csv").unlink()
    done = run(path, tmp_path, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "notes.csv" in done.stderr


def test_places_that_cannot_be_used_are_one_sentence(tmp_path, server):
    path, keys = write(tmp_path), s3.ENVIRONMENT
    (tmp_path / "file").write_text("")
    cases = [
        (tmp_path / "file", {}, "destination: .*cannot be written.*Not a directory"),
        (server.url("not-there"), keys, "s3://not-there/ at .*create the bucket, or name another"),
        (server.url(server.bucket()), {}, "destination: no credentials .*set AWS_ACCESS_KEY_ID"),
        ("s3://parts?password=x", keys, "'password' is no option"),
    ]
    for destination, environment, says in cases:
        with pytest.raises(InvalidInput, match=says):
            written(path, destination, environment)
    done = run(path, "", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "destination is empty" in done.stderr


def test_an_object_that_is_not_there_is_one_sentence(tmp_path, server):
    document = load(write(tmp_path)).model_dump(mode="json")
    document["embedded"]["source"]["path"] = server.url(server.bucket(), "none.csv")
    done = run(yaml.safe_dump(document), tmp_path, tmp_path, **s3.ENVIRONMENT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "holds no object 'none.csv'" in done.stderr


def test_a_server_that_does_not_answer_is_named_with_the_time_that_it_was_given():
    bucket = objects.read_bucket("s3://parts/x?endpoint=127.0.0.1:9&secure=false", "destination")
    quick = Backoff(first_s=0.01, last_s=0.02, patience_s=0.1)
    with pytest.raises(InvalidInput, match=r"s3://parts/x/ at 127.0.0.1:9.*, for 0 s; check endpoint and secure"):
        S3(bucket, "destination", s3.ENVIRONMENT, quick).put("a", b"b")
