"""What the admin API does with deliveries: list them, show one with its attempts, send again, send a sample event."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, get_args

from schemas.catalogue import ALL_TYPES, BOOKING_TYPES, CATALOGUE, OWN_TYPES
from services.admin.again import again, tested
from services.admin.changes import Change, Changes, Unchanged
from services.admin.commands import Commands
from services.admin.config_log import ConfigLog
from services.admin.fields import Fields, Refusal, kind, shortened
from services.admin.kept_deliveries import Kept, kept_deliveries
from services.admin.place import Place
from services.admin.rules import Refused
from services.admin.sent import Sent, sent
from services.admin.tokens import Caller
from services.history.cursor import CURSOR_CHARS
from services.history.query import Told, Wanted, cursor_behind
from services.history.read_model import History
from services.history.shown import bucket_json, delivery_json, page_json
from services.runtime.problems import Problem
from streams import codec
from streams.connection import Connection
from streams.delivery_ids import delivery_id
from streams.records import Delivery, IntegrationConfig, Outcome, Result, Write
from streams.topics import DELIVERIES
from streams.trace_context import TraceContext

#: Deliveries that one request may have sent again.
MAX_RETRIED: Final = 1_000
DEFAULT_RETRIED: Final = 100

#: What one command carries of them at most: a payload of 64 KiB each, and a command is one record.
_BYTES_AT_ONCE: Final = 1_048_576
_AT_ONCE: Final = 50
_LOOKED_AT_ONCE: Final = 200

#: Pages that one request looks at: each delivery on them is a question to the history, 2,000 take a second or two.
_MOST_PAGES: Final = 10

#: Action of the audit records of deliveries that are sent again.
_RETRY: Final = "delivery.retry"

#: What a sample event is where the integration selects all types, or none.
_SAMPLE_TYPE: Final = {"integration": "call_ended", "booking": "scheduled.created"}

_OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

#: By first delivery, the runs in which it was sent again: the audit log knows of each before it has a result.
_Runs = defaultdict[str, set[str]]


@dataclass(slots=True)
class _Looked:
    """What fits a filter, as far as it was looked for."""

    #: Where to go on; None: that was all.
    next: str | None
    #: With the result that ended each.
    chosen: list[tuple[Told, Result]] = field(default_factory=list)
    #: Ids of those of deleted integrations.
    deleted: list[str] = field(default_factory=list)


class DeliveryCommands:
    """Deliveries of an app. Ids and time come in. Whoever calls has let the log catch up before."""

    def __init__(
        self,
        connection: Connection,
        log: ConfigLog,
        changes: Changes,
        commands: Commands,
        history: History,
        *,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._connection = connection
        self._log = log
        self._changes = changes
        self._commands = commands
        self._history = history
        self._now_ms = now_ms
        self._new_id = new_id

    @property
    def unread(self) -> str | None:
        """Why deliveries cannot be asked for yet, for people; None once they can."""
        return self._history.unread

    def _read(self) -> History:
        """The history, once everything is in it: a part of it would look like the whole."""
        self._history.check_read()
        return self._history

    # -- looking ---------------------------------------------------------------------------------------------

    async def page(self, wanted: Wanted, *, limit: int, cursor: str | None) -> dict[str, Any]:
        """
        A part of the list, newest first.

        Raises:
            Problem: 400 `cursor_invalid`, 503 `history_unavailable`.
        """
        return page_json(await self._read().page(wanted, limit=limit, cursor=cursor))

    async def get(self, app: str, delivery: str) -> dict[str, Any]:
        """
        A delivery with every attempt.

        Raises:
            Problem: 404 `delivery_unknown`, 503 `history_unavailable`.
        """
        return delivery_json(await self._told(app, delivery))

    async def get_as_sent(self, app: str, delivery: str) -> dict[str, Any]:
        """
        As `get`, and of each attempt also `requestBody`, as it went out, `bodyIsProven` by the signature that was
        sent, and, in place of a body that cannot be made again, `bodyIsGone`: why, for people. Reads the log.

        Raises:
            Problem: 404 `delivery_unknown`, 503 `history_unavailable`.
        """
        told = await self._told(app, delivery)
        shown = delivery_json(told)
        requests = [each for each in told.results if each.attempt]
        try:
            # One record is enough: retries have the same event. The newest is kept longest.
            kept = await kept_deliveries(self._connection, requests[-1:])
        except Problem:
            unread = "The log cannot be read now. Open the page again."
            return shown | {"attempts": [each | _body_json(unread) for each in shown["attempts"]]}
        found = kept[delivery].delivery if delivery in kept else None
        attempts = [
            attempt | _body_json(self._sent(result, found) if result.attempt else "Nothing was sent.")
            for attempt, result in zip(shown["attempts"], told.results, strict=True)
        ]
        return shown | {"attempts": attempts}

    def _sent(self, result: Result, delivery: Delivery | None) -> Sent | str:
        now = self._log.integrations.get(result.integration)
        then = self._log.versions.get(result.integration, result.config_version)
        if then is None and now is not None and now.version == result.config_version:
            then = now
        return sent(
            result,
            delivery,
            then,
            brand=self._commands.brand,
            secrets=[] if now is None else self._commands.signing_secrets(now),
        )

    async def rates(self, place: Place) -> list[dict[str, Any]]:
        """
        How the integration's deliveries ended in each of the last 24 hours, oldest first.

        Raises:
            Problem: 404 `integration_unknown`, 503 `history_unavailable`.
        """
        self._commands.get(place.app, place.profile, place.integration)
        return (await self.rates_of(place.app, [place.integration]))[place.integration]

    async def rates_of(self, app: str, integrations: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """
        The same of several integrations of an app, by id.

        Raises:
            Problem: 503 `history_unavailable`.
        """
        found = await self._read().rates(app, integrations)
        return {integration: [bucket_json(each) for each in buckets] for integration, buckets in found.items()}

    # -- sending ---------------------------------------------------------------------------------------------

    async def retry(self, app: str, delivery: str, caller: Caller) -> dict[str, Any]:
        """
        Send one that has ended again: what was made of it, `{"id", "of", "attempt"}`.

        Raises:
            Problem: 404 `delivery_unknown`, 409 `delivery_open` or `integration_deleted`, 410 `payload_expired`, 503.
        """
        told = await self._told(app, delivery)
        ended = _ended(told)
        if ended is None:
            raise Problem(
                409,
                "delivery_open",
                "Still being tried",
                "The delivery has not ended: another attempt follows by itself. Wait for its outcome.",
            )
        self._check_there(told.row.integration)
        kept = await kept_deliveries(self._connection, [ended])
        if delivery not in kept:
            raise Problem(
                410,
                "payload_expired",
                "Payload gone",
                "The delivery has fallen out of retention (7 days), and its payload with it. Send the event anew.",
            )
        # Its own first one may have fallen out of the history before it.
        first = None if told.row.of is None else await self._read().delivery(app, told.row.of)
        [made] = await self._sent_again(app, [(first or told, kept[delivery])], caller)
        return _made_json(made)

    async def retry_many(self, app: str, body: Any, caller: Caller) -> dict[str, Any]:
        """
        Send those that fit a filter again: `{"outcome", "integration"?, "type"?, "since"?, "until"?, "limit"?,
        "cursor"?}`.

        Those that were sent again already, and were delivered or are on their way, are left alone. The answer has
        `items`, what was made; `refused`, those that cannot be sent and why, which count towards the limit; and `next`,
        the cursor to go on with where others may fit, as `more` says. Only so many are looked at, whatever fits.

        Raises:
            Refused: the body is no filter.
            Problem: 400 `cursor_invalid`, 503 `broker_unavailable` or `history_unavailable`; some may have been sent.
        """
        wanted, limit, cursor = filter_of(app, body)
        looked = await self._looked(wanted, limit, cursor)
        kept = await kept_deliveries(self._connection, [ended for _, ended in looked.chosen])
        again_of: list[tuple[Told, Kept]] = []
        refused = [{"of": each, "code": "integration_deleted"} for each in looked.deleted]
        for told, _ in looked.chosen:
            if (found := kept.get(told.row.delivery_id)) is not None:
                again_of.append((told, found))
            else:
                refused.append({"of": told.row.delivery_id, "code": "payload_expired"})
        made = await self._sent_again(app, again_of, caller, once=True)
        return {
            "items": [_made_json(each) for each in made],
            "refused": refused,
            "more": looked.next is not None,
            "next": looked.next,
        }

    async def _looked(self, wanted: Wanted, limit: int, cursor: str | None) -> _Looked:
        found = _Looked(cursor)
        runs = self._runs(wanted.app)
        for _ in range(_MOST_PAGES):
            page = await self._read().page(wanted, limit=_LOOKED_AT_ONCE, cursor=found.next)
            for row in page.items:
                told = None if row.of is not None else await self._read().delivery(wanted.app, row.delivery_id)
                ended = None if told is None else _ended(told)
                if told is not None and ended is not None and not _is_settled(told, runs):
                    if len(found.chosen) + len(found.deleted) == limit:
                        return found
                    if self._log.integrations.get(row.integration) is None:
                        found.deleted.append(row.delivery_id)
                    else:
                        found.chosen.append((told, ended))
                found.next = cursor_behind(row, wanted)
            found.next = page.next
            if found.next is None:
                break
        return found

    async def test(self, place: Place, body: Any, caller: Caller) -> dict[str, Any]:
        """
        Send a sample event to the integration, whatever it selects: `{"type"?}`; what was made of it.

        Raises:
            Refused: there is no such type.
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """
        run = self._new_id()

        def decide() -> Change[Delivery]:
            config = self._commands.get(place.app, place.profile, place.integration)
            event_type = self._sample_type(config, body)
            made = tested(config, event_type, run=run, config_offset=self._log.next_offset(), now_ms=self._now_ms())
            details = {"delivery": made.delivery_id, "type": event_type}
            return Change("integration.test", config.id, made, details, [_write(made)])

        made = await self._changes.make(place.app, caller, decide)
        return _made_json(made) | {"event": made.type, "eventId": made.event_id}

    async def _sent_again(
        self, app: str, chosen: list[tuple[Told, Kept]], caller: Caller, *, once: bool = False
    ) -> list[Delivery]:
        """
        A few at a time: each lot is one change, with its record on the audit log.

        Args:
            chosen: first deliveries, and what is sent of each: itself, or one that repeated it.
            once: leave out what somebody else has had sent again meanwhile.
        """
        run = self._new_id()
        made: list[Delivery] = []
        for lot in _lots(chosen):
            done: list[Delivery] = await self._changes.make(app, caller, partial(self._retry, app, lot, run, once))
            made += done
        return made

    def _runs(self, app: str) -> _Runs:
        runs: _Runs = defaultdict(set)
        for record in self._log.chains.newest_first(app):
            if record.action == _RETRY:
                for delivery in record.details.get("deliveries", "").split():
                    runs[delivery].add(record.details.get("run", ""))
        return runs

    def _retry(
        self, app: str, lot: list[tuple[Told, Kept]], run: str, once: bool
    ) -> Change[list[Delivery]] | Unchanged[list[Delivery]]:
        runs = self._runs(app)
        if once:
            lot = [each for each in lot if not _is_settled(each[0], runs)]
        if not lot:
            return Unchanged([])
        offset = self._log.next_offset()
        deliveries = [
            again(kept.delivery, last_attempt=_last_attempt(first, runs), run=run, config_offset=offset)
            for first, kept in lot
        ]
        writes = [_write(each, kept.trace) for each, (_, kept) in zip(deliveries, lot, strict=True)]
        details = {"deliveries": " ".join(_first_id(first) for first, _ in lot), "run": run}
        target = lot[0][1].delivery.delivery_id if len(lot) == 1 else f"{len(lot)} deliveries"
        return Change(_RETRY, target, deliveries, details, writes)

    async def _told(self, app: str, delivery: str) -> Told:
        told = await self._read().delivery(app, delivery)
        if told is None:
            raise Problem(
                404,
                "delivery_unknown",
                "No such delivery",
                "There is no delivery of this id with a result, or it is not kept any more. List them to find it.",
            )
        return told

    def _check_there(self, integration: str) -> None:
        if self._log.integrations.get(integration) is None:
            raise Problem(
                409,
                "integration_deleted",
                "Its integration is deleted",
                "The integration that the delivery was for has been deleted, so there is nowhere to send it.",
            )

    def _sample_type(self, config: IntegrationConfig, body: Any) -> str:
        if body is not None and not isinstance(body, dict):
            raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
        fields = Fields(body or {})
        selected = next((each for each in config.events if each != ALL_TYPES), _SAMPLE_TYPE[config.profile])
        wanted = fields.text("type", most=128) if fields.has("type") else selected
        app = self._log.apps.get(config.app)
        own = set() if app is None else set(app.event_types)
        known = BOOKING_TYPES if config.profile == "booking" else CATALOGUE | OWN_TYPES | own
        if wanted and wanted not in known:
            fields.refuse("type", f"{shortened(wanted)!r} is no event type that it can get")
        fields.nothing_else()
        if fields.refusals:
            raise Refused(fields.refusals)
        return wanted


def filter_of(app: str, body: Any) -> tuple[Wanted, int, str | None]:
    """
    Which deliveries this JSON body wants to have sent again, how many at most, and from which cursor on.

    Raises:
        Refused: with the name of every field that has to change.
    """
    if not isinstance(body, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    fields = Fields(body)
    if not fields.has("outcome"):
        fields.refuse("outcome", "is required: which of those that have ended")
    outcome = fields.choice("outcome", "exhausted", _OUTCOMES)
    wanted = Wanted(
        app=app,
        outcome=outcome,
        integration=fields.text("integration", most=200) if fields.has("integration") else None,
        type=fields.text("type", most=200) if fields.has("type") else None,
        since_ms=fields.time_ms("since"),
        until_ms=fields.time_ms("until"),
    )
    limit = fields.number("limit", DEFAULT_RETRIED, least=1, most=MAX_RETRIED)
    cursor = fields.text("cursor", most=CURSOR_CHARS) if fields.has("cursor") else None
    fields.nothing_else()
    if fields.refusals:
        raise Refused(fields.refusals)
    return wanted, limit, cursor


def _ended(told: Told) -> Result | None:
    """The result that ended it: the first with an outcome counts."""
    return next((each for each in told.results if each.outcome is not None), None)


def _first_id(told: Told) -> str:
    """Of the delivery that all of its repeats point at."""
    return told.row.of or told.row.delivery_id


def _is_settled(first: Told, runs: _Runs) -> bool:
    """Whether it was sent again, and that was delivered or has not ended."""
    row, repeats = first.row, first.repeated_by
    ended = {each.delivery_id for each in repeats if each.outcome is not None}
    made = (delivery_id(row.record_id, row.integration, run) for run in runs[_first_id(first)])
    return any(each not in ended for each in made) or any(each.outcome in (None, "delivered") for each in repeats)


def _last_attempt(first: Told, runs: _Runs) -> int:
    """The highest number that it, or what repeated it, was sent with: those without a result yet have one each."""
    known = max(first.row.attempts, *(each.attempts for each in first.repeated_by), 0)
    return max(known, first.row.attempts + len(runs[_first_id(first)]))


def _lots(chosen: list[tuple[Told, Kept]]) -> Iterator[list[tuple[Told, Kept]]]:
    lot: list[tuple[Told, Kept]] = []
    size = 0
    for each in chosen:
        bytes_of_it = len(each[1].delivery.payload) + 1_024
        if lot and (len(lot) == _AT_ONCE or size + bytes_of_it > _BYTES_AT_ONCE):
            yield lot
            lot, size = [], 0
        lot.append(each)
        size += bytes_of_it
    if lot:
        yield lot


def _body_json(found: Sent | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"requestBody": None, "bodyIsProven": False, "bodyIsGone": found}
    return {"requestBody": found.body.decode(errors="replace"), "bodyIsProven": found.is_proven, "bodyIsGone": None}


def _write(delivery: Delivery, trace: TraceContext | None = None) -> Write:
    headers = dict(trace.record_headers()) if trace is not None else {}
    return Write(topic=DELIVERIES.name, key=delivery.integration, value=codec.encode(delivery), headers=headers)


def _made_json(made: Delivery) -> dict[str, Any]:
    return {"id": made.delivery_id, "of": made.of, "integration": made.integration, "attempt": made.attempt}
