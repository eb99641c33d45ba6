"""Specs of pods as arguments of podman; whole pods run in tests/e2e/test_charts.py."""

import pytest

from tests.cluster import translate
from tests.cluster.environment import Sandbox, environment, expand, service_links
from tests.cluster.mounts import File, Mounted, Volumes
from tests.cluster.release import Release, check_ports, read
from tests.cluster.store import Store, Waits

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
OWN = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
POD = Sandbox(name="a-0", namespace="n", address="10.0.0.7", labels={"app": "a"}, annotations={}, account="a")


def container(**changes):
    return {"name": "a", "image": "a:1", "securityContext": RESTRICTED, **changes}


def pod(**changes):
    return {"securityContext": OWN, "containers": [container()], **changes}


def arguments(given, user="10001:10001", variables=None, **mounts):
    return translate.arguments(pod(), given, variables or {}, mounts, user)


def store(*objects):
    held = Store()
    for each in objects:
        held.put({**each, "metadata": {"name": each["metadata"]["name"], "namespace": "n"}})
    return held


def secret(name, **held):
    return {"kind": "Secret", "metadata": {"name": name}, "stringData": held}


def test_a_restricted_container_is_confined_by_podman_alike():
    options = arguments(container())
    assert options[-1] == "a:1"
    assert {
        "--user=10001:10001",
        "--group-add=10001",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--http-proxy=false",
        "--pull=never",
    } <= set(options)


def test_resources_of_a_scheduler_are_dropped_and_limits_kept():
    resources = {"limits": {"memory": "1Gi", "cpu": "1500m", "nvidia.com/gpu": 1}, "requests": {"cpu": 1}}
    options = arguments(container(resources=resources))
    assert {"--memory=1g", "--cpus=1.5"} <= set(options)
    assert not any("nvidia" in each for each in options)


def test_command_and_arguments_are_expanded_and_put_where_kubelet_puts_them():
    given = container(command=["run", "--at=$(IP):1"], args=["$(IP)", "$$(IP)", "$(OTHER)"])
    options = arguments(given, variables={"IP": "10.0.0.7"})
    assert '--entrypoint=["run", "--at=10.0.0.7:1"]' in options
    assert options[-4:] == ["a:1", "10.0.0.7", "$(IP)", "$(OTHER)"]


