"""Tries what a site would start with, point by point, without its state: beside a site that is running, too."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from deerfield.errors import DeerfieldError
from services.client.commands import flags


def add(commands: flags.Commands) -> None:
    """Adds `check`."""
    check = commands.add_parser("check", help="try a site's settings and its aggregator, and change nothing")
    flags.add_site(check)
    check.set_defaults(command=_check)


def _check(arguments: argparse.Namespace) -> None:
    """Prints a line for each point; the exit code is that of the first fault."""
    faults = []
    for point in points(arguments):
        print(point, flush=True)
        faults += [point.fault] if point.fault else []
    if faults:
        raise faults[0]


@dataclass(frozen=True, slots=True)
class Point:
    """What was tried, and what came of it."""

    name: str
    found: str
    fault: DeerfieldError | None = None

    def __str__(self) -> str:
        """One line."""
        return f"{self.name:<12}{'wrong' if self.fault else 'ok':<7}{self.fault or self.found}"


def points(arguments: argparse.Namespace) -> Iterator[Point]:
    """Settings, policy, certificate, and whether the aggregator takes this site, as each is found out.

    The aggregator is asked only where all that leads to it is right; it writes nothing down about the site.
    """
    settings = _tried("settings", lambda: _settings(arguments))
    yield settings
    yield _tried("policy", lambda: _policy(arguments))
    certificate = _tried("certificate", lambda: _certificate(arguments))
    yield certificate
    if not (settings.fault or certificate.fault):
        yield _tried("aggregator", lambda: _aggregator(arguments))


def _tried(name: str, attempt: Callable[[], str]) -> Point:
    try:
        return Point(name, attempt())
    except DeerfieldError as fault:
        return Point(name, "", fault)


def _settings(arguments: argparse.Namespace) -> str:
    from services.client import connection

    flags.need(arguments, "site", "aggregator")
    way = connection.way(arguments)
    through = f", through the proxy {way.proxy}" if way.proxy else ""
    return f"site {arguments.site}, aggregator {way.address}{through}"


def _policy(arguments: argparse.Namespace) -> str:
    from services.client import policy

    flags.need(arguments, "policy")
    rules = policy.load(arguments.policy)
    populations = ", ".join(sorted(rules.populations)) or "none"
    return f"{arguments.policy}: populations: {populations}; base models: {len(rules.models)}"


def _certificate(arguments: argparse.Namespace) -> str:
    from deerfield.certificates import load, utc_now
    from services.client import connection

    files = connection.given(arguments)
    if files is None:
        return "none, which is for an aggregator on this machine"
    own = load(files, utc_now())
    connection.check_owner(own, files, arguments.site)
    return f"{own.peer.uri}, until {own.ends:%Y-%m-%d %H:%M} UTC"


def _aggregator(arguments: argparse.Namespace) -> str:
    from deerfield.wire import health
    from deerfield.wire.backoff import ONE_MINUTE
    from deerfield.wire.connection import explaining
    from services.client import connection

    way = connection.way(arguments)
    with connection.open_channel(way, arguments.site) as channel:
        health.ask(channel, replace(ONE_MINUTE, explain=explaining(way)))
    return f"{way.address} takes this site"
