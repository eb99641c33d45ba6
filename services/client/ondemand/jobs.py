"""The Jobs of one site, over the Kubernetes API: made, looked at and deleted."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import structlog

from deerfield.errors import InvalidInput, NoMachine
from deerfield.exchange import Key
from services.client.ondemand.manifest import Template

TIMEOUT_S = (5.0, 20.0)  # to connect, to answer
GONE = 404
State: TypeAlias = Literal["unknown", "waits", "ended", "gone"]
log = structlog.get_logger()

if TYPE_CHECKING:
    from kubernetes.client import ApiClient


@dataclass(frozen=True, slots=True)
class Seen:
    """What the cluster says of a Job, and in which words."""

    state: State
    words: str = ""


def connect(environment: Mapping[str, str] = os.environ) -> "ApiClient":
    """A client of the API server, which is found as every pod does, or by KUBECONFIG.

    Raises:
        InvalidInput: there is none.
    """
    from kubernetes import client, config  # over a second, and only an agent needs it

    configuration = client.Configuration()
    try:
        if path := environment.get("KUBECONFIG"):
            config.load_kube_config(path, client_configuration=configuration)
        else:
            config.load_incluster_config(configuration)
    except config.ConfigException as error:
        raise InvalidInput(
            f"no Kubernetes API server is known here ({error}); an agent needs a service account with its token"
        ) from error
    return client.ApiClient(configuration)


class Jobs:
    """What an agent may do with Jobs: its Role allows no more."""

    def __init__(self, template: Template, client: "ApiClient") -> None:
        """Asks nothing yet."""
        from kubernetes.client import BatchV1Api, CoreV1Api

        self._template = template
        self._batch, self._core = BatchV1Api(client), CoreV1Api(client)

    def create(self, name: str, key: Key, folder: Path, deadline_s: float) -> None:
        """Makes a task's Job.

        Raises:
            NoMachine: the API server refuses it (a quota, a missing permission), or does not answer.
        """
        body = self._template.job(name, key, folder, deadline_s)
        if self._call(self._batch.create_namespaced_job, self._template.namespace, body) is None:
            raise NoMachine(f"there is no namespace {self._template.namespace!r}; see metadata.namespace of --job")

    def look(self, name: str) -> Seen:
        """How the Job is; an API server that does not answer says nothing about it."""
        try:
            job = self._call(self._batch.read_namespaced_job, name, self._template.namespace)
            if job is None:
                return Seen("gone", "it was deleted")
            pods = self._call(
                self._core.list_namespaced_pod, self._template.namespace, label_selector=f"job-name={name}"
            )
        except NoMachine as error:
            log.warning("the Job cannot be looked at", job=name, error=str(error))
            return Seen("unknown", str(error))
        said = "; ".join(words for pod in (pods or {}).get("items") or () if (words := _pod(pod)))
        if ended := _ended(job):
            told = (ended.get("reason"), ended.get("message"), said)
            return Seen("ended", "; ".join(word for word in told if word))
        return Seen("waits", said or ("it is suspended, as by a queue" if job["spec"].get("suspend") else ""))

    def delete(self, name: str) -> None:
        """Ends a Job and its pod; one that is not there is no fault, and one that stays finds its folder gone."""
        try:
            self._call(
                self._batch.delete_namespaced_job,
                name,
                self._template.namespace,
                propagation_policy="Background",
            )
        except NoMachine as error:
            log.warning("the Job cannot be deleted; it stops by itself", job=name, error=str(error))

    def running(self) -> list[str]:
        """This site's Jobs that have not ended; raises NoMachine if the API server does not say.

        One that has ended stays for its `ttlSecondsAfterFinished`, so that a person may read its log.
        """
        found = self._call(
            self._batch.list_namespaced_job, self._template.namespace, label_selector=self._template.selector
        )
        return [each["metadata"]["name"] for each in (found or {}).get("items") or () if not _ended(each)]

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Mapping[str, Any] | None:
        """The API server's answer as JSON; None where there is nothing of that name."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = method(*arguments, **options, _request_timeout=TIMEOUT_S, _preload_content=False)
            found: Mapping[str, Any] = json.loads(answer.data)
            return found
        except ApiException as error:
            if error.status == GONE:
                return None
            raise NoMachine(f"the Kubernetes API server says {error.status}: {_message(error.body)}") from error
        except (HTTPError, OSError, ValueError) as error:  # the last: something else than an API server answers
            raise NoMachine(f"the Kubernetes API server does not answer: {error}") from error


def _message(body: object) -> str:
    """The sentence in an answer of the API server."""
    try:
        return str(json.loads(body)["message"])  # type: ignore[arg-type]  # it answers with a Status; else as it is
    except (TypeError, ValueError, KeyError):
        return str(body)[:300]


def _ended(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """The condition of a Job that has ended; empty while it has not."""
    held = (each for each in job.get("status", {}).get("conditions") or () if each.get("status") == "True")
    return next((each for each in held if each["type"] in ("Failed", "Complete")), {})


def _pod(pod: Mapping[str, Any]) -> str:
    """Why a pod does not run, as far as it says so: not scheduled, no image, evicted, killed."""
    status = pod.get("status", {})
    said = [status.get("reason"), status.get("message")]
    for each in status.get("conditions") or ():
        if (each.get("type"), each.get("status")) == ("PodScheduled", "False"):
            said += [each.get("reason"), each.get("message")]
    for container in status.get("containerStatuses") or ():
        for state in ("waiting", "terminated"):
            if (found := (container.get("state") or {}).get(state)) is not None:
                code = f"exit code {found['exitCode']}" if state == "terminated" else ""
                said += [found.get("reason"), code, found.get("message")]
    return ", ".join(word for word in said if word)
