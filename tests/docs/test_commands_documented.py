"""docs/commands.md has every command with the table of its options, which is made from the code."""

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from cyclopts import App, Parameter

from docs.making.commands import all_of, arguments, options_table, shared_table
from services.cli.log_access import LogOptions
from services.cli.main import COMMANDS, commands

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
SECTIONS = {
    title.strip(): text
    for title, _, text in (part.partition("\n") for part in re.split(r"^## tenterhook ", PAGE, flags=re.MULTILINE)[1:])
}


ALL = all_of(commands())


def options(of: App) -> set[str]:
    return {name for each in arguments(of) if each.show for name in each.names if name.startswith("--")}


def test_every_command_has_its_section_and_no_other():
    assert set(SECTIONS) == set(ALL)


@pytest.mark.parametrize("name", [name for name in ALL if arguments(ALL[name])])
def test_the_table_of_its_options_stands_in_its_section(name):
    assert f"<!-- options of {name}: made by make tables -->" in SECTIONS[name]


@pytest.mark.parametrize("name", SECTIONS)
def test_no_option_is_made_up(name):
    tables = r"<!-- options of [^<]*<!-- end|^```.*?^```|\[[^]]*\]\([^)]*\)"
    by_hand = re.sub(tables, "", SECTIONS[name], flags=re.DOTALL | re.MULTILINE)

    assert set(re.findall(r"`(--[a-z-]+)", by_hand)) <= options(ALL[name])


def test_a_table_says_of_each_option_what_the_code_says():
    def copied(
        *files: Annotated[str, Parameter(name="FILES")],
        form: Literal["short", "long"] = "short",
        times: int = 3,
        deep: bool = True,
        key: Annotated[str | None, Parameter(env_var="KEY")] = None,
        log: LogOptions | None = None,
    ) -> None:
        """
        Copy.

        Args:
            files: One or more; '*' | is
                all.
            form: How. With --times twice, `--deep` once.
            times: How often.
            deep: Folders too.
            key: Opens it.
            log: Which log.
        """

    app = App()
    app.default(copied)

    assert list(options_table(app))[2:] == [
        r"| `FILES` … | One or more; '\*' \| is all. | none |",
        "| `--form` | How. With `--times` twice, `--deep` once. One of `short`, `long`. | `short` |",
        "| `--times` | How often. | `3` |",
        "| `--deep`, `--no-deep` | Folders too. | `--deep` |",
        "| `--key` | Opens it. Variable: `KEY`. | none |",
        "| `--broker`, `--topic-prefix` | Which log. | [see above](#options-of-many-commands) |",
    ]
    assert [row.split(" | ")[0] for row in list(shared_table([app]))[2:]] == ["| `--broker`", "| `--topic-prefix`"]


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
