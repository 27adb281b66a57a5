"""What the admin API does with replays: ask for one, try it without sending, show how far it is, cancel it."""

import base64
from collections.abc import Callable
from typing import Any, Final

from aiokafka.errors import KafkaError

from schemas.catalogue import ALL_TYPES
from services.admin.changes import Change, Changes
from services.admin.commands import Commands
from services.admin.config_log import ConfigLog, unavailable
from services.admin.fields import Fields
from services.admin.place import Place
from services.admin.replays import asked, cancelled, replay_json
from services.admin.rules import Refused
from services.admin.tokens import Caller
from services.dispatcher.dry_run import MAX_SAMPLE, SAMPLE, DryRun, Shown, dry_run
from services.dispatcher.replaying import share_done
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.times import iso
from streams import codec
from streams.connection import Connection
from streams.records import Replay, Write
from streams.replays import row_key
from streams.topics import REPLAYS


class ReplayCommands:
    """Replays to integrations. Ids and time come in. Whoever calls has let the log catch up before."""

    def __init__(
        self,
        connection: Connection,
        log: ConfigLog,
        changes: Changes,
        commands: Commands,
        *,
        events_partitions: int,
        brand: str,
        version: str,
        now_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        """
        Args:
            events_partitions: of topic `events`.
            version: of tenterhook, for the `User-Agent` of what a dry run shows.
        """
        self._connection = connection
        self._log = log
        self._changes = changes
        self._commands = commands
        self._events_partitions = events_partitions
        self._brand = brand
        self._version = version
        self._now_ms = now_ms
        self._new_id = new_id

    async def start(self, place: Place, body: Any, caller: Caller) -> dict[str, Any]:
        """
        Ask for a replay; as `get` shows it.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """
        replay_id = f"rpl_{self._new_id()}"

        def decide() -> Change[Replay]:
            row = self._asked(place, body, replay_id, caller)
            details = {
                "replay": row.id,
                "from": iso(row.from_ms),
                "until": iso(row.until_ms),
                "types": " ".join(row.types),
                "rate": str(row.rate),
            }
            return Change("replay.start", place.integration, row, details, [_write(row)])

        return _json(await self._changes.make(place.app, caller, decide))

    async def dry_run(self, place: Place, body: Any, caller: Caller) -> dict[str, Any]:
        """
        What a replay would send: counts by type, and the first requests; sends and writes nothing.

        Raises:
            Refused: the body asks for what cannot be.
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """
        body, sample = sample_of(body)
        row = self._asked(place, body, f"rpl_{self._new_id()}", caller)
        return dry_run_json(await self._tried(place, row, sample=sample), row)

    async def emitted(self, place: Place, since_ms: int, caller: Caller, *, most: int) -> tuple[dict[str, int], bool]:
        """
        How many events of each type the app has emitted since then, and whether that is all of them.

        Args:
            most: events of the log that are looked at, the oldest.

        Raises:
            Problem: 404 `integration_unknown`, 503 `broker_unavailable`.
        """
        row = self._asked(place, {"from": iso(since_ms), "types": [ALL_TYPES]}, f"rpl_{self._new_id()}", caller)
        found = await self._tried(place, row, sample=0, most=most)
        return dict(sorted(found.by_type.items())), found.seen < most

    async def _tried(self, place: Place, row: Replay, *, sample: int, most: int | None = None) -> DryRun:
        app = self._log.apps.get(place.app)
        try:
            return await dry_run(
                self._connection,
                self._events_partitions,
                row,
                self._commands.get(place.app, place.profile, place.integration),
                brand=self._brand,
                version=self._version,
                now_ms=self._now_ms(),
                allow_http=app is not None and app.allow_http,
                sample=sample,
                most=most,
            )
        except (KafkaError, OSError, TimeoutError):
            raise unavailable("The broker does not answer, so nothing was counted. Repeat the request.") from None

    async def cancel(self, place: Place, replay: str, caller: Caller) -> dict[str, Any]:
        """
        Cancel a replay; as `get` shows it.

        Raises:
            Problem: 404 `integration_unknown` or `replay_unknown`, 409 `replay_ended`, 503 `broker_unavailable`.
        """

        def decide() -> Change[Replay]:
            row = cancelled(self._found(place, replay), who=caller.name, now_ms=self._now_ms())
            return Change("replay.cancel", place.integration, row, {"replay": row.id}, [_write(row)])

        await self._changes.make(place.app, caller, decide)
        return self.get(place, replay)

    def get(self, place: Place, replay: str) -> dict[str, Any]:
        """
        A replay, and how far it is.

        Raises:
            Problem: 404 `integration_unknown` or `replay_unknown`.
        """
        return _json(self._found(place, replay))

    def listed(self, place: Place) -> list[dict[str, Any]]:
        """The integration's replays, newest first."""
        self._commands.get(place.app, place.profile, place.integration)
        return [_json(each) for each in reversed(self._log.replays.all()) if each.integration == place.integration]

    def listed_of_app(self, app: str) -> list[dict[str, Any]]:
        """Replays of all the app's integrations, newest first; also of those that are deleted by now."""
        return [_json(each) for each in reversed(self._log.replays.all()) if each.app == app]

    def _asked(self, place: Place, body: Any, replay: str, caller: Caller) -> Replay:
        config = self._commands.get(place.app, place.profile, place.integration)
        return asked(body, config, replay=replay, who=caller.name, now_ms=self._now_ms())

    def _found(self, place: Place, replay: str) -> Replay:
        self._commands.get(place.app, place.profile, place.integration)
        found = self._log.replays.get(replay)
        if found is None or (found.app, found.integration) != (place.app, place.integration):
            raise Problem(
                kinds.REPLAY_UNKNOWN,
                "The integration has no replay of this id. List them.",
            )
        return found


#: Fields of the body that say how a dry run is shown, and nothing of the replay.
_OF_DRY_RUN: Final = ("sample",)


def sample_of(body: Any) -> tuple[Any, int]:
    """
    The body without what only a dry run has, and how many requests it is to show.

    Raises:
        Refused: that is no number from 0 to `MAX_SAMPLE`.
    """
    if not isinstance(body, dict):
        return body, SAMPLE
    fields = Fields(body)
    sample = fields.number("sample", SAMPLE, least=0, most=MAX_SAMPLE)
    if fields.refusals:
        raise Refused(fields.refusals)
    return {name: value for name, value in body.items() if name not in _OF_DRY_RUN}, sample


def dry_run_json(found: DryRun, wanted: Replay) -> dict[str, Any]:
    """What a dry run has found, as HTTP shows it."""
    return {
        "dryRun": True,
        "events": found.count,
        "byType": dict(sorted(found.by_type.items())),
        "repeatsLeftOut": found.repeats,
        "seconds": round(found.count / wanted.rate, 1),
        "sample": [_request(each) for each in found.sample],
    }


def _request(each: Shown) -> dict[str, Any]:
    refusal = None if each.refusal is None else {"code": each.refusal[0], "detail": each.refusal[1]}
    return {
        "eventId": each.event_id,
        "event": each.type,
        "acceptedAt": iso(each.accepted_at_ms),
        "deliveredLive": each.was_delivered_live,
        "url": each.url or None,
        "headers": [{"name": name, "value": value} for name, value in each.headers],
        "body": _text(each.body),
        "refusal": refusal,
    }


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode()


def _json(replay: Replay) -> dict[str, Any]:
    return replay_json(replay, share_done(replay))


def _write(row: Replay) -> Write:
    """The row of who asks; how far it is, the dispatcher writes under another key."""
    return Write(topic=REPLAYS.name, key=row_key(row).decode(), value=codec.encode(row))
