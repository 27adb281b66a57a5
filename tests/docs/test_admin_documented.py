"""docs/admin.md has every field that a create takes, with its limit, and every path."""

import dataclasses
import re
from pathlib import Path

from schemas import headers, profiles
from schemas.profiles import INTEGRATION
from services.admin import audit, fields, idempotency, rules, urls
from services.admin.routes import all_routes
from services.admin.routes.route import DEFAULT_LIMIT, MAX_LIMIT, Api
from tests.apps import make_app

PAGE = (Path(__file__).parents[2] / "docs" / "admin.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([A-Za-z0-9.]+)` \| (.*) \|$", PAGE, re.MULTILINE))


def test_every_field_of_a_create_has_its_row_and_no_other(monkeypatch):
    asked, has = set(), fields.Fields.has

    def recorded(self, name):
        asked.add(self.prefix + name)
        return has(self, name)

    monkeypatch.setattr(fields.Fields, "has", recorded)
    rules.wanted({"name": "x", "url": "https://x.example"}, make_app(), INTEGRATION)

    assert asked - {"retry", "profile"} == set(ROWS)


def test_every_limit_is_the_code_s():
    for field, limits in {
        "name": [rules.MAX_NAME_CHARS],
        "url": [urls.MAX_URL_CHARS],
        "headers": [headers.MAX_HEADERS, headers.MAX_VALUE_CHARS],
        "secrets": [rules.MAX_SECRETS, rules.MAX_SECRET_CHARS],
        "timeoutMs": [profiles.MAX_TIMEOUT_MS],
        "retry.maxAttempts": [rules.MAX_ATTEMPTS],
        "maxInFlight": [rules.DEFAULT_PARALLEL, profiles.MAX_IN_FLIGHT],
    }.items():
        for limit in limits:
            assert re.search(rf"\b{limit:,}\b", ROWS[field]), f"{field}: {limit:,}"
    assert f"(1 to {MAX_LIMIT}, {DEFAULT_LIMIT} by default)" in PAGE
    assert f"(1 to {idempotency.MAX_KEY_CHARS} printable" in PAGE
    assert f"works for {audit.KEEP_KEYS_MS // 3_600_000} hours" in PAGE
    assert f"newest {audit.KEPT_RECORDS:,} records" in PAGE


def test_every_path_is_named():
    everything = all_routes(Api(**dict.fromkeys(each.name for each in dataclasses.fields(Api))))
    paths = {(route.method, route.path.replace("/subscriptions", "/integrations")) for route in everything}

    assert {tuple(path) for path in re.findall(r"^\| `([A-Z]+) (/v1/\S+)` \|", PAGE, re.MULTILINE)} == paths
    assert "/v1/apps/{app}/subscriptions" in PAGE
