"""The report's page: what it says, of whole runs and of those that did not get far."""

import re
from dataclasses import replace

import pytest

from deerfield.documents.evaluation import Evaluation
from deerfield.documents.partition_manifest import Manifest
from deerfield.documents.reading import read
from deerfield.documents.verdict import Verdict
from deerfield.errors import InvalidInput
from deerfield.runspec import Privacy
from deerfield.strategies import STRATEGIES, make
from deerfield.wire import limits
from pipelines.pages.formats import short
from pipelines.report_page import Found, render
from pipelines.report_page.data import data
from pipelines.report_page.plots import alike
from pipelines.report_page.privacy import remaining
from pipelines.report_page.ran import head, ran
from pipelines.report_page.spread import spread
from pipelines.report_page.wording import duration
from tests import run_story
from tests.fakes import run_spec
from tests.run_story import SITES, evaluation, found, manifest, spec, story, verdict

PLAIN = Privacy(unit="none", clip=None)
HOSTILE = "</td><script>alert(1)</script>"


@pytest.fixture(scope="module")
def page() -> str:
    return render(found())


def test_the_page_says_what_ran_and_how_it_ended(page):
    for words in (
        "Finished.",
        "6 of 6 phases",
        "lung-notes-0123456789",
        "models:/lung notes/4",
        "No example left its site",
    ):
        assert words in page
    assert spec(*SITES).sha256 in page


def test_the_page_says_who_was_missing_and_why(page):
    assert "3 of 4" in page
    assert "ucl declined: ENGINE_FAULT: the GPU is gone" in page
    assert "ucl late: it took its task, and the phase closed without it" in page
    assert "ucl lost: silent for 61 s" in page


def test_the_page_holds_epsilon_against_both_limits(page):
    assert re.search(r"charite</td><td class=\"n\">7.500</td><td class=\"n\">8 \(93.8%\)", page)
    assert "The federation&#x27;s limit is 10." in page or "The federation's limit is 10." in page


def test_the_page_has_the_evaluation_with_its_intervals_and_the_verdict_with_its_rules(page):
    assert "0.840 (0.790 to 0.890)" in page
    assert "+0.030 (+0.010 to +0.050)" in page
    assert "None of the 360 test examples is among the 1440 that were trained on" in page
    assert "Promotion: refused." in page
    assert re.search(
        r"worst site</td><td class=\"t\">NOT PASSED</td><td class=\"n\">0.78</td><td class=\"n\">0.8<", page
    )


def test_every_picture_says_in_words_what_it_shows(page):
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) >= 7
    for picture in pictures:
        opening = picture[: picture.index(">")]
        title, text = re.search(r'aria-labelledby="(\S+) (\S+)"', opening).groups()
        assert re.search(rf'<title id="{title}">[^<]+</title><desc id="{text}">[^<]+</desc>', picture)
        assert 'role="img"' in opening


def test_the_same_run_gives_the_same_bytes(page):
    assert render(found()) == page


def test_the_page_needs_no_address_and_runs_nothing(page):
    for forbidden in ("http:", "https:", "//", "src=", "url(h", "@import", "<script", "javascript:", "onload"):
        assert forbidden not in page.replace("models:/", "")


def test_nothing_that_others_wrote_is_markup():
    """Names, reasons, rules, evidence: wherever text of others can come from."""
    sites = (HOSTILE, "b")
    run = spec("a", "b").model_copy(update={"name": HOSTILE, "labels": (HOSTILE, "x"), "population": HOSTILE})
    run = run.model_copy(update={"federation": run.federation.model_copy(update={"sites": sites})})
    judged = verdict() | {"model": HOSTILE, "evidence": {HOSTILE: HOSTILE}, "expected_champion": HOSTILE}
    judged["rules"] = [{"rule": "minimum", "passed": False, "detail": HOSTILE}]
    scored = evaluation(sites) | {"test_set": {"source": HOSTILE, "sha256": HOSTILE, "examples": 1}}
    parts = manifest(sites) | {"source": HOSTILE, "labels": [HOSTILE]}
    made = replace(
        found(story(sites, ending="run_aborted"), run),
        verdict=Verdict.model_validate(judged),
        evaluation=Evaluation.model_validate(scored),
        manifest=Manifest.model_validate(parts),
        missing=(HOSTILE,),
        failure=HOSTILE,
        run=HOSTILE,
    )
    page = render(made)
    assert "<script" not in page
    assert page.count("</td>") == page.count("<td")


