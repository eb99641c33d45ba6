"""`deerfield promote`, `rollback` and `models`, and the two steps behind them, at a real aggregator and MLflow."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
import structlog

from deerfield.documents.partition_manifest import consortium, text
from deerfield.errors import ChampionMoved, InvalidInput
from deerfield.runspec import Privacy
from pipelines.runs import run_start
from pipelines.steps.gate import gate
from pipelines.steps.promote import promote
from tests.integration.federation import wait_for
from tests.integration.pipelines.hub import RULES, opened

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
REFUSED = 3


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """One for all tests: each has models of its own."""
    with opened(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture(autouse=True)
def _log_is_not_the_commands():
    """The aggregator is in this process, and its log would be in what a command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))


@pytest.fixture(scope="module")
def candidate(hub):
    """A version without a champion that no test makes one."""
    return hub.trained("shared", 1)


def judged(hub, version, f1=0.8, **rules):
    """The verdict of the step, as a file."""
    path = hub.folder / f"verdict-{version.model}-{version.version}.json"
    text = hub.rules(**rules).read_text()
    evaluation = hub.evaluated(version, f1)
    passed = gate(version.model, version.version, text, hub.tracking, hub.aggregator, evaluation, None, path)
    assert json.loads(path.read_text())["passed"] == passed
    return path


def rows(verdict):
    return {row["rule"]: row for row in verdict["rules"]}


def test_a_first_version_is_promoted_a_worse_one_refused_a_better_one_promoted_and_rolled_back(hub):
    first = hub.trained("lungs", 1)
    code, said = hub.promote(first)
    assert code == 0, said
    assert "there is no champion yet: a first version" in " ".join(said.split())
    assert "lungs: version 1 is the champion, the first one" in said
    assert max(map(len, said.splitlines())) <= 100
    worse = hub.trained("lungs", 2)
    code, said = hub.promote(worse, f1=0.75)
    assert code == REFUSED
    assert "refused by regression\nlungs: version 1 stays the champion" in said
    assert "the lower bound is below the margin -0.02" in " ".join(said.replace("regression", "").split())
    assert (hub.champion("lungs"), hub.registry.version("lungs", "2").tags["deerfield.verdict"]) == ("1", "refused")
    better = hub.trained("lungs", 3)
    code, said = hub.promote(better, f1=0.85)
    assert (code, "lungs: version 3 is the champion, before it was version 1" in said) == (0, True)
    assert "better with confidence" in " ".join(said.split())
    assert hub.registry.version("lungs", "3").tags["deerfield.previous_champion"] == "1"
    code, said = hub.deerfield("rollback", "lungs", "--reason", "a clinic reports false alarms")
    assert (code, said.strip()) == (0, "lungs: version 1 is the champion, before it was version 3")
    assert hub.champion("lungs") == "1"
    kept = [(each.kind, each.passed, each.champion, each.reason) for each in hub.server.runs.promotions("lungs")]
    assert kept == [
        ("promotion", True, "1", ""),
        ("promotion", False, "1", ""),
        ("promotion", True, "3", ""),
        ("rollback", False, "1", "a clinic reports false alarms"),
    ]
    code, listed = hub.deerfield("models", "list")
    assert code == 0
    assert [line.split()[:4] for line in listed.splitlines() if "lungs" in line] == [["lungs", "3", "1", "–"]]
    code, shown = hub.deerfield("models", "show", "lungs")
    assert code == 0
    assert "version 2: refused by regression" in shown
    assert "version 3: was made champion after version 1" in shown
    assert "0.85 (0.84 to 0.86)" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 100
    found = json.loads(hub.deerfield("models", "show", "lungs", "--json")[1])
    assert [(each["version"], each["verdict"], each["refused_by"]) for each in found] == [
        ("3", "passed", []),
        ("2", "refused", ["regression"]),
        ("1", "passed", []),
    ]
    assert found[0]["metrics"]["macro_f1"] == {"value": 0.85, "low": 0.84, "high": 0.86}
    assert 0 < found[0]["epsilon"]["north"] < 3
    differs = json.loads(hub.deerfield("models", "diff", "lungs", "1", "3", "--json")[1])
    assert {"part": "run file", "name": "seed", "values": ["1", "3"]} in differs
    assert {"part": "metrics", "name": "macro_f1", "values": ["0.8 (0.79 to 0.81)", "0.85 (0.84 to 0.86)"]} in differs
    assert "digest" in {each["name"] for each in differs if each["part"] == "registry"}


