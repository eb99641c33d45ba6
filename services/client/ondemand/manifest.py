"""The Job of one task: what the chart has rendered, and what the agent adds to it."""

import re
import uuid
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any

import yaml

from deerfield.errors import InvalidInput
from deerfield.exchange import Key
from services.client.ondemand.folder import PREFIX

LABEL = "deerfield.io/"
SITE = f"{LABEL}site"
INSTANCE = "app.kubernetes.io/instance"
VALUE_CHARS = 63  # of a label
TTL_S = 3600  # of a Job whose agent is gone, unless the chart says otherwise

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """A site's Job without a task."""

    manifest: Manifest
    site: str

    @property
    def namespace(self) -> str:
        """Where the Jobs are."""
        return str(self.manifest["metadata"]["namespace"])

    @property
    def selector(self) -> str:
        """The labels that Jobs of this site have, of whatever version of its chart."""
        instance = self.manifest["metadata"].get("labels", {}).get(INSTANCE)
        own = {SITE: value(self.site), **({INSTANCE: instance} if instance else {})}
        return ",".join(f"{name}={each}" for name, each in own.items())

    def job(self, name: str, key: Key, folder: Path, deadline_s: float) -> dict[str, Any]:
        """The Job `name` that does the task in a folder, for as long as its phase may take."""
        job: dict[str, Any] = deepcopy(dict(self.manifest))
        pod = job["spec"]["template"]
        labels = {SITE: self.site, f"{LABEL}run": key.run, f"{LABEL}round": key.round, f"{LABEL}phase": key.phase}
        job["metadata"]["name"] = name
        for each in (job["metadata"], pod.setdefault("metadata", {})):
            each["labels"] = {**(each.get("labels") or {}), **{name: value(str(said)) for name, said in labels.items()}}
        seconds = min(job["spec"].get("activeDeadlineSeconds") or ceil(deadline_s), ceil(deadline_s))
        job["spec"] |= {"backoffLimit": 0, "parallelism": 1, "completions": 1, "activeDeadlineSeconds": seconds}
        job["spec"].setdefault("ttlSecondsAfterFinished", TTL_S)
        pod["spec"] |= {"restartPolicy": "Never", "automountServiceAccountToken": False}
        container = pod["spec"]["containers"][0]
        container["args"] = [*(container.get("args") or ()), "task", "--work", str(folder)]
        return job


def load(path: Path, site: str) -> Template:
    """Reads the chart's Job.

    Raises:
        InvalidInput: it is not there, or no Job that a task can be given to.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(f"--job {path} cannot be read: {error}; name the Job that the chart renders") from error
    for where, kind in (("metadata.namespace", str), ("spec.template.spec.containers.0", dict)):
        if not isinstance(_at(found, where), kind):
            raise InvalidInput(f"--job {path}: {where} is missing; it is the Job of a task, as the chart renders it")
    if (found.get("apiVersion"), found.get("kind")) != ("batch/v1", "Job"):
        raise InvalidInput(f"--job {path} is {found.get('apiVersion')} {found.get('kind')}; give a batch/v1 Job")
    return Template(found, site)


def new_name(site: str, key: Key) -> str:
    """A name for a Job and its folder that no other has, of at most 63 characters that DNS takes."""
    unique = sha256(f"{site}\0{key}\0{uuid.uuid4()}".encode()).hexdigest()[:8]
    return f"{PREFIX}{_dns(site, 16)}-{_dns(key.run, 12)}-r{key.round % 10**6}-p{key.phase % 100}-{unique}"


def value(text: str) -> str:
    """A text as the value of a label: what a label cannot have is a hyphen, or cut off."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:VALUE_CHARS].strip("-_.")


def _dns(text: str, chars: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:chars].strip("-") or "x"


def _at(document: Any, where: str) -> Any:
    for part in where.split("."):
        try:
            document = document[int(part) if part.isdigit() else part]
        except (KeyError, IndexError, TypeError):
            return None
    return document
