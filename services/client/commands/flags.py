"""What several commands of a site ask for. A flag that is not given is read from its environment variable."""

import argparse
import os
from pathlib import Path
from typing import TypeAlias

from deerfield.errors import InvalidInput

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
OWN_VARIABLES = {"metrics": "DEERFIELD_SITE_METRICS"}  # an aggregator on the same machine reads DEERFIELD_METRICS


def variable(flag: str) -> str:
    """The environment variable that stands in for a flag."""
    return OWN_VARIABLES.get(flag, f"DEERFIELD_{flag.upper().replace('-', '_')}")


def add(command: argparse.ArgumentParser, flag: str, text: str) -> None:
    """Adds a flag of text, empty where nobody gives it."""
    name = variable(flag)
    command.add_argument(f"--{flag}", default=os.environ.get(name, ""), help=f"{text} [{name}]")


def add_path(command: argparse.ArgumentParser, flag: str, text: str) -> None:
    """Adds a flag of a path, None where nobody gives it."""
    name = variable(flag)
    command.add_argument(f"--{flag}", type=_path, default=os.environ.get(name, ""), help=f"{text} [{name}]")


def add_site(command: argparse.ArgumentParser) -> None:
    """Who the site is, what it may do, and how it reaches its aggregator."""
    add(command, "site", "name of the site, as in its certificate")
    add(command, "aggregator", "HOST:PORT")
    add_path(command, "policy", "the policy file (docs/policy.md)")
    add_tls(command)


def add_tls(command: argparse.ArgumentParser) -> None:
    """The three files of a certificate, and the way through a proxy."""
    for flag in ("tls-certificate", "tls-key", "tls-ca"):
        add_path(command, flag, "PEM file; all three of them, or none for an aggregator on loopback")
    add(command, "proxy", "http://HOST:PORT of a CONNECT proxy; default: the environment's")


def add_container(command: argparse.ArgumentParser) -> None:
    """What a container of a site needs beside."""
    add_path(command, "state", "folder of the ledgers, the key and the stored updates")
    add(command, "metrics", "HOST:PORT for Prometheus; default: none")
    add_path(command, "ready", "file to make once settings, policy, certificate and state are valid; gone at the end")
    add(command, "egress-proof", "HOST:PORT[,HOST:PORT]: refuse to start where one of them can be reached")


def need(arguments: argparse.Namespace, *flags: str) -> None:
    """Raises InvalidInput for the first of these flags that nobody has given."""
    for flag in flags:
        if not getattr(arguments, flag.replace("-", "_")):
            raise InvalidInput(f"--{flag} is missing; give it, or set {variable(flag)}")


def _path(text: str) -> Path | None:
    return Path(text) if text else None
