"""An aggregator is lost in mid-run and restored from a backup of a while ago; its sites go on, each ledger is right."""

import json
import shutil
import signal
import subprocess
from contextlib import ExitStack, contextmanager

import pytest

from deerfield.certificates import load
from deerfield.errors import RunEnded
from deerfield.identity import Peer
from deerfield.wire.channel import connect_tls
from deerfield.wire.client import RunsClient
from services.client.custody.operator import read_account
from tests import pki, postgres
from tests.integration import restoring
from tests.integration.federation import command, environment
from tests.integration.restoring import deerfield, tls
from tests.pki import NOW
from tests.unit.client.sites import spec

NAMES = ("north", "south")
FEDERATION = {"sites": list(NAMES), "deadline_s": 600}


@pytest.fixture
def consortium(tmp_path):
    return Consortium(tmp_path)


class Consortium:
    def __init__(self, folder):
        self.folder, self.ca = folder, pki.authority(folder / "ca")
        self.server = pki.files(self.ca, folder / "server", pki.AGGREGATOR, hosts=("127.0.0.1",))
        self.ada = self.files("operator", "ada")
        self.sites = {name: self.files("site", name) for name in NAMES}

    def files(self, role, name):
        return pki.files(self.ca, self.folder / f"{role}-{name}", Peer(federation="lungs", role=role, name=name))


@pytest.fixture(params=["sqlite", "postgresql"])
def databases(request, tmp_path):
    """The URLs of two databases, one of them empty to the end."""
    for name in "ab":
        (tmp_path / name).mkdir()
    if request.param == "sqlite":
        yield [f"sqlite:///{tmp_path / name / 'a.db'}" for name in "ab"]
        return
    with postgres.serving() as server:
        yield [server.url(server.create()) for _ in "ab"]


@contextmanager
def watcher(run, address, files, where):
    """`deerfield runs watch`, all the while."""
    program = command("runs", "watch", run, "--aggregator", address, *map(str, tls(files)))
    pipe = subprocess.PIPE
    with subprocess.Popen(program, env=where, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def step(sites):
    """Each site answers one task."""
    for site in sites:
        assert site.step()


def published(runs, run, count):
    """Waits until so many phases of a run are published."""
    seen = 0
    for event in runs.watch(run):
        seen += event.kind == "phase_published"
        if seen == count:
            return


@pytest.mark.e2e
def test_a_lost_aggregator_is_restored_while_its_sites_wait(tmp_path, consortium, databases):
    old, new = tmp_path / "a", tmp_path / "b"
    where = environment()
    with ExitStack() as stack:
        process, address = stack.enter_context(restoring.aggregator(old, consortium.server, databases[0]))
        channel = stack.enter_context(connect_tls(address, load(consortium.ada, NOW)))
        runs = RunsClient(channel, backoff=restoring.QUICK)
        run = runs.start(spec(federation=FEDERATION), "once")
        watching = stack.enter_context(watcher(run, address, consortium.ada, where))
        north, south = both = [
            stack.enter_context(restoring.site(name, files, address, run, tmp_path / name))
            for name, files in consortium.sites.items()
        ]
        step(both)
        published(runs, run, 1)
        step([north])
        backup = tmp_path / "backup.zip"
        options = ["--database", databases[0], "--blobs", old / "blobs"]
        done = deerfield("aggregator", "backup", backup, *options, environment=where)
        assert done.returncode == 0, done.stderr
        assert "1 runs, 2 ledgers' heads" in done.stdout
        step([south])
        published(runs, run, 2)
        step([south])  # of phase 2, which the backup has never seen
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(old)

        options = ["--database", databases[1], "--blobs", new / "blobs", *tls(consortium.ada)]
        done = deerfield("aggregator", "restore", backup, *options, "--yes", "--json", environment=where)
        assert done.returncode == 0, done.stderr
        incarnation = json.loads(done.stdout)["incarnations"][run]
        again = stack.enter_context(restoring.aggregator(new, consortium.server, databases[1], address))
        assert again[1] == address
        for count in range(2, 5):
            step(both)
            published(runs, run, count)
        for site in both:
            with pytest.raises(RunEnded, match="FINISHED"):
                site.step()
        said, warned = watching.communicate(timeout=60)
        assert watching.returncode == 0, warned
        assert "the aggregator does not answer; asking again" in warned
        lines = said.splitlines()
        assert [word in lines[at] for at, word in ((0, "run started"), (-1, "run finished"))] == [True, True]
        assert sum("run restored" in line for line in lines) == 1
        assert sum("phase published" in line for line in lines) == 2 + 3  # one of them was lost and came again
        events = list(runs.watch(run))
        told = [event.detail for event in events if event.kind == "phase_published"][-1]
        assert [event.kind for event in events][-1] == "run_finished"
    for name in NAMES:
        verified = deerfield("ledger", "verify", tmp_path / name, environment=where)
        assert verified.returncode == 0, verified.stdout
        check_charges(tmp_path / name, name, run, incarnation, told)


def check_charges(state, name, run, incarnation, told):
    """The ledger was charged for both incarnations, each whole, and the aggregator says no less."""
    account = read_account(state / "ledgers" / "p" / "ledger.jsonl")
    assert set(account.runs) == {(run, 1), (run, incarnation)}
    first, second = account.runs[run, 1], account.runs[run, incarnation]
    assert 0 < first.epsilon_after < second.epsilon_after == account.epsilon
    assert second.epsilon_after == pytest.approx(2 * first.epsilon_after)  # the run's whole epsilon, twice
    assert told["epsilon_total"][name] == pytest.approx(account.epsilon)
    assert told["epsilon"][name] > first.epsilon_after


@pytest.mark.e2e
def test_a_site_without_the_consortiums_ca_does_no_task_of_a_restored_run(tmp_path, consortium):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = (f"sqlite:///{tmp_path / name / 'a.db'}" for name in "ab")
    with ExitStack() as stack:
        _, address = stack.enter_context(restoring.aggregator(tmp_path / "a", consortium.server, one))
        channel = stack.enter_context(connect_tls(address, load(consortium.ada, NOW)))
        run = RunsClient(channel).start(spec(federation=FEDERATION), "once")
    backup, where = tmp_path / "backup.zip", environment()
    assert (
        deerfield("aggregator", "backup", backup, "--database", one, "--blobs", tmp_path / "a" / "blobs").returncode
        == 0
    )
    options = ["--database", two, "--blobs", tmp_path / "b" / "blobs", *tls(consortium.ada), "--yes"]
    assert deerfield("aggregator", "restore", backup, *options, environment=where).returncode == 0
    with ExitStack() as stack:
        _, address = stack.enter_context(restoring.aggregator(tmp_path / "b", consortium.server, two))
        channel = stack.enter_context(connect_tls(address, load(consortium.ada, NOW)))
        files = consortium.sites["north"]
        north = stack.enter_context(restoring.site("north", files, address, run, tmp_path / "north", trusts=False))
        assert north.step()
        for event in RunsClient(channel).watch(run):
            if event.kind == "declined":
                break
        assert event.detail["reason"] == "POLICY_REFUSED"
        assert "only with the word of an operator" in event.detail["detail"]
    shown = json.loads(deerfield("ledger", "show", tmp_path / "north", "--json").stdout)
    assert [entry["kind"] for entry in shown["entries"]] == ["open"]  # nothing was charged
