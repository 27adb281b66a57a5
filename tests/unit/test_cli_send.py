"""The payload of `tenterhook send`."""

import io
import sys
from types import SimpleNamespace

import pytest

from services.cli.errors import WrongUsage
from services.cli.send import _payload, send


def test_the_payload_is_taken_byte_for_byte():
    assert _payload('{"a" :  1.50, "b":"\\u00fc"}') == b'{"a" :  1.50, "b":"\\u00fc"}'


def test_the_payload_of_a_file_or_of_standard_input(tmp_path, monkeypatch):
    (tmp_path / "payload.json").write_bytes(b'{"a":1}\n')
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"[1]")))

    assert (_payload(f"@{tmp_path}/payload.json"), _payload("-")) == (b'{"a":1}', b"[1]")


@pytest.mark.parametrize(("given", "said"), [("{", "not JSON"), ("", "not JSON"), ("@nowhere", "No such file")])
def test_a_payload_that_is_none_is_wrong_usage(given, said):
    with pytest.raises(WrongUsage, match=said):
        _payload(given)


@pytest.mark.parametrize(("count", "event_id", "said"), [(0, None, "at least 1"), (2, "e-1", "names one event")])
def test_a_count_that_makes_no_sense_is_wrong_usage(count, event_id, said):
    with pytest.raises(WrongUsage, match=said):
        send("call_ended", count=count, id=event_id)
