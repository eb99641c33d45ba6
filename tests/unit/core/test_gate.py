"""The registry gate, rule by rule: both sides of each limit, and what is not known never passes."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from math import inf, nan

import pytest

from deerfield.errors import InvalidInput
from deerfield.gate import ALWAYS, Held, Rules, asked, judge
from deerfield.gate.evidence import read
from tests.gating import BASE, HUB, RULES, evaluation, evidence, figure, lineage, proven, scored, spent


def row(name, found, rules=RULES):
    """The row of one rule, whose verdict depends on it alone."""
    verdict = judge(rules, found)
    rows = {each.rule: each for each in verdict.rules}
    assert verdict.passed == all(each.passed for each in rows.values())
    assert [each.rule for each in verdict.failed] in ([], [name])
    assert "nan" not in rows[name].detail
    return rows[name]


def ruled(**changes):
    return Rules.model_validate({**RULES.model_dump(), **changes})


def with_candidate(**changes):
    return evidence(evaluation=evaluation(candidate=scored("2", **changes)))


def test_evidence_that_keeps_every_rule_passes_with_a_row_for_each():
    verdict = judge(RULES, evidence())
    assert verdict.passed
    assert tuple(each.rule for each in verdict.rules) == ALWAYS == asked(RULES)
    assert (verdict.model, verdict.version, verdict.expected_champion) == ("lungs", "2", "1")


def test_a_verdict_is_json_whatever_is_infinite_or_unknown():
    found = evidence(spent=spent(epsilon={"north": inf, "south": nan}))
    told = json.loads(json.dumps(judge(RULES, found).as_json(), allow_nan=False))
    assert set(told) == {"schema", "passed", "model", "version", "expected_champion", "rules", "evidence", "time"}
    assert told["evidence"]["spent"]["epsilon"] == {"north": None, "south": None}
    assert told["evidence"]["rules"]["minimum"] == 0.7
    assert (told["passed"], told["schema"]) == (False, 1)


def test_a_metric_that_was_not_computed_is_an_error_of_the_rules():
    with pytest.raises(InvalidInput, match=r"judge the metric 'auc'.*it has macro_f1"):
        judge(ruled(metric="auc"), evidence())


def test_a_verdict_has_a_row_for_each_rule_that_is_asked_for():
    rules = ruled(worst_site={"minimum": 0.5, "margin": 0.1}, calibration=0.1)
    assert {each.rule for each in judge(rules, evidence()).rules} == set(asked(rules))


def test_what_a_verdict_was_said_on_can_be_judged_again():
    rules = ruled(worst_site={"minimum": 0.5, "margin": 0.1}, calibration=0.1)
    spoilt = [found for where, found in spoiled(evidence()) if not where.endswith(("_limit", ".time"))]
    for given in (evidence(), *spoilt, evidence(champion=None, proof=None)):
        said = judge(rules, given)
        told = json.loads(json.dumps(said.as_json(), allow_nan=False))
        found = read({**told["evidence"], "model": told["model"], "time": told["time"]}, "verdict: evidence")
        again = judge(Rules.model_validate(told["evidence"]["rules"]), found)
        assert [(each.rule, each.passed) for each in again.rules] == [(each.rule, each.passed) for each in said.rules]


def test_evidence_that_is_none_is_one_sentence():
    document = {"model": "lungs", "candidate": {"version": "2", "run": "r", "digest": "d"}, "champion": None}
    with pytest.raises(InvalidInput, match=r"^verdict: evidence: evaluation: field required$"):
        read(document, "verdict: evidence")


def spoiled(value, path=""):
    """Copies of a value with one number, by where it stands, that is not known."""
    if isinstance(value, float):
        yield path, nan
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from ((where, {**value, key: one}) for where, one in spoiled(each, f"{path}.{key}"))
    elif is_dataclass(value):
        for field in fields(value):
            found = spoiled(getattr(value, field.name), f"{path}.{field.name}")
            yield from ((where, replace(value, **{field.name: one})) for where, one in found)


def test_no_number_that_is_not_known_passes():
    rules = ruled(worst_site={"minimum": 0.5, "margin": 0.1}, calibration=0.1)
    assert judge(rules, evidence()).passed
    not_judged = (".time", "_limit", "champion.metrics", "champion.ece")
    spoilt = [(where, found) for where, found in spoiled(evidence()) if not any(part in where for part in not_judged)]
    assert len(spoilt) > 15
    assert [where for where, found in spoilt if judge(rules, found).passed] == []


# --- minimum ---


@pytest.mark.parametrize(("low", "passed"), [(0.7, True), (0.6999999, False), (nan, False)])
def test_the_lower_bound_reaches_the_minimum(low, passed):
    found = row("minimum", with_candidate(metrics={"macro_f1": figure(low, 0.8, 0.9)}))
    assert (found.passed, found.limit) == (passed, 0.7)


@pytest.mark.parametrize(("value", "passed"), [(0.7, True), (0.69, False), (nan, False)])
def test_the_value_may_be_what_reaches_the_minimum(value, passed):
    found = row("minimum", with_candidate(metrics={"macro_f1": figure(0.1, value, 0.9)}), ruled(bound="value"))
    assert found.passed == passed


def test_a_refusal_says_which_number_and_never_rounds_it_to_the_limit():
    found = row("minimum", with_candidate(metrics={"macro_f1": figure(0.6999999, 0.8, 0.9)}))
    assert found.detail == (
        "the lower bound of macro_f1 is 0.6999999, below the minimum 0.7; measured 0.8, 0.6999999 to 0.9 at 95 %"
    )


@pytest.mark.parametrize("confidence", [0.9, nan])
def test_intervals_of_less_confidence_than_the_rules_ask_for_do_not_pass(confidence):
    verdict = judge(RULES, evidence(evaluation=evaluation(confidence=confidence)))
    assert [each.rule for each in verdict.failed] == ["minimum", "regression"]
    assert judge(ruled(confidence=0.9), evidence()).passed


# --- test set ---


@pytest.mark.parametrize(("examples", "passed"), [(100, True), (99, False), (0, False)])
def test_a_test_set_has_enough_examples(examples, passed):
    many = evidence(evaluation=evaluation(examples=examples), lineage=lineage(test_examples=examples))
    assert row("test_set", many).passed == passed
    assert row("test_set", many, ruled(test_set={"minimum": 1})).passed == (examples > 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_sha256": "f" * 64}, "it has sha256 ffffffffffff, the manifest keeps apart eeeeeeeeeeee"),
        ({"test_sha256": ""}, "it has sha256 none, the manifest keeps apart"),
        ({"examples": 150}, "it has 150 examples, and the manifest keeps 200 apart"),
    ],
)
def test_the_test_set_is_the_one_that_the_manifest_keeps_apart(changes, said):
    found = row("test_set", evidence(evaluation=evaluation(**changes)))
    assert (found.passed, said in found.detail) == (False, True)


def test_the_rules_may_name_the_test_set():
    shut = evidence(lineage=lineage(kind="consortium", hub={}, test_examples=None))
    assert "which nobody names" in row("test_set", shut).detail
    rules = ruled(test_set={"sha256": HUB})
    assert row("test_set", shut, rules).passed
    other = ruled(test_set={"sha256": "f" * 64})
    assert "the rules name ffffffffffff" in row("test_set", shut, other).detail
    elsewhere = evidence(evaluation=evaluation(test_sha256="f" * 64, examples=150))
    assert row("test_set", elsewhere, other).passed  # in the place of the manifest's


# --- regression ---


@pytest.mark.parametrize(("low", "passed"), [(-0.02, True), (-0.0200001, False), (nan, False), (0.01, True)])
def test_the_lower_bound_of_the_difference_keeps_the_margin(low, passed):
    found = row("regression", evidence(evaluation=evaluation(differences={"macro_f1": figure(low, 0.02, 0.03)})))
    assert (found.passed, found.limit) == (passed, -0.02)
    assert ("better with confidence" in found.detail) == (low > 0)


def test_a_difference_that_was_not_computed_does_not_pass():
    found = row("regression", evidence(evaluation=evaluation(differences={})))
    assert (found.passed, found.value) == (False, None)
    assert "evaluate the version again" in found.detail


def test_a_first_version_has_nothing_to_be_worse_than():
    first = evidence(champion=None, evaluation=evaluation(champion=None, differences={}))
    found = row("regression", first)
    assert (found.passed, found.value) == (True, None)
    assert "no champion yet" in found.detail
    assert judge(RULES, first).expected_champion == ""


# --- worst site ---


@pytest.mark.parametrize(
    ("sites", "passed"),
    [
        ({"north": 0.5, "south": 0.9}, True),
        ({"north": 0.499, "south": 0.9}, False),
        ({"north": 0.9, "south": nan}, False),
        ({}, False),
    ],
)
def test_every_site_reaches_the_minimum(sites, passed):
    by_site = {site: {"macro_f1": value} for site, value in sites.items()}
    found = row("worst_site", with_candidate(sites=by_site), ruled(worst_site={"minimum": 0.5}))
    assert found.passed == passed
    assert any(site in found.detail for site in sites) or not sites


def test_a_site_without_the_metric_does_not_pass():
    found = row("worst_site", with_candidate(sites={"north": {"loss": 0.1}}), ruled(worst_site={"minimum": 0.5}))
    assert (found.passed, found.value) == (False, None)


@pytest.mark.parametrize(("worst", "passed"), [(0.65, True), (0.649, False), (0.7, True), (nan, False)])
def test_the_worst_site_is_not_far_below_the_champions_worst(worst, passed):
    sites = {"north": {"macro_f1": 0.95}, "south": {"macro_f1": worst}}  # the champion's worst is the north, with 0.7
    found = row("worst_site_regression", with_candidate(sites=sites), ruled(worst_site={"margin": 0.05}))
    assert found.passed == passed


def test_a_champion_without_sites_is_no_comparison_and_no_champion_needs_none():
    rules = ruled(worst_site={"margin": 0.05})
    unknown = evidence(evaluation=evaluation(champion=scored("1", sites={})))
    assert not row("worst_site_regression", unknown, rules).passed
    assert row("worst_site_regression", evidence(champion=None, evaluation=evaluation(champion=None)), rules).passed


# --- calibration ---


@pytest.mark.parametrize(("ece", "passed"), [(0.1, True), (0.1001, False), (nan, False)])
def test_the_calibration_error_has_a_largest_value(ece, passed):
    assert row("calibration", with_candidate(ece=ece), ruled(calibration=0.1)).passed == passed


# --- epsilon ---


@pytest.mark.parametrize(("north", "passed"), [(3.0, True), (3.001, False), (inf, False), (nan, False), (-1.0, False)])
def test_what_a_site_spent_in_the_run_has_a_limit(north, passed):
    found = row("epsilon", evidence(spent=spent(epsilon={"north": north, "south": 0.1})))
    assert (found.passed, found.limit) == (passed, 3.0)
    assert "north" in found.detail


@pytest.mark.parametrize(("south", "passed"), [(8.0, True), (8.001, False), (inf, False), (nan, False)])
def test_what_a_population_spent_in_its_life_has_a_limit(south, passed):
    found = row("lifetime_epsilon", evidence(spent=spent(lifetime={"north": 1.0, "south": south})))
    assert (found.passed, found.limit) == (passed, 8.0)
    assert "south" in found.detail


def test_the_run_files_own_limits_hold_beside_the_rules():
    assert not row("epsilon", evidence(spent=spent(run_limit=1.9))).passed
    assert not row("lifetime_epsilon", evidence(spent=spent(lifetime_limit=4.5))).passed


def test_a_site_may_have_a_limit_of_its_own():
    rules = ruled(epsilon={"run": 1, "lifetime": 8, "sites": {"north": {"run": 2.5}, "south": {"run": 2}}})
    assert row("epsilon", evidence(), rules).passed
    found = row("epsilon", evidence(spent=spent(epsilon={"north": 2.6, "south": 2.0})), rules)
    assert (found.value, found.limit) == (2.6, 2.5)


def test_without_any_limit_an_epsilon_is_known_and_finite():
    rules, free = ruled(epsilon={}), spent(run_limit=None)
    assert row("epsilon", evidence(spent=free), rules).passed
    assert not row("epsilon", evidence(spent=replace(free, epsilon={"north": 1.0, "south": inf})), rules).passed


def test_a_refusal_names_every_site_that_is_over_its_limit():
    found = row("epsilon", evidence(spent=spent(epsilon={"north": 3.2, "south": inf})))
    assert found.detail == (
        "north spent 3.2, above its limit 3; south spent an infinite epsilon, and it must be 3 at most"
    )


def test_a_site_that_delivered_nothing_is_not_known_unless_the_rules_leave_it_out():
    three = spent(sites=("north", "south", "west"))
    verdict = judge(RULES, evidence(spent=three))
    assert {"epsilon", "lifetime_epsilon", "lineage"} <= {each.rule for each in verdict.failed}
    rules = ruled(epsilon={"run": 3, "absent": "allowed"})
    judged = judge(rules, evidence(spent=three, lineage=lineage(kind="consortium")))
    assert judged.passed, judged.failed
    nobody = judge(rules, evidence(spent=spent(epsilon={}, lifetime={})))
    assert not nobody.passed


def test_a_site_that_took_no_task_spent_nothing_and_needs_no_rule():
    idle = spent(sites=("north", "south", "west"), epsilon={"north": 2.0, "south": 2.0, "west": 0.0})
    judged = judge(RULES, evidence(spent=idle, lineage=lineage(kind="consortium")))
    assert judged.passed, judged.failed
    unproven = row("lifetime_epsilon", evidence(spent=spent(lifetime={})))
    assert "delivered nothing" not in unproven.detail
    took = replace(idle, epsilon={**idle.epsilon, "west": inf})
    assert not judge(RULES, evidence(spent=took, lineage=lineage(kind="consortium"))).passed


def test_a_site_that_delivered_is_known_in_every_respect():
    rules = ruled(epsilon={"run": 3, "lifetime": 8, "absent": "allowed"})
    assert not row("epsilon", evidence(spent=spent(epsilon={"north": 1.0})), rules).passed


def test_a_site_that_the_run_does_not_name_is_judged_too():
    assert not row("epsilon", evidence(spent=spent(epsilon={"north": 1.0, "south": 1.0, "west": 9.0}))).passed


def test_no_privacy_passes_only_where_the_rules_say_so_and_the_run_is_of_unit_none():
    infinite = {"north": inf, "south": inf}
    none = spent(unit="none", epsilon=infinite, lifetime=infinite, run_limit=None)
    assert not judge(RULES, evidence(spent=none)).passed
    assert judge(ruled(privacy="none_allowed"), evidence(spent=none)).passed
    promised = replace(none, unit="record")
    assert not judge(ruled(privacy="none_allowed"), evidence(spent=promised)).passed


@pytest.mark.parametrize(("delta", "passed"), [(1e-5, True), (1.1e-5, False), (nan, False)])
def test_the_delta_of_a_run_and_of_a_life_has_a_limit(delta, passed):
    assert row("delta", evidence(spent=spent(delta=delta))).passed == passed
    assert row("delta", evidence(spent=spent(lifetime_delta={"north": delta}))).passed == passed


# --- proof ---


@pytest.mark.parametrize(
    "proof",
    [
        None,
        proven(phases=0, runs=(), digest=""),
        proven(verified=False),
        proven(verified=False, findings=("the head of north is not signed",)),
        proven(findings=("the head of north is not signed",)),
    ],
)
def test_a_proof_is_there_and_verifies(proof):
    found = row("proof", evidence(proof=proof))
    assert not found.passed
    assert ("the head of north is not signed" in found.detail) == (proof is not None and proof.findings != ())


# --- lineage ---


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run_file": ""}, "the run file is not there"),
        ({"run_file": "f" * 64}, "the run file has sha256 ffffffffffff, the version says aaaaaaaaaaaa"),
        ({"code": ""}, "the version of the code is not known"),
        ({"base_digest": "None"}, "the digest of the base model is not known"),
        ({"trained_on": "f" * 64}, "the base model is bbbbbbbbbbbb, the run file names ffffffffffff"),
        ({"commitments": {"north": BASE}}, "no commitment to the data of south"),
        ({"commitments": {"north": BASE, "south": "secret"}}, "no commitment to the data of south"),
        ({"hub": {"north": BASE, "south": BASE}}, "the manifest has no sha256 of test"),
        ({"hub": {}}, "the manifest has no sha256 of north, south, test"),
        (
            {"hub": dict.fromkeys(("north", "south", "test", "west"), HUB)},
            "the manifest names west, which the run has not",
        ),
        ({"manifests": {"given": BASE, "kept": "f" * 64}}, "differ (given bbbbbbbbbbbb, kept ffffffffffff)"),
        (
            {"manifests": {"kept": BASE, "lineage.json": "f" * 64}},
            "lineage.json ffffffffffff)",
        ),
    ],
)
def test_a_lineage_is_complete(changes, said):
    found = row("lineage", evidence(lineage=lineage(**changes)))
    assert (found.passed, said in found.detail) == (False, True)


def test_a_consortium_owns_no_hashes_at_its_hub():
    assert row("lineage", evidence(lineage=lineage(kind="consortium", hub={}))).passed


# --- leakage ---


@pytest.mark.parametrize(
    ("checked", "overlap", "kind", "passed"),
    [
        (100, 0, "simulation", True),
        (100, 1, "simulation", False),
        (0, 0, "simulation", False),
        (0, 0, "consortium", True),
        (0, 0, "", False),
        (100, 0, "", False),
        (100, 0, "else", False),
        (100, 1, "consortium", False),
    ],
)
def test_no_test_example_was_trained_on(checked, overlap, kind, passed):
    found = evidence(evaluation=evaluation(checked=checked, overlap=overlap), lineage=lineage(kind=kind))
    assert row("leakage", found).passed == passed


# --- freshness ---


def test_an_evaluation_of_another_version_or_digest_is_refused():
    other = row("freshness", evidence(evaluation=evaluation(candidate=scored("3"))))
    assert "version 3 was evaluated as the candidate, which is version 2" in other.detail
    for digest in ("another digest", ""):
        changed = row("freshness", with_candidate(digest=digest))
        assert not changed.passed
    nameless = evidence(
        candidate=Held(version="2", run="run-2", digest=""), evaluation=evaluation(candidate=scored("2", digest=""))
    )
    assert not row("freshness", nameless).passed


def test_an_evaluation_against_another_champion_is_refused():
    assert "version 4 was evaluated" in row("freshness", evidence(evaluation=evaluation(champion=scored("4")))).detail
    assert not row("freshness", evidence(evaluation=evaluation(champion=scored("1", digest="x")))).passed
    assert "no champion was evaluated" in row("freshness", evidence(evaluation=evaluation(champion=None))).detail
    assert "there is none" in row("freshness", evidence(champion=None)).detail


def test_an_evaluation_is_the_one_that_the_run_has_kept():
    found = row("freshness", evidence(evaluation=evaluation(kept="f" * 64)))
    assert "the evaluation has sha256 999999999999, the run has kept ffffffffffff" in found.detail
    unkept = row("freshness", evidence(evaluation=evaluation(kept="")))
    assert (unkept.passed, "has kept no evaluation" in unkept.detail) == (True, True)


def test_a_proof_of_another_run_is_refused():
    for runs in (("run-1",), ("run-1", "run-2")):
        found = row("freshness", evidence(proof=proven(runs=runs)))
        assert "is of run run-1" in found.detail
    assert "ends in digest another" in row("freshness", evidence(proof=proven(digest="another"))).detail
