"""Throws bytes at every decoder of the wire: a value or one of our errors comes out, never anything else.

    python -m fuzz.codec [-runs=200000] [-max_len=4096] [a folder of examples]

The first byte chooses the decoder, the others are its message.
"""

import sys
from contextlib import suppress

import atheris
from google.protobuf.message import DecodeError

with atheris.instrument_imports(include=["deerfield"]):
    from deerfield.errors import DeerfieldError
    from fuzz.targets import TARGETS


def one_input(data: bytes) -> None:
    """Decodes once."""
    decode, kind = TARGETS[data[0] % len(TARGETS)] if data else TARGETS[0]
    with suppress(DecodeError, DeerfieldError):
        decode(kind.FromString(data[1:]))


def main() -> None:
    """Runs until the flags of libFuzzer say stop, or until something else comes out."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
