"""
Log lines: structlog for ours, and the libraries' own lines through the same renderer.

JSON for machines, colour for a terminal, always on stderr. Events are named `noun.verb` in the past.
Nothing here sees request bodies or secrets, because nobody may put them into a line.
"""

import logging
import os
import re
import socket
import sys
import time
from io import StringIO
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from services.runtime.settings import Settings

#: A library's line is repeated at most this often. aiokafka says "Unable connect to node" ten times a second
#: while a broker is away; our own `broker.*` lines tell that once.
REPEAT_AFTER_S: Final = 30.0

#: Control characters, and those that end lines or turn the direction of what is shown.
_OBEYED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class OnceInAWhile(logging.Filter):
    """Lets a library's line pass again only `REPEAT_AFTER_S` after the last one of the same template."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = (record.name, str(record.msg))
        now = time.monotonic()
        last = self._passed_at.get(line)
        if last is not None and now - last < REPEAT_AFTER_S:
            return False
        self._passed_at[line] = now
        return True


def configure_logs(settings: Settings, service: str) -> None:
    """Send all log lines of this process to stderr, each with the service's name and the worker's, libraries' too."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    bound = {"service": service, **_worker(settings, service)}

    # Not by context variables: threads begin without them, and so would what libraries say there.
    def bind(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {**bound, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        bind,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(settings)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _quieten_libraries(level)


def _worker(settings: Settings, service: str) -> dict[str, str]:
    """Which process of the service it is: the name it has in records, and the one that a successor keeps, if any."""
    own = getattr(settings, service, None)
    instance = getattr(own, "instance_id", None)
    return {
        "worker": getattr(own, "worker_id", None) or f"{socket.gethostname()}-{os.getpid()}",
        **({} if instance is None else {"instance": instance}),
    }


def configure_command_logs() -> None:
    """
    Send what code that commands share with services warns of to stderr: stdout is for what the command was asked.

    Where log lines are configured already, they stay so.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            _warnings,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            *_for_people(),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def _warnings(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    if method in {"debug", "info"}:
        raise structlog.DropEvent
    return event


def _renderer(settings: Settings) -> list[Processor]:
    for_people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    if for_people:
        return _for_people()
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _for_people() -> list[Processor]:
    return [_harmless, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback)]


def _harmless(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """
    Each text without what a terminal would obey, as JSON has it anyway: no id or message can forge a line, or hide one.

    What is no text the renderer shows by its `repr`, which escapes the same.
    """
    for name, value in event.items():
        if isinstance(value, str) and _OBEYED.search(value):
            event[name] = _escaped(value)
    return event


def _traceback(written: TextIO, raised: ExcInfo) -> None:
    """
    Not the renderer's own, which shows the values of local variables, secrets among them.

    Indented, so that no line of a message looks like one of the log.
    """
    plain = StringIO()
    structlog.dev.plain_traceback(plain, raised)
    written.write("\n".join("    " + _escaped(line) for line in plain.getvalue().split("\n")))


def _escaped(text: str) -> str:
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _quieten_libraries(level: int) -> None:
    for name in ("aiokafka", "aiohttp", "asyncio", "faust", "mode"):
        logger = logging.getLogger(name)
        logger.setLevel(max(level, logging.WARNING) if level > logging.DEBUG else logging.DEBUG)
    # Filters of a logger do not see its children's lines, so the handler has it.
    once_in_a_while = OnceInAWhile()
    for handler in logging.getLogger().handlers:
        handler.addFilter(
            lambda record: record.name.startswith(("services.", "streams.")) or once_in_a_while.filter(record)
        )
