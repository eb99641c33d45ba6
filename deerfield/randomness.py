"""Where every draw of a run comes from: an argument, never a global.

With noise on, the Poisson samples *and* the noise must stay unpredictable to everybody: whoever knows the batches takes
the amplification by sampling away (epsilon 3 becomes 9), and whoever can redo the noise takes it off. So production
draws from a keystream under a key that the operating system made, and offers no way to seed it. One place must repeat
its noise, the aggregator under unit "site", and keeps such a key for as long as it may have to. A run with unit "none"
promises nothing and may be seeded, and so may tests.
"""

import os
from hashlib import sha256
from json import dumps
from math import floor, log2
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray
from scipy.special import ndtri

KEY_BYTES = 32  # AES-256


class Randomness(Protocol):
    """A stream of independent draws; implementers guarantee that no draw is handed out twice."""

    def uniform(self, n: int) -> NDArray[np.float64]:
        """`n` draws, uniform on the multiples of 2^-53 in [0, 1)."""
        ...

    def normal(self, n: int) -> NDArray[np.float64]:
        """`n` draws from N(0, 1)."""
        ...


class SystemRandomness:
    """AES-256 in counter mode under a fresh key from the operating system; takes no seed and shows no key.

    A forked child draws a key of its own: two sites with one keystream would add the same noise, and the difference of
    their updates would have none.
    """

    __slots__ = ("_keystream", "_pid")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._keystream = _keystream()

    def uniform(self, n: int) -> NDArray[np.float64]:
        """`n` draws, uniform on the multiples of 2^-53 in [0, 1)."""
        return _uniform(self._words(n))

    def normal(self, n: int) -> NDArray[np.float64]:
        """`n` draws from N(0, 1)."""
        return _normal(self._words(n))

    def _words(self, n: int) -> NDArray[np.uint64]:
        if os.getpid() != self._pid:
            self._pid, self._keystream = os.getpid(), _keystream()
        return _words(self._keystream, n)


class KeyedRandomness:
    """AES-256 in counter mode under a key of 32 bytes that its owner keeps secret: equal draws for an equal key.

    For the central noise of unit "site" and for nothing else, where a phase that is computed again after a crash must
    add the same noise: two different noises on one sum would average out. See `deerfield.central.noise_of`.
    """

    __slots__ = ("_keystream",)

    def __init__(self, key: bytes) -> None:
        self._keystream = _keystream(key)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """`n` draws, uniform on the multiples of 2^-53 in [0, 1)."""
        return _uniform(_words(self._keystream, n))

    def normal(self, n: int) -> NDArray[np.float64]:
        """`n` draws from N(0, 1)."""
        return _normal(_words(self._keystream, n))


class SeededRandomness:
    """Draws that the parts of `key` determine, equal wherever the key is: for unit "none" and for tests."""

    __slots__ = ("_generator",)

    def __init__(self, *key: int | str) -> None:
        seed = int.from_bytes(sha256(dumps(key).encode()).digest())
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, n: int) -> NDArray[np.float64]:
        """`n` draws, uniform on the multiples of 2^-53 in [0, 1)."""
        return self._generator.random(n)

    def normal(self, n: int) -> NDArray[np.float64]:
        """`n` draws from N(0, 1)."""
        return self._generator.standard_normal(n)


def grid(deviation: float) -> float:
    """The spacing of the values that something with noise of this `deviation` may take: a public power of two.

    Which floating-point numbers a noised value can take would tell the value under the noise (Mironov 2012,
    doi:10.1145/2382196.2382264), so what is released is rounded: 2^-20 of the noise, which adds 2^-42 of its variance,
    and 32 bits above the last bit of a float64. Rounding what is noised is post-processing and costs nothing.
    """
    return float(2.0 ** (floor(log2(deviation)) - 20))


def _keystream(key: bytes | None = None) -> CipherContext:
    return Cipher(algorithms.AES256(os.urandom(KEY_BYTES) if key is None else key), modes.CTR(bytes(16))).encryptor()


def _words(keystream: CipherContext, n: int) -> NDArray[np.uint64]:
    return np.frombuffer(keystream.update(bytes(8 * n)), dtype="<u8")


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)


def _normal(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """By inversion: 11 ms for 10^6, where Box-Muller takes 18.

    Inverts at the midpoints of 2^52 equal cells: neither 0 nor 1 can occur, and the law is symmetric up to the
    largest value, 8.2, beyond which a normal has probability 2^-52.
    """
    cells = (words >> np.uint64(12)).astype(np.float64)
    return np.asarray(ndtri((cells + 0.5) * 2.0**-52), np.float64)
