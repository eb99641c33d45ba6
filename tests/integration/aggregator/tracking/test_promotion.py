"""Promotions and rollbacks over a real MLflow: what is written where, and what is refused in which words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deerfield.errors import ChampionMoved, InvalidInput, TooBusy
from deerfield.promotion import Promotion
from deerfield.wire.promoting import read_verdict
from services.aggregator.champions.promotions import Promotions
from services.aggregator.rounds.recorder import Recorder
from services.aggregator.settings import read_settings
from tests.fakes import run_spec
from tests.integration.aggregator.audited import logged
from tests.integration.aggregator.promoting import (
    MODEL,
    attested_by_its_manifest,
    consortium_spec,
    course,
    finished,
)
from tests.registry import verdict

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


def test_a_passed_verdict_makes_a_candidate_champion_and_says_so_in_tags_and_an_artifact(shop):
    first, second = shop.version(1), shop.version(2)
    assert shop.promote(first, "") == Promotion(model=MODEL, champion=first, previous="")
    assert (shop.alias(), shop.alias("candidate")) == (first, second)
    given = shop.judged(second, first, note="the second")
    assert shop.promotions.promote(given) == Promotion(model=MODEL, champion=second, previous=first)
    assert (shop.alias(), shop.alias("candidate")) == (second, "")
    tags = shop.tags(second)
    assert {name: tags[name] for name in tags if not name.startswith(("deerfield.run", "deerfield.digest"))} == {
        "deerfield.verdict": "passed",
        "deerfield.verdict_sha256": given.sha256,
        "deerfield.rule.minimum": "passed (0.75, limit 0.7)",
        "deerfield.rule.test_set": "passed (200, limit 100)",
        "deerfield.rule.regression": "passed (-0.01, limit -0.02)",
        "deerfield.rule.delta": "passed (3e-06, limit 1e-05)",
        "deerfield.rule.proof": "passed (4)",
        **dict.fromkeys(("deerfield.rule.epsilon", "deerfield.rule.lifetime_epsilon"), "passed"),
        **{f"deerfield.rule.{name}": "passed (0, limit 0)" for name in ("lineage", "leakage", "freshness")},
        "deerfield.previous_champion": first,
    }
    assert "deerfield.previous_champion" not in shop.tags(first)
    run = shop.mlflow.get_model_version(MODEL, second).run_id
    assert Path(shop.mlflow.download_artifacts(run, "verdict.json")).read_text() == given.text
    assert course(shop) == [("promotion", "DONE", "", first), ("promotion", "DONE", first, second)]


def test_a_refused_verdict_is_written_down_and_moves_nothing(shop):
    first, second = shop.version(1), shop.version(2)
    shop.promote(first, "")
    assert shop.promote(second, first, passed=False) == Promotion(model=MODEL, champion=first, previous=first)
    assert (shop.alias(), shop.alias("candidate")) == (first, second)
    tags = shop.tags(second)
    assert (tags["deerfield.verdict"], tags["deerfield.rule.minimum"]) == ("refused", "refused (0.75, limit 0.8)")
    assert "deerfield.previous_champion" not in tags
    assert shop.promote(second, first, note="judged anew").champion == second
    assert shop.tags(second)["deerfield.verdict"] == "passed"
    assert [record.passed for record in shop.promotions.history(MODEL)] == [True, False, True]


def test_rules_that_a_later_verdict_does_not_have_leave_no_tag(shop):
    first = shop.version(1, **{"deerfield.rule.of_last_year": "refused"})
    shop.promote(first, "")
    assert "deerfield.rule.of_last_year" not in shop.tags(first)


def test_the_same_verdict_again_gets_the_same_answer_and_one_entry(shop):
    first, second = shop.version(1), shop.version(2)
    shop.promote(first, "")
    given = shop.judged(second, first)
    assert shop.promotions.promote(given) == shop.promotions.promote(given)
    back = [shop.promotions.rollback(MODEL, second, "bad in practice") for _ in range(2)]
    assert back == [Promotion(model=MODEL, champion=first, previous=second)] * 2
    assert course(shop) == [
        ("promotion", "DONE", "", first),
        ("promotion", "DONE", first, second),
        ("rollback", "DONE", second, first),
    ]


def test_another_champion_than_expected_stops_a_promotion(shop):
    first, second, third = (shop.version(number) for number in (1, 2, 3))
    shop.promote(first, "")
    shop.promote(second, first)
    with pytest.raises(ChampionMoved, match=f"is version {second}, and the call expects version {first}; compare"):
        shop.promote(third, first)
    with pytest.raises(ChampionMoved, match="expects none"):
        shop.promote(third, "")
    with pytest.raises(ChampionMoved):
        shop.promotions.rollback(MODEL, first, "it is worse")
    assert "deerfield.verdict" not in shop.tags(third)
    assert [state for _, state, _, _ in course(shop)] == ["DONE", "DONE", "REFUSED", "REFUSED", "REFUSED"]


def test_a_champion_from_before_this_aggregator_is_taken_as_it_is(shop):
    seeded = shop.version(1)
    shop.mlflow.set_registered_model_alias(MODEL, "champion", seeded)
    second = shop.version(2)
    with pytest.raises(ChampionMoved, match=f"is version {seeded}, and the call expects none"):
        shop.promote(second, "")
    assert shop.promote(second, seeded).previous == seeded
    assert shop.promotions.rollback(MODEL, second, "no").champion == seeded


def test_an_alias_that_was_moved_by_hand_is_told_and_not_overwritten(shop):
    first, second, third = (shop.version(number) for number in (1, 2, 3))
    shop.promote(first, "")
    shop.mlflow.set_registered_model_alias(MODEL, "champion", third)
    with pytest.raises(ChampionMoved, match=f"moved by hand.*it is version {third}, and was version {first}. Nothing"):
        shop.promote(second, third)  # a gate that compared with it all by itself
    assert shop.alias() == third
    assert course(shop)[-1] == ("by_hand", "DONE", first, third)
    assert "by_hand_found" in [entry.what for entry in logged(shop.aggregator.desk.store)]
    assert shop.promote(second, third).previous == third  # now somebody knows
    shop.mlflow.delete_registered_model_alias(MODEL, "champion")
    with pytest.raises(ChampionMoved, match=f"it is none, and was version {second}"):
        shop.promotions.rollback(MODEL, second, "it is worse")
    assert course(shop)[-1] == ("by_hand", "DONE", second, "")


def test_a_promoted_model_that_was_deleted_underneath_is_one_clear_sentence(shop):
    first, second, third = (shop.version(number) for number in (1, 2, 3))
    shop.promote(first, "")
    shop.promote(second, first)
    shop.mlflow.delete_model_version(MODEL, third)
    with pytest.raises(InvalidInput, match=f"has no version {third}, or it was deleted from MLflow at sqlite"):
        shop.promote(third, second)
    shop.mlflow.delete_model_version(MODEL, first)
    words = f"version {first} of '{MODEL}', the champion before version {second}, was deleted from MLflow .*stays"
    with pytest.raises(InvalidInput, match=words):
        shop.promotions.rollback(MODEL, second, "it is worse")
    assert shop.alias() == second
    shop.mlflow.delete_registered_model(MODEL)
    with pytest.raises(InvalidInput, match="has no model 'teaching run'"):
        shop.promotions.rollback(MODEL, second, "it is worse still")


def test_a_rollback_needs_a_champion_and_one_before_it(shop):
    first = shop.version(1)
    with pytest.raises(InvalidInput, match="has no champion, so there is none to go back from"):
        shop.promotions.rollback(MODEL, "", "why not")
    shop.promote(first, "")
    with pytest.raises(InvalidInput, match=f"version {first} of .* had no champion before it"):
        shop.promotions.rollback(MODEL, first, "it is bad")
    with pytest.raises(InvalidInput, match=f"version {first} of .* is its champion already"):
        shop.promote(first, first)


def test_only_what_a_finished_run_here_has_made_becomes_champion(shop):
    good = shop.version(1)
    strange = shop.version(2, **{"deerfield.run": "of-another-hospital"})
    nobodys = shop.version(3, **{"deerfield.run": ""})
    changed = shop.version(4, **{"deerfield.digest": "0" * 64})
    others = shop.version(5, **{"deerfield.run": finished(shop.aggregator, 6, "another model")})
    aborted = shop.aggregator.runs.start(run_spec("north"), "aborted")
    shop.aggregator.runs.abort(aborted, "enough")
    unfinished = shop.version(7, **{"deerfield.run": aborted})
    for version, words in (
        (strange, "of run 'of-another-hospital' .*does not know"),
        (nobodys, "is of no run .*does not know"),
        (changed, "has digest '0000.*its tags were changed"),
        (others, "trains 'another model'; only"),
        (unfinished, "which is ABORTED"),
    ):
        with pytest.raises(InvalidInput, match=words):
            shop.promote(version, "")
    assert shop.promote(good, "").champion == good


def test_a_run_registers_a_candidate_that_can_be_promoted(shop, clock):
    run = attested_by_its_manifest(shop.aggregator, consortium_spec(1, MODEL), "once")
    Recorder(shop.aggregator.desk.store, shop.tracking, clock).drain()
    (version,) = [
        event.detail["version"] for event in shop.aggregator.runs.events(run, 0) if event.kind == "registered"
    ]
    assert shop.alias("candidate") == version
    assert shop.promote(version, "").champion == version
    assert (shop.alias(), shop.alias("candidate")) == (version, "")


def test_a_forged_verdict_moves_nothing_and_stands_in_history_and_audit_log(shop):
    first, second = shop.version(1), shop.version(2)
    shop.promote(first, "")
    raw = json.loads(shop.judged(second, first).text)
    rows = [each for each in raw["rules"] if each["rule"] != "proof"]
    raw["rules"] = rows
    forged = read_verdict(MODEL, second, first, json.dumps(raw))
    with pytest.raises(InvalidInput, match="proof is not among them, and every gate judges it"):
        shop.promotions.promote(forged)
    assert (shop.alias(), shop.alias("candidate")) == (first, second)
    assert "deerfield.verdict" not in shop.tags(second)
    record = shop.promotions.history(MODEL)[-1]
    assert (record.state, "proof is not among them" in record.detail) == ("REFUSED", True)
    entry = logged(shop.aggregator.desk.store)[-1]
    assert (entry.what, "proof is not among them" in entry.detail) == ("promotion_refused", True)
    assert shop.promote(second, first).champion == second  # an honest one still goes through


def test_a_verdict_that_was_left_open_by_an_earlier_version_is_refused_by_the_next_start(shop):
    first = shop.version(1)
    given = shop.judged(first, "")
    raw = json.loads(given.text)
    del raw["evidence"]
    text = json.dumps(raw)
    draft = shop.promotions._draft("promotion", MODEL, "")
    with shop.aggregator.desk.store.edge() as edge:
        edge.promoting.lock(MODEL)
        edge.promoting.add(replace(draft, version=first, passed=True, verdict_sha256="0" * 64), text)
    assert shop.promotions.redo()
    assert (shop.promotions.history(MODEL)[-1].state, shop.alias()) == ("REFUSED", "")


def test_a_manifest_that_mlflow_has_is_read_there_and_held_against_what_was_attached(shop, clock):
    run = attested_by_its_manifest(shop.aggregator, consortium_spec(1, MODEL), "once")
    Recorder(shop.aggregator.desk.store, shop.tracking, clock).drain()
    with shop.aggregator.desk.store.edge() as edge:
        sha = edge.attachments.known(run, "manifest.json")
    shop.aggregator.desk.published.drop(sha, 4e9)  # as the collector does with what was logged
    version = shop.mlflow.get_model_version_by_alias(MODEL, "candidate")
    path = Path(shop.mlflow.get_run(version.run_id).info.artifact_uri) / "manifest.json"
    whole = path.read_text()
    assert json.loads((path.parent / "lineage.json").read_text())["kind"] == "consortium"
    path.write_text(whole.replace("consortium", "simulation"))
    with pytest.raises(
        InvalidInput, match=r"manifest\.json of run .* at MLflow has sha256 .*: somebody has changed it"
    ):
        shop.promote(str(version.version), "")
    path.write_text(whole)
    assert shop.promote(str(version.version), "").champion == str(version.version)


def test_an_aggregator_with_rules_of_its_own_takes_no_verdict_by_others(shop, tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text("# the consortium's\nprivacy: none_allowed\nminimum: 0.7\n")
    rules = read_settings(["--gate-rules", str(path)], {}).rules
    promotions = Promotions(replace(shop.aggregator.desk, rules=rules), shop.models)
    first = shop.version(1)
    with pytest.raises(InvalidInput, match=r"minimum is 0\.8, and this aggregator accepts 0\.7 alone"):
        promotions.promote(shop.judged(first, "", passed=False))
    assert "deerfield.verdict" not in shop.tags(first)
    assert promotions.promote(shop.judged(first, "")).champion == first
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_settings(["--gate-rules", str(tmp_path / "none.yaml")], {})


def test_one_call_at_a_time_works_on_a_model(shop):
    first, busy = shop.version(1), shop.promotions
    with busy._alone(MODEL), pytest.raises(TooBusy, match="the limit is 1 at a time"):
        busy.promote(shop.judged(first, ""))
    assert busy.promote(shop.judged(first, "")).champion == first


def test_an_aggregator_without_mlflow_says_so(aggregator):
    with pytest.raises(InvalidInput, match="start it with --tracking"):
        Promotions(aggregator.desk, None).promote(read_verdict(MODEL, "1", "", verdict(MODEL, "1", "")))


def test_every_step_stands_in_the_audit_log(shop):
    first, second = shop.version(1), shop.version(2)
    shop.promote(first, "")
    with pytest.raises(ChampionMoved):
        shop.promote(second, "")
    found = [entry for entry in logged(shop.aggregator.desk.store, "edge") if entry.what.startswith("promotion")]
    assert [entry.what for entry in found] == [
        "promotion_begun",
        "promotion_moving",
        "promotion_done",
        "promotion_begun",
        "promotion_refused",
    ]
    assert json.loads(found[2].detail)["champion"] == first
