"""
The `tenterhook` command: names and where they live; each is imported when it is called.

Exit codes: 0 done, 1 failed (or ended by Ctrl-C before it was done), 2 wrong usage.
"""

import sys
from importlib.metadata import version
from typing import Final

from cyclopts import App, Group

from services.cli.errors import CommandError

_TRY: Final = Group("Trying out", sort_key=1)
_USE: Final = Group("Using it", sort_key=2)
_RUN: Final = Group("Running it", sort_key=3)

#: Where each command lives, and the first line of its help: imports wait until it is called.
COMMANDS: Final = (
    ("up", "services.cli.up:up", _TRY, "Start everything on this machine."),
    ("send", "services.cli.send:send", _TRY, "Send an event, or several of the same."),
    ("sink", "services.cli.sink:sink", _TRY, "Receive webhooks, print each and check its signatures, until Ctrl-C."),
    ("bench", "services.cli.bench:bench", _TRY, "Measure deliveries per second, CPU and latency."),
    ("apps", "services.cli.apps:app", _USE, "Create and set apps, their ingest keys and event types."),
    ("tokens", "services.cli.tokens:app", _USE, "Create, list and delete tokens of the admin API."),
    (
        "integrations",
        "services.cli.integrations:app",
        _USE,
        "Create, list, change, pause, activate and delete integrations.",
    ),
    ("secrets", "services.cli.secrets:app", _USE, "Secrets of integrations: put, reveal once, rotate; rewrap."),
    ("deliveries", "services.cli.deliveries:app", _USE, "List deliveries and how they ended; send some again."),
    ("results", "services.cli.results:results", _USE, "Follow the results of attempts as they come."),
    ("replay", "services.cli.replay:app", _USE, "Send past events to an integration again; a dry run first."),
    ("trace", "services.cli.trace:trace", _USE, "Show one event's life across all topics."),
    ("doctor", "services.cli.doctor:doctor", _RUN, "Look at a set-up, and say what is wrong with it."),
    ("reconcile", "services.cli.reconcile:reconcile", _RUN, "Prove from the log that nothing vanished."),
    ("quarantine", "services.cli.quarantine:app", _RUN, "List what no code could read or finish; put it back."),
    ("mend", "services.cli.mend:command", _RUN, "Let partitions that lost their records go on."),
    ("audit", "services.cli.audit:app", _RUN, "Show who changed what, and prove that the audit log is whole."),
    ("backup", "services.cli.backup:backup", _RUN, "Write the configuration and its audit log to a file."),
    ("restore", "services.cli.backup:restore", _RUN, "Write a backup's records to a new installation."),
    ("settings", "services.cli.settings:settings", _RUN, "Print all settings with their value and source."),
    ("completion", "services.cli.completion:completion", _RUN, "Print what bash, zsh or fish completes words with."),
    ("ingest", "services.cli.services:ingest", _RUN, "Run the ingest service: events over HTTP onto the log."),
    ("dispatcher", "services.cli.services:dispatcher", _RUN, "Run a dispatcher: it delivers events to integrations."),
    ("breaker", "services.cli.breaker:breaker", _RUN, "Run the breaker: it counts failures and pauses."),
    ("admin", "services.cli.services:admin", _RUN, "Run the admin service: the API that configures integrations."),
)


def commands(*, listing: bool = False) -> App:
    """
    The whole command.

    Args:
        listing: take the first lines from here, so that listing all commands imports none of them. Otherwise a
            command's page is its own docstring, whole.
    """
    app = App(
        name="tenterhook",
        help="Webhook delivery on Kafka: every accepted event reaches every integration that selected it, or says "
        "why not.",
        version=lambda: version("tenterhook"),
        suppress_keyboard_interrupt=False,  # `main` knows the exit codes
    )
    for order, (name, path, group, line) in enumerate(COMMANDS):
        app.command(path, name=name, group=group, help=line if listing else None, sort_key=order)
    return app


def main() -> None:
    """Run the command line's command and exit with its code."""
    names_a_command = any(not word.startswith("-") for word in sys.argv[1:])
    try:
        commands(listing=not names_a_command)()
    except CommandError as error:
        print(f"tenterhook: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has had enough: `tenterhook ... | head`.
        sys.stderr.close()
        sys.exit(1)
