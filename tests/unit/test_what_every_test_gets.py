"""The safety net of conftest.py, tried on tests that should fail."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overheard import note_secret

ROOT = Path(__file__).parents[2]

SWALLOWING = """
import asyncio

import uvloop

async def fails():
    raise RuntimeError("nobody awaited this")

async def test_a_task_that_nobody_awaits():
    asyncio.create_task(fails())
    await asyncio.sleep(0)

async def test_a_callback():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)

def test_a_loop_of_its_own():
    async def main():
        asyncio.create_task(fails())
        await asyncio.sleep(0)
    uvloop.run(main())

async def test_that_awaits_what_it_starts():
    await asyncio.gather(fails(), return_exceptions=True)

def test_of_settings():
    import os
    assert not [name for name in os.environ if name.startswith("TENTERHOOK_")]
"""


#: Each of these says something that it must not, but for one.
LOGGING = """
import logging
import subprocess
import sys

import pytest
import structlog
from services.admin.tokens import hash_of
from services.ingest.accept import accept, read
from services.vault.seal import Context, Keyring
from tests.apps import make_app

PLACE = Context.of_secret("demo", "int_1", "a", 1)

def in_a_process(code):
    subprocess.run([sys.executable, "-c", "import logging\\n" + code], check=True)

def test_a_secret_in_a_field():
    Keyring(bytes(range(100, 132))).seal(b"hunter2-hunter2", PLACE)
    structlog.get_logger().info("delivery.sent", headers={"Authorization": "Basic hunter2-hunter2"})

def test_a_secret_in_what_was_raised():
    try:
        raise RuntimeError("no such place: hunter2-hunter2")
    except RuntimeError:
        logging.getLogger("services.x").exception("it failed")

def test_a_key_that_seals():
    logging.warning("with %s", bytes(range(100, 132)).hex())

def test_a_token():
    hash_of("my-token-of-old")
    logging.warning("by %s", "my-token-of-old")

def test_a_format_of_ours():
    logging.warning({"event": "signed", "with": "whsec_x"})

def test_a_payload():
    event = read(b'{"type": "call_ended", "payload": {"who": "somebody"}}')
    accept(event, app=make_app(), key_kind="secret", now_ms=0, record_id="rec_1", minted_event_id="evt_1")
    logging.warning("cannot send %s", '{"who": "somebody"}')

def test_another_process():
    in_a_process("logging.error('of hunter2-hunter2')")

def test_a_secret_of_another_process():
    in_a_process(
        "from services.admin.tokens import hash_of\\n"
        "hash_of('made-over-there')\\n"
        "logging.error('made-over-there')"
    )

def test_a_process_that_dies_of_it():
    code = "raise RuntimeError('no such place: hunter2-hunter2')"
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == 1

def test_a_process_that_says_it_without_logging():
    subprocess.run([sys.executable, "-c", "import sys; print('of hunter2-hunter2', file=sys.stderr)"], check=True)

def test_a_span():
    from services.runtime.spans import UNSENT
    from services.runtime.tracing import Span
    Keyring(bytes(range(100, 132))).seal(b"hunter2-hunter2", PLACE)
    Span(UNSENT, "deliver", None, {"error.type": "hunter2-hunter2"}, lambda *_: None).end()

def test_that_says_nothing_wrong():
    logging.warning("key_0f4c of hunter1, tokens: 4")

@pytest.fixture(scope="module")
def process():
    with subprocess.Popen(
        [sys.executable, "-c", "import logging, sys; sys.stdin.read(); logging.error('tok_x')"], stdin=subprocess.PIPE
    ) as process:
        yield process

def test_whose_process_says_it_late(process):
    assert process.poll() is None
"""


#: The first says what the second notes, and each tells its process; nothing fails at the end of a test.
SAYING = """
import logging
import os
import pathlib

def test_that_says_it():
    logging.warning("by %s", "known-as-a-token-later")
    pathlib.Path(__file__).with_name("said_by").write_text(str(os.getpid()))
