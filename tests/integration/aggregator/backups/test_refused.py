"""Backups that cannot be made or restored: refused before anything is touched."""

import json
import zipfile
from pathlib import Path

import pytest

from deerfield.certificates import load
from deerfield.errors import InvalidInput
from tests import pki
from tests.fakes import run_spec
from tests.pki import NOW


def test_a_restore_refuses_what_it_should_not_touch(pair, tmp_path, ca):
    first = pair.open(pair.folder / "a")
    run = first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    with pytest.raises(InvalidInput, match="never overwritten"):
        pair.backup()
    north = load(pki.files(ca, tmp_path / "north"), NOW)
    with pytest.raises(InvalidInput, match="only an operator restores"):
        pair.restore(operator=north)
    first.desk.store.close()
    with pytest.raises(InvalidInput, match="holds rows already"):
        pair.restore("a")
    pair.restore("b")
    with pytest.raises(InvalidInput, match="holds rows already"):
        pair.restore("b")
    second = pair.open(pair.folder / "b")
    assert second.runs.get(run).state == "RUNNING"
    with pytest.raises(InvalidInput, match="is in use by"):
        pair.restore("b")


def damaged(path: Path, change) -> None:
    """The same archive with other parts, as a zip that is whole in itself."""
    with zipfile.ZipFile(path) as found:
        parts = {name: found.read(name) for name in found.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w") as made:
        for name, data in parts.items():
            made.writestr(name, data)


def manifest(**changes):
    def change(parts):
        parts["manifest.json"] = json.dumps({**json.loads(parts["manifest.json"]), **changes}).encode()

    return change


def forged(parts):
    parts["rows/runs.jsonl"] = parts["rows/runs.jsonl"].replace(b'"RUNNING"', b'"ABORTED"')


def without_a_blob(parts):
    del parts[next(name for name in parts if name.startswith("blobs/"))]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (forged, r"rows/runs.jsonl does not have its sha256"),
        (without_a_blob, "is in its manifest or in the file alone"),
        (lambda parts: parts.update(extra=b""), "extra is in its manifest or in the file alone"),
        (lambda parts: parts.pop("manifest.json"), "no manifest.json of a backup"),
        (manifest(format="deerfield backup 9"), "of format 'deerfield backup 9'"),
        (manifest(revision="9999"), "tables are of revision 9999, and this version of deerfield has"),
    ],
)
def test_a_damaged_or_foreign_archive_is_refused_before_anything_is_made(tmp_path, pair, change, said):
    first = pair.open(pair.folder / "a")
    first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    damaged(pair.archive, change)
    with pytest.raises(InvalidInput, match=said):
        pair.restore()
    assert not list((tmp_path / "b").iterdir())


@pytest.mark.parametrize("where", [0.05, 0.1, 0.3, 0.5])  # the end lists names and times, whose bits may not matter
def test_a_flipped_bit_or_a_cut_is_noticed(pair, where):
    first = pair.open(pair.folder / "a")
    first.runs.start(run_spec("north", rounds=1), "once")
    pair.backup()
    data = bytearray(pair.archive.read_bytes())
    data[int(len(data) * where)] ^= 1
    for changed in (data, data[: int(len(data) * where)], b"no zip"):
        pair.archive.write_bytes(changed)
        with pytest.raises(InvalidInput, match=r"damaged|cannot be read|no manifest"):
            pair.restore()


def test_a_database_that_is_not_there_or_is_of_another_revision_is_one_sentence(tmp_path, pair, database):
    with pytest.raises(InvalidInput, match=r"does not exist|of revision none"):
        pair.backup("nowhere")
    assert not list((tmp_path / "nowhere").glob("*.db*"))
