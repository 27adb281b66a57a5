"""
Schema registries with the API of Confluent's, in memory.

`listening_registry` is our own, as much of one as anybody asks here, which can be told to fail; `apicurio` is a real
one. `tests/contract/test_registry.py` holds both to what Confluent's own client expects.
"""

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import avro.schema
import httpx
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType

from services.cli.brokers.ports import free_ports

_APICURIO = Path(__file__).parent / "registry" / "apicurio"
#: It takes 5 s on a quiet machine.
_START_S = 60.0


class Registry:
    """What it holds, and how it answers."""

    def __init__(self) -> None:
        self.url = ""
        #: By id, from 1.
        self.schemas: dict[int, str] = {}
        #: Ids by subject, oldest first.
        self.subjects: dict[str, list[int]] = {}
        #: Method and path of every request.
        self.asked: list[tuple[str, str]] = []
        #: `USER:PASSWORD`, where it wants them.
        self.credentials: str | None = None
        #: Whether it takes no new schema.
        self.read_only = False
        #: Answered instead of anything else: status and body.
        self.broken: tuple[int, bytes] | None = None

    def register(self, subject: str, text: str) -> int:
        """The id of a schema that is put there by others."""
        return self._register(subject, text)[1]["id"]

    def answer(self, method: str, path: str, authorization: str | None, body: dict) -> tuple[int, dict | list]:
        """Status and body. *path*: without the query."""
        self.asked.append((method, path))
        if self.credentials and authorization != f"Basic {base64.b64encode(self.credentials.encode()).decode()}":
            return 401, {"error_code": 401, "message": "Unauthorized"}
        return self._routed(method, path, body)

    def _routed(self, method: str, path: str, body: dict) -> tuple[int, dict | list]:
        match [method, *map(unquote, path.strip("/").split("/"))]:
            case ["GET", "schemas", "ids", number]:
                return self._schema(int(number))
            case ["GET", "subjects"]:
                return 200, list(self.subjects)
            case ["GET", "subjects", subject, "versions"]:
                return 200, list(range(1, len(self.subjects[subject]) + 1))
            case ["POST", "subjects", subject]:
                return self._lookup(subject, body["schema"])
            case ["POST", "subjects", subject, "versions"]:
                return self._register(subject, body["schema"])
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _schema(self, number: int) -> tuple[int, dict]:
        if number not in self.schemas:
            return 404, {"error_code": 40403, "message": f"Schema {number} not found"}
        return 200, {"schema": self.schemas[number]}

    def _lookup(self, subject: str, text: str) -> tuple[int, dict]:
        if subject not in self.subjects:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        for version, number in enumerate(self.subjects[subject], 1):
            if json.loads(self.schemas[number]) == json.loads(text):
                return 200, {"subject": subject, "version": version, "id": number, "schema": text}
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def _register(self, subject: str, text: str) -> tuple[int, dict]:
        found = self._lookup(subject, text)
        if found[0] == 200:
            return 200, {"id": found[1]["id"]}
        if self.read_only:
            return 403, {"error_code": 40301, "message": "Not allowed to write"}
        versions = self.subjects.get(subject, [])
        if versions and not _reads(text, self.schemas[versions[-1]]):
            return 409, {"error_code": 409, "message": "Schema being registered is incompatible with an earlier schema"}
        same = (number for number, known in self.schemas.items() if json.loads(known) == json.loads(text))
        number = next(same, len(self.schemas) + 1)
        self.schemas[number] = text
        self.subjects.setdefault(subject, []).append(number)
        return 200, {"id": number}


def _reads(reader: str, written: str) -> bool:
    found = ReaderWriterCompatibilityChecker().get_compatibility(avro.schema.parse(reader), avro.schema.parse(written))
    return found.compatibility is SchemaCompatibilityType.compatible


@contextmanager
def listening_registry() -> Iterator[Registry]:
    """A registry that listens, for the time of the block; its `url` says where."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the body waits 40 ms for the head to be acknowledged

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            path = urlsplit(self.path).path
            status, said = registry.answer(self.command, path, self.headers.get("Authorization"), body)
            data = json.dumps(said).encode()
            status, data = registry.broken or (status, data)
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer  # noqa: N815  # as the base class calls them

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def apicurio_lacks() -> str | None:
    """Why the real one cannot run here; None where it can."""
    if not (_APICURIO / ".ready").exists():
        return "there is no schema registry in tests/registry/apicurio: make registry"
    return None if shutil.which("java") else "there is no Java"


@contextmanager
def apicurio(output: Path) -> Iterator[str]:
    """The real one, for the time of the block; the URL of its Confluent API. *output*: where it logs."""
    [port] = free_ports(1)
    [jar] = _APICURIO.glob("*-runner.jar")
    options = ("-XX:TieredStopAtLevel=1", "-Xmx384m", "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}")
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    with output.open("wb") as log:
        process = subprocess.Popen(["java", *options, "-jar", jar.name], cwd=_APICURIO, stdout=log, stderr=log)
    try:
        until = time.monotonic() + _START_S
        while not _answers(url):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < until, output.read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/subjects", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
