"""docs/commands.md has every command with every option, and none that is not there."""

import re
from pathlib import Path

import pytest
from cyclopts import App

from services.cli.main import COMMANDS, commands

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
SECTIONS = {
    title.strip(): text
    for title, _, text in (part.partition("\n") for part in re.split(r"^## tenterhook ", PAGE, flags=re.MULTILINE)[1:])
}


def all_of(of: App, prefix: str = "") -> dict[str, App]:
    """Every command that does something, by its full name."""
    found = {}
    for name in of:
        if name.startswith("-"):
            continue
        inner = all_of(of[name], f"{prefix}{name} ")
        found |= inner or {prefix + name: of[name]}
    return found


def options(of: App) -> set[str]:
    return {
        name
        for argument in of.assemble_argument_collection()
        if argument.show
        for name in argument.names
        if name.startswith("--")
    }


ALL = all_of(commands())


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_its_section_with_every_option(name):
    assert name in SECTIONS
    missing = {option for option in options(ALL[name]) if not re.search(rf"`[^`]*{option}\b", SECTIONS[name])}

    assert missing == set()


@pytest.mark.parametrize("name", SECTIONS)
def test_no_command_and_no_option_is_made_up(name):
    assert name in ALL
    tables = "\n".join(line.split(" | ")[0] for line in SECTIONS[name].splitlines() if line.startswith("| `"))

    assert set(re.findall(r"--[a-z-]+", tables)) <= options(ALL[name])


#: Those that show and change nothing that a program would read, and why.
WITHOUT_JSON = {
    "completion": "what it prints is a shell's",
    "ingest": "runs until it is stopped; its logs are JSON where they are no terminal's",
    "dispatcher": "as ingest",
    "admin": "as ingest",
}


def test_every_command_prints_json_for_programs_or_is_known_not_to():
    assert {name for name, of in ALL.items() if "--json" not in options(of)} == set(WITHOUT_JSON)


@pytest.mark.parametrize("name", ALL)
def test_wrong_usage_is_exit_code_2_in_every_command(name, capsys):
    with pytest.raises(SystemExit) as ended:
        commands()([*name.split(), "--no-such-option"])

    assert ended.value.code == 2
    assert "".join(capsys.readouterr())


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, _, _, line in COMMANDS])
def test_every_command_says_in_one_line_what_it_does(name, line):
    assert line.endswith(".")
    assert len(f"{name}  {line}") < 79
