"""How a site reaches its aggregator: by its certificate, or in plaintext where none is given."""

import argparse
from collections.abc import Callable
from datetime import datetime

import grpc
import structlog

from deerfield.certificates import Credentials, Files, given_files, load, utc_now
from deerfield.endpoint import read_target
from deerfield.errors import InvalidInput
from deerfield.restoration import Trust
from deerfield.wire import proxy
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.connection import explaining, secure
from deerfield.wire.handshake import Way
from deerfield.wire.renewing import Told

log = structlog.get_logger()


def given(flags: argparse.Namespace) -> Files | None:
    """The files of the three --tls flags, or None; raises InvalidInput for some without the others."""
    return given_files(flags.tls_certificate, flags.tls_key, flags.tls_ca)


def trust(files: Files | None) -> Trust | None:
    """Whose word this site takes beside its aggregator's: that of its federation's operators, by its CA.

    Raises:
        InvalidInput: the files cannot be used.
    """
    if files is None:
        return None
    own = load(files, utc_now())
    return Trust(federation=own.peer.federation, authority=own.authority)


def way(flags: argparse.Namespace) -> Way:
    """The way to the aggregator that the flags and the environment describe; raises InvalidInput."""
    read_target("--aggregator", flags.aggregator)
    files = given(flags)
    if files is None and flags.proxy:
        raise InvalidInput("--proxy is for a connection over TLS; give --tls-certificate, --tls-key and --tls-ca too")
    chosen = proxy.choose(flags.aggregator, flags.proxy) if files else None
    return Way(address=flags.aggregator, files=files, proxy=chosen)


def open_channel(way: Way, site: str) -> grpc.Channel:
    """A channel for `site`; it connects when it is first used.

    Raises:
        InvalidInput: the files cannot be used, or are another's.
    """
    if way.files is None:
        return connect(way.address, role="site", site=site)
    files = way.files

    def check(own: Credentials) -> None:
        if (own.peer.role, own.peer.name) != ("site", site):
            raise InvalidInput(f"{files.certificate} is of {own.peer.uri}, not of site {site}; give the site's own")

    return secure(way, check, Told(renewed=_say_renewed, warned=warn))


def patience(way: Way) -> Backoff:
    """For ever; what keeps the site from its aggregator is a line in its log each time."""
    return Backoff(explain=explaining(way, lambda sentence: log.error("no connection", sentence=sentence)))


def warn(sentence: str) -> None:
    """A line in the log of somebody with a certificate."""
    log.warning("certificate", sentence=sentence)


def expires(files: Files | None) -> Callable[[], datetime] | None:
    """Asks when the site's certificate does, which may have been renewed; None without one."""
    return (lambda: load(files, utc_now()).ends) if files else None


def _say_renewed(sentence: str) -> None:
    log.info("certificate renewed", sentence=sentence)
