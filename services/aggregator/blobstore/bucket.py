"""Where `--blobs` lie: a folder, or a bucket of an S3 server by URL; what to tell a person when it cannot be used."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import certifi
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider
from minio.error import S3Error
from urllib3 import PoolManager, Timeout

from deerfield.durable import OnDurable, ignore
from deerfield.errors import InvalidInput, Unreachable
from services.aggregator.blobstore.blobs import GRACE_S, Blobs
from services.aggregator.blobstore.folder_blobs import FolderBlobs
from services.aggregator.blobstore.s3_blobs import CONNECTIONS, S3Blobs

FORM = "s3://BUCKET[/PREFIX]?endpoint=HOST:PORT&secure=true|false&region=REGION"
AWS = "s3.amazonaws.com"
OPTIONS = ("endpoint", "secure", "region")
ACCESS, SECRET, SESSION = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
CONNECT_S, READ_S = 5.0, 30.0
ADVICE = {  # the server's code: what to do
    "NoSuchBucket": "create the bucket, or name another",
    "AccessDenied": "allow these credentials to put, get, list and delete objects there",
    "AuthorizationHeaderMalformed": "set the bucket's region",
    "PermanentRedirect": "set the bucket's region and endpoint",
    "RequestTimeTooSkewed": "set this machine's clock right",
}
REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "AuthFailure", "ExpiredToken"}
KEYS = f"check {ACCESS} and {SECRET}"
ELSE = "check endpoint and secure, and that the server runs and can be reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Part of a bucket; who may use it is not said here."""

    name: str
    prefix: str  # "", or with a slash at its end
    endpoint: str  # host:port
    secure: bool  # https
    region: str

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix} at {self.endpoint}"


def read_place(text: str) -> Path | Bucket:
    """The folder or bucket that `--blobs` names.

    Raises:
        InvalidInput: a URL that is none, or of something else, or holds credentials.
    """
    if "://" not in text:
        return Path(text)
    scheme, _, rest = text.partition("://")
    if scheme != "s3":
        raise InvalidInput(f"blobs: {scheme[:40]}:// is not supported; name a folder, or {FORM}")
    if "@" in rest:
        raise InvalidInput(f"blobs: a URL holds no credentials; put them into {ACCESS} and {SECRET}, or files")
    url = urlsplit(text)
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if strangers := sorted(set(options) - set(OPTIONS)):  # its value may be a secret
        raise InvalidInput(
            f"blobs: {strangers[0][:40]!r} is no option of the URL; write {FORM}, "
            f"with credentials in {ACCESS} and {SECRET}"
        )
    if options.get("secure", "true") not in ("true", "false"):
        raise InvalidInput("blobs: secure is neither true (https) nor false (http)")
    prefix = unquote(url.path).strip("/")
    bucket = Bucket(
        name=url.netloc,
        prefix=f"{prefix}/" if prefix else "",
        endpoint=options.get("endpoint") or AWS,
        secure=options.get("secure", "true") == "true",
        region=options.get("region") or "us-east-1",
    )
    _check(bucket)
    return bucket


def open_blobs(
    place: Path | Bucket,
    grace_s: float = GRACE_S,
    environment: Mapping[str, str] = os.environ,
    on_durable: OnDurable = ignore,
) -> tuple[Blobs, Blobs]:
    """Where updates go and where states are published; in a bucket, after everything was tried once that will be done.

    Raises:
        InvalidInput: it cannot be reached or used; the sentence says why.
    """
    if isinstance(place, Path):
        return FolderBlobs(place / "uploads", on_durable), FolderBlobs(place / "published", on_durable)
    keys = EnvironmentProvider(environment)
    keys.retrieve()
    client = connect(place, keys)
    uploads, published = (
        S3Blobs(client, place.name, f"{place.prefix}{part}/", grace_s=grace_s) for part in ("uploads", "published")
    )
    for each in (uploads, published):
        try:
            each.probe()
        except Unreachable as error:
            raise InvalidInput(_sentence(place, error)) from error
    return uploads, published


class EnvironmentProvider(Provider):
    """Credentials out of the environment, or of the files that `..._FILE` names, read each time: they may change."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def retrieve(self) -> Credentials:
        access, secret = self._value(ACCESS), self._value(SECRET)
        if not (access and secret):
            missing = SECRET if access else ACCESS
            raise InvalidInput(f"blobs: no credentials for the S3 server; set {missing}, or {missing}_FILE to a path")
        return Credentials(access, secret, self._value(SESSION) or None)

    def _value(self, name: str) -> str:
        if file := self._environment.get(f"{name}_FILE"):
            try:
                return Path(file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidInput(
                    f"blobs: {name}_FILE names {file}, which cannot be read ({_reason(error)})"
                ) from None
        return self._environment.get(name, "").strip()


def connect(place: Bucket, keys: Provider) -> Minio:
    """A client of the bucket's server; it asks nothing yet."""
    pool = PoolManager(
        maxsize=CONNECTIONS,
        timeout=Timeout(connect=CONNECT_S, read=READ_S),
        retries=False,  # S3Blobs tries again, with a new signature, and where an answer breaks off
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )
    return Minio(place.endpoint, secure=place.secure, region=place.region, http_client=pool, credentials=keys)


def _check(bucket: Bucket) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket.name):
        raise InvalidInput(f"blobs: {bucket.name[:80]!r} is no name of a bucket; write {FORM}")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?", bucket.endpoint):
        raise InvalidInput(f"blobs: endpoint {bucket.endpoint[:80]!r} is no HOST:PORT; write {FORM}")
    try:
        Minio(bucket.endpoint, secure=bucket.secure, region=bucket.region)
    except ValueError as error:
        raise InvalidInput(f"blobs: {bucket} cannot be asked for ({error}); write {FORM}") from None


def _sentence(place: Bucket, error: Unreachable) -> str:
    code = error.__cause__.code if isinstance(error.__cause__, S3Error) else None
    advice = KEYS if code in REFUSED else ADVICE.get(code or "", ELSE)
    return f"blobs: {place}: {error}; {advice}"


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is no text"
