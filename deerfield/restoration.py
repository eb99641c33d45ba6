"""An operator's word that runs go on from a backup: signed by the key of the operator's certificate, checked by sites.

A restored run hands out tasks again that sites have answered before, and each answer costs its patients once more. So a
site takes a new incarnation of a run only where an operator of its own federation says so: an aggregator alone, or
whoever has taken one over, cannot make it train again. Signed is a line that names the context, then the statement.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import verification

from deerfield.certificates import Credentials, is_authority, parse_certificates, parse_key, peer_of, public_key
from deerfield.errors import InvalidInput, NotRestored

CONTEXT = b"deerfield restoration v1\n"
SHOWN = Path("the operator's certificate")  # in messages
PSS = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """A signed statement: {federation, operator, backup, time, runs: {run: incarnation}}."""

    statement: str  # JSON, exactly as it was signed
    certificates: str  # PEM: the operator's, intermediate ones after it
    signature: str  # hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom a site believes."""

    federation: str
    authority: bytes  # PEM: the CA certificates


def sign(own: Credentials, runs: Mapping[str, int], backup: str, now: datetime) -> Restoration:
    """The word of `own`'s owner that `runs` go on under these incarnations from the backup with this sha256.

    Raises:
        InvalidInput: its key is of a kind that cannot sign.
    """
    said = {"operator": own.peer.name, "backup": backup, "time": now.isoformat(), "runs": dict(runs)}
    statement = json.dumps({"federation": own.peer.federation, **said}, sort_keys=True)
    signature = _signed(parse_key(own.key, Path("the operator's key")), CONTEXT + statement.encode())
    return Restoration(statement=statement, certificates=own.certificate.decode(), signature=signature.hex())


def check(restoration: Restoration | None, run: str, incarnation: int, trust: Trust | None, now: datetime) -> str:
    """The name of the operator who has restored `run` as `incarnation`.

    Raises:
        NotRestored: nobody has whom `trust` covers; without one, nobody can be believed.
    """
    which = f"run {run} was restored from a backup (incarnation {incarnation})"
    if restoration is None:
        raise NotRestored(f"{which}, and no operator has signed for that; restore it with an operator's certificate")
    if trust is None:
        raise NotRestored(f"{which}, and this site has no CA to check who signed for that; start it with --tls-ca")
    try:
        chain = parse_certificates(restoration.certificates.encode(), SHOWN)
        _check_chain(chain, trust, now)
        peer = peer_of(chain[0], str(SHOWN))
        _check_signature(public_key(chain[0], str(SHOWN)), restoration)
        runs = json.loads(restoration.statement)["runs"]
    except (InvalidInput, verification.VerificationError, InvalidSignature) as error:
        why = str(error) or "the signature is of something else"
        raise NotRestored(f"{which}, and what was signed for that is not to be believed: {why}") from None
    except (ValueError, KeyError, TypeError):
        raise NotRestored(f"{which}, and what was signed for that names no runs") from None
    if (peer.role, peer.federation) != ("operator", trust.federation):
        raise NotRestored(f"{which}, and {peer.uri} signed for that, who is no operator of {trust.federation!r}")
    if not isinstance(runs, dict) or runs.get(run) != incarnation:
        raise NotRestored(f"{which}, and what {peer.uri} has signed is about other runs or incarnations")
    return peer.name


def _check_chain(chain: list[x509.Certificate], trust: Trust, now: datetime) -> None:
    known = [each for each in parse_certificates(trust.authority, Path("the site's CA file")) if is_authority(each)]
    builder = verification.PolicyBuilder().store(verification.Store(known)).time(now)
    # `deerfield.certificates` asks for an identity and leaves the rest to whichever PKI there is; so does this
    authorities = verification.ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
    )
    builder = builder.extension_policies(ca_policy=authorities, ee_policy=verification.ExtensionPolicy.permit_all())
    builder.build_client_verifier().verify(chain[0], chain[1:])


def _signed(key: CertificateIssuerPrivateKeyTypes, message: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, PSS, SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    raise InvalidInput("the operator's key is of a kind that signs no restoration; use ECDSA, RSA or Ed25519")


def _check_signature(key: CertificatePublicKeyTypes, restoration: Restoration) -> None:
    message, signature = CONTEXT + restoration.statement.encode(), bytes.fromhex(restoration.signature)
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, message, ec.ECDSA(SHA256()))
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, message, PSS, SHA256())
    elif isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, message)
    else:
        raise InvalidInput("the operator's key is of a kind that signs no restoration")
