"""
How Sphinx makes the site: `make docs`. The pages and their order are in nav.toml.

Sphinx with MyST and Furo, since all three are released regularly and load nothing from elsewhere. MkDocs has had no
release since 2024, Material for MkDocs has ended, and its successor Zensical is not at 1.0 yet.
"""

import shutil
import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from docs.making.nav import llms_full_txt, llms_txt, outward_named, parts, toctrees  # noqa: E402

project = "tenterhook"
release = metadata.version("tenterhook")
extensions = ["myst_parser"]
exclude_patterns = ["making"]

# Links lead to headings as GitHub names them, so that the same links work there.
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # shortened programs and JSON with an ellipsis

# Everything that a page needs is in the site: it is read without a network, also from a folder of files.
html_theme = "furo"
html_title = "tenterhook"
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_copyright = False


def _for_the_site(_: Sphinx, name: str, source: list[str]) -> None:
    # Files of other kinds come along, to be downloaded.
    source[0] = outward_named(name, source[0], ".md")
    if name == "index":
        source[0] += toctrees(parts(DOCS))


def _for_machines(app: Sphinx, failed: Exception | None) -> None:
    """llms.txt, the Markdown that it leads to with its pictures, and the documents for programs: at the site's root."""
    if failed is not None or app.builder.name != "html":
        return
    site, all_parts = Path(app.outdir), parts(DOCS)
    (site / "llms.txt").write_text(llms_txt(all_parts), encoding="utf-8")
    (site / "llms-full.txt").write_text(llms_full_txt(all_parts), encoding="utf-8")
    for page in (page for part in all_parts for page in part.pages):
        (site / f"{page.name}.md").write_text(page.text, encoding="utf-8")
    for name in ("openapi.json", "asyncapi.json"):
        shutil.copy(DOCS / name, site / name)
    shutil.copytree(DOCS / "console", site / "console", dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    """Sphinx's way in."""
    app.connect("source-read", _for_the_site)
    app.connect("build-finished", _for_machines)
