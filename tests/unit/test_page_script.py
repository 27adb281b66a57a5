import shutil
import subprocess
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from services.ingest import page_script
from services.ingest.page_script import BODY, HEADERS, served

SOURCE = (Path(page_script.__file__).with_name("tenterhook.js")).read_text(encoding="utf-8")

#: Prints a script's tokens as Node.js would print them: the text of a function has neither its comments nor its spaces
#: changed, so both are taken away here, by a lexer that knows strings and templates.
TOKENS = r"""
const text = require("fs").readFileSync(0, "utf8");
new Function(text);
const token = /\/\/[^\n]*|\s+|"[^"\n]*"|`[^`]*`|[\w$]+|[^\w\s]/g;
console.log(JSON.stringify(text.match(token).filter((each) => !/^(\/\/|\s)/.test(each))));
"""


async def got(**headers):
    return await page_script.page_script(make_mocked_request("GET", "/tenterhook.js", headers=headers))


def test_what_is_served_is_small_and_has_no_comments():
    assert len(BODY) < 2000
    assert b"//" not in BODY.replace(b"://", b"")
    assert BODY.count(b"\n") == 1


def test_spaces_go_where_they_mean_nothing():
    source = """
    // a comment: { }
    const  a = `x  ${ b } // y`,
      c = "d  e" in f ? typeof g : -h;
    if (a) {
      throw "no  way";
    }
    """

    assert served(source) == 'const  a=`x  ${ b } // y`,c="d  e" in f?typeof g:-h;if(a){throw "no  way"}\n'


@pytest.mark.node
@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js here")
def test_what_is_served_is_the_program_of_its_source():
    """Token by token, but for semicolons before a brace, which end nothing that does not end there anyhow."""

    def tokens(text):
        told = subprocess.run(["node", "-e", TOKENS], input=text, capture_output=True, text=True, check=True)
        return told.stdout.replace('";","}"', '"}"')

    assert tokens(BODY.decode()) == tokens(SOURCE)


async def test_any_page_may_load_it_and_ask_whether_it_has_changed():
    response = await got()

    assert response.body == BODY
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert response.headers["Cache-Control"] == "public, max-age=3600"


@pytest.mark.parametrize("tag", [HEADERS["ETag"], f"W/{HEADERS['ETag']}", f'"old", {HEADERS["ETag"]}', "*"])
async def test_a_browser_that_has_it_does_not_get_it_again(tag):
    response = await got(**{"If-None-Match": tag})

    assert (response.status, response.body) == (304, None)
    assert response.headers["ETag"] == HEADERS["ETag"]


async def test_a_browser_that_has_another_gets_it():
    assert (await got(**{"If-None-Match": '"old"'})).status == 200
