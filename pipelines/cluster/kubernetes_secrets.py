"""Secrets of one namespace, by the Kubernetes API: read, and made where there are none. Nothing is ever changed."""

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from deerfield.errors import DeerfieldError, InvalidInput, Unreachable
from deerfield.wire.backoff import Backoff

SecretType: TypeAlias = Literal["Opaque", "kubernetes.io/tls", "kubernetes.io/basic-auth"]
Answer = TypeVar("Answer")
LIMITS_S = (10.0, 30.0)  # to connect, and to wait for an answer
AGAIN = (408, 429, 500, 502, 503, 504)  # statuses that pass
PAGE = 100  # Secrets in one answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A Secret's name, type and content."""

    name: str
    type: str
    data: Mapping[str, bytes] = field(repr=False)

    def part(self, key: str) -> bytes:
        """What stands at a key; raises InvalidInput where nothing does."""
        if key not in self.data:
            there = ", ".join(sorted(self.data)) or "nothing"
            raise InvalidInput(f"Secret {self.name} lacks {key}; it holds {there}")
        return self.data[key]

    def place(self, key: str) -> Path:
        """How errors about the content name a key."""
        return Path(f"Secret {self.name}: {key}")


class Secrets:
    """The Secrets of a namespace.

    Every call raises InvalidInput where the API refuses it, and Unreachable where it does not answer for as long as
    `backoff` says.
    """

    def __init__(self, api: Any, namespace: str, backoff: Backoff) -> None:
        self._api, self.namespace, self._backoff = api, namespace, backoff

    def get(self, name: str) -> Secret | None:
        """The Secret of this name, if there is one."""

        def read() -> Secret | None:
            from kubernetes.client import ApiException

            try:
                return _secret(self._api.read_namespaced_secret(name, self.namespace, _request_timeout=LIMITS_S))
            except ApiException as error:
                if error.status == 404:  # of the Secret or of its namespace: making it tells
                    return None
                raise

        return self._asked(f"get Secret {name}", read)

    def create(self, secret: Secret, labels: Mapping[str, str]) -> bool:
        """Makes a Secret; False if there is one of this name, which stays as it is."""
        from kubernetes.client import ApiException, V1ObjectMeta, V1Secret

        body = V1Secret(
            metadata=V1ObjectMeta(name=secret.name, labels=dict(labels) or None),
            type=secret.type,
            data={key: base64.b64encode(value).decode() for key, value in secret.data.items()},
        )

        def make() -> bool:
            try:
                self._api.create_namespaced_secret(self.namespace, body, _request_timeout=LIMITS_S)
            except ApiException as error:
                if error.status == 409:
                    return False
                raise
            return True

        return self._asked(f"create Secret {secret.name}", make)

    def all(self) -> Sequence[Secret]:
        """Every Secret of the namespace."""
        found: list[Secret] = []
        more = ""
        while True:
            page = self._asked("list the Secrets", partial(self._page, more))
            found += [_secret(each) for each in page.items]
            more = page.metadata._continue or ""
            if not more:
                return tuple(found)

    def _page(self, after: str) -> Any:
        how: dict[str, Any] = {"_continue": after} if after else {}
        return self._api.list_namespaced_secret(self.namespace, limit=PAGE, _request_timeout=LIMITS_S, **how)

    def _asked(self, what: str, ask: Callable[[], Answer]) -> Answer:
        def attempt() -> Answer:
            from kubernetes.client import ApiException
            from urllib3.exceptions import HTTPError

            try:
                return ask()
            except ApiException as error:
                raise self._refused(what, error) from None
            except (HTTPError, OSError) as error:
                raise Unreachable(
                    f"the Kubernetes API at {self._where} does not answer ({type(error).__name__}); could not {what}"
                ) from None

        return self._backoff.retry(attempt)

    def _refused(self, what: str, error: Any) -> DeerfieldError:
        said = _message(error)
        if error.status in AGAIN:
            return Unreachable(f"the Kubernetes API at {self._where} could not {what} ({error.status}: {said})")
        if error.status == 401:
            return InvalidInput(
                f"the Kubernetes API at {self._where} does not know who asks (401: {said}); log in anew"
            )
        if error.status == 403:
            return InvalidInput(
                f"this account may not {what} in namespace {self.namespace} (403: {said}); give its Role the verb for "
                "secrets"
            )
        if error.status == 404:
            return InvalidInput(f"could not {what}: there is no namespace {self.namespace} ({said})")
        return InvalidInput(f"the Kubernetes API refused to {what} in {self.namespace} ({error.status}: {said})")

    @property
    def _where(self) -> str:
        return str(self._api.api_client.configuration.host)


def open_secrets(
    namespace: str, backoff: Backoff, kubeconfig: str | None = None, context: str | None = None
) -> Secrets:
    """The Secrets of a namespace: by a kube config where one is named, else of the cluster that this pod is in.

    Raises:
        InvalidInput: there is neither.
    """
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and kubeconfig is None and context is None:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(kubeconfig, context=context, client_configuration=settings)
    except config.ConfigException as error:
        raise InvalidInput(
            f"no Kubernetes API is known here ({str(error).strip()}); give --kubeconfig, or run this in a pod "
            "that has a token"
        ) from None
    settings.retries = False  # urllib3's, which say on stderr what is asked again; ours are in `backoff`
    return Secrets(client.CoreV1Api(client.ApiClient(settings)), namespace, backoff)


def _secret(found: Any) -> Secret:
    """A Secret as the API has it; raises InvalidInput for what none is."""
    if found.metadata is None:
        raise InvalidInput("what answers is no Kubernetes API; see which cluster the kube config names")
    try:
        data = {key: base64.b64decode(value, validate=True) for key, value in (found.data or {}).items()}
    except binascii.Error:
        raise InvalidInput(f"Secret {found.metadata.name} has data that are no base64") from None
    return Secret(name=str(found.metadata.name), type=str(found.type), data=data)


def _message(error: Any) -> str:
    """The API's own sentence, where it gave one."""
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return str(error.reason)
