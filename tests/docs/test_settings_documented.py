"""docs/settings.md names every variable that the command reads; the table of settings is made from the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_every_variable_that_a_command_reads_has_its_row():
    read = {
        variable
        for file in (ROOT / "services" / "cli").rglob("*.py")
        for variable in re.findall(r'env_var="(TENTERHOOK_[A-Z_]+)"', file.read_text(encoding="utf-8"))
    }

    assert read
    assert read == set(re.findall(r"^\| `(TENTERHOOK_[A-Z_]+)` \| `--", PAGE, re.MULTILINE))
