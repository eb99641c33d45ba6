"""A container engine for the tasks of a pipeline, Docker or Podman, and what their containers see of this machine."""

import importlib.util
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deerfield.errors import InvalidInput, Unreachable
from deerfield.runfile import RunFile

LABEL = "deerfield.run"  # of every container: the folder of its run
PACKAGES = "/packages"  # where a container has the package that carries the base model
PATIENCE_S = 10  # for one answer of the engine; less than the command waits for its worker
SQLITE = "sqlite:///"
STARTING = threading.Lock()  # while it is held no container starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The image of a run's containers, and folders and files of this machine, by where they have them."""

    image: str  # its digest
    folder: str  # of the run
    written: Mapping[str, str]
    read: Mapping[str, str]


def shown(image: str, file: RunFile, folder: Path, tracking: str) -> Shown:
    """What the tasks of a run need: its folder, a registry that is a file, the data and the base model."""
    registry = [Path(tracking.removeprefix(SQLITE)).parent] if tracking.startswith(SQLITE) else []
    source, base = file.embedded.source, file.embedded.base or file.model.base
    named = [Path(each) for each in (source.path, source.rows, base) if each]
    read = {str(each): str(each) for each in named if each.is_absolute() and each.exists()}
    package = base.removeprefix("package:")
    if package != base and (found := importlib.util.find_spec(package)) and found.submodule_search_locations:
        read[f"{PACKAGES}/{package}"] = found.submodule_search_locations[0]
    written = {str(each): str(each) for each in (folder, *registry)}
    return Shown(image=image, folder=str(folder), written=written, read=read)


def image_id(image: str) -> str:
    """The digest of an image that the engine has, so that every task runs in the same one.

    Raises:
        Unreachable: no container engine answers.
        InvalidInput: there is no such image.
    """
    import docker

    with _engine() as client:
        try:
            return str(client.images.get(image).id)
        except docker.errors.ImageNotFound:
            raise InvalidInput(
                f"--image {image}: the container engine has no such image; build it by make images, or pull it"
            ) from None


def user() -> str:
    """As whom a container writes files that are ours: as us, or as its root, who is us under a rootless engine."""
    with _engine() as client:
        rootless = "name=rootless" in client.info().get("SecurityOptions", [])
    return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"


def end(folder: str) -> None:
    """Ends the containers of the run in `folder`; this process starts none after them."""
    import docker

    STARTING.acquire(timeout=PATIENCE_S)
    with _engine() as client:
        for container in client.containers.list(all=True, filters={"label": f"{LABEL}={folder}"}):
            with suppress(docker.errors.APIError):  # whoever waited for it is removing it
                container.remove(force=True)


@contextmanager
def _engine() -> Iterator[Any]:
    import docker

    client = None
    try:
        client = docker.from_env(timeout=PATIENCE_S)
        yield client
    except (docker.errors.DockerException, OSError) as error:  # its answers come over HTTP, or do not come
        where = os.environ.get("DOCKER_HOST", "Docker's own socket")
        raise Unreachable(
            f"no container engine answers at {where} ({error}); start Docker, or podman system service, and name its "
            "socket in DOCKER_HOST"
        ) from error
    finally:
        if client is not None:
            client.close()
