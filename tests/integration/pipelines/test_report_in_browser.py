"""The report as a reader sees it: in a real browser, on a screen and on paper."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from deerfield.documents.evaluation import Evaluation
from deerfield.documents.partition_manifest import Manifest
from pipelines.report_page import Found, render
from pipelines.report_page.page import SECTIONS
from tests import run_story
from tests.browser import A4, DOUBLE, SCREEN, Browser, browsing

HOSTILE = "<script>alert(1)</script> $x^2$ & \"quoted\" 'name' https://example.org/x.png ]]> " + "w" * 200
MANY = tuple(f"hospital-{number:02d}-with-a-rather-long-name-of-its-own" for number in range(40))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


def hostile() -> Found:
    """Every text that somebody else has written is a trap."""
    events = run_story.story((HOSTILE, "second", "third", HOSTILE + "4"))
    run = run_story.spec("a", "b", "c", "d").model_copy(update={"name": HOSTILE, "labels": (HOSTILE, "other")})
    federation = run.federation.model_copy(update={"sites": (HOSTILE, "second", "third", HOSTILE + "4")})
    run = run.model_copy(update={"federation": federation})
    scored, parts = run_story.evaluation(federation.sites), run_story.manifest(federation.sites)
    written = json.dumps([scored, parts]).replace('"benign"', json.dumps(HOSTILE))
    evaluation, manifest = json.loads(written)
    return replace(
        run_story.found(events, run),
        evaluation=Evaluation.model_validate(evaluation),
        manifest=Manifest.model_validate(manifest),
        run=HOSTILE,
        missing=(HOSTILE,),
        failure=HOSTILE,
    )


CASES = {
    "everything": lambda: (run_story.found(), range(7, 14)),
    "failed": lambda: (failed(), range(3, 8)),
    "hostile": lambda: (hostile(), range(7, 24)),
    "forty sites": lambda: (many(), range(9, 26)),
    "nothing": lambda: (Found(missing=("no run was started",)), range(1, 4)),
}


def failed() -> Found:
    events = run_story.story(phases=2, ending="run_failed")
    return run_story.found(events, documents=False, missing=("evaluation.json: none was written",), failure="FAILED")


def many() -> Found:
    return run_story.found(run_story.story(MANY), run_story.spec(*MANY))


@pytest.mark.parametrize("name", CASES)
def test_the_page_is_whole_on_a_screen_and_on_paper_and_asks_nobody_for_anything(browser, tmp_path, name):
    found, sheets = CASES[name]()
    page = tmp_path / "report.html"
    page.write_text(render(found), encoding="utf-8")
    browser.open(page)
    for seen in (browser.look(SCREEN), browser.look(A4, "print")):
        assert (seen.too_wide, seen.hidden, seen.clipped) == ([], [], [])
    shown = browser.evaluate("[...document.querySelectorAll('section')].map(e => e.id)")
    assert shown == [name for name, *_ in SECTIONS]
    assert browser.evaluate(DOUBLE) == []
    assert browser.evaluate("document.scripts.length + document.images.length") == 0
    assert browser.requests == [page.as_uri()]
    assert browser.complaints == []
    assert browser.pages(tmp_path / "report.pdf") in sheets
    browser.screenshot(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_a_browser_would_have_found_what_the_tests_look_for(browser, tmp_path):
    page = tmp_path / "bad.html"
    body = (
        "<section id=gone style='display: none'>x</section><div style='width: 3000px'>wide</div>"
        "<svg width=100 height=100><text x=90 y=50>outside</text></svg><img src=missing.png>"
    )
    page.write_text(f"<!doctype html><body>{body}<script>console.error('no')</script>")
    browser.open(page)
    seen = browser.look(SCREEN)
    assert seen.hidden == ["gone"]
    assert any("wide" in each for each in seen.too_wide)
    assert seen.clipped == ["outside"]
    assert len(browser.requests) == 2
    assert browser.complaints
