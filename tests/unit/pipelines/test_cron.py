"""Cron expressions that Kubeflow Pipelines runs when they are meant to, and those that it would misread."""

import pytest

from pipelines.kubeflow.cron import FORM, checked


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 3 * * 1",
        "0 0 3 * * MON",
        "*/10 0-59/5 3,15 ? jan-mar,DEC 1-5",
        "5/10 * * * * ?",
        "0 0 0 29 2 *",  # leap years
        "0 0 0 31 2 1",  # or on Mondays
    ],
)
def test_six_fields_are_taken(expression):
    assert checked(expression) == expression


def test_spaces_do_not_matter():
    assert checked("  0  0 3\t* * 1 ") == "0 0 3 * * 1"


def test_five_fields_are_refused_with_the_form_and_what_was_probably_meant():
    with pytest.raises(ValueError, match="has five fields") as refused:
        checked("30 3 * * 1")
    assert FORM in str(refused.value)
    assert "'0 30 3 * * 1'" in str(refused.value)


@pytest.mark.parametrize("expression", ["", "@daily", "@every 1h", "0 0 3 * *  1 2027", "* * * *"])
def test_other_numbers_of_fields_are_refused_with_the_form(expression):
    with pytest.raises(ValueError, match="no cron expression of six fields") as refused:
        checked(expression)
    assert FORM in str(refused.value)


@pytest.mark.parametrize(
    ("expression", "field", "limits"),
    [
        ("60 0 3 * * 1", "seconds is '60'", "0 to 59"),
        ("0 x 3 * * 1", "minutes is 'x'", "0 to 59"),
        ("0 0 24 * * 1", "hours is '24'", "0 to 23"),
        ("0 0 3 0 * 1", "day-of-month is '0'", "1 to 31"),
        ("0 0 3 * 13 1", "month is '13'", "1 to 12 or JAN-DEC"),
        ("0 0 3 * * 7", "day-of-week is '7'", "0 to 6 or SUN-SAT"),
        ("0 0 3 * * MON-SUN", "day-of-week is 'MON-SUN'", "0 to 6"),  # Sunday is the first day
        ("0 */0 3 * * 1", "minutes is '*/0'", "steps such as */2"),
        ("0 1,, 3 * * 1", "minutes is '1,,'", "lists"),
        ("0 -1 3 * * 1", "minutes is '-1'", "0 to 59"),
        ("0 ٣ 3 * * 1", "minutes is '٣'", "0 to 59"),
        ("0 0 3 L * ?", "day-of-month is 'L'", "1 to 31"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_what_it_may_be(expression, field, limits):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        checked(expression)
    assert field in str(refused.value)
    assert limits in str(refused.value)


def test_a_day_that_no_month_has_is_refused():
    with pytest.raises(ValueError, match="never comes: no month that it names has day 30"):
        checked("0 0 3 30,31 FEB *")
