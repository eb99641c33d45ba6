"""What MLflow's errors mean to whoever reads its registry: each way in which it does not answer is one sentence."""

import re
from urllib.parse import urlsplit

from deerfield.endpoint import without_password
from deerfield.errors import DeerfieldError, InvalidInput, Unreachable

GUARD = "Invalid Host header"  # what `mlflow server` answers beside 403


def translated(error: Exception, tracking: str, what: str, waited_s: float) -> DeerfieldError:
    """What MLflow at `tracking`, asked to do `what`, failed with, as an error that says what to do about it."""
    where, said = f"MLflow at {without_password(tracking)}", reason(error)
    code, status = getattr(error, "error_code", ""), _status(error)
    host = urlsplit(tracking).netloc.rpartition("@")[2]
    if status == 403 and GUARD in str(error):
        return InvalidInput(
            f"{where} refuses the host name {host} (403, its guard against DNS rebinding): start `mlflow server` with "
            f"--allowed-hosts {host}, as it stands in the URL, or with MLFLOW_SERVER_ALLOWED_HOSTS={host}"
        )
    if status == 401 or code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return InvalidInput(
            f"{where} refuses the credentials (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            f"MLFLOW_TRACKING_TOKEN"
        )
    if status == 403 or code == "PERMISSION_DENIED":
        return InvalidInput(f"{where} does not let these credentials {what} (403: {said}); ask its administrator")
    if code == "ENDPOINT_NOT_FOUND" or status == 404:
        return InvalidInput(f"{where} answers 404: that is no MLflow tracking server; mend MLFLOW_TRACKING_URI")
    if code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE") or isinstance(
        error, FileNotFoundError
    ):
        return InvalidInput(f"{where} cannot {what}: it is not there, or no longer ({said})")
    return Unreachable(
        f"{where} could not {what} within {waited_s:.0f} s ({said}): see that it runs and can be reached from here"
    )


def _status(error: Exception) -> int | None:
    """The HTTP status that a server answered with, where its answer was none of MLflow's own."""
    found = re.search(r"failed with error code (\d{3})", str(error)) or re.search(
        r"^(\d{3}) (?:Client|Server)", str(error)
    )
    return int(found[1]) if found else None


def reason(error: Exception) -> str:
    """The system's own words where there are any, else the first line of MLflow's."""
    text = str(error).strip()
    system = re.search(r"\[Errno -?\d+\] ([\w ,]+)|certificate verify failed[\w: -]*|timed out", text)
    if system:
        return system[1] or system[0]
    return (text.splitlines() or [type(error).__name__])[0][:200]
