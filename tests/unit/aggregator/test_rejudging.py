"""A verdict held against what the aggregator knows itself: each way in which one may be careless or forged."""

import json
from dataclasses import replace
from hashlib import sha256
from math import inf

import pytest

from deerfield import mirror
from deerfield.documents.partition_manifest import consortium
from deerfield.errors import InvalidInput
from deerfield.gate import Held, Rules, judge
from deerfield.gate.ledgers import commitments, proven
from deerfield.gate.rules import Signers
from deerfield.runspec import Privacy
from deerfield.wire.promoting import read_verdict
from services.aggregator.champions.rejudging import Known, check_verdict
from tests import gating
from tests.fakes import run_spec
from tests.mirrored import run_mirror

MODEL = "lungs"
PRIVACY = Privacy(unit="record", epsilon=3.0, clip=1.0, sample_rate=0.5)
PLAIN = run_spec("north", "south", rounds=1, privacy=PRIVACY, name=MODEL)
SPEC = PLAIN.model_copy(update={"model": PLAIN.model.model_copy(update={"digest": gating.BASE})})
MIRROR = [json.loads(mirror.encode(each)) for each in run_mirror(SPEC)]
CANDIDATE = Held(version="2", run="a-run", digest=MIRROR[-1]["digest"])
CHAMPION = Held(version="1", run="run-1", digest="digest 1")
MANIFEST = json.dumps(consortium(SPEC.federation.sites, SPEC.labels, 0)).encode()
LOW = {"macro_f1": gating.figure(0.6)}
RULES = Rules.model_validate({"minimum": 0.7, "epsilon": {"run": 3, "lifetime": 8}})


def manifest_sha256(content=MANIFEST):
    return sha256(content).hexdigest()


KNOWN = Known(
    candidate=CANDIDATE,
    champion=CHAMPION,
    spec=SPEC,
    mirror=MIRROR,
    manifest=MANIFEST,
    manifest_sha256=manifest_sha256(),
    evaluation_sha256="",
    rules=None,
)


def honest(**changes):
    """What a gate collects of the version."""
    proof, spent = proven(MIRROR, SPEC, Signers(), {})
    scored = gating.scored("2", digest=CANDIDATE.digest)
    plain = gating.evidence(
        model=MODEL,
        candidate=CANDIDATE,
        champion=CHAMPION,
        evaluation=gating.evaluation(candidate=scored, kept=""),
        spent=spent,
        proof=proof,
        lineage=gating.lineage(
            spec_sha256=SPEC.sha256,
            run_file=SPEC.sha256,
            commitments=commitments(MIRROR),
            kind="consortium",
            hub={},
            test_examples=None,
            manifests={"kept": manifest_sha256()},
        ),
    )
    return replace(plain, **changes)


def check(given=None, known=KNOWN, rules=RULES, change=lambda document: document):
    """Checks the verdict on the evidence, after a change to its JSON."""
    said = judge(rules, honest() if given is None else given)
    text = json.dumps(change(said.as_json()), allow_nan=False)
    check_verdict(read_verdict(MODEL, "2", "1", text), known)


def refused(says, *given, **how):
    with pytest.raises(InvalidInput) as caught:
        check(*given, **how)
    said = str(caught.value)
    assert said.startswith("verdict: ") or "manifest.json" in said
    assert says in said
    assert "\n" not in said


def all_passed(document):
    """The rows as a forger writes them."""
    return document | {"passed": True, "rules": [row | {"passed": True} for row in document["rules"]]}


def test_an_honest_verdict_counts():
    check()
    check(known=replace(KNOWN, rules=RULES, evaluation_sha256=gating.EVALUATED))


def test_a_refusal_is_held_against_its_version_and_its_rows_alone():
    strict = Rules(minimum=0.99)
    check(rules=strict)
    refused("candidate is version 2 of run another", honest(candidate=replace(CANDIDATE, run="another")), rules=strict)


@pytest.mark.parametrize(
    "rule", ["minimum", "test_set", "epsilon", "delta", "proof", "lineage", "leakage", "freshness"]
)
def test_a_rule_that_every_gate_judges_is_not_left_out(rule):
    def without(document):
        return document | {"rules": [row for row in document["rules"] if row["rule"] != rule]}

    refused(f"{rule} is not among them, and every gate judges it", change=without)


def test_a_rule_that_the_rules_ask_for_is_not_left_out():
    strict = Rules.model_validate({"minimum": 0.7, "worst_site": {"minimum": 0.5}})

    def without(document):
        return document | {"rules": [row for row in document["rules"] if row["rule"] != "worst_site"]}

    refused("worst_site is not among them", rules=strict, change=without)


@pytest.mark.parametrize("other", [replace(CANDIDATE, run="b-run"), replace(CANDIDATE, digest="f" * 64)])
def test_the_evidence_is_of_this_version(other):
    refused("and this aggregator has version 2 of run a-run", honest(candidate=other))