def test_the_verdict_is_kept_with_all_that_it_was_said_on(hub, candidate):
    code, said = hub.promote(candidate, "--json", f1=0.6)
    told = json.loads(said)
    assert code == REFUSED
    assert told["promotion"] == {"model": "shared", "champion": "", "previous": ""}
    kept = hub.registry.document(candidate, "verdict.json")
    assert kept == told["verdict"]
    assert [name for name, row in rows(kept).items() if not row["passed"]] == ["minimum"]
    assert kept["evidence"]["candidate"]["digest"] == candidate.digest
    assert kept["evidence"]["proof"]["phases"] == 2
    assert kept["evidence"]["lineage"]["commitments"].keys() == {"north", "south"}
    assert kept["evidence"]["rules"]["minimum"] == RULES["minimum"]
    spent = kept["evidence"]["spent"]
    assert 0 < spent["epsilon"]["north"] <= RULES["epsilon"]["run"]
    assert spent["lifetime"].keys() == {"north", "south"}


def test_a_run_over_budget_is_refused_with_numbers(hub, candidate):
    code, said = hub.promote(candidate, epsilon={"run": 0.5, "lifetime": 8})
    assert (code, "refused by epsilon\n" in said) == (REFUSED, True)
    told = rows(hub.registry.document(candidate, "verdict.json"))["epsilon"]
    assert (told["limit"], told["value"] > 0.5) == (0.5, True)
    assert "above its limit 0.5" in told["detail"]


def test_a_dry_run_tells_nobody_and_needs_no_aggregator(hub, candidate):
    files = ("--rules", hub.rules(), "--evaluation", hub.evaluated(candidate))
    before = len(hub.server.runs.promotions("shared"))
    code, said = hub.deerfield("promote", "shared", *files, "--dry-run", DEERFIELD_AGGREGATOR="")
    assert (code, "dry run: the aggregator was told nothing" in said) == (0, True)
    assert (len(hub.server.runs.promotions("shared")), hub.champion("shared")) == (before, "")


def test_a_run_without_privacy_is_refused_unless_the_rules_allow_it(hub):
    version = hub.trained("open", 1, privacy=Privacy(unit="none", clip=None))
    code, said = hub.promote(version)
    assert (code, "refused by epsilon, lifetime_epsilon" in said) == (REFUSED, True)
    assert hub.promote(version, privacy="none_allowed")[0] == 0


def test_a_mirror_that_another_key_signed_than_the_rules_name_is_no_proof(hub, candidate):
    key = hub.registry.document(candidate, "ledger/000000.json")["aggregator_key"]
    code, said = hub.promote(candidate, "--dry-run", proof={"aggregator_key": "f" * 64})
    assert (code, "refused by" in said, "proof" in said.splitlines()[-2]) == (REFUSED, True, True)
    assert hub.promote(candidate, "--dry-run", proof={"aggregator_key": key})[0] == 0


def test_a_mirror_that_somebody_changed_or_thinned_out_is_no_proof(hub):
    version = hub.trained("forged", 1)
    path = Path(hub.mlflow.get_run(version.mlflow_run).info.artifact_uri) / "ledger" / "000001.json"
    whole = path.read_text()
    document = json.loads(whole)
    document["sealed"][0]["attestation"]["epsilon_after"] = 0.1
    for content in (json.dumps(document), "{}", "[]", None):
        path.write_text(content) if content else path.unlink()
        code, said = hub.promote(version, "--dry-run")
        assert (code, "proof" in said.splitlines()[-2]) == (REFUSED, True), content
    path.write_text(whole)
    assert hub.promote(version, "--dry-run")[0] == 0


