"""The picture of `tenterhook trace`: every step is there, in its order, within any terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.moments import Moment
from services.cli.picture import Scale, duration, picture

BEGAN_MS = 1_767_323_045_000


def moment(after_ms, what, integration=None, delivery=None, topic="t", **details):
    return Moment(BEGAN_MS + after_ms, what, topic, 0, 1, integration, delivery, details)


ACCEPTED = [
    moment(0, "accepted", type="call_ended", record="rec_1", bytes=34),
    moment(4, "receipt", integrations="int_a, int_b", configOffset=3),
]
AGAIN = {"next": 2, "due": "2026-01-02T03:04:10.060Z"}
LIFE = [
    *ACCEPTED,
    moment(6, "delivery", "int_a", "dlv_1", attempt=1),
    moment(6, "delivery", "int_b", "dlv_2", attempt=1),
    moment(
        *(40, "outcome", "int_b", "dlv_2"),
        outcome="delivered", attempt=1, reason="status_200", ms=32, dnsMs=2.0, connectMs=8.5, waitMs=18.0, readMs=3.0,
    ),
    moment(60, "attempt", "int_a", "dlv_1", attempt=1, reason="status_503", ms=34, **AGAIN),
    moment(61, "waiting", "int_a", "dlv_1", topic="retry.5s", attempt=2),
    moment(5_060, "put back", "int_a", "dlv_1", attempt=2),
    moment(10_070, "outcome", "int_a", "dlv_1", outcome="exhausted", attempt=2, reason="timeout", ms=5_000),
]  # fmt: skip


def drawn(moments, width=100, *, ascii_only=False):
    return [line.plain for line in picture(moments, width=width, ascii_only=ascii_only)]


def test_each_delivery_has_its_attempts_phases_waits_and_outcome():
    lines = [" ".join(line.split()) for line in drawn(LIFE, 140)]
    said = "\n".join(lines)

    assert "to 2 integrations" in said
    assert "int_a exhausted (live, dlv_1)" in lines
    assert lines.index("int_a exhausted (live, dlv_1)") < lines.index("int_b delivered (live, dlv_2)")
    assert "5.0 s in retry.5s" in said
    assert "delivered: 200, 32 ms (dns 2, connect 8.5, wait 18, read 3)" in said
    [phases] = [line for line in drawn(LIFE, 140) if "delivered: 200" in line]
    drawn_phases = [each for each in phases if each in "┄░▒▓█"]
    assert drawn_phases == sorted(drawn_phases, key="┄░▒▓█".index)
    assert set(drawn_phases) == set("┄░▒▓█")


def test_what_is_still_to_come_is_shown_with_when():
    waits = " ".join(drawn([*LIFE[:3], LIFE[5], LIFE[6]], 140)[-3].split())
    in_line = " ".join(drawn(LIFE[:3], 140)[-1].split())

    assert waits.startswith("waits")
    assert "5.0 s in retry.5s, then again" in waits
    assert in_line.endswith("not sent yet")


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({"integrations": "none", "configOffset": 3}, "no integration selects it"),
        ({"integrations": "none", "configOffset": 3, "repeatOf": "rec_0"}, "it repeats rec_0"),
        ({"integrations": "int_a", "configOffset": 3}, "to 1 integration"),
    ],
)
def test_an_event_that_went_to_nobody_says_why(details, said):
    assert said in "\n".join(drawn([ACCEPTED[0], moment(4, "receipt", **details)]))


def test_a_retry_that_keeps_its_place_a_quarantine_and_a_hand_over_are_steps_too():
    moments = [
        *ACCEPTED,
        moment(6, "delivery", "int_a", "dlv_1", attempt=1, cause="replay"),
        moment(60, "attempt", "int_a", "dlv_1", attempt=1, reason="status_503", ms=34, **AGAIN),
        moment(70, "handed over", "int_a", "dlv_1", attempt=2, until="later"),
        moment(5_100, "outcome", "int_a", "dlv_1", outcome="blocked", attempt=2, reason="url_refused", ms=0),
        moment(5_200, "quarantined", "int_a", "dlv_1", code="agent.raised", reason="x"),
    ]
    said = "\n".join(drawn(moments, 120))

    for each in ("(replay, dlv_1)", "in its place", "handed over", "blocked: url refused, 0 ms", "code agent.raised"):
        assert each in said


@given(width=st.integers(10, 300), ascii_only=st.booleans(), count=st.integers(2, len(LIFE)))
def test_no_line_is_wider_than_the_terminal_or_shows_what_it_cannot(width, ascii_only, count):
    lines = drawn(LIFE[:count], width, ascii_only=ascii_only)

    assert max(map(len, lines)) <= width
    assert all(line.isascii() for line in lines) or not ascii_only


@given(st.lists(st.floats(0, 1e9), min_size=1), st.integers(1, 200))
def test_columns_keep_the_order_of_times(instants, width):
    scale = Scale(instants, width)
    columns = [scale.column(each) for each in sorted(instants)]

    assert columns == sorted(columns)
    assert 0 <= columns[0] <= columns[-1] < width
    assert len(scale.axis()) == width


def test_durations_are_said_as_people_do():
    assert [duration(each) for each in (0.4, 34, 5_000, 320_000, 20_480_000)] == [
        "0 ms",
        "34 ms",
        "5.0 s",
        "5 min 20 s",
        "5 h 41 min",
    ]
