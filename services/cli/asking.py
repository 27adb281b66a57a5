"""Questions to whoever sits at the terminal."""

import sys

from services.cli.errors import Failed


def says_yes(question: str) -> bool:
    """Whether the answer is y or yes."""
    return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}


def agreed(question: str, *, would: str, not_done: str) -> None:
    """
    Ask before much is done.

    Args:
        would: what would be done, said where nobody is there to ask; the command has `--yes`.
        not_done: said where the answer is no.

    Raises:
        Failed: nobody agrees.
    """
    if not sys.stdin.isatty():
        raise Failed(f"{would}: repeat it with --yes")
    if not says_yes(question):
        raise Failed(not_done)
