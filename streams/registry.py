"""
A schema registry with the API of Confluent's: our schemas in it, and the ids that it gives them.

Each kind of record has a subject of its own, by its full name (`tenterhook.Result`), since topics hold several kinds.
Every released schema is there, oldest first, so that any of them can be asked for by whoever reads an old record.
"""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx

from streams import codec
from streams.codec import FIRST_COMMITTED_ID

#: The event loop waits for an answer where a record has an id that is new to the process, which is once a release and
#: schema; a heartbeat may be 6 s late at most.
_ANSWER_S: Final = 1.5
#: When a service starts, nothing waits for it; a registry that starts too takes its time.
_START_ANSWER_S: Final = 10.0
#: After a question that was not answered, records with unknown ids are unreadable at once for so long. Also how long it
#: is believed that there is no such schema.
_ASK_AGAIN_S: Final = 5.0
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class RegistryAway(LookupError):
    """The schema registry does not answer, or not as one; the message says why, for people."""

    code = "registry.away"


class RegistryRefused(Exception):
    """The schema registry does not take our schemas. The message says why and what to do."""

    code = "registry.refused"


class SchemaRegistry:
    """A schema registry's API, as much of it as we need."""

    def __init__(
        self,
        url: str,
        credentials: tuple[str, str] | None = None,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/")
        self._credentials = credentials
        self._clock_s = clock_s
        #: Until when an id is not asked for again.
        self._unknown: dict[int, float] = {}
        #: Until when nothing is asked, and why.
        self._away: tuple[float, str] = 0.0, ""

    def use(self) -> None:
        """
        Register every released schema that is not there yet; then write with the registry's ids, and read any of them.

        Raises:
            RegistryAway: it does not answer.
            RegistryRefused: it does not take a schema.
        """
        with self._client(_START_ANSWER_S) as http:
            ids = {number: self._id_of(http, text) for number, (_, text) in sorted(codec.released().items())}
        codec.use_registry(ids, self.text)

    def text(self, number: int) -> str | None:
        """
        The Avro schema of that id; None where there is none.

        Raises:
            RegistryAway: it does not answer, or did not a moment ago.
        """
        now_s = self._clock_s()
        away_until_s, reason = self._away
        if now_s < away_until_s:
            raise RegistryAway(reason)
        if now_s < self._unknown.get(number, now_s):
            return None
        try:
            found = self._text(number)
        except RegistryAway as away:
            self._away = now_s + _ASK_AGAIN_S, str(away)
            raise
        if found is None:
            self._unknown[number] = now_s + _ASK_AGAIN_S
        return found

    def _text(self, number: int) -> str | None:
        with self._client(_ANSWER_S) as http:
            answer = self._ask(http, "GET", f"schemas/ids/{number}")
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        said = self._body(answer)
        if answer.status_code != HTTPStatus.OK or "schema" not in said:
            raise RegistryAway(f"the schema registry at {self._url} answers {answer.status_code}")
        # What is no Avro is no record of ours either; it is told apart from an id that there is not.
        return str(said["schema"]) if said.get("schemaType", "AVRO") == "AVRO" else "null"

    def _client(self, timeout_s: float) -> httpx.Client:
        return httpx.Client(auth=self._credentials, timeout=timeout_s, trust_env=False)

    def _id_of(self, http: httpx.Client, text: str) -> int:
        """Its id; it is registered where it has none. Asked for first: many may look, and not all may write."""
        subject = f"subjects/{quote(codec.full_name(text), safe='')}"
        answer = self._ask(http, "POST", subject, {"schema": text})
        if answer.status_code == HTTPStatus.NOT_FOUND:
            answer = self._ask(http, "POST", f"{subject}/versions", {"schema": text})
        said = self._body(answer)
        if answer.status_code != HTTPStatus.OK:
            raise RegistryRefused(
                f"the schema registry at {self._url} refuses {codec.full_name(text)}: {answer.status_code} "
                f"{said.get('message', '')}. Check TENTERHOOK_SCHEMA_REGISTRY_CREDENTIALS and what it allows, or "
                "register the files of schemas/released there by hand, in the order of their numbers."
            )
        number = said.get("id")
        if not isinstance(number, int) or not 0 < number < FIRST_COMMITTED_ID:
            raise RegistryRefused(
                f"the schema registry at {self._url} gives {codec.full_name(text)} the id {number}: ids from "
                f"{FIRST_COMMITTED_ID} on are those of the committed schemas. Use another registry."
            )
        return number

    def _ask(self, http: httpx.Client, method: str, path: str, body: dict[str, str] | None = None) -> httpx.Response:
        try:
            answer = http.request(method, f"{self._url}/{path}", json=body, headers={"Accept": _CONTENT_TYPE})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RegistryAway(
                f"the schema registry at {self._url} does not answer ({type(error).__name__})"
            ) from error
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise RegistryAway(f"the schema registry at {self._url} answers {answer.status_code}")
        return answer

    def _body(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            said = answer.json()
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise RegistryAway(f"what listens at {self._url} does not answer as a schema registry")
        return said
