"""What is read of a verdict, and which paths a caller's files may have."""

import json

import pytest

from deerfield.errors import BadRequest, InvalidInput, TooLarge
from deerfield.promotion import PromotionRecord, Rule
from deerfield.wire import limits, promoting
from deerfield.wire.promoting import attachment_name, read_verdict
from tests.registry import verdict

MODEL = "a model"


def test_a_verdict_is_read_with_its_rules():
    text = verdict(MODEL, "7", "3", passed=False)
    found = read_verdict(MODEL, "7", "3", text)
    assert (found.passed, found.text, len(found.sha256)) == (False, text, 64)
    assert found.rules[0] == Rule(rule="minimum", passed=False, value=0.75, limit=0.8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[]", "is no JSON object but list"),
        ("{", "is no JSON"),
        ('{"schema": 2}', "has schema '2', and this version of deerfield reads 1"),
        (verdict(MODEL, "8", ""), "version is '8', and the call says '7'"),
        (verdict("another", "7", ""), "model is 'another'"),
        (verdict(MODEL, "7", "3"), "expected_champion is '3', and the call says ''"),
        (verdict(MODEL, "7", "").replace('"value": 0.75', '"value": NaN'), "NaN is no number"),
        (verdict(MODEL, "7", "", passed=False).replace("false", "true", 1), "its rules say otherwise"),
        (verdict(MODEL, "7", "").replace('"rule": "test_set"', '"rule": "a/b"'), r"rules\.1\.rule is 'a/b'"),
        (verdict(MODEL, "7", "").replace('"rule": "test_set"', '"rule": "minimum"'), "minimum stands there twice"),
        (
            verdict(MODEL, "7", "").replace('"passed": true', '"passed": false, "passed": true', 1),
            "'passed' stands there twice",
        ),
        (verdict(MODEL, "7", "").replace('"value": 0.75', '"value": "high"', 1), r"rules\.0\.value is 'high'"),
        (verdict(MODEL, "7", "").replace('"value": 0.75', '"value": true', 1), r"rules\.0\.value is True"),
    ],
)
def test_a_verdict_that_is_none_is_refused(given, words):
    with pytest.raises(InvalidInput, match=words):
        read_verdict(MODEL, "7", "", given)


def test_a_verdict_of_no_rules_or_of_too_many_is_refused():
    raw = json.loads(verdict(MODEL, "7", ""))
    with pytest.raises(InvalidInput, match=r"rules is \[\]"):
        read_verdict(MODEL, "7", "", json.dumps(raw | {"rules": []}))
    many = [raw["rules"][0] | {"rule": f"rule {number}"} for number in range(65)]
    with pytest.raises(TooLarge, match="65 rules in a verdict; the limit is 64"):
        read_verdict(MODEL, "7", "", json.dumps(raw | {"rules": many}))


@pytest.mark.parametrize("version", ["0", "-1", "latest", "", "1" * 30, "1\n", "\u0661"])
def test_a_version_is_a_number_from_one_on(version):
    with pytest.raises(BadRequest, match="a number from 1 on"):
        read_verdict(MODEL, version, "", verdict(MODEL, version, ""))


@pytest.mark.parametrize("name", ["report.html", "evaluation/confusion.png", "a/b/c/d_1-2.json", "Report"])
def test_a_path_below_a_run_is_taken_as_it_is(name):
    assert attachment_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "../up", "/etc/passwd", "a//b", "a/../b", ".hidden", "a/b/c/d/e", "x" * 200, "a b", "a\\b", "a\n", "a/"],
)
def test_a_path_that_leads_elsewhere_is_refused(name):
    with pytest.raises(InvalidInput, match="is no path of up to 128"):
        attachment_name(name)


@pytest.mark.parametrize("name", ["run.json", "phases/000001.json", "ledger/000001.json", "verdict.json"])
def test_a_path_of_the_aggregators_own_is_refused(name):
    with pytest.raises(InvalidInput, match="is written by the aggregator itself"):
        attachment_name(name)


def test_a_record_comes_back_as_it_went():
    record = PromotionRecord(
        number=3,
        model=MODEL,
        kind="rollback",
        state="REFUSED",
        version="2",
        expected_champion="3",
        detail="it was deleted",
        operator="ada",
        began_at=1.5,
        ended_at=2.5,
    )
    message = promoting.encode_record(record)
    assert promoting.decode_record(message) == record
    message.kind = "coup"
    with pytest.raises(BadRequest, match="kind 'coup' is not one of"):
        promoting.decode_record(message)


def test_the_longest_verdict_is_taken():
    room = limits.VERDICT_BYTES - len(verdict(MODEL, "7", ""))
    assert read_verdict(MODEL, "7", "", verdict(MODEL, "7", "", note="x" * room)).passed
    with pytest.raises(TooLarge, match="bytes in a verdict; the limit is 1048576"):
        read_verdict(MODEL, "7", "", verdict(MODEL, "7", "", note="x" * (room + 1)))
