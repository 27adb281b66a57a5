"""docs/consistency.md: every test that it names is there, for each of the orders of events; and so is every claim."""

import ast
import re
from pathlib import Path

import pytest

from tests.chaos.claims import CLAIMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "consistency.md").read_text(encoding="utf-8")


def part(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


ROWS = re.findall(
    r"^\| (\d+) \| .+? \| .+? \| (.+) \|$", part("Orders of events that break simpler designs"), re.MULTILINE
)
#: File and test, of the whole page.
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


def test_each_of_the_orders_has_a_test():
    assert [int(number) for number, _ in ROWS] == list(range(1, 23))
    for number, tests in ROWS:
        assert re.fullmatch(r"(in part: )?`[\w/]+\.py::\w+`(<br>`[\w/]+\.py::\w+`)*", tests), number


@pytest.mark.parametrize(("file", "test"), NAMED, ids="::".join)
def test_what_is_named_is_there(file: str, test: str):
    code = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert re.search(rf"^ *(async )?def {test}\(|^{test} = ", code, re.MULTILINE)
    assert test.startswith(("test_", "Test"))


def is_long(file: str, test: str) -> bool:
    """Whether it is left to `make long`."""
    for each in ast.walk(ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == test:
            return any(ast.unparse(mark) in {"pytest.mark.long", "SLOW"} for mark in each.decorator_list)
    return False


def test_make_test_runs_a_test_of_each_of_the_orders():
    for number, tests in ROWS:
        assert not all(is_long(*named) for named in re.findall(r"`([\w/]+\.py)::(\w+)`", tests)), number


def test_each_claim_has_a_number():
    assert [int(number) for number in re.findall(r"^(\d+)\. ", part("The claims"), re.MULTILINE)] == list(
        range(1, len(CLAIMS) + 1)
    )