def test_evidence_that_is_missing_or_cannot_be_is_one_sentence():
    refused("verdict: evidence: rules", change=lambda document: document | {"evidence": {}})
    for key in ("candidate", "evaluation", "lineage"):

        def without(document, key=key):
            return document | {"evidence": {name: each for name, each in document["evidence"].items() if name != key}}

        refused(f"verdict: evidence: {key}: field required", change=without)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"candidate": gating.scored("2", digest=CANDIDATE.digest, metrics=LOW)}, "minimum: the lower bound of"),
        ({"examples": 5}, "test_set: the test set of the evaluation will not do"),
        ({"overlap": 3}, "leakage: 3 of the test set's"),
        ({"champion": None}, "no champion was evaluated"),
    ],
)
def test_rows_that_say_more_than_their_evidence_do_not_count(changes, says):
    refused(says, honest(evaluation=replace(honest().evaluation, **changes)), change=all_passed)


@pytest.mark.parametrize("rules", [RULES, Rules(minimum=0.99)])
@pytest.mark.parametrize("change", [{"value": 0.01}, {"limit": 0.01}, {"value": None}])
def test_numbers_that_are_not_those_of_the_evidence_become_no_tags(rules, change):
    def embellished(document):
        rows = [row | (change if row["rule"] == "epsilon" else {}) for row in document["rules"]]
        return document | {"rules": rows}

    refused("epsilon says (passed, value, limit) = (True, ", rules=rules, change=embellished)


def test_a_row_that_no_rule_asks_for_becomes_no_tag():
    seal = {"rule": "ethics board", "passed": True, "value": None, "limit": None, "detail": ""}

    def sealed(document):
        return document | {"rules": [*document["rules"], seal]}

    refused("ethics board is none that its rules ask for", change=sealed)


def test_a_lineage_that_lacks_something_is_refused_whatever_its_row_says():
    refused("the version of the code", honest(lineage=replace(honest().lineage, code="")), change=all_passed)


def test_less_spent_than_the_records_here_say_is_refused():
    spent = honest().spent
    cheap = replace(spent, epsilon={**spent.epsilon, "south": 0.01})
    refused("epsilon of south is 0.01, and the records of this aggregator come to", honest(spent=cheap))
    young = replace(spent, lifetime={**spent.lifetime, "north": 0.01})
    refused("lifetime of north is 0.01, and", honest(spent=young))


def test_what_was_spent_is_judged_by_the_limits_of_the_verdict():
    tight = Rules.model_validate({"minimum": 0.7, "epsilon": {"run": 0.1}})
    refused("refused by epsilon: north spent", rules=tight, change=all_passed)
    free = replace(honest().spent, unit="none", epsilon={"north": inf, "south": inf}, lifetime={})
    named = Rules(minimum=0.7, privacy="none_allowed", epsilon={"run": 0.1})
    refused("epsilon: north spent", honest(spent=free), rules=named, change=all_passed)


def test_a_run_whose_own_records_prove_nothing_is_refused():
    torn = json.loads(json.dumps(MIRROR))
    torn[0]["sealed"][0]["attestation"]["epsilon_after"] = 0.1
    for records in (torn, MIRROR[:1], []):
        refused("proof: ", known=replace(KNOWN, mirror=records))
    other = replace(CANDIDATE, run="b-run")
    refused("mirror is of run a-run", honest(candidate=other), known=replace(KNOWN, candidate=other), change=all_passed)


def test_a_run_file_of_another_run_is_refused():
    other = SPEC.model_copy(update={"seed": 99})
    refused("it is of another run file", known=replace(KNOWN, spec=other))


def test_the_champion_is_the_one_that_the_registry_has():
    refused("freshness: ", known=replace(KNOWN, champion=replace(CHAMPION, digest="another")))


def test_a_run_without_a_manifest_is_refused_whatever_the_verdict_says():
    refused("the run has kept no manifest", known=replace(KNOWN, manifest=None, manifest_sha256=""))


def test_the_manifest_is_the_one_that_was_attached():
    own = json.dumps(
        json.loads(MANIFEST) | {"kind": "simulation", "test": {"examples": 9, "sha256": "f" * 64}}
    ).encode()
    known = replace(KNOWN, manifest=own, manifest_sha256=manifest_sha256(own))
    unchecked = honest(evaluation=replace(honest().evaluation, checked=0))
    refused("leakage: the test set was not held against", unchecked, known=known)
    refused("attached " + manifest_sha256(own)[:12], known=known)
    refused("somebody has changed it", known=replace(KNOWN, manifest=own))


def test_the_evaluation_is_the_one_that_was_attached():
    refused("the evaluation has sha256 9999", known=replace(KNOWN, evaluation_sha256="f" * 64))


def test_an_aggregator_may_accept_one_set_of_rules_alone():
    pinned = replace(KNOWN, rules=RULES)
    lax = Rules.model_validate({"minimum": 0.1, "epsilon": {"run": 3, "lifetime": 8}})
    refused("minimum is 0.1, and this aggregator accepts 0.7 alone", rules=lax, known=pinned)
