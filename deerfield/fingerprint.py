"""What makes two examples the same one: a hash of an example's content, so that test data can be kept out of training.

Covers what a model reads and nothing beside it: no label, no patient, no row number. It is no secret: whoever has an
example can compute it, so only data that the hub itself owns are written down this way.
"""

import re
import unicodedata
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import InvalidInput


def fingerprint(example: str | NDArray[np.uint8]) -> str:
    """The sha256, 64 hexadecimal digits, of a text or of an image's pixels.

    A text counts without the differences that copying makes: Unicode compatibility forms (NFKC), upper and lower case,
    and white space, of which any amount is one space and none at the ends. An image, uint8 (H, W), (H, W, 1) or
    (H, W, 3), counts by its decoded pixels; a colour image without colour is the grey one. Texts and images never
    coincide.

    Raises:
        InvalidInput: the pixels are no such array.
    """
    if isinstance(example, str):
        words = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", example).casefold()).split()
        return sha256(b"text\0" + " ".join(words).encode("utf-8", "surrogatepass")).hexdigest()
    pixels = _grey(example)
    shape = "x".join(map(str, pixels.shape))
    return sha256(f"image\0{shape}\0".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def read_fingerprints(path: Path) -> tuple[str, ...]:
    """The fingerprints in a file that has one on each line, as a partition writes them for training data.

    Raises:
        InvalidInput: it cannot be read, or a line is no fingerprint.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidInput(f"{path}, the fingerprints of the training data, cannot be read: {reason}") from error
    for number, line in enumerate(lines, 1):
        if re.fullmatch("[0-9a-f]{64}", line) is None:
            raise InvalidInput(
                f"{path}, line {number}: {line[:80]!r} is no fingerprint (64 hexadecimal digits); write it again with "
                f"the partition step"
            )
    return tuple(lines)


def overlap(examples: Sequence[str], others: Sequence[str]) -> tuple[int, ...]:
    """The places in `examples`, fingerprints, of those that are among `others`."""
    known = frozenset(others)
    return tuple(place for place, each in enumerate(examples) if each in known)


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image in its smallest form: (H, W) where its channels are one or equal."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3)):
        raise InvalidInput(
            f"an image is uint8 (height, width), (height, width, 1) or (height, width, 3); this is {pixels.dtype} "
            f"{pixels.shape}: decode it first"
        )
    if pixels.ndim == 2:
        return pixels
    return pixels[..., 0] if bool((pixels == pixels[..., :1]).all()) else pixels
