"""
How a command ends badly. `main` turns each into one line on stderr and an exit code.

    CommandError
    ├── Failed      exit code 1: it was asked for rightly, and could not be done
    └── WrongUsage  exit code 2: it was asked for wrongly
"""

from typing import ClassVar


class CommandError(Exception):
    """The message says what, why and what to do. Never a secret."""

    exit_code: ClassVar[int]


class Failed(CommandError):
    """It was asked for rightly, and could not be done."""

    exit_code = 1


class WrongUsage(CommandError):
    """It was asked for wrongly."""

    exit_code = 2
