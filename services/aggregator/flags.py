"""The aggregator's flags, each with an environment variable: names, defaults and what `--help` says of them."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, fields

from services.aggregator.assembly import DRAIN_S, LOST_AFTER_S
from services.aggregator.bounds import Bounds
from services.aggregator.clock import CLOCK_SKEW_S
from services.aggregator.sql.database import TAKEOVER_S
from services.databases import FORMS
from services.objects import ACCESS, FORM, SECRET

ABOUT = (
    "Serves a federation: hands tasks to its sites, takes their updates in, and publishes what they have trained. "
    "Every flag is also an environment variable, which stands in brackets; times are in seconds unless they say "
    "otherwise. docs/operations.md shows how to start one."
)
SECONDS, FILE, ADDRESS = "SECONDS", "FILE", "HOST:PORT"


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `otherwise` says what an empty default means."""

    name: str
    value: str  # what kind of value it takes
    default: str
    text: str
    otherwise: str = ""


PLACES = (
    Flag("listen", ADDRESS, "127.0.0.1:8600", "data port, for sites and operators; port 0 takes a free one"),
    Flag("health", ADDRESS, "127.0.0.1:8601", "port for probes, plaintext"),
    Flag("metrics", ADDRESS, "", "port for Prometheus, plain HTTP", "no metrics are served"),
    Flag("database", "URL", "sqlite:///deerfield.db", FORMS),
    Flag("blobs", "WHERE", "blobs", f"folder of tensors, or {FORM}; credentials by {ACCESS} and {SECRET}, or ..._FILE"),
    Flag("key", FILE, "", "signing key, made when there is none", "beside an SQLite database, else beside the blobs"),
    Flag("tracking", "URI", "", "MLflow tracking URI", "nothing is tracked"),
    Flag("artifacts", "URI", "", "folder or URI for the models of new MLflow experiments", "the tracking server's"),
    Flag("gate-rules", FILE, "", "rules of the registry gate: a verdict by others moves nothing", "any will do"),
    Flag("log", "FORM", "", "form of the log: json or console", "console on a terminal, else json"),
)
IDENTITY = (
    Flag("tls-certificate", FILE, "", "the aggregator's certificate (PEM); callers must then have one too", "no TLS"),
    Flag("tls-key", FILE, "", "its private key (PEM)", "no TLS"),
    Flag("tls-ca", FILE, "", "the CA that callers' certificates are checked against (PEM)", "no TLS"),
    Flag("revoked", FILE, "", "revoked.json of deerfield pki revoke", "nothing is revoked"),
)
TIMES = (
    Flag("takeover", SECONDS, f"{TAKEOVER_S:g}", "how long to wait for another aggregator to let go of the database"),
    Flag("lost-after", SECONDS, f"{LOST_AFTER_S:g}", "silence after which a site is not waited for"),
    Flag("drain", SECONDS, f"{DRAIN_S:g}", "how long uploads under way have to finish after SIGTERM"),
    Flag("clock-skew", SECONDS, f"{CLOCK_SKEW_S:g}", "how far the newest event may be ahead of this machine's clock"),
    Flag("gc-grace", "TIME", "24h", "how long a tensor is kept that nothing names: seconds, or as 90m, 24h, 7d"),
    Flag("keep-updates", "TIME", "7d", "how long updates are kept after their phase has closed"),
    Flag("keep-states", "TIME", "", "how long superseded states are kept after their run has ended", "for ever"),
)
LIMITS = tuple(
    Flag(
        each.name.replace("_", "-"),
        SECONDS if each.name.endswith("_s") else "N",
        f"{each.default:g}",
        str(each.metadata["help"]),
    )
    for each in fields(Bounds)
)
GROUPS = {
    "where it listens and keeps things": PLACES,
    "who may call (docs/pki.md)": IDENTITY,
    "how long it waits, and keeps things": TIMES,
    "limits (docs/protocol.md)": LIMITS,
}


def variable(flag: str) -> str:
    """The environment variable that stands in for a flag."""
    return f"DEERFIELD_{flag.upper().replace('-', '_')}"


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Reads the flags, and from the environment those that are not given."""
    found = argparse.ArgumentParser(
        prog="python -m services.aggregator", usage="%(prog)s [--FLAG VALUE ...]", description=ABOUT
    )
    found.add_argument("--while-stdin", action="store_true", help="shut down when stdin closes")
    told = f"migrate a database of an earlier version first, instead of refusing it; or set {variable('migrate')}=1"
    found.add_argument("--migrate", action="store_true", help=told)
    for title, flags in GROUPS.items():
        group = found.add_argument_group(title)
        for flag in flags:
            name = variable(flag.name)
            # not what the environment holds, which may be a secret
            told = f"{flag.text} (default: {flag.default or flag.otherwise}) [{name}]"
            default = environment.get(name, flag.default)
            group.add_argument(f"--{flag.name}", metavar=flag.value, default=default, help=told)
    return found
