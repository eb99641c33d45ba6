"""A container of a pod over its restarts: each of them is a new one, as kubelet makes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from tests.cluster import probes
from tests.cluster.node import Node, State

BACKOFF_S = (0.0, 1.0, 2.0, 4.0, 8.0)  # kubelet's begins at ten seconds; nothing but the wait differs
PROBES = {"startup": "startupProbe", "readiness": "readinessProbe", "liveness": "livenessProbe"}
MESSAGE_BYTES = 4096  # of a termination message, as kubelet takes it


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    code: int
    message: str  # what it left in its termination message


@dataclass
class Container:
    """One entry of a pod's containers."""

    node: Node
    spec: Mapping[str, Any]
    prefix: str  # of its names in podman
    began: float | None = None
    ended: list[Ended] = field(default_factory=list)
    running: bool = False
    passed: dict[str, float] = field(default_factory=dict)  # seconds from the start to a probe's first success
    tried: dict[str, float] = field(default_factory=dict)
    kept: str | None = None  # what it had written when its pod was removed

    @property
    def name(self) -> str:
        """What podman calls it now."""
        return f"{self.prefix}-{len(self.ended)}"

    @property
    def message(self) -> Path:
        return self.node.folder / f"{self.name}.termination"

    @property
    def ready(self) -> bool:
        """Whether each probe that it has passed once since it was started."""
        return self.running and all(kind in self.passed for kind, key in PROBES.items() if key in self.spec)

    def start(self, pod: str, arguments: list[str], grace_s: int) -> None:
        """Makes it in a pod, and starts it."""
        self.message.touch()
        self.message.chmod(0o666)
        place = self.spec.get("terminationMessagePath", "/dev/termination-log")
        options = [f"--name={self.name}", f"--pod={pod}", f"--label={self.node.label}", f"--stop-timeout={grace_s}"]
        self.node.podman("create", *options, f"--volume={self.message}:{place}", *arguments)
        self.node.podman("start", self.name)
        self.began, self.running = monotonic(), True
        self.passed, self.tried = {}, {}

    def look(self, states: Mapping[str, State]) -> None:
        """Notices that it has ended."""
        state = states.get(self.name)
        if self.running and state is not None and state.code is not None:
            self.ended.append(Ended(state.code, self._left(state.code)))
            self.running = False

    def due(self) -> bool:
        """Whether it may be started again."""
        if self.running:
            return False
        wait_s = BACKOFF_S[min(len(self.ended), len(BACKOFF_S) - 1)] if self.ended else 0.0
        return self.began is None or monotonic() >= self.began + wait_s

    def probe(self, address: str) -> None:
        """Makes the probes that are due: first the startup probe; each until it passes once."""
        for kind, key in PROBES.items():
            probe = self.spec.get(key)
            if probe is None or kind in self.passed:
                continue
            now = monotonic()
            delay_s, period_s = probe.get("initialDelaySeconds", 0), probe.get("periodSeconds", 10)
            if now >= self.tried.get(kind, self.began + delay_s - period_s) + period_s:
                self.tried[kind] = now
                if probes.passes(self.node, probe, self.spec, self.name, address):
                    self.passed[kind] = monotonic() - self.began
                    continue
            if kind == "startup":
                return

    def logs(self) -> str:
        """What it has written, over all its restarts."""
        if self.kept is not None:
            return self.kept
        names = [f"{self.prefix}-{number}" for number in range(len(self.ended) + self.running)]
        told = [self.node.ask("logs", name) for name in names]
        return "".join(each.stdout + each.stderr for each in told)

    def _left(self, code: int) -> str:
        text = self.message.read_bytes()[:MESSAGE_BYTES].decode(errors="ignore")
        if code and not text and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            done = self.node.ask("logs", "--tail=80", self.name)
            return (done.stdout + done.stderr)[-2048:]
        return text
