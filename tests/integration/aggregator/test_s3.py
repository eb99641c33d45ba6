"""Blobs in a bucket of a real S3 server: how they are named, what is refused, and a server that does not answer."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from deerfield.errors import InvalidInput, RunEnded, Unreachable
from deerfield.exchange import Key
from deerfield.wire import codec
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect as connect_wire
from deerfield.wire.client import RunsClient, SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub
from pipelines.simulation import LocalLink
from services.aggregator.assembly import assemble_aggregator
from services.aggregator.bucket import Bucket, EnvironmentProvider, connect, open_blobs, read_place
from services.aggregator.collector import Collector, collecting
from services.aggregator.database import Database
from services.aggregator.recorder import Recorder, Registered
from services.aggregator.retention import KEEP
from services.aggregator.s3_blobs import PART_BYTES, S3Blobs
from services.aggregator.settings import read_settings
from services.aggregator.store import Store
from tests import s3
from tests.cut_link import CutLink
from tests.fakes import Clock, TeachingSite, adapter, run_spec
from tests.integration.aggregator.conftest import open_aggregator, served

QUICK = Backoff(first_s=0.01, last_s=0.1, patience_s=0.5)


def name(data: bytes) -> str:
    return sha256(data).hexdigest()


@pytest.fixture
def bucket(s3_server):
    return s3_server.bucket()


def opened(url, environment=s3.ENVIRONMENT, **options):
    return open_blobs(read_place(url), environment=environment, **options)


# --- the URL ---


def test_a_url_names_bucket_prefix_and_server():
    expected = Bucket(name="b-1", prefix="a/b/", endpoint="s3.example:9000", secure=False, region="eu-1")
    assert read_place("s3://b-1/a/b/?endpoint=s3.example:9000&secure=false&region=eu-1") == expected
    aws = Bucket(name="b-1", prefix="", endpoint="s3.amazonaws.com", secure=True, region="us-east-1")
    assert read_place("s3://b-1") == aws
    assert read_place("some/folder") == Path("some/folder")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://s3.example/b", r"https:// is not supported; name a folder, or s3://BUCKET"),
        ("s3://", "'' is no name of a bucket"),
        ("s3://No_Bucket", "'No_Bucket' is no name of a bucket"),
        ("s3://bucket?secure=maybe", "secure is neither true"),
        ("s3://bucket?endpoint=http://s3:9000", "endpoint 'http://s3:9000' is no HOST:PORT"),
        ("s3://bucket?endpoint=s3:port", "endpoint 's3:port' is no HOST:PORT"),
        ("s3://bucket?color=red", "'color' is no option of the URL"),
        ("s3://me:hidden@bucket", "a URL holds no credentials"),
        ("s3://bucket?secret_key=hidden", "'secret_key' is no option of the URL.*AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_a_sentence_and_without_its_secrets(url, message):
    with pytest.raises(InvalidInput, match=f"^blobs: .*{message}") as found:
        read_place(url)
    assert "hidden" not in str(found.value)


def test_the_signing_key_needs_a_place_where_neither_database_nor_blobs_is_a_folder():
    with pytest.raises(InvalidInput, match="set key to a file"):
        read_settings(["--database", "postgresql://db/runs", "--blobs", "s3://bucket"], {})
    settings = read_settings(["--database", "postgresql://db/runs", "--blobs", "s3://bucket", "--key", "k"], {})
    assert settings.key == Path("k")
    assert "s3.amazonaws.com" in settings.as_json()


@pytest.mark.parametrize(
    ("flags", "seconds"),
    [
        ([], (86400.0, 604800.0, None)),
        (["--gc-grace", "90m", "--keep-updates", "0", "--keep-states", "1.5d"], (5400.0, 0.0, 129600.0)),
    ],
)
def test_how_long_things_are_kept_is_said_in_seconds_minutes_hours_or_days(flags, seconds):
    found = read_settings(flags, {}).retention
    assert (found.gc_grace_s, found.keep_updates_s, found.keep_states_s) == seconds


@pytest.mark.parametrize("flag", ["gc-grace", "keep-updates", "keep-states"])
@pytest.mark.parametrize("text", ["soon", "-1", "1w", "1e400", "nan"])
def test_a_time_to_keep_that_is_none_is_refused(flag, text):
    with pytest.raises(InvalidInput, match=f"^{flag}: .* write seconds, or such as 90m, 24h, 7d"):
        read_settings([f"--{flag}={text}"], {})


def test_a_grace_that_is_too_short_is_refused():
    with pytest.raises(InvalidInput, match="gc-grace: 9m is less than 600 s"):
        read_settings(["--gc-grace", "9m"], {})


# --- credentials ---


def test_credentials_come_from_the_environment_or_files_and_files_may_change(tmp_path):
    environment = {"AWS_ACCESS_KEY_ID_FILE": str(tmp_path / "id"), "AWS_SECRET_ACCESS_KEY": "one"}
    (tmp_path / "id").write_text("first\n")
    provider = EnvironmentProvider(environment)
    assert (provider.retrieve().access_key, provider.retrieve().secret_key) == ("first", "one")
    (tmp_path / "id").write_text("second\n")
    assert provider.retrieve().access_key == "second"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no credentials for the S3 server; set AWS_ACCESS_KEY_ID, or AWS_ACCESS_KEY_ID_FILE to a path"),
        ({"AWS_ACCESS_KEY_ID": "me"}, "set AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID_FILE": "/nonesuch/id"}, "AWS_ACCESS_KEY_ID_FILE names /nonesuch/id, which cannot be read"),
    ],
)
def test_credentials_that_are_not_there_are_asked_for_by_name(environment, message):
    with pytest.raises(InvalidInput, match=f"^blobs: .*{message}"):
        opened("s3://bucket?endpoint=127.0.0.1:1&secure=false", environment)


# --- what is tried at the start ---


@contextmanager
def rights(server: s3.Server, policy: object | None):
    """A user with these rights alone, while the server checks them; yields the environment with its credentials."""
    keys = {"aws_access_key_id": s3.ACCESS, "aws_secret_access_key": s3.SECRET, "region_name": "us-east-1"}
    iam = boto3.client("iam", endpoint_url=f"http://{server.endpoint}", **keys)
    user = f"user-{next(server.numbers)}"
    iam.create_user(UserName=user)
    if policy is not None:
        iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=json.dumps(policy))
    made = iam.create_access_key(UserName=user)["AccessKey"]

    def check_after(calls: str) -> None:
        url, plain = f"http://{server.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, calls.encode(), plain, method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    check_after("0")
    try:
        yield {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
    finally:
        check_after("inf")
        iam.close()


ALL = ("s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:DeleteObject")


def policy(*actions):
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}],
    }


def test_rights_to_put_get_list_and_delete_are_enough(s3_server, bucket):
    with rights(s3_server, policy(*ALL)) as environment:
        uploads, _ = opened(s3_server.url(bucket), environment)
        uploads.put(name(b"x"), b"x")
        assert uploads.missing([name(b"x"), name(b"y")]) == {name(b"y")}
        assert uploads.get(name(b"x")) == b"x"


@pytest.mark.parametrize(
    ("missing", "what"),
    [
        ("s3:PutObject", "put objects"),
        ("s3:GetObject", "get objects"),
        ("s3:ListBucket", "list objects"),
        ("s3:DeleteObject", "delete objects"),
    ],
)
def test_a_right_that_is_missing_is_named_at_the_start(s3_server, bucket, missing, what):
    with (
        rights(s3_server, policy(*(each for each in ALL if each != missing))) as environment,
        pytest.raises(InvalidInput, match=rf"does not {what} \(AccessDenied: .*\); allow these credentials to put"),
    ):
        opened(s3_server.url(bucket), environment)


def test_wrong_credentials_are_refused_at_the_start_and_not_repeated(s3_server, bucket):
    with rights(s3_server, policy(*ALL)) as environment:
        for wrong in ({"AWS_ACCESS_KEY_ID": "AKIAHIDDEN"}, {"AWS_SECRET_ACCESS_KEY": "hidden"}):
            with pytest.raises(InvalidInput, match=r"check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as found:
                opened(s3_server.url(bucket), environment | wrong)
            assert "hidden" not in str(found.value).lower()


def start(tmp_path, blobs, environment=s3.ENVIRONMENT):
    """The aggregator's process over these blobs: how it ends, and its last words."""
    places = ["--database", f"sqlite:///{tmp_path / 'a.db'}", "--blobs", str(blobs)]
    ports = ["--listen", "127.0.0.1:0", "--health", "127.0.0.1:0"]
    found = subprocess.run(
        [sys.executable, "-m", "services.aggregator", *places, *ports],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in found.stderr
    assert s3.SECRET not in found.stdout + found.stderr
    return found.returncode, found.stderr.strip().splitlines()[-1]


def test_a_bucket_that_is_not_there_ends_the_start_with_a_sentence(tmp_path, s3_server):
    code, said = start(tmp_path, s3_server.url("nonesuch"))
    assert (code, said.startswith(f"error: blobs: s3://nonesuch/ at {s3_server.endpoint}: ")) == (2, True)
    assert "NoSuchBucket" in said
    assert said.endswith("; create the bucket, or name another")


def test_a_server_that_does_not_answer_ends_the_start_with_a_sentence(tmp_path):
    code, said = start(tmp_path, "s3://bucket?endpoint=127.0.0.1:1&secure=false")
    assert (code, said.startswith("error: blobs: s3://bucket/ at 127.0.0.1:1: the S3 server does not put")) == (2, True)
    assert said.endswith("; check endpoint and secure, and that the server runs and can be reached")


def test_plain_http_that_was_taken_for_https_is_refused_at_the_start(s3_server, bucket):
    with pytest.raises(InvalidInput, match="check endpoint and secure"):
        opened(s3_server.url(bucket).replace("secure=false", "secure=true"))


def test_a_folder_that_cannot_be_written_to_ends_the_start_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    code, said = start(tmp_path, tmp_path / "file")
    assert (code, "cannot be written to (" in said) == (2, True)
    assert said.endswith("; name a folder that this user may write to")


# --- objects ---


def test_what_is_large_goes_in_parts(s3_server, bucket):
    uploads, published = opened(s3_server.url(bucket, "all"))
    small, large = b"s" * 1000, b"l" * (2 * PART_BYTES + 1)
    for each in (small, large):
        published.put(name(each), each)
    tags = [
        s3_server.client.stat_object(bucket, f"all/published/{name(each)[:2]}/{name(each)}").etag
        for each in (small, large)
    ]
    assert "-" not in tags[0]
    assert tags[1].endswith("-3")
    assert published.get(name(large)) == large
    assert uploads.missing([name(large)]) == {name(large)}


def test_what_is_asked_for_late_in_its_grace_becomes_new(s3_server, bucket):
    uploads, _ = opened(s3_server.url(bucket), grace_s=0.0)
    uploads.put(name(b"x"), b"x")
    (first,) = uploads.kept()
    end = time.monotonic() + 30
    while next(iter(uploads.kept())).at <= first.at:
        assert uploads.missing([name(b"x")]) == frozenset()
        assert time.monotonic() < end
        threading.Event().wait(0.2)
    assert uploads.get(name(b"x")) == b"x"


# --- a server that does not answer ---


@pytest.fixture
def link(s3_server):
    with CutLink(s3_server.port) as link:
        yield link


def behind(link, s3_server, bucket, backoff=QUICK):
    """Blobs of which every byte goes through the link."""
    place = read_place(s3_server.url(bucket, endpoint=link.address))
    return S3Blobs(connect(place, EnvironmentProvider(s3.ENVIRONMENT)), bucket, "", backoff=backoff)


def test_a_short_refusal_is_waited_for_within_the_call(link, s3_server, bucket):
    blobs = behind(link, s3_server, bucket, Backoff(first_s=0.05, last_s=0.2, patience_s=30))
    blobs.put(name(b"x"), b"x")
    link.cut()
    threading.Timer(0.5, link.restore).start()
    assert blobs.get(name(b"x")) == b"x"


def test_an_answer_that_breaks_off_is_asked_for_again(link, s3_server, bucket):
    blobs = behind(link, s3_server, bucket, Backoff(first_s=0.05, last_s=0.2, patience_s=30))
    data = b"x" * 1_000_000
    link.cut_at(300_000)  # in the middle of the body that goes up
    threading.Thread(target=lambda: (link.await_cut(), link.restore())).start()
    blobs.put(name(data), data)
    assert blobs.get(name(data)) == data


def test_a_long_refusal_is_unreachable_for_every_call_and_ends_with_it(link, s3_server, bucket):
    blobs, sha = behind(link, s3_server, bucket), name(b"x")
    blobs.put(sha, b"x")
    link.cut()
    for call in (
        lambda: blobs.put(sha, b"x"),
        lambda: blobs.get(sha),
        lambda: blobs.has(sha),
        lambda: blobs.missing([sha, name(b"y")]),
        lambda: blobs.drop(sha, time.time() + 9),
        lambda: list(blobs.kept()),
    ):
        with pytest.raises(Unreachable, match="the S3 server does not"):
            call()
    link.restore()
    assert blobs.get(sha) == b"x"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_and_in_the_end_is_unreachable(status):
    asked = []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            busy = len(asked) < 3 or "gone" in self.path
            body = b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>" if busy else b"x"
            self.send_response(status if busy else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        place = read_place(f"s3://bucket?endpoint=127.0.0.1:{server.server_port}&secure=false")
        blobs = S3Blobs(connect(place, EnvironmentProvider(s3.ENVIRONMENT)), "bucket", "", backoff=QUICK)
        assert blobs.get(name(b"x")) == b"x"
        assert len(asked) == 3
        with pytest.raises(Unreachable, match="SlowDown"):
            blobs.get("gone")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


# --- a run ---


def work(site):
    with suppress(RunEnded):
        while True:
            site.step()


@pytest.fixture
def edges():
    """What to do at which edge of the state machine."""
    return {}


@pytest.fixture
def over_link(tmp_path, clock, link, s3_server, edges):
    """A served aggregator whose blobs are behind the link; a call of them gives up after half a second."""
    first = open_aggregator(tmp_path, clock)
    uploads, published = (behind(link, s3_server, s3_server.bucket()) for _ in range(2))
    engine, close = first.desk.store._engine, first.desk.store.close
    store = Store(Database(engine=engine, close=close), on_edge=lambda edge: edges.get(edge, lambda: None)())
    aggregator = assemble_aggregator(replace(first.desk, store=store, uploads=uploads, published=published))
    with served(aggregator) as server:
        yield server
    store.close()


def undisturbed(folder, *names):
    """The digest of the model when nothing goes wrong."""
    aggregator = open_aggregator(folder, Clock())
    run = aggregator.runs.start(run_spec(*names, rounds=1), "once")
    sites = [TeachingSite(each, LocalLink(aggregator, each, run), adapter(seed)) for seed, each in enumerate(names)]
    with suppress(RunEnded):
        while True:
            for site in sites:
                site.step()
            aggregator.coordinator.close_due()
    aggregator.desk.store.close()
    return aggregator.runs.get(run).model.digest


def said(capsys, words, times=1):
    """Waits until the log has said it so often; answers the log so far."""
    found, end = "", time.monotonic() + 30
    while found.count(words) < times:
        assert time.monotonic() < end, found
        threading.Event().wait(0.05)
        found += capsys.readouterr().out
    return found


def test_a_server_that_refuses_while_a_phase_is_computed_holds_the_run_up_and_does_not_end_it(
    tmp_path, over_link, link, edges, capsys
):
    edges["phase_aggregating:after_commit"] = link.cut
    run = over_link.runs.start(run_spec("north", "south", rounds=1), "once")
    names = ("north", "south")
    sites = [TeachingSite(each, over_link.site(each, run), adapter(seed)) for seed, each in enumerate(names)]
    for site in sites:
        assert site.step()
    assert said(capsys, "aggregation waits for tensors", 2).count("Traceback") == 0
    assert over_link.runs.get(run).state == "RUNNING"
    edges.clear()
    link.restore()
    threads = [threading.Thread(target=work, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    assert [event.kind for event in over_link.runs.watch(run)][-1] == "run_finished"
    for thread in threads:
        thread.join(30)
    (tmp_path / "other").mkdir()
    assert over_link.runs.get(run).model.digest == undisturbed(tmp_path / "other", *names)


@pytest.mark.parametrize("passed", [1, 1500, 4000])
def test_a_server_that_breaks_off_in_an_upload_is_gone_for_a_while_and_nothing_is_lost(over_link, link, passed):
    run = over_link.runs.start(run_spec("north", rounds=1, strategy="fedavg"), "once")
    north = TeachingSite("north", over_link.site("north", run), adapter(1))
    assignment = north.link.next_task()
    update = north.update(assignment)
    link.cut_at(link.up + passed)
    sending = threading.Thread(target=north.link.send, args=(assignment, update))
    sending.start()
    link.await_cut()
    threading.Timer(1.0, link.restore).start()
    sending.join(30)
    assert not sending.is_alive()
    assert [event.kind for event in over_link.runs.watch(run)][-1] == "run_finished"


def test_a_server_that_hangs_keeps_nobody_else_waiting(over_link, link):
    run = over_link.runs.start(run_spec("north", "south", rounds=1), "once")
    north = TeachingSite("north", over_link.site("north", run), adapter(1))
    assignment = north.link.next_task()
    update = north.update(assignment)
    link.stall()
    sending = threading.Thread(target=north.link.send, args=(assignment, update))
    sending.start()
    key = Key(run=run, incarnation=1, round=0, phase=0)
    end = time.monotonic() + 30
    while not over_link.aggregator.intake.expected("north"):  # its BeginUpload is at the stalled server now
        assert time.monotonic() < end
        threading.Event().wait(0.02)
    with connect_wire(over_link.ports.listening, role="site", site="south") as channel:
        reply = unary(FederationStub(channel).Heartbeat, pb.HeartbeatRequest(key=codec.encode_key(key)), 5)
    assert reply.open
    assert over_link.runs.get(run).state == "RUNNING"
    assert sending.is_alive()
    link.restore()
    sending.join(30)
    assert not sending.is_alive()
    assert over_link.aggregator.intake.status("north", key).sealed


def test_a_run_that_waits_for_its_tensors_can_be_aborted(over_link, link, edges, capsys):
    edges["phase_aggregating:after_commit"] = link.cut
    run = over_link.runs.start(run_spec("north", rounds=1), "once")
    assert TeachingSite("north", over_link.site("north", run), adapter(1)).step()
    said(capsys, "aggregation waits for tensors")
    assert over_link.runs.abort(run, "enough").state == "ABORTED"
    link.restore()
    assert [event.kind for event in over_link.runs.watch(run)][-1] == "run_aborted"


def test_a_site_that_cannot_be_given_its_start_asks_until_it_can(over_link, link, capsys):
    run = over_link.runs.start(run_spec("north", rounds=1), "once")
    north = TeachingSite("north", over_link.site("north", run), adapter(1))
    link.cut()
    stepping = threading.Thread(target=north.step)
    stepping.start()
    assert "Unreachable" in said(capsys, "GetChunks")
    link.restore()
    stepping.join(30)
    assert not stepping.is_alive()
    key = Key(run=run, incarnation=1, round=0, phase=0)
    assert over_link.aggregator.intake.status("north", key).sealed


def test_a_collection_that_breaks_off_is_done_later(over_link, link, capsys):
    aggregator = over_link.aggregator
    aggregator.desk.uploads.put(name(b"x"), b"x")
    later = replace(aggregator.desk, clock=lambda: time.time() + 2 * 24 * 3600)
    link.cut()

    async def until_gone() -> None:
        task = asyncio.create_task(collecting(Collector(later, KEEP), first_s=0.0, period_s=0.05))
        await asyncio.to_thread(said, capsys, "collection broke off")
        link.restore()
        async with asyncio.timeout(30):
            while await asyncio.to_thread(aggregator.desk.uploads.has, name(b"x")):
                await asyncio.sleep(0.05)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(until_gone())


def test_a_model_that_is_out_of_reach_is_told_later_and_not_lost(tmp_path, clock, capsys):
    class Reads:
        """Tracking that needs the blobs, which are away for its first calls."""

        def __init__(self) -> None:
            self.calls = 0

        def record(self, event):
            self.calls += 1
            if self.calls == 1:
                raise Unreachable("the S3 server does not get objects (SlowDown)")
            return Registered(name="model", version="1") if event.kind == "phase_published" else None

    aggregator = open_aggregator(tmp_path, clock)
    run = aggregator.runs.start(run_spec("north", rounds=1, strategy="fedavg"), "once")
    recorder = Recorder(aggregator.desk.store, tracking := Reads(), clock, pauses_s=())
    recorder.drain()
    assert tracking.calls == 2
    kinds = [event.kind for event in aggregator.runs.events(run, 0)]
    assert "tracking_failed" not in kinds
    aggregator.desk.store.close()


def test_a_process_over_a_bucket_runs_a_run_and_its_log_has_no_secrets(tmp_path, s3_server, bucket):
    places = ["--database", f"sqlite:///{tmp_path / 'a.db'}", "--blobs", s3_server.url(bucket, "here")]
    ports = ["--listen", "127.0.0.1:0", "--health", "127.0.0.1:0", "--while-stdin"]
    process = subprocess.Popen(
        [sys.executable, "-m", "services.aggregator", *places, *ports],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **s3.ENVIRONMENT},
    )
    with process:
        listening = json.loads(process.stdout.readline())["listening"]
        with RunsClient.connect(listening) as runs, connect_wire(listening, role="site", site="north") as channel:
            run = runs.start(run_spec("north", rounds=1), "once")
            work(TeachingSite("north", SiteClient(channel, run=run), adapter(1)))
            assert [event.kind for event in runs.watch(run)][-1] == "run_finished"
            assert sorted(runs.model(run)) == sorted(adapter(1))
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert s3.SECRET not in log
    assert s3_server.endpoint in log
    kinds = {each.object_name.split("/")[1] for each in s3_server.client.list_objects(bucket, recursive=True)}
    assert kinds == {"uploads", "published"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
