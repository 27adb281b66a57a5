"""docs/errors.md and the code name the same problems, with the same status."""

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]

ROW = re.compile(r"^\| `(?P<code>[a-z0-9_]+)` \| (?P<status>\d{3}|4xx) \|", re.MULTILINE)


def documented() -> dict[str, set[str]]:
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    http = text.split("\n## Over HTTP\n")[1].split("\n## ")[0]
    found = defaultdict(set)
    for row in ROW.finditer(http):
        found[row["code"]].add(row["status"])
    return dict(found)


def raised() -> dict[str, set[str]]:
    """Codes and statuses of every `Problem(...)` in the services; a status that is computed counts as 4xx."""
    found = defaultdict(set)
    for path in sorted((ROOT / "services").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                assert len(node.args) >= 2, f"{where}: status and code come first"
                status, code = node.args[0], node.args[1]
                assert isinstance(code, ast.Constant), f"{where}: a code is written out, to be found by searching"
                found[code.value].add(str(status.value) if isinstance(status, ast.Constant) else "4xx")
    return dict(found)


def test_every_problem_that_can_be_raised_is_documented_and_no_other():
    assert sorted(raised()) == sorted(documented())


def test_every_problem_is_documented_with_its_status():
    wrong = {code: (statuses, documented()[code]) for code, statuses in raised().items() if code != "not_http"}
    wrong = {code: both for code, both in wrong.items() if both[0] != both[1]}

    assert wrong == {}
