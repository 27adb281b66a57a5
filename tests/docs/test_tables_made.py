"""Every table that is made from the code says what the code says."""

import re
from pathlib import Path

import pytest

from docs.making.tables import pages, with_tables
from services.cli.settings import all_settings
from services.runtime.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", pages([]))
def test_its_tables_are_as_made(name, tmp_path, monkeypatch):
    page = (DOCS / name).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # settings, with no file and no variable about

    assert with_tables(page, pages(all_settings(Settings()))[name]) == page, f"run `make tables`: docs/{name} differs"


def test_no_table_is_left_that_nothing_makes():
    left = {
        (path.name, table)
        for path in DOCS.rglob("*.md")
        for table in re.findall(r"^<!-- (.*): made by make tables -->$", path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert left == {(name, table) for name, tables in pages([]).items() for table in tables}


def test_a_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="add `<!-- settings: made by make tables -->` and `<!-- end of settings -->`"):
        with_tables("# A page\n", {"settings": []})
