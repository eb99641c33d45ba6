"""`deerfield pki`: certificates for consortia that have no PKI of their own. docs/pki.md says who runs what where."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Makes, signs, shows and revokes the certificates of a federation.", no_args_is_help=True)

Federation = Annotated[str, typer.Option(metavar="NAME", help="The federation's name, in every certificate.")]
Ca = Annotated[Path, typer.Option("--ca", metavar="DIR", help="The CA's folder, of deerfield pki init.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder; keep it on a machine of its own.")],
    federation: Federation,
) -> None:
    """Makes the consortium's CA: its private key and its certificate. Never overwrites one."""
    from deerfield.certificates import utc_now
    from pipelines.pki import pki_authority

    certificate = pki_authority.make(folder, federation, utc_now())
    typer.echo(f"made a CA for {federation}, valid until {certificate.not_valid_after_utc:%Y-%m-%d}")
    typer.echo(f"give {folder / pki_authority.CERTIFICATE} to every party; {folder / pki_authority.KEY} to nobody")


@app.command()
def request(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, at the site itself.")],
    federation: Federation,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="For a hospital's site.")] = None,
    aggregator: Annotated[bool, typer.Option("--aggregator", help="For the aggregator; needs --host.")] = False,
    host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name or address of the aggregator; again for more.")
    ] = None,
    operator: Annotated[str | None, typer.Option(metavar="NAME", help="For a person who starts runs.")] = None,
    observer: Annotated[str | None, typer.Option(metavar="NAME", help="For a person who only looks.")] = None,
) -> None:
    """Makes a private key, which stays in DIR, and a request for its certificate, which goes to the CA's operator."""
    from pipelines.pki import pki_request

    peer = pki_request.who(federation, aggregator, site, operator, observer)
    made = pki_request.request(folder, peer, host or [])
    typer.echo(f"made {made.key}, which stays here, and {made.request} for {peer.uri}")
    typer.echo(f"public key  sha256 {made.public_key}")
    typer.echo("send the request to the operator of the CA, and compare the line above by another way, such as a call")


@app.command()
def sign(
    csr: Annotated[Path, typer.Argument(metavar="CSR", help="The request that a party sent.")],
    ca: Ca,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the certificate goes.")],
    days: Annotated[int, typer.Option(help="How long it is valid.")] = 365,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Signs a request, after it was checked and shown."""
    from deerfield.certificates import utc_now
    from deerfield.revocation import serial_text
    from pipelines.pki import pki_authority, pki_signing

    authority = pki_authority.load(ca, utc_now())
    for warning in authority.warnings:
        typer.echo(f"warning: {warning}", err=True)
    wish = pki_signing.read_wish(csr, authority.federation)
    pki_signing.check_days(authority.signer, days, utc_now())
    pki_signing.check_out(out)
    for line in pki_signing.describe(wish, days):
        typer.echo(line)
    if not yes:
        typer.confirm("Sign this? Compare the public key with its owner first.", abort=True)
    certificate = pki_signing.sign(authority, wish, out, days, utc_now())
    typer.echo(f"wrote {out}, serial {serial_text(certificate.serial_number)}")


@app.command()
def revoke(
    which: Annotated[str, typer.Argument(metavar="SERIAL|CERT", help="A serial, or the certificate's file.")],
    ca: Ca,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; stands in the list.")],
) -> None:
    """Adds a certificate to the list of those that the aggregator lets in no more."""
    from deerfield.certificates import utc_now
    from deerfield.revocation import serial_text
    from pipelines.pki import pki_authority

    serial = pki_authority.serial_of(which, ca)
    new = pki_authority.revoke(ca, serial, reason, utc_now())
    typer.echo(f"{'revoked' if new else 'was revoked already:'} {serial_text(serial)}")
    typer.echo(f"give the aggregator {ca / pki_authority.REVOKED}")


@app.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A certificate, request or key, or a CA's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Says what a file is: whose, from whom, how long it is valid. Warns 30 days before the end."""
    from deerfield.certificates import utc_now
    from pipelines.pki import pki_show

    shown = pki_show.look(path, utc_now())
    if as_json:
        typer.echo(json.dumps({**shown.facts, "warnings": shown.warnings}, indent=2))
        return
    for name, value in shown.facts.items():
        if value != "":
            typer.echo(f"{name.replace('_', ' '):<18}{value}")
    for warning in shown.warnings:
        typer.echo(f"warning: {warning}")
