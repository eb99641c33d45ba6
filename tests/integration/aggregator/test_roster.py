"""Sites that have said Hello are known with what they said, until they say something else, over restarts too."""

import json
from dataclasses import replace

import pytest

from deerfield.errors import BadRequest, TooLarge
from deerfield.roster import NOTHING, KnownSite, PopulationReport, SiteReport
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.calls import unary
from deerfield.wire.channel import connect
from deerfield.wire.client import SiteClient
from deerfield.wire.federation_pb2_grpc import FederationStub
from tests import command
from tests.fuzz_messages import REPORT
from tests.integration.aggregator.audited import logged
from tests.integration.aggregator.conftest import served


def noted(aggregator):
    """Who said something new, as the audit log has it."""
    edges = logged(aggregator.desk.store, "edge")
    return [json.loads(entry.detail)["site"] for entry in edges if entry.what == "site_reported"]


def test_however_much_a_site_says_its_entry_in_the_audit_log_is_short(aggregator):
    wide = "\N{GRINNING FACE}" * (limits.NAME_CHARS - 2)
    told = tuple(PopulationReport(name=f"{number:02}{wide}") for number in range(limits.POPULATIONS))
    with served(aggregator) as server:
        server.site("north").hello(SiteReport(populations=told))
    [entry] = [each for each in logged(aggregator.desk.store, "edge") if each.what == "site_reported"]
    assert json.loads(entry.detail)["populations"] == limits.POPULATIONS
    assert len(entry.detail) < 2 * limits.NAME_CHARS


def test_what_a_site_says_stands_until_it_says_something_else(tmp_path, open_in, clock):
    first = open_in(tmp_path)
    with served(first) as server:
        server.site("south").hello()
        server.site("north").hello(REPORT)
        clock.advance(60)
        server.site("north").hello(REPORT)
        north, south = server.runs.sites()
    assert (north.site, north.protocol, north.report) == ("north", limits.PROTOCOL, REPORT)
    assert north.said_at == north.heard_at == south.said_at + 60
    assert south.report == NOTHING
    assert noted(first) == ["south", "north"]  # what was said again is no news
    first.desk.store.close()
    second = open_in(tmp_path)
    with served(second) as server:
        assert tuple(server.runs.sites()) == (replace(north, heard_at=0.0), replace(south, heard_at=0.0))
        server.site("north").hello(SiteReport(complete=True))
        assert next(server.runs.sites()).report == SiteReport(complete=True)
    assert noted(second) == ["south", "north", "north"]


def test_a_site_that_calls_is_known_though_it_started_before_its_word_was_kept(server):
    server.site("south").hello(REPORT)
    with connect(server.ports.listening, role="site", site="north") as channel:
        unary(FederationStub(channel).NextTask, pb.NextTaskRequest(), 5)
    north, south = server.runs.sites()
    assert (north.site, north.report, north.said_at) == ("north", NOTHING, 0.0)
    assert north.heard_at == south.heard_at > 0


def test_only_sites_are_known(server):
    with connect(server.ports.listening, role="operator") as channel:
        SiteClient(channel).hello(REPORT)
    assert list(server.runs.sites()) == []


def test_more_than_a_site_may_say_is_refused_and_nothing_is_kept(server):
    with connect(server.ports.listening, role="site", site="north") as channel:
        many = [pb.PopulationReport(name=str(number)) for number in range(limits.POPULATIONS + 1)]
        asked = pb.HelloRequest(protocol_min=1, protocol_max=limits.PROTOCOL, report=pb.SiteReport(populations=many))
        with connect(server.ports.listening, role="site", site="x" * 2000) as long, pytest.raises(BadRequest):
            unary(FederationStub(long).Hello, pb.HelloRequest(protocol_min=1, protocol_max=9), 5)
        with pytest.raises(TooLarge, match=f"65 populations of a site; the limit is {limits.POPULATIONS}"):
            unary(FederationStub(channel).Hello, asked, 5)
    with server.aggregator.desk.store.edge() as edge:
        assert edge.roster.after("", 1) == []


def test_a_federation_of_more_sites_than_fit_into_one_answer(server):
    names = [f"site {number:04}" for number in range(limits.SITES_PER_CALL + 1)]
    with server.aggregator.desk.store.edge() as edge:
        for name in reversed(names):
            edge.roster.put(KnownSite(site=name, protocol=limits.PROTOCOL, build="", said_at=1.0))
    assert [each.site for each in server.runs.sites()] == names


def test_an_operator_sees_them(server):
    def said(*options):
        here = {"DEERFIELD_AGGREGATOR": server.ports.listening, "COLUMNS": "140"}
        code, text = command.deerfield("runs", "sites", *options, **here)
        assert code == 0, text
        return text

    assert said() == "no site has ever called\n"
    server.site("north").hello(REPORT)
    server.site("south").hello(SiteReport(populations=(PopulationReport(name="notes"),)))
    server.site("west").hello(SiteReport(complete=True))
    table = said()
    for words in ("abababababab", "200 to 400, each patient", "as a run finds them", "none"):
        assert words in table
    assert "keeps the others to itself" in table
    assert "has none" in table
    north, south, _ = json.loads(said("--json"))
    assert north["populations"][0]["units_low"] == 200
    assert south["populations"] == [{"name": "notes", "registered": False}]
