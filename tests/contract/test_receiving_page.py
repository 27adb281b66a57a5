"""
docs/receiving.md: its programs, taken from the page and run, judge deliveries made by the code that signs.

Each is started once, with two secrets, as during a rotation. What a machine lacks is skipped with that reason;
`make languages` installs it from Debian's packages.
"""

import os
import re
import secrets
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.dispatcher.plan import Opened, plan
from services.dispatcher.sender import Answer, Request
from services.dispatcher.sign import brand_signature, new_signing_secret, standard_signature
from services.dispatcher.wire import WireSender
from tests.records import make_delivery, make_integration

PAGE = (Path(__file__).parents[2] / "docs" / "receiving.md").read_text(encoding="utf-8")

#: Spaces, line ends, escapes and more than one byte a character: what is lost where a body is parsed and written again.
PAYLOAD = '{ "call" :\r\n {"guest": "Zoë \\u00e9 \\/ \u2028", "n": 1.0, "big": 98765432109876543210} }'.encode()
LARGE = b'"' + b"x" * 65_000 + b'"'

#: A program that never listens is broken; Go compiles its own library the first time.
START_S, COMPILE_S = 20.0, 110.0


@dataclass(frozen=True)
class Language:
    """How a program of the page is run. `{port}` in *run* is where it should listen."""

    title: str
    fence: str
    file: str
    run: tuple[str, ...]
    compile: tuple[str, ...] = ()

    @property
    def lacks(self) -> str | None:
        needed = (self.compile or self.run)[0]
        return None if shutil.which(needed) else f"needs {needed}: make languages"

    def program(self) -> str:
        section = re.split(rf"^### {self.title}$", PAGE, flags=re.MULTILINE)[1].partition("\n##")[0]
        assert f"{self.file}`" in section, "the page says how it is run"
        return re.search(rf"^```{self.fence}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[1]


LANGUAGES = [
    Language("Python", "python", "hook.py", (sys.executable, "hook.py")),
    Language("Node", "js", "hook.mjs", ("node", "hook.mjs")),
    Language("Go", "go", "hook.go", ("./hook",), ("go", "build", "-o", "hook", "hook.go")),
    Language("PHP", "php", "hook.php", ("php", "-S", "127.0.0.1:{port}", "hook.php")),
    Language("Java", "java", "Hook.java", ("java", "-XX:TieredStopAtLevel=1", "Hook"), ("javac", "Hook.java")),
    Language("Ruby", "ruby", "hook.rb", ("ruby", "hook.rb")),
]

NEW, OLD, OTHER = (new_signing_secret(secrets.token_bytes(32)) for _ in range(3))


@pytest.fixture(scope="module", params=LANGUAGES, ids=lambda language: language.title)
def listening(request, tmp_path_factory):
    """The URL that the page's program listens at."""
    language = request.param
    if language.lacks:
        pytest.skip(language.lacks)
    folder = tmp_path_factory.mktemp(language.title)
    (folder / language.file).write_text(language.program(), encoding="utf-8")
    if language.compile:
        subprocess.run(language.compile, cwd=folder, check=True, timeout=COMPILE_S)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    command = [part.format(port=port) for part in language.run]
    environment = os.environ | {"SIGNING_SECRETS": f"{NEW} {OLD}", "PORT": str(port)}
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        _until_listening(process, port, folder / "output")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _until_listening(process, port, output):
    until = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < until, output.read_text()
            time.sleep(0.02)
        else:
            return


def delivery(url: str, *signing: str, profile: str = "integration", payload: bytes = PAYLOAD) -> Request:
    """A request as a dispatcher plans it now, signed with these secrets: the newest first."""
    now_ms = time.time_ns() // 1_000_000
    planned = plan(
        make_delivery(type="scheduled.created", payload=payload, event_id="evt_019aa0a0-1b2c"),
        make_integration(profile=profile, url=url, signing=True),
        Opened(headers={}, secrets={}, signing=[(secret, now_ms + 60_000) for secret in signing]),
        now_ms,
        "X-ApifyCloud",
        "0.1.0",
    )
    return Request(url=planned.url, headers=planned.headers, body=planned.body, timeout_ms=planned.timeout_ms)


def changed(request: Request, change: Callable[[dict[str, str]], object], body: bytes | None = None) -> Request:
    """The same with other headers, or another body."""
    headers = dict(request.headers)
    change(headers)
    return Request(
        url=request.url,
        headers=tuple(headers.items()),
        body=request.body if body is None else body,
        timeout_ms=request.timeout_ms,
    )


def aged(request: Request, by_s: int) -> Request:
    """Rightly signed, so many seconds ago."""
    at = int(time.time()) - by_s
    signature = standard_signature([NEW], "evt_019aa0a0-1b2c", at, request.body)
    return changed(
        request, lambda headers: headers.update({"webhook-timestamp": str(at), "webhook-signature": signature})
    )


async def statuses(requests: dict[str, Request]) -> dict[str, int | None]:
    """What each is answered."""
    # No authorities: reading those of the system takes 30 ms, and nothing here is https.
    sender = WireSender(allow_private=True, ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    found = {}
    for name, request in requests.items():
        answer = await sender.send(request)
        found[name] = answer.status if isinstance(answer, Answer) else None
    await sender.close()
    return found


async def test_genuine_deliveries_are_accepted_during_a_rotation_too(listening):
    cases = {
        f"{path} {profile} {len(payload)} bytes, signed with {name}": delivery(
            listening + path, *signing, profile=profile, payload=payload
        )
        for path in ("/standard", "/brand")
        for profile, payload in (("integration", PAYLOAD), ("booking", PAYLOAD), ("integration", LARGE))
        for name, signing in {"the new": [NEW], "the old": [OLD], "both": [NEW, OLD]}.items()
    }
    # Of a secret that the receiver has not been told of yet, and of one that it knows: whichever stands first.
    cases["/standard, an unknown secret and the new one"] = delivery(f"{listening}/standard", OTHER, NEW)
    cases["/standard, the new one and an unknown secret"] = delivery(f"{listening}/standard", NEW, OTHER)
    cases["/standard, 290 s old"] = aged(delivery(f"{listening}/standard", NEW), 290)
    cases["/standard, 290 s early"] = aged(delivery(f"{listening}/standard", NEW), -290)

    assert await statuses(cases) == dict.fromkeys(cases, 204)


async def test_what_is_not_genuine_by_standard_webhooks_is_refused(listening):
    genuine = delivery(f"{listening}/standard", NEW, OLD)
    signature = dict(genuine.headers)["webhook-signature"]
    brands = dict(genuine.headers)["X-ApifyCloud-Signature"]
    cases = {
        "a byte more": changed(genuine, dict.copy, genuine.body + b" "),
        "another byte": changed(genuine, dict.copy, genuine.body.replace(b"call", b"cell")),
        "no body": changed(genuine, dict.copy, b""),
        "an unknown secret": delivery(f"{listening}/standard", OTHER),
        "two unknown secrets": delivery(f"{listening}/standard", OTHER, new_signing_secret(bytes(32))),
        "310 s old": aged(genuine, 310),
        "310 s early": aged(genuine, -310),
        **{
            f"without {name}": changed(genuine, lambda headers, name=name: headers.pop(name))
            for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
        },
        **{
            f"{name}: {value[:30]!r}": changed(genuine, lambda headers, n=name, v=value: headers.update({n: v}))
            for name, value in [
                ("webhook-id", "evt_other"),
                ("webhook-timestamp", str(int(time.time()) + 1)),
                ("webhook-timestamp", "now"),
                ("webhook-timestamp", "-1"),
                ("webhook-timestamp", "9" * 400),
                ("webhook-signature", "v1,"),
                ("webhook-signature", "v1"),
                ("webhook-signature", signature[:20]),
                ("webhook-signature", signature.split(" ")[0] + "A"),
                ("webhook-signature", signature.replace("v1,", "v2,")),
                ("webhook-signature", signature.replace("v1,", "")),
                ("webhook-signature", ("v1," + "A" * 43 + "= ") * 20 + "x" * 500),
                ("webhook-signature", brands),
            ]
        },
    }

    assert await statuses(cases) == dict.fromkeys(cases, 401)


async def test_what_is_not_genuine_by_the_product_s_signature_is_refused(listening):
    genuine = delivery(f"{listening}/brand", NEW)
    own = brand_signature(NEW, genuine.body)
    cases = {
        "a byte more": changed(genuine, dict.copy, genuine.body + b" "),
        "an unknown secret": delivery(f"{listening}/brand", OTHER),
        "without the header": changed(genuine, lambda headers: headers.pop("X-ApifyCloud-Signature")),
        **{
            f"{value[:30]!r}": changed(genuine, lambda headers, v=value: headers.update({"X-ApifyCloud-Signature": v}))
            for value in ("sha256=", own[:-1], own + "0", own.removeprefix("sha256="), own.replace("sha256", "sha1"))
        },
    }

    assert await statuses(cases) == dict.fromkeys(cases, 401)


def test_the_page_s_statements_take_a_repeat_once():
    create, insert = re.search(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[1].strip().splitlines()
    first = {"integration": "int_1", "id": "evt_1", "replay": ""}
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(create)
        taken = [
            database.execute(insert, row).rowcount
            for row in (first, first, first | {"integration": "int_2"}, first | {"replay": "rpl_1"})
        ]

    assert taken == [1, 0, 1, 1]
