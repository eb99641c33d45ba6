"""Pipelines, versions and experiments by name: found in an installation, or made there, by whoever comes first."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from deerfield.errors import InvalidInput
from pipelines.compiled.package import Package
from pipelines.kubeflow.kfp_link import Client, called, every
from pipelines.kubeflow.kfp_transport import AlreadyThere, NotThere
from pipelines.kubeflow.recurring import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """A pipeline's version in an installation."""

    pipeline_id: str
    version_id: str
    change: Change


def upload(client: Client, package: Package) -> Uploaded:
    """The version of a compiled pipeline; uploaded where the installation has none with the same bytes.

    Of two who upload at once, one is told that it is there already, and takes the other's.
    """
    found = _pipeline(client, package.name)
    pipeline = found or _create_pipeline(client, package.name)
    version = _version(client, pipeline, package.version)
    if version is not None:
        return Uploaded(pipeline_id=pipeline, version_id=version, change="unchanged")
    with suppress(AlreadyThere):
        client.pipeline_uploads.upload_pipeline_version(str(package.path), name=package.version, pipelineid=pipeline)
    version = _version(client, pipeline, package.version)
    if version is None:
        raise NotThere(f"version {package.version} of pipeline {package.name!r} was deleted as soon as it was uploaded")
    return Uploaded(pipeline_id=pipeline, version_id=version, change="updated" if found else "created")


def _pipeline(client: Client, name: str) -> str | None:
    namespace = client.get_user_namespace() or None
    found = every(client.list_pipelines, "pipelines", filter=called(name), namespace=namespace)
    return next((each.pipeline_id for each in found), None)


def _create_pipeline(client: Client, name: str) -> str:
    asked = kfp_server_api.V2beta1Pipeline(
        name=name, display_name=name, namespace=client.get_user_namespace() or None, description="made by deerfield"
    )
    with suppress(AlreadyThere):  # kfp's own upload_pipeline would add a version that is called like the pipeline
        client.pipelines.pipeline_service_create_pipeline(asked)
    made = _pipeline(client, name)
    if made is None:
        raise NotThere(f"pipeline {name!r} was deleted as soon as it was made")
    return made


def _version(client: Client, pipeline: str, name: str) -> str | None:
    found = every(client.list_pipeline_versions, "pipeline_versions", pipeline_id=pipeline, filter=called(name))
    return next((each.pipeline_version_id for each in found), None)


def experiment(client: Client, name: str) -> str:
    """The id of an experiment, made where there is none; raises InvalidInput for one that is archived."""
    found = _experiment(client, name)
    if found is None:
        asked = kfp_server_api.V2beta1Experiment(display_name=name, namespace=client.get_user_namespace() or None)
        with suppress(AlreadyThere):
            client.experiments.experiment_service_create_experiment(asked)
        found = _experiment(client, name)
    if found is None:
        raise NotThere(f"experiment {name!r} was deleted as soon as it was made")
    if found.storage_state == "ARCHIVED":
        raise InvalidInput(f"experiment {name!r} is archived and takes no runs; restore it, or name another")
    return str(found.experiment_id)


def _experiment(client: Client, name: str) -> Any:
    namespace = client.get_user_namespace() or None
    return next(every(client.list_experiments, "experiments", filter=called(name), namespace=namespace), None)
