"""Every layout that docs/run-file.md names, on files small enough to be read."""

import gzip
import json

import numpy as np
import pytest
import structlog
from PIL import Image

from deerfield.errors import InvalidInput
from deerfield.runfile import Source
from services.client.sources import data

LABELS = ("cough", "fracture")
ROWS = [
    {"text": "dry cough", "label": "cough", "who": "p1", "where": "north"},
    {"text": "broken arm", "label": "fracture", "who": "p2", "where": "south"},
    {"text": "wet cough", "label": "cough", "who": "p1", "where": "north"},
]


def as_csv(folder, separator=","):
    path = folder / f"notes.{'csv' if separator == ',' else 'tsv'}"
    lines = [separator.join(ROWS[0])] + [separator.join(row.values()) for row in ROWS]
    path.write_text("\n".join(lines) + "\n")
    return path


def as_jsonl(folder):
    path = folder / "notes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def as_gzip(folder):
    path = folder / "notes.jsonl.gz"
    path.write_bytes(gzip.compress(as_jsonl(folder).read_bytes()))
    return path


def as_parquet(folder):
    import pandas as pd

    path = folder / "notes.parquet"
    pd.DataFrame(ROWS).to_parquet(path)
    return path


@pytest.mark.parametrize("make", [as_csv, lambda f: as_csv(f, "\t"), as_jsonl, as_gzip, as_parquet])
def test_a_table_of_notes_is_read(tmp_path, make):
    table = data.read(Source(path=str(make(tmp_path)), patient="who", site="where"), LABELS, "text")
    assert list(table.examples.inputs) == [row["text"] for row in ROWS]
    assert table.examples.labels.tolist() == [0, 1, 0]
    assert table.examples.units.tolist() == ["p1", "p2", "p1"]
    assert table.sites.tolist() == ["north", "south", "north"]


def picture(value):
    return Image.fromarray(np.full((6, 8, 3), value, np.uint8))


def test_a_folder_of_images_takes_its_labels_from_the_folders(tmp_path):
    for label, value in (("cough", 10), ("fracture", 200)):
        (tmp_path / label).mkdir()
        for i in range(2):
            picture(value).save(tmp_path / label / f"{i}.png")
    examples = data.read(Source(path=str(tmp_path), input="image"), LABELS, "image").examples
    assert examples.labels.tolist() == [0, 0, 1, 1]
    assert [int(image.mean()) for image in examples.inputs] == [10, 10, 200, 200]
    assert examples.inputs[0].shape == (6, 8, 3)


def test_a_folder_of_images_may_name_patients(tmp_path):
    lines = ["file_name,label,patient"]
    for i, label in enumerate(LABELS):
        picture(i).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{label},p{i}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    examples = data.read(Source(path=str(tmp_path), input="image", patient="patient"), LABELS, "image").examples
    assert examples.units.tolist() == ["p0", "p1"]
    assert examples.labels.tolist() == [0, 1]


def test_a_csv_may_point_at_images(tmp_path):
    picture(7).save(tmp_path / "x.png")
    (tmp_path / "scans.csv").write_text("file,label\nx.png,cough\n")
    examples = data.read(Source(path=str(tmp_path / "scans.csv"), input="file"), LABELS, "image").examples
    assert examples.inputs[0].shape == (6, 8, 3)


def test_npz_holds_named_arrays(tmp_path):
    path = tmp_path / "scans.npz"
    np.savez(path, images=np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4), labels=np.array([[0], [1], [0]]),
             group=np.array([5, 6, 5]))  # fmt: skip
    source = Source(path=str(path), input="images", label="labels", patient="group")
    examples = data.read(source, LABELS, "image").examples
    assert examples.labels.tolist() == [0, 1, 0]
    assert examples.units.tolist() == ["5", "6", "5"]
    assert examples.inputs[1].tolist() == np.arange(16, 32).reshape(4, 4).tolist()


def test_class_names_of_a_file_are_matched_by_name_not_by_place(tmp_path):
    path = tmp_path / "scans.npz"
    np.savez(path, images=np.zeros((2, 4, 4), np.uint8), labels=np.array([0, 1]), class_names=["fracture", "cough"])
    examples = data.read(Source(path=str(path), input="images", label="labels"), LABELS, "image").examples
    assert examples.labels.tolist() == [1, 0]
    np.save(tmp_path / "rows.npy", np.array([1]))
    source = Source(path=str(path), input="images", label="labels", rows=str(tmp_path / "rows.npy"))
    assert data.read(source, LABELS, "image").examples.labels.tolist() == [0]


def test_only_the_named_rows_are_taken(tmp_path):
    np.save(tmp_path / "rows.npy", np.array([2, 0]))
    examples = data.read(Source(path=str(as_csv(tmp_path)), rows=str(tmp_path / "rows.npy")), LABELS, "text").examples
    assert list(examples.inputs) == ["wet cough", "dry cough"]


def test_without_a_patient_column_every_row_is_its_own_unit(tmp_path):
    examples = data.read(Source(path=str(as_csv(tmp_path))), LABELS, "text").examples
    assert len(set(examples.units)) == 3


@pytest.mark.parametrize(
    ("source", "labels", "says"),
    [
        ({"input": "note"}, LABELS, "no column 'note'; its columns are text, label, who, where"),
        ({"patient": "id"}, LABELS, "no column 'id'"),
        ({}, ("cough", "flu"), "'fracture', which `labels:`"),
    ],
)
def test_a_missing_column_or_foreign_label_is_named(tmp_path, source, labels, says):
    with pytest.raises(InvalidInput) as refusal:
        data.read(Source(path=str(as_csv(tmp_path)), **source), labels, "text")
    assert says in str(refusal.value)


