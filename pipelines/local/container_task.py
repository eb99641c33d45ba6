"""A task in a container, by kfp.local's DockerRunner: the network of this machine, a read-only root, no capability."""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import docker
from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler

from pipelines.local.containers import LABEL, PACKAGES, STARTING, Shown, user

PASSED = ("AWS_", "DEERFIELD_", "HF_ENDPOINT", "HF_TOKEN", "MLFLOW_", "OMP_NUM_THREADS", "PYTHONWARNINGS")


def runner(shown: Shown) -> Any:
    """The DockerRunner for the tasks of a run. Raises Unreachable where no engine answers."""
    docker_task_handler.run_docker_container = partial(_run, shown.image)
    return local.DockerRunner(
        network_mode="host",
        user=user(),
        read_only=True,
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        labels={LABEL: shown.folder},
        mounts=[*_mounts(shown.written, read_only=False), *_mounts(shown.read, read_only=True)],
        environment={name: value for name, value in os.environ.items() if name.startswith(PASSED)}
        | {"PYTHONPATH": PACKAGES},
    )


def _mounts(paths: Mapping[str, str], *, read_only: bool) -> list[Mount]:
    return [Mount(inside, here, type="bind", read_only=read_only) for inside, here in paths.items()]


def _run(digest: str, client: Any, image: str, command: list[str], volumes: Mapping[str, Any], **arguments: Any) -> int:
    """The exit code of a task's container, in the place of KFP's own function.

    That takes a container that is gone already for a success, and `image` is the name of the pipeline's parameter:
    kfp.local fills it in in commands alone.
    """
    try:
        with STARTING:
            container = client.containers.run(digest, command, volumes=volumes, detach=True, **arguments)
    except docker.errors.APIError as error:
        print(f"error: the container engine could not start the task: {error.explanation}")
        return 1
    try:
        for line in _lines(container.logs(stream=True)):
            print(line)
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def _lines(parts: Iterable[bytes]) -> Iterator[str]:
    """Whole lines: kfp.local indents whatever is printed at once."""
    begun = b""
    for part in parts:
        *lines, begun = (begun + part).split(b"\n")
        yield from (line.decode("utf-8", errors="replace") for line in lines)
    if begun:
        yield begun.decode("utf-8", errors="replace")
