"""A URI is of one peer, and a peer has one URI."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from deerfield.errors import InvalidInput
from deerfield.identity import Peer, check_name, make_peer, parse_host, parse_peer
from deerfield.runspec import NAME, Name

NAMES = st.from_regex(NAME, fullmatch=True).filter(lambda name: not name.endswith("\n"))


@pytest.mark.parametrize(
    ("uri", "peer"),
    [
        ("deerfield://lungs/site/north", Peer(federation="lungs", role="site", name="north")),
        ("deerfield://lungs/operator/ada", Peer(federation="lungs", role="operator", name="ada")),
        ("deerfield://lungs/observer/eve", Peer(federation="lungs", role="observer", name="eve")),
        ("deerfield://lungs/aggregator", Peer(federation="lungs", role="aggregator")),
        ("deerfield://North%20Sea/site/St.%20Mary", Peer(federation="North Sea", role="site", name="St. Mary")),
    ],
)
def test_a_uri_names_one_peer(uri, peer):
    assert parse_peer(uri) == peer
    assert peer.uri == uri


@given(NAMES, NAMES, st.sampled_from(["site", "operator", "observer"]))
def test_every_peer_comes_back_from_its_uri(federation, name, role):
    peer = make_peer(federation, role, name)
    assert parse_peer(peer.uri) == peer


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "deerfield://",
        "deerfield://lungs",
        "deerfield://lungs/site",
        "deerfield://lungs/site/",
        "deerfield:///site/north",
        "deerfield://lungs/site/north/",
        "deerfield://lungs/site/north/east",
        "deerfield://lungs/aggregator/north",
        "deerfield://lungs/aggregator/",
        "deerfield://lungs/admin/north",
        "deerfield://lungs/Site/north",
        "Deerfield://lungs/site/north",
        "deerfield://lungs/site/nort%68",  # another spelling of north
        "deerfield://lungs/site/a b",
        "deerfield://lungs/site/a+b",
        "deerfield://lungs/site/a%2Fb",
        "deerfield://lungs/site/..",
        "deerfield://lungs/site/north%0A",
        "deerfield://lungs/site/north%00",
        "deerfield://lungs/site/%FF",
        "deerfield://lungs/site/" + "n" * 64,
        "deerfield://user@lungs/site/north",
        "deerfield://lungs:80/site/north",
        "deerfield://lungs/site/north?role=operator",
        "deerfield://lungs/site/north#1",
        "https://lungs/site/north",
        "lungs/site/north",
        "deerfield://deerfield://lungs/site/north",
    ],
)
def test_a_uri_that_is_spelt_otherwise_names_nobody(uri):
    with pytest.raises(InvalidInput, match="is no deerfield identity; its form is deerfield://<federation>/"):
        parse_peer(uri)


@given(st.text(max_size=70))
def test_names_are_those_that_a_run_file_takes(name):
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        with pytest.raises(InvalidInput):
            check_name("site", name)
    else:
        check_name("site", name)


@pytest.mark.parametrize("name", ["north\n", "", " north", "nörd", "n" * 64])
def test_a_name_that_breaks_the_rule_is_refused_with_the_rule(name):
    with pytest.raises(InvalidInput, match="cannot be the name of the site; 1 to 63 letters"):
        make_peer("lungs", "site", name)


def test_a_federation_has_one_aggregator_without_a_name():
    with pytest.raises(InvalidInput, match="leave the name out"):
        make_peer("lungs", "aggregator", "first")


@pytest.mark.parametrize(
    ("text", "host"),
    [("Agg.Example.ORG", "agg.example.org"), ("localhost", "localhost"), ("10.0.0.1", "10.0.0.1"), ("::1", "::1")],
)
def test_a_host_is_a_name_or_an_address(text, host):
    assert str(parse_host(text)) == host


@pytest.mark.parametrize("text", ["", "*", "*.example.org", "a..b", "-a", "a_b", "a:8600", "300.1.2.3", "fe80::1%eth0"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(InvalidInput, match=r"is no (host name|IP address)"):
        parse_host(text)