def test_an_empty_cell_is_named_with_its_row(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("text,label\na,cough\n,fracture\n")
    with pytest.raises(InvalidInput, match="column 'text' is empty in row 2"):
        data.read(Source(path=str(path)), LABELS, "text")


@pytest.mark.parametrize(("text", "says"), [("", "is empty"), ("id,label,text\n", "has column names and no rows")])
def test_a_csv_without_rows_is_refused(tmp_path, text, says):
    (tmp_path / "notes.csv").write_text(text)
    with pytest.raises(InvalidInput, match=f"notes.csv {says}"):
        data.read(Source(path=str(tmp_path / "notes.csv")), ("a", "b"), "text")


def test_at_a_site_a_csv_without_rows_has_no_example(tmp_path):
    (tmp_path / "notes.csv").write_text("id,label,text\n")
    table = data.read(Source(path=str(tmp_path / "notes.csv"), patient="id"), ("a", "b"), "text", invalid="drop")
    assert (len(table.examples), len(table.examples.units)) == (0, 0)


def test_an_unknown_format_is_refused(tmp_path):
    (tmp_path / "notes.xlsx").write_bytes(b"x")
    with pytest.raises(InvalidInput, match=r"\.xlsx is no format"):
        data.read(Source(path=str(tmp_path / "notes.xlsx")), LABELS, "text")


def test_a_path_that_is_not_there_says_how_to_use_a_local_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidInput, match="no file or folder here, and the model hub cannot be reached"):
        data.read(Source(path="nobody/nothing"), LABELS, "text")


def lenient(source, labels=LABELS, kind="text"):
    return data.read(source, labels, kind, invalid="drop").examples


def test_at_a_site_rows_that_cannot_be_used_are_left_out_and_change_no_other(tmp_path):
    path = tmp_path / "notes.csv"
    path.write_text("text,label,who\n12,0,007\n,0,8\nb,,9\nc,1,\nd,2,10\ne,-1,11\nf,1.5,12\ng,flu,13\nh,1,14\n")
    with structlog.testing.capture_logs() as logs:
        examples = lenient(Source(path=str(path), patient="who"))
    assert list(examples.inputs) == ["12", "h"]
    assert examples.labels.tolist() == [0, 1]
    assert examples.units.tolist() == ["007", "14"]
    assert logs == [{"log_level": "warning", "event": "rows left out, because they cannot be used", "rows": 7}]


def test_a_column_that_is_missing_stops_a_site_too(tmp_path):
    with pytest.raises(InvalidInput, match="no column 'note'"):
        lenient(Source(path=str(as_csv(tmp_path)), input="note"))


def npz(folder, labels, **more):
    np.savez(folder / "scans.npz", images=np.zeros((len(labels), 4, 4), np.uint8), labels=np.array(labels), **more)
    return Source(path=str(folder / "scans.npz"), input="images", label="labels")


@pytest.mark.parametrize("names", [{"class_names": ["fracture", "cough"]}, {}])
@pytest.mark.parametrize("stranger", [2, -1])
def test_an_integer_label_without_a_name_is_refused_or_left_out(tmp_path, names, stranger):
    source = npz(tmp_path, [0, stranger, 1], **names)
    with pytest.raises(InvalidInput, match=rf"column 'labels' holds '{stranger}', which .*first in row 2"):
        data.read(source, LABELS, "image")
    assert lenient(source, kind="image").labels.tolist() == ([1, 0] if names else [0, 1])


def test_integers_that_are_themselves_declared_are_not_counted(tmp_path):
    source = npz(tmp_path, [1, 2, 0])
    assert lenient(source, ("1", "2"), "image").labels.tolist() == [0, 1]


def test_labels_may_be_words_in_arrays_and_must_be_one_for_each_row(tmp_path):
    assert lenient(npz(tmp_path, ["fracture", "cough", "flu"]), kind="image").labels.tolist() == [1, 0]
    with pytest.raises(InvalidInput, match="not one value for each row"):
        lenient(npz(tmp_path, [[0, 1], [1, 0]]), kind="image")


@pytest.mark.parametrize("layout", ["folder", "csv"])
def test_a_broken_image_is_named_or_left_out(tmp_path, layout):
    for label in LABELS:
        (tmp_path / label).mkdir()
        picture(9).save(tmp_path / label / "a.png")
    whole = (tmp_path / "cough" / "a.png").read_bytes()
    (tmp_path / "cough" / "b.png").write_bytes(whole[:50])
    source = Source(path=str(tmp_path), input="image")
    if layout == "csv":
        (tmp_path / "t.csv").write_text("image,label\ncough/a.png,cough\ncough/b.png,cough\nno.png,cough\n")
        source = Source(path=str(tmp_path / "t.csv"), input="image")
    with pytest.raises(InvalidInput, match="column 'image' holds no readable image in row 2"):
        data.read(source, LABELS, "image")
    examples = lenient(source, kind="image")
    assert examples.labels.tolist() == ([0, 1] if layout == "folder" else [0])
    assert all(image.shape == (6, 8, 3) for image in examples.inputs)


@pytest.mark.parametrize("rows", [[7], [0.5, "x"]])
def test_row_numbers_that_cannot_be_used_are_refused(tmp_path, rows):
    np.save(tmp_path / "rows.npy", np.array(rows))
    with pytest.raises(InvalidInput, match="source: rows"):
        data.read(Source(path=str(as_csv(tmp_path)), rows=str(tmp_path / "rows.npy")), LABELS, "text")
