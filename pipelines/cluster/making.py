"""`deerfield cluster secrets`: makes the Secrets that are missing, and says what is wrong with those that are there.

It only ever creates. Of two that run at once the first one's Secret stays, and the other's was never used.
"""

import secrets as randomness
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from deerfield.certificates import days_left
from deerfield.errors import InvalidInput
from deerfield.identity import Peer, parse_host
from pipelines.cluster import looking
from pipelines.cluster.kubernetes_secrets import Secret, Secrets
from pipelines.cluster.wanted import Entry, Wanted
from pipelines.pki import pki_signer
from pipelines.pki.pki_authority import CERTIFICATE, KEY
from pipelines.pki.pki_request import check_hosts, key_pem
from pipelines.pki.pki_signer import Signer
from pipelines.pki.pki_signing import Wish, issue

PASSWORD_BYTES = 24  # of randomness: 32 characters
NEVER = "a Secret is never overwritten; delete one that should be made anew (kubectl delete secret), and run this again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """The Secrets of one file; `say` gets a line for each, `warn` what a person should mend."""

    wanted: Wanted
    secrets: Secrets
    now: datetime
    say: Callable[[str], object]
    warn: Callable[[str], object]

    def ensure(self) -> None:
        """Makes each Secret that is missing, the CA's first.

        Raises:
            InvalidInput: something must be signed, and the CA cannot: it is gone, or of another federation.
            InvalidInput, Unreachable: as each call of `secrets`.
        """
        found = [self.secrets.get(entry.secret) for entry in self.wanted.secrets]
        held = {secret.name: secret for secret in found if secret is not None}
        for secret in held.values():
            self.say(f"exists  {looking.describe(secret)}")
        missing = [entry for entry in self.wanted.others if entry.secret not in held]
        signer = self._authority(held, [entry for entry in missing if entry.kind != "password"])
        for entry in missing:
            self._create(self._content(entry, signer), held)
        warnings = [
            line for entry in self.wanted.secrets for line in looking.warnings(entry, self.wanted, held, self.now)
        ]
        for warning in (*warnings, NEVER) if warnings else ():
            self.warn(warning)

    def _authority(self, held: dict[str, Secret], unsigned: list[Entry]) -> Signer | None:
        """Makes the CA where there has been none; answers it if something is to be signed."""
        entry = self.wanted.authority
        if entry is None:
            return None
        signed = [each.secret for each in self.wanted.others if each.secret in held and each.kind != "password"]
        if entry.secret not in held and signed and (late := self.secrets.get(entry.secret)) is not None:
            held[entry.secret] = late  # made, like what it has signed, since we looked
        if entry.secret not in held and not signed:
            certificate, key = pki_signer.generate(self.wanted.federation, self.now)
            data = {CERTIFICATE: certificate.public_bytes(Encoding.PEM), KEY: key_pem(key)}
            self._create(Secret(name=entry.secret, type="Opaque", data=data), held)
        if not unsigned:
            if entry.secret not in held:
                self.say(f"absent  {entry.secret}: the CA is kept elsewhere, and nothing is to be signed")
            return None
        if entry.secret not in held:
            raise InvalidInput(
                f"Secret {entry.secret} is not there, and {signed[0]}, which its CA has signed, is: nothing can sign "
                f"{unsigned[0].secret}. Restore {entry.secret}, or make {unsigned[0].secret} by the CA that you keep "
                f"elsewhere, or delete {', '.join(signed)} to begin with a new CA"
            )
        return self._signer(held[entry.secret])

    def _signer(self, secret: Secret) -> Signer:
        """The CA that a Secret holds; raises InvalidInput where it cannot sign for this federation."""
        certificate, key = secret.part(CERTIFICATE), secret.part(KEY)
        places = (secret.place(CERTIFICATE), secret.place(KEY))
        signer, federation = pki_signer.parse(certificate, key, places, self.now)
        if federation != self.wanted.federation:
            raise InvalidInput(
                f"Secret {secret.name} holds the CA of federation {federation!r}, and {self.wanted.federation!r} is "
                "wanted; a federation keeps its name"
            )
        return signer

    def _content(self, entry: Entry, signer: Signer | None) -> Secret:
        """A Secret with new keys and their certificates, or with a password, which nobody signs."""
        if signer is None or entry.kind == "password":
            text = randomness.token_urlsafe(PASSWORD_BYTES)
            data = {"username": entry.username.encode(), "password": text.encode()}
            return Secret(name=entry.secret, type="kubernetes.io/basic-auth", data=data)
        data = {CERTIFICATE: signer.certificate.public_bytes(Encoding.PEM)}
        for name, peer in entry.peers(self.wanted.federation).items():
            data |= self._issued(name, peer, entry, signer)
        return Secret(name=entry.secret, type="Opaque" if entry.kind == "sites" else "kubernetes.io/tls", data=data)

    def _issued(self, name: str, peer: Peer, entry: Entry, signer: Signer) -> dict[str, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        hosts = check_hosts(peer, [parse_host(host) for host in entry.hosts])
        days = min(self.wanted.days, days_left(signer.certificate, self.now))  # nothing outlives its CA
        certificate = issue(signer, Wish(peer=peer, hosts=hosts, key=key.public_key()), days, self.now)
        return {f"{name}.crt": certificate.public_bytes(Encoding.PEM), f"{name}.key": key_pem(key)}

    def _create(self, secret: Secret, held: dict[str, Secret]) -> None:
        """Makes a Secret, unless somebody was faster; what is there then is in `held`."""
        if self.secrets.create(secret, self.wanted.labels):
            held[secret.name] = secret
            self.say(f"made    {looking.describe(secret)}")
        elif (theirs := self.secrets.get(secret.name)) is not None:
            held[secret.name] = theirs
            self.say(f"exists  {looking.describe(theirs)}, made by another just now")
        else:
            raise InvalidInput(f"Secret {secret.name} was made by another and deleted just now; run this again")
