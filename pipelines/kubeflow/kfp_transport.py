"""Requests to Kubeflow Pipelines: each with a time limit, and what is no answer of it becomes an error of ours.

Importing this imports kfp's generated client.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
from kfp_server_api.rest import RESTClientObject, RESTResponse

from deerfield.errors import DeerfieldError, HandshakeFailed, InvalidInput, Unreachable

MOUNTED = Path("/var/run/secrets/kubeflow/pipelines/token")  # where Kubeflow's own settings for pods mount one
AUDIENCE = "pipelines.kubeflow.org"
AGAIN = (429, 500, 502, 503, 504)  # statuses that pass


class NotThere(InvalidInput):
    """Kubeflow Pipelines has no such object."""


class AlreadyThere(InvalidInput):
    """Kubeflow Pipelines has an object of this name already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """One installation of Kubeflow Pipelines, and who asks."""

    address: str  # http://HOST:PORT of its API
    namespace: str = ""  # of a multi-user installation
    token: Path | None = None
    ca: Path | None = None
    limits_s: tuple[float, float] = (10.0, 60.0)  # to connect, and to wait for an answer

    def __post_init__(self) -> None:
        """Raises InvalidInput for what can be no address."""
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidInput(
                f"--kfp {self.address[:80]!r} is no address of an API; write such as http://ml-pipeline.kubeflow:8888"
            )
        if parts.username or parts.password:
            raise InvalidInput("--kfp has a password in it, which others could read; give --token FILE in its place")
        if self.ca is not None and not self.ca.is_file():
            raise InvalidInput(f"--ca {self.ca} is no file; name the PEM file that the server is checked by")


class Transport(RESTClientObject):  # type: ignore[misc]
    """One request, with a time limit; what is no answer of Kubeflow Pipelines becomes an error of ours."""

    def __init__(self, config: Any, where: Where) -> None:
        super().__init__(config)
        self.where = where

    def request(self, method: str, url: str, **how: Any) -> RESTResponse:
        how["_request_timeout"] = how.get("_request_timeout") or self.where.limits_s
        try:
            answer = super().request(method, url, **how)
        except kfp_server_api.ApiException as error:
            raise _refused(error, self.where) from None
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"KFP at {self.where.address} does not answer ({_cause(error, self.where)})") from None
        if not _is_json(answer.urllib3_response.headers, answer.data):
            raise _stranger(self.where, answer.status)
        return answer


def _is_json(headers: Any, data: bytes) -> bool:
    if "json" not in (headers or {}).get("Content-Type", ""):
        return False
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


def _stranger(where: Where, status: int) -> InvalidInput:
    login = " behind a login page" if 300 <= status < 400 else ""
    return InvalidInput(
        f"what answers at {where.address} (status {status}, no JSON) is not the API of Kubeflow Pipelines{login}; give "
        "the address of its service ml-pipeline, such as http://ml-pipeline.kubeflow:8888"
    )


def _refused(error: Any, where: Where) -> DeerfieldError:
    """What an answer that is no success means."""
    status, said = error.status, _message(error.body)
    if not status:  # kfp's word for a failed handshake
        why = str(error.reason).splitlines()[-1]
        return HandshakeFailed(f"no TLS connection to {where.address} ({why}); give --ca FILE, the CA it is checked by")
    if status in AGAIN:
        return Unreachable(f"KFP at {where.address} fails (status {status}{said})")
    if status == 401:
        has = f"does not accept the token in {where.token}" if where.token else "asks for a token, and none is given"
        return InvalidInput(
            f"KFP at {where.address} {has} (401{said}); --token names a file with a fresh one of a ServiceAccount, for "
            f"the audience {AUDIENCE}"
        )
    if status == 403:
        place = f"namespace {where.namespace!r}" if where.namespace else "that namespace"
        return InvalidInput(
            f"KFP at {where.address} forbids this (403{said}); bind the ServiceAccount of the token to a role of "
            f"{place} that may create pipelines and jobs, such as kubeflow-edit"
        )
    if status < 400 or not said or "html" in error.headers.get("Content-Type", ""):
        return _stranger(where, status)
    kind = {404: NotThere, 409: AlreadyThere}.get(status, InvalidInput)
    return kind(f"KFP at {where.address} refuses (status {status}{said})")


def _message(body: bytes | None) -> str:
    """What a google.rpc.Status, an error of the upload service, or plain text says, on one line."""
    text = (body or b"").decode("utf-8", "replace")
    try:
        told = json.loads(text)
        text = str(told.get("message") or told.get("error_message") or told.get("error") or "")
    except (ValueError, AttributeError):
        text = "" if text.lstrip().startswith("<") else text
    return f": {' '.join(text.split())[:300]}" if text.strip() else ""


def _cause(error: urllib3.exceptions.HTTPError, where: Where) -> str:
    connect_s, read_s = where.limits_s
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its name cannot be resolved"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"no answer within {read_s:g} s"
    system = error.__cause__ or error.__context__
    if isinstance(system, OSError) and system.strerror:
        return system.strerror.lower()
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return f"no connection within {connect_s:g} s"
    return "it closed the connection"
