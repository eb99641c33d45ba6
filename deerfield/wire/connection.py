"""A lasting connection to an aggregator by certificate: renewed with its files, and its failures explained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import grpc

from deerfield.certificates import Credentials, utc_now
from deerfield.errors import DeerfieldError, InvalidInput
from deerfield.renewal import Held
from deerfield.wire.backoff import ONE_MINUTE, Backoff
from deerfield.wire.channel import connect, connect_tls
from deerfield.wire.client import RunsClient
from deerfield.wire.handshake import Way, cause
from deerfield.wire.renewing import Renewing, Told

Say = Callable[[str], None]
PEOPLE = ("operator", "observer")


def secure(way: Way, check: Callable[[Credentials], None], told: Told) -> grpc.Channel:
    """A channel by the certificate in the files; it connects when it is first used.

    Raises:
        InvalidInput: there are no files, one cannot be used, or `check` refuses their owner.
    """
    if way.files is None:
        raise InvalidInput("a connection by certificate needs a certificate, its key and the CA; name the files")
    held = Held(way.files, check, utc_now)
    return Renewing(held, lambda own: connect_tls(way.address, own, way.proxy), told)


def explaining(way: Way, say: Say = lambda sentence: None) -> Callable[[DeerfieldError], DeerfieldError]:
    """For a `Backoff`: the cause of a failure to connect, found by a handshake, and said."""

    def explained(error: DeerfieldError) -> DeerfieldError:
        found = cause(way) or error
        say(str(found))
        return found

    return explained


@contextmanager
def open_runs(way: Way, say: Say, backoff: Backoff = ONE_MINUTE) -> Iterator[RunsClient]:
    """A client of `Runs` for a person's command; without files in plaintext, which is for loopback alone.

    `say` is told what is worth a line on stderr; what cannot be connected raises the cause, in one sentence.

    Raises:
        InvalidInput: the files cannot be used, or are no operator's or observer's.
    """
    if way.files is None:
        channel = connect(way.address, role="operator")
    else:
        channel = secure(way, _check_person, Told(renewed=lambda sentence: None, warned=say))
    with channel:
        yield RunsClient(channel, backoff=replace(backoff, explain=explaining(way)))


def _check_person(own: Credentials) -> None:
    if own.peer.role not in PEOPLE:
        raise InvalidInput(f"the certificate is of {own.peer.uri}; this command needs an operator's or an observer's")
