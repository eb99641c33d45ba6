"""A pod with the command `deerfield`, in which a person types: the consortium's operator, or somebody at a hospital."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deerfield import __version__
from tests.cluster.cluster import Cluster
from tests.cluster.pod import Pod

IMAGE = f"deerfield-pipelines:{__version__}"
LIMIT_S = 300.0
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}


@dataclass(frozen=True)
class Desk:
    """Where somebody types; what is written to /tmp stays until the pod is deleted."""

    pod: Pod

    def says(self, *argv: str, given: str | None = None) -> str:
        """What a command prints, with `given` on its stdin; it must end well."""
        pod = self.pod
        return pod.place.node.podman("exec", "--interactive", pod.container().name, *argv, limit_s=LIMIT_S, given=given)

    def told(self, *argv: str) -> Any:
        """What a command says in JSON."""
        return json.loads(self.says(*argv, "--json"))

    def write(self, path: str, text: str) -> str:
        """Writes a file; answers its path."""
        self.says("sh", "-c", f"cat > {path}", given=text)
        return path


def sit(
    cluster: Cluster,
    namespace: str,
    *,
    env: Sequence[Mapping[str, Any]] = (),
    tls: str = "",
    account: str = "default",
    image: str = IMAGE,
) -> Desk:
    """A desk in a namespace; with the Secret `tls`, its certificate is in /etc/deerfield/tls."""
    volumes: list[Mapping[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    if tls:
        volumes.append({"name": "tls", "secret": {"secretName": tls, "defaultMode": 0o400}})
        mounts.append({"name": "tls", "mountPath": "/etc/deerfield/tls", "readOnly": True})
    container = {
        "name": "desk",
        "image": image,
        "command": ["sleep", "infinity"],
        "env": env,
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }
    spec = {
        "automountServiceAccountToken": account != "default",
        "containers": [container],
        "securityContext": {"fsGroup": 10001},
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": 0,
        "volumes": volumes,
    }
    (pod,) = cluster.apply({"kind": "Pod", "metadata": {"name": "desk", "namespace": namespace}, "spec": spec})
    cluster.wait(lambda: pod.ready, 60, pod.logs)
    return Desk(pod)
