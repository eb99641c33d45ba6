"""The checkers themselves, on objects small enough to be judged by hand."""

import copy

import pytest

from tests.charts import network, programs, restricted, values
from tests.charts.pods import pods

GOOD = {
    "kind": "Pod",
    "metadata": {"name": "x", "labels": {"app.kubernetes.io/component": "x"}},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "x",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
            }
        ],
    },
}
# Each is a field of the standard: where it stands, a value that is refused, and a word of the sentence that says so.
FIELDS = [
    ("spec.hostNetwork", True, "hostNetwork"),
    ("spec.hostPID", True, "hostPID"),
    ("spec.hostIPC", True, "hostIPC"),
    ("spec.volumes", [{"name": "v", "hostPath": {"path": "/"}}], "hostPath"),
    ("spec.volumes", [{"name": "v", "nfs": {"server": "x", "path": "/"}}], "nfs"),
    ("spec.securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "kernel.msgmax"),
    ("spec.securityContext.runAsNonRoot", False, "runAsNonRoot"),
    ("spec.securityContext.runAsUser", 0, "runAsUser"),
    ("spec.securityContext.seccompProfile", {"type": "Unconfined"}, "seccompProfile"),
    ("spec.securityContext.seccompProfile", {}, "no seccompProfile"),
    ("spec.securityContext.seLinuxOptions", {"type": "spc_t"}, "seLinuxOptions"),
    ("spec.securityContext.seLinuxOptions", {"user": "root"}, "seLinuxOptions"),
    ("spec.securityContext.appArmorProfile", {"type": "Unconfined"}, "appArmorProfile"),
    ("spec.securityContext.windowsOptions", {"hostProcess": True}, "hostProcess"),
    ("metadata.annotations", {"container.apparmor.security.beta.kubernetes.io/x": "unconfined"}, "unconfined"),
    ("box.ports", [{"containerPort": 1, "hostPort": 1}], "hostPort"),
    ("box.securityContext.privileged", True, "privileged"),
    ("box.securityContext.allowPrivilegeEscalation", True, "allowPrivilegeEscalation"),
    ("box.securityContext.procMount", "Unmasked", "procMount"),
    ("box.securityContext.capabilities", {"drop": ["NET_RAW"]}, "drop ALL"),
    ("box.securityContext.capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]}, "NET_ADMIN"),
    ("box.securityContext.runAsNonRoot", False, "runAsNonRoot"),
    ("box.securityContext.runAsUser", 0, "runAsUser"),
    ("box.securityContext.seccompProfile", {"type": "Unconfined"}, "seccompProfile"),
    ("box.securityContext.seLinuxOptions", {"role": "sysadm_r"}, "seLinuxOptions"),
    ("box.securityContext.appArmorProfile", {"type": "Unconfined"}, "appArmorProfile"),
    ("box.securityContext.windowsOptions", {"hostProcess": True}, "hostProcess"),
    ("box.livenessProbe", {"httpGet": {"host": "example.org", "port": 80}}, "example.org"),
    ("box.lifecycle", {"preStop": {"tcpSocket": {"host": "example.org", "port": 80}}}, "example.org"),
]


def test_a_restricted_pod_passes():
    (pod,) = pods([GOOD])
    assert [*restricted.offences(pod), *restricted.read_only(pod)] == []


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
@pytest.mark.parametrize(("path", "value", "word"), FIELDS, ids=[f"{path}-{word}" for path, _, word in FIELDS])
def test_every_field_of_the_standard_is_looked_at(path, value, word, kind):
    thing = copy.deepcopy(GOOD)
    box = thing["spec"]["containers"][0]
    if kind != "containers":
        box = thing["spec"].setdefault(kind, [copy.deepcopy(box)])[0]
    first, *keys, last = path.split(".")
    place = box if first == "box" else thing[first]
    for key in keys:
        place = place.setdefault(key, {})
    place[last] = value
    (pod,) = pods([thing])
    assert word in " ".join(restricted.offences(pod))


def pod(name: str, port: int) -> dict:
    box = {"name": name, "ports": [{"name": "main", "containerPort": port}]}
    labels = {"app.kubernetes.io/component": name}
    return {"kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {"containers": [box]}}


def policy(name: str, **spec) -> dict:
    return {"kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def labelled(name: str) -> dict:
    return {"matchLabels": {"app.kubernetes.io/component": name}}


A, B = pod("a", 1), pod("b", 2)
CLOSED = policy("closed", podSelector={}, policyTypes=["Ingress", "Egress"])


def between(*policies: dict) -> set[str]:
    return {edge for edge in network.edges([A, B, *policies]) if "anybody" not in edge}


def test_without_policies_all_may_call_all():
    assert between() == {"a -> b:2", "b -> a:1"}


def test_closed_pods_may_call_nobody():
    assert network.edges([A, B, CLOSED]) == set()
    assert list(network.isolated([A, B, CLOSED])) == []


def test_an_edge_needs_both_ends():
    out = policy("out", podSelector=labelled("a"), policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}]}])
    into = policy(
        "in",
        podSelector=labelled("b"),
        policyTypes=["Ingress"],
        ingress=[{"from": [{"podSelector": labelled("a")}], "ports": [{"port": "main"}]}],
    )
    assert between(CLOSED, out) == set()
    assert between(CLOSED, into) == set()
    assert between(CLOSED, out, into) == {"a -> b:2"}
    into["spec"]["ingress"][0]["ports"] = [{"port": 3}]
    assert between(CLOSED, out, into) == set()
    into["spec"]["ingress"][0]["ports"] = [{"port": 2, "protocol": "UDP"}]
    assert between(CLOSED, out, into) == set()


