"""What the charts write, the programs read: variables, and the files of ConfigMaps, by the programs' own readers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from services.telemetry.ending import VARIABLE
from tests.charts import programs, rendering
from tests.charts.pods import Pod, containers, of_kind, pods, ports
from tests.charts.rendering import ROOT, Render

PASSWORD = "twelve-letters-and-more"  # of Secrets, which are not here
MATRIX = rendering.matrix()


def cells(chart: str, module: str, verb: str = "") -> pytest.MarkDecorator:
    """The values files of a chart with which it starts a program of ours, by module and subcommand."""
    found = [cell for cell in MATRIX if cell[0].startswith(chart) and starts(rendering.of(*cell), module, verb)]
    return pytest.mark.parametrize(
        "cell", found, ids=lambda cell: f"{cell[0]}-{cell[1].stem if cell[1] else 'defaults'}"
    )


def starts(render: Render, module: str, verb: str) -> list[tuple[Pod, Mapping]]:
    """The containers of a release that start that program."""
    return [(pod, box) for pod, box in every(render, module) if not verb or verb in (programs.started(box) or ())]


def every(render: Render, module: str) -> Iterator[tuple[Pod, Mapping]]:
    """The containers of a release that start a program of ours."""
    for pod in pods(render.objects):
        for _, box in containers(pod):
            if (programs.started(box) or ("",))[0] == module:
                yield pod, box


def laid_out(render: Render, pod: Pod, box: Mapping, folder: Path) -> dict[str, str]:
    """Writes the ConfigMaps that a container mounts below `folder`; answers its variables, with paths in there.

    A variable out of a Secret has a password's place-holder.
    """
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(render.objects, "ConfigMap")}
    volumes = {each["name"]: each.get("configMap", {}) for each in pod.spec.get("volumes", [])}
    environment = {each["name"]: each.get("value", PASSWORD) for each in box.get("env", [])}
    for mount in box.get("volumeMounts", []):
        source = volumes.get(mount["name"], {})
        named = {each["key"]: each["path"] for each in source.get("items", [])}
        for key, text in maps.get(source.get("name"), {}).items():
            file = folder / mount["mountPath"].lstrip("/") / named.get(key, key)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    found = {name: folder / value.lstrip("/") for name, value in environment.items() if value.startswith("/")}
    return environment | {name: str(path) for name, path in found.items() if path.is_file()}


@cells("deerfield", "services.aggregator")
def test_the_aggregator_takes_the_settings_that_its_pod_is_given(cell, tmp_path):
    from services.aggregator.settings import read_settings

    ((pod, box),) = every(rendering.of(*cell), "services.aggregator")
    settings = read_settings(box.get("args", []), laid_out(rendering.of(*cell), pod, box, tmp_path))
    there = {settings.listen, settings.health, *([settings.metrics] if settings.metrics else [])}
    assert {int(each.rpartition(":")[2]) for each in there} == set(ports(pod).values())
    assert settings.tls is not None
    grace = pod.spec["terminationGracePeriodSeconds"]
    assert grace >= settings.drain_s + 35, "after the drain, models under way to MLflow have 35 s"


@cells("deerfield", "services.tracking")
def test_mlflow_s_server_takes_the_settings_that_its_pod_is_given(cell, tmp_path):
    from services.tracking.settings import read_settings

    ((pod, box),) = every(rendering.of(*cell), "services.tracking")
    environment = laid_out(rendering.of(*cell), pod, box, tmp_path)
    for name in [each for each in environment if each.endswith(("USERNAME_FILE", "PASSWORD_FILE"))]:
        secret = tmp_path / name
        secret.write_text(PASSWORD)
        environment[name] = str(secret)
    settings = read_settings(environment)
    assert settings.listen.port == ports(pod)["http"]
    callers = {
        each["value"].partition("://")[2].rpartition(":")[0]
        for other in pods(rendering.of(*cell).objects)
        for _, each_box in containers(other)
        for each in each_box.get("env", [])
        if each["name"] in ("DEERFIELD_TRACKING", "MLFLOW_TRACKING_URI")
    }
    assert callers
    assert callers <= set(settings.allowed_hosts)


@cells("deerfield", "pipelines.cli", "secrets")
def test_the_job_of_secrets_reads_what_it_is_to_make(cell, tmp_path):
    from pipelines.cluster.wanted import load

    render = rendering.of(*cell)
    ((pod, box),) = starts(render, "pipelines.cli", "secrets")
    laid_out(render, pod, box, tmp_path)
    (file,) = tmp_path.rglob("wanted.yaml")
    asked = box.get("command", []) + box.get("args", [])
    assert f"--wanted=/{file.relative_to(tmp_path)}" in asked or f"/{file.relative_to(tmp_path)}" in asked
    hosts = {host for entry in load(file).secrets for host in entry.hosts}
    called = {
        each["value"].rpartition(":")[0]
        for other in pods(render.objects)
        for _, each_box in containers(other)
        for each in each_box.get("env", [])
        if each["name"] == "DEERFIELD_AGGREGATOR"
    }
    if hosts:
        assert called <= hosts, "the certificate lacks a name by which the aggregator is called"


@cells("deerfield", "pipelines.cli", "pipelines")
def test_the_registrar_reads_options_and_schedules(cell, tmp_path):
    from pipelines.compiled import compile_options
    from pipelines.compiled.package import read_all
    from pipelines.kubeflow import schedules

    render = rendering.of(*cell)
    for pod, box in starts(render, "pipelines.cli", "pipelines"):
        laid_out(render, pod, box, tmp_path)
    for file in tmp_path.rglob("options.yaml"):
        assert compile_options.load(file).image
    packages = read_all(sorted((ROOT / "tests/golden/pipelines").glob("*.yaml")))
    for file in tmp_path.rglob("schedules.yaml"):
        assert all(each.pipeline in packages for each in schedules.load(file, packages))


def policies(cell, folder: Path) -> list[Path]:
    """The policies in the ConfigMaps of a release; a hospital's own is in none."""
    render = rendering.of(*cell)
    for number, (pod, box) in enumerate(every(render, "services.client")):
        laid_out(render, pod, box, folder / str(number))
    return list(folder.rglob("policy.yaml"))


def test_sites_read_the_policies_that_are_in_values(tmp_path):
    from services.client.policy import load

    found = [file for number, cell in enumerate(MATRIX) for file in policies(cell, tmp_path / str(number))]
    assert len(found) > 3
    assert all(load(file).populations for file in found)


@pytest.mark.parametrize("cell", MATRIX, ids=lambda cell: f"{cell[0]}-{cell[1].stem if cell[1] else 'defaults'}")
def test_services_leave_their_last_sentence_where_the_kubelet_reads_it(cell):
    for module in ("services.aggregator", "services.client", "services.tracking"):
        for pod, box in every(rendering.of(*cell), module):
            said = {each["name"]: each.get("value") for each in box["env"]}
            assert said[VARIABLE] == box["terminationMessagePath"], pod.where
