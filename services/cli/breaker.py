"""`tenterhook breaker`: the service, or with `--rebuild` a recomputation of its states from the log."""

import asyncio
import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final

from aiokafka.errors import KafkaError
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from services.cli import services
from services.cli.errors import Failed, WrongUsage
from services.cli.tables import print_table
from services.runtime.connection import connection_of
from services.runtime.logs import configure_logs
from services.runtime.process import load_settings
from services.runtime.registry import use_schema_registry
from services.runtime.serving import StartupError
from services.runtime.settings import Settings
from services.runtime.times import iso
from streams import schema_topic
from streams.connection import BrokerAway, brokers_at
from streams.security import SecurityUnusable
from streams.topics import SCHEMAS, Partitions

if TYPE_CHECKING:
    from services.breaker.rebuild import Rebuilt
    from streams.records import IntegrationState

_STYLES: Final = {"equal": "green", "partial": "green", "differs": "bold red", "unpublished": "yellow"}

_WRONG: Final = ("differs", "unpublished")

#: A state is a second or two behind its results; a verdict that this may explain is asked for once more.
_SETTLE_S: Final = 3.0


def breaker(
    *,
    rebuild: bool = False,
    verify: bool = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Run the breaker service: it counts failed attempts and pauses integrations that keep failing.

    Args:
        rebuild: Run nothing. Compute every integration's state from the results on the log, and print it.
        verify: With --rebuild: compare it with what is published; exit with 1 where it differs.
        as_json: With --rebuild: print JSON.
    """
    if not rebuild:
        if verify or as_json:
            raise WrongUsage("--verify and --json go with --rebuild")
        return services.breaker()
    try:
        settings = load_settings()
        # To stderr: stdout is for the outcome.
        configure_logs(settings.model_copy(update={"log_level": "warning"}), "breaker")
        use_schema_registry(settings)
        found = asyncio.run(_rebuilt(settings, verify=verify))
    except (StartupError, SecurityUnusable, BrokerAway) as error:
        raise Failed(str(error)) from None
    except KafkaError as error:
        raise Failed(f"the log cannot be read: {error!r}") from None
    wrong = [each for each in found if verify and each.verdict in _WRONG]
    if as_json:
        print(json.dumps({"equal": not wrong, "integrations": [_json(each, verify=verify) for each in found]}))
    else:
        _show(found, verify=verify)
    return 1 if wrong else 0


async def _rebuilt(settings: Settings, *, verify: bool) -> "list[Rebuilt]":
    connection = connection_of(settings)
    await brokers_at(connection)
    schema_topic.use(connection, connection.topic(SCHEMAS))
    partitions = Partitions(settings.partitions.by_app, settings.partitions.by_integration)
    # Not at the top: the service starts by this command too.
    module = import_module("services.breaker.rebuild")
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("folding results")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        found: list[Rebuilt] = await module.rebuild(connection, partitions, progress)
        if verify and any(each.verdict in _WRONG for each in found):
            await asyncio.sleep(_SETTLE_S)
            found = await module.rebuild(connection, partitions, progress)
    return found


def _show(found: "list[Rebuilt]", *, verify: bool) -> None:
    columns = ["integration", "state", "epoch", "failures", "delivered", "tripped by", *(["verdict"] if verify else [])]
    table = Table(*columns)
    for each in found:
        state = each.state or each.published
        cells = [each.integration, *(_cells(state) if state else [""] * 5)]
        table.add_row(*cells, *([Text(each.verdict, _STYLES[each.verdict])] if verify else []))
    print_table(table)
    for each in found if verify else ():
        for difference in each.differences:
            print(f"{each.integration}: {difference}")


def _cells(state: "IntegrationState") -> list[str]:
    tripped = f"attempt {state.tripped_by_attempt} of {state.tripped_by_delivery}, {_time(state)}"
    return [
        state.state,
        str(state.epoch),
        str(state.consecutive_failures),
        f"{state.delivered} of {state.ended}",
        tripped if state.tripped_by_delivery else "",
    ]


def _json(each: "Rebuilt", *, verify: bool) -> dict[str, Any]:
    state = each.state or each.published
    shown: dict[str, Any] = {"integration": each.integration, "app": each.app, "behind": each.behind}
    if verify:
        shown |= {"verdict": each.verdict, "differences": each.differences}
    if state is None:
        return shown
    tripped = {
        "delivery": state.tripped_by_delivery,
        "attempt": state.tripped_by_attempt,
        "offset": state.tripped_by_offset,
        "at": _time(state),
    }
    return shown | {
        "state": state.state,
        "reason": state.reason,
        "epoch": state.epoch,
        "consecutiveFailures": state.consecutive_failures,
        "delivered": state.delivered,
        "ended": state.ended,
        "appliedOffset": state.applied_offset,
        "trippedBy": tripped if state.tripped_by_delivery else None,
    }


def _time(state: "IntegrationState") -> str | None:
    return None if state.since_ms is None else iso(state.since_ms)
