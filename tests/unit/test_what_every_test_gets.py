"""The safety net of conftest.py, tried on tests that should fail."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_what_is_swallowed_behind_a_test_fails_it_and_settings_of_the_user_are_gone(tmp_path):
    (tmp_path / "conftest.py").write_text(
        "from tests.conftest import *\nfrom tests.conftest import nothing_is_swallowed\n"
    )
    (tmp_path / "test_swallowing.py").write_text(SWALLOWING)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            ROOT / "pyproject.toml",
            "--rootdir",
            tmp_path,
            "-p",
            "no:randomly",
            tmp_path,
        ],
        cwd=ROOT,
        env={**os.environ, "TENTERHOOK_KEK": "a user's own"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.stdout.count("nobody awaited this") >= 2
    assert "ZeroDivisionError" in ran.stdout
    # A test that passes and swallows shows up as an error of its teardown.
    assert "5 passed, 3 errors" in ran.stdout.replace("failed", "errors"), ran.stdout
