"""A line is on the disk before anybody is told of it, and so is the mend of one that a crash tore."""

import os
from pathlib import Path

import pytest

from deerfield.durable import ignore
from deerfield.errors import LedgerUnwritable
from services.client.custody.append import AppendFile
from tests import syncs


def test_a_new_file_has_a_name_that_lasts_and_each_line_is_synced_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = syncs.recorded(monkeypatch)
    told: list[tuple[str, int]] = []
    path = tmp_path / "ledger"
    file = AppendFile(path, lambda point: told.append((point, len(found))))
    assert [(each.path, each.files) for each in found] == [(tmp_path, {"ledger": b""})]
    file.append("run", b"one\n")
    file.append("task", b"two\n")
    file.close()
    assert [each.path for each in found[1:]] == [path, path]
    assert [each.files["ledger"] for each in found[1:]] == [b"one\n", b"one\ntwo\n"]
    assert told == [("run:before_fsync", 1), ("run:after_fsync", 2), ("task:before_fsync", 2), ("task:after_fsync", 3)]


@pytest.mark.parametrize(("torn", "mended"), [(b'{"a":1}\n{"b"', b'{"a":1}\n'), (b'{"a":1}', b'{"a":1}\n')])
def test_a_torn_line_is_mended_on_the_disk_before_the_file_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes, mended: bytes
) -> None:
    (tmp_path / "ledger").write_bytes(torn)
    found = syncs.recorded(monkeypatch)
    file = AppendFile(tmp_path / "ledger", ignore)
    file.close()
    assert file.data == mended
    assert (found[0].path, found[0].files) == (tmp_path / "ledger", {"ledger": mended})


def test_a_line_that_a_full_disk_cut_short_is_taken_back_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AppendFile(tmp_path / "ledger", ignore)
    file.append("run", b"one\n")
    found, write = syncs.recorded(monkeypatch), os.write

    def write_a_little(handle: int, data: bytes) -> int:
        if data != b"two\n":
            raise OSError(28, "No space left on device")
        return write(handle, data[:2])

    with monkeypatch.context() as full:
        full.setattr(os, "write", write_a_little)
        with pytest.raises(LedgerUnwritable, match="No space left"):
            file.append("task", b"two\n")
    assert [(each.path, each.files) for each in found] == [(tmp_path / "ledger", {"ledger": b"one\n"})]
    file.append("task", b"two\n")
    file.close()
    assert (tmp_path / "ledger").read_bytes() == b"one\ntwo\n"
