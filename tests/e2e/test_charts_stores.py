"""The consortium's chart over PostgreSQL and S3, with three simulated sites: real servers, a fault, `helm test`."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests import postgres, s3
from tests.cluster import consortium as consortiums
from tests.cluster.cluster import READY_S, Cluster, story
from tests.cluster.consortium import NAMESPACE, Consortium
from tests.cluster.node import Node

SITES = 3
LATER = "made-later"  # a bucket
SECRETS = {
    "database": {"aggregator-password": postgres.PASSWORD, "tracking-password": postgres.PASSWORD},
    "objects": {"accesskey": s3.ACCESS, "secretkey": s3.SECRET},
}


@pytest.fixture(scope="module")
def cluster(node: Node) -> Cluster:
    """One whose network servers of this machine are in, by its gateway."""
    found = Cluster(node, "deerfield-stores")
    for name, held in SECRETS.items():
        found.apply({"kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "stringData": held})
    return found


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> Iterator[postgres.Server]:
    with postgres.serving(cluster.gateway) as server:
        yield server


@pytest.fixture(scope="module")
def objects(cluster: Cluster) -> Iterator[s3.Server]:
    with s3.serving(cluster.gateway) as server:
        yield server


@pytest.fixture(scope="module")
def consortium(cluster: Cluster, database: postgres.Server, objects: s3.Server) -> Iterator[Consortium]:
    """Begun, with two databases and a bucket that nobody has made."""
    urls = [f"postgresql://{postgres.USER}@{database.address}:{database.port}/{database.create()}" for _ in range(2)]
    with consortiums.begun(cluster, values(urls, database, objects)) as found:
        yield found


def test_the_aggregator_waits_for_a_bucket_that_is_missing(consortium, objects, timed):
    with timed("PostgreSQL and S3: the aggregator says that its bucket is missing, and comes up once it is there"):
        for each in consortium.release.plain():
            consortium.cluster.apply(each)
        aggregator = consortium.aggregator
        consortium.cluster.wait(lambda: aggregator.ended, READY_S, lambda: story(aggregator))
        assert aggregator.ended[0].code == 2
        assert aggregator.ended[0].message.startswith("error: ")
        assert LATER in aggregator.ended[0].message
        objects.client.make_bucket(LATER)
        consortium.cluster.wait(lambda: aggregator.ready, READY_S, lambda: story(aggregator))


def test_helm_test_finishes_a_run_of_the_simulated_sites(consortium, objects, database, timed):
    with timed(f"PostgreSQL and S3: MLflow and {SITES} simulated sites are ready"):
        consortium.cluster.await_ready(consortium.release)
    with timed("PostgreSQL and S3: helm test, a run of the simulated sites to the registered model"):
        (trial,) = consortium.cluster.test(consortium.release)
    assert ", ".join(f"{consortiums.RELEASE}-site-{number}" for number in range(SITES)) in trial.logs()

    names = [each.object_name for each in objects.client.list_objects(LATER, recursive=True)]
    for prefix in ("aggregator/", "mlflow/"):
        assert any(name.startswith(prefix) for name in names), names
    with database.connect("d1") as aggregator, database.connect("d2") as tracking:
        assert aggregator.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        assert tracking.execute("SELECT count(*) FROM model_versions").fetchone() == (1,)


def values(urls: list[str], database: postgres.Server, objects: s3.Server) -> dict[str, Any]:
    """What examples/values-production.yaml says too, of servers of this machine."""
    here = [f"{database.address}/32"]
    return {
        "database": {
            "mode": "external",
            "external": {"aggregatorUrl": urls[0], "trackingUrl": urls[1], "existingSecret": "database"},
        },
        "objectStore": {
            "mode": "s3",
            "s3": {"endpoint": objects.endpoint, "secure": False, "bucket": LATER, "existingSecret": "objects"},
        },
        "networkPolicy": {
            "database": {"cidrs": here, "port": database.port},
            "objectStore": {"cidrs": here, "port": objects.port},
        },
        "simulation": {"sites": SITES},
    }
