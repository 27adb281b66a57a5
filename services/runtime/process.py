"""
What every service process does around its `main`: settings, logs, uvloop, signals, exit code.

SIGTERM and Ctrl-C ask `main` to drain and return; a second one cancels it. SIGUSR1 has it log where its tasks stand.
"""

import asyncio
import gc
import os
import signal
import sys
import tomllib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import uvloop
from pydantic import ValidationError

from services.runtime.logs import configure_logs
from services.runtime.loop_lag import watch_loop_lag
from services.runtime.registry import PATIENCE_S, use_schema_registry
from services.runtime.serving import StartupError
from services.runtime.settings import Settings
from services.runtime.topics_gone import watch_topics
from services.runtime.tracing import exporting
from services.runtime.whereabouts import log_places
from streams.closed_connections import AiokafkaChanged
from streams.security import SecurityUnusable

__all__ = ["Main", "StartupError", "load_settings", "run_service"]

Main = Callable[[Settings, asyncio.Event], Awaitable[None]]

DONE, FAILED = 0, 1

#: Of Python's cycle collector. It stops everything while it looks: with its own thresholds (700, 10, 10) a dispatcher
#: that holds 60,000 deliveries stood still for 250 ms every 10 s, to find nothing, since what a delivery leaves behind
#: has no cycles. The oldest generation is looked through some 140 times more seldom.
COLLECTOR: Final = (5_000, 10, 200)

#: How long a process that was told twice to end may take to end by itself.
ABORT_S = 2.0

log = structlog.get_logger(__name__)


def run_service(main: Main, settings: Settings | None = None) -> int:
    """
    Run a service until it is told to stop; return the process's exit code.

    Args:
        main: returns when its event is set and everything is drained. Its module names the service in logs.
        settings: of the environment and the TOML file where None.
    """
    # Until it can answer, it is not to be ended by the question where its tasks stand.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    service = main.__module__.removeprefix("services.").partition(".")[0]
    gc.freeze()  # what was imported stays, and need not be looked through
    gc.set_threshold(*COLLECTOR)
    try:
        settings = settings or load_settings()
        configure_logs(settings, service)
        use_schema_registry(settings, patience_s=PATIENCE_S)
        if settings.schema_registry_url is not None:
            log.info("registry.used", url=settings.schema_registry_url)
        uvloop.run(_until_signalled(main, settings, service))
    except (StartupError, SecurityUnusable, AiokafkaChanged) as error:
        print(f"tenterhook {service}: {error}", file=sys.stderr)  # noqa: T201
        return FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        log.warning("service.aborted", hint="stopped before it had drained")
        return FAILED
    except Exception:
        log.exception("service.crashed")
        return FAILED
    return DONE


def load_settings() -> Settings:
    """
    Settings of the environment and the TOML file.

    Raises:
        StartupError: one of them is wrong, or the file cannot be read. No value is repeated, it may be a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise StartupError(f"wrong settings: {wrong}. `tenterhook settings` lists all with their source.") from None
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"{Settings.model_config.get('toml_file')} is no TOML: {error}. Correct it.") from None
    except OSError as error:
        raise StartupError(f"the settings cannot be read: {error}. Make the file readable.") from None


async def _until_signalled(main: Main, settings: Settings, service: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def traced() -> None:
        async with exporting(settings, service):
            await main(settings, stop)

    running = asyncio.ensure_future(traced())
    watching = [asyncio.ensure_future(each) for each in (watch_loop_lag(), watch_topics(settings))]

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            running.cancel()
            # Faust swallows a cancellation that meets it at the wrong moment; whoever asks twice means it.
            loop.call_later(ABORT_S, os._exit, FAILED)
            return
        log.info("service.stopping", signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGUSR1, log_places)
    try:
        await running
    finally:
        for each in watching:
            each.cancel()
