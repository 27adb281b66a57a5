"""docs/tracing.md says of every span and attribute what the code says."""

import re
from pathlib import Path

from services.runtime.settings import TracingSettings
from services.runtime.spans import ATTRIBUTES, DECLARED

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text(encoding="utf-8")


def span_row(span):
    return f"| `{span.name}` | {span.kind} | {span.service} | {span.parent} | {span.meaning} |"


def attribute_row(name):
    where = ", ".join(dict.fromkeys(f"`{span.name}`" for span in DECLARED if name in span.attributes))
    return f"| `{name}` | {ATTRIBUTES[name]} | {where} |"


def rows_of(heading):
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in part.splitlines() if line.startswith("| `")]


def test_every_span_has_its_row():
    assert rows_of("Spans") == [span_row(span) for span in DECLARED]


def test_every_attribute_has_its_row():
    assert rows_of("Attributes") == [attribute_row(name) for name in ATTRIBUTES]


def test_its_settings_are_named():
    named = set(re.findall(r"`TENTERHOOK_TRACING__([A-Z_]+)", PAGE))

    assert named == {name.upper() for name in TracingSettings.model_fields}