def test_an_empty_rule_lets_all_through_and_no_rule_nobody():
    everything = policy("all", podSelector=labelled("b"), policyTypes=["Ingress"], ingress=[{}])
    assert "anybody -> b:any" in network.edges([A, B, CLOSED, everything])
    everything["spec"]["ingress"] = []
    assert "anybody -> b:any" not in network.edges([A, B, CLOSED, everything])


def test_a_peer_of_another_namespace_is_no_pod_of_this_one():
    peer = {"podSelector": labelled("b"), "namespaceSelector": {"matchLabels": {"name": "x"}}}
    out = policy("out", podSelector=labelled("a"), policyTypes=["Egress"], egress=[{"to": [peer]}])
    into = policy("in", podSelector=labelled("b"), policyTypes=["Ingress"], ingress=[{"from": [{"podSelector": {}}]}])
    assert network.edges([A, B, CLOSED, out, into]) == {"a -> namespace x pods b:any"}


def test_a_policy_without_types_is_about_ingress_and_about_egress_where_it_has_some():
    assert list(network.isolated([A, policy("x", podSelector={}, ingress=[])])) == ["Pod/a: no policy for its egress"]
    assert list(network.isolated([A, policy("x", podSelector={}, egress=[])])) == []


def test_functions_that_differ_each_time_are_found_in_actions_and_not_in_text():
    assert values.forbidden('{{ randAlphaNum 12 | b64enc }} {{- lookup "v1" "Secret" "" "" }}') == [
        "randAlphaNum",
        "lookup",
    ]
    assert values.forbidden('{{ genSignedCert "x" nil nil 1 $ca }}') == ["genSignedCert"]
    assert (
        values.forbidden('now lookup {{ include "now" . }} {{/* lookup */}} {{ $known }} {{ .Values.lookup2 }}') == []
    )


def test_the_program_of_a_container_is_its_command_or_its_image_s():
    box = {"image": "registry.example:5000/deerfield-client:0.1.0@sha256:00"}
    assert programs.started({**box, "command": ["python", "-m", "services.client", "site"]}) == (
        "services.client",
        "site",
    )
    assert programs.started({**box, "args": ["--listen", "x"]}) == ("services.client",)
    box = {"image": "deerfield-pipelines:0.1.0", "command": ["deerfield", "cluster"], "args": ["trial", "--sites=a"]}
    assert programs.started(box) == ("pipelines.cli", "cluster", "trial")
    assert programs.started({"image": "docker.io/library/postgres:17", "args": ["-c"]}) is None
