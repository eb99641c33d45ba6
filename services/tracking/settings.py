"""What the MLflow server is told by its environment, read once and checked."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from ipaddress import IPv6Address
from pathlib import Path

from deerfield.endpoint import Endpoint, read_listening, without_password
from deerfield.errors import InvalidInput
from services.databases import FORMS, Program, read_address
from services.objects import ACCESS, FORM, SECRET, Bucket, read_bucket, read_secret

PREFIX = "DEERFIELD_TRACKING_"
PROGRAM = Program(name="deerfield-tracking", setting=f"{PREFIX}DATABASE")
PASSWORD_LENGTH = 12  # MLflow takes no shorter one
MOST_WORKERS = 64
VARIABLES = {  # name without the prefix: default, and what --help says of it
    "LISTEN": ("0.0.0.0:5000", "host:port to listen at"),
    "DATABASE": ("sqlite:////var/lib/mlflow/mlflow.db", f"{FORMS}; a password by PGPASSWORD or PGPASSFILE"),
    "ARTIFACTS": ("/var/lib/mlflow/artifacts", f"folder, or {FORM}; credentials by {ACCESS} and {SECRET}, or ..._FILE"),
    "ALLOWED_HOSTS": ("", "names, with commas between, by which others may call it; its own machine always may"),
    "USERNAME": ("", "the account that every caller needs; or ..._FILE, a path"),
    "PASSWORD": ("", f"its password, of {PASSWORD_LENGTH} characters or more; or ..._FILE, a path"),
    "OPEN": ("0", "1: whoever reaches the server may do anything; there is no account"),
    "METRICS": ("0", "1: serves metrics for Prometheus at /metrics, to the account"),
    "WORKERS": ("2", f"processes, 1 to {MOST_WORKERS}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who may call; the password is in no representation of it."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that the server is started with."""

    listen: Endpoint
    database: str  # URL
    artifacts: Path | Bucket
    allowed_hosts: tuple[str, ...]
    account: Account | None  # None: open to whoever reaches it
    metrics: bool
    workers: int

    def as_json(self) -> str:
        """The settings as one line for the log, without passwords."""
        account = self.account.username if self.account else None
        shown = asdict(self) | {"database": without_password(self.database), "account": account}
        return json.dumps(shown, default=str)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Reads the variables; one that is empty counts as not set.

    Raises:
        InvalidInput: a value that cannot be used, or no account.
    """
    told = {name: environment.get(PREFIX + name) or default for name, (default, _) in VARIABLES.items()}
    listen = read_listening(f"{PREFIX}LISTEN", told["LISTEN"], "0.0.0.0:5000")
    if listen.port == 0:
        raise InvalidInput(f"{PREFIX}LISTEN: port 0 is none that others could call; name one, such as 5000")
    if read_address(told["DATABASE"], program=PROGRAM).kind == "memory":
        raise InvalidInput(f"{PREFIX}DATABASE: a database in memory would forget every run; write {FORMS}")
    artifacts = told["ARTIFACTS"]
    return Settings(
        listen=listen,
        database=told["DATABASE"],
        artifacts=read_bucket(artifacts, f"{PREFIX}ARTIFACTS") if "://" in artifacts else Path(artifacts),
        allowed_hosts=_hosts(told["ALLOWED_HOSTS"], listen.port),
        account=_account(environment, _switched_on("OPEN", told)),
        metrics=_switched_on("METRICS", told),
        workers=_workers(told["WORKERS"]),
    )


def _hosts(text: str, port: int) -> tuple[str, ...]:
    """Every name alone and with the port, as callers may write it; its own machine's come first."""
    names = ["localhost", "127.0.0.1", "[::1]", *(_host(each.strip()) for each in text.split(",") if each.strip())]
    # MLflow compares the header Host as it stands
    ported = [name if re.search(r":\d+$", name) else f"{name}:{port}" for name in names]
    return tuple(dict.fromkeys([*names, *ported]))


def _host(name: str) -> str:
    if "/" in name or any(each.isspace() for each in name):
        raise InvalidInput(f"{PREFIX}ALLOWED_HOSTS: {name[:80]!r} is no name of a host; write NAME[:PORT],NAME...")
    with suppress(ValueError):  # of a pod, perhaps
        return f"[{IPv6Address(name)}]"
    return name


def _account(environment: Mapping[str, str], is_open: bool) -> Account | None:
    username, password = (_secret(environment, PREFIX + name) for name in ("USERNAME", "PASSWORD"))
    if is_open:
        if username or password:
            raise InvalidInput(f"{PREFIX}OPEN is 1, and there is an account; set one of them")
        return None
    for name, value in (("USERNAME", username), ("PASSWORD", password)):
        if not value:
            raise InvalidInput(f"{PREFIX}{name} is not set; set it, or {PREFIX}{name}_FILE to a path")
    if ":" in username:
        raise InvalidInput(f"{PREFIX}USERNAME: it holds a colon, at which HTTP ends a name; choose another")
    if len(password) < PASSWORD_LENGTH:
        raise InvalidInput(
            f"{PREFIX}PASSWORD has {len(password)} characters; MLflow takes none under {PASSWORD_LENGTH}"
        )
    return Account(username=username, password=password)


def _secret(environment: Mapping[str, str], name: str) -> str:
    value = read_secret(environment, name, "account")
    if not value.isprintable():
        raise InvalidInput(f"{name}: it holds characters that cannot be printed; write it on one line")
    return value


def _switched_on(name: str, told: Mapping[str, str]) -> bool:
    if told[name] not in ("0", "1"):
        raise InvalidInput(f"{PREFIX}{name} is {told[name][:80]!r}; set it to 1 or 0")
    return told[name] == "1"


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= MOST_WORKERS):
        raise InvalidInput(f"{PREFIX}WORKERS is {text[:80]!r}; write a whole number from 1 to {MOST_WORKERS}")
    return int(text)
