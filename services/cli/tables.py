"""Tables for people: as wide as the terminal, and never cut where a program or a file reads them."""

import sys
from typing import Final

from rich.console import Console
from rich.table import Table

#: Wider than any row; cells are not folded for `grep`.
_UNFOLDED: Final = 10_000


def print_table(table: Table) -> None:
    """Prints it to stdout. Long cells fold in a terminal, so that nothing is lost."""
    for column in table.columns:
        column.overflow = "fold"
    Console(width=None if sys.stdout.isatty() else _UNFOLDED).print(table)
