"""Values: each is documented, in the schema, and changes something; what a template asks for is a value."""

import itertools
import json

import helm_python as h
import pytest

from tests.charts import rendering, values
from tests.charts.pods import containers, pods
from tests.charts.rendering import CHARTS

REGISTRY, DIGEST = "registry.example:5000/deerfield", "sha256:" + "0" * 64
MATRIX = rendering.matrix()


@pytest.fixture(params=CHARTS)
def chart(request):
    return request.param


@pytest.fixture(params=MATRIX, ids=lambda cell: f"{cell[0]}-{cell[1].stem if cell[1] else 'defaults'}")
def cell(request):
    return request.param


def with_values(cell, *more):
    """All containers, with these values over those of a cell."""
    tree = rendering.read(cell[1]) if cell[1] else {}
    for each in more:
        tree = values.merged(tree, each)
    return [box for pod in pods(rendering.rendered(cell[0], tree).objects) for _, box in containers(pod)]


def test_every_value_is_documented(chart):
    assert values.undocumented(chart) == []


def test_schema_and_values_have_the_same_keys_and_no_others(chart):
    assert list(values.schema_differences(rendering.chart(chart).schema, values.defaults(chart))) == []


def test_templates_ask_for_values_that_there_are(chart):
    assert values.unknown_paths(chart) == []


def test_templates_give_the_same_each_time_and_without_a_cluster(chart):
    found = {file: values.forbidden(text) for file, text in values.sources(chart).items()}
    assert {file: names for file, names in found.items() if names} == {}


def test_every_image_comes_from_the_registry_that_one_value_names(cell):
    for box in with_values(cell, {"image": {"registry": REGISTRY}}):
        assert box["image"].startswith(f"{REGISTRY}/"), box["name"]


def test_every_image_can_be_pinned_by_digest(cell):
    paths = values.blocks(values.defaults(cell[0]), "repository")
    for box in with_values(cell, *(values.at((*path, "digest"), DIGEST) for path in paths)):
        assert box["image"].endswith(f"@{DIGEST}"), box["name"]


def test_every_container_s_resources_can_be_set(cell):
    asked = {"requests": {"cpu": "123m"}}
    paths = values.blocks(values.defaults(cell[0]), "resources")
    for box in with_values(cell, *(values.at((*path, "resources"), asked) for path in paths)):
        assert box["resources"]["requests"]["cpu"] == "123m", box["name"]


def test_pull_secrets_reach_every_pod(cell):
    tree = values.merged(
        rendering.read(cell[1]) if cell[1] else {}, {"image": {"pullSecrets": [{"name": "registry-login"}]}}
    )
    for pod in pods(rendering.rendered(cell[0], tree).objects):
        assert pod.spec["imagePullSecrets"] == [{"name": "registry-login"}], pod.where


def test_a_variable_that_is_given_again_replaces_the_chart_s(cell):
    """Helm 4 refuses a list with a name twice."""
    names = {each["name"] for box in with_values(cell) for each in box.get("env", [])}
    extra = [{"name": name, "value": "replaced"} for name in sorted(names)]
    paths = values.blocks(values.defaults(cell[0]), "extraEnv")
    replaced = set()
    for box in with_values(cell, *(values.at((*path, "extraEnv"), extra) for path in paths)):
        there = [each["name"] for each in box.get("env", [])]
        assert len(there) == len(set(there)), box["name"]
        replaced |= {each["name"] for each in box.get("env", []) if each.get("value") == "replaced"}
    assert replaced


@pytest.fixture(scope="module")
def without_schema(tmp_path_factory):
    """The charts without their schemas: a value that its schema refuses would change nothing for another reason."""
    folder = tmp_path_factory.mktemp("charts")
    for name in CHARTS:
        rendering.chart(name).save_dir(folder)
        (folder / name / "values.schema.json").unlink(missing_ok=True)
    return {name: h.Chart.load(folder / name) for name in CHARTS}


def outcome(chart: h.Chart, tree: dict) -> str:
    try:
        return json.dumps(chart.render(tree, name=rendering.RELEASE, namespace=rendering.NAMESPACE), sort_keys=True)
    except h.HelmError as refused:
        return str(refused)


def others(value: object) -> list[object]:
    """Other values in its place, of which one at least should make a difference."""
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1]
        case str():
            return [f"{value}x", "1", "json", "s3"]
        case list():
            return [[*value, "another"], [{"name": "another"}], [{"name": "another", "value": "x", "mountPath": "/x"}]]
        case None:
            return ["1", 1]
    return [{"another": "x"}, {"another": 1}]


def test_every_value_changes_something(chart, without_schema):
    """In some cell of the matrix another value renders other objects, or is refused by a sentence."""
    trees = [rendering.read(path) if path else {} for name, path in MATRIX if name == chart]
    cells = [(tree, outcome(without_schema[chart], tree)) for tree in trees]
    idle = []
    for path, value in values.leaves(values.defaults(chart)):
        for other, cell in itertools.product(others(value), list(cells)):
            tree, before = cell
            if outcome(without_schema[chart], values.merged(tree, values.at(path, other))) != before:
                cells.remove(cell)
                cells.insert(0, cell)  # values that stand together are used together
                break
        else:
            idle.append(".".join(path))
    assert idle == []
