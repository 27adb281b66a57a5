"""
The pages of the site in their order (docs/nav.toml), and what is made of that: the site's navigation, and llms.txt.

Reads files, and writes none.
"""

import posixpath
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1]

#: What llms.txt says of the whole. https://llmstxt.org: a title, a quote that sums up, then lists of links.
_ABOUT: Final = """\
# tenterhook

> Webhook delivery as an event-sourced service on Kafka: an event that was accepted over HTTP reaches every integration that selected it as a signed POST, in order, or there is a record that says why not.

Links lead to the pages' Markdown. All of them in one file: [llms-full.txt](llms-full.txt).
"""  # noqa: E501
_PROGRAMS: Final = """
## For programs

- [openapi.json](openapi.json): the admin API, OpenAPI 3.1
- [asyncapi.json](asyncapi.json): the Kafka topics, AsyncAPI 3
"""

#: A link out of the page's folder.
_OUTWARD: Final = re.compile(r"\[([^]]+)\]\(((?:\.\./)+[\w./-]+)(?:#[\w-]+)?\)")


class NavWrong(Exception):
    """docs/nav.toml and the pages that are there differ; the message says how."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the site."""

    #: Below docs/, without `.md`: `why/poison`.
    name: str
    title: str
    #: What it is for, in a line.
    line: str
    #: As machines get it: with names in place of links to what is not on the site.
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """Pages under one title of the navigation."""

    title: str
    pages: tuple[Page, ...]


def parts(docs: Path = DOCS) -> tuple[Part, ...]:
    """
    All pages, in their order.

    Raises:
        NavWrong: a page is named that is not there, or is there and not named.
    """
    nav = tomllib.loads((docs / "nav.toml").read_text(encoding="utf-8"))
    found = tuple(Part(part["title"], tuple(_pages(part, docs))) for part in nav["part"])
    named = [page.name for part in found for page in part.pages]
    there = {str(path.relative_to(docs).with_suffix("")) for path in docs.rglob("*.md")}
    if lacking := sorted(there - set(named)):
        raise NavWrong(
            f"docs/nav.toml does not name {', '.join(lacking)}: add each with a line that says what it is for"
        )
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise NavWrong(f"docs/nav.toml names {', '.join(twice)} more than once")
    return found


def outward_named(page: str, text: str, suffix: str = "") -> str:
    """
    The text of a page, in which links to files beside docs/, which are not on the site, are those files' names.

    Args:
        page: its name, below docs/ and without `.md`.
        suffix: only links to files that end so.
    """

    def named(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link[2]))
        is_outward = not path.startswith("docs/") and path.endswith(suffix)
        return f"{link[1]} (`{path}`)" if is_outward else link[0]

    return _OUTWARD.sub(named, text)


def toctrees(of: tuple[Part, ...]) -> str:
    """The navigation, as Sphinx reads it at the end of the first page."""
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {part.title}\n\n"
        + "".join(f"{'self' if page.name == 'index' else page.name}\n" for page in part.pages)
        + "```\n"
        for part in of
    )


def llms_txt(of: tuple[Part, ...]) -> str:
    """The index for machines."""
    return (
        _ABOUT
        + "".join(
            f"\n## {part.title}\n\n"
            + "".join(f"- [{page.title}]({page.name}.md): {page.line}\n" for page in part.pages)
            for part in of
        )
        + _PROGRAMS
    )


def llms_full_txt(of: tuple[Part, ...]) -> str:
    """Every page in one file, each behind its name."""
    return "\n".join(f"<!-- {page.name}.md -->\n\n{page.text}" for part in of for page in part.pages)


def _pages(part: dict[str, Any], docs: Path) -> list[Page]:
    if "folder" in part:
        files = sorted((docs / part["folder"]).glob("*.md"))
        return [_page(file, docs) for file in files]
    return [_page(docs / f"{name}.md", docs, line) for name, line in part["pages"].items()]


def _page(file: Path, docs: Path, line: str | None = None) -> Page:
    name = str(file.relative_to(docs).with_suffix(""))
    if not file.exists():
        raise NavWrong(f"docs/nav.toml names {name}, and there is no docs/{name}.md")
    text = file.read_text(encoding="utf-8")
    title = text.partition("\n")[0].removeprefix("# ").replace("`", "")
    return Page(name, title, line or _first_sentence(text), outward_named(name, text))


def _first_sentence(text: str) -> str:
    """Of the first paragraph that is no heading; without links, which lead elsewhere from here."""
    paragraph = next(line for line in text.splitlines() if line and not line.startswith("#"))
    sentence = re.split(r"(?<=[.:])\s", paragraph)[0].rstrip(".:")
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", sentence)
