"""`make chaos`: unit site, where the aggregator adds the noise: a redo publishes what the dead one would have."""

import pytest

from deerfield import keyfile
from deerfield.strategies import make
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.blobstore.folder_blobs import FolderBlobs
from services.aggregator.desk import Desk
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests.chaos.consortium import Consortium
from tests.chaos.site import spec
from tests.fakes import Clock

PRIVACY = {"unit": "site", "epsilon": 3.0, "clip": 0.5, "sample_rate": 0.5}


def recomputed(consortium: Consortium) -> str | None:
    """What the phase that is being aggregated gives, from its sealed updates and the key in its row."""
    folder = consortium.folder
    store = Store(open_database(consortium.database, 10))
    desk = Desk(
        store=store,
        uploads=FolderBlobs(folder / "blobs/uploads"),
        published=FolderBlobs(folder / "blobs/published"),
        make=make,
        clock=Clock(),
        key=keyfile.load(folder / "aggregator.key"),
    )
    try:
        closing = assemble_aggregator(desk).coordinator.due()
        return None if closing is None else closing.compute().next.state.shared.digest
    finally:
        store.close()


@pytest.mark.parametrize(
    "point", ["phase_aggregating:after_commit", "published:after_rename#9", "phase_published:before_commit"]
)
def test_a_redo_adds_the_same_noise(database, tmp_path, note, point):
    expected = []
    consortium = Consortium(
        tmp_path,
        database(tmp_path),
        spec("north", "south", rounds=2, strategy="ffa", privacy=PRIVACY),
        between=lambda dead: expected.append(recomputed(dead)),
    )
    course = consortium.complete(point)
    published = [event.detail["digest"] for event in course.events if event.kind == "phase_published"]
    assert course.kills == 1
    assert expected[0] in published
    assert len(published) == 2
    note("noise at the aggregator", course)
