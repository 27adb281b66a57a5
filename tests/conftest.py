"""What every test gets: a clean environment, topics of its own, and no error that is swallowed."""

import asyncio
import gc
import inspect
import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

# Before anything of ours is imported, so that all of it is heard.
sys.path.append(str(Path(__file__).parent / "listening"))
from overheard import Heard

HEARD = Heard()

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)

from streams import codec  # noqa: E402
from tests.brokers import (  # noqa: E402
    any_broker,
    cluster_connection,
    connection,
    docker_broker,
    embedded_broker,
    embedded_connection,
    in_ci,
    kafka_broker,
    kafka_cluster,
    kafka_connection,
)

__all__ = [
    "any_broker",
    "cluster_connection",
    "connection",
    "docker_broker",
    "embedded_broker",
    "embedded_connection",
    "kafka_broker",
    "kafka_cluster",
    "kafka_connection",
]

# Before anything of ours is imported by a test: settings of the person who runs the tests are not the tests'.
for name in [name for name in os.environ if name.startswith("TENTERHOOK_")]:
    del os.environ[name]

# Compiling takes most of a process's start (3 s of 4), and tests start hundreds: it is done once, for them and for this
# one. Where it may not be kept beside the sources (PYTHONDONTWRITEBYTECODE), and where packages come uncompiled, too.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(Path(tempfile.gettempdir()) / "tenterhook-bytecode")
sys.dont_write_bytecode = False


#: Elsewhere, and slow all the same.
SLOW_FILES = {
    "test_engine.py",
    "test_dispatcher_bounds.py",
    "test_ingest_broker.py",
    "test_admin_api.py",
    "test_admin_apps_api.py",
    "test_breaker.py",
    "test_replay.py",
    "test_delivery_under_failure.py",
    "test_dispatcher.py",
    "test_dispatcher_keys.py",
    "test_history.py",
    "test_process.py",
    "test_reconcile.py",
    "test_retries.py",
    "test_templates.py",
}


@pytest.fixture
def prefix() -> str:
    """Topic prefix of this test alone: one broker serves the session, and nobody meets another's records."""
    return f"t{uuid.uuid4().hex[:12]}."


class _Swallowed(logging.Handler):
    """
    Collects what event loops report instead of raising: exceptions of tasks that nobody awaited, of callbacks, of
    transports, and tasks destroyed while pending. asyncio and uvloop both log them to the logger `asyncio`.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.found.append(text)


@pytest.fixture(autouse=True)
def nothing_is_swallowed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test, at its end, for an error that happened behind its back."""
    swallowed = _Swallowed()
    logger = logging.getLogger(asyncio.__name__)
    logger.addHandler(swallowed)
    yield
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        gc.collect(1)  # a task that failed unseen reports when it is collected; what a test made is young
    logger.removeHandler(swallowed)
    if swallowed.found:
        pytest.fail("swallowed behind this test:\n" + "\n".join(swallowed.found), pytrace=False)


@pytest.fixture(autouse=True)
def nothing_secret_is_logged() -> Iterator[None]:
    """
    Fails a test, at its end, for a line that holds a secret, token or payload of any test until then.

    Lines of this process, and of all that tests have started: also what a process of another test says late.
    """
    yield
    _fail_for_what_was_heard()


@pytest.fixture(autouse=True)
def nobody_is_asked_for_schemas() -> Iterator[None]:
    """Ends what a test's connection left in this process: the topic it would read is not another test's."""
    yield
    codec.use_topic(lambda _: None)


@pytest.fixture(scope="session", autouse=True)
def nothing_secret_is_logged_at_the_end() -> Iterator[None]:
    """As above, for what is said after the last test: processes that end, and fixtures of modules."""
    yield
    _fail_for_what_was_heard()


def pytest_unconfigure() -> None:
    HEARD.close()


def _fail_for_what_was_heard() -> None:
    if found := HEARD.found():
        pytest.fail("a log line holds what it must not:\n" + "\n".join(found), pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test` calls pytest twice; without `--part` everything is run."""
    told = "only the tests that may run beside others, or only those that must not (marked `alone`)"
    parser.addoption("--part", choices=("beside", "alone"), help=told)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Marks what is `slow` and `alone`, and leaves the other part out.

    Whole stacks, kills, and groups on the embedded broker, where joining takes 3 s: not for every change. Three nodes
    are started once, and not by each of several workers.
    """
    for item in items:
        folder = item.path.parent.name
        if folder in {"e2e", "consistency"} or item.path.name in SLOW_FILES:
            item.add_marker(pytest.mark.slow)
        if "kafka_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.alone)
    if (part := config.getoption("part")) is not None:
        others = [item for item in items if (item.get_closest_marker("alone") is None) == (part == "alone")]
        items[:] = [item for item in items if (item.get_closest_marker("alone") is None) == (part == "beside")]
        config.hook.pytest_deselected(items=others)


#: In pytest's cache: what log lines held that they must not, in the last whole run.
_HEARD_BEFORE = "tenterhook/heard"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """
    Compares all that was said with all secrets, when the workers are gone: also what was said before it was noted.

    A part may have nothing of what was asked for: `make test ARGS=tests/unit/test_keys.py`.
    """
    if HEARD.is_worker:
        HEARD.found()  # written down for the comparison of all
        return
    cache = getattr(session.config, "cache", None)  # there is none with `-p no:cacheprovider`
    before = cache.get(_HEARD_BEFORE, []) if cache else []
    is_again = session.config.getoption("lf", default=False)
    found = [*HEARD.found_in_all(), *(before if is_again else ())]
    if cache and not is_again:
        # Tests that run again alone have not said it; so it is theirs to remember, from all parts of the run before.
        kept = [] if session.config.getoption("part", None) == "beside" else before
        cache.set(_HEARD_BEFORE, [*kept, *found])
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if told := session.config.pluginmanager.get_plugin("terminalreporter"):
            told.write_line("a log line of this session holds what it must not:\n" + "\n".join(found), red=True)
        return
    if session.config.getoption("part", None) and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """
    In CI only what needs a Docker engine may be skipped, however: a check that quietly does not run is no check.

    What is skipped fails by itself. Were it the session, `make failed` would run what else has failed, and pass.
    """
    return _failed_where_skipped_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """As above, of what a whole file skips."""
    return _failed_where_skipped_in_ci((yield))


def _failed_where_skipped_in_ci(report: R) -> R:
    if in_ci() and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "Docker" not in reason:
            report.outcome = "failed"
            report.longrepr = f"{reason}; in CI this may not be missing"
    return report
