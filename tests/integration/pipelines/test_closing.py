"""The last task of a pipeline finds its run by the request alone, and reports on what was kept with it."""

import json

import pytest

from deerfield.errors import InvalidInput
from deerfield.exchange import run_id
from pipelines.runs.run_start import text
from pipelines.steps.closing import close
from pipelines.steps.keep import EVALUATION, MANIFEST, keep
from tests import run_story
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.federation import wait_for
from tests.integration.pipelines import hub as hubs

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with hubs.opened(tmp_path_factory.mktemp("closing")) as found:
        yield found


def closed(hub, run, request, out, failure=""):
    lines = []
    close(run, request, hub.aggregator, hub.tracking, failure, out, lines.append)
    return out.read_text(), lines


def test_the_page_has_what_was_kept_with_the_run_of_the_request(hub, tmp_path):
    version = hub.trained("lungs", kept=False)
    manifest = tmp_path / "given.json"
    manifest.write_text(json.dumps(run_story.manifest()))
    evaluation = tmp_path / "evaluated.json"
    evaluation.write_text(json.dumps(run_story.evaluation()))
    assert version.run == run_id("lungs", "lungs 0")
    first = keep(version.run, hub.aggregator, MANIFEST, manifest)
    assert keep(version.run, hub.aggregator, MANIFEST, manifest) == first  # a second try
    keep(version.run, hub.aggregator, EVALUATION, evaluation)
    kept = tmp_path / "kept"
    kept.mkdir()
    wait_for(lambda: len(hub.registry.kept("lungs", version.run, (MANIFEST, EVALUATION), kept)) == 2)
    spec = hub.server.runs.get(version.run).spec
    page, lines = closed(hub, text(spec), "lungs 0", tmp_path / "report.html", "evaluate failed")
    assert lines == []
    for words in (version.run, "Finished", "lung-notes-test.csv", "evaluate failed", "verdict.json: none was written"):
        assert words in page
    assert "manifest.json: none was written" not in page
    assert "evaluation.json: none was written" not in page


def test_a_request_that_never_started_a_run_has_its_page_too(hub, tmp_path):
    spec = hub.server.runs.get(hub.trained("bones").run).spec
    page, _ = closed(hub, text(spec), "another job", tmp_path / "report.html", "partition failed")
    assert "no run was started" in page
    assert "partition failed" in page
    page, _ = closed(hub, "not: a run file", "another job", tmp_path / "second.html")
    assert "no run was started" in page


def test_without_a_tracking_server_nothing_is_kept_and_the_task_says_so(tmp_path, hub):
    aggregator = open_aggregator(tmp_path / "aggregator", hub.server.aggregator.desk.clock)
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    with served(aggregator) as server:
        run = server.runs.start(hub.server.runs.list()[0].spec, "once")
        with pytest.raises(InvalidInput, match="tracking"):
            keep(run, server.ports.listening, MANIFEST, path)
    aggregator.desk.store.close()
