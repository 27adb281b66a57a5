"""docs/security.md names tests that are there, and the suite has no fuzz target or command that it leaves out."""

import ast
import re
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [
    line.strip("|").split(" | ")
    for line in PAGE.split("\n## What is defended\n")[1].split("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| against")
]
NAMED = sorted(set(re.findall(r"`((?:\w+/)+test_\w+\.py(?:::\w+)*)`", PAGE)))


def names_in(path: Path) -> set[str]:
    """As pytest takes them behind the file's name."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (*functions, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, functions)}
    return found


@pytest.mark.parametrize("named", NAMED)
def test_every_test_that_is_named_is_there(named):
    file, _, name = named.partition("::")

    assert name in names_in(ROOT / "tests" / file) | {""}
    assert any(each.startswith(("test_", "Test")) for each in names_in(ROOT / "tests" / file))


def test_every_defence_has_a_test():
    assert len(ROWS) >= 20
    assert [row[0] for row in ROWS if len(row) != 3 or not re.search(r"`\w+/test_\w+\.py", row[2])] == []


def test_every_fuzz_target_is_named():
    fuzzing = PAGE.split("\n## Fuzzing\n")[1].split("\n## ")[0]

    assert {name for name in TARGETS if f"(`{name}`)" not in fuzzing} == set()
