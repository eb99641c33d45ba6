"""Who a certificate speaks for: one URI, `deerfield://<federation>/<role>/<name>`; an aggregator's has no name.

A name may hold a space, which a URI may not: it stands there as %20. Each peer has one spelling, so that two URIs are
of one peer exactly if they are equal.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from urllib.parse import quote, unquote

from deerfield.errors import InvalidInput
from deerfield.runspec import NAME

SCHEME = "deerfield://"
FORM = "deerfield://<federation>/<site|operator|observer>/<name> or deerfield://<federation>/aggregator"
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"  # of a host name, RFC 1123
HOST_CHARS = 253

PeerRole: TypeAlias = Literal["site", "operator", "observer", "aggregator"]
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
ROLES: dict[str, PeerRole] = {role: role for role in get_args(PeerRole)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One party of a federation; `name` is empty for its aggregator and for nobody else."""

    federation: str
    role: PeerRole
    name: str = ""

    @property
    def uri(self) -> str:
        """What stands in the peer's certificate."""
        parts = [quote(self.federation, safe=""), self.role]
        return SCHEME + "/".join(parts + ([quote(self.name, safe="")] if self.name else []))


def make_peer(federation: str, role: PeerRole, name: str = "") -> Peer:
    """The peer, its names checked.

    Raises:
        InvalidInput: a name breaks the rule for names of sites, is missing, or is an aggregator's.
    """
    check_name("federation", federation)
    if role != "aggregator":
        check_name(role, name)
    elif name:
        raise InvalidInput(f"{name[:80]!r} names an aggregator, of which a federation has one; leave the name out")
    return Peer(federation=federation, role=role, name=name)


def parse_peer(uri: str) -> Peer:
    """The peer of a URI.

    Raises:
        InvalidInput: it does not have the form, or is spelt otherwise than the peer's own URI.
    """
    wrong = InvalidInput(f"{uri[:200]!r} is no deerfield identity; its form is {FORM}")
    federation, role, name = (*uri.removeprefix(SCHEME).split("/"), "", "")[:3]
    if role not in ROLES:
        raise wrong
    try:
        peer = make_peer(unquote(federation), ROLES[role], unquote(name))
    except InvalidInput:
        raise wrong from None
    if peer.uri != uri:
        raise wrong
    return peer


def check_name(what: str, name: str) -> None:
    """Raises InvalidInput unless `name` may be the name of a site, which is the rule for every name."""
    if re.fullmatch(NAME.removesuffix("$"), name) is None:
        raise InvalidInput(
            f"{name[:80]!r} cannot be the name of the {what}; 1 to 63 letters, digits, dots, underscores, "
            "hyphens and spaces, a letter or digit first"
        )


def parse_host(text: str) -> str | Address:
    """An IP address, or a host name in small letters.

    Raises:
        InvalidInput: it is neither; a pattern with * is not, because it would speak for other machines too.
    """
    try:
        return ipaddress.ip_address(text if "%" not in text else "")  # a zone is of one machine, not of an address
    except ValueError:
        name = text.lower()
    if len(name) > HOST_CHARS or re.fullmatch(rf"{LABEL}(?:\.{LABEL})*", name) is None:
        raise InvalidInput(f"{text[:80]!r} is no host name or IP address, such as aggregator.example.org")
    if re.fullmatch(r"[0-9.]+", name):
        raise InvalidInput(f"{text[:80]!r} is no IP address; one has four numbers of 0 to 255")
    return name
