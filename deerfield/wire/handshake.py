"""Why no connection to the aggregator can be made, in one sentence: gRPC itself only says UNAVAILABLE.

A handshake with Python's `ssl` and the same files. Under TLS 1.3 a server refuses a client's certificate after the
handshake, and gRPC's without a word: therefore one read, which an aggregator answers at once.
"""

import socket
import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from deerfield.certificates import Files, hosts_of, load, parse_certificates, read, utc_now
from deerfield.errors import DeerfieldError, HandshakeFailed, InvalidInput, Unreachable
from deerfield.wire.proxy import Proxy, host_of, reason_of, tunnel

TIMEOUT_S = 5.0
H2 = "h2"  # what TLS must agree on for gRPC
NOT_YET_VALID, EXPIRED, PURPOSE = 9, 10, 26  # of OpenSSL's X509_V_ERR_...
NAMES = (62, 64)  # of a host, of an IP address
REFUSALS = {  # alerts that are about a client's certificate: what they say of it
    "UNKNOWN_CA": "is of a CA that it does not know",
    "CERTIFICATE_EXPIRED": "has expired by its clock; compare the clocks",
    "CERTIFICATE_REVOKED": "is revoked",
    "BAD_CERTIFICATE": "cannot be read there",
    "UNSUPPORTED_CERTIFICATE": "is not for clients",
    "CERTIFICATE_UNKNOWN": "is not accepted",
    "CERTIFICATE_REQUIRED": "did not arrive",
    "ACCESS_DENIED": "is not let in",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a caller reaches its aggregator."""

    address: str  # host:port
    files: Files | None = None  # None: plaintext, on loopback
    proxy: Proxy | None = None
    timeout_s: float = TIMEOUT_S  # of each step of a handshake that is to name a cause


def cause(way: Way, now: datetime | None = None) -> DeerfieldError | None:
    """Unreachable or HandshakeFailed, with the sentence for a person; None where a connection is made."""
    now = now or utc_now()
    try:
        if way.files is not None:
            load(way.files, now)  # says best what is wrong with our own
        with _connected(way) as plain:
            if way.files is not None:
                _shake(way, way.files, plain, now)
            elif _speaks_tls(plain):
                raise HandshakeFailed(
                    f"{way.address} speaks TLS, and no certificate was given; give --tls-certificate, --tls-key and "
                    "--tls-ca"
                )
    except InvalidInput as error:
        return error if isinstance(error, HandshakeFailed) else HandshakeFailed(str(error))
    except Unreachable as error:
        return error
    return None


def _connected(way: Way) -> socket.socket:
    if way.proxy is not None:
        return tunnel(way.proxy, way.address, way.timeout_s)
    host, _, port = way.address.rpartition(":")
    try:
        return socket.create_connection((host.strip("[]"), int(port)), way.timeout_s)
    except socket.gaierror:
        raise Unreachable(
            f"{way.address} cannot be reached: no address is known for {host}; check the name, and DNS here"
        ) from None
    except (ValueError, OverflowError):
        raise HandshakeFailed(f"{way.address!r} is no host:port, such as aggregator.example.org:8600") from None
    except OSError as error:
        raise Unreachable(
            f"{way.address} cannot be reached ({reason_of(error)}); check the address, that the aggregator runs, and "
            "that no firewall is between"
        ) from None


def _shake(way: Way, files: Files, plain: socket.socket, now: datetime) -> None:
    try:
        said = _greeting(way, files, plain)
        if not said:  # refused, or ending just now; the second attempt tells
            with _connected(way) as again:
                said = _greeting(way, files, again)
    except ssl.SSLCertVerificationError as error:
        raise HandshakeFailed(_unverified(way, files, error, now)) from None
    except (ssl.SSLEOFError, ConnectionError):  # a server that is ending, or a load balancer without one
        raise Unreachable(f"{way.address} breaks the connection off; is an aggregator there?") from None
    except ssl.SSLError as error:
        raise HandshakeFailed(_failed(way, files, error)) from None
    except TimeoutError:
        raise Unreachable(f"{way.address} takes the connection but does not answer; is an aggregator there?") from None
    except OSError as error:
        raise Unreachable(f"{way.address} cannot be reached ({reason_of(error)}); check the network") from None
    if not said:
        raise HandshakeFailed(_refused(way, files, now))


def _greeting(way: Way, files: Files, plain: socket.socket) -> bytes:
    """The first byte that the aggregator sends; empty if it breaks off."""
    context = ssl.create_default_context(cafile=str(files.authority))
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols([H2])
    with context.wrap_socket(plain, server_hostname=host_of(way.address)) as tls:
        if tls.selected_alpn_protocol() != H2:
            raise HandshakeFailed(f"{way.address} speaks TLS but not gRPC; another service is there: check the port")
        return tls.recv(1)


def _unverified(way: Way, files: Files, error: ssl.SSLCertVerificationError, now: datetime) -> str:
    shown, clock = _shown(way), f"it is {now:%Y-%m-%d %H:%M} UTC by this machine's clock"
    whose = f"the certificate of the aggregator at {way.address}"
    if error.verify_code in NAMES:
        held = f", but {', '.join(hosts_of(shown) or ['no host at all'])}" if shown else ""
        return f"{whose} is not for {host_of(way.address)}{held}; use a name that it has, or have it made for this one"
    if error.verify_code == EXPIRED:
        ended = f", on {shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC" if shown else ""
        return f"{whose} has expired{ended}, and {clock}; have it renewed, or set the clock right"
    if error.verify_code == NOT_YET_VALID:
        begins = f" before {shown.not_valid_before_utc:%Y-%m-%d %H:%M} UTC" if shown else " yet"
        return f"{whose} is not valid{begins}, and {clock}; set the clock right"
    if error.verify_code == PURPOSE:
        return f"{whose} is not for servers; another party's certificate is there: check the address"
    by = f", by {shown.issuer.rfc4514_string()}," if shown else ""
    return (
        f"{whose} was signed{by} by no CA in {files.authority} ({error.verify_message}); ask the consortium's operator "
        "for ca.crt, and trust no other"
    )


def _failed(way: Way, files: Files, error: ssl.SSLError) -> str:
    reason = error.reason or "the connection ended"
    alert = next((said for name, said in REFUSALS.items() if reason.endswith(f"ALERT_{name}")), "")
    if alert:
        return f"the aggregator at {way.address} refuses {files.certificate}, which {alert}; request another"
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}:
        return f"{way.address} does not speak TLS: the port is another service's, or an aggregator's without TLS"
    words = reason.lower().replace("_", " ")
    return f"no TLS connection to {way.address} ({words}); check that the address is an aggregator's"


def _refused(way: Way, files: Files, now: datetime) -> str:
    own, authorities = (parse_certificates(read(path), path) for path in (files.certificate, files.authority))
    start = f"the aggregator at {way.address} refuses {files.certificate}"
    if not any(_issued(own[-1], each) for each in authorities):
        return f"{start}, which was signed by no CA in {files.authority}; have the consortium's operator sign a request"
    return (
        f"{start}: it trusts another CA, or its clock is not within the certificate's time (here it is "
        f"{now:%Y-%m-%d %H:%M} UTC); compare ca.crt and the clocks with its operator"
    )


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _shown(way: Way) -> x509.Certificate | None:
    """The certificate that the aggregator shows, unchecked: only to say what is wrong with it."""
    try:
        with _connected(way) as plain, _unchecking().wrap_socket(plain) as tls:
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError, DeerfieldError):
        return None


def _speaks_tls(plain: socket.socket) -> bool:
    """Whether a hello of TLS is answered by TLS; certificates are neither checked nor shown."""
    try:
        _unchecking().wrap_socket(plain).close()
    except ssl.SSLError as error:  # an alert is TLS too: before TLS 1.3, for the certificate that is not shown
        return "_ALERT_" in (error.reason or "")
    except OSError:
        return False
    return True


def _unchecking() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
