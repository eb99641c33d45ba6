"""Tensors by content: the sha256 of each chunk of their bytes, so that a transfer resumes and sends nothing twice."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import ceil, inf, prod, sqrt
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deerfield.errors import (
    BadRequest,
    DigestMismatch,
    NormTooLarge,
    NotFinite,
    TooLarge,
    UnknownTensor,
    WrongDtype,
    WrongShape,
)
from deerfield.tensors import Array, Shapes, Tensors, digest

CHUNK_BYTES = 1 << 20
CHUNK_BYTES_MIN = 1 << 19  # smaller chunks cost more in hashes and calls than a resumed transfer saves
FLOAT32 = "float32"
FLOAT32_BYTES = 4

Read: TypeAlias = Callable[[str], bytes]  # the bytes of a chunk, by the hex sha256 that names it


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor: little-endian, row-major, cut into chunks."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[str, ...]  # hex sha256 of each, in order

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return FLOAT32_BYTES * prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Named tensors without their bytes; `digest` is `tensors.digest` of what the chunks hold."""

    tensors: tuple[TensorInfo, ...]  # sorted by name
    digest: str
    chunk_bytes: int = CHUNK_BYTES  # of every chunk but the last one of a tensor

    @property
    def chunks(self) -> frozenset[str]:
        """Every chunk that is named."""
        return frozenset(chunk for tensor in self.tensors for chunk in tensor.chunks)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    def bytes_beyond(self, held: frozenset[str]) -> int:
        """Bytes of the distinct chunks that somebody who holds the chunks `held` still has to fetch."""
        sizes = {
            chunk: min(self.chunk_bytes, info.size_bytes - number * self.chunk_bytes)
            for info in self.tensors
            for number, chunk in enumerate(info.chunks)
        }
        return sum(size for chunk, size in sizes.items() if chunk not in held)


def describe(tensors: Tensors, chunk_bytes: int = CHUNK_BYTES) -> Manifest:
    """The manifest of `tensors`."""
    infos = tuple(
        TensorInfo(
            name=name,
            dtype=FLOAT32,
            shape=tuple(tensors[name].shape),
            chunks=tuple(sha256(piece).hexdigest() for piece in _cut(tensors[name], chunk_bytes)),
        )
        for name in sorted(tensors)
    )
    return Manifest(tensors=infos, digest=digest(tensors), chunk_bytes=chunk_bytes)


