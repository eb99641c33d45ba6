"""How a site reaches its aggregator: by its certificate, or in plaintext where none is given."""

import argparse
import time
from collections.abc import Callable
from datetime import datetime

import grpc
import structlog

from deerfield.certificates import Credentials, Files, given_files, load, utc_now
from deerfield.endpoint import read_target
from deerfield.errors import AGAIN, DeerfieldError, InvalidInput, NotAuthenticated
from deerfield.restoration import Trust
from deerfield.wire import proxy
from deerfield.wire.backoff import Backoff
from deerfield.wire.channel import connect
from deerfield.wire.connection import explaining, secure
from deerfield.wire.handshake import Way
from deerfield.wire.renewing import Told

SAY_S = 60.0  # between two lines of one kind of cause

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
    return secure(way, lambda own: check_owner(own, files, site), Told(renewed=_say_renewed, warned=warn))


def check_owner(own: Credentials, files: Files, site: str) -> None:
    """Raises InvalidInput for a certificate of anybody but `site`."""
    if (own.peer.role, own.peer.name) != ("site", site):
        raise InvalidInput(f"{files.certificate} is of {own.peer.uri}, not of site {site}; give the site's own")


def patience(way: Way, clock: Callable[[], float] = time.monotonic) -> Backoff:
    """For ever, also where the certificate is refused, which another one in its files mends; `Waiting` tells of it."""
    waiting = Waiting(clock)
    again = (*AGAIN, NotAuthenticated)
    return Backoff(again=again, explain=explaining(way), tell=waiting.tell, answered=waiting.answered)


class Waiting:
    """Says what keeps a site from its aggregator: when it begins, when its kind changes, and once a minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._kind: type[DeerfieldError] | None = None
        self._said_at = 0.0

    def tell(self, cause: DeerfieldError, wait_s: float) -> None:
        """There will be another attempt in `wait_s`."""
        now = self._clock()
        since = self._since = now if self._since is None else self._since
        if type(cause) is self._kind and now - self._said_at < SAY_S:
            return
        self._kind, self._said_at = type(cause), now
        log.error("no connection", sentence=str(cause), tried_s=round(now - since), again_s=round(wait_s))

    def answered(self) -> None:
        """The aggregator has answered."""
        if self._since is not None:
            log.info("connected again", after_s=round(self._clock() - self._since))
            self._since = self._kind = None


def warn(sentence: str) -> None:
    """A line in the log of somebody with a certificate."""
    log.warning("certificate", sentence=sentence)


def expires(files: Files | None) -> Callable[[], datetime] | None:
    """Asks when the site's certificate does, which may have been renewed; None without one."""
    return (lambda: load(files, utc_now()).ends) if files else None


def _say_renewed(sentence: str) -> None:
    log.info("certificate renewed", sentence=sentence)
