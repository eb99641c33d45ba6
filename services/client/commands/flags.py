"""What several commands of a site ask for."""

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_tls(command: argparse.ArgumentParser) -> None:
    """The three files of a certificate, and the way through a proxy."""
    for flag in ("--tls-certificate", "--tls-key", "--tls-ca"):
        command.add_argument(flag, type=Path, help="PEM file; all three of them, or none for an aggregator on loopback")
    command.add_argument("--proxy", default="", help="http://HOST:PORT of a CONNECT proxy; default: the environment's")
