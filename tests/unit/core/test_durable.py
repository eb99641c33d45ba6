"""A file is on the disk before it has its name, and its name before anybody acts on it."""

import os
from pathlib import Path

import pytest

from deerfield import durable
from deerfield.errors import LedgerUnwritable
from tests import syncs


def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = syncs.recorded(monkeypatch)
    durable.create(tmp_path / "key", b"data")
    file, folder = found
    assert file.files == {file.path.name: b"data"}
    assert file.path.name != "key"
    assert (folder.path, folder.files) == (tmp_path, {"key": b"data"})


def test_what_replaces_a_file_is_synced_while_the_old_is_there_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "record").write_bytes(b"old")
    found = syncs.recorded(monkeypatch)
    durable.replaced(tmp_path / "record", b"new")
    first, last = found[0], found[-1]
    assert first.files == {"record": b"old", first.path.name: b"new"}
    assert (last.path, last.files) == (tmp_path, {"record": b"new"})
    assert (tmp_path / "record").stat().st_mode & 0o777 == 0o600
    durable.replaced(tmp_path / "record", b"for everybody", 0o644)
    assert (tmp_path / "record").stat().st_mode & 0o777 == 0o644


def test_a_new_folder_is_synced_in_the_one_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = syncs.recorded(monkeypatch)
    durable.make_folder(tmp_path / "a" / "b")
    assert [(each.path, each.folders) for each in found] == [(tmp_path, {"a"}), (tmp_path / "a", {"b"})]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_file_that_cannot_be_synced_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "record").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        durable.create(tmp_path / "key", b"data")
    with pytest.raises(OSError, match="Input/output"):
        durable.replaced(tmp_path / "record", b"new")
    with pytest.raises(LedgerUnwritable, match="key cannot be used \\(Input/output error\\)"):
        durable.kept(tmp_path / "key", b"data")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"record": b"old"}


def test_a_line_that_is_added_is_synced_and_the_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = syncs.recorded(monkeypatch)
    durable.appended(tmp_path / "lines", b"one")
    assert [(each.path.name, each.files) for each in found] == [
        ("lines", {"lines": b"one\n"}),
        (tmp_path.name, {"lines": b"one\n"}),
    ]
    assert (tmp_path / "lines").stat().st_mode & 0o777 == 0o600
    durable.appended(tmp_path / "lines", b"two")
    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\n"


def test_a_line_that_a_crash_tore_is_no_part_of_the_next(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"one\ntw")
    durable.appended(tmp_path / "lines", b"three")
    assert (tmp_path / "lines").read_bytes() == b"one\ntw\nthree\n"


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    assert durable.kept(tmp_path / "folder" / "key", b"first") == b"first"
    assert durable.kept(tmp_path / "folder" / "key", b"second") == b"first"
    durable.create(tmp_path / "folder" / "key", b"third")
    assert {each.name: each.read_bytes() for each in (tmp_path / "folder").iterdir()} == {"key": b"first"}
