"""docs/events.md, rescheduling.md, troubleshooting.md and glossary.md say what the code says."""

import json
import re
from typing import get_args

from schemas.catalogue import BOOKING_TYPES, CATALOGUE, OWN_TYPES, WIDGET_TYPES
from schemas.profiles import Ordering
from schemas.samples import SAMPLES
from services.console.why import _UNREACHED, _UNRENDERED
from streams.records import Outcome
from tests.docs.test_reasons_documented import ROW as REASON
from tests.pasted import pages

EVENTS, MOVED, TROUBLE, GLOSSARY = (
    pages()[f"docs/{name}.md"] for name in ("events", "rescheduling", "troubleshooting", "glossary")
)


def rows(text):
    """First and second cell of each row of a table."""
    return re.findall(r"^\| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)


def test_every_type_has_its_row_in_its_section():
    for heading, types in (
        ("The widget's", WIDGET_TYPES),
        ("Bookings", BOOKING_TYPES),
        ("About integrations", OWN_TYPES),
    ):
        text = EVENTS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        wanted = {f"`{name}`": SAMPLES[name].description for name in types}

        assert {name: said for name, said in rows(text) if name.startswith("`")} == wanted


def test_every_sample_is_the_code_s():
    written = re.findall(r"^`([\w.]+)`:\n\n```json\n(.*?)^```", EVENTS, re.MULTILINE | re.DOTALL)

    assert {name: json.loads(text) for name, text in written} == {name: each.payload for name, each in SAMPLES.items()}
    assert set(SAMPLES) == CATALOGUE | OWN_TYPES


def test_every_event_of_a_booking_has_the_change_that_fires_it_and_no_other():
    table = MOVED.partition("\n## What fires what\n")[2].partition("\n## ")[0]

    assert {name.strip("`") for _, name in rows(table) if name.startswith("`")} == BOOKING_TYPES
    named = {field for field in re.findall(r"`(\w+)`", table) if "_" in field and not field.startswith("call_")}
    fields = {name for kind in BOOKING_TYPES for name in SAMPLES[kind].payload["scheduled_call"]}
    assert named - {"pending_confirmation", "scheduled_call"} <= fields


def test_every_ordering_is_explained_for_bookings():
    assert set(re.findall(r"^\| `ordering: (\w+)`", MOVED, re.MULTILINE)) == set(get_args(Ordering))


def test_troubleshooting_knows_the_reasons_that_there_are():
    documented = {row["reason"] for row in REASON.finditer(pages()["docs/delivery.md"])}
    table = TROUBLE.partition("\n## 3. ")[2].partition("\n## ")[0]
    named = {reason for cell, _ in rows(table) for reason in re.findall(r"`(\w+)`", cell)} - {"reason"}
    without_numbers = {re.sub(r"\d+$", "", reason) for reason in named}

    assert without_numbers <= documented
    # Those that the console explains are explained here too, but for a few that say it themselves.
    assert {*_UNREACHED, *_UNRENDERED} - named <= {
        "secrets_erased",
        "signing_secret_missing",
        "signing_secret_unusable",
    }


def test_the_glossary_has_each_word_once_and_in_order():
    for part in GLOSSARY.split("\n## ")[1:]:
        words = [word for word, _ in rows(part)][2:]
        assert words == sorted(set(words), key=str.lower)
    for word in ("app", "event", "integration", "delivery", "attempt", "result", "outcome", "breaker"):
        assert f"\n| {word} | " in GLOSSARY
    row = GLOSSARY.partition("\n| outcome | ")[2].partition("\n")[0]
    assert set(get_args(Outcome)) <= set(re.findall(r"`(\w+)`", row))
