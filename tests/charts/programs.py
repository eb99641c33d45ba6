"""The programs that containers start: the flags and variables that they know, by what their own `--help` says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from services.telemetry.ending import VARIABLE
from tests.charts.pods import containers, of_kind, pods
from tests.charts.rendering import ROOT, Object, strings

OWN = {
    "deerfield-aggregator": ("services.aggregator",),
    "deerfield-client": ("services.client",),
    "deerfield-pipelines": ("pipelines.cli",),
    "deerfield-tracking": ("services.tracking",),
}
FLAG = re.compile(r"--[a-z][-a-z0-9]*")
NAME = re.compile(r"\b(?:DEERFIELD|MLFLOW)_[A-Z0-9_]+\b")
# Variables that others read than our programs, each with who does.
OTHERS = {
    "AWS_ACCESS_KEY_ID": "services.objects, boto3",
    "AWS_ACCESS_KEY_ID_FILE": "services.objects",
    "AWS_SECRET_ACCESS_KEY": "services.objects, boto3",
    "AWS_SECRET_ACCESS_KEY_FILE": "services.objects",
    "AWS_SESSION_TOKEN": "services.objects, boto3",
    "AWS_SESSION_TOKEN_FILE": "services.objects",
    "AWS_DEFAULT_REGION": "boto3",
    "AWS_REGION": "boto3",
    "AWS_CA_BUNDLE": "boto3",
    "SSL_CERT_FILE": "OpenSSL, services.objects",
    "REQUESTS_CA_BUNDLE": "requests",
    "HF_HUB_OFFLINE": "huggingface_hub",
    "PGPASSWORD": "libpq",
    "PGPASSFILE": "libpq",
    "POSTGRES_USER": "the image of PostgreSQL",
    "POSTGRES_PASSWORD": "the image of PostgreSQL",
    "POSTGRES_PASSWORD_FILE": "the image of PostgreSQL",
    "POSTGRES_DB": "the image of PostgreSQL",
    "POSTGRES_INITDB_ARGS": "the image of PostgreSQL",
    "PGDATA": "the image of PostgreSQL",
    "MLFLOW_TRACKING_URI": "mlflow",
    "MLFLOW_TRACKING_USERNAME": "mlflow",
    "MLFLOW_TRACKING_PASSWORD": "mlflow",
    "MLFLOW_TRACKING_TOKEN": "mlflow",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "mlflow",
    "MLFLOW_S3_ENDPOINT_URL": "mlflow",
    "KF_PIPELINES_ENDPOINT": "kfp",
    "KF_PIPELINES_SA_TOKEN_PATH": "kfp",
    "OMP_NUM_THREADS": "torch",
    "OTEL_SDK_DISABLED": "opentelemetry",
}


def unknown(objects: Iterable[Object]) -> Iterator[str]:
    """Flags and variables of containers that the program which runs there does not know."""
    for pod in pods(objects):
        for where, box in containers(pod):
            program = started(box)
            if program is None:
                continue
            try:
                told = manual(program)
            except subprocess.CalledProcessError:
                yield f"{where}: there is no {' '.join(program)}"
                continue
            given = {word.partition("=")[0] for word in _arguments(box) if word.startswith("--")}
            for flag in sorted(given - set(FLAG.findall(told))):
                yield f"{where}: {' '.join(program)} has no flag {flag}"
            known = set(NAME.findall(told)) | ({VARIABLE} if program[0].startswith("services.") else set())
            known |= {f"{name}_FILE" for name in known if re.search(rf"{name}\b.*\.\.\._FILE", told)}
            names = {each["name"] for each in box.get("env", [])}
            for name in sorted(names - known - OTHERS.keys() - _put_together(box)):
                yield f"{where}: {' '.join(program)} reads no variable {name}"


def strangers(objects: Iterable[Object]) -> Iterator[str]:
    """Variables in containers with programs of others that neither these nor their scripts are known to read."""
    objects = list(objects)
    maps = {each["metadata"]["name"]: each for each in of_kind(objects, "ConfigMap")}
    for pod in pods(objects):
        mounted = [maps.get(each.get("configMap", {}).get("name"), {}) for each in pod.spec.get("volumes", [])]
        for where, box in containers(pod):
            if started(box) is None:
                script = " ".join([*_arguments(box), *strings([each.get("data", {}) for each in mounted])])
                for each in box.get("env", []):
                    if each["name"] not in OTHERS and not re.search(rf"\$[{{(]?{each['name']}\b", script):
                        yield f"{where}: variable {each['name']} is unknown"


def started(box: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Module and subcommands that a container starts; None for a program of others."""
    image = box["image"].partition("@")[0].rpartition("/")[2].partition(":")[0]
    if image not in OWN:
        return None
    words = _arguments(box)
    module: tuple[str, ...] = OWN[image]
    match words:
        case ["python", "-m", name, *rest]:
            module, words = (name,), rest
        case ["deerfield", *rest]:
            module, words = ("pipelines.cli",), rest
    verbs = []
    for word in words:
        if word.startswith("-") or not word.isidentifier():
            break
        verbs.append(word)
    return (*module, *verbs)


@cache
def manual(program: tuple[str, ...]) -> str:
    """What `--help` says of a program and of what it is part of; raises CalledProcessError where there is none."""
    module, *verbs = program
    above = manual(program[:-1]) if verbs else ""
    start = ["-m", module] if module != "pipelines.cli" else ["-c", "from pipelines.cli import main; main()"]
    # wide, so that no name is broken in two
    environment = os.environ | {"COLUMNS": "1000", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, *start, *verbs, "--help"]
    asked = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return above + asked.stdout


def _put_together(box: Mapping[str, Any]) -> set[str]:
    """Variables of a container that its other variables and its arguments are made of, as $(NAME)."""
    texts = [*_arguments(box), *(each.get("value", "") for each in box.get("env", []))]
    return {name for text in texts for name in re.findall(r"\$\((\w+)\)", text)}


def _arguments(box: Mapping[str, Any]) -> list[str]:
    return [*box.get("command", []), *box.get("args", [])]
