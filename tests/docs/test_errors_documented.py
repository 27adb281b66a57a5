"""Every kind of problem that docs/errors.md has, and no other, is raised; the page's tables are made from the code."""

import ast
from collections import Counter
from pathlib import Path

from services.runtime import kinds

SERVICES = Path(__file__).parents[2] / "services"


def raised() -> set[str]:
    """Names in `kinds` of every `Problem(...)` in the services."""
    return {
        ast.unparse(node.args[0])
        for path in SERVICES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem"
    }


def test_every_kind_is_raised_and_a_problem_is_raised_with_one_of_them():
    assert raised() == {f"kinds.{kind.code.upper()}" for kind in kinds.DECLARED}


def test_a_kind_is_found_by_its_code():
    assert all(getattr(kinds, kind.code.upper()) is kind for kind in kinds.DECLARED)
    assert Counter(kind.code for kind in kinds.DECLARED).most_common(1)[0][1] == 1


def test_when_is_without_links_since_it_stands_in_the_api_s_description_too():
    assert [kind.code for kind in kinds.DECLARED if "](" in kind.when] == []