def simulated(hub, **changes):
    """The manifest of two parts and a test set of 200 examples, as a file."""
    parts = {site: {"sha256": "a" * 64} for site in ("north", "south")}
    whole = {"schema": 1, "kind": "simulation", "sites": parts, "test": {"examples": 200, "sha256": "e" * 64}}
    path = hub.folder / "given.json"
    path.write_text(json.dumps(whole | changes))
    return path


def test_a_run_that_has_kept_no_manifest_is_given_one_that_stays(hub):
    version = hub.trained("unsaid", 1, kept=False)
    code, said = hub.promote(version)
    assert (code, "refused by leakage" in said) == (REFUSED, True)
    assert "has kept no manifest that says whose the training data are" in " ".join(said.split())
    path = simulated(hub)
    code, said = hub.promote(version, "--manifest", path)  # hub-owned, and nothing was looked for
    assert (code, "refused by leakage" in said) == (REFUSED, True)
    wait_for(lambda: hub.registry.document(version, "lineage.json")["kind"] == "simulation")
    code, said = hub.promote(version)  # the kept one counts from now on
    assert (code, "evaluate it with the manifest" in " ".join(said.split())) == (REFUSED, True)
    other = simulated(hub, kind="consortium", test=None)
    code, said = hub.promote(version, "--manifest", other)
    assert (code, "has kept the manifest.json with sha256" in said, "does not change" in said) == (2, True, True)
    code, said = hub.promote(version, "--manifest", other, "--dry-run")
    assert (code, "there are manifests that differ (given" in " ".join(said.split())) == (REFUSED, True)
    files = ("--rules", hub.rules())
    leaked = ("--evaluation", hub.evaluated(version, leakage={"checked": 50, "overlap": 2}))
    code, said = hub.deerfield("promote", "unsaid/1", *files, *leaked)
    assert (code, "2 of the test set's 200 examples are among the training data" in " ".join(said.split())) == (3, True)
    found = ("--evaluation", hub.evaluated(version, leakage={"checked": 50, "overlap": 0}))
    assert hub.deerfield("promote", "unsaid/1", *files, *found)[0] == 0


def test_the_manifest_of_hub_owned_data_is_part_of_the_lineage(hub):
    version = hub.trained("nameless", 1, kept=False)
    found = ("--evaluation", hub.evaluated(version, leakage={"checked": 50, "overlap": 0}))
    path = simulated(hub, test={"examples": 200})
    code, said = hub.deerfield("promote", "nameless/1", "--rules", hub.rules(), "--manifest", path, "--dry-run", *found)
    assert (code, "refused by lineage" in said) == (REFUSED, True)
    path.write_text("{}")
    code, said = hub.deerfield("promote", "nameless/1", "--rules", hub.rules(), "--manifest", path, *found)
    assert (code, "has no schema" in said) == (2, True)


def test_the_evaluation_is_on_enough_examples_of_the_test_set_that_counts(hub, candidate):
    few = {"source": "held-out.csv", "sha256": "e" * 64, "examples": 20}
    files = ("--rules", hub.rules(), "--dry-run")
    code, said = hub.deerfield("promote", "shared/1", *files, "--evaluation", hub.evaluated(candidate, test_set=few))
    assert (code, "refused by test_set" in said) == (REFUSED, True)
    assert "it has 20 examples, and the rules ask for 100" in " ".join(said.split())
    code, said = hub.promote(candidate, "--dry-run", test_set={"sha256": "f" * 64})
    assert (code, "the rules name ffffffffffff" in " ".join(said.split())) == (REFUSED, True)


