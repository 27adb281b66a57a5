"""
One attempt, from the delivery to its result: configuration → plan → guard → send → verdict → what is kept.

The shell around the pure files of this folder: it holds the clock, the opened secrets and the sender.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from schemas.profiles import MAX_IN_FLIGHT, MAX_TIMEOUT_MS
from services.dispatcher.backoff import Next, next_attempt, retry_after_ms
from services.dispatcher.guard import url_refusal
from services.dispatcher.lane import Pace
from services.dispatcher.masking import mask, mask_body, mask_headers
from services.dispatcher.plan import Planned, Prepared, Unplannable, prepare
from services.dispatcher.sender import Answer, Failure, MaySend, NoResources, Request, Sender, Unsent
from services.dispatcher.standing import FALLEN_OUT, Standing, discarded, standing
from services.dispatcher.together import Together
from services.dispatcher.verdict import Verdict, verdict
from services.vault.data_keys import Vault
from services.vault.opened import open_integration
from services.vault.seal import DataKeyErased, DataKeyUnknown, Keyring, SealedUnderOtherKey
from streams.engine.processor import ReadAt
from streams.follower import Follower
from streams.records import AppConfig, Delivery, IntegrationConfig, Result
from streams.states import States
from streams.trace_context import TraceContext
from streams.trouble import Trouble
from streams.views import Apps, Integrations

log = structlog.get_logger("dispatcher.attempt")

#: Opened secrets of an integration stay in memory this long after they were opened, in use or not.
OPENED_FOR_MS: Final = 60_000
#: And of so many integrations at most.
OPENED_AT_MOST: Final = 2_000
#: A configuration that is not known after this long is an alarm: its topic is unreachable, or was made anew.
BEHIND_ALARM_S: Final = 5.0
#: And so is a key that its secrets want: its app's record does not come, or this process has not the KEK for it.
LOCKED_ALARM_MS: Final = 5_000

#: Orderings in which a delivery that fails keeps its place in the line instead of waiting in a retry topic.
KEEP_THEIR_PLACE: Final = frozenset({"strict", "key"})

#: Wait before another try where this machine is out of sockets.
NO_RESOURCES_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Ready:
    """What all attempts of one version of a configuration share."""

    version: int
    #: The app's record: it allows http or not, and holds the data keys, which may be erased.
    app: AppConfig | None
    since_ms: int
    prepared: Prepared | Unplannable
    #: As kept in results: secrets masked.
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Asked:
    """Whether it may be sent, and whether that was asked and it was."""

    __slots__ = ("_may_send", "is_sent")

    def __init__(self, may_send: MaySend) -> None:
        self._may_send = may_send
        self.is_sent = False

    def __call__(self) -> bool:
        self.is_sent = self._may_send()
        return self.is_sent


class _AppUnread(Exception):
    """What the attempt needs of its app stands in a record that cannot be read, or is not there."""


class Attempts:
    """Makes attempts: the lanes' `Deliverer`."""

    def __init__(
        self,
        *,
        config: Follower,
        integrations: Integrations,
        apps: Apps,
        states: States,
        keyring: Keyring,
        sender: Sender,
        brand: str,
        version: str,
        now_ms: Callable[[], int],
        together: Together,
        is_cancelled: Callable[[str], bool] = lambda _: False,
        opened_for_ms: int = OPENED_FOR_MS,
        behind_alarm_s: float = BEHIND_ALARM_S,
    ) -> None:
        """
        Args:
            is_cancelled: whether the replay of this id was.
        """
        self._is_cancelled = is_cancelled
        self._opened_for_ms = opened_for_ms
        self._behind_alarm_s = behind_alarm_s
        self._config = config
        self._integrations = integrations
        self._apps = apps
        self._states = states
        self._vault = Vault(keyring, apps.get)
        self._sender = sender
        self._brand = brand
        self._version = version
        self._now_ms = now_ms
        self._together = together
        self._ready: dict[str, _Ready] = {}
        self._behind, self._resources = Trouble(log), Trouble(log)
        #: Integrations whose secrets cannot be opened yet: since when, and whether it was said.
        self._locked: dict[str, tuple[int, bool]] = {}

    async def reach(self, config_offset: int) -> None:
        """Wait until the configuration is known up to this offset, however long."""
        if self._config.position >= config_offset:
            return
        try:
            async with asyncio.timeout(self._behind_alarm_s):
                await self._config.reach(config_offset)
        except TimeoutError as late:
            self._behind.met(
                "config.behind",
                late,
                level="error",
                position=self._config.position,
                wanted=config_offset,
                hint="its deliveries wait; is the topic integration-config there, and the one they were made under?",
            )
            await self._config.reach(config_offset)
        self._behind.over()

    def pace(self, integration: str) -> Pace:
        """Ordering and how many requests at once; one that is deleted is only discarded, at any pace."""
        config = self._integrations.get(integration)
        if config is None:
            return Pace("none", MAX_IN_FLIGHT)
        # The admin service refuses others; what somebody else wrote must not stop a lane for ever.
        return Pace(config.ordering, min(max(config.max_in_flight, 1), MAX_IN_FLIGHT))

    def standing(self, integration: str) -> Standing:
        """Whether its deliveries are sent now."""
        config = self._integrations.get(integration)
        is_paused = config is not None and self._states.is_paused(config)
        return standing(config, is_paused=is_paused, is_broken=self._integrations.is_broken(integration))

    def is_locked(self, integration: str) -> bool:
        """
        Whether its secrets cannot be opened yet, and can be later: a key is missing here.

        A transaction that makes an app its data key and seals an integration under it may be met on one topic before
        the other. And whoever replaces the KEK may forget this process: it has to be started again then. Where the
        app's record cannot be read, or was lost, an http:// URL waits too: whether the app allows it is not known.
        """
        config = self._integrations.get(integration)
        try:
            if config is not None:
                self._prepare(config, self._now_ms())
        except (DataKeyUnknown, SealedUnderOtherKey, _AppUnread) as error:
            self._is_late(integration, error)
            return True
        except Exception:  # noqa: BLE001  # no key that comes later mends it: the attempt raises it again, and is put aside
            return False
        self._locked.pop(integration, None)
        return False

    def _is_late(self, integration: str, error: Exception) -> None:
        now_ms = self._now_ms()
        since_ms, is_said = self._locked.setdefault(integration, (now_ms, False))
        if not is_said and now_ms - since_ms >= LOCKED_ALARM_MS:
            self._locked[integration] = since_ms, True
            log.error(
                "secrets.locked",
                integration=integration,
                reason=str(error),
                hint="its deliveries wait; has this process the KEK, and the app's record its data keys?",
            )

    async def attempt(
        self, delivery: Delivery, read_at: ReadAt, may_send: MaySend, trace: TraceContext | None = None
    ) -> Result:
        """The result of the delivery's next attempt. *trace*: the receiver hears of it, where it wants to."""
        config = self._integrations.get(delivery.integration)
        if self._integrations.is_broken(delivery.integration):
            raise Unsent  # neither sent nor ended: nobody knows what it is to be
        started_ms = self._now_ms()
        is_paused = config is not None and self._states.is_paused(config)
        is_cancelled = delivery.cause == "replay" and self._is_cancelled(delivery.run)
        unsent = discarded(delivery, config, is_paused=is_paused, is_cancelled=is_cancelled)
        if config is None or unsent is not None:
            return self._result(delivery, config, unsent or FALLEN_OUT, started_ms, read_at, self._now_ms())
        ready = self._prepare(config, started_ms)
        prepared = ready.prepared
        planned = prepared if isinstance(prepared, Unplannable) else prepared.plan(delivery, started_ms, trace)
        asked = _Asked(may_send)
        happened = await self._send(planned, asked) if isinstance(planned, Planned) else planned
        finished_ms = self._now_ms()
        if asked.is_sent:
            # Before its result is made: one by one that costs three times what it does beside others. What came to no
            # connection is made again by whoever gets the partition meanwhile, so that does not wait.
            await self._together.wait((finished_ms - started_ms) / 1_000)
        ended = verdict(happened, config, delivery.attempt, is_asked_for=delivery.cause != "live")
        return self._result(
            delivery, config, ended, started_ms, read_at, finished_ms, ready=ready, planned=planned, happened=happened
        )

    def fallen_out(self, delivery: Delivery, read_at: ReadAt) -> Result:
        """The outcome of a delivery that waited as long as the log keeps it."""
        config = self._integrations.get(delivery.integration)
        now_ms = self._now_ms()
        return self._result(delivery, config, FALLEN_OUT, now_ms, read_at, now_ms)

    def _prepare(self, config: IntegrationConfig, now_ms: int) -> _Ready:
        app = self._apps.get(config.app)
        ready = self._ready.get(config.id)
        if (
            ready is None
            or ready.version != config.version
            or ready.app is not app
            or now_ms - ready.since_ms > self._opened_for_ms
        ):
            if len(self._ready) >= OPENED_AT_MOST:
                self._ready.clear()
            ready = self._ready[config.id] = self._open(config, app, now_ms)
            asyncio.get_running_loop().call_later(self._opened_for_ms / 1000, self._forget, config.id, ready)
        return ready

    def _forget(self, integration: str, ready: _Ready) -> None:
        if self._ready.get(integration) is ready:
            del self._ready[integration]

    def _open(self, config: IntegrationConfig, app: AppConfig | None, now_ms: int) -> _Ready:
        try:
            opened = open_integration(config, self._vault)
        except DataKeyErased as error:
            return _Ready(config.version, app, now_ms, Unplannable("secrets_erased", str(error)))
        prepared = prepare(config, opened, self._brand, self._version)
        if isinstance(prepared, Unplannable):
            return _Ready(config.version, app, now_ms, prepared)
        masks = prepared.masks
        url = mask(prepared.url, masks)
        headers = {name: mask(value, masks) for name, value in prepared.headers}
        refusal = url_refusal(prepared.url, allow_http=app is not None and app.allow_http)
        if refusal is not None and self._apps.is_broken(config.app):
            raise _AppUnread("the newest record of its app cannot be read, and nothing is known from before")
        if refusal is not None and app is None:
            raise _AppUnread("there is no record of its app")
        if refusal is not None:
            return _Ready(config.version, app, now_ms, Unplannable("url_refused", refusal), url, headers)
        return _Ready(config.version, app, now_ms, prepared, url, headers)

    async def _send(self, planned: Planned, may_send: MaySend) -> Answer | Failure:
        timeout_ms = min(max(planned.timeout_ms, 1), MAX_TIMEOUT_MS)  # as in `pace`
        request = Request(url=planned.url, headers=planned.headers, body=planned.body, timeout_ms=timeout_ms)
        try:
            answer = await self._sender.send(request, may_send)
        except NoResources as error:
            # Nothing was sent, and it is no endpoint's fault: the delivery keeps its place.
            self._resources.met("sender.out_of_resources", error, retry_s=NO_RESOURCES_RETRY_S)
            await asyncio.sleep(NO_RESOURCES_RETRY_S)
            raise
        self._resources.over()
        return answer

    def _result(
        self,
        delivery: Delivery,
        config: IntegrationConfig | None,
        ended: Verdict,
        started_ms: int,
        read_at: ReadAt,
        finished_ms: int,
        *,
        ready: _Ready | None = None,
        planned: Planned | Unplannable | None = None,
        happened: Answer | Failure | Unplannable | None = None,
    ) -> Result:
        sent = isinstance(planned, Planned)
        answer = happened if isinstance(happened, Answer | Failure) else None
        masks = planned.masks if isinstance(planned, Planned) else ()
        body, response_headers, is_cut = b"", {}, False
        if answer is not None:
            response_headers = mask_headers(answer.headers, masks)
            is_cut = isinstance(answer, Failure) or answer.truncated
            encoding = next((value for name, value in answer.headers if name.lower() == "content-encoding"), "")
            body = mask_body(answer.body, encoding, masks, cut=is_cut)
        follows = _next(delivery, config, ended, answer, finished_ms)
        return Result(
            delivery_id=delivery.delivery_id,
            integration=delivery.integration,
            app=delivery.app,
            record_id=delivery.record_id,
            event_id=delivery.event_id,
            type=delivery.type,
            cause=delivery.cause,
            of=delivery.of,
            attempt=delivery.attempt if sent else 0,
            outcome=ended.outcome,
            reason=ended.reason,
            detail=mask(ended.detail, masks),
            epoch=config.epoch if config else 0,
            config_version=config.version if config else 0,
            url=ready.url if ready else "",
            request_headers=_kept_headers(planned, ready) if isinstance(planned, Planned) and ready else {},
            status=answer.status if answer else None,
            response_headers=response_headers,
            response_body=body,
            response_truncated=is_cut and answer is not None and (isinstance(answer, Answer) or bool(answer.body)),
            started_at_ms=started_ms,
            finished_at_ms=finished_ms,
            dns_us=answer.dns_us if answer else None,
            connect_us=answer.connect_us if answer else None,
            tls_us=answer.tls_us if answer else None,
            wait_us=answer.wait_us if answer else None,
            read_us=answer.read_us if answer else None,
            next_attempt=follows.attempt if follows else None,
            next_due_at_ms=follows.due_at_ms if follows else None,
            next_slot=follows.slot if follows and config and config.ordering not in KEEP_THEIR_PLACE else None,
            accepted_at_ms=delivery.accepted_at_ms,
            source_partition=read_at.partition,
            source_offset=read_at.offset,
            source_generation=read_at.generation,
            # What a person has asked for has one attempt.
            attempts_before=delivery.attempt - 1 if not sent and delivery.cause == "live" else 0,
        )


def _next(
    delivery: Delivery,
    config: IntegrationConfig | None,
    ended: Verdict,
    answer: Answer | Failure | None,
    failed_at_ms: int,
) -> Next | None:
    """The attempt that follows; None where the delivery has ended."""
    if config is None or not ended.retry:
        return None
    asked_ms = retry_after_ms(answer.status, answer.headers, failed_at_ms) if answer is not None else None
    return next_attempt(delivery.delivery_id, delivery.attempt, config, failed_at_ms, asked_ms)


def _kept_headers(planned: Planned, ready: _Ready) -> dict[str, str]:
    """The request's headers, the integration's own with their secrets masked."""
    return {name: ready.headers.get(name, value) for name, value in planned.headers}