def pieces(tensors: Tensors, manifest: Manifest, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of each `wanted` chunk of `tensors`, each once, cut as `manifest` says."""
    left = set(wanted)
    for info in manifest.tensors:
        for chunk, piece in zip(info.chunks, _cut(tensors[info.name], manifest.chunk_bytes), strict=True):
            if chunk in left:
                left.remove(chunk)
                yield chunk, bytes(piece)


def check(manifest: Manifest, schema: Shapes) -> None:
    """Holds a manifest against the shapes that are asked for, before anything is allocated for it.

    Raises:
        UnknownTensor: a tensor too many or too few.
        WrongDtype, WrongShape: a tensor of another type or shape.
        BadRequest, TooLarge: chunks that cannot make up the tensors.
    """
    if not CHUNK_BYTES_MIN <= manifest.chunk_bytes <= CHUNK_BYTES:
        raise BadRequest(f"chunks of {manifest.chunk_bytes} bytes; choose {CHUNK_BYTES_MIN} to {CHUNK_BYTES}")
    _check_names([info.name for info in manifest.tensors], schema)
    for info in manifest.tensors:
        _check_tensor(info, schema[info.name], manifest.chunk_bytes)


def assemble(manifest: Manifest, read: Read) -> Tensors:
    """The tensors themselves.

    Raises:
        NotFinite: a tensor holds a NaN or an infinity.
        DigestMismatch: the chunks do not hold what the manifest says.
    """
    stored = Stored(manifest, read)
    tensors = {name: stored[name] for name in stored}
    _check_digest(tensors, manifest)
    return tensors


def verify(manifest: Manifest, read: Read, norm_limit: float = inf) -> None:
    """Checks the stored bytes against the manifest, one tensor in memory at a time.

    Raises:
        NotFinite, DigestMismatch: as `assemble`.
        NormTooLarge: the joint L2 norm, summed in float64, is above the limit; by how much is not told to anybody.
    """
    if norm_limit == inf:  # finite entries have a finite norm: float64 holds any sum of squares of float32
        _check_digest(Stored(manifest, read), manifest)
        return
    measured = _Measured(manifest, read)
    _check_digest(measured, manifest)
    if not sqrt(sum(measured.squares.values())) <= norm_limit:
        raise NormTooLarge(f"the joint L2 norm of the update is above {norm_limit:g}, which no update of the run has")


class Stored(Mapping[str, Array]):
    """Tensors that are read when they are asked for, and not kept: memory is one tensor, not all of them."""

    def __init__(self, manifest: Manifest, read: Read) -> None:
        self._infos = {info.name: info for info in manifest.tensors}
        self._read = read

    def __getitem__(self, name: str) -> Array:
        info = self._infos[name]
        array = self._bytes(info).view("<f4").reshape(info.shape)
        if not np.isfinite(array).all():
            raise NotFinite(f"{name} holds a NaN or an infinity")
        return array

    def _bytes(self, info: TensorInfo) -> NDArray[np.uint8]:
        """All chunks of a tensor; each is gone before the next one is read."""
        if len(info.chunks) == 1:
            whole = np.frombuffer(self._read(info.chunks[0]), np.uint8)
            held = whole.size
        else:
            whole, held = np.empty(info.size_bytes, np.uint8), 0
            for chunk in info.chunks:
                piece = np.frombuffer(self._read(chunk), np.uint8)
                held += piece.size
                if held <= info.size_bytes:
                    whole[held - piece.size : held] = piece
        if held != info.size_bytes:
            raise DigestMismatch(f"{info.name}: its chunks hold {held} bytes, its shape needs {info.size_bytes}")
        whole.flags.writeable = False
        return whole

    def __contains__(self, name: object) -> bool:
        return name in self._infos  # Mapping's own would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)


class _Measured(Stored):
    """Tensors whose squared norms are kept when they are read."""

    def __init__(self, manifest: Manifest, read: Read) -> None:
        super().__init__(manifest, read)
        self.squares: dict[str, float] = {}

    def __getitem__(self, name: str) -> Array:
        array = super().__getitem__(name)
        self.squares[name] = float(np.sum(np.square(array, dtype=np.float64)))
        return array


def _cut(array: Array, chunk_bytes: int) -> Iterator[memoryview]:
    flat = np.ascontiguousarray(array, dtype="<f4").reshape(-1).view(np.uint8).data
    return (flat[start : start + chunk_bytes] for start in range(0, len(flat), chunk_bytes))


def _check_names(names: list[str], schema: Shapes) -> None:
    if strangers := sorted(set(names) - set(schema)):
        raise UnknownTensor(
            f"{strangers[0]} ({len(strangers)} such) is not asked for; the task asks for {_some(schema)}"
        )
    if missing := sorted(set(schema) - set(names)):
        raise UnknownTensor(f"{missing[0]} ({len(missing)} such) is missing; the task asks for {_some(schema)}")
    if len(set(names)) < len(names):
        raise BadRequest("a tensor is named twice; name each once")


def _check_tensor(info: TensorInfo, shape: tuple[int, ...], chunk_bytes: int) -> None:
    if info.dtype != FLOAT32:
        raise WrongDtype(f"{info.name} is {info.dtype}; send {FLOAT32}")
    if info.shape != tuple(shape):
        raise WrongShape(f"{info.name} has shape {list(info.shape)}; the task asks for {list(shape)}")
    count = ceil(info.size_bytes / chunk_bytes)
    if len(info.chunks) > count:
        raise TooLarge(f"{info.name} names {len(info.chunks)} chunks; its {info.size_bytes} bytes fill {count}")
    if len(info.chunks) < count:
        raise BadRequest(f"{info.name} names {len(info.chunks)} chunks; its {info.size_bytes} bytes need {count}")


def _check_digest(tensors: Tensors, manifest: Manifest) -> None:
    if (found := digest(tensors)) != manifest.digest:
        raise DigestMismatch(f"the chunks hold {found}, the manifest says {manifest.digest}")


def _some(schema: Shapes) -> str:
    names = sorted(schema)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
