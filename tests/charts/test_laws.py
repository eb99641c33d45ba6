"""Laws on what the charts render, whatever the values: one test for each law, on every values file there is."""

import pytest

from tests.charts import rendering, wiring
from tests.charts.laws import LAWS
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
        pytest.skip("these values give all releases one name, on purpose")
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
