"""Whether the model hub can be reached, asked once and quickly: many are offline on purpose. What its cache holds."""

import os
import socket
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_S = 3.0  # the hub's own clients retry for minutes


@cache
def reachable() -> bool:
    """True if the hub accepts a connection; False under HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return False
    endpoint = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((endpoint.hostname or "", endpoint.port or 443), timeout=TIMEOUT_S).close()
    except OSError:
        return False
    return True


def cached_data(name: str) -> Path | None:
    """The folder of a data set in the hub's cache on this machine, as `hf download --repo-type dataset` leaves it."""
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        return None
