"""Fetches published tensors, asking only for the chunks that the last fetch did not leave behind."""

from collections.abc import Callable, Iterator
from typing import Any

from deerfield.errors import DigestMismatch
from deerfield.manifest import Manifest, assemble
from deerfield.tensors import Tensors
from deerfield.wire import codec, limits
from deerfield.wire import federation_pb2 as pb
from deerfield.wire.backoff import Backoff
from deerfield.wire.calls import downstream


class Fetcher:
    """Turns manifests into tensors; keeps the chunks of the newest one, so memory is that of one model."""

    def __init__(self, get_chunks: Callable[..., Any], backoff: Backoff) -> None:
        self._get_chunks = get_chunks
        self._backoff = backoff
        self._held: dict[str, bytes] = {}

    def fetch(self, manifest: Manifest) -> Tensors:
        """The tensors that `manifest` names; resumes where a broken transfer stopped.

        Raises:
            DigestMismatch, NotFinite: they are not what the manifest says.
        """
        self._backoff.retry(lambda: self._fill(manifest))
        tensors = assemble(manifest, self._held.__getitem__)
        self._held = {chunk: self._held[chunk] for chunk in manifest.chunks}
        return tensors

    def _fill(self, manifest: Manifest) -> None:
        missing = sorted(manifest.chunks - self._held.keys())
        for start in range(0, len(missing), limits.CHUNKS_PER_CALL):
            self._held.update(self._download(missing[start : start + limits.CHUNKS_PER_CALL]))
        if left := manifest.chunks - self._held.keys():
            raise DigestMismatch(f"{len(left)} chunks were asked for and did not come")

    def _download(self, shas: list[str]) -> Iterator[tuple[str, bytes]]:
        request = pb.GetChunksRequest(sha256=codec.encode_shas(shas))
        for message in downstream(self._get_chunks, request, limits.IDLE_S):
            yield codec.decode_chunk(message)
