"""The API of a cluster for its own pods: Secrets, Jobs and pods over TLS, as far as the Roles of their accounts go."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address

from cryptography import x509

from tests import pki
from tests.cluster import api as apis
from tests.cluster import jobs, roles, secrets
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.pod import Pod
from tests.cluster.release import Object


@contextmanager
def serving(cluster: Cluster) -> Iterator[Api]:
    """The API of a cluster at its gateway, known to all pods of it, until the block ends."""
    found = jobs.resources(cluster.store, cluster.apply, cluster.remove, partial(_pods, cluster))
    found["secrets"] = secrets.resource(cluster.store)
    api = Api(found, allows=partial(roles.allows, cluster.store), admit=apis.hold_against_schemas, lock=cluster.lock)
    files = pki.foreign(cluster.node.folder / f"{cluster.name}-api", x509.IPAddress(ip_address(cluster.gateway)))
    with apis.serving(api, cluster.gateway, files):
        cluster.token = api.token
        cluster.variables |= {"KUBERNETES_SERVICE_HOST": cluster.gateway, "KUBERNETES_SERVICE_PORT": str(api.port)}
        cluster.authority = files.authority.read_text()
        yield api


def _pods(cluster: Cluster, namespace: str) -> list[Object]:
    return [_shown(pod) for (space, _), pod in cluster.pods.items() if space == namespace]


def _shown(pod: Pod) -> Object:
    metadata, container = dict(pod.given["metadata"]), pod.container()
    if container.ended:
        last = container.ended[-1]
        return jobs.pod(metadata, pod.phase, jobs.terminated(last.code, last.message))
    if container.running:
        return jobs.pod(metadata, pod.phase, {"running": {}})
    return jobs.pod(metadata, pod.phase, {"waiting": {"reason": "ContainerCreating", "message": pod.waits}})
