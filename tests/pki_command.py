"""`deerfield pki` in this process, and what came of it."""

import json
from pathlib import Path

from cryptography import x509

from tests import command


def deerfield(*arguments: object, answer: str | None = None) -> tuple[int, str]:
    return command.deerfield("pki", *arguments, answer=answer)


def tree(folder: Path):
    """Every file below a folder, and what it holds."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(folder: Path, *arguments: object, **options: str) -> str:
    """The sentence of a command that fails with exit code 2 and writes nothing."""
    before = tree(folder)
    code, said = deerfield(*arguments, **options)
    assert code == 2, said
    assert tree(folder) == before
    return said


def request(folder: Path, *who: object) -> Path:
    code, said = deerfield("request", folder, "--federation", "lungs", *who)
    assert code == 0, said
    return folder / "tls.csr"


def signed(ca: Path, folder: Path, *who: object) -> Path:
    out = folder / "tls.crt"
    code, said = deerfield("sign", request(folder, *who), "--ca", ca, "--out", out, "--yes")
    assert code == 0, said
    return out


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def extension(holder, kind):
    return holder.extensions.get_extension_for_class(kind)


def show(path: Path):
    code, said = deerfield("show", path, "--json")
    assert code == 0, said
    return json.loads(said)