def test_the_evaluation_is_the_one_that_the_run_has_kept(hub):
    version = hub.trained("kept", 1)
    hub.server.runs.attach(version.run, "evaluation.json", hub.evaluated(version, 0.9).read_bytes())
    wait_for(lambda: "evaluation.json" in hub.registry.artifacts(version))
    code, said = hub.promote(version)
    assert (code, "refused by freshness" in said) == (REFUSED, True)
    assert "the run has kept" in " ".join(said.split())
    assert hub.promote(version, f1=0.9)[0] == 0


def test_a_verdict_that_was_changed_on_its_way_moves_nothing(hub):
    version = hub.trained("careless", 1)
    path = judged(hub, version)
    whole = json.loads(path.read_text())
    whole["evidence"]["spent"]["epsilon"]["north"] = 0.001
    path.write_text(json.dumps(whole))
    with pytest.raises(InvalidInput, match=r"epsilon of north is 0\.001, and the records of this aggregator come to"):
        promote(hub.aggregator, path)
    assert hub.champion("careless") == ""
    assert hub.server.runs.promotions("careless")[-1].state == "REFUSED"


def test_a_refusal_of_the_step_stands_in_the_registry(hub, candidate):
    path = judged(hub, candidate, f1=0.5)
    assert not json.loads(path.read_text())["passed"]
    assert hub.registry.version("shared", "1").tags["deerfield.verdict"] == "refused"
    assert promote(hub.aggregator, path).champion == ""


def test_two_gates_at_once_leave_one_champion_and_tell_the_other_who_it_is(hub):
    first, second = hub.trained("raced", 1), hub.trained("raced", 2)
    paths, together = [judged(hub, first), judged(hub, second)], threading.Barrier(2)

    def run(path):
        together.wait(10)
        try:
            return promote(hub.aggregator, path).champion
        except ChampionMoved as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, paths))
    (champion,) = {"1", "2"} & set(found)
    (refused,) = set(found) - {champion}
    assert f"the champion of 'raced' is version {champion}" in refused
    assert hub.champion("raced") == champion
    assert promote(hub.aggregator, paths[int(champion) - 1]).champion == champion  # a task that is tried again
    done = [each.champion for each in hub.server.runs.promotions("raced") if each.state == "DONE"]
    assert done == [champion]


def test_a_run_that_is_started_by_hand_says_whose_its_data_are(hub, candidate):
    spec = hub.server.runs.get(candidate.run).spec.model_copy(update={"seed": 77})
    path = hub.folder / "by hand.yaml"
    run_start.write(spec, path)
    run = hub.deerfield("runs", "start", path, "--request-id", "by hand")[1].strip()
    assert hub.deerfield("runs", "start", path, "--request-id", "by hand")[1].strip() == run  # asked again
    with hub.server.aggregator.desk.store.edge() as edge:
        sha = edge.attachments.known(run, "manifest.json")
    assert sha == sha256(text(consortium(("north", "south"), spec.labels, 77)).encode()).hexdigest()
    path.write_text(path.read_text() + "embedded: {source: {path: notes.csv}}\n")
    code, said = hub.deerfield("runs", "start", path, "--request-id", "embedded")
    assert (code, "has an embedded: section" in said, "deerfield promote --manifest" in said) == (0, True, True)
    for each in hub.server.runs.list():
        if each.state == "RUNNING":
            hub.server.runs.abort(each.run, "enough")


# --- what is wrong in the question ---


