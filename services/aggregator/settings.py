"""Where the aggregator listens and keeps things: what its flags and environment say, read once and checked."""

import argparse
import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path

from deerfield.certificates import Files, given_files
from deerfield.endpoint import read_listening, without_password
from deerfield.errors import InvalidInput
from deerfield.gate import Rules, load_rules
from services.aggregator.blobstore.bucket import read_place
from services.aggregator.blobstore.retention import Retention, read_retention
from services.aggregator.bounds import Bounds
from services.aggregator.flags import parser, variable
from services.databases import check_lasting
from services.objects import Bucket

MOST = 1_000_000  # of any count that is bounded, and of its seconds
LEAST = 0.001  # of a number that is no count: gRPC takes whole milliseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is not about a run."""

    listen: str  # host:port of the data port; port 0 takes a free one
    health: str  # host:port of the probe port
    database: str  # SQLAlchemy URL
    migrate: bool  # whether an older database is brought to today's tables, or refused
    blobs: Path | Bucket
    retention: Retention
    key: Path  # the aggregator's own signing key; made when it is first needed
    metrics: str  # host:port of the metrics, plain HTTP; empty: none are served
    log: str  # json or console; empty: console on a terminal
    bounds: Bounds
    tracking: str  # MLflow tracking URI; empty: nothing is tracked
    artifacts: str  # where MLflow keeps models of new experiments; empty: the tracking server's default
    mlflow_run_id: str  # the MLflow run that the first run adopts; empty: each run makes its own
    rules: Rules | None  # of the registry gate, by which alone a verdict counts; None: any
    takeover_s: float  # how long another aggregator may take to let go of the database
    lost_after_s: float
    drain_s: float  # how long uploads under way may take once it is told to stop
    clock_skew_s: float  # how far the database's newest event may be ahead of this machine's clock
    tls: Files | None  # certificate, key and CA of the data port; None: plaintext on loopback
    revoked: Path | None  # the list of serials that are let in no more
    while_stdin: bool

    def as_json(self) -> str:
        """The settings as one line for the log, without the credentials that a URL may hold."""
        shown = {
            name: without_password(value) if isinstance(value, str) else value for name, value in asdict(self).items()
        }
        return json.dumps(shown, default=str)


def read_settings(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads flags, and the environment where a flag is not given.

    Raises:
        InvalidInput: a value that cannot be used, or a data port open to others than this machine.
    """
    flags = parser(environment).parse_args(argv)
    read_listening("listen", flags.listen)
    read_listening("health", flags.health)
    check_lasting(flags.database)
    blobs = read_place(flags.blobs)
    tls = _files(flags)
    if tls is None:
        check_loopback(flags.listen)
    return Settings(
        listen=flags.listen,
        health=flags.health,
        database=flags.database,
        migrate=flags.migrate or _switched_on("migrate", environment),
        blobs=blobs,
        retention=read_retention(flags.gc_grace, flags.keep_updates, flags.keep_states),
        key=Path(flags.key) if flags.key else _key_beside(flags.database, blobs),
        metrics=flags.metrics,
        log=flags.log,
        bounds=_bounds(flags),
        tracking=flags.tracking,
        artifacts=flags.artifacts,
        mlflow_run_id=environment.get("MLFLOW_RUN_ID", ""),
        rules=load_rules(Path(flags.gate_rules)) if flags.gate_rules else None,
        takeover_s=_seconds("takeover", flags.takeover),
        lost_after_s=_seconds("lost-after", flags.lost_after),
        drain_s=_seconds("drain", flags.drain),
        clock_skew_s=_seconds("clock-skew", flags.clock_skew),
        while_stdin=flags.while_stdin,
        tls=tls,
        revoked=Path(flags.revoked) if flags.revoked else None,
    )


def check_loopback(address: str) -> None:
    """Raises InvalidInput unless only this machine can reach `address`: without TLS nobody proves who they are."""
    host = read_listening("listen", address).host
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InvalidInput(
            f"listen: {address} can be reached from outside, which needs TLS; use 127.0.0.1 or [::1], "
            "or set tls-certificate"
        )


def _files(flags: argparse.Namespace) -> Files | None:
    paths = (Path(each) if each else None for each in (flags.tls_certificate, flags.tls_key, flags.tls_ca))
    files = given_files(*paths)
    if flags.revoked and files is None:
        raise InvalidInput("revoked is a list of certificates, and the data port asks for none; set tls-certificate")
    return files


def _key_beside(database: str, blobs: Path | Bucket) -> Path:
    file = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", database)
    if file:
        return Path(file[1]).with_suffix(".key")
    if isinstance(blobs, Path):
        return blobs.with_name("aggregator.key")
    raise InvalidInput("key: neither database nor blobs is a file or folder to keep it beside; set key to a file")


def _switched_on(flag: str, environment: Mapping[str, str]) -> bool:
    value = environment.get(variable(flag), "")
    if value not in ("", "0", "1"):
        raise InvalidInput(f"{variable(flag)} is {value[:80]!r}; set it to 1 or 0")
    return value == "1"


def _seconds(flag: str, text: str) -> float:
    return _positive(flag, text, "number of seconds")


def _positive(flag: str, text: str, what: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not (isfinite(seconds) and seconds > 0):
        raise InvalidInput(f"{flag}: {text!r} is no {what} above 0")
    return seconds


def _bounds(flags: argparse.Namespace) -> Bounds:
    """The bounds; raises InvalidInput, naming the flag, for one that is no count or number within reason."""
    values: dict[str, float] = {}
    for each in fields(Bounds):
        flag, text = each.name.replace("_", "-"), getattr(flags, each.name)
        if each.type is not int and each.type != "int":
            values[each.name] = number = _positive(flag, text, "number")
            if not LEAST <= number <= MOST:
                raise InvalidInput(f"{flag}: {text!r} is no number from {LEAST:g} to {MOST}")
            continue
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= MOST):
            raise InvalidInput(f"{flag}: {text!r} is no whole number from 1 to {MOST}")
        values[each.name] = int(text)
    return Bounds(**values)  # type: ignore[arg-type]  # whole numbers where it asks for them
