"""How a site reaches its aggregator: by its certificate, or in plaintext where none is given."""

import argparse
from datetime import datetime

import grpc
import structlog

from deerfield.certificates import Files, load, utc_now
from deerfield.errors import InvalidInput
from deerfield.wire.channel import connect, connect_tls


def given(flags: argparse.Namespace) -> Files | None:
    """The files of the three --tls flags, or None; raises InvalidInput for some without the others."""
    paths = (flags.tls_certificate, flags.tls_key, flags.tls_ca)
    if None not in paths:
        return Files(certificate=paths[0], key=paths[1], authority=paths[2])
    if any(paths):
        raise InvalidInput(
            "--tls-certificate, --tls-key and --tls-ca belong together; give all three, or none for an aggregator on "
            "loopback"
        )
    return None


def open_channel(address: str, site: str, files: Files | None) -> grpc.Channel:
    """A channel for `site`; it connects when it is first used.

    Raises:
        InvalidInput: the files cannot be used, or are another's.
    """
    if files is None:
        return connect(address, role="site", site=site)
    own = load(files, utc_now())
    if (own.peer.role, own.peer.name) != ("site", site):
        raise InvalidInput(f"{files.certificate} is of {own.peer.uri}, not of site {site}; give the site's own")
    for warning in own.warnings:
        structlog.get_logger().warning("certificate", sentence=warning)
    return connect_tls(address, own)


def expires(files: Files | None) -> datetime | None:
    """When the site's certificate does; None without one."""
    return load(files, utc_now()).ends if files else None
