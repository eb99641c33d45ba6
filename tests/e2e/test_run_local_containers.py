"""`deerfield pipelines run-local --runner docker`: each task a container of the image that `make images` builds.

The image stands on a look-alike of its base (tests/images.py), and the engine is podman. Whoever runs the command
is no root, as on a cluster; the sites, the aggregator and MLflow are on this machine's loopback.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deerfield import __version__
from pipelines.registry.reader import open_registry
from tests import podman
from tests.images import Images
from tests.integration.federation import assert_none_left, command, environment, wait_for
from tests.integration.local_pipeline import LIMIT_S, run_file
from tests.unit.client import tiny

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # SQLAlchemy 2.1
USER = 10001
# reads what root alone may read, such as Python in root's home, and writes nothing that is another's
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
AS_USER += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
TASKS = ["partition", "rounds", "register", "evaluate", "gate", "promote", "report"]
RULES = {"minimum": 0.3, "bound": "value", "privacy": "none_allowed", "test_set": {"minimum": 20}}
LOOK = """
import os, shutil, sys
import kfp.dsl.executor_main, matplotlib.pyplot, mlflow, torch, pipelines.compiled.components
print(os.getuid(), *(each for each in ("cc", "gcc", "ld", "make") if shutil.which(each)))
"""


@pytest.fixture(scope="module", autouse=True)
def none_left(engine: podman.Engine) -> Iterator[None]:
    """Whoever runs the command finds the engine; no test leaves a container."""
    os.chown(engine.socket, USER, USER)
    yield
    assert not engine.left()


@pytest.fixture(scope="module")
def image(images: Images) -> str:
    return images.built("pipelines")


@pytest.fixture
def folder() -> Iterator[Path]:
    """The user's; what pytest makes is for root alone."""
    with tempfile.TemporaryDirectory(prefix="deerfield-containers-") as name:
        yield Path(name)


def given(folder: Path, **changes: Any) -> Path:
    """A run without noise, and so the same whenever it runs, in a folder of the user's."""
    path = run_file(folder, **{"privacy": {"unit": "none"}, **changes})
    (folder / "gate.yaml").write_text(yaml.safe_dump(RULES))
    for each in (folder, *folder.rglob("*")):
        os.chown(each, USER, USER)
    return path


def argv(path: Path, out: str, *options: str) -> list[str]:
    folder = path.parent
    asked = ["--rules", folder / "gate.yaml", "--out", folder / out, *options]
    return [*AS_USER, *command("pipelines", "run-local", path, *asked)]


def ran(engine: podman.Engine, path: Path, out: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, and sees that neither a process nor a container is left."""
    here, began = environment() | engine.environment | {"HOME": str(path.parent)}, time.monotonic()
    asked = argv(path, out, *options)
    done = subprocess.run(asked, env=here, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert_none_left(here)
    assert not engine.left()
    print(f"{out}: {time.monotonic() - began:.0f} s", done.stdout, done.stderr, sep="\n")
    return done


def told(out: Path) -> dict[str, Any]:
    """What a run's folder says that is the same in every folder."""
    manifest, evaluation, verdict = (
        json.loads((out / f"{name}.json").read_text().replace(str(out), "OUT"))
        for name in ("manifest", "evaluation", "verdict")
    )
    champion = open_registry(f"sqlite:///{out / 'mlflow.db'}").champion("small")
    assert champion is not None
    return {
        "files": sorted(each.name for each in out.iterdir()),
        "tasks": sorted(f"{each.parent.name}/{each.name}" for each in out.glob("kfp/federated-training-*/*/*")),
        "manifest": manifest,
        "evaluation": evaluation["models"],
        "rules": [(row["rule"], row["passed"], row["value"]) for row in verdict["rules"]],
        "champion": (champion.version, champion.digest, champion.tags["deerfield.verdict"]),
    }


def test_containers_give_what_processes_give(engine, image, folder):
    path, began = given(folder), time.time()
    done = ran(engine, path, "docker", "--runner", "docker", "--image", image)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.isalpha()] == TASKS
    assert engine.ended(folder / "docker", began) == ["0"] * len(TASKS)

    found = told(folder / "docker")
    assert found["champion"][::2] == ("1", "passed")
    written = [*folder.glob("docker/kfp/federated-training-*/*/*"), *folder.glob("docker/parts/*")]
    assert {each.stat().st_uid for each in written} == {USER}
    done = ran(engine, path, "subprocess")
    assert done.returncode == 0, done.stdout + done.stderr
    assert told(folder / "subprocess") == found


def test_what_a_container_refuses_is_one_sentence_and_exit_code_2(engine, image, folder):
    """Though the container is gone when the command says it."""
    done = ran(engine, given(folder, labels=[*tiny.LABELS, "gout"]), "out", "--runner", "docker")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: partition: labels: 'gout' occurs in none of the 180 rows")
    assert (folder / "out/report.html").exists()


def test_a_command_that_is_killed_leaves_no_container(engine, image, folder):
    here = environment() | engine.environment | {"HOME": str(folder)}
    asked = argv(given(folder), "out", "--runner", "docker")
    with subprocess.Popen(asked, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert any("phase published" in line for line in process.stdout)
        assert engine.left()
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert_none_left(here)
    wait_for(lambda: not engine.left())


def test_the_image_has_what_the_steps_need_and_runs_as_nobody_special(engine, image):
    version = '{{index .Labels "org.opencontainers.image.version"}}'
    assert engine.podman("image", "inspect", f"--format={version}", image).strip() == __version__
    confined = ["run", "--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--network=none", image]
    assert engine.podman(*confined, "python3", "-c", LOOK) == f"{USER}\n"
    assert "run-local" in engine.podman(*confined, "deerfield", "pipelines", "--help")
