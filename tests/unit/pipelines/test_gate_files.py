"""The files that the gate reads: rules, evaluation, manifest; what is wrong with one is a sentence."""

import json
from hashlib import sha256
from math import isnan

import pytest

from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import read
from deerfield.errors import InvalidInput
from deerfield.gate import Figure, load_rules
from deerfield.gate.evaluated import read_evaluation
from deerfield.gate.rules import rules_of

RULES = "minimum: 0.7\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metric: accuracy\n", "minimum is missing"),
        ("minimum: 1.5\n", "minimum is 1.5: input should be less than or equal to 1"),
        ("minimum: .nan\n", "minimum is nan: input should be"),
        (RULES + "regresion: {margin: 0.1}\n", "unknown key 'regresion'; did you mean 'regression'?"),
        (RULES + "regression: {margins: 0.1}\n", "unknown key 'regression.margins'; did you mean 'margin'?"),
        (RULES + "regression: 0.1\n", "regression is 0.1: it must be a mapping of keys"),
        (RULES + "epsilon: {run: 0}\n", "epsilon.run is 0: input should be greater than 0"),
        (RULES + "epsilon: {run: .inf}\n", "epsilon.run is inf"),
        (RULES + "epsilon: {sites: {north: {runs: 3}}}\n", "unknown key 'epsilon.sites.north.runs'"),
        (RULES + "delta: 1e-3\n", "delta is '1e-3': input should be less than or equal to 0.00001"),
        (RULES + "privacy: none\n", "privacy is 'none': input should be 'required' or 'none_allowed'"),
        (RULES + "proof: {aggregator_key: abc}\n", "proof.aggregator_key is 'abc'"),
        ("# no rules\n", "a file of the gate's rules is a mapping of keys, such as minimum:, and this is empty"),
        ("minimum: [", "not YAML"),
    ],
)
def test_a_rules_file_that_is_wrong_is_one_sentence(tmp_path, text, said):
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    for reading in (lambda: load_rules(path), lambda: rules_of(text, str(path))):
        with pytest.raises(InvalidInput) as caught:
            reading()
        assert str(caught.value).startswith(str(path))
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_pipeline_without_rules_asks_for_all_but_a_minimum():
    rules = rules_of("", "rules")
    assert rules == rules_of("minimum: 0\n", "rules")


def test_rules_without_more_than_a_minimum_are_the_strict_ones():
    rules = rules_of(RULES, "rules")
    assert (rules.metric, rules.bound, rules.confidence, rules.privacy) == ("macro_f1", "low", 0.95, "required")
    assert (rules.epsilon.absent, rules.worst_site.minimum, rules.calibration) == ("refused", None, None)


