from dataclasses import replace
from typing import get_args

import pytest

from deerfield.errors import InvalidInput
from deerfield.runspec import RunSpec
from deerfield.strategies import STRATEGIES, describe, make
from deerfield.types import Unit
from tests.adapters import adapter


def spec(strategy="deer", **privacy):
    return RunSpec.model_validate(
        {
            "name": "trial",
            "population": "notes",
            "labels": ["a", "b"],
            "strategy": strategy,
            "model": {"base": "m", "input": "text"},
            "privacy": {"epsilon": 3} | privacy,
        }
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_file_can_name_it_under_each_unit_that_it_declares(name):
    for unit in make(spec(name)).declares.units:
        assert make(spec(name, unit=unit, epsilon=None if unit == "none" else 3)).declares.sends


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_describes_itself(name):
    description = describe(name)
    assert description.name == name
    assert description.title.endswith(".")
    assert description.declares.units <= set(get_args(Unit))


def test_options_are_read_off_the_factory():
    assert describe("deer").options["regulator"].default == "gauge"
    assert describe("deer").options["regulator"].allowed == ("gauge", "off")
    assert not describe("ffa").options


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("der", "did you mean 'deer'"),
        ("zzz", "known are deer, ffa"),
        ({"name": "deer", "regulate": "off"}, "did you mean 'regulator'"),
        ({"name": "deer", "regulator": "gage"}, "allowed are 'gauge', 'off'"),
        ({"name": "deer", "regulator": True}, "allowed are 'gauge', 'off'"),
        ({"name": "ffa", "regulator": "off"}, "ffa has no option 'regulator'; it has none"),
    ],
)
def test_what_it_does_not_know_is_refused_with_what_it_does(strategy, words):
    with pytest.raises(InvalidInput, match=words):
        make(spec(strategy))


@pytest.mark.parametrize("off", ["off", False])
def test_a_bare_off_means_off(off):
    """YAML 1.1 reads it as false; without the regulator the drawn adapter is the start as it is."""
    drawn = adapter(0)
    assert make(spec({"name": "deer", "regulator": off})).init(drawn).shared is drawn


@pytest.mark.parametrize("name", STRATEGIES)
def test_records_and_patients_are_protected_and_sites_where_their_updates_are_summed(name):
    units = {"record", "patient", "none"}
    if name not in ("local", "central"):
        assert make(spec(name, unit="site")).declares.units == units | {"site"}
        return
    assert make(spec(name)).declares.units == units
    with pytest.raises(
        InvalidInput, match=f"{name} has no guarantee for unit 'site'; it has for none, patient, record"
    ):
        make(spec(name, unit="site"))


def test_a_unit_without_a_guarantee_is_refused_with_those_that_have_one():
    def careful(spec):
        """Has a guarantee for records alone."""
        strategy = STRATEGIES["fedavg"](spec)
        return replace(strategy, declares=replace(strategy.declares, units=frozenset({"record"})))

    with pytest.raises(InvalidInput, match="careful has no guarantee for unit 'none'; it has for record"):
        make(spec("careful", unit="none", epsilon=None), {"careful": careful})