"""

NOTING = """
import os
import pathlib

from services.admin.tokens import hash_of

def test_that_notes_it():
    hash_of("known-as-a-token-later")
    pathlib.Path(__file__).with_name("noted_by").write_text(str(os.getpid()))
"""

SKIPPING = """
import pytest

@pytest.mark.skipif(True, reason="no such tool here")
def test_that_wants_a_tool(): pass

def test_that_skips_itself():
    pytest.skip("no such tool here")

@pytest.mark.skipif(True, reason="no Docker engine runs here")
def test_that_wants_docker(): pass

@pytest.mark.xfail
def test_that_is_known_to_fail(): raise ValueError
"""

SKIPPED_WHOLE = """
import pytest

pytest.importorskip("no_such_package")
"""

LISTENING = ("nothing_secret_is_logged", "nothing_secret_is_logged_at_the_end")
HOOKS = (
    "pytest_addoption",
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_unconfigure",
)


@pytest.fixture
def run(tmp_path):
    """Runs tests of these lines, under our conftest; on so many workers, or where it is none, without any."""

    def run(*tests: str, fixtures: Sequence[str] = (), workers: int = 0, **environment: str) -> tuple[int, str]:
        (tmp_path / "conftest.py").write_text(
            "from tests.conftest import *\n"
            + "".join(f"from tests.conftest import {name}\n" for name in (*fixtures, *HOOKS))
        )
        for number, each in enumerate(tests):
            (tmp_path / f"test_made_{number}.py").write_text(each)
        options = [
            "-c",
            str(ROOT / "pyproject.toml"),
            "--rootdir",
            str(tmp_path),
            "-p",
            "no:randomly",
            *(["--numprocesses", str(workers)] if workers else ["-p", "no:xdist"]),
        ]
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", *options, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stdout

    return run


def test_what_must_not_be_logged_fails_the_test_that_logs_it(run):
    _, said = run(LOGGING, fixtures=LISTENING)

    failed = re.findall(r"^ERROR \S+::(\w+)", said, re.MULTILINE)
    named = re.findall(r"^def (test_\w+)", LOGGING, re.MULTILINE)
    assert set(failed) == set(named) - {"test_that_says_nothing_wrong"}, said
    assert f"{len(named)} passed" in said


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_known_as_a_secret_later_or_by_another_worker_fails_the_session(run, tmp_path, workers):
    code, said = run(SAYING, NOTING, fixtures=LISTENING, workers=workers)

    assert len({(tmp_path / name).read_text() for name in ("said_by", "noted_by")}) == max(workers, 1)
    assert "2 passed" in said
    assert "a log line of this session holds what it must not:" in said
    assert "'known-as-a-token-later' in: root by %s" in said
    assert code == 1


def test_in_ci_nothing_but_what_needs_docker_is_skipped(run):
    code, said = run(SKIPPING, CI="true")
    whole, said_of_it = run(SKIPPED_WHOLE, CI="true")

    assert (code, whole) == (1, 2)
    assert said.count("no such tool here; in CI this may not be missing") >= 2
    assert "1 failed, 1 skipped, 1 xfailed, 1 error" in said
    assert "'no_such_package'; in CI this may not be missing" in said_of_it


def test_what_is_swallowed_behind_a_test_fails_it_and_settings_of_the_user_are_gone(run):
    _, said = run(SWALLOWING, fixtures=["nothing_is_swallowed"], TENTERHOOK_KEK="a user's own")

    assert said.count("nobody awaited this") >= 2
    assert "ZeroDivisionError" in said
    # A test that passes and swallows shows up as an error of its teardown.
    assert "5 passed, 3 errors" in said.replace("failed", "errors"), said


@given(st.just("secrets.locked"))
def test_what_hypothesis_makes_up_is_no_secret(made_up):
    note_secret(made_up)
    logging.getLogger("tests").warning("secrets.locked, as the code has it")
