"""Any record that an older release wrote, through the code of today and back."""

import json
from contextlib import contextmanager
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import codec
from streams.codec import Unreadable
from tests.older import NEWEST, OLDER, RELEASED, as_read_then, fields_of, written_under
from tests.properties.test_codec_properties import FIELDS, record_of, values
from tests.records import make_delivery

each_older = pytest.mark.parametrize("number", OLDER, ids=lambda number: f"{RELEASED[number][0]}-{number}")
FIELDS_THEN = {number: values(json.loads(RELEASED[number][1])) for number in OLDER}


def is_in(some, all_of_it) -> bool:
    """Whether every field is there with this value, those of records inside it too; others may be there as well."""
    if isinstance(some, dict):
        return some.keys() <= all_of_it.keys() and all(is_in(each, all_of_it[name]) for name, each in some.items())
    if isinstance(some, list):
        return len(some) == len(all_of_it) and all(map(is_in, some, all_of_it))
    return some == all_of_it


def test_there_are_older_schemas_and_this_is_all_of_them():
    assert len(OLDER) + len(NEWEST) == len(RELEASED)
    assert 1073741825 in OLDER


@each_older
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_what_was_written_then_is_read_with_every_field_and_defaults_for_the_rest(number, data):
    fields = data.draw(FIELDS_THEN[number])
    record = codec.decode(written_under(number, fields))
    now = fields_of(record)
    made_without = fields_of(msgspec.convert(fields, type(record), builtin_types=(bytes,)))

    assert is_in(fields, now)
    assert now == made_without


@each_older
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_written_on_by_today_s_code_an_older_release_reads_what_it_wrote(number, data):
    fields = data.draw(FIELDS_THEN[number])
    record = codec.decode(written_under(number, fields))

    assert as_read_then(number, codec.encode(record)) == fields


@each_older
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_what_is_written_today_an_older_release_reads_in_every_field_that_it_knows(number, data):
    name = RELEASED[number][0]
    fields = data.draw(FIELDS[name])
    then = as_read_then(number, codec.encode(record_of(name, fields)))

    assert then.keys() == {field["name"] for field in json.loads(RELEASED[number][1])["fields"]}
    assert is_in(then, fields)


@contextmanager
def a_release_that_knows(*numbers: int):
    """The codec of a release that had these schemas and no others."""
    known = {number: RELEASED[number] for number in numbers}
    with patch.object(codec, "released", lambda: known):
        codec._by_id.cache_clear()
        codec._newest.cache_clear()
        try:
            yield
        finally:
            codec.use_topic(lambda _: None)
            codec._by_id.cache_clear()
            codec._newest.cache_clear()


def test_a_process_of_an_older_release_reads_today_s_records_where_it_can_ask_for_the_schema_and_not_else():
    delivery = make_delivery(attempt=2, retry_line="retry.5s", retry_partition=3, retry_generation=9)
    today = codec.encode(delivery)
    asked = []

    def ask(number):
        asked.append(number)
        return RELEASED[number][1]

    with a_release_that_knows(1073741825):
        with pytest.raises(Unreadable, match="written by a newer release"):
            codec.decode(today)
        codec.use_topic(ask)
        read = [codec.decode(today), codec.decode(today)]

    assert asked == [NEWEST["delivery"]]
    assert read == [msgspec.structs.replace(delivery, retry_line=None, retry_partition=None, retry_generation=None)] * 2
