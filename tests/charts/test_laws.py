"""Laws on what the charts render, whatever the values: one test for each law, on every values file there is."""

import pytest

from tests.charts import rendering, wiring
from tests.charts.laws import LAWS
from tests.charts.pods import containers, of_kind, pods
from tests.charts.rendering import LONG, RELEASE, Render

MATRIX = rendering.matrix()


@pytest.fixture(params=MATRIX, ids=lambda cell: f"{cell[0]}-{cell[1].stem if cell[1] else 'defaults'}")
def cell(request):
    return request.param


@pytest.fixture
def render(cell) -> Render:
    return rendering.of(*cell)


@pytest.mark.parametrize("law", LAWS)
def test_law(law, render):
    assert list(LAWS[law](render.objects)) == []


@pytest.mark.parametrize("release", [LONG, "9-begins-with-a-digit", "has.dots"])
def test_names_fit_and_everything_finds_itself_under_any_name_of_a_release(cell, release):
    found = rendering.of(*cell, release)
    assert [each for law in LAWS.values() for each in law(found.objects)] == []


def test_two_long_names_that_begin_alike_share_nothing(cell):
    if cell[1] and "fullnameOverride" in rendering.read(cell[1]):
        return  # these values give all releases one name, on purpose
    one, other = (rendering.of(*cell, release) for release in (LONG, LONG[:-1] + "2"))
    named = [{(each["kind"], each["metadata"]["name"]) for each in found.objects} for found in (one, other)]
    assert not named[0] & named[1]


def test_what_a_pod_needs_is_made_or_named_by_a_value(cell, render):
    tree = rendering.chart(render.chart).merge_values(rendering.read(cell[1]) if cell[1] else {})
    assert list(wiring.needs(render.objects, rendering.strings(tree))) == []


def test_two_renders_are_the_same_bytes(cell, render):
    again = rendering.rendered(cell[0], rendering.read(cell[1]) if cell[1] else {})
    assert again.texts == render.texts


def test_everything_lies_in_the_namespace_of_the_release(render):
    cluster = {"ClusterRole", "ClusterRoleBinding", "PersistentVolume", "Namespace"}
    assert {each["metadata"].get("namespace") for each in render.objects if each["kind"] not in cluster} == {
        rendering.NAMESPACE
    }
    assert render.release == RELEASE


def test_no_service_leads_to_the_port_of_probes(render):
    """It is plaintext, for the kubelet alone."""
    exposed = [port["port"] for each in of_kind(render.objects, "Service") for port in each["spec"].get("ports", [])]
    assert 8601 not in exposed


def test_no_budget_keeps_a_node_from_being_drained_of_the_only_pod(render):
    assert of_kind(render.objects, "PodDisruptionBudget") == []


def test_an_uninstallation_leaves_state_where_it_is(render):
    """Ledgers and the aggregator's database: claims of StatefulSets, or claims that Helm is told to keep."""
    for each in of_kind(render.objects, "PersistentVolumeClaim"):
        if each["metadata"]["name"].endswith("-state"):
            assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for each in of_kind(render.objects, "StatefulSet"):
        kept = each["spec"].get("persistentVolumeClaimRetentionPolicy", {})
        assert {"Delete"} & set(kept.values()) == set()
    assert [each for each in of_kind(render.objects, "Deployment") if "persistentVolumeClaim" in str(each)] == []


def test_a_gpu_is_asked_for_where_a_value_asks_for_it_and_nowhere_else(cell, render):
    """A GPU is a limit of one container of a component that trains; helpers, hooks and tests take none."""
    tree = rendering.read(cell[1]) if cell[1] else {}
    count = tree.get("trainer", {}).get("gpu", {}).get("count", 0)
    found = {
        pod.component: {
            name: amount for name, amount in box.get("resources", {}).get("limits", {}).items() if "/" in name
        }
        for pod in pods(render.objects)
        for _, box in containers(pod)
    }
    asking = {component: limits for component, limits in found.items() if limits}
    assert [list(limits.values()) for limits in asking.values()] == ([[count]] if count else [])
    assert asking.keys() <= {"site", "task"}
