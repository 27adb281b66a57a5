"""The README names only what is there."""

import re
from pathlib import Path

import pytest

from services.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: `services/…`, in prose and tables; not in commands.
PATHS = sorted(
    set(re.findall(r"`((?:services|streams|schemas|tenterhook|docs|deploy|examples|bench)/[\w./-]*)`", README))
)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_there(path):
    assert (ROOT / path).exists()


def test_every_make_target_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) <= targets


def test_every_command_is_named():
    assert {name for name, *_ in COMMANDS} == {name for name, *_ in COMMANDS if f"`{name}`" in README}


def test_there_is_one_test_command():
    assert re.findall(r"^\*\*Run the tests:\*\* (.+)$", README, re.MULTILINE) == ["`make test`"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []
