"""`tenterhook completion`: what a shell has to know to complete this command's words. Made from the parser itself."""

from typing import Literal

from services.cli.main import commands


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """
    Print the completion script of a shell: commands, options, and the values that an option takes.

    Put it where the shell looks: for bash ~/.local/share/bash-completion/completions/tenterhook, for zsh
    _cyclopts_tenterhook in a folder of fpath, for fish ~/.config/fish/completions/tenterhook.fish.

    Args:
        shell: Whose words are completed.
    """
    print(commands().generate_completion(prog_name="tenterhook", shell=shell))
