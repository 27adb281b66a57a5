"""What pages are made of: vendored files as they were released, nothing marked as safe, nothing inline."""

import re
from hashlib import sha256
from pathlib import Path

from services.console import rendering
from services.console.overview import is_wanted, page_number
from services.console.words import percent, span, utc
from tests.records import make_integration

CONSOLE = Path(rendering.__file__).parent
VENDOR = CONSOLE / "static" / "vendor"


def test_vendored_files_are_those_that_were_checked_in_each_with_its_licence():
    listed = dict(reversed(line.split()) for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    there = {path.name: sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir() if path.name != "SHA256SUMS"}

    assert there == listed
    assert {name.removesuffix(".min.js") for name in there if name.endswith(".js")} == {
        name.removesuffix(".LICENSE") for name in there if name.endswith(".LICENSE")
    }


def test_templates_escape_and_have_nothing_inline_or_from_elsewhere():
    for path in (CONSOLE / "templates").glob("*.html"):
        text = path.read_text()
        assert not re.search(r"\|\s*safe\b|autoescape|Markup", text), path.name
        assert not re.search(r"\son[a-z]+=|\sstyle=|<style|hx-on|javascript:", text), path.name
        assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", text), path.name
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), path.name
    assert not re.search(r"@import|url\(", (CONSOLE / "static" / "console.css").read_text())


def test_every_form_that_changes_something_carries_its_token():
    for path in (CONSOLE / "templates").glob("*.html"):
        for form in re.findall(r'<form method="post".*?</form>', path.read_text(), re.DOTALL):
            is_free = 'action="/sign-in"' in form or 'action="/sign-out"' in form
            assert is_free or "csrf(form_token)" in form, path.name


def test_what_comes_from_outside_is_escaped():
    page = rendering.html("sign_in.html", fault="<script>alert(1)</script>")

    assert "&lt;script&gt;alert(1)" in page.text


def test_values_for_people():
    assert [span(each) for each in (0, 999, 5_000, 1_250, 180_000, 7_200_000, 500_000_000)] == [
        *("0 ms", "999 ms", "5 s", "1.2 s", "3 min", "2 h", "5 d")
    ]
    assert [percent(each) for each in (1.0, 0.9999, 0.983, 0.07, 0.0)] == [
        "100 %",
        "99.9 %",
        "98.3 %",
        "7 %",
        "0 %",
    ]
    assert utc("2026-01-02T03:04:05.678Z") == "2026-01-02 03:04:05 UTC"


def test_search_looks_at_name_address_events_and_status():
    one = make_integration(events=["call_ended"], url="https://x.example")

    assert is_wanted(one, "paused", "", "")
    assert is_wanted(one, "paused", "crm ENDED x.example", "paused")
    assert not is_wanted(one, "paused", "crm started", "")
    assert not is_wanted(one, "paused", "crm", "active")
    assert [page_number(each) for each in ("", "2", "0", "-1", "٣", "9" * 9)] == [1, 2, 1, 1, 1, 1]
