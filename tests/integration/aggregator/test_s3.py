"""Blobs in a bucket of a real S3 server: how they are named, what is refused, and a server that does not answer."""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import boto3
import pytest

from deerfield.errors import InvalidInput, RunEnded
from deerfield.wire.channel import connect as connect_wire
from deerfield.wire.client import RunsClient, SiteClient
from services.aggregator.blobstore.bucket import open_blobs, open_marks, read_place
from services.aggregator.blobstore.s3_blobs import PART_BYTES
from services.aggregator.settings import read_settings
from services.client.sources import store
from services.objects import Bucket, EnvironmentProvider
from tests import s3
from tests.fakes import TeachingSite, adapter, run_spec


def name(data: bytes) -> str:
    return sha256(data).hexdigest()


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


def test_rights_to_a_part_of_the_prefix_are_not_enough_to_say_whose_blobs_they_are(s3_server, bucket):
    parts = [f"arn:aws:s3:::{bucket}/{part}/*" for part in ("uploads", "published")]
    allowed = [
        {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": "*"},
        {"Effect": "Allow", "Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"], "Resource": parts},
    ]
    place = read_place(s3_server.url(bucket))
    with rights(s3_server, {"Version": "2012-10-17", "Statement": allowed}) as environment:
        open_blobs(place, environment=environment)
        with pytest.raises(InvalidInput, match=r"does not put objects \(AccessDenied: .*\); allow these credentials"):
            open_marks(place, environment)


def test_wrong_credentials_are_refused_at_the_start_and_not_repeated(s3_server, bucket):
    with rights(s3_server, policy(*ALL)) as environment:
        for wrong in ({"AWS_ACCESS_KEY_ID": "AKIAHIDDEN"}, {"AWS_SECRET_ACCESS_KEY": "hidden"}):
            with pytest.raises(InvalidInput, match=r"check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as found:
                opened(s3_server.url(bucket), environment | wrong)
            assert "hidden" not in str(found.value).lower()


def test_a_sites_data_are_asked_for_at_its_start_and_wrong_credentials_named(s3_server, bucket, tmp_path):
    data = store.open_store(s3_server.url(bucket), s3.ENVIRONMENT).keep("north.csv", b"text,label")
    with rights(s3_server, policy(*ALL)) as environment:
        store.check(data, environment)
        store.check(str(tmp_path / "none.csv"), environment)  # a file is looked at when it is read
        for wrong in ({"AWS_ACCESS_KEY_ID": "AKIAHIDDEN"}, {"AWS_SECRET_ACCESS_KEY": "hidden"}):
            with pytest.raises(InvalidInput, match=r"^source: s3://.*check AWS_ACCESS_KEY_ID and") as found:
                store.check(data, environment | wrong)
            assert "hidden" not in str(found.value).lower()
        with pytest.raises(InvalidInput, match=r"holds no object 'south\.csv'; name one that is there"):
            store.check(data.replace("north", "south"), environment)


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


# --- a run ---


def work(site):
    with suppress(RunEnded):
        while True:
            site.step()


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
    assert kinds == {"uploads", "published", "owner"}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
