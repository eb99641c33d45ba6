"""`deerfield cluster trial` with a server over TLS, teaching sites and a real MLflow: what it says, when it fails."""

import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import structlog
import yaml

from deerfield.errors import InvalidInput
from deerfield.runfile import load_spec
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import SiteClient
from pipelines.cluster import own_sites
from services.aggregator.tracking import MlflowTracking
from services.client.policy import load as load_policy
from tests import command
from tests.fakes import TeachingSite
from tests.integration.aggregator.conftest import open_aggregator, served
from tests.integration.aggregator.security import channel_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow 3.17 on SQLAlchemy 2.1
)
SHARE = Path(__file__).resolve().parents[4] / "examples/trial"
SITES = ("sim-0", "sim-1")
EXCHANGES = 4


@pytest.fixture(autouse=True)
def _log_is_not_the_commands():
    """The aggregator is in this process, and its log would be in what a command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))


@pytest.fixture
def installation(tmp_path, clock, consortium):
    """A server over TLS that registers its models."""
    aggregator = open_aggregator(tmp_path / "aggregator", clock)
    tracking = MlflowTracking(aggregator.desk, f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"))
    with served(aggregator, tracking, consortium.gate()) as found:
        yield found
    aggregator.desk.store.close()


@pytest.fixture
def trial(consortium, tmp_path):
    """The command as an operator of a server: its exit code, and what it printed."""
    files = consortium.files("operator", "ada")

    def run(server, *arguments, **changes):
        where = {
            "DEERFIELD_AGGREGATOR": server.ports.listening,
            "DEERFIELD_TLS_CERTIFICATE": str(files.certificate),
            "DEERFIELD_TLS_KEY": str(files.key),
            "DEERFIELD_TLS_CA": str(files.authority),
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
            "COLUMNS": "120",
        }
        options = {"--share": SHARE, "--timeout": 60, **changes}
        return command.deerfield(
            "cluster", "trial", *(part for pair in options.items() for part in pair), *arguments, **where
        )

    return run


@contextmanager
def at_work(server, consortium, work, names=SITES):
    """Each site does `work` on a thread of its own."""

    def begin(name):
        with channel_of(server.ports.listening, consortium.files("site", name)) as channel:
            work(name, SiteClient(channel, backoff=Backoff(patience_s=5)))

    threads = [threading.Thread(target=begin, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def answer(name, client):
    """Answers every task of one trial."""
    shapes, rng = load_spec(SHARE / "run.yaml").adapter, np.random.default_rng(len(name))
    target = {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    site = TeachingSite(name, client, target, noise_multiplier=20.0)
    client.hello()
    for _ in range(EXCHANGES):
        while not site.step():
            pass


def states(server):
    return {view.run: view.state for view in server.aggregator.runs.list()}


def test_a_trial_over_connected_sites_ends_with_a_version_that_is_what_was_published(installation, consortium, trial):
    with at_work(installation, consortium, answer):
        code, said = trial(installation, "--sites", ",".join(SITES))
    assert code == 0, said
    (run,) = states(installation)
    assert states(installation) == {run: "FINISHED"}
    digest = installation.aggregator.runs.get(run).model.digest
    for text in (
        f"run {run}: 2 rounds over sim-0, sim-1, 60 s at most",
        "ok: 2 rounds, 4 exchanges, each with sim-0, sim-1",
        "ok: epsilon sim-0 0.",
        f"ok: version 1 of deerfield-trial, digest {digest}, is what the aggregator published",
        f"{run} stays in the list of runs",
    ):
        assert sum(line.startswith(text) for line in said.splitlines()) == 1, said
    assert sum("phase published" in line for line in said.splitlines()) == EXCHANGES
    assert installation.aggregator.runs.get(run).spec.population == "trial"


@pytest.mark.e2e
def test_a_trial_at_an_aggregator_that_registers_nothing_says_so(secured, consortium, trial):
    with at_work(secured, consortium, answer):
        code, said = trial(secured, "--sites", ",".join(SITES))
    assert code == 1
    assert "has no version in the registry: its aggregator was started without --tracking" in said


def test_a_site_that_declines_ends_the_trial_at_once_and_is_named(secured, consortium, trial):
    def refuse(name, client):
        client.hello()
        while (assignment := client.next_task()) is None:
            pass
        client.decline(assignment, "NOT_MAPPED", "population 'trial' is not in this site's policy (lungs)")

    with at_work(secured, consortium, refuse, SITES[:1]):
        code, said = trial(secured, "--sites", ",".join(SITES))
    (run,) = states(secured)
    assert (code, states(secured)[run] in ("ABORTED", "FAILED")) == (1, True)  # by us, or for want of a quorum
    assert f"site sim-0 declined run {run}: NOT_MAPPED: population 'trial' is not in this site's policy" in said


def test_a_trial_that_nobody_comes_to_ends_in_time_and_says_who_is_missing(secured, consortium, trial):
    with at_work(secured, consortium, lambda name, client: client.hello(), SITES[:1]):
        pass
    code, said = trial(secured, "--sites", ",".join(SITES), **{"--timeout": 1})
    (run,) = states(secured)
    assert (code, states(secured)) == (1, {run: "ABORTED"})
    assert said.endswith("did not finish within 1 s: sim-0 has not taken its task; sim-1 has never called"), said


def test_options_that_cannot_be_used_start_nothing(secured, trial, consortium, tmp_path):
    (tmp_path / "none").mkdir()
    north = consortium.files("site", "north").certificate.parent
    (north / "ca.crt").write_bytes(consortium.server.authority.read_bytes())
    for arguments, changes, text in (
        ([], {}, "give either --sites, of those that are connected, or --own-sites"),
        (["--sites", "a", "--own-sites", tmp_path], {}, "give either --sites"),
        (["--own-sites", tmp_path / "none"], {}, "holds no certificate of a site (NAME.crt, NAME.key, ca.crt)"),
        (["--own-sites", north], {}, "is of deerfield://lungs/site/north; a trial brings only sites along whose names"),
        (["--sites", "a"], {"--share": tmp_path / "none"}, "run.yaml cannot be read"),
        (["--sites", "a,a"], {}, "run.yaml: federation"),
        (["--sites", "a"], {"--tracking": f"sqlite:///{tmp_path / 'none.db'}"}, "none.db is not there"),
        (["--sites", "a"], {"--aggregator": "https://here"}, "write HOST:PORT"),
    ):
        code, said = trial(secured, *arguments, **changes)
        assert (code, text in said) == (2, True), said
    assert states(secured) == {}


def test_sites_that_a_trial_brings_along_have_a_population_of_their_own_and_its_files(tmp_path):
    written = tmp_path / "policy.yaml"
    written.write_text(yaml.safe_dump(own_sites.policy(SHARE, "trial-1234")))
    policy = load_policy(written)
    spec = load_spec(SHARE / "run.yaml").model_copy(update={"population": "trial-1234"})
    assert policy.population(spec).source.path == str(SHARE / "notes.csv")
    assert policy.base(spec) == str(SHARE / "model")
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump({"populations": {}, "models": {}}))
    with pytest.raises(InvalidInput, match="maps no population trial"):
        own_sites.policy(tmp_path, "trial-1234")
