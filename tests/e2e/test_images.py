"""The four images, as a cluster's restricted pods run them: self-tests, what is in them, health, what they refuse.

They stand on a look-alike of their base (tests/look_alike.py).
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deerfield import __version__
from tests.images import CONFINED, NAMES, Images
from tests.integration.federation import wait_for

MODULES = {name: "pipelines" if name == "pipelines" else f"services.{name}" for name in NAMES}
MOST_MB = 550  # of the aggregator, over the base
BILL = "/opt/deerfield/share/sbom.cdx.json"
ACCOUNT = {"DEERFIELD_TRACKING_USERNAME": "ada", "DEERFIELD_TRACKING_PASSWORD": "long enough a word"}
NO_TLS = dict.fromkeys((f"DEERFIELD_TLS_{each}" for each in ("CERTIFICATE", "KEY", "CA")), "")
LOOPBACK = NO_TLS | {"DEERFIELD_LISTEN": "127.0.0.1:8600"}
IN_TMP = {  # in the place of volumes
    "DEERFIELD_DATABASE": "sqlite:////tmp/aggregator.db",
    "DEERFIELD_BLOBS": "/tmp/blobs",
    "DEERFIELD_TRACKING_DATABASE": "sqlite:////tmp/mlflow.db",
    "DEERFIELD_TRACKING_ARTIFACTS": "/tmp/artifacts",
}
RUN_S = 300.0


def run(images: Images, name: str, *arguments: str, entrypoint: str = "", **environment: str):
    """What a container of an image says, from its start to its end, and its exit code."""
    told = [f"--env={each}={value}" for each, value in environment.items()]
    other = [f"--entrypoint={entrypoint}"] if entrypoint else []
    argv = ["podman", "run", "--rm", "--no-healthcheck", *CONFINED, *told, *other, images.built(name), *arguments]
    here = os.environ | images.engine.environment
    return subprocess.run(argv, env=here, capture_output=True, text=True, timeout=RUN_S, check=False)


@contextmanager
def running(images: Images, name: str, *arguments: str, entrypoint: str = "", **environment: str) -> Iterator[str]:
    """A container that is gone after the block; answers its id."""
    told = [f"--env={each}={value}" for each, value in environment.items()]
    other = [f"--entrypoint={entrypoint}"] if entrypoint else []
    podman = images.engine.podman
    container = podman("run", "--detach", *CONFINED, *told, *other, images.built(name), *arguments).strip()
    try:
        yield container
    finally:
        podman("rm", "--force", "--time", "0", container)


def well(images: Images, container: str) -> bool:
    """Whether the image's health command says so; fails with the log where the container has ended by itself."""
    podman = images.engine.podman
    ended = podman("inspect", "--format={{.State.ExitCode}} {{.State.Running}}", container).split()
    assert ended[1] == "true" or ended[0] == "0", podman("logs", container)
    here = os.environ | images.engine.environment
    argv = ["podman", "healthcheck", "run", container]
    return subprocess.run(argv, env=here, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_its_self_test_passes_for_nobody_special_under_a_root_that_is_read_only(images, name):
    done = run(images, name, "-m", f"{MODULES[name]}.selftest", entrypoint="python")
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    first, *lines = done.stdout.splitlines()
    assert first.startswith(f"deerfield-{name} {__version__}, Python 3.11.")
    assert {"ok: user 10001", "ok: the root is read-only", "ok: no compiler"} <= set(lines)
    assert all(line.startswith("ok: ") for line in lines)


def test_a_self_test_fails_where_the_container_is_not_confined(images):
    image, selftest = images.built("aggregator"), ["-m", "services.aggregator.selftest"]
    here = os.environ | images.engine.environment
    for more, sentence in ((["--user=0"], "error: the container runs as root"), ([], "error: / can be written to")):
        argv = ["podman", "run", "--rm", "--no-healthcheck", "--entrypoint=python", *more, image, *selftest]
        done = subprocess.run(argv, env=here, capture_output=True, text=True, timeout=RUN_S, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(sentence)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is_and_of_what_it_is_made(images, name):
    [told] = json.loads(images.engine.podman("image", "inspect", images.built(name)))
    labels = {each.removeprefix("org.opencontainers.image."): text for each, text in told["Labels"].items()}
    assert labels["title"] == f"deerfield-{name}"
    assert (labels["version"], labels["licenses"]) == (__version__, "Apache-2.0")
    assert labels["base.name"] == images.base
    assert len(labels["revision"]) in (0, 40)  # none outside a repository
    assert told["User"] == "10001:10001"
    assert "MALLOC_ARENA_MAX=2" in told["Config"]["Env"]

    bill = json.loads(run(images, name, BILL, entrypoint="cat").stdout)
    assert bill["bomFormat"] == "CycloneDX"
    versions = {each["name"].lower(): each["version"] for each in bill["components"]}
    assert versions["deerfield"] == __version__
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    assert {f"{each}=={versions[each]}" for each in ("numpy", "grpcio", "pydantic")} <= set(constraints)
    assert versions.get("torch") == ("2.13.0+cpu" if name in ("client", "pipelines") else None)


def test_the_aggregator_has_no_torch_and_at_most_550_mb_over_its_base(images):
    over = images.over_base("aggregator") / 1e6
    print(f"deerfield-aggregator: {over:.0f} MB over the base")
    assert over <= MOST_MB
    done = run(images, "aggregator", "-c", "import torch", entrypoint="python")
    assert "No module named 'torch'" in done.stderr


@pytest.mark.parametrize("name", ["client", "pipelines"])
def test_the_files_of_a_trial_are_in_it(images, name):
    listed = run(images, name, "/opt/deerfield/share/trial", entrypoint="ls").stdout.split()
    assert {"model", "notes.csv", "policy.yaml", "run.yaml"} <= set(listed)


@pytest.mark.parametrize(("name", "told"), [("aggregator", LOOPBACK), ("tracking", ACCOUNT)])
def test_a_service_is_well_once_it_serves_and_ends_when_it_is_told_to(images, name, told):
    with running(images, name, **told, **IN_TMP) as container:
        wait_for(lambda: well(images, container), RUN_S)
        images.engine.podman("stop", "--time", "60", container)
        assert images.engine.podman("inspect", "--format={{.State.ExitCode}}", container).strip() == "0"
        assert not well(images, container)


def test_a_site_is_well_while_its_file_is_there(images):
    with running(images, "client", "300", entrypoint="sleep") as container:
        assert not well(images, container)
        images.engine.podman("exec", container, "touch", "/tmp/ready")
        assert well(images, container)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("aggregator", "error: /etc/deerfield/tls/tls.crt cannot be read"),
        ("tracking", "error: DEERFIELD_TRACKING_USERNAME is not set"),
    ],
)
def test_with_nothing_mounted_it_says_in_one_sentence_what_is_missing(images, name, sentence):
    done = run(images, name)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in done.stderr
