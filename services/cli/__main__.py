"""
`python -m services.cli`: the `tenterhook` command of this very interpreter. `up` starts its children with it.

A service takes no options, so it does without the command line's library, which takes a sixth of the time that
the service itself takes to load.
"""

import signal
import sys
from importlib import import_module
from typing import Final

_SERVICES: Final = {"ingest", "dispatcher", "breaker", "admin"}


def _main() -> None:
    match sys.argv[1:]:
        case [name] if name in _SERVICES:
            # While it loads, nothing has begun that would have to be ended; then the service has its own.
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            sys.exit(getattr(import_module("services.cli.services"), name)())
        case _:
            import_module("services.cli.main").main()


_main()
