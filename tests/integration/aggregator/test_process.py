"""`python -m services.aggregator` as a process: how it starts, what it says, how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from deerfield.certificates import Files, load
from deerfield.errors import InvalidInput, NotAuthenticated
from deerfield.wire.channel import connect_tls
from deerfield.wire.client import RunsClient
from pipelines.pki import pki_authority
from services.aggregator.settings import read_settings
from services.aggregator.sql.exclusion import take_over
from tests import pki
from tests.fakes import run_spec


def command(folder, *flags, listen="127.0.0.1:0", database=""):
    places = ["--database", database or f"sqlite:///{folder / 'a.db'}", "--blobs", str(folder / "blobs")]
    return [sys.executable, "-m", "services.aggregator", "--listen", listen, "--health", "127.0.0.1:0", *places, *flags]


def test_the_log_holds_no_credentials():
    settings = read_settings(["--database", "postgresql://me:secret@db/runs", "--tracking", "http://a:b@mlflow"], {})
    assert "secret" not in settings.as_json()
    assert "postgresql://***@db/runs" in settings.as_json()
    assert settings.database == "postgresql://me:secret@db/runs"
    for url in ('postgresql://me:"sec/r@et@db/runs', "postgresql:///runs?host=db&password=sec/r@et&user=me"):
        assert "sec/r" not in read_settings(["--database", url], {}).as_json()


@pytest.mark.parametrize("flag", ["lost-after", "takeover"])
@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf"])
def test_a_wait_that_is_no_time_is_refused(flag, seconds):
    with pytest.raises(InvalidInput, match=flag):
        read_settings([], {f"DEERFIELD_{flag.upper().replace('-', '_')}": seconds})


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite+pysqlite://"])
def test_a_database_that_would_forget_every_run_is_refused(url, tmp_path):
    flags = command(tmp_path, database=url)
    found = subprocess.run(flags, check=False, capture_output=True, text=True, timeout=60)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr == (
        f"error: database: {url} is a database in memory, which would forget every run; name a file: "
        "sqlite:////FOLDER/FILE\n"
    )


def tls(files):
    return ["--tls-certificate", str(files.certificate), "--tls-key", str(files.key), "--tls-ca", str(files.authority)]


def test_only_a_port_that_asks_for_certificates_may_be_reached_from_outside(tmp_path):
    files = Files(certificate=Path("tls.crt"), key=Path("tls.key"), authority=Path("ca.crt"))
    open_to_all = ["--listen", "0.0.0.0:8600"]
    assert read_settings([*open_to_all, *tls(files)], {}).tls == files
    assert read_settings([], {}).tls is None
    for some in ([], tls(files)[:4], tls(files)[2:]):
        with pytest.raises(InvalidInput, match="needs TLS" if not some else "belong together; give all three"):
            read_settings([*open_to_all, *some], {})
    with pytest.raises(InvalidInput, match="revoked is a list of certificates"):
        read_settings(["--revoked", "revoked.json"], {})


def test_help_says_what_each_flag_takes_and_its_default_and_never_what_the_environment_holds(capsys):
    with pytest.raises(SystemExit, match="0"):
        read_settings(["--help"], {"DEERFIELD_DATABASE": "postgresql://me:secret@db/runs"})
    said = " ".join(capsys.readouterr().out.split())
    assert "Serves a federation" in said
    assert "secret" not in said
    for flag in (
        "--listen HOST:PORT data port, for sites and operators; port 0 takes a free one (default: 127.0.0.1:8600) "
        "[DEERFIELD_LISTEN]",
        "--queue-s SECONDS seconds that an upload waits for its turn (default: 60) [DEERFIELD_QUEUE_S]",
        "--keep-states TIME how long superseded states are kept after their run has ended (default: for ever)",
        "--runs N runs that are running at once (default: 64)",
    ):
        assert flag in said


def test_it_serves_over_tls_with_the_files_that_it_is_given(start, tmp_path):
    ca = pki.authority(tmp_path / "ca")
    files = pki.files(ca, tmp_path / "server", pki.AGGREGATOR, hosts=("127.0.0.1",))
    ada = pki.files(ca, tmp_path / "ada", replace(pki.NORTH, role="operator"))
    process, ports = start(*tls(files), "--revoked", str(ca.folder / "revoked.json"), "--while-stdin")
    with connect_tls(ports["listening"], load(ada, pki.NOW)) as channel:
        runs = RunsClient(channel)
        assert runs.get(runs.start(run_spec("north"), "once")).state == "RUNNING"
        pki_authority.revoke(ca.folder, load(ada, pki.NOW).serial, "test", pki.NOW)
        with pytest.raises(NotAuthenticated, match="is revoked"):
            runs.list()
    process.stdin.close()
    assert process.wait(10) == 0


def test_a_certificate_that_cannot_be_used_is_one_sentence_and_nothing_is_made(tmp_path):
    north = pki.files(pki.authority(tmp_path / "ca"), tmp_path / "north")
    here = tmp_path / "here"
    here.mkdir()
    found = subprocess.run(command(here, *tls(north)), check=False, capture_output=True, text=True, timeout=30)
    assert (found.returncode, list(here.iterdir())) == (2, [])
    assert "the data port needs an aggregator's" in found.stderr.strip().splitlines()[-1]


def test_a_fault_is_one_line_of_a_log_of_json_and_the_termination_message(tmp_path):
    (tmp_path / "blobs").write_text("")
    place = tmp_path / "message"
    found = subprocess.run(
        command(tmp_path),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"DEERFIELD_LOG": "json", "DEERFIELD_TERMINATION_LOG": str(place)},
    )
    settings, fault = map(json.loads, found.stderr.splitlines())
    assert (settings["event"], fault["exit_code"], found.returncode) == ("settings", 2, 2)
    assert fault["event"] == place.read_text()
    assert fault["event"].startswith(f"error: blobs: {tmp_path / 'blobs'}/uploads cannot be written to (")


def test_what_is_wrong_with_a_setting_is_said_in_the_form_of_the_log(tmp_path):
    flags = command(tmp_path, "--log", "json", "--drain", "soon")
    found = subprocess.run(flags, check=False, capture_output=True, text=True, timeout=60)
    (fault,) = map(json.loads, found.stderr.splitlines())
    assert fault["event"] == "error: drain: 'soon' is no number of seconds above 0"


@pytest.fixture
def start(tmp_path):
    """Starts an aggregator; whatever happens, it is gone afterwards."""

    def popen(*flags, database=""):
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command(tmp_path, *flags, database=database), stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        return process, json.loads(process.stdout.readline())

    with ExitStack() as stack:
        yield popen


def test_it_says_where_it_listens_and_ends_when_stdin_closes(start):
    process, ports = start("--while-stdin")
    with RunsClient.connect(ports["listening"]) as runs:
        run = runs.start(run_spec("north"), "once")
    assert set(ports) == {"listening", "health"}
    process.stdin.close()
    assert process.wait(10) == 0
    settings = process.stderr.read()
    assert "lost_after_s" in settings
    _, ports = start()
    with RunsClient.connect(ports["listening"]) as runs:
        assert runs.get(run).state == "RUNNING"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully_while_somebody_watches(start, number):
    process, ports = start()
    with RunsClient.connect(ports["listening"]) as runs:
        run = runs.start(run_spec("north"), "once")
        watching = runs.watch(run)
        assert next(watching).kind == "run_started"
        process.send_signal(number)
        assert process.wait(10) == 0
        watching.close()


@pytest.mark.parametrize(
    ("listen", "sentence"),
    [
        ("0.0.0.0:0", "needs TLS"),
        ("aggregator.example:8600", "needs TLS"),
        ("127.0.0.1:http-alt", "is no host:port"),
        ("nonsense", "'nonsense' is no host:port"),
        (None, "is in use or cannot be bound"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_sentence_and_exit_code_2(tmp_path, listen, sentence):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = listen or f"127.0.0.1:{taken.getsockname()[1]}"
        found = subprocess.run(
            command(tmp_path, listen=listen), check=False, capture_output=True, text=True, timeout=30
        )
    assert found.returncode == 2
    assert found.stdout == ""
    last = found.stderr.strip().splitlines()[-1]
    assert sentence in last
    assert last.startswith(("error: listen: ", f"error: {listen}"))
    assert "Traceback" not in found.stderr
    assert len(found.stderr.strip().splitlines()) <= 2  # the settings, and the sentence


def ended(process) -> str:
    """The last line of what a process said that has ended with a sentence, not with a traceback."""
    process.wait(20)
    said = process.stderr.read()
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def test_a_second_aggregator_waits_and_ends_by_naming_the_first(start, tmp_path, database):
    url = database(tmp_path)
    first, _ = start(database=url)
    flags = ["--takeover", "0.5"]
    found = subprocess.run(
        command(tmp_path, *flags, database=url), check=False, capture_output=True, text=True, timeout=30
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert f"is in use by the aggregator on {socket.gethostname()}, process {first.pid}, since " in found.stderr
    assert found.stderr.strip().splitlines()[-1].startswith("error: database: ")
    assert "Traceback" not in found.stderr


def test_the_next_aggregator_goes_on_after_a_kill(start, tmp_path, postgres_in):
    url = postgres_in(tmp_path)
    first, ports = start(database=url)
    with RunsClient.connect(ports["listening"]) as runs:
        run = runs.start(run_spec("north"), "once")
    first.kill()
    _, ports = start("--takeover", "10", database=url)
    with RunsClient.connect(ports["listening"]) as runs:
        assert runs.get(run).state == "RUNNING"


def test_an_aggregator_whose_database_was_taken_over_ends_with_a_sentence(start, tmp_path, postgres_in):
    url = postgres_in(tmp_path)
    first, _ = start(database=url)
    engine = create_engine(url)
    with engine.begin() as connection:
        take_over(connection, 0.0)
    engine.dispose()
    assert ended(first).startswith("error: the database was taken over by the aggregator on ")
    assert first.returncode == 1


def test_a_wrong_password_is_one_sentence_and_exit_code_2(tmp_path, postgres_server):
    url = postgres_server.url("postgres", "guess")
    found = subprocess.run(command(tmp_path, database=url), check=False, capture_output=True, text=True, timeout=30)
    assert (found.returncode, found.stdout) == (2, "")
    assert "guess" not in found.stderr
    assert len(found.stderr.strip().splitlines()) == 2  # the settings, and the sentence
    assert "check the user and the password" in found.stderr
