"""The safety net of conftest.py, tried on tests that should fail."""

import logging
import os
import re
import subprocess
import sys
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


@pytest.fixture
def run(tmp_path):
    """Runs tests of these lines, under our conftest."""

    def run(tests: str, *fixtures: str, **environment: str) -> str:
        (tmp_path / "conftest.py").write_text(
            "from tests.conftest import *\n"
            + "".join(f"from tests.conftest import {name}\n" for name in (*fixtures, "pytest_unconfigure"))
        )
        (tmp_path / "test_made.py").write_text(tests)
        options = [
            "-c",
            str(ROOT / "pyproject.toml"),
            "--rootdir",
            str(tmp_path),
            "-p",
            "no:randomly",
            "-p",
            "no:xdist",
        ]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    return run


def test_what_must_not_be_logged_fails_the_test_that_logs_it(run):
    said = run(LOGGING, "nothing_secret_is_logged", "nothing_secret_is_logged_at_the_end")

    failed = re.findall(r"^ERROR \S+::(\w+)", said, re.MULTILINE)
    named = re.findall(r"^def (test_\w+)", LOGGING, re.MULTILINE)
    assert set(failed) == set(named) - {"test_that_says_nothing_wrong"}, said
    assert f"{len(named)} passed" in said


def test_what_is_swallowed_behind_a_test_fails_it_and_settings_of_the_user_are_gone(run):
    said = run(SWALLOWING, "nothing_is_swallowed", TENTERHOOK_KEK="a user's own")

    assert said.count("nobody awaited this") >= 2
    assert "ZeroDivisionError" in said
    # A test that passes and swallows shows up as an error of its teardown.
    assert "5 passed, 3 errors" in said.replace("failed", "errors"), said


@given(st.just("secrets.locked"))
def test_what_hypothesis_makes_up_is_no_secret(made_up):
    note_secret(made_up)
    logging.getLogger("tests").warning("secrets.locked, as the code has it")
