"""What releases must not change, who may call whom and who may do what: as reviewed, in tests/golden/charts."""

from dataclasses import replace

import helm_python as h
import pytest
import yaml

from tests.charts import golden, network, rendering, secrecy, values
from tests.charts.network import ANYBODY
from tests.charts.pods import of_kind, pods

# The architecture's arrows between pods of one release. Nobody else calls anybody: sites call the aggregator alone, and
# the aggregator alone writes MLflow; `helm test` looks at both.
ARROWS = {
    "aggregator -> tracking:5000",
    "site -> aggregator:8600",
    "trial -> aggregator:8600",
    "trial -> tracking:5000",
    "aggregator -> postgresql:5432",
    "tracking -> postgresql:5432",
    "aggregator -> seaweedfs:8333",
    "tracking -> seaweedfs:8333",
}
# Who may ask the Kubernetes API for what.
ROLES = {
    ("secrets", "RoleBinding", "create", "/secrets"),
    ("secrets", "RoleBinding", "get", "/secrets by name"),
    ("agent", "RoleBinding", "create", "batch/jobs"),
    ("agent", "RoleBinding", "get", "batch/jobs"),
    ("agent", "RoleBinding", "list", "batch/jobs"),
    ("agent", "RoleBinding", "delete", "batch/jobs"),
    ("agent", "RoleBinding", "get", "/pods"),
    ("agent", "RoleBinding", "list", "/pods"),
}


@pytest.fixture(params=rendering.matrix(), ids=lambda cell: f"{cell[0]}-{cell[1].stem if cell[1] else 'defaults'}")
def render(request):
    return rendering.of(*request.param)


@pytest.mark.parametrize("name", golden.PAGES)
def test_golden_files_are_what_the_charts_render(name):
    kept = golden.FOLDER / f"{name}.yaml"
    assert kept.read_text() == golden.page(name), "read the difference, then run python -m tests.charts.golden"


def test_pods_of_a_release_call_each_other_along_the_architecture_s_arrows_and_no_others(render):
    there = {pod.component for pod in pods(render.objects)}
    found = network.edges(render.objects)
    if not of_kind(render.objects, "NetworkPolicy"):
        return  # values that leave the network to others
    ends = {edge: (edge.partition(" -> ")[0], edge.partition(" -> ")[2].rpartition(":")[0]) for edge in found}
    inside = {edge for edge, pair in ends.items() if {*pair} <= there}
    wanted = {
        each for each in ARROWS if {each.partition(" -> ")[0], each.partition(" -> ")[2].partition(":")[0]} <= there
    }
    assert inside == wanted


def test_nobody_is_let_out_to_everywhere_but_the_job_that_asks_the_api_server(render):
    """A policy cannot name the API server, whose address is another one on each cluster."""
    if not of_kind(render.objects, "NetworkPolicy"):
        return  # values that leave the network to others
    ends = [edge.partition(" -> ") for edge in network.edges(render.objects)]
    wide = {(caller, called) for caller, _, called in ends if ANYBODY in called or "/0:" in called}
    assert {caller for caller, _ in wide} <= {"secrets"}
    assert not any(called.endswith(":any") for _, called in wide)


def test_roles_are_the_listed_ones(render):
    assert secrecy.roles(render.objects) <= ROLES


def test_an_upgrade_renders_what_an_installation_does(render):
    """No template looks at the revision, so a rollback brings back what there was."""
    cell = next(cell for cell in rendering.matrix() if str(rendering.of(*cell)) == str(render))
    tree = rendering.read(cell[1]) if cell[1] else {}
    chart = rendering.chart(render.chart)
    again = chart.render(tree, name=render.release, namespace=rendering.NAMESPACE, revision=7, is_upgrade=True)
    assert again == render.texts


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """The charts as a later release would bring them: another version, and nothing else."""
    folder = tmp_path_factory.mktemp("newer")
    for name in rendering.CHARTS:
        rendering.chart(name).save_dir(folder)
        file = folder / name / "Chart.yaml"
        said = rendering.documents(file.read_text())[0] | {"version": "9.8.7", "appVersion": "9.8.7"}
        file.write_text(yaml.safe_dump(said))
    return {name: h.Chart.load(folder / name) for name in rendering.CHARTS}


def test_a_newer_version_and_other_labels_leave_alone_what_cannot_be_changed(render, newer):
    cell = next(cell for cell in rendering.matrix() if str(rendering.of(*cell)) == str(render))
    tree = values.merged(rendering.read(cell[1]) if cell[1] else {}, {"commonLabels": {"team": "oncology"}})
    texts = newer[render.chart].render(tree, name=render.release, namespace=rendering.NAMESPACE)
    objects = [each for path, text in texts.items() if path.endswith(".yaml") for each in rendering.documents(text)]
    assert golden.immutable(replace(render, objects=tuple(objects))) == golden.immutable(render)
