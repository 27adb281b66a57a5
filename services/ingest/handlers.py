"""
The HTTP side of ingest.

The order of a request is the order of `Events._one` and `Events._batch`: who sends (key, origin), how many (rate), how
large, what it is; whether it was there before; then the log.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import uuid_utils
from aiohttp import web
from aiokafka.errors import KafkaError

from services.ingest.accept import Sent, accept, answer, read
from services.ingest.append import EventLog, not_ready
from services.ingest.batch import answer as answer_batch
from services.ingest.batch import split
from services.ingest.body import Batches, read_event
from services.ingest.content_type import BATCH_TYPES, check_headers
from services.ingest.cors import cors_headers, preflight_headers
from services.ingest.keys import (
    allows_origin,
    check_origin,
    config_unreadable,
    key_unknown,
    kind_of_key,
    origin_not_allowed,
    presented_key,
)
from services.ingest.once import Accepted, Candidate, Once
from services.ingest.page_script import PATH as PAGE_SCRIPT_PATH
from services.ingest.page_script import page_script
from services.ingest.rate import Rates
from services.ingest.repeats import AcceptedIds
from services.ingest.traced import answered, parent_of, request_span
from services.runtime.clock import now_ms
from services.runtime.metrics import ACCEPTED, APPEND_SECONDS, REFUSED, REPEATED
from services.runtime.problems import Problem, problem_response
from services.runtime.tracing import TRACING
from streams.follower import Follower
from streams.records import AppConfig, KeyKind
from streams.trace_context import TraceContext
from streams.views import Apps

T = TypeVar("T")

#: Takes what a request brings, of an app and with a kind of key; what it appends goes on in that trace.
_Take = Callable[[web.Request, AppConfig, KeyKind, TraceContext | None], Awaitable[web.Response]]

PATH: Final = "/v1/apps/{app}/events"
BATCH_PATH: Final = f"{PATH}/batch"

_JSON: Final = {"Content-Type": "application/json"}

#: How long a refusal may wait for the newest configuration.
CONFIG_DEADLINE_S: Final = 2.0

#: Refusals that the newest configuration may take back: what the admin API has confirmed holds here at once.
_MAY_BE_STALE: Final = frozenset({"key_unknown", "origin_not_allowed", "unknown_type"})


class Events:
    """Takes events over HTTP. What it knows of apps is what the follower has read."""

    def __init__(self, apps: Apps, follower: Follower, log: EventLog) -> None:
        self._apps = apps
        self._follower = follower
        self._rates = Rates()
        self._batches = Batches()
        self._ids = AcceptedIds()
        self._once = Once(log, self._ids)
        #: Whether all apps and keys have been read once; before that nobody can be refused.
        self.knows_apps = False

    def add_to(self, http: web.Application) -> None:
        """Add the routes."""
        for path, post in ((PATH, self.post), (BATCH_PATH, self.post_batch)):
            http.router.add_post(path, post)
            http.router.add_route("OPTIONS", path, self.preflight)
        http.router.add_get(PAGE_SCRIPT_PATH, page_script)

    def forget(self) -> None:
        """Forget what was accepted: the log that had it was replaced."""
        self._ids.clear()
        self._rates.clear()

    async def post(self, request: web.Request) -> web.Response:
        """`POST /v1/apps/{app}/events`: 202 once the event is on the log."""
        return await self._answered(request, self._one)

    async def post_batch(self, request: web.Request) -> web.Response:
        """`POST /v1/apps/{app}/events/batch`: 207, and in it each event's own status."""
        return await self._answered(request, self._batch)

    async def _answered(
        self, request: web.Request, take: Callable[[web.Request], Awaitable[web.Response]]
    ) -> web.Response:
        """The answer, or the refusal, as a page may read it."""
        try:
            response = await take(request)
        except Problem as problem:
            REFUSED.inc(problem.code)
            response = problem_response(problem)
        if (origin := request.headers.get("Origin")) is not None:
            response.headers.update(cors_headers(origin, self._apps.get(request.match_info["app"])))
        return response

    async def preflight(self, request: web.Request) -> web.Response:
        """What a browser asks before it sends anything but a simple request."""
        self._check_knows_apps()
        origin = request.headers.get("Origin", "")
        return await self._newest(lambda: web.Response(status=204, headers=self._preflight_headers(request, origin)))

    def _preflight_headers(self, request: web.Request, origin: str) -> dict[str, str]:
        app = self._app(request)
        if app is None or not allows_origin(app, origin):
            raise origin_not_allowed()
        return preflight_headers(origin, app)

    async def _one(self, request: web.Request) -> web.Response:
        app, key_kind = await self._admitted(request)
        return await self._traced(request, PATH, app, key_kind, self._take_one)

    async def _batch(self, request: web.Request) -> web.Response:
        app, key_kind = await self._admitted(request)
        return await self._traced(request, BATCH_PATH, app, key_kind, self._take_batch)

    async def _traced(
        self, request: web.Request, route: str, app: AppConfig, key_kind: KeyKind, take: _Take
    ) -> web.Response:
        """The answer; where the request is traced, with its span around it."""
        if not TRACING.is_on:
            return await take(request, app, key_kind, None)
        parent = parent_of(request.headers, key_kind)
        span = request_span(TRACING, parent, app.app, key_kind, route)
        if span is None:
            return await take(request, app, key_kind, parent)
        try:
            response = await take(request, app, key_kind, span.context)
        except Problem as problem:
            answered(span, problem.status, problem.code)
            raise
        except web.HTTPException as refused:
            answered(span, refused.status)
            raise
        except Exception:
            answered(span, 500)
            raise
        answered(span, response.status)
        return response

    async def _take_one(
        self, request: web.Request, app: AppConfig, key_kind: KeyKind, trace: TraceContext | None
    ) -> web.Response:
        check_headers(request.headers)
        sent = read(await read_event(request))
        record_id, minted_event_id = _minted()
        event = await self._newest(
            lambda: accept(
                sent,
                app=self._apps.get(app.app) or app,
                key_kind=key_kind,
                now_ms=now_ms(),
                record_id=record_id,
                minted_event_id=minted_event_id,
            )
        )
        started_s = time.perf_counter()
        accepted = await self._once.append(Candidate(event, occurred_at_given=sent.occurredAt is not None), trace)
        if not accepted.duplicate:
            APPEND_SECONDS.observe(time.perf_counter() - started_s)
        return web.Response(status=202, body=_told(accepted), headers=_JSON)

    async def _take_batch(
        self, request: web.Request, app: AppConfig, key_kind: KeyKind, trace: TraceContext | None
    ) -> web.Response:
        check_headers(request.headers, BATCH_TYPES)
        items = split(await self._batches.read(request))
        in_time, too_early = self._in_time(app, key_kind, items)
        decided = await self._decided(in_time, app, key_kind)
        candidates = [each for each in decided if isinstance(each, Candidate)]
        started_s = time.perf_counter()
        told = iter(await self._once.append_all(candidates, trace) if candidates else ())
        APPEND_SECONDS.observe(time.perf_counter() - started_s)
        outcomes = [next(told) if isinstance(each, Candidate) else each for each in decided]
        return web.Response(
            status=207, body=answer_batch(map(_told_or_counted, [*outcomes, *too_early])), headers=_JSON
        )

    async def _decided(self, items: list[bytes], app: AppConfig, key_kind: KeyKind) -> list[Candidate | Problem]:
        """Of each item, the event that it is, or why it is none; under the newest configuration where that matters."""
        read_items = [_read(item) for item in items]
        minted = [_minted() for _ in items]

        def decide() -> list[Candidate | Problem]:
            newest, at_ms = self._apps.get(app.app) or app, now_ms()
            return [
                sent if isinstance(sent, Problem) else _candidate(sent, newest, key_kind, at_ms, *ids)
                for sent, ids in zip(read_items, minted, strict=True)
            ]

        decided = decide()
        if any(isinstance(each, Problem) and each.code in _MAY_BE_STALE for each in decided):
            await self._catch_up()
            decided = decide()
        return decided

    async def _admitted(self, request: web.Request) -> tuple[AppConfig, KeyKind]:
        """Who sends, and that it is not too early for an event of theirs."""
        self._check_knows_apps()
        app, kind = await self._newest(lambda: self._sender(request))
        if kind == "public" and not self._take(app, 1):
            raise self._too_early(app, 1)
        return app, kind

    def _in_time(self, app: AppConfig, kind: KeyKind, items: list[bytes]) -> tuple[list[bytes], list[Problem]]:
        """The items that it is not too early for, and of each of the others the refusal; one was let in before."""
        if kind != "public" or len(items) == 1:
            return items, []
        count = 1 + self._take(app, len(items) - 1)
        late = len(items) - count
        return items[:count], [self._too_early(app, late)] * late if late else []

    def _take(self, app: AppConfig, wanted: int) -> int:
        return self._rates.take(app.app, wanted=wanted, rate_per_s=app.public_rate_per_s, now_s=time.monotonic())

    def _too_early(self, app: AppConfig, wanted: int) -> Problem:
        return self._rates.refusal(app.app, wanted=wanted, rate_per_s=app.public_rate_per_s)

    def _sender(self, request: web.Request) -> tuple[AppConfig, KeyKind]:
        app = self._app(request)
        key = presented_key(request.headers, request.query if request.query_string else {})
        if app is None:
            raise key_unknown()
        kind = kind_of_key(key, app)
        check_origin(kind, request.headers.get("Origin"), app)
        return app, kind

    def _app(self, request: web.Request) -> AppConfig | None:
        """The app that the path names; None where there is none."""
        name = request.match_info["app"]
        if self._apps.is_broken(name):
            raise config_unreadable()
        return self._apps.get(name)

    def _check_knows_apps(self) -> None:
        if not self.knows_apps:
            raise not_ready()

    async def _newest(self, decide: Callable[[], T]) -> T:
        """The decision; a refusal that rests on configuration is taken anew under the newest."""
        try:
            return decide()
        except Problem as refusal:
            if refusal.code not in _MAY_BE_STALE:
                raise
        await self._catch_up()
        return decide()

    async def _catch_up(self) -> None:
        try:
            async with asyncio.timeout(CONFIG_DEADLINE_S):
                await self._follower.catch_up()
        except (TimeoutError, KafkaError, OSError):
            # Not a refusal: the sender would take its event for a wrong one and throw it away.
            raise not_ready() from None


