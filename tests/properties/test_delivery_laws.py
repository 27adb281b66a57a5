"""Laws of matching, planning and guarding."""

import ipaddress
import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.headers import refused_header
from services.dispatcher.guard import address_refusal, url_refusal
from services.dispatcher.match import selected, selects
from services.dispatcher.plan import Opened, Planned, Unplannable, iso_ms, plan
from services.dispatcher.target import BadUrl, render_url
from streams.delivery_ids import delivery_id
from tests.records import make_delivery, make_integration

TYPES = st.sampled_from(["scheduled.created", "call_ended", "my.own", "*", ""])
INTEGRATIONS = st.builds(
    make_integration,
    st.text("abc", max_size=3),
    events=st.lists(TYPES, max_size=3),
    profile=st.sampled_from(["integration", "booking"]),
)
V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


class TestMatching:
    @given(st.lists(INTEGRATIONS), TYPES)
    def test_exactly_those_that_select_are_selected_whatever_their_order(self, among, event_type):
        found = selected(among, event_type)
        assert sorted(map(id, found)) == sorted(id(each) for each in among if selects(each, event_type))
        assert [each.id for each in found] == sorted(each.id for each in found)

    @given(st.tuples(st.text(), st.text(), st.text()), st.tuples(st.text(), st.text(), st.text()))
    def test_delivery_ids_are_equal_only_where_all_three_parts_are(self, one, other):
        assert (delivery_id(*one) == delivery_id(*other)) == (one == other)


class TestPlanning:
    @given(
        payload=st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=10,
        ),
        indent=st.sampled_from([None, 1]),
        app=st.text(),
        attempt=st.integers(1, 99),
        profile=st.sampled_from(["integration", "booking"]),
    )
    def test_a_body_is_json_and_holds_the_payload_byte_for_byte(self, payload, indent, app, attempt, profile):
        raw = json.dumps(payload, indent=indent).encode()
        made = plan(
            make_delivery(payload=raw, app=app, attempt=attempt),
            make_integration(profile=profile),
            Opened(headers={}, secrets={}, signing=[]),
            1_700_000_000_000,
            "X-ApifyCloud",
            "1",
        )
        body = json.loads(made.body)
        assert (body["payload"], body["attempt"], body.get("appId", app)) == (payload, attempt, app)
        assert made.body.endswith(b'"payload":' + raw + b"}")

    @given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
    def test_whatever_a_header_is_it_is_one_line_or_refused(self, name, literal, secret):
        made = plan(
            make_delivery(),
            make_integration(),
            Opened(headers={name: literal + "{secret.a}"}, secrets={"a": secret}, signing=[]),
            0,
            "X-ApifyCloud",
            "1",
        )
        if isinstance(made, Planned):
            assert made.headers[-1] == (name, literal + secret)
            assert refused_header(name, literal + secret) is None
            assert not set("\r\n\0") & set(name + literal + secret)
        else:
            assert isinstance(made, Unplannable)

    @given(st.text(), st.sampled_from(["https://h.example/{secret.a}/x?y", "https://h.example/?a={secret.a}&b=c"]))
    def test_a_secret_in_a_url_stays_one_value_in_its_place(self, secret, template):
        before, after = template.split("{secret.a}")
        url = render_url(template, {"a": secret})
        assert url.startswith(before)
        assert url.endswith(after)
        assert not set("/?#&=% \r\n") & set(url[len(before) : len(url) - len(after)].replace("%", ""))
        assert url_refusal(url, allow_http=False) is None

    @given(st.text())
    def test_any_url_is_rendered_into_ascii_or_refused(self, template):
        try:
            url = render_url(template, {})
        except BadUrl:
            return
        assert url.isascii()
        assert not any(char <= " " for char in url)
        url_refusal(url, allow_http=True)

    @given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
    def test_times_come_back_from_their_text(self, at_ms):
        parsed = datetime.fromisoformat(iso_ms(at_ms))
        assert round(parsed.timestamp() * 1000) == at_ms


class TestGuarding:
    @given(V4 | V6, st.booleans())
    def test_no_address_that_python_calls_inner_is_allowed(self, address, allow_private):
        if address_refusal(str(address), allow_private) is None:
            assert address.is_global or allow_private or getattr(address, "ipv4_mapped", None) or address.version == 6
            assert not any((address.is_multicast, address.is_unspecified, address.is_link_local))

    @given(V4 | V6)
    def test_allowing_private_addresses_refuses_nothing_more(self, address):
        if address_refusal(str(address), allow_private=False) is None:
            assert address_refusal(str(address), allow_private=True) is None

    @given(V4, st.booleans())
    def test_a_mapped_address_is_judged_as_the_one_in_it(self, address, allow_private):
        assert address_refusal(f"::ffff:{address}", allow_private) == address_refusal(str(address), allow_private)

    @pytest.mark.parametrize("form", ["64:ff9b::{}", "2002:{:x}:{:x}::1"])
    @given(address=V4, allow_private=st.booleans())
    def test_a_translated_address_is_refused_where_the_one_in_it_is(self, form, address, allow_private):
        number = int(address)
        text = form.format(*((address,) if form.count("{") == 1 else (number >> 16, number & 0xFFFF)))
        assert (address_refusal(text, allow_private) is None) == (address_refusal(str(address), False) is None)

    @given(st.text())
    def test_any_text_gets_an_answer(self, text):
        address_refusal(text, allow_private=True)
        url_refusal(text, allow_http=True)
        url_refusal(f"https://{text}/", allow_http=True)
