"""An aggregator in one folder, its backup, and what it is restored to in another; over both kinds of database."""

from pathlib import Path

import pytest

from deerfield.certificates import load
from deerfield.identity import Peer
from services.aggregator.backups.backup import backup
from services.aggregator.backups.restore import restore
from services.aggregator.blobstore.folder_blobs import FolderBlobs
from tests import pki
from tests.integration.aggregator.conftest import folder_in
from tests.pki import NOW


@pytest.fixture
def ca(tmp_path):
    return pki.authority(tmp_path / "ca")


@pytest.fixture
def ada(ca, tmp_path):
    return load(pki.files(ca, tmp_path / "ada", Peer(federation=pki.FEDERATION, role="operator", name="ada")), NOW)


@pytest.fixture
def place():
    """Folders, whose files the tests look into."""
    return folder_in


@pytest.fixture
def pair(tmp_path, open_in, database, ada):
    """An aggregator in `a`, its backup, and what it is restored to in `b`."""
    return Place(tmp_path, open_in, database, ada)


class Place:
    def __init__(self, folder: Path, open_in, database, ada):
        self.folder, self.open, self.url, self.ada = folder, open_in, database, ada
        self.archive = folder / "backup.zip"

    def blobs(self, name: str) -> FolderBlobs:
        return FolderBlobs(self.folder / name / "published")

    def backup(self, name: str = "a"):
        return backup(self.archive, self.url(self.folder / name), self.blobs(name))

    def restore(self, name: str = "b", now=NOW, operator=None):
        (self.folder / name).mkdir(exist_ok=True)
        url = self.url(self.folder / name)
        return restore(self.archive, url, self.folder / name, operator or self.ada, now)


def step(aggregator, both):
    for site in both:
        site.step()
    aggregator.coordinator.close_due()
