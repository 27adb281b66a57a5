"""The documentation as a site: it builds with no warning, asks no other host for anything, and has every page."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import overheard
import pytest

from docs.making.nav import NavWrong, llms_txt, outward_named, parts
from tests.pasted import ROOT


def listed():
    """Every page, as docs/nav.toml orders them."""
    return [page for part in parts() for page in part.pages]


RUNBOOK = Path("runbooks", "TenterhookConfigUnreadable.html")

#: What a browser loads by itself, by tag; a link that a reader may follow is none of it.
LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href",),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}


class Html(HTMLParser):
    """What a page loads, where it links to, what of that is navigation, its ids, and the styles in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads, self.links, self.navigation, self.ids, self.styles = [], [], [], set(), ""
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given["id"]} if given.get("id") else set()
        self.loads += [given[name] for name in LOADED.get(tag, ()) if given.get(name)]
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
            self.navigation += [given["href"]] if given.get("class") == "reference internal" else []
        self.styles += given.get("style") or ""
        self._in_style = tag == "style"

    def handle_data(self, data):
        self.styles += data if self._in_style else ""


def in_styles(text):
    """What a style sheet loads, but what stands in it whole."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
    return [url for pair in found for url in pair if url and not url.startswith("data:")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """As `make docs` makes it."""
    built = tmp_path_factory.mktemp("site")
    line = re.search(r"^docs: .*\n\t\$\(BIN\)/python (.*) build/site$", (ROOT / "Makefile").read_text(), re.MULTILINE)[
        1
    ]
    # What Sphinx logs is the text of the pages, and no service's: nobody listens for secrets in it.
    unheard = {name: value for name, value in os.environ.items() if name != overheard.VARIABLE}
    command = (sys.executable, *line.split(), built)
    done = subprocess.run(command, cwd=ROOT, env=unheard, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert "--fail-on-warning" in line
    assert done.stderr == ""
    return built


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site): Html(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_nothing_comes_from_another_host(site, pages):
    loads = [(page, url) for page, html in pages.items() for url in (*html.loads, *in_styles(html.styles))]
    loads += [(path, url) for path in site.rglob("*.css") for url in in_styles(path.read_text(encoding="utf-8"))]
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in site.rglob("*.js"))

    assert len(loads) > len(pages)
    assert [(page, url) for page, url in loads if urlsplit(url).netloc] == []
    assert re.findall(r"(?:fetch|importScripts|import|open)\(\s*['\"](?:https?:)?//[^'\"]*", scripts) == []
    lacking = [
        (page, url)
        for page, url in loads
        if (path := unquote(urlsplit(url).path))
        and not url.startswith("data:")
        and not (site / Path(page).parent / path).resolve().exists()
    ]
    assert lacking == []


def test_every_page_is_in_the_navigation_of_every_page(pages):
    names = {page.name for page in listed()}
    for name in names:
        folder = Path(name).parent
        reached = {os.path.normpath(folder / urlsplit(link).path) for link in pages[Path(f"{name}.html")].navigation}

        assert {f"{other}.html" for other in names - {name}} <= reached


def test_every_link_leads_to_a_page_and_a_heading_that_are_there(site, pages):
    wrong = []
    for page, html in pages.items():
        for link in html.links:
            parts_of = urlsplit(link)
            if parts_of.scheme or parts_of.netloc:
                continue
            target = (site / page.parent / unquote(parts_of.path)).resolve() if parts_of.path else site / page
            if not target.exists():
                wrong.append(f"{page}: {link}")
            elif parts_of.fragment and target.suffix == ".html":
                ids = pages[target.relative_to(site.resolve())].ids
                wrong += [] if unquote(parts_of.fragment) in ids else [f"{page}: {link}"]

    assert wrong == []


def test_machines_find_every_page_at_the_root(site):
    index = (site / "llms.txt").read_text(encoding="utf-8")
    links = re.findall(r"^- \[[^]]+\]\(([^)]+)\): \S.*$", index, re.MULTILINE)
    whole = (site / "llms-full.txt").read_text(encoding="utf-8")

    assert index.startswith("# tenterhook\n\n> ")
    assert links == [f"{page.name}.md" for page in listed()] + ["openapi.json", "asyncapi.json"]
    assert [link for link in links if not (site / link).exists()] == []
    assert [page.name for page in listed() if page.text not in whole] == []
    copies = {f"{page.name}.md": page.text.encode() for page in listed()}
    assert all(
        (site / link).read_bytes() == (copies.get(link) or (ROOT / "docs" / link).read_bytes()) for link in links
    )


def test_every_link_of_the_markdown_for_machines_leads_to_what_is_there(site, pages):
    wrong = []
    for page in listed():
        text = (site / f"{page.name}.md").read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
            parts_of = urlsplit(link)
            if parts_of.scheme or parts_of.netloc:
                continue
            target = (
                os.path.normpath(Path(page.name).parent / unquote(parts_of.path))
                if parts_of.path
                else f"{page.name}.md"
            )
            heading = unquote(parts_of.fragment)
            if not (site / target).is_file() or (
                heading and heading not in pages[Path(target).with_suffix(".html")].ids
            ):
                wrong.append(f"{page.name}.md: {link}")

    assert wrong == []


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]+`", "", text, flags=re.DOTALL)


def test_what_is_beside_the_pages_is_named_and_what_is_among_them_is_linked(pages):
    text = "[a](../bench/README.md#b), [c](../examples/widget.html), [d](../breaker.md#e), [f](../../bench/README.md)"

    assert outward_named("breaker", text).startswith("a (`bench/README.md`), c (`examples/widget.html`), ")
    assert outward_named("why/data-keys", text, ".md").endswith(", [d](../breaker.md#e), f (`bench/README.md`)")
    assert "../operating.html#configuration-that-cannot-be-read" in pages[RUNBOOK].links


def test_navigation_and_pages_that_differ_are_a_fault(tmp_path):
    nav = '[[part]]\ntitle = "A"\n[part.pages]\none = "the first"\n[[part]]\ntitle = "B"\nfolder = "more"\n'
    (tmp_path / "nav.toml").write_text(nav)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "two.md").write_text("# Two\n\n## Context\nIt [waits](one.md) here. And there.\n")
    with pytest.raises(NavWrong, match=r"there is no docs/one\.md"):
        parts(tmp_path)
    (tmp_path / "one.md").write_text("# `One`\n")

    assert [(page.title, page.line) for part in parts(tmp_path) for page in part.pages] == [
        ("One", "the first"),
        ("Two", "It waits here"),
    ]
    assert "## B\n\n- [Two](more/two.md): It waits here\n" in llms_txt(parts(tmp_path))
    (tmp_path / "three.md").write_text("# Three\n")
    with pytest.raises(NavWrong, match="does not name three"):
        parts(tmp_path)
