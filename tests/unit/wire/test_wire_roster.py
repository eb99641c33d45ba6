import pytest

from deerfield.errors import BadRequest, TooLarge
from deerfield.roster import NOTHING, KnownSite, PopulationReport, SiteReport
from deerfield.wire import federation_pb2 as pb
from deerfield.wire import limits
from deerfield.wire.roster import build_name, decode_report, decode_site, encode_report, encode_site
from tests.fuzz_messages import REPORT
from tests.unit.wire.values import KNOWN, over_the_wire


def test_what_a_site_says_survives_the_wire():
    assert decode_report(over_the_wire(encode_report(REPORT))) == REPORT
    assert decode_report(pb.HelloRequest().report) == NOTHING
    assert decode_site(over_the_wire(encode_site(KNOWN))) == KNOWN
    assert build_name("x\0" + "y" * 1000) == "x\N{REPLACEMENT CHARACTER}" + "y" * (limits.NAME_CHARS - 2)


def populations(*changes):
    return pb.SiteReport(populations=[pb.PopulationReport(**{"name": "p", **each}) for each in changes])


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (populations(*[{}] * (limits.POPULATIONS + 1)), TooLarge),
        (populations({}, {}), BadRequest),
        (populations({"name": ""}), BadRequest),
        (populations({"name": "x" * (limits.NAME_CHARS + 1)}), BadRequest),
        (populations({"name": "a\0b"}), BadRequest),
        (populations({"data_commitment": b"short"}), BadRequest),
        (populations({"unit": "village"}), BadRequest),
        (populations({"unit": "patient"}), BadRequest),
        (populations({"unit": "patient", "units_low": 2, "units_high": 1}), BadRequest),
        (populations({"unit": "patient", "units_low": 2, "units_high": 2**53 + 1}), BadRequest),
        (populations({"units_high": 7}), BadRequest),
    ],
)
def test_what_no_site_can_say_is_refused(message, error):
    with pytest.raises(error):
        decode_report(message)


def test_an_answer_of_sites_that_say_as_much_as_they_may_is_one_message():
    wide = "\N{GRINNING FACE}" * limits.NAME_CHARS
    most = PopulationReport(
        name=wide, commitment="ab" * 32, on_start=True, unit="patient", units_low=1, units_high=2**53
    )
    report = SiteReport(populations=(most,) * limits.POPULATIONS, complete=True)
    site = KnownSite(site=wide, protocol=2**31, build=wide, report=report, said_at=1e9, heard_at=1e9)
    answer = pb.SitesReply(sites=[encode_site(site)] * limits.SITES_PER_CALL)
    assert answer.ByteSize() < limits.MESSAGE_BYTES
