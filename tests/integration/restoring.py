"""What a test of a restore needs: an aggregator as a process over TLS, and sites with real ledgers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deerfield.certificates import Files, load
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect_tls
from deerfield.wire.client import SiteClient
from services.client import connection
from services.client.custody.custody import Custody
from services.client.site import Site
from tests.integration.federation import command
from tests.pki import NOW
from tests.unit.client.sites import Bench, policy

QUICK = Backoff(patience_s=60, first_s=0.2, last_s=1.0)


def tls(files: Files) -> list[str]:
    return ["--tls-certificate", files.certificate, "--tls-key", files.key, "--tls-ca", files.authority]


@contextmanager
def aggregator(folder: Path, files: Files, database: str, listen: str = "127.0.0.1:0"):
    """(process, address) of an aggregator; it is killed at the end, and may be before."""
    arguments = ["--listen", listen, "--health", "127.0.0.1:0", "--database", database, "--blobs", folder / "blobs"]
    arguments += ["--key", folder.parent / "aggregator.key", *tls(files)]
    program = [sys.executable, "-m", "services.aggregator", *map(str, arguments)]
    with (folder / "log").open("ab") as log, subprocess.Popen(program, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()
            yield process, json.loads(line)["listening"]
        finally:
            process.kill()


@contextmanager
def site(name: str, files: Files, address: str, run: str, state: Path, *, trusts: bool = True) -> Iterator[Site]:
    """A site without a model: its custody, link and certificates are real."""
    rules = policy(population={"epsilon": 50.0})
    trust = connection.trust(files) if trusts else None
    with ExitStack() as stack:
        custody = stack.enter_context(Custody(name, rules, state, trust=trust))
        channel = stack.enter_context(connect_tls(address, load(files, NOW)))
        link = SiteClient(channel, run=run, backoff=QUICK)
        yield Site(name=name, link=link, account=custody.account, build=lambda _: Bench([]), beats=False)


def deerfield(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        command(*map(str, arguments)), env=environment, capture_output=True, text=True, timeout=120, check=False
    )
