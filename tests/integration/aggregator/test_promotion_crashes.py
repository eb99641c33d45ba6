"""A promotion or rollback that dies at any point is carried out by the next start, once, and to the same end."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from deerfield.certificates import load
from deerfield.documents.partition_manifest import NAME as MANIFEST
from deerfield.errors import ChampionMoved, InvalidInput
from deerfield.promotion import Promotion
from deerfield.strategies import make
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.attaching import Attaching
from services.aggregator.blobstore.blobs import MemoryBlobs
from services.aggregator.champions.promotions import Promotions
from services.aggregator.desk import Desk
from services.aggregator.sql.database import open_database
from services.aggregator.sql.store import Store
from tests import pki
from tests.attesting import key_of
from tests.fakes import Clock
from tests.integration.aggregator.backups.conftest import Place
from tests.integration.aggregator.conftest import folder_in, open_aggregator
from tests.integration.aggregator.promoting import MODEL, Shop, ShopInMemory, course, finished

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

POINTS = {
    "promotion": (
        "promotion_begun:before_commit",
        "promotion_begun:after_commit",
        "verdict:written",
        "promotion_moving:before_commit",
        "promotion_moving:after_commit",
        "previous_champion:written",
        "champion:moved",
        "candidate:retired",
        "promotion_done:before_commit",
        "promotion_done:after_commit",
    ),
    "rollback": (
        "rollback_begun:before_commit",
        "rollback_begun:after_commit",
        "rollback_moving:before_commit",
        "rollback_moving:after_commit",
        "champion:moved",
        "rollback_done:before_commit",
        "rollback_done:after_commit",
    ),
}
KILLS = [(kind, point) for kind, points in POINTS.items() for point in points]


class Killed(BaseException):
    """Goes through everything, as a process that is gone does."""


@pytest.fixture(scope="module", params=["sqlite and MLflow", "postgresql and memory"])
def world(request, tmp_path_factory):
    """A database, and the models of the aggregator that is over it."""
    folder = tmp_path_factory.mktemp("promotions")
    if request.param == "sqlite and MLflow":
        url = f"sqlite:///{folder / 'aggregator.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.url(name := server.create())
    database = open_database(url, takeover_s=1)
    desk = Desk(
        store=Store(database),
        uploads=MemoryBlobs(),
        published=MemoryBlobs(),
        make=make,
        clock=Clock(),
        key=key_of("aggregator"),
    )
    aggregator = assemble_aggregator(desk)
    yield database, Shop.opened(aggregator, folder) if url.startswith("sqlite") else ShopInMemory(aggregator)
    database.close()
    if not url.startswith("sqlite"):
        server.drop(name)


def promotions(world, reached: Callable[[str], None]) -> Promotions:
    """A process's promotions, whose every point is told to `reached`."""
    database, shop = world
    desk = replace(shop.aggregator.desk, store=Store(database, reached), reached=reached)
    return Promotions(desk, shop.models)


def killing(point: str) -> Callable[[str], None]:
    def reach(reached: str) -> None:
        if reached == point:
            raise Killed

    return reach


def asked(shop, promotions: Promotions, kind: str, name: str) -> Promotion:
    """The call of a kind: from version 1 to 2, and back."""
    if kind == "promotion":
        return promotions.promote(shop.judged("2", "1", name))
    return promotions.rollback(name, "2", "it is worse")


def prepared(shop, kind: str, name: str) -> None:
    """Two versions; the first is champion before a promotion, the second before a rollback."""
    shop.version(1, name)
    shop.version(2, name)
    shop.promotions.promote(shop.judged("1", "", name))
    if kind == "rollback":
        shop.promotions.promote(shop.judged("2", "1", name))


def left(shop, name: str) -> tuple[object, ...]:
    """What there is to see of a model."""
    verdicts = [shop.tags(version, name).get("deerfield.verdict_sha256") for version in "12"]
    judgements = [shop.judged("1", "", name), shop.judged("2", "1", name)]
    return (
        course(shop, name),
        [shop.alias(alias, name) for alias in ("champion", "candidate")],
        [shop.tags(version, name).get("deerfield.previous_champion") for version in "12"],
        [found == given.sha256 for found, given in zip(verdicts, judgements, strict=True)],
    )


@pytest.fixture(scope="module")
def calm(world):
    """By kind: what a call answers that nothing disturbs, what it leaves behind, and the points that it passes."""
    found = {}
    for kind in POINTS:
        prepared(world[1], kind, kind)
        seen = []
        answer = asked(world[1], promotions(world, seen.append), kind, kind)
        found[kind] = answer, left(world[1], kind), tuple(seen)
    return found


@pytest.mark.parametrize("kind", POINTS)
def test_the_points_are_all_that_there_are(calm, kind):
    assert calm[kind][2] == POINTS[kind]


