"""The file that says which Secrets an installation needs: docs/cluster.md explains its keys."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from deerfield.errors import InvalidInput
from deerfield.identity import LABEL, ROLES, Peer, check_name, make_peer, parse_host
from deerfield.runfile import mapping, parse
from deerfield.runspec import Section

SECRET_CHARS = 253
KEY = r"[-._a-zA-Z0-9]+"  # of a Secret's data
NEEDS = {
    "ca": (),
    "aggregator": ("hosts",),
    "operator": ("name",),
    "observer": ("name",),
    "site": ("name",),
    "sites": ("names",),
    "password": ("username",),
}  # by kind, which keys it has beside these two


class Entry(Section):
    """One Secret that must exist."""

    secret: str = Field(max_length=SECRET_CHARS, description="the Secret's name")
    kind: Literal["ca", "aggregator", "operator", "observer", "site", "sites", "password"] = Field(
        description="what is in it"
    )
    name: str = Field("", description="operator, observer, site: the name in the certificate")
    names: tuple[str, ...] = Field((), description="sites: the names in the certificates")
    hosts: tuple[str, ...] = Field((), description="aggregator: what sites reach it by")
    username: str = Field("", max_length=64, description="password: whose it is")

    @field_validator("secret")
    @classmethod
    def _can_be_called_so(cls, value: str) -> str:
        if re.fullmatch(rf"{LABEL}(?:\.{LABEL})*", value) is None:
            raise ValueError(f"{value!r} cannot be the name of a Secret; small letters, digits, hyphens and dots")
        return value

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> "Entry":
        needed = NEEDS[self.kind]
        for key in ("name", "names", "hosts", "username"):
            if key in needed and not getattr(self, key):
                raise ValueError(f"{self.secret} is of kind {self.kind} and has no {key}")
            if key not in needed and getattr(self, key):
                raise ValueError(f"{self.secret} is of kind {self.kind}, which has no {key}; take it out")
        if twice := [name for name in self.names if self.names.count(name) > 1]:
            raise ValueError(f"{self.secret} names {twice[0]} twice")
        if bad := [name for name in self.names if re.fullmatch(KEY, name) is None or name == "ca"]:
            raise ValueError(
                f"{self.secret} names {bad[0]!r}, which no key of a Secret can have (letters, digits, dots, hyphens, "
                "underscores, not ca); give that site a Secret of its own, of kind site"
            )
        return self

    def peers(self, federation: str) -> Mapping[str, Peer]:
        """Whose certificates it has, by the names of their keys: `tls` where it has one."""
        if self.kind == "sites":
            return {name: make_peer(federation, "site", name) for name in self.names}
        role = ROLES.get(self.kind)  # a CA has none, nor has a password
        return {"tls": make_peer(federation, role, self.name)} if role else {}


class Wanted(Section):
    """All Secrets that must exist, and what their certificates have in common."""

    federation: str = Field(description="in every certificate")
    days: int = Field(365, ge=1, description="how long certificates are valid that are made")
    labels: Mapping[str, str] = Field({}, description="of the Secrets that are made")
    secrets: tuple[Entry, ...] = Field(min_length=1, description="the Secrets")

    @model_validator(mode="after")
    def _fits_together(self) -> "Wanted":
        names = [entry.secret for entry in self.secrets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"secrets: {twice[0]} stands there twice")
        authorities = [entry.secret for entry in self.secrets if entry.kind == "ca"]
        if len(authorities) > 1:
            raise ValueError(f"secrets: {' and '.join(authorities)} are both of kind ca; a federation has one")
        if not authorities and any(entry.kind != "password" for entry in self.secrets):
            raise ValueError("secrets: none is of kind ca, and certificates need one that signs them")
        return self

    @property
    def authority(self) -> Entry | None:
        """The CA's Secret; None where no certificate is wanted."""
        return next((entry for entry in self.secrets if entry.kind == "ca"), None)

    @property
    def others(self) -> Sequence[Entry]:
        """The Secrets but for the CA's."""
        return tuple(entry for entry in self.secrets if entry.kind != "ca")


def load(path: Path) -> Wanted:
    """Reads and validates such a file; raises InvalidInput, in one sentence."""
    wanted = parse(Wanted, mapping(path, "a list of wanted Secrets", "secrets"), str(path))
    try:
        check_name("federation", wanted.federation)
        for entry in wanted.secrets:
            entry.peers(wanted.federation)
            _ = [parse_host(host) for host in entry.hosts]
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    return wanted
