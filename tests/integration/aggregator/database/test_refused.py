"""Databases that cannot be used: what is said of them."""

import socket

import pytest

from deerfield.errors import InvalidInput
from services.aggregator.sql.database import open_database
from services.databases import read_address


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("nonsense", "'nonsense' is no database URL; write sqlite:"),
        ("postgresql://me:sec/r@et@db:port/x", r"'postgresql://\*\*\*@db:port/x' is no database URL"),
        ("mysql://me:secret@db/x", "mysql is not supported; write sqlite:"),
        ("postgresql+psycopg2://me:secret@db/x", r"postgresql\+psycopg2 is not supported"),
        ("postgresql://me:secret@db", r"postgresql://\*\*\*@db names no database"),
        ("sqlite:///file:x.db?uri=true", "is a URI within a URL"),
        ("sqlite:////no such folder/x.db", r"/no such folder/x.db.lock cannot be made \(No such file"),
        (
            "postgresql://me:secret@no-such-host.invalid/x",
            r"me@no-such-host.invalid/x cannot be used \(.*check the address",
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_one_sentence_without_its_password(wrong, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        open_database(wrong, takeover_s=0.1)
    assert "secret" not in str(caught.value)
    assert "sec/r" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"something else\n" * 100)
    with pytest.raises(InvalidInput, match=r"x.db cannot be used \(file is not a database\); name another file"):
        open_database(f"sqlite:///{tmp_path / 'x.db'}")


def test_sqlite_on_a_network_file_system_is_refused_naming_what_to_change(tmp_path):
    table = tmp_path / "mounts"
    table.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/far nfs4 rw 0 0\n")
    assert read_address(f"sqlite:///{tmp_path}/near/x.db", table).file == tmp_path / "near" / "x.db"
    with pytest.raises(InvalidInput, match=r"on a network file system \(nfs4\).*--database"):
        read_address(f"sqlite:///{tmp_path}/far/x.db", table)


def test_a_server_that_cannot_be_used_is_one_sentence(postgres_server):
    name, server = postgres_server.create(), postgres_server
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    for url, said in (
        (server.url(name, "guess"), r"cannot be used \(.*password authentication failed.*check the user and the passw"),
        (server.url("nowhere"), r'cannot be used \(.*database "nowhere" does not exist\); create it'),
        (server.url(name).replace(str(server.port), str(closed)), r"refused.*check the address, and that the server"),
    ):
        with pytest.raises(InvalidInput, match=said) as caught:
            open_database(url)
        assert f"postgresql://deerfield@127.0.0.1:{closed if 'refused' in said else server.port}/" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "guess" not in str(caught.value)
    server.drop(name)


def test_a_database_that_cannot_keep_every_text_is_refused(postgres_server):
    name = postgres_server.create("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(InvalidInput, match="its encoding is LATIN1"):
        open_database(postgres_server.url(name))
    postgres_server.drop(name)
