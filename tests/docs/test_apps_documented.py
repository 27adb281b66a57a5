"""docs/admin.md has every path of apps, keys, tokens and types, and the code's limits."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from services.admin import apps as rules
from services.admin import credentials as opening
from services.admin.routes import apps, audit, credentials

PAGE = (Path(__file__).parents[2] / "docs" / "admin.md").read_text(encoding="utf-8")
LINES = {name: line for line in PAGE.splitlines() if (name := line.removeprefix("- `").partition("`")[0])}


def test_every_path_is_named_with_the_role_that_it_takes():
    api: Any = SimpleNamespace()
    paths = {
        (each.method, each.path): each.role
        for each in (*apps.routes(api), *credentials.routes(api), audit.routes(api)[-1])
    }
    rows = dict.fromkeys(paths)
    for method, path, role in re.findall(r"^\| `([A-Z]+) (/v1/\S+)` \| (\w+)", PAGE, re.MULTILINE):
        if (method, path) in rows:
            rows[method, path] = role

    assert rows == paths


def test_every_limit_is_the_code_s():
    assert f"at most {rules.MAX_ORIGINS}," in LINES["origins"]
    assert f"at most {rules.MAX_OWN_TYPES};" in LINES["eventTypes"]
    assert f"0 to {rules.MAX_MAX_ACTIVE:,}" in LINES["maxActive"]
    assert f"1 to {rules.MAX_PUBLIC_RATE:,}" in LINES["publicRatePerS"]
    assert opening.MAX_KEYS == opening.MAX_TOKENS == 100
    assert f"At most {opening.MAX_KEYS} an app" in PAGE
    assert f"At most {opening.MAX_TOKENS} each" in PAGE
    assert f"{8 * opening.RANDOM_BYTES} random bits" in PAGE
