"""Attempts drawn to one scale, and as commands that a shell takes as they are."""

import shlex

from services.console.attempts import WIDTH, bars, curl, hours


def attempt(total, dns=None, connect=None, wait=None, read=None, tls=None):
    took = {"dnsMs": dns, "connectMs": connect, "tlsMs": tls, "waitMs": wait, "readMs": read}
    return {"timing": took | {"totalMs": total}}


def test_the_longest_attempt_is_as_wide_as_the_drawing_and_parts_follow_each_other():
    [first, second] = bars([attempt(100, 10.0, 20.0, 50.0, 10.0, tls=10.0), attempt(50, 0.0, 50.0)])

    assert [(each.kind, each.x, each.width) for each in first] == [
        ("dns", 0.0, 60.0),
        ("connect", 60.0, 120.0),
        ("tls", 180.0, 60.0),
        ("wait", 240.0, 300.0),
        ("read", 540.0, 60.0),
    ]
    assert [(each.kind, each.width) for each in second] == [("connect", WIDTH / 2)]


def test_what_no_part_accounts_for_is_the_rest():
    [[only]] = bars([attempt(5_000)])

    assert (only.kind, only.ms, only.width) == ("rest", 5_000, WIDTH)
    assert bars([attempt(0)]) == [[]]


def test_a_request_is_one_command_whatever_is_in_it():
    headers = {"X-A": "***; `id`", "User-Agent": "tenterhook/1"}
    sent = {
        "url": "https://x.example/?a='$(id)",
        "requestHeaders": headers,
        "requestBody": """@it's {"a":"$(id)\\n"}""",
    }
    given = ["-H", "X-A: ***; `id`", "-H", "User-Agent: tenterhook/1"]

    assert shlex.split(curl(sent).replace(" \\\n", "")) == [
        "curl",
        "-i",
        sent["url"],
        *given,
        "--data-raw",
        sent["requestBody"],
    ]
    assert shlex.split(curl(sent | {"requestBody": None}))[-2:] == ["--data-binary", "@body.json"]


QUIET = {"startAt": "2026-01-02T03:00:00.000Z", "delivered": 0, "rejected": 0, "exhausted": 0, "blocked": 0}


def test_hours_are_drawn_to_the_busiest():
    drawn = hours([QUIET, QUIET | {"delivered": 3, "blocked": 1}], height=40, step=12)

    assert [(each.x, each.delivered, each.failed) for each in drawn.bars] == [(0, 0.0, 0.0), (12, 30.0, 10.0)]
    assert (drawn.bars[1].label, drawn.label) == ("03:00: 3 delivered, 1 not", "3 delivered, 1 not")
    assert (drawn.width, drawn.height, drawn.bar) == (24, 40, 10)


def test_one_failure_is_seen_beside_thousands_that_arrived():
    [one] = hours([QUIET | {"delivered": 9_999, "exhausted": 1}], height=20, step=5).bars

    assert (one.delivered, one.failed) == (18.0, 2.0)
