"""`deerfield cluster ca`: the CA that a Secret holds, as a folder of `deerfield pki` that signs hospitals' requests."""

import json
from pathlib import Path

from deerfield.certificates import utc_now
from deerfield.errors import InvalidInput
from pipelines.cluster.kubernetes_secrets import Secrets
from pipelines.cluster.looking import certificates
from pipelines.pki import pki_signer
from pipelines.pki.pki_authority import CERTIFICATE, ISSUED, KEY, REVOKED, entry, issued_by
from pipelines.pki.pki_request import write_new


def take(secrets: Secrets, name: str, folder: Path) -> int:
    """Writes the CA of a Secret to a new folder; answers how many certificates of it the namespace holds.

    Those are what its list of issued ones begins with: nobody has noted them anywhere else.

    Raises:
        InvalidInput: there is no such CA, or the folder cannot be used.
        InvalidInput, Unreachable: as each call of `secrets`.
    """
    secret, now = secrets.get(name), utc_now()
    if secret is None:
        raise InvalidInput(f"there is no Secret {name} in namespace {secrets.namespace}; name the CA's, such as R-ca")
    certificate, key = secret.part(CERTIFICATE), secret.part(KEY)
    signer, _ = pki_signer.parse(certificate, key, (secret.place(CERTIFICATE), secret.place(KEY)), now)
    found = [each for held in secrets.all() for each in certificates(held).values() if each != signer.certificate]
    signed = {each.serial_number: each for each in found if issued_by(each, signer.certificate)}
    notes = [json.dumps(entry(each, each.not_valid_before_utc), sort_keys=True) + "\n" for each in signed.values()]
    files = {KEY: key, CERTIFICATE: certificate, ISSUED: "".join(notes).encode(), REVOKED: b"[]\n"}
    write_new(folder, {folder / file: data for file, data in files.items()})
    return len(notes)
