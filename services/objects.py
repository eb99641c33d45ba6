"""Buckets of S3 servers by URL, and what their failures mean to a person. The aggregator and the sites use it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree.ElementTree import ParseError

import certifi
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3 import PoolManager, Timeout
from urllib3.exceptions import HTTPError, SSLError

from deerfield.errors import InvalidInput

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
CONNECTIONS = 16  # at once
FAILURES = (MinioException, HTTPError, OSError, ParseError, InvalidInput)  # the last: credentials that went away


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


def read_bucket(text: str, setting: str) -> Bucket:
    """The part of a bucket that a URL names; `setting` is where the URL stands, for errors.

    Raises:
        InvalidInput: a URL that is none, or of something else, or holds credentials.
    """
    scheme, _, rest = text.partition("://")
    if scheme != "s3":
        raise InvalidInput(f"{setting}: {scheme[:40]}:// is not supported; name a folder, or {FORM}")
    if "@" in rest:
        raise InvalidInput(f"{setting}: a URL holds no credentials; put them into {ACCESS} and {SECRET}, or files")
    url = urlsplit(text)
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if strangers := sorted(set(options) - set(OPTIONS)):  # its value may be a secret
        raise InvalidInput(
            f"{setting}: {strangers[0][:40]!r} is no option of the URL; write {FORM}, "
            f"with credentials in {ACCESS} and {SECRET}"
        )
    if options.get("secure", "true") not in ("true", "false"):
        raise InvalidInput(f"{setting}: secure is neither true (https) nor false (http)")
    prefix = unquote(url.path).strip("/")
    bucket = Bucket(
        name=url.netloc,
        prefix=f"{prefix}/" if prefix else "",
        endpoint=options.get("endpoint") or AWS,
        secure=options.get("secure", "true") == "true",
        region=options.get("region") or "us-east-1",
    )
    _check(bucket, setting)
    return bucket


class EnvironmentProvider(Provider):
    """Credentials out of the environment, or of the files that `..._FILE` names, read each time: they may change."""

    def __init__(self, environment: Mapping[str, str] = os.environ, setting: str = "blobs") -> None:
        self._environment = environment
        self._setting = setting

    def retrieve(self) -> Credentials:
        access, secret = self._value(ACCESS), self._value(SECRET)
        if not (access and secret):
            missing = SECRET if access else ACCESS
            raise InvalidInput(
                f"{self._setting}: no credentials for the S3 server; set {missing}, or {missing}_FILE to a path"
            )
        return Credentials(access, secret, self._value(SESSION) or None)

    def _value(self, name: str) -> str:
        return read_secret(self._environment, name, self._setting)


def read_secret(environment: Mapping[str, str], name: str, setting: str) -> str:
    """A secret out of the file that `..._FILE` names, or of the variable; empty where there is neither.

    Raises:
        InvalidInput: the file cannot be read; the message names `setting`.
    """
    if file := environment.get(f"{name}_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"{setting}: {name}_FILE names {file}, which cannot be read ({_reason(error)})"
            ) from None
    return environment.get(name, "").strip()


def connect(place: Bucket, keys: Provider) -> Minio:
    """A client of the bucket's server; it asks nothing yet."""
    pool = PoolManager(
        maxsize=CONNECTIONS,
        timeout=Timeout(connect=CONNECT_S, read=READ_S),
        retries=False,  # whoever asks tries again, with a new signature, and where an answer breaks off
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )
    return Minio(place.endpoint, secure=place.secure, region=place.region, http_client=pool, credentials=keys)


def advice(error: BaseException | None) -> str:
    """What a person may do about what an S3 server has answered, or about its not answering."""
    code = error.code if isinstance(error, S3Error) else None
    return KEYS if code in REFUSED else ADVICE.get(code or "", ELSE)


def passes(error: Exception) -> bool:
    """Whether the next attempt may succeed."""
    if isinstance(error, S3Error):
        return error.response is not None and _is_busy(error.response.status)
    if isinstance(error, ServerError):
        return _is_busy(error.status_code)
    if isinstance(error, InvalidResponseError):  # of a proxy, perhaps
        return bool(re.search(r"Response code: (429|5\d\d)", str(error)))
    return not isinstance(error, SSLError | InvalidInput)


def _is_busy(status: int) -> bool:
    return status == 429 or status >= 500


def sentence(what: str, error: Exception) -> str:
    """What the server did not do, and in its own words why."""
    if isinstance(error, S3Error):
        return f"the S3 server does not {what} ({error.code}: {error.message})"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"the S3 server does not {what} ({lines[0][:200]})"


def _check(bucket: Bucket, setting: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket.name):
        raise InvalidInput(f"{setting}: {bucket.name[:80]!r} is no name of a bucket; write {FORM}")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?", bucket.endpoint):
        raise InvalidInput(f"{setting}: endpoint {bucket.endpoint[:80]!r} is no HOST:PORT; write {FORM}")
    try:
        Minio(bucket.endpoint, secure=bucket.secure, region=bucket.region)
    except ValueError as error:
        raise InvalidInput(f"{setting}: {bucket} cannot be asked for ({error}); write {FORM}") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is no text"
