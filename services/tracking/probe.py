"""`python -m services.tracking.probe HOST:PORT`: the health command of the MLflow server's image.

Ends with 0 if the server that listens there answers at /health, which asks for no password, else with 1 and a sentence.
"""

import sys
from http.client import HTTPConnection, HTTPException

from deerfield.endpoint import seen_from_here
from deerfield.errors import Unreachable
from services.probing import TIMEOUT_S, probe


def ask(address: str) -> None:
    """Raises Unreachable unless the server that listens at `address` says that it is well."""
    target = seen_from_here("listen", address)
    connection = HTTPConnection(target, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise Unreachable(f"{target} does not answer ({error})") from None
    finally:
        connection.close()
    if status != 200:
        raise Unreachable(f"{target} answers {status} at /health, not 200")


if __name__ == "__main__":
    sys.exit(probe("services.tracking.probe", ask, sys.argv[1:]))
