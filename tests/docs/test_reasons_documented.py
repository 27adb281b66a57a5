"""docs/delivery.md and the dispatcher name the same reasons."""

import ast
import re
from pathlib import Path
from typing import get_args

from services.dispatcher.sender import FailureCode

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(?P<reason>[a-z_]+)(?:<n>)?` \|", re.MULTILINE)
#: Made of a status, by `verdict`.
WITH_STATUS = {"status_", "redirect_"}


def written_out():
    """The first argument of every `Unplannable(...)`, and the reason of every `Verdict(outcome, reason, ...)`."""
    for path in (ROOT / "services/dispatcher").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                at = {"Unplannable": 0, "Verdict": 1}.get(node.func.id)
                if at is not None and len(node.args) > at and isinstance(node.args[at], ast.Constant):
                    yield node.args[at].value


def test_every_reason_is_documented_and_no_other():
    documented = {row["reason"] for row in ROW.finditer((ROOT / "docs/delivery.md").read_text(encoding="utf-8"))}
    assert documented == {*get_args(FailureCode), *written_out(), *WITH_STATUS}
