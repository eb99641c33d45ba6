"""Which errors of MLflow, and of the servers and stores behind it, a later attempt may not meet again."""

from collections.abc import Mapping
from typing import Any

WAITED_FOR = (401, 403, 408, 429, 499)  # somebody may mend credentials meanwhile; the others pass by themselves
STORES = frozenset({"boto3", "botocore", "sqlalchemy", "urllib3"})  # those that raise errors of their own


def may_pass(error: Exception) -> bool:
    """Whether it is worth another try: nobody answered, or an answer other than that the request is wrong."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in WAITED_FOR
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in STORES


def _status(error: Any) -> int | None:
    """The HTTP status of an answer; None where there was none. MLflow's own has 500 for a server out of reach."""
    if hasattr(error, "get_http_status_code"):  # MlflowException, without the import, which takes seconds
        return int(error.get_http_status_code())
    response = getattr(error, "response", None)  # of requests an object, of botocore a mapping
    if isinstance(response, Mapping):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(response, "status_code", None)
    return found if isinstance(found, int) else None
