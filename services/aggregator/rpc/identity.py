"""Who is calling. Never read from a message: a servicer is handed one of these functions and asks nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import grpc

from deerfield.errors import NotMember
from deerfield.exchange import Role
from deerfield.wire.channel import ROLE_KEY, SITE_KEY

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
NAME_CHARS = 63  # of a site
ROLES: Mapping[str, Role] = {word: word for word in get_args(Role)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller: a site by its name, an operator, or an observer, who may only look at runs."""

    role: Role
    site: str = ""
    name: str = ""  # of a person, where a certificate says it


Identify: TypeAlias = Callable[[Context], Identity]


def caller(identify: Identify, context: Context, *roles: Role) -> str:
    """The site of a caller that must have one of `roles`; empty for people. Raises NotMember for any other caller."""
    identity = identify(context)
    if identity.role not in roles:
        raise NotMember(f"this call is for a caller of role {' or '.join(roles)}, not {identity.role}")
    return identity.site


def from_metadata(context: Context) -> Identity:
    """The caller as its metadata says, which is to be believed on loopback alone; raises NotMember without one."""
    metadata = dict(context.invocation_metadata() or ())
    role = ROLES.get(str(metadata.get(ROLE_KEY, "")))
    site = str(metadata.get(SITE_KEY, ""))
    if role is None or (role == "site" and not site):
        raise NotMember(f"the call names no caller; set {ROLE_KEY} ({', '.join(ROLES)}) and, for a site, {SITE_KEY}")
    return Identity(role=role, site=site)


def claimed(context: Context) -> Mapping[str, str]:
    """Whom the caller's metadata names, for the audit log: as they stand there, no longer than a name may be."""
    metadata = dict(context.invocation_metadata() or ())
    role, name = (str(metadata.get(key, ""))[:NAME_CHARS] for key in (ROLE_KEY, SITE_KEY))
    return {"role": role or "unknown", **({"name": name} if name else {}), "by": "metadata"}
