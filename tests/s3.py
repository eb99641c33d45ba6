"""A real S3 server for the tests: `moto` as a process of its own on a loopback port; what it keeps ends with it."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic, sleep

from minio import Minio

ACCESS, SECRET = "tester", "not/a+secret"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET}
START_S = 30.0


@dataclass
class Server:
    """An S3 server; `stop` and `start` are a restart on the same port, with nothing in it."""

    port: int
    log: Path
    address: str = "127.0.0.1"
    process: subprocess.Popen | None = None
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def client(self) -> Minio:
        return Minio(self.endpoint, ACCESS, SECRET, secure=False, region="us-east-1")

    def bucket(self) -> str:
        """Makes an empty bucket; answers its name."""
        name = f"bucket-{next(self.numbers)}"
        self.client.make_bucket(name)
        return name

    def url(self, bucket: str, prefix: str = "", endpoint: str = "") -> str:
        """What `--blobs` takes; through another `endpoint`, such as a link that can be cut."""
        return f"s3://{bucket}/{prefix}?endpoint={endpoint or self.endpoint}&secure=false&region=us-east-1"

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", self.address, "-p", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = monotonic() + START_S
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                if monotonic() > end or self.process.poll() is not None:
                    raise AssertionError(self.log.read_text()) from None
                sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[Server]:
    """A server that ends with the block; at another `address`, it serves that address's network."""
    with socket.create_server((address, 0)) as free:
        port = free.getsockname()[1]
    handle, name = tempfile.mkstemp(prefix="deerfield-s3-", suffix=".log")
    os.close(handle)
    server = Server(port, Path(name), address)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        server.log.unlink()
