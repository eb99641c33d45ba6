"""The life of a pod: sandbox, volumes, init containers one after the other, containers, probes, restarts."""

import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

from tests.cluster import mounts, translate
from tests.cluster.container import Container, Ended
from tests.cluster.environment import Sandbox, environment
from tests.cluster.mounts import File, Mounted, Volumes
from tests.cluster.node import Node, State
from tests.cluster.release import Object
from tests.cluster.store import Store, Waits

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
GRACE_S = 30


@dataclass(frozen=True)
class Place:
    """What a cluster gives to its pods."""

    node: Node
    store: Store
    prefix: str  # of everything in podman
    networks: Callable[["Pod"], list[str]]  # the options that tie a pod to networks
    links: Callable[["Pod"], Mapping[str, str]]  # the variables that every container gets
    token: Callable[[str, str], str]  # of a service account in a namespace; empty: it has none
    authority: str  # the ConfigMap with the CA of the cluster's API


@dataclass
class Pod:
    """A pod, which goes on at each `step`."""

    place: Place
    given: Object  # with metadata
    owner: tuple[str, str] = ("", "")  # kind and name of the workload that it is one of
    governing: str = ""  # the Service that gives it a name of its own
    spec: Object = field(init=False)  # with what the cluster adds
    waits: str = ""  # for what it cannot start
    address: str = ""
    began: float = field(default_factory=monotonic)
    mounted: dict[str, Mounted] | None = None
    shown: dict[str, Mapping[str, File]] = field(default_factory=dict)
    first: list[Container] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    ready_s: float | None = None  # from its making to its being ready, or to its end

    def __post_init__(self) -> None:
        translate.check(self.given["spec"])
        self.spec = self._with_token() if self._token() else self.given
        inside = self.spec["spec"]
        self.first = [self._container(each) for each in inside.get("initContainers") or ()]
        self.containers = [self._container(each) for each in inside["containers"]]

    @property
    def name(self) -> str:
        return self.given["metadata"]["name"]

    @property
    def namespace(self) -> str:
        return self.given["metadata"]["namespace"]

    @property
    def called(self) -> str:
        """What podman calls it."""
        return f"{self.place.prefix}-{self.namespace}-{self.name}"

    @property
    def policy(self) -> str:
        return self.spec["spec"].get("restartPolicy", "Always")

    @property
    def phase(self) -> Phase:
        if self.policy == "Never" and any(_failed(each) for each in self.first):
            return "Failed"
        if any(each.began is None for each in self.containers):
            return "Pending"
        if self.policy != "Always" and not any(each.running for each in self.containers):
            codes = [each.ended[-1].code for each in self.containers]
            if not any(codes):
                return "Succeeded"
            if self.policy == "Never":
                return "Failed"
        return "Running"

    @property
    def ready(self) -> bool:
        return all(each.ready for each in self.containers)

    @property
    def ended(self) -> list[Ended]:
        """How its containers have ended, init containers first."""
        return [each for container in (*self.first, *self.containers) for each in container.ended]

    def step(self, states: Mapping[str, State]) -> None:
        """Does what can be done now."""
        for each in (*self.first, *self.containers):
            each.look(states)
        try:
            self._go_on()
            self.waits = ""
        except Waits as reason:
            self.waits = str(reason)
        if self.ready_s is None and (self.ready or self.phase in {"Succeeded", "Failed"}):
            self.ready_s = monotonic() - self.began

    def container(self, name: str = "") -> Container:
        """One of its containers; the only one, where none is named."""
        found = [each for each in (*self.first, *self.containers) if name in ("", each.spec["name"])]
        return found[-1]

    def kill(self, name: str = "") -> None:
        """Kills what runs in a container, by SIGKILL from outside, as a machine's fault would."""
        container = self.container(name)
        pid = int(self.place.node.podman("inspect", "--format={{.State.Pid}}", container.name))
        assert pid > 0, f"{container.name} does not run"
        os.kill(pid, signal.SIGKILL)

    def logs(self) -> str:
        return "".join(each.logs() for each in (*self.first, *self.containers))

    def remove(self) -> None:
        """Ends it as kubelet does: the hook before the stop, SIGTERM, and after its time SIGKILL."""
        for each in self.containers:
            hook = ((each.spec.get("lifecycle") or {}).get("preStop") or {}).get("exec")
            if each.running and hook:
                self.place.node.ask("exec", each.name, *hook["command"], limit_s=self._grace_s())
        running = [each.name for each in self.containers if each.running]
        if running:
            self.place.node.podman("stop", f"--time={self._grace_s()}", *running, limit_s=self._grace_s() + 30)
            states = self.place.node.states()
            for each in self.containers:
                each.look(states)
        for each in (*self.first, *self.containers):
            each.kept = each.logs()
        if self.address:
            self.place.node.podman("pod", "rm", "--force", "--time=0", self.called)
            self.address, self.mounted = "", None

    def _go_on(self) -> None:
        if self.phase in {"Succeeded", "Failed"}:
            return
        if not self.address:
            self._make_sandbox()
        volumes = self._volumes()
        if self.mounted is None:
            listed = self.spec["spec"].get("volumes") or ()
            self.mounted = {each["name"]: volumes.mounted(each) for each in listed}
        else:
            self._show(volumes)
        for each in self.first:
            if not each.ended or each.ended[-1].code:
                if each.due():
                    self._start(each)
                return
        for each in self.containers:
            again = not each.ended or self.policy == "Always" or (self.policy == "OnFailure" and _failed(each))
            if again and each.due():
                self._start(each)
            elif each.running:
                each.probe(self.address)

    def _show(self, volumes: Volumes) -> None:
        """Projected volumes follow their sources; what was taken away stays as it was."""
        for volume in self.spec["spec"].get("volumes") or ():
            if mounts.kind_of(volume)[0] in mounts.PROJECTED:
                with suppress(Waits):
                    files = volumes.files(volume)
                    if files != self.shown.setdefault(volume["name"], files):
                        volumes.write(volume, files)
                        self.shown[volume["name"]] = files

    def _start(self, container: Container) -> None:
        sandbox, links = self._sandbox(), self.place.links(self)
        variables = environment(container.spec, sandbox, self.place.store, links)
        image = self.place.node.podman("image", "inspect", "--format={{.User}}", container.spec["image"])
        arguments = translate.arguments(self.spec["spec"], container.spec, variables, self.mounted, image)
        container.start(self.called, arguments, self._grace_s())

    def _make_sandbox(self) -> None:
        node = self.place.node
        options = ["--share=net,ipc,uts", f"--hostname={self.name}", *self.place.networks(self)]
        node.make("pod", f"--name={self.called}", *options)
        node.podman("pod", "start", self.called)
        infra = node.podman("pod", "inspect", "--format={{.InfraContainerID}}", self.called)
        own = self.place.prefix  # the network of the cluster
        found = '{{(index .NetworkSettings.Networks "' + own + '").IPAddress}}'
        self.address = node.podman("inspect", f"--format={found}", infra)

    def _volumes(self) -> Volumes:
        inside = self.spec["spec"]
        return Volumes(
            node=self.place.node,
            store=self.place.store,
            pod=self._sandbox(),
            prefix=self.called,
            claims=f"{self.place.prefix}-{self.namespace}-claim",
            group=(inside.get("securityContext") or {}).get("fsGroup"),
            token=self._token(),
        )

    def _sandbox(self) -> Sandbox:
        meta = self.spec["metadata"]
        return Sandbox(
            name=self.name,
            namespace=self.namespace,
            address=self.address,
            labels=meta.get("labels") or {},
            annotations=meta.get("annotations") or {},
            account=self._account(),
        )

    def _account(self) -> str:
        return self.given["spec"].get("serviceAccountName", "default")

    def _token(self) -> str:
        """The token of its service account, where pod and account let it have one."""
        account = self.place.store.get("ServiceAccount", self.namespace, self._account()) or {}
        wanted = account.get("automountServiceAccountToken", True)
        wanted = self.given["spec"].get("automountServiceAccountToken", wanted)
        return self.place.token(self.namespace, self._account()) if wanted else ""

    def _with_token(self) -> Object:
        """The spec with the volume that a cluster adds for the token."""
        inside, volume = self.given["spec"], mounts.tokens(self.place.authority)
        mount = {"name": volume["name"], "mountPath": mounts.TOKENS, "readOnly": True}

        def mounting(container: Mapping[str, Any]) -> Mapping[str, Any]:
            return {**container, "volumeMounts": [*(container.get("volumeMounts") or ()), mount]}

        added = {key: [*map(mounting, inside.get(key) or ())] for key in ("initContainers", "containers")}
        return {**self.given, "spec": {**inside, **added, "volumes": [*(inside.get("volumes") or ()), volume]}}

    def _grace_s(self) -> int:
        return self.spec["spec"].get("terminationGracePeriodSeconds", GRACE_S)

    def _container(self, spec: Mapping[str, Any]) -> Container:
        return Container(self.place.node, spec, f"{self.called}-{spec['name']}")


def _failed(container: Container) -> bool:
    return bool(container.ended) and container.ended[-1].code != 0