def test_dollar_signs_are_no_formula():
    sites = ("$\\frac{1}{2}$", "b")
    run = spec("a", "b")
    run = run.model_copy(update={"federation": run.federation.model_copy(update={"sites": sites})})
    assert "$\\frac{1}{2}$</text>" in render(found(story(sites), run))


@pytest.mark.parametrize(
    ("ending", "word"), [("run_failed", "Failed."), ("run_aborted", "Aborted."), ("", "Still running.")]
)
def test_a_run_that_did_not_finish_has_its_page_too(ending, word):
    page = render(found(story(phases=2, ending=ending), documents=False))
    assert word in page
    assert "2 of 6 phases" in page
    if ending:
        assert "1 of 4 updates came, the quorum is 2" in page
        assert ">never<" in page
    assert "No verdict of the gate was given to this report" in page


def test_a_run_before_its_first_phase_has_its_page():
    page = render(found(story(phases=0, ending="")[:1], documents=False))
    assert "No site has taken a task" in page
    assert "No phase was published, so nothing is counted here" in page


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_described(name):
    """Central pools the data, local and others personalise; of unit site the aggregator saw the updates."""
    units = make(run_spec("a", strategy=name, privacy=PLAIN)).declares.units
    for unit in sorted(units):
        privacy = PLAIN if unit == "none" else Privacy(unit=unit, epsilon=8.0, delta=1e-5)
        run = spec(*SITES, privacy=privacy).model_copy(update={"strategy": {"name": name}})
        known = found(run=run, documents=False)
        personal = known.result.model_copy(update={"adapter_sha256": dict.fromkeys(SITES, "ab" * 32)})
        made = replace(known, result=personal)
        page = head(made) + ran(made)
        assert ("No example left its site" in page) == (name != "central")
        assert ("which saw each site&#x27;s update" in page) == (unit == "site" and name != "central")
        assert "one for each of 4 sites" in page


def test_a_strategy_that_this_version_does_not_know_has_a_page():
    run = spec(*SITES).model_copy(update={"strategy": {"name": "later"}})
    assert "6 phases published" in render(found(run=run, documents=False))


def test_long_runs_and_many_sites_stay_below_what_an_aggregator_keeps():
    known = found(documents=False)
    phases = tuple(
        phase.model_copy(update={"round": round_, "published_s": 90.0 * round_})
        for round_ in range(500)
        for phase in known.result.rounds
    )
    long = replace(known, result=known.result.model_copy(update={"rounds": phases}))
    assert "The first 200 of 3000" in render(long)
    many = tuple(f"site-{number}" for number in range(1500))
    wide = found(story(many, phases=2), spec(*many))
    for each in (long, wide):
        assert len(render(each).encode()) < limits.ATTACHMENT_BYTES / 2


def test_of_a_consortium_stands_there_what_its_sites_let_out():
    told = {"schema": 1, "kind": "consortium", "labels": ["no", "yes"], "sites": {"north": {}, "south": {}}}
    shut = data(Found(manifest=Manifest.model_validate(told)))
    assert "north, south. Nothing of their data is known here" in shut
    assert "<table" not in shut
    told["sites"] = {"north": {"units": 40}, "south": {}}
    rows = data(Found(manifest=Manifest.model_validate(told)))
    assert ">40</td>" in rows
    assert "<svg" not in rows


