"""Both charts as Helm lints, renders and packs them, over every values file; every object by the API's schemas."""

import re
import subprocess
import sys
from pathlib import Path

import helm_python as h
import pytest
import yaml

from tests.charts import rendering, schemas
from tests.charts.pods import title, with_kept
from tests.charts.rendering import CHARTS, HELM

MATRIX = rendering.matrix()
BAD = sorted(Path(__file__).with_name("bad").glob("*.yaml"))
NEEDS = re.compile(r"Kubernetes (1\.\d+) or later")
HELM_3 = Path(sys.executable).with_name("helm")  # of the development installation; h is Helm 4


@pytest.fixture(params=MATRIX, ids=lambda cell: f"{cell[0]}-{cell[1].stem if cell[1] else 'defaults'}")
def cell(request):
    return request.param


def values(cell) -> dict:
    return rendering.read(cell[1]) if cell[1] else {}


def test_the_matrix_has_both_charts_and_at_least_twelve_values_files():
    assert len([cell for cell in MATRIX if cell[1]]) >= 12
    assert {name for name, _ in MATRIX} == set(CHARTS)


def test_charts_pass_lint_strictly(cell):
    report = h.lint(HELM / cell[0], values(cell), strict=True, namespace=rendering.NAMESPACE)
    found = [each for each in report["messages"] if each["severity"] > 1]
    assert (found, report["errors"], report["total_charts_linted"]) == ([], [], 1)


def oldest(cell) -> str:
    """The oldest Kubernetes that the chart admits, or that the values file says it needs."""
    said = NEEDS.search(cell[1].read_text()) if cell[1] else None
    wanted = said[1] if said else re.search(r"1\.\d+", rendering.chart(cell[0]).metadata["kubeVersion"])[0]
    return f"{wanted}.0"


@pytest.mark.parametrize("age", ["newest", "oldest"])
def test_kubernetes_takes_every_object(cell, age):
    version = schemas.NEWEST if age == "newest" else oldest(cell)
    objects = [each for each in with_kept(rendering.of(*cell).objects) if schemas.builtin(each)]
    assert len(objects) >= 3
    assert [refusal for each in objects for refusal in schemas.refusals(each, version)] == []


CUSTOM = sorted(
    {
        (each["apiVersion"], each["kind"])
        for cell in MATRIX
        for each in rendering.of(*cell).objects
        if not schemas.builtin(each)
    }
)


@pytest.mark.parametrize("kind", CUSTOM, ids="-".join)
def test_custom_resources_are_what_their_schemas_say(kind):
    if missing := schemas.NOT_AT_HAND.get(kind[0].rpartition("/")[0]):
        pytest.skip(f"{kind[1]} was held against no schema: none of {missing} is installed here")
    every = [each for cell in MATRIX for each in rendering.of(*cell).objects]
    ours = [each for each in every if (each["apiVersion"], each["kind"]) == kind]
    assert [refusal for each in ours for refusal in schemas.custom_refusals(each)] == []


def test_schemas_refuse_keys_that_they_do_not_know():
    issuer = {"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ca"}}
    good = {**issuer, "spec": {"ca": {"secretName": "ca"}}}
    assert list(schemas.custom_refusals(good)) == []
    assert list(schemas.custom_refusals({**good, "spec": {"ca": {"secretNam": "ca"}}})) == [
        "Issuer/ca: spec.ca.secretName: Field required"
    ]
    typo = {**issuer, "spec": {"ca": {"secretName": "ca", "crlDistributionPoint": ["x"]}}}
    assert list(schemas.custom_refusals(typo)) == ["Issuer/ca: spec.ca.crlDistributionPoint: unknown"]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": []}}
    assert "'port' was unexpected" in next(schemas.refusals(service, schemas.NEWEST))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_values_are_refused_by_a_message_that_names_the_key(path):
    first, *_ = path.read_text().splitlines()
    said = re.fullmatch(r"# ([a-z-]+): (.+)", first)
    assert said, f"{path.name}: the first line says which chart, and the words that its message must have"
    with pytest.raises(h.HelmError) as refused:
        rendering.rendered(said[1], rendering.read(path))
    for words in said[2].split(" | "):
        assert words in str(refused.value)
    assert len(str(refused.value)) < 1500


def test_there_are_bad_values_of_both_charts_and_at_least_fifteen():
    charts = [path.read_text().split(":")[0].removeprefix("# ") for path in BAD]
    assert len(charts) >= 15
    assert {charts.count(name) >= 5 for name in CHARTS} == {True}


@pytest.mark.parametrize("name", CHARTS)
def test_a_packed_chart_renders_as_the_folder_does(name, tmp_path):
    archive = h.package(HELM / name, destination=tmp_path)
    (cell,) = [cell for cell in MATRIX if cell[0] == name][:1]
    with h.Chart.load(archive) as packed:
        assert {each["name"] for each in packed.dependencies} == {"deerfield-common"}
        again = packed.render(values(cell), name=rendering.RELEASE, namespace=rendering.NAMESPACE)
    assert again == rendering.of(*cell).texts


@pytest.mark.parametrize("name", CHARTS)
def test_versions_are_those_of_the_package(name):
    from deerfield import __version__

    said = rendering.chart(name).metadata
    assert (said["appVersion"], said["version"]) == (__version__, __version__)
    assert {(each["name"], each["version"], each["repository"]) for each in said["dependencies"]} == {
        ("deerfield-common", rendering.chart("deerfield-common").version, "file://../deerfield-common")
    }


def helm_3(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM_3, *map(str, words)], capture_output=True, text=True, check=False)


def test_helm_3_renders_the_same_objects(cell):
    given = ("--values", cell[1]) if cell[1] else ()
    made = helm_3("template", rendering.RELEASE, HELM / cell[0], "--namespace", rendering.NAMESPACE, *given)
    assert made.returncode == 0, made.stderr
    said = sorted(rendering.documents(made.stdout), key=lambda each: (each["apiVersion"], title(each)))
    ours = sorted(rendering.of(*cell).objects, key=lambda each: (each["apiVersion"], title(each)))
    assert yaml.dump(said) == yaml.dump(ours)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_helm_3_refuses_bad_values_too(path):
    chart, _, words = path.read_text().splitlines()[0].removeprefix("# ").partition(": ")
    made = helm_3("template", rendering.RELEASE, HELM / chart, "--values", path)
    assert made.returncode == 1
    assert words.split(" | ")[0].strip("/'").rpartition("/")[2] in made.stderr


def test_notes_say_what_to_do_next(cell):
    notes = "".join(text for path, text in rendering.of(*cell).texts.items() if path.endswith("NOTES.txt"))
    assert "helm test" in notes
    assert "<no value>" not in notes
    assert "%!" not in notes