def _minted() -> tuple[str, str]:
    """A record's id, and the id of an event whose sender names none."""
    return f"rec_{uuid_utils.uuid7().hex}", f"evt_{uuid_utils.uuid7().hex}"


def _read(item: bytes) -> Sent | Problem:
    try:
        return read(item)
    except Problem as problem:
        return problem


def _candidate(
    sent: Sent, app: AppConfig, key_kind: KeyKind, at_ms: int, record_id: str, minted_event_id: str
) -> Candidate | Problem:
    try:
        event = accept(
            sent, app=app, key_kind=key_kind, now_ms=at_ms, record_id=record_id, minted_event_id=minted_event_id
        )
    except Problem as problem:
        return problem
    return Candidate(event, occurred_at_given=sent.occurredAt is not None)


def _told(accepted: Accepted) -> bytes:
    """The answer to its sender; counted."""
    (REPEATED if accepted.duplicate else ACCEPTED).inc()
    return answer(accepted.event_id, accepted.accepted_at_ms, duplicate=accepted.duplicate)


def _told_or_counted(outcome: Accepted | Problem) -> bytes | Problem:
    """What `answer_batch` takes, counted."""
    if isinstance(outcome, Accepted):
        return _told(outcome)
    REFUSED.inc(outcome.code)
    return outcome