@pytest.mark.parametrize(("kind", "point"), KILLS)
def test_what_dies_at_a_point_is_carried_out_by_the_next_start_once(world, calm, kind, point):
    shop, name = world[1], f"{kind} {point}".replace(":", " ")
    prepared(shop, kind, name)
    with pytest.raises(Killed):
        asked(shop, promotions(world, killing(point)), kind, name)
    assert shop.promotions.redo()
    if point.endswith("begun:before_commit"):  # nothing was written down, and the caller asks again
        asked(shop, shop.promotions, kind, name)
    assert shop.promotions.redo()
    assert left(shop, name) == calm[kind][1]


@pytest.mark.parametrize("kind", POINTS)
def test_what_dies_is_carried_out_by_the_same_call_asked_again(world, calm, kind):
    shop, name = world[1], f"{kind} asked again"
    prepared(shop, kind, name)
    for point in POINTS[kind]:
        with suppress(Killed):
            asked(shop, promotions(world, killing(point)), kind, name)
    assert asked(shop, shop.promotions, kind, name) == replace(calm[kind][0], model=name)
    assert left(shop, name) == calm[kind][1]


def test_another_call_carries_out_first_what_was_left(world):
    shop, name = world[1], "left by another"
    prepared(shop, "promotion", name)
    with pytest.raises(Killed):
        asked(shop, promotions(world, killing("champion:moved")), "promotion", name)
    with pytest.raises(ChampionMoved, match="is version 2, and the call expects version 1"):
        shop.promotions.promote(shop.judged("2", "1", name, note="another gate"))
    assert [state for _, state, _, _ in course(shop, name)] == ["DONE", "DONE", "REFUSED"]


@pytest.mark.parametrize("point", ["promotion_begun:after_commit", "promotion_moving:after_commit"])
def test_an_alias_that_is_moved_by_hand_while_the_aggregator_is_away_stays(world, point):
    shop, name = world[1], f"by hand {point}".replace(":", " ")
    prepared(shop, "promotion", name)
    third = shop.models.version(name, shop.version(3, name))
    with pytest.raises(Killed):
        asked(shop, promotions(world, killing(point)), "promotion", name)
    shop.models.crown(third)
    assert shop.promotions.redo()
    assert course(shop, name)[1:] == [("promotion", "REFUSED", "", ""), ("by_hand", "DONE", "1", "3")]
    assert "deerfield.previous_champion" not in shop.tags("2", name)


# --- over each kind of database ---


@pytest.fixture
def place():
    """Folders, which a backup is made of."""
    return folder_in


@pytest.fixture
def pair(tmp_path, open_in, database):
    """An aggregator in `a`, its backup, and what it is restored to in `b`."""
    operator = pki.Peer(federation=pki.FEDERATION, role="operator", name="ada")
    files = pki.files(pki.authority(tmp_path / "ca"), tmp_path / "ada", operator)
    return Place(tmp_path, open_in, database, load(files, pki.NOW))


def test_a_restored_aggregator_has_the_history_ends_what_was_open_and_keeps_waiting_files(pair):
    shop = ShopInMemory(pair.open(pair.folder / "a"))
    prepared(shop, "promotion", MODEL)
    desk = shop.aggregator.desk
    sha = Attaching(desk, tracked=True).attach(finished(shop.aggregator, 3, "another"), "report.html", b"a report")
    with pytest.raises(Killed):
        asked(shop, Promotions(replace(desk, reached=killing("champion:moved")), shop.models), "promotion", MODEL)
    done = pair.backup()
    assert (done["rows"]["promotions"], done["rows"]["champions"], done["rows"]["attachments"]) == (2, 1, 4)
    pair.restore()
    restored = ShopInMemory(pair.open(pair.folder / "b"), shop.models)
    assert restored.aggregator.desk.published.get(sha) == b"a report"
    assert restored.promotions.redo()
    assert course(restored) == [("promotion", "DONE", "", "1"), ("promotion", "DONE", "1", "2")]
    restored.promotions.rollback(MODEL, "2", "it is worse")
    assert [record.number for record in restored.promotions.history(MODEL)] == [1, 2, 3]


def test_a_kept_file_that_is_damaged_is_read_from_mlflow_or_refuses_the_promotion_and_stops_nobody(tmp_path):
    aggregator = open_aggregator(tmp_path, Clock())
    shop = ShopInMemory(aggregator)
    shop.version(1)
    version, blobs = shop.models.version(MODEL, "1"), aggregator.desk.published
    with aggregator.desk.store.edge() as edge:
        sha = edge.attachments.known(version.run, MANIFEST)
    kept = blobs.get(sha)
    (tmp_path / "published" / sha[:2] / sha).write_bytes(b"damaged")
    with pytest.raises(InvalidInput, match="manifest"):
        shop.promotions.promote(shop.judged("1", ""))
    assert shop.promotions.redo()
    shop.models.files[MODEL, "1", MANIFEST] = kept
    assert shop.promotions.promote(shop.judged("1", "", note="again")).champion == "1"
    aggregator.desk.store.close()
