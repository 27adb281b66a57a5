"""
`python -m services.cli`: the `tenterhook` command of this very interpreter. `up` starts its children with it.

A service takes no options, so it does without the command line's library, which takes a sixth of the time that
the service itself takes to load.
"""

import sys
from importlib import import_module
from typing import Final

_SERVICES: Final = {"ingest", "dispatcher", "breaker", "admin"}


def _main() -> None:
    match sys.argv[1:]:
        case [name] if name in _SERVICES:
            sys.exit(getattr(import_module("services.cli.services"), name)())
        case _:
            import_module("services.cli.main").main()


_main()
