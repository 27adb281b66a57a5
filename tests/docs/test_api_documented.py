"""docs/api.md is what `make openapi` makes of docs/openapi.json, and nothing of that is left out."""

import json
import re
from collections import Counter

from docs.making.api import anchor, page
from tests.pasted import ROOT

DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def section(title):
    found = re.split(rf"^### {re.escape(title)}$", PAGE, flags=re.MULTILINE)
    assert len(found) == 2, title
    return re.split(r"^##", found[1], flags=re.MULTILINE)[0]


def test_the_page_is_as_made():
    assert page(DOCUMENT) == PAGE, "make openapi"


def test_every_request_has_its_parameters_bodies_and_refusals():
    assert len(OPERATIONS) >= 69
    for name, operation in OPERATIONS.items():
        text = section(f"`{name}`")
        assert operation["summary"] in text
        for parameter in operation.get("parameters", ()):
            assert f"| {parameter['in']} | `{parameter['name']}` |" in text
        for status, response in operation["responses"].items():
            row = re.search(rf"^\| {status} \| (.+) \|$", text, re.MULTILINE)[1]
            if "$ref" in response:
                codes = response["$ref"].rpartition("/")[2].split(".")[1:]
                assert [f"`{code}`" for code in codes] == row.split(", ")
        if "requestBody" in operation:
            assert re.search(r"^Takes \[\w+\]\(#\w+\)", text, re.MULTILINE)


def test_every_field_of_every_schema_is_there():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert set(re.findall(r"^\| `([\w]+)` \|", section(name), re.MULTILINE)) >= set(schema.get("properties", ()))


def test_every_heading_has_an_address_of_its_own():
    """GitHub and the site number those that are there twice, so that a link leads to the first."""
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    slugs = Counter(anchor("", heading).strip("-") for heading in headings)

    assert [slug for slug, times in slugs.items() if times > 1] == []
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= set(slugs)


def test_a_type_says_what_it_is_of():
    document = {
        "tags": [],
        "paths": {},
        "components": {
            "schemas": {
                "A": {
                    "required": ["b"],
                    "properties": {
                        "b": {"type": ["array", "null"], "items": {"$ref": "#/x/A"}, "maxItems": 3},
                        "c": {"type": "object", "properties": {"d": {"enum": ["x", None], "default": "x"}}},
                        "e": {"type": "integer", "minimum": 1, "maximum": 20_000, "description": "One | two."},
                    },
                }
            }
        },
    }

    assert [line for line in page(document).splitlines() if line.startswith("| `")] == [
        "| `b` | `array` of [A](#a) or `null` | Required. At most 3 entries. |",
        "| `c` | `object` |  |",
        '| `c.d` | `"x"` or `null` | `"x"` by default. |',
        "| `e` | `integer` | 1 to 20,000. One \\| two. |",
    ]