def figure(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def model(version, **more):
    found = {"version": version, "digest": f"digest {version}", "metrics": {"macro_f1": figure(0.8)}}
    drawn = {"confusion": [[40, 5], [5, 0]], "roc": {"no": None, "yes": None}}
    return found | {"calibration": {"ece": 0.05, "bins": []}} | drawn | more


EVALUATION = {
    "schema": 1,
    "test_set": {"source": "test.csv", "sha256": "e" * 64, "examples": 50},
    "labels": ["no", "yes"],
    "primary": "macro_f1",
    "models": {"candidate": model("2"), "champion": model("1"), "base": model("")},
    "differences": {"champion": {"macro_f1": figure(0.0)}, "base": {"macro_f1": figure(0.4)}},
    "by_site": {"north": {"examples": 9, "metrics": {"macro_f1": figure(0.7)}}},
    "reported": {"north": {"macro_f1": 0.6}, "south": {"macro_f1": None}},
    "leakage": {"checked": 100, "overlap": 0},
    "confidence": 0.95,
    "resamples": 2000,
}


def written(folder, document):
    path = folder / "evaluation.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_an_evaluation_is_read_as_far_as_it_is_judged(tmp_path):
    found = read_evaluation(written(tmp_path, EVALUATION))
    assert (found.candidate.version, found.candidate.digest, found.candidate.ece) == ("2", "digest 2", 0.05)
    assert found.candidate.metrics == {"macro_f1": Figure(value=0.8, low=0.8 - 0.1, high=0.8 + 0.1)}
    assert found.candidate.sites == {"north": {"macro_f1": 0.7}}
    assert found.champion is not None
    assert found.champion.version == "1"
    assert found.differences["macro_f1"].low == -0.1
    assert (found.confidence, found.checked, found.overlap, found.examples) == (0.95, 100, 0, 50)


def test_what_sites_report_stands_in_where_the_test_set_has_none(tmp_path):
    found = read_evaluation(written(tmp_path, EVALUATION | {"by_site": {}}))
    assert found.candidate.sites["north"] == {"macro_f1": 0.6}
    assert isnan(found.candidate.sites["south"]["macro_f1"])


def test_what_sites_report_on_the_champion_is_held_against_it(tmp_path):
    models = EVALUATION["models"] | {"champion": model("1", reported={"north": {"macro_f1": 0.5}})}
    found = read_evaluation(written(tmp_path, EVALUATION | {"by_site": {}, "models": models}))
    assert found.champion is not None
    assert found.champion.sites == {"north": {"macro_f1": 0.5}}


def test_what_could_not_be_computed_is_not_a_number(tmp_path):
    nothing = {"value": None, "low": None, "high": None}
    unknown, bins = {"macro_f1": nothing, "auc": nothing}, {"ece": None, "bins": []}
    document = EVALUATION | {"models": {"candidate": model("2", metrics=unknown, calibration=bins)}}
    found = read_evaluation(written(tmp_path, document))
    assert all(isnan(value) for value in (found.candidate.metrics["macro_f1"].low, found.candidate.ece))
    assert isnan(found.candidate.metrics["auc"].value)
    assert found.champion is None


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no JSON object but list"),
        ("{}", "has no schema, and this version of deerfield reads 1"),
        ('{"schema": 1, "schema": 1}', "the key 'schema' stands there twice"),
        (EVALUATION | {"schema": 2}, "has schema '2', and this version of deerfield reads 1"),
        (EVALUATION | {"schema": True}, "has schema 'True'"),
        (EVALUATION | {"models": {}}, "models: there is no candidate"),
        (EVALUATION | {"test_set": {"sha256": "e" * 64, "examples": True}}, "test_set.examples is True"),
        (EVALUATION | {"test_set": {"sha256": "e" * 64, "examples": "50"}}, "test_set.examples is '50'"),
        (EVALUATION | {"leakage": None}, "leakage is None"),
        (EVALUATION | {"confidence": "high"}, "confidence is 'high'"),
        (EVALUATION | {"models": {"candidate": model("2", metrics={"f1": "good"})}}, "models.candidate.metrics.f1"),
    ],
)
def test_an_evaluation_that_is_wrong_is_one_sentence(tmp_path, document, said):
    with pytest.raises(InvalidInput) as caught:
        read_evaluation(written(tmp_path, document))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path):
    for reading in (read_evaluation, lambda path: read(Manifest, path)):
        with pytest.raises(InvalidInput, match="cannot be read: No such file or directory; it ought to be the"):
            reading(tmp_path / "none.json")


def test_a_manifest_has_hashes_where_the_hub_owns_the_data_and_none_elsewhere(tmp_path):
    parts = {"north": {"units": 3, "sha256": "a" * 64}, "south": {"units": 3}}
    document = {"schema": 1, "kind": "simulation", "sites": parts, "test": {"examples": 5, "sha256": "c" * 64}}
    found = read(Manifest, written(tmp_path, document))
    assert (found.kind, found.hub) == ("simulation", {"north": "a" * 64, "south": "", "test": "c" * 64})
    assert read(Manifest, written(tmp_path, document | {"kind": "consortium"})).hub == {}
    assert read(Manifest, written(tmp_path, {**document, "test": None})).hub["test"] == ""
    for change, said in (
        ({"kind": "other"}, "kind is 'other'"),
        ({"sites": {"north": {"sha256": "short"}}}, "sites.north.sha256 is 'short'"),
        ({"test": {"examples": "many"}}, "test.examples is 'many'"),
    ):
        with pytest.raises(InvalidInput, match=said):
            read(Manifest, written(tmp_path, document | change))


def test_the_evaluation_that_is_read_is_known_by_its_hash(tmp_path):
    path = written(tmp_path, EVALUATION)
    found = read_evaluation(path, "f" * 64)
    assert (found.sha256, found.kept) == (sha256(path.read_bytes()).hexdigest(), "f" * 64)
