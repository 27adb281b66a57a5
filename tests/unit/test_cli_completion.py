"""The completion scripts, sourced in the shells that they are for."""

import json
import shlex
import shutil
import subprocess

import pytest

from services.cli.completion import completion
from services.cli.main import COMMANDS
from tests.docs.test_commands_documented import ALL, options


def script(shell, capsys):
    completion(shell)
    return capsys.readouterr().out


def completed(source, tmp_path, *lines):
    """What bash offers for the last word of each line, all in one bash."""
    (tmp_path / "completion").write_text(source)
    asks = [
        f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}; COMPREPLY=(); "
        f'_tenterhook; printf "%s\\n" "${{COMPREPLY[@]}}"; echo ---'
        for words in lines
    ]
    bash = ["bash", "--norc", "--noprofile", "-c", "\n".join(["source ./completion", *asks])]
    done = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return [set(each.split()) for each in done.stdout.split("---\n")[:-1]]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_options_and_values(capsys, tmp_path):
    names = [*ALL]
    source = script("bash", capsys)
    assert "complete " in source
    top, one, option, value, *every = completed(
        source,
        tmp_path,
        ["tenterhook", ""],
        ["tenterhook", "deliveries", "ret"],
        ["tenterhook", "integrations", "activate", "int_1", "--dr"],
        ["tenterhook", "deliveries", "list", "--outcome", "ex"],
        *(["tenterhook", *name.split(), "--"] for name in names),
    )

    assert top == {name for name, *_ in COMMANDS}
    assert (one, option, value) == ({"retry"}, {"--drain"}, {"exhausted"})
    missing = {name: options(ALL[name]) - found for name, found in zip(names, every, strict=True)}
    assert {name: left for name, left in missing.items() if left} == {}


@pytest.mark.parametrize(
    ("shell", "name", "check", "said"),
    [
        (
            *("zsh", "_cyclopts_tenterhook"),
            "fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; autoload +X $_comps[tenterhook] && print $_",
            "_cyclopts_tenterhook",
        ),
        ("fish", "tenterhook.fish", "source ./tenterhook.fish; complete -C 'tenterhook deliv'", "deliveries"),
    ],
)
def test_other_shells_take_their_script(shell, name, check, said, capsys, tmp_path):
    source = script(shell, capsys)
    assert {name for name, *_ in COMMANDS} <= set(json.dumps(source).replace("'", " ").replace(":", " ").split())
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / name).write_text(source)
    quiet = {"zsh": "-f", "fish": "--no-config"}[shell]
    done = subprocess.run(
        [shell, quiet, "-c", check], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)
