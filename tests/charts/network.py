"""Which pod may call which, as NetworkPolicies say together; enforcing them is the cluster's network's part.

An edge is one line: `from -> to:port`. Pods stand under their component; whoever is no pod of the release stands as the
policy's peer, such as `cidr 10.0.0.0/8` or `namespace kube-system`. Rules are as Kubernetes reads them: a pod that no
policy of a direction selects may all in that direction, and an edge between two pods needs both ends' consent.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.charts.pods import Pod, containers, matches, of_kind, pods, ports
from tests.charts.rendering import Object

ANYBODY = "anybody"


def isolated(objects: Iterable[Object]) -> Iterator[str]:
    """Where there is a NetworkPolicy at all, every pod is behind one in both directions."""
    objects = list(objects)
    policies = of_kind(objects, "NetworkPolicy")
    for pod in pods(objects):
        for direction in ("Ingress", "Egress"):
            if policies and not _rules(pod, policies, direction)[0]:
                yield f"{pod.where}: no policy for its {direction.lower()}"


def edges(objects: Iterable[Object]) -> set[str]:
    """All edges that the policies allow, between pods of the release and beyond it."""
    objects = list(objects)
    every, policies = pods(objects), of_kind(objects, "NetworkPolicy")
    found = set()
    for caller in every:
        for called in every:
            if caller is not called:
                for name, number in sorted(_listening(called)):
                    if _allowed(caller, called, policies, name, number):
                        found.add(f"{caller.component} -> {called.component}:{number}")
    for pod in every:
        for direction, mark in (("Egress", "to"), ("Ingress", "from")):
            closed, rules = _rules(pod, policies, direction)
            outside = _outside(rules, mark, every) if closed else {(ANYBODY, "any")}
            for peer, port in outside:
                number = str(ports(pod).get(port, port)) if direction == "Ingress" else port
                ends = (pod.component, peer) if direction == "Egress" else (peer, pod.component)
                found.add(f"{ends[0]} -> {ends[1]}:{number}")
    return found


def _listening(pod: Pod) -> set[tuple[str, int]]:
    return {
        (each.get("name", ""), each["containerPort"]) for _, box in containers(pod) for each in box.get("ports", [])
    }


def _allowed(caller: Pod, called: Pod, policies: list[Object], name: str, number: int) -> bool:
    for pod, other, direction, mark in ((caller, called, "Egress", "to"), (called, caller, "Ingress", "from")):
        closed, rules = _rules(pod, policies, direction)
        if closed and not any(_admits(rule, mark, other) and _covers(rule, name, number) for rule in rules):
            return False
    return True


def _rules(pod: Pod, policies: list[Object], direction: str) -> tuple[bool, list[Mapping[str, Any]]]:
    """Whether a policy of that direction selects the pod, and the rules of all that do."""
    closed, rules = False, []
    for policy in policies:
        spec = policy["spec"]
        kinds = spec.get("policyTypes", ["Ingress", *(["Egress"] if "egress" in spec else [])])
        if direction in kinds and matches(spec.get("podSelector", {}), pod.labels):
            closed = True
            rules += spec.get(direction.lower()) or []
    return closed, rules


def _admits(rule: Mapping[str, Any], mark: str, other: Pod) -> bool:
    """Whether a rule's peers take a pod of the same namespace. An ipBlock is for others: pods' addresses change."""
    peers = rule.get(mark)
    if not peers:
        return True
    return any(
        "podSelector" in peer and "namespaceSelector" not in peer and matches(peer["podSelector"] or {}, other.labels)
        for peer in peers
    )


def _covers(rule: Mapping[str, Any], name: str, number: int) -> bool:
    wanted = rule.get("ports")
    if not wanted:
        return True
    return any(each.get("port") in (name, number, None) and each.get("protocol", "TCP") == "TCP" for each in wanted)


def _outside(rules: list[Mapping[str, Any]], mark: str, every: list[Pod]) -> set[tuple[str, str]]:
    """Peers that are no pod of the release, each with the ports it may have."""
    found = set()
    for rule in rules:
        numbers = [_port(each) for each in rule.get("ports", [])] or ["any"]
        for peer in rule.get(mark) or [{}]:
            if who := _peer(peer, every):
                found |= {(who, number) for number in numbers}
    return found


def _port(rule: Mapping[str, Any]) -> str:
    kind = rule.get("protocol", "TCP")
    return f"{rule.get('port', 'any')}{'' if kind == 'TCP' else '/' + kind}"


def _peer(peer: Mapping[str, Any], every: list[Pod]) -> str:
    """A peer in words; empty for pods of the release, whose edges are known by pod."""
    if not peer:
        return ANYBODY
    if "ipBlock" in peer:
        return f"cidr {peer['ipBlock']['cidr']}"
    chosen = peer.get("podSelector")
    if "namespaceSelector" not in peer and any(matches(chosen or {}, pod.labels) for pod in every):
        return ""
    words = [f"namespace {_words(peer['namespaceSelector'])}"] if "namespaceSelector" in peer else []
    if chosen:
        words.append(f"pods {_words(chosen)}")
    return " ".join(words) or ANYBODY


def _words(selector: Mapping[str, Any]) -> str:
    """The values of a selector, which say enough; `any` for one that takes all."""
    exact = [str(value) for _, value in sorted(selector.get("matchLabels", {}).items())]
    rules = [
        f"{each['key']} {each['operator']} {each.get('values', [])}" for each in selector.get("matchExpressions", [])
    ]
    return ",".join(exact + rules) or "any"
