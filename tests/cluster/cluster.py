"""A cluster of one node without a scheduler: Helm's order, controllers that make pods, and nothing else."""

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import release as helm
from tests.cluster.environment import service_links
from tests.cluster.node import Node
from tests.cluster.pod import Place, Pod
from tests.cluster.release import Object, Release
from tests.cluster.store import Store
from tests.integration.federation import wait_for

AUTHORITY = "kube-root-ca.crt"
READY_S = 900.0  # as long as the charts give MLflow for its first start


@dataclass(frozen=True)
class Exposure:
    """A Service that another network reaches by a name of its own, as through a load balancer."""

    service: str
    network: str
    name: str


@dataclass
class Cluster:
    """Pods in one network; `internal` is one without a way out."""

    node: Node
    name: str
    internal: bool = False
    exposures: list[Exposure] = field(default_factory=list)
    store: Store = field(default_factory=Store)
    pods: dict[tuple[str, str], Pod] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # that every container gets, such as the API's address
    token: Callable[[str, str], str] = lambda namespace, account: ""
    gateway: str = ""  # this machine's own address in the network
    authority: str = ""  # the CA of the cluster's API, as PEM; empty: there is none
    lock: threading.RLock = field(default_factory=threading.RLock)  # who makes pods go on, and who asks the API

    def __post_init__(self) -> None:
        more = ["--internal"] if self.internal else []
        self.node.make("network", *more, self.name)
        # an empty pod, so that the network is there, and with it the gateway that servers of this machine listen on
        self.node.make("pod", f"--name={self.name}-node", f"--network={self.name}")
        self.node.podman("pod", "start", f"{self.name}-node")
        self.gateway = self.node.podman("network", "inspect", "--format={{(index .Subnets 0).Gateway}}", self.name)
        self.place = Place(
            node=self.node,
            store=self.store,
            prefix=self.name,
            networks=self._networks,
            links=self._links,
            token=self._token,
            authority=AUTHORITY,
        )

    def begin(self, release: Release) -> None:
        """Installs as Helm does without --wait: the hooks before, one after the other, and then the objects."""
        self.run_hooks(release, "pre-install")
        for each in release.plain():
            self.apply(each)

    def test(self, release: Release) -> list[Pod]:
        """`helm test`; answers the pods, which have all succeeded."""
        return self.run_hooks(release, "test")

    def run_hooks(self, release: Release, event: str, limit_s: float = READY_S) -> list[Pod]:
        """Runs one hook after the other; those that are pods to their end."""
        ran = []
        for each in release.hooks(event):
            for pod in self.apply(each):
                self.finish(pod, limit_s)
                ran.append(pod)
        for each in release.hooks(event):
            if "hook-succeeded" in helm.annotation(each, f"{helm.HOOK}-delete-policy"):
                self.remove(each)
        return ran

    def finish(self, pod: Pod, limit_s: float = READY_S) -> None:
        """Waits until a pod has succeeded; what it said is the reason of one that has not."""
        self.wait(lambda: pod.phase in {"Succeeded", "Failed"}, limit_s, lambda: story(pod))
        assert pod.phase == "Succeeded", story(pod)

    def await_ready(self, release: Release, limit_s: float = READY_S) -> None:
        """Waits until every pod of a release that is to stay is ready."""
        pods = [each for each in self.of(release) if each.policy == "Always"]
        self.wait(lambda: all(each.ready for each in pods), limit_s, lambda: "\n".join(map(story, pods)))

    def of(self, release: Release) -> list[Pod]:
        """The pods of a release."""
        own = ("app.kubernetes.io/instance", release.name)
        here = [pod for (namespace, _), pod in self.pods.items() if namespace == release.namespace]
        return [pod for pod in here if own in (pod.given["metadata"].get("labels") or {}).items()]

    def pod(self, part: str) -> Pod:
        """The one pod whose name has this in it."""
        found = [pod for (_, name), pod in self.pods.items() if part in name]
        assert len(found) == 1, f"{part}: {sorted(name for _, name in self.pods)}"
        return found[0]

    def apply(self, owner: Object) -> list[Pod]:
        """Takes an object in, and makes the pods that it asks for; answers them."""
        self.store.put(owner)
        self._tell_authority(owner["metadata"]["namespace"])
        kind, meta = owner["kind"], owner["metadata"]
        assert kind not in {"CronJob", "DaemonSet", "ReplicaSet"}, f"{kind} {meta['name']} has no counterpart here"
        if kind == "Pod":
            return [self._make(Pod(self.place, owner, (kind, meta["name"])))]
        if kind == "Job":
            template = owner["spec"]["template"]
            given = template.get("metadata") or {}
            labels = {"batch.kubernetes.io/job-name": meta["name"], "job-name": meta["name"]}
            given = given | _named(meta, meta["name"]) | {"labels": labels | (given.get("labels") or {})}
            return [self._make(Pod(self.place, {**template, "metadata": given}, (kind, meta["name"])))]
        if kind in {"Deployment", "StatefulSet"}:
            return [self._replica(owner, number) for number in range(owner["spec"].get("replicas", 1))]
        return []

    def made_by(self, kind: str, namespace: str, name: str) -> list[Pod]:
        """The pods of a workload, oldest first."""
        pods = [pod for (space, _), pod in self.pods.items() if space == namespace]
        return [pod for pod in pods if pod.owner == (kind, name)]

    def claim(self, namespace: str, name: str) -> Path:
        """The folder of a PersistentVolumeClaim."""
        return self.node.volume(f"{self.name}-{namespace}-claim-{name}")

    def delete(self, pod: Pod) -> None:
        """Ends a pod and forgets it."""
        pod.remove()
        self.pods.pop((pod.namespace, pod.name))

    def replace(self, pod: Pod) -> Pod:
        """Ends a pod, and makes its successor, as its controller would."""
        self.delete(pod)
        return self._make(Pod(self.place, pod.given, pod.owner, pod.governing))

    def step(self) -> None:
        """Lets every pod go on."""
        with self.lock:
            states = self.node.states()
            for pod in list(self.pods.values()):
                pod.step(states)

    def wait(self, holds: Callable[[], object], limit_s: float, story: Callable[[], str]) -> None:
        """Lets the pods go on until something holds; `story` is what is said when it never does."""
        together([self], holds, limit_s, story)

    def remove(self, owner: Object) -> None:
        """Takes an object away, and the pods that it had made."""
        kind, meta = owner["kind"], owner["metadata"]
        for pod in self.made_by(kind, meta["namespace"], meta["name"]):
            self.delete(pod)
        self.store.drop(kind, meta["namespace"], meta["name"])

    def _replica(self, owner: Object, number: int) -> Pod:
        spec, template = owner["spec"], owner["spec"]["template"]
        name = f"{owner['metadata']['name']}-{number}"
        inside = copy.deepcopy(template["spec"])
        for claim in spec.get("volumeClaimTemplates") or ():
            asked = f"{claim['metadata']['name']}-{name}"
            if self.store.get("PersistentVolumeClaim", owner["metadata"]["namespace"], asked) is None:
                self.store.put({**claim, "kind": "PersistentVolumeClaim", "metadata": _named(owner["metadata"], asked)})
            volume = {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": asked}}
            inside.setdefault("volumes", []).append(volume)
        given = {"metadata": {**template["metadata"], **_named(owner["metadata"], name)}, "spec": inside}
        pod = Pod(self.place, given, (owner["kind"], owner["metadata"]["name"]), spec.get("serviceName", ""))
        return self._make(pod)

    def _make(self, pod: Pod) -> Pod:
        key = (pod.namespace, pod.name)
        if key in self.pods:  # a hook that ran before
            self.delete(self.pods[key])
        self.pods[key] = pod
        return pod

    def _networks(self, pod: Pod) -> list[str]:
        labels, space = pod.given["metadata"].get("labels") or {}, pod.namespace
        services = helm.matching(self.store.all("Service", space), labels)
        for each in services:
            helm.check_ports(each, pod.given)
        names = [each["metadata"]["name"] for each in services]
        own = [f"{pod.name}.{pod.governing}"] if pod.governing else []
        ends = ("", f".{space}", f".{space}.svc", f".{space}.svc.cluster.local")
        aliases = [f"{name}{end}" for name in (*names, *own) for end in ends]
        tied = {self.name: aliases}
        for each in self.exposures:
            if each.service in names:
                tied.setdefault(each.network, []).append(each.name)
        options = {net: ",".join(f"alias={each}" for each in known) for net, known in tied.items()}
        return [f"--network={net}:{known}" if known else f"--network={net}" for net, known in options.items()]

    def _tell_authority(self, namespace: str) -> None:
        """Every namespace has a ConfigMap with the CA of the API."""
        if self.authority and self.store.get("ConfigMap", namespace, AUTHORITY) is None:
            meta = {"name": AUTHORITY, "namespace": namespace}
            self.store.put({"kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": self.authority}})

    def _token(self, namespace: str, account: str) -> str:
        return self.token(namespace, account)

    def _links(self, pod: Pod) -> dict[str, str]:
        services = list(self.store.all("Service", pod.namespace))
        wanted = pod.given["spec"].get("enableServiceLinks", True)
        return (service_links(services) if wanted else {}) | self.variables


def together(
    clusters: Sequence[Cluster], holds: Callable[[], object], limit_s: float, story: Callable[[], str]
) -> None:
    """Lets the pods of several clusters go on until something holds, as `Cluster.wait`."""

    def look() -> object:
        for each in clusters:
            each.step()
        return holds()

    try:
        wait_for(look, limit_s)
    except AssertionError:
        raise AssertionError(f"not within {limit_s:.0f} s: {story()}") from None


def _named(meta: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"name": name, "namespace": meta["namespace"]}


def story(pod: Pod) -> str:
    """What is known of a pod that does not do as it should."""
    return f"{pod.name}: {pod.phase} {pod.waits} {pod.ended[-3:]}\n{pod.logs()[-3000:]}"
