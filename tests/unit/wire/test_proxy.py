"""Which proxy leads to an aggregator: what is said, else what the environment says, as gRPC reads it."""

import pytest

from deerfield.errors import InvalidInput
from deerfield.wire.proxy import choose, options, parse

ADDRESS, URL = "agg.example.org:8600", "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"https_proxy": URL}, "proxy.example:3128"),
        ({"http_proxy": URL}, "proxy.example:3128"),
        ({"grpc_proxy": "http://one:1", "https_proxy": "http://two:2", "http_proxy": "http://three:3"}, "one:1"),
        ({"https_proxy": "http://two:2", "http_proxy": "http://three:3"}, "two:2"),
        ({"https_proxy": URL, "no_proxy": "example.org"}, None),
        ({"https_proxy": URL, "no_proxy": "10.0.0.0/8, .Example.org"}, None),
        ({"https_proxy": URL, "no_proxy": "example.com,10.0.0.0/8"}, "proxy.example:3128"),
        ({"https_proxy": URL, "no_grpc_proxy": "example.com", "no_proxy": "example.org"}, "proxy.example:3128"),
    ],
)
def test_the_environment_is_read_as_grpc_reads_it(environment, expected):
    found = choose(ADDRESS, "", environment)
    assert (found and str(found)) == expected


@pytest.mark.parametrize("address", ["127.0.0.1:8600", "[::1]:8600", "localhost:8600"])
def test_this_machine_is_reached_through_a_proxy_only_where_that_is_said(address):
    assert choose(address, "", {"https_proxy": URL}) is None
    assert str(choose(address, URL, {})) == "proxy.example:3128"
    assert options(None) == (("grpc.enable_http_proxy", 0),)


def test_an_address_in_a_network_that_is_excepted_needs_no_proxy():
    environment = {"https_proxy": URL, "no_proxy": "10.0.0.0/8"}
    assert choose("10.1.2.3:8600", "", environment) is None
    assert choose("11.1.2.3:8600", "", environment) is not None


@pytest.mark.parametrize(
    "url", ["proxy.example:3128", "https://proxy.example:3128", "http://proxy.example", "http://:1", "http://a:b:c/"]
)
def test_what_is_no_proxy_is_one_sentence(url):
    with pytest.raises(InvalidInput, match="is no proxy; write http://HOST:PORT"):
        parse(url)


def test_a_password_is_used_and_not_shown():
    found = parse("http://me:s%40cret@proxy.example:3128")
    assert str(found) == "proxy.example:3128"
    assert found.authorization == "Basic bWU6c0BjcmV0"
    assert "secret" not in repr(found)
    with pytest.raises(InvalidInput) as refused:
        parse("https://me:secret@proxy.example:3128")
    assert "secret" not in str(refused.value)
