"""The laws can fail: each one reports a good render that was broken in the way that it is there for."""

import copy
from collections.abc import Callable

import pytest

from tests.charts import rendering, wiring
from tests.charts.laws import LAWS
from tests.charts.pods import of_kind
from tests.charts.rendering import Object

Break = Callable[[list[Object]], None]


def aggregator(objects: list[Object]) -> Object:
    return next(each for each in of_kind(objects, "StatefulSet") if each["metadata"]["name"] == "lungs-aggregator")


def spec(objects: list[Object]) -> dict:
    return aggregator(objects)["spec"]["template"]["spec"]


def box(objects: list[Object]) -> dict:
    return spec(objects)["containers"][0]


def first(objects: list[Object], *kinds: str) -> Object:
    return of_kind(objects, *kinds)[0]


def secret_volume(objects: list[Object]) -> str:
    return next(each["name"] for each in spec(objects)["volumes"] if "secret" in each)


def job(objects: list[Object]) -> Object:
    return next(each for each in of_kind(objects, "Job") if "helm.sh/hook" in each["metadata"]["annotations"])


BROKEN: dict[str, tuple[str, Break]] = {
    "label renamed": (
        "selectors_match_labels_and_no_two_workloads_share_them",
        lambda all_: aggregator(all_)["spec"]["template"]["metadata"]["labels"].update(
            {"app.kubernetes.io/component": "agregator"}
        ),
    ),
    "second workload of the same labels": (
        "selectors_match_labels_and_no_two_workloads_share_them",
        lambda all_: all_.append({**copy.deepcopy(aggregator(all_)), "kind": "Deployment"}),
    ),
    "service port moved": (
        "services_name_ports_of_their_pods_under_the_same_number",
        lambda all_: first(all_, "Service")["spec"]["ports"][0].update({"port": 80}),
    ),
    "service asks an unnamed port": (
        "services_name_ports_of_their_pods_under_the_same_number",
        lambda all_: first(all_, "Service")["spec"]["ports"][0].update({"targetPort": "gprc"}),
    ),
    "probe asks an unnamed port": (
        "probes_name_ports_of_their_container",
        lambda all_: box(all_).update({"readinessProbe": {"grpc": {"port": 8610}}}),
    ),
    "no readiness": ("what_serves_says_when_it_is_ready", lambda all_: box(all_).pop("readinessProbe")),
    "privilege escalation not denied": (
        "every_pod_is_restricted_and_its_root_read_only",
        lambda all_: box(all_)["securityContext"].pop("allowPrivilegeEscalation"),
    ),
    "root file system written": (
        "every_pod_is_restricted_and_its_root_read_only",
        lambda all_: box(all_)["securityContext"].update({"readOnlyRootFilesystem": False}),
    ),
    "host path": (
        "every_pod_is_restricted_and_its_root_read_only",
        lambda all_: spec(all_)["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    ),
    "capability added": (
        "every_pod_is_restricted_and_its_root_read_only",
        lambda all_: box(all_)["securityContext"]["capabilities"].update({"add": ["SYS_ADMIN"]}),
    ),
    "no seccomp": (
        "every_pod_is_restricted_and_its_root_read_only",
        lambda all_: (spec(all_)["securityContext"].pop("seccompProfile"),
                      box(all_)["securityContext"].pop("seccompProfile", None)),
    ),
    "password in the environment": (
        "no_secret_stands_in_an_object",
        lambda all_: box(all_)["env"].append({"name": "PGPASSWORD", "value": "hunter2"}),
    ),
    "password in a URL": (
        "no_secret_stands_in_an_object",
        lambda all_: box(all_)["env"].append({"name": "DEERFIELD_DATABASE", "value": "postgresql://a:hunter2@db/x"}),
    ),
    "secret of values": (
        "no_secret_stands_in_an_object",
        lambda all_: all_.append({"kind": "Secret", "metadata": {"name": "x"}, "data": {"a": "Yg=="}}),
    ),
    "token without a role": (
        "tokens_are_where_there_is_a_role_and_nowhere_else",
        lambda all_: spec(all_).update({"automountServiceAccountToken": True}),
    ),
    "token of an account by default": (
        "tokens_are_where_there_is_a_role_and_nowhere_else",
        lambda all_: first(all_, "ServiceAccount").pop("automountServiceAccountToken"),
    ),
    "latest": ("images_have_a_tag_that_is_not_latest", lambda all_: box(all_).update({"image": "x:5000/y:latest"})),
    "no tag": ("images_have_a_tag_that_is_not_latest", lambda all_: box(all_).update({"image": "x:5000/y"})),
    "policy lost": (
        "every_pod_is_behind_policies_in_both_directions",
        lambda all_: [all_.remove(each) for each in of_kind(all_, "NetworkPolicy")
                      if len(of_kind(all_, "NetworkPolicy")) > 1],
    ),
    "name too long": ("names_fit", lambda all_: aggregator(all_)["metadata"].update({"name": "a" * 53})),
    "service with a dot": ("names_fit", lambda all_: first(all_, "Service")["metadata"].update({"name": "a.b"})),
    "label too long": (
        "labels_are_the_recommended_ones",
        lambda all_: first(all_, "Service")["metadata"]["labels"].update({"app.kubernetes.io/instance": "a" * 64}),
    ),
    "label lost": (
        "labels_are_the_recommended_ones",
        lambda all_: first(all_, "ServiceAccount")["metadata"]["labels"].pop("app.kubernetes.io/version"),
    ),
    "env twice": ("nothing_is_named_twice", lambda all_: box(all_)["env"].append(dict(box(all_)["env"][0]))),
    "mount path twice": (
        "nothing_is_named_twice",
        lambda all_: box(all_)["volumeMounts"].append(dict(box(all_)["volumeMounts"][0])),
    ),
    "volume misspelt": (
        "every_mount_has_its_volume",
        lambda all_: box(all_)["volumeMounts"][0].update({"name": "stat"}),
    ),
    "secret by sub path": (
        "no_secret_is_mounted_by_sub_path",
        lambda all_: box(all_)["volumeMounts"].append(
            {"name": secret_volume(all_), "mountPath": "/x", "subPath": "tls.crt"}
        ),
    ),
    "hook kept": (
        "hooks_come_in_order_and_leave_nothing",
        lambda all_: job(all_)["metadata"]["annotations"].pop("helm.sh/hook-delete-policy"),
    ),
    "hook too early": (
        "hooks_come_in_order_and_leave_nothing",
        lambda all_: job(all_)["metadata"]["annotations"].update({"helm.sh/hook-weight": "-99"}),
    ),
    "one pod after the other": (
        "an_upgrade_replaces_a_pod_that_is_not_ready",
        lambda all_: aggregator(all_)["spec"].pop("podManagementPolicy"),
    ),
    "secret waited for": (
        "a_pod_says_which_secret_is_missing",
        lambda all_: next(each for each in spec(all_)["volumes"] if "secret" in each)["secret"].pop("optional"),
    ),
    "hasty probe": (
        "probes_have_time_to_start_a_program",
        lambda all_: box(all_).update({"readinessProbe": {"exec": {"command": ["test", "-f", "/tmp/ready"]}}}),
    ),
    "variable misspelt": (
        "programs_know_their_flags_and_variables",
        lambda all_: box(all_)["env"].append({"name": "DEERFIELD_DATABSE", "value": "x"}),
    ),
    "flag misspelt": (
        "programs_know_their_flags_and_variables",
        lambda all_: box(all_).update({"args": ["--listn", "0.0.0.0:8600"]}),
    ),
    "variable of others misspelt": (
        "variables_of_others_are_known_ones",
        lambda all_: box(all_).update({"image": "postgres:17", "env": [{"name": "POSTGRES_PASSWRD", "value": ""}]}),
    ),
}  # fmt: skip


def good() -> list[Object]:
    return copy.deepcopy(list(rendering.of("deerfield", None).objects))


@pytest.mark.parametrize("broken", BROKEN)
def test_a_law_reports_what_breaks_it(broken):
    law, damage = BROKEN[broken]
    objects = good()
    assert list(LAWS[law](objects)) == []
    damage(objects)
    assert list(LAWS[law](objects)) != []


def test_every_law_has_a_render_that_breaks_it():
    assert {law for law, _ in BROKEN.values()} == set(LAWS)


def test_a_secret_that_nobody_makes_is_missed():
    objects = good()
    next(each for each in spec(objects)["volumes"] if "secret" in each)["secret"]["secretName"] = "lungs-agregator-tls"
    assert "Secret/lungs-agregator-tls, which nobody makes" in " ".join(wiring.needs(objects))


def test_a_hook_that_needs_what_comes_later_is_reported():
    objects = good()
    account = next(each for each in of_kind(objects, "ServiceAccount") if "annotations" in each["metadata"])
    del account["metadata"]["annotations"]
    assert "which is not there yet" in " ".join(wiring.needs(objects))
