"""Addresses as people write them."""

import pytest

from deerfield.endpoint import Endpoint, read_listening, read_target, without_password
from deerfield.errors import InvalidInput


def test_a_host_and_its_port_are_told_apart_also_with_ipv6():
    assert read_listening("listen", "127.0.0.1:0") == Endpoint(host="127.0.0.1", port=0)
    assert read_listening("listen", "[::1]:65535") == Endpoint(host="::1", port=65535)
    assert read_target("--aggregator", "agg.example.org:8600") == Endpoint(host="agg.example.org", port=8600)


BAD = ["", "host", ":1", "[]:1", "host:", "host:-1", "host:65536", "host:²", "h:" + "9" * 5000]


@pytest.mark.parametrize("address", BAD, ids=range(len(BAD)))
def test_what_is_no_address_is_refused_by_the_name_of_its_setting(address):
    with pytest.raises(InvalidInput, match=r"^listen: .* is no host:port"):
        read_listening("listen", address)
    with pytest.raises(InvalidInput, match=r"^--aggregator: .* is no host:port"):
        read_target("--aggregator", address)


def test_a_url_is_no_address():
    with pytest.raises(InvalidInput, match=r"is no host:port; write HOST:PORT without https://$"):
        read_target("--aggregator", "https://localhost:8600")
    for address in ("https://localhost:8600", "localhost/x:8600", "//localhost:8600"):
        for read in (read_target, read_listening):
            with pytest.raises(InvalidInput, match="is no host:port"):
                read("listen", address)


def test_nobody_can_be_called_at_port_0():
    with pytest.raises(InvalidInput, match="is no host:port"):
        read_target("--aggregator", "agg.example.org:0")


def test_a_password_is_left_out():
    assert without_password("https://ada:a@b@mlflow.example/x") == "https://***@mlflow.example/x"
    assert (
        without_password("postgresql://me:sec/r@et@db/x?password=y&port=1")
        == "postgresql://***@db/x?password=***&port=1"
    )
    assert without_password("postgresql:///me:secret@db/x") == "postgresql://***@db/x"  # a slash too many
    assert without_password("sqlite:////builds/job@2/mlflow.db") == "sqlite:////builds/job@2/mlflow.db"
