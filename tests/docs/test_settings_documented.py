"""docs/settings.md says of every setting what the code says."""

import re
from pathlib import Path

import pytest

from services.cli.settings import all_settings
from services.runtime.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip(" `"): [cell.strip() for cell in cells]
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := line.strip("|").split("|")) == 4
}
#: Differs from machine to machine.
WORDED = dict.fromkeys(("dispatcher.worker_id", "breaker.worker_id"), "host name and process id")


@pytest.fixture
def defaults(tmp_path, monkeypatch):
    """All settings, with no file and no variable about."""
    monkeypatch.chdir(tmp_path)
    return list(all_settings(Settings()))


def test_every_setting_has_its_row_with_variable_default_and_meaning(defaults):
    wrong = {}
    for setting in defaults:
        default = "none" if setting.value is None else f"`{written(setting.value)}`"
        said = [
            f"`{setting.name}`",
            f"`{setting.variable}`",
            WORDED.get(setting.name, default),
            setting.description,
        ]
        if ROWS.get(setting.name) != said:
            wrong[setting.name] = f"| {' | '.join(said)} |"

    assert wrong == {}, "docs/settings.md should have these rows"


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


def written(value):
    return str(value).lower() if isinstance(value, bool) else value
