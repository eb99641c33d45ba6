"""How a command reaches Kubeflow Pipelines: kfp's own client over our transport. Importing this imports kfp.

The client reads no kube config and no settings of other tools, and asks nothing before it is told to; the token is read
again for each request, because the kubelet renews it.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import kfp.client
import kfp_server_api
import typer

from deerfield.errors import DeerfieldError, InvalidInput, Unreachable
from deerfield.wire.backoff import Backoff
from pipelines.kubeflow.kfp_transport import AUDIENCE, Transport, Where

Answer = TypeVar("Answer")

PAGE = 100  # objects


class Client(kfp.client.Client):  # type: ignore[misc]
    """kfp's client without what it reads, prints and asks by itself."""

    def __init__(self, where: Where) -> None:
        self._where = where
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that it speaks to version 2 alone, which is meant
            super().__init__(host=where.address)
        self._context_setting = {"namespace": where.namespace}
        self.transport = Transport(self._existing_config, where)
        self._run_api.api_client.rest_client = self.transport  # the one that all its services share

    def _load_config(self, *_: Any) -> Any:
        config = kfp_server_api.Configuration(host=self._where.address.rstrip("/"))
        config.retries = False  # no second try and no redirect that we do not hear of
        config.ssl_ca_cert = self._where.ca and str(self._where.ca)
        if self._where.token is not None:
            config.api_key["authorization"] = "read for each request"
            config.api_key_prefix["authorization"] = "Bearer"
            config.refresh_api_key_hook = self._read_token
        return config

    def _read_token(self, config: Any) -> None:
        try:
            token = self._where.token.read_text("ascii").strip() if self._where.token else ""
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not ASCII text"
            raise InvalidInput(f"the token {self._where.token} cannot be read ({why}); mount or name another") from None
        if not token:
            raise InvalidInput(f"the token {self._where.token} is empty; it is one for the audience {AUDIENCE}")
        config.api_key["authorization"] = token

    def _load_context_setting_or_default(self) -> None:
        self._context_setting = {"namespace": "not asked for"}  # with none, its constructor would ask the server


@contextmanager
def connected(where: Where) -> Iterator[Client]:
    """A client of Kubeflow Pipelines, which has not asked it anything yet; its connections end with the block."""
    client = Client(where)
    try:
        yield client
    finally:
        client.transport.pool_manager.clear()


def check_mode(client: Client, where: Where) -> None:
    """Raises InvalidInput if the installation is multi-user and no namespace is given, or the other way round."""
    several = bool(client.get_kfp_healthz().multi_user)
    if several and not where.namespace:
        raise InvalidInput(f"KFP at {where.address} is multi-user; give --namespace, in which its runs are to be")
    if where.namespace and not several:
        raise InvalidInput(
            f"KFP at {where.address} is single-user and has no namespaces; leave --namespace {where.namespace} out"
        )


def patiently(patience_s: float, attempt: Callable[[], Answer]) -> Answer:
    """What `attempt` answers, asked again after growing pauses while Kubeflow Pipelines does not answer.

    Raises:
        Unreachable: it still does not after `patience_s` seconds; the message says for how long it was tried.
    """
    began = time.monotonic()
    try:
        return Backoff(patience_s=patience_s, last_s=15.0, tell=_say).retry(attempt)
    except Unreachable as error:
        raise Unreachable(f"{error}; tried for {time.monotonic() - began:.0f} s") from None


def _say(cause: DeerfieldError, wait_s: float) -> None:
    typer.echo(f"{cause}; asking again in {wait_s:.0f} s", err=True)


def every(listing: Callable[..., Any], field: str, **query: Any) -> Iterator[Any]:
    """Each object of a listing, over all of its pages."""
    token = ""
    while True:
        page = listing(page_token=token, page_size=PAGE, **query)
        yield from getattr(page, field) or []
        token = page.next_page_token
        if not token:
            return


def called(name: str) -> str:
    """The filter that lets only objects of this display name through."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})