def test_a_champion_that_moved_in_between_is_named_and_nothing_is_moved(hub):
    first, second = hub.trained("moving", 1), hub.trained("moving", 2)
    late, files = judged(hub, second), ("--rules", hub.rules(), "--evaluation", hub.evaluated(second))
    code, said = hub.promote(first)
    assert code == 0, said
    with pytest.raises(ChampionMoved, match="the champion of 'moving' is version 1, and the call expects none"):
        promote(hub.aggregator, late)
    code, said = hub.deerfield("promote", "moving/2", *files)  # an evaluation without the champion
    assert (code, "refused by regression, worst_site_regression, freshness" in said) == (REFUSED, True)
    code, said = hub.promote(first)
    assert (code, "is the champion already; there is nothing to promote" in said) == (2, True)
    hub.mlflow.set_registered_model_alias("moving", "champion", "2")
    code, said = hub.deerfield("rollback", "moving", "--reason", "who did that?")
    assert (code, "was moved by hand" in said) == (2, True)
    code, said = hub.deerfield("rollback", "moving", "--reason", "who did that?", "--champion", "1")
    assert (code, "version 2" in said) == (2, True)


def test_an_evaluation_of_another_version_is_refused(hub, candidate):
    path = hub.evaluated(candidate)
    document = json.loads(path.read_text())
    document["models"]["candidate"] |= {"version": "7", "digest": "0" * 64}
    path.write_text(json.dumps(document))
    code, said = hub.deerfield("promote", "shared/1", "--rules", hub.rules(), "--evaluation", path, "--dry-run")
    assert (code, "refused by freshness" in said) == (REFUSED, True)
    assert "version 7 was evaluated as the candidate, which is version 1" in " ".join(said.split())


def test_a_version_that_is_deleted_underneath_is_missed(hub):
    version = hub.trained("gone", 1)
    late, evaluation = judged(hub, version), hub.evaluated(version)
    hub.mlflow.delete_model_version("gone", "1")
    with pytest.raises(InvalidInput, match="'gone' has no version 1, or it was deleted"):
        promote(hub.aggregator, late)
    code, said = hub.deerfield("promote", "gone/1", "--rules", hub.rules(), "--evaluation", evaluation)
    assert (code, "cannot find version 1 of gone: it is not there, or no longer" in said) == (2, True)
    code, said = hub.deerfield("promote", "gone", "--rules", hub.rules(), "--evaluation", evaluation)
    assert (code, "gone has no candidate; name a version, as in gone/2" in said) == (2, True)
    code, said = hub.deerfield("rollback", "gone", "--reason", "none left")
    assert (code, "gone has no champion" in said) == (2, True)


def test_what_is_wrong_in_the_question_is_one_sentence(hub, candidate):
    good = ("--evaluation", hub.evaluated(candidate))
    code, said = hub.deerfield("promote", "shared", "--rules", hub.rules(metric="auc"), *good)
    assert (code, "judge the metric 'auc', which the evaluation does not have; it has" in said) == (2, True)
    code, said = hub.deerfield("promote", "shared", "--rules", hub.rules(minimums=1), *good)
    assert (code, "unknown key 'minimums'; did you mean 'minimum'?" in said) == (2, True)
    code, said = hub.deerfield("promote", "shared", "--rules", hub.folder / "none.yaml", *good)
    assert (code, "cannot be read: No such file" in said) == (2, True)
    code, said = hub.deerfield("promote", "shared", "--rules", hub.rules(), "--evaluation", hub.rules())
    assert (code, "it ought to be the evaluation of a version" in said) == (2, True)
    code, said = hub.deerfield("promote", "shared", "--rules", hub.rules(), *good, DEERFIELD_AGGREGATOR="")
    assert (code, "--aggregator" in said) == (2, True)
    for command in (("models", "show"), ("rollback", "--reason", "x")):
        code, said = hub.deerfield(*command, "no such model")
        assert (code, "no such model" in said) == (2, True)
    code, said = hub.deerfield("models", "list", MLFLOW_TRACKING_URI="")
    assert (code, "MLFLOW_TRACKING_URI" in said) == (2, True)
    code, said = hub.deerfield("models", "list", "--tracking", "http://127.0.0.1:9")
    assert (code, "could not list its models within" in said) == (1, True)
    with pytest.raises(InvalidInput, match="it ought to be the verdict of a gate"):
        promote(hub.aggregator, hub.rules())
