"""`deerfield runs` and `deerfield aggregator repin` against a server over TLS: what they print, do, and refuse."""

import json
import sys

import pytest
import structlog
import yaml

from deerfield.attestation import public_key
from deerfield.errors import InvalidInput
from deerfield.runfile import load_spec
from deerfield.wire.backoff import Backoff
from deerfield.wire.client import SiteClient
from pipelines.runs import run_start
from pipelines.runs.operator_link import target
from tests import command
from tests.attesting import key_of
from tests.fakes import TeachingSite, adapter, run_spec
from tests.integration.aggregator.security import channel_of
from tests.unit.client import tiny


@pytest.fixture(autouse=True)
def _log_is_not_the_commands():
    """The aggregator is in this process, and its log would be in what a command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))


@pytest.fixture
def deerfield(secured, consortium):
    """The command as ada, an operator: (exit code, what it printed). An error is its sentence and code."""
    files = consortium.files("operator", "ada")

    def run(*arguments, files=files):
        where = {
            "DEERFIELD_AGGREGATOR": secured.ports.listening,
            "DEERFIELD_TLS_CERTIFICATE": str(files.certificate),
            "DEERFIELD_TLS_KEY": str(files.key),
            "DEERFIELD_TLS_CA": str(files.authority),
            "COLUMNS": "120",
        }
        return command.deerfield(*arguments, **where)

    return run


@pytest.fixture
def run_file(tmp_path):
    """A run file for a cluster that describes its base model; two sites, one round."""
    spec = run_spec("north", "south", rounds=1, name="lung notes")
    digest = {"model": spec.model.model_copy(update={"digest": "d" * 64})}
    path = tmp_path / "run.yaml"
    run_start.write(spec.model_copy(update=digest), path)
    return path


@pytest.fixture
def started(deerfield, run_file):
    code, said = deerfield("runs", "start", run_file)
    assert code == 0, said
    return said.strip()


def test_an_address_that_is_a_url_is_refused_at_once(deerfield):
    code, said = deerfield("runs", "list", "--aggregator", "https://localhost:18600")
    assert code == 2
    assert "write HOST:PORT without https://" in said


def test_a_port_that_speaks_tls_is_named_to_whoever_gives_no_certificate(secured):
    address = secured.ports.listening
    code, said = command.deerfield("runs", "list", "--aggregator", address, COLUMNS="120")
    assert code == 2
    assert f"{address} speaks TLS, and no certificate was given; give --tls-certificate, --tls-key and --tls-ca" in said


def finish(secured, consortium, run, *names):
    """The sites answer every task of the run, and it is over."""
    sites = []
    for seed, name in enumerate(names):
        channel = secured.stack.enter_context(channel_of(secured.ports.listening, consortium.files("site", name)))
        sites.append(TeachingSite(name, SiteClient(channel, run=run, backoff=Backoff(patience_s=5)), adapter(seed)))
    for _ in range(2):
        for site in sites:
            assert site.step()


def test_a_run_is_started_once_for_each_request_and_is_what_the_file_says(deerfield, run_file, secured):
    first = json.loads(deerfield("runs", "start", run_file, "--request-id", "monday", "--json")[1])
    again = json.loads(deerfield("runs", "start", run_file, "--request-id", "monday", "--json")[1])
    assert first == again == {"run": first["run"], "request_id": "monday"}
    view = secured.aggregator.runs.get(first["run"])
    assert (view.spec.name, view.spec.federation.sites) == ("lung notes", ("north", "south"))
    assert view.spec.adapter == load_spec(run_file).adapter
    other = json.loads(deerfield("runs", "start", run_file, "--json")[1])
    assert other["run"] != first["run"]


def test_runs_are_listed_shown_paused_resumed_and_aborted(deerfield, started):
    def state(said):
        return json.loads(said)["state"]

    assert started in deerfield("runs", "list")[1]
    code, said = deerfield("runs", "show", started)
    assert code == 0
    for text in ("RUNNING", started, "0 of 1 rounds", "north      waiting", "OPEN"):
        assert text in said
    assert "PAUSED" in deerfield("runs", "pause", started, "--reason", "audit")[1]
    shown = json.loads(deerfield("runs", "show", started, "--json")[1])
    assert (shown["state"], shown["sites"]) == ("PAUSED", {"north": "WAITING", "south": "WAITING"})
    assert [each["run"] for each in json.loads(deerfield("runs", "list", "--json")[1])] == [started]
    assert state(deerfield("runs", "resume", started, "--json")[1]) == "RUNNING"
    assert state(deerfield("runs", "abort", started, "--reason", "enough", "--json")[1]) == "ABORTED"
    assert "ABORTED: enough" in deerfield("runs", "abort", started)[1]
    assert deerfield("runs", "pause", started) == (1, f"run {started} is ABORTED: enough")


def test_watching_says_what_happened_and_how_it_ended(deerfield, started, secured, consortium):
    finish(secured, consortium, started, "north", "south")
    code, said = deerfield("runs", "watch", started)
    lines = [line for line in said.splitlines() if "[info" not in line]  # the server's log has the same stdout here
    assert code == 0
    assert "run started" in lines[0]
    assert "run finished" in lines[-1]
    assert any("phase published" in line and "B from north, south" in line for line in lines)
    events = [json.loads(line) for line in deerfield("runs", "watch", started, "--json")[1].splitlines()]
    assert len(events) == len(lines)
    last = events[-1]["number"]
    assert deerfield("runs", "watch", started, "--after", last - 1)[1].splitlines() == lines[-1:]
    assert deerfield("runs", "watch", started, "--after", last) == (0, "")


def test_watching_a_run_that_was_aborted_ends_with_1(deerfield, started):
    deerfield("runs", "abort", started, "--reason", "enough")
    code, said = deerfield("runs", "watch", started)
    assert (code, said.splitlines()[-1].endswith("run aborted       enough")) == (1, True)
    assert deerfield("runs", "watch", started, "--after", 1_000)[0] == 1


def test_an_observer_looks_and_changes_nothing(deerfield, started, consortium):
    eve = consortium.files("observer", "eve")
    assert deerfield("runs", "show", started, files=eve)[0] == deerfield("runs", "list", files=eve)[0] == 0
    for verb in ("pause", "resume", "abort"):
        code, said = deerfield("runs", verb, started, files=eve)
        assert (code, said) == (1, "this call is for a caller of role operator, not observer")
    assert json.loads(deerfield("runs", "show", started, "--json")[1])["state"] == "RUNNING"


def test_a_run_file_that_cannot_be_started_is_one_sentence(deerfield, run_file, tmp_path):
    written = yaml.safe_load(run_file.read_text())

    def start(**changes):
        path = tmp_path / "other.yaml"
        path.write_text(yaml.safe_dump({**written, **changes}))
        return deerfield("runs", "start", path)

    code, said = start(federation={})
    assert (code, "federation: sites is empty" in said) == (2, True)
    code, said = start(adapter={})
    assert (code, "give --base FOLDER" in said) == (2, True)
    code, said = start(model={**written["model"], "digest": None})
    assert (code, "give --base FOLDER" in said) == (2, True)
    code, said = start(strategy="nonesuch")
    assert (code, "nonesuch" in said) == (2, True)
    code, said = start(colour="red")
    assert (code, "unknown key 'colour'" in said) == (2, True)
    assert json.loads(deerfield("runs", "list", "--json")[1]) == []


def test_a_run_file_is_completed_by_its_base_model(deerfield, tmp_path, secured):
    tiny.save("bert", tmp_path / "model")
    file, full = tmp_path / "short.yaml", tmp_path / "full.yaml"
    short = {
        "name": "small",
        "rounds": 1,
        "population": "notes",
        "labels": list(tiny.LABELS),
        "model": {"base": "tiny/bert", "input": "text", "lora": {"rank": 2, "targets": ["query", "value"]}},
        "privacy": {"unit": "none"},
        "federation": {"sites": ["north"]},
    }
    file.write_text(yaml.safe_dump(short))
    code, said = deerfield("runs", "describe", file, "--base", tmp_path / "model", "--out", full)
    assert (code, "14 tensors" in said) == (0, True)
    run = deerfield("runs", "start", full)[1].strip()
    assert len(secured.aggregator.runs.get(run).spec.adapter) == 14
    code, said = deerfield("runs", "describe", file, "--base", tmp_path / "model", "--out", full)
    assert (code, "never overwritten" in said) == (2, True)
    file.write_text(yaml.safe_dump({**short, "model": {**short["model"], "digest": "0" * 64}}))
    code, said = deerfield("runs", "start", file, "--base", tmp_path / "model")
    assert (code, "correct one of them" in said) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--aggregator", "somewhere"], "is no host:port, such as aggregator.example.org"),
        (["--aggregator", "somewhere:0"], "is no host:port, such as aggregator.example.org"),
        (["--tls-ca", "/nowhere/ca.crt"], "/nowhere/ca.crt cannot be read"),
    ],
)
def test_options_that_cannot_be_used_are_one_sentence(deerfield, options, said):
    code, told = deerfield("runs", "list", *options)
    assert (code, said in told) == (2, True), told


def test_the_files_of_a_caller_belong_together(consortium):
    files = consortium.server
    for some in ((files.certificate, files.key, None), (None, files.key, files.authority), (None, None, files.key)):
        with pytest.raises(InvalidInput, match="belong together"):
            target("127.0.0.1:1", *some)


def test_a_run_that_is_not_there_is_one_sentence(deerfield):
    for verb in ("show", "watch", "pause", "resume", "abort"):
        assert deerfield("runs", verb, "nobody's") == (1, 'no run is called "nobody\'s"')


def test_a_sites_key_is_pinned_anew(deerfield, started, secured):
    key = key_of("new").public_key().public_bytes_raw().hex()
    ask = ["aggregator", "repin", "north", "--key", key.upper(), "--reason"]
    said = deerfield(*ask, "the disk broke")[1].splitlines()[-1]  # after the server's own log
    assert said == f"north signs with {key} from now on; before: none was known"
    said = deerfield(*ask, "again", "--json")[1]
    assert json.loads(said[said.index("{") :]) == {"site": "north", "before": key, "public_key": key}
    with secured.aggregator.desk.store.edge() as edge:
        assert edge.heads.pinned("north") == key
    assert deerfield(*ask, " ")[0] == 2
    code, said = deerfield("aggregator", "repin", "north", "--key", "abc", "--reason", "why")
    assert (code, "64 hexadecimal digits" in said) == (2, True)
    deerfield("runs", "abort", started)
    assert "north signs with" in deerfield("runs", "watch", started)[1]


def test_the_aggregators_public_key_is_printed_from_its_file(deerfield, tmp_path, secured):
    file = tmp_path / "aggregator" / "aggregator.key"
    assert deerfield("aggregator", "key", file) == (0, public_key(secured.aggregator.desk.key) + "\n")
    missing = tmp_path / "none.key"
    code, said = deerfield("aggregator", "key", missing)
    assert (code, "there is no signing key" in said, missing.exists()) == (2, True, False)
