"""docs/settings.md says of every setting what the code says."""

import re
from pathlib import Path

import pytest

from docs.making.tables import settings_table, with_tables
from services.cli.settings import all_settings
from services.runtime.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip(" `"): [cell.strip() for cell in cells]
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := line.strip("|").split("|")) == 4
}


@pytest.fixture
def defaults(tmp_path, monkeypatch):
    """All settings, with no file and no variable about."""
    monkeypatch.chdir(tmp_path)
    return list(all_settings(Settings()))


def test_the_table_is_as_made_of_every_setting_with_variable_default_and_meaning(defaults):
    assert with_tables(PAGE, {"settings": settings_table(defaults)}) == PAGE, "make tables"


def test_a_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="no place"):
        with_tables("# A page\n", {"settings": []})


def test_no_setting_is_made_up(defaults):
    assert set(ROWS) == {setting.name for setting in defaults}


def test_every_variable_that_a_command_reads_has_its_row():
    folder = Path(__file__).parents[2] / "services" / "cli"
    read = {
        variable
        for file in folder.glob("*.py")
        for variable in re.findall(r'env_var="(TENTERHOOK_[A-Z_]+)"', file.read_text(encoding="utf-8"))
    }

    assert read
    assert read == set(re.findall(r"^\| `(TENTERHOOK_[A-Z_]+)` \| `--", PAGE, re.MULTILINE))