def test_what_sites_measure_of_each_model_stands_side_by_side():
    told = evaluation()
    for name, value in {"candidate": 0.8125, "champion": 0.75}.items():
        told["models"][name] |= {"reported": {"charite": {"accuracy": value}, "ucl": {"macro_f1": value}}}
    shown = spread(Found(evaluation=Evaluation.model_validate(told)))
    assert "What the sites measure of each model" in shown
    rows = re.findall(r"charite</td><td class=\"t\">(\w+)</td><td class=\"n\">([\d.]+)</td>", shown)
    assert rows == [("candidate", "0.812"), ("champion", "0.750")]
    assert "What the sites report themselves" not in shown


def test_what_is_missing_is_said_at_the_top():
    page = render(Found(run="lung-1", missing=("the aggregator told nothing of lung-1: it does not answer",)))
    assert "This report is not complete." in page
    assert "the aggregator told nothing of lung-1" in page
    assert page.index("not complete") < page.index("What ran")


def test_a_run_without_privacy_says_so_and_draws_no_budget():
    open_hearted = spec(*SITES, privacy=Privacy(unit="none", clip=None), lifetime=None)
    infinite = {"epsilon": dict.fromkeys(SITES), "epsilon_total": dict.fromkeys(SITES)}
    events = [
        replace(each, detail={**each.detail, **infinite}) if each.kind == "phase_published" else each
        for each in story()
    ]
    page = render(found(events, open_hearted))
    assert "No privacy." in page
    assert "There was no noise in it" in page
    assert "burndown-title" not in page


def test_remaining_epsilon_starts_at_the_limit_and_infinite_is_nothing():
    left = remaining([{"a": 2.0, "b": 3.0}, {"a": 5.0}, {"a": float("inf"), "b": 9.0}], 8.0)
    assert left == {"a": [8.0, 6.0, 3.0, 0.0], "b": [8.0, 5.0, 5.0, 0.0]}


def test_equal_lines_are_one_and_of_many_the_ends_and_the_middle_are_drawn():
    assert alike({"a": [1, 2], "b": [1, 2]}) == {"all 2 sites alike": (1, 2)}
    assert alike({"a": [1, 2], "b": [1, 3]}) == {"a": (1, 2), "b": (1, 3)}
    many = alike({str(n): [0, n] for n in range(9)})
    assert {name.partition(":")[0]: values for name, values in many.items()} == {
        "highest": (0, 8),
        "middle": (0, 4),
        "lowest": (0, 0),
    }


def test_words_for_times_and_long_names():
    assert [duration(seconds) for seconds in (0.04, 12.4, 119.6, 121, 7325)] == [
        "0.0 s", "12 s", "120 s", "2 min 1 s", "2 h 2 min",
    ]  # fmt: skip
    assert short("st-anselm") == "st-anselm"
    assert len(short("x" * 300)) == 26
    assert short("a\nb\x00") == "a b "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON (Expecting"),
        ('{"schema": 2, "test_set": {}, "models": {}}', "has schema '2', and this version of deerfield reads 1"),
        ('{"schema": 1, "models": {}}', "test_set is missing"),
    ],
)
def test_a_document_that_cannot_be_used_is_one_sentence(tmp_path, text, said):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(InvalidInput, match=f"^evaluation.json.*{re.escape(said)}"):
        read(Evaluation, tmp_path / "evaluation.json", "evaluation.json")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read(Evaluation, tmp_path / "elsewhere.json")


def test_a_result_of_an_older_deerfield_has_a_page():
    """It says nothing of single sites in a phase."""
    known = found(documents=False)
    old = [phase.model_copy(update={"sites": {}, "missing": {}, "published_s": None}) for phase in known.result.rounds]
    page = render(replace(known, result=known.result.model_copy(update={"rounds": tuple(old), "incidents": ()})))
    assert "timeline-title" not in page
    assert "curve-title" in page
    assert run_story.RUN in page