def test_volumes_are_mounted_by_folder_and_memory_by_size(tmp_path):
    mounts = [
        {"name": "state", "mountPath": "/s"},
        {"name": "state", "mountPath": "/t", "readOnly": True, "subPath": "part"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    options = arguments(container(volumeMounts=mounts), state=Mounted(tmp_path), shm=Mounted(memory="64m"))
    assert f"--volume={tmp_path}:/s:rw" in options
    assert f"--volume={tmp_path}/part:/t:ro" in options
    assert "--tmpfs=/dev/shm:rw,size=64m,mode=1777" in options


@pytest.mark.parametrize(
    "given",
    [
        pod(hostNetwork=True),
        pod(containers=[container(tty=True)]),
        pod(containers=[container(securityContext={"procMount": "Unmasked"})]),
    ],
)
def test_what_is_translated_to_nothing_is_an_error(given):
    with pytest.raises(AssertionError, match="is translated to nothing"):
        translate.check(given)


def test_scheduling_is_dropped_by_name():
    translate.check(pod(nodeSelector={"gpu": "yes"}, tolerations=[], affinity={}, runtimeClassName="nvidia"))


@pytest.mark.parametrize(("security", "user"), [({"runAsUser": 0}, "10001"), ({}, "root"), ({}, ""), ({}, "deerfield")])
def test_an_image_that_runs_as_root_is_refused_where_the_pod_must_not(security, user):
    with pytest.raises(AssertionError, match="runAsNonRoot"):
        translate.arguments(
            {"securityContext": {"runAsNonRoot": True}}, container(securityContext=security), {}, {}, user
        )


def test_variables_come_from_where_the_spec_says_and_later_ones_see_earlier_ones():
    given = container(
        envFrom=[{"secretRef": {"name": "s"}, "prefix": "S_"}],
        env=[
            {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k", "optional": True}}},
            {"name": "URL", "value": "http://$(ADDRESS)/$(S_k)$(LATER)"},
            {"name": "LATER", "value": "1"},
        ],
    )
    assert environment(given, POD, store(secret("s", k="v")), {"LINK": "x"}) == {
        "LINK": "x",
        "S_k": "v",
        "ADDRESS": "10.0.0.7",
        "APP": "a",
        "KEY": "v",
        "URL": "http://10.0.0.7/v$(LATER)",
        "LATER": "1",
    }
    assert expand("$$(A) $(A)", {"A": "1"}) == "$(A) 1"


def test_a_container_waits_for_a_secret_that_must_be_there():
    asked = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    with pytest.raises(Waits, match="Secret s is not there"):
        environment(container(env=asked), POD, store(), {})
    with pytest.raises(Waits, match="Secret s has no k"):
        environment(container(env=asked), POD, store(secret("s", other="v")), {})


def test_a_variable_named_twice_is_refused():
    with pytest.raises(AssertionError, match="twice"):
        environment(container(env=[{"name": "A", "value": "1"}] * 2), POD, store(), {})


def test_services_tell_every_pod_where_they_are():
    told = service_links([{"metadata": {"name": "big-agg"}, "spec": {"ports": [{"name": "data", "port": 8600}]}}])
    assert told["BIG_AGG_SERVICE_HOST"] == "big-agg"
    assert told["BIG_AGG_PORT"] == told["BIG_AGG_PORT_8600_TCP"] == "tcp://big-agg:8600"
    assert told["BIG_AGG_SERVICE_PORT_DATA"] == "8600"
    assert service_links([{"metadata": {"name": "a"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}]) == {}


def test_projected_volumes_show_what_their_sources_hold():
    held = store(secret("s", a="1", b="2"), {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"d": "3"}})
    volumes = Volumes(node=None, store=held, pod=POD, prefix="p", claims="c", group=None, token="t")
    assert volumes.files({"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}) == {
        "a": File(b"1", 0o400),
        "b": File(b"2", 0o400),
    }
    assert volumes.files({"name": "v", "secret": {"secretName": "none", "optional": True}}) == {}
    sources = [
        {"secret": {"name": "s", "items": [{"key": "a", "path": "x/y"}]}},
        {"configMap": {"name": "c"}},
        {"serviceAccountToken": {"path": "token"}},
    ]
    found = volumes.files({"name": "v", "projected": {"sources": sources}})
    assert {path: file.content for path, file in found.items()} == {"x/y": b"1", "d": b"3", "token": b"t"}
    with pytest.raises(Waits, match="Secret s has no c"):
        volumes.files({"name": "v", "secret": {"secretName": "s", "items": [{"key": "c", "path": "c"}]}})


def test_a_release_is_ordered_as_helm_orders_it():
    text = """
{kind: StatefulSet, metadata: {name: a}}
---
{kind: Service, metadata: {name: b}}
---
{kind: Job, metadata: {name: c, annotations: {helm.sh/hook: "pre-install,pre-upgrade"}}}
---
{kind: Role, metadata: {name: d, annotations: {helm.sh/hook: pre-install, helm.sh/hook-weight: "-5"}}}
---
{kind: Secret, metadata: {name: e, namespace: other}}
"""
    release = Release("r", "n", tuple(read(text, "n")))
    assert [each["metadata"]["name"] for each in release.hooks("pre-install")] == ["d", "c"]
    assert [each["metadata"]["name"] for each in release.hooks("pre-upgrade")] == ["c"]
    assert [each["metadata"]["name"] for each in release.plain()] == ["e", "b", "a"]
    assert release.found("Secret")["metadata"]["namespace"] == "other"


def test_a_service_whose_port_is_not_the_containers_is_refused():
    template = {"spec": {"containers": [{"ports": [{"name": "data", "containerPort": 8600}]}]}}
    good = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 8600, "targetPort": "data"}]}}
    check_ports(good, template)
    with pytest.raises(AssertionError, match="443 leads to 8600"):
        check_ports({**good, "spec": {"ports": [{"port": 443, "targetPort": "data"}]}}, template)
