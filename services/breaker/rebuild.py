"""
The breaker's states computed anew from the log, and held against what is published.

A state says up to which result it goes, so it is compared with the fold of exactly those results, also while the
breaker runs. Where older results have fallen out of retention, or were lost, the count may have begun before what is
kept: from the first success or the beginning of an epoch on it is exact again. The window is when a day of results is
kept. Until then only the rest is compared.

Whether `autoPause` was on is told by the version that each result was made under (`auto_pause.py`), never by the state
that is being checked. Where a breaker may have gone by another version, since somebody turned it, either will do.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from services.breaker.auto_pause import AutoPause
from services.breaker.fold import fold, rules_of, state_of
from streams import codec, topics
from streams.connection import Connection
from streams.ends import EndOffset
from streams.features import features_of
from streams.follower import Follower
from streams.reading import stop
from streams.records import BreakerRow, IntegrationConfig, IntegrationState, Result
from streams.states import States
from streams.success_rate import PIECE_MS, PIECES
from streams.takeover import read_back
from streams.topics import Partitions
from streams.views import Integrations

log = structlog.get_logger("breaker.rebuild")

#: `unpublished`: there are results, and no state. `partial`: equal as far as what is kept can tell.
Verdict = Literal["equal", "partial", "differs", "unpublished"]

#: What depends on the count, and with it on results that may not be kept any more.
_COUNT: Final = frozenset(
    {"state", "reason", "consecutive_failures", "since_ms", "armed_from"}
    | {"tripped_by_delivery", "tripped_by_attempt", "tripped_by_offset"}
)
#: What depends on all that ended within a day of the last one.
_WINDOW: Final = frozenset({"delivered", "ended", "window", "window_delivered", "window_ended"})
#: What depends on the delivery that ended last.
_LAST: Final = frozenset(name for name in IntegrationState.__struct_fields__ if name.startswith("last_"))

_FETCH_BYTES: Final = 4_194_304

#: Called with (results read, results to read).
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One integration: what its results make of it."""

    integration: str
    app: str
    #: By the results up to the published state's; by all where nothing is published. None where there are none.
    state: IntegrationState | None
    #: What is on `integration-state`.
    published: IntegrationState | None
    #: Results that stand behind the published state, which the breaker has not come to yet, or not published.
    behind: int
    #: Fields that cannot be told from what is kept: they are not compared.
    untold: frozenset[str]
    #: Whether it can be told of each result that counts whether `autoPause` was on.
    is_told: bool = True

    @property
    def differences(self) -> list[str]:
        """What the published state says otherwise, a sentence each."""
        if self.published is None:
            return [] if self.state is None else ["nothing is published"]
        if self.state is None:
            return [] if self.untold else ["no result of it is kept"]
        return [
            f"{name} is {getattr(self.published, name)!r}, and the results say {getattr(self.state, name)!r}"
            for name in IntegrationState.__struct_fields__
            if name not in self.untold and getattr(self.published, name) != getattr(self.state, name)
        ]

    @property
    def verdict(self) -> Verdict:
        """Whether it is as published."""
        if self.published is None and self.state is not None:
            return "unpublished"
        if self.differences:
            return "differs"
        return "partial" if self.untold or not self.is_told else "equal"


class Counting:
    """The fold of one integration up to what is published of it. Pure."""

    def __init__(
        self,
        config: IntegrationConfig,
        published: IntegrationState | None,
        auto_pause: AutoPause,
        *,
        gone_until_ms: int | None,
    ) -> None:
        """
        Args:
            auto_pause: with every version that is kept, *config* too.
            gone_until_ms: none of its results that are not kept any more is newer; None: all are kept.
        """
        self._config = config
        self._published = published
        self._auto_pause = auto_pause
        self._gone_until_ms = gone_until_ms
        #: Whether the count can be told.
        self._is_whole = gone_until_ms is None
        self._behind = 0
        #: By the version that each result was made under.
        self._row: BreakerRow | None = None
        #: By what is published, where a breaker may have gone by another version; None: the same as yet.
        self._claimed: BreakerRow | None = None
        #: Whether those are all that a row of this epoch needs.
        self._is_told = True

    def see(self, result: Result, offset: int) -> None:
        """The next of its results."""
        if self._published is not None and offset > self._published.applied_offset:
            self._behind += 1
            return
        before = self._row
        is_newer = before is not None and result.epoch > before.epoch
        self._is_told = self._is_told or is_newer
        is_on, claim = self._told(result, offset)
        if self._claimed is not None or is_on != claim:
            self._claimed = self._folded(self._claimed or before, result, offset, is_on=claim)
        self._row = self._folded(before, result, offset, is_on=is_on)
        if is_newer or (result.outcome == "delivered" and result.epoch == self._row.epoch):
            self._is_whole = True

    def _told(self, result: Result, offset: int) -> tuple[bool, bool]:
        """Whether `autoPause` was on: by the result's version, and by what is published as far as that may be."""
        known, claim = self._auto_pause.at(result.integration, result.config_version), self._claims(offset)
        if known is None:
            self._is_told = False
            return claim, claim
        if self._published is None or claim == known:
            return known, known
        possible = self._auto_pause.possible(result.integration, result.config_version, result.finished_at_ms)
        return known, claim if claim in possible else known

    def _claims(self, offset: int) -> bool:
        if self._published is None:
            return self._config.auto_pause
        return self._published.armed_from is not None and offset >= self._published.armed_from

    def _folded(self, row: BreakerRow | None, result: Result, offset: int, *, is_on: bool) -> BreakerRow:
        new = fold(row, result, offset, replace(rules_of(self._config), auto_pause=is_on))
        published = self._published
        if row is None and self._gone_until_ms is not None and published is not None and new.armed_from is not None:
            # It was on before what is kept begins: nothing but the state tells since when.
            armed_from = min(published.armed_from if published.armed_from is not None else offset, offset)
            return msgspec.structs.replace(new, armed_from=armed_from)
        return new

    def rebuilt(self) -> Rebuilt:
        """All are seen."""
        by_versions = self._rebuilt(self._row, is_told=self._is_told)
        if self._claimed is None or not by_versions.differences:
            return by_versions
        return self._rebuilt(self._claimed, is_told=False)

    def _rebuilt(self, row: BreakerRow | None, *, is_told: bool) -> Rebuilt:
        config = self._config
        state = None if row is None else state_of(row, config)
        # Of an activation that no result has followed yet the count is clean, whatever was on before.
        is_clean = row is not None and state is not None and row.epoch < state.epoch
        untold = self._untold(row)
        return Rebuilt(config.id, config.app, state, self._published, self._behind, untold, is_told or is_clean)

    def _untold(self, row: BreakerRow | None) -> frozenset[str]:
        untold = frozenset() if self._is_whole else _COUNT
        if row is None or self._gone_until_ms is None:
            return untold
        if row.last_delivery_id is None:
            untold |= _LAST
        # Unlike the count it is not exact again with a success: only once what is gone is older than all of it.
        if not row.window or self._gone_until_ms // PIECE_MS > row.window[-1] - PIECES:
            untold |= _WINDOW
        return untold


async def rebuild(connection: Connection, partitions: Partitions, progress: Progress) -> list[Rebuilt]:
    """
    Fold every result that is kept; every integration that has results or a state, by id.

    A state of an integration that is deleted counts as one that differs.

    Raises:
        KafkaError: the broker does not answer.
    """
    integrations, states = Integrations(), States()
    await _read_once(Follower(connection, topics.INTEGRATION_STATE, states.apply, clear=states.clear))
    await _read_once(Follower(connection, topics.INTEGRATION_CONFIG, integrations.apply, clear=integrations.clear))
    auto_pause = await _auto_pause(connection, integrations)
    all_ = [TopicPartition(connection.topic(topics.RESULTS), number) for number in range(partitions.by_integration)]
    reader = AIOKafkaConsumer(
        **connection.client_options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    await reader.start()
    try:
        reader.assign(all_)
        beginnings, ends = await reader.beginning_offsets(all_), await _ends(connection, all_)
        all_counting = _AllCounting(integrations, states, auto_pause)
        #: When the first one that is kept came onto the log, of partitions that do not begin at 0.
        gone_until_ms: dict[TopicPartition, int] = {}
        todo = sum(ends[each] - beginnings[each] for each in all_)
        done = 0
        open_ones = {each for each in all_ if beginnings[each] < ends[each]}
        while open_ones:
            for partition, records in (await reader.getmany(*open_ones, timeout_ms=200)).items():
                if beginnings[partition] > 0 and records:
                    gone_until_ms.setdefault(partition, records[0].timestamp)
                for record in records:
                    if record.offset < ends[partition]:
                        all_counting.see(record.value, record.offset, gone_until_ms=gone_until_ms.get(partition))
                done += len(records)
            progress(min(done, todo), todo)
            for partition in list(open_ones):
                if await reader.position(partition) >= ends[partition]:
                    open_ones.discard(partition)
                    reader.pause(partition)
    finally:
        await stop(reader)
    is_all_kept = not any(beginnings.values())
    counting = all_counting.of
    found = [each.rebuilt() for each in counting.values()]
    for state in states.all():
        if state.integration not in counting:
            # Of a deleted integration nothing may be left; of another one the results may be too old to be kept.
            # Of one whose configuration cannot be read nothing was counted here.
            is_whole = is_all_kept or integrations.get(state.integration) is None
            is_whole &= not integrations.is_broken(state.integration)
            untold = frozenset() if is_whole else frozenset(IntegrationState.__struct_fields__)
            found.append(Rebuilt(state.integration, state.app, None, state, 0, untold))
    return sorted(found, key=lambda each: each.integration)


class _AllCounting:
    def __init__(self, integrations: Integrations, states: States, auto_pause: AutoPause) -> None:
        self._integrations = integrations
        self._states = states
        self._auto_pause = auto_pause
        #: By integration, those that have results.
        self.of: dict[str, Counting] = {}

    def see(self, value: bytes | None, offset: int, *, gone_until_ms: int | None) -> None:
        try:
            result = codec.decode(value)
        except codec.Unreadable:
            return  # the breaker passes it over too
        if not isinstance(result, Result):
            return
        config = self._integrations.get(result.integration)
        if config is None:
            return
        each = self.of.get(config.id)
        if each is None:
            published = self._states.get(config.id)
            each = self.of[config.id] = Counting(config, published, self._auto_pause, gone_until_ms=gone_until_ms)
        each.see(result, offset)


async def _auto_pause(connection: Connection, integrations: Integrations) -> AutoPause:
    """Of every version that is kept; of the present ones alone where this user may not read their history."""
    found, history = AutoPause(), TopicPartition(connection.topic(topics.CONFIG_HISTORY), 0)
    for config in integrations.all():
        found.add(config)
    spans = {each: (0, end) for each, end in (await _ends(connection, [history])).items()}
    try:
        isolation = (await features_of(connection)).isolation
        await read_back(connection, spans, lambda record: found.apply(record.value), isolation=isolation)
    except TopicAuthorizationFailedError:
        log.warning("history.denied", topic=history.topic, hint="what autoPause was is partly unknown")
    return found


async def _ends(connection: Connection, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """Where they end now, also on a broker that is not exact about it."""
    found = {}
    for partition in partitions:
        end = EndOffset(connection, partition)
        try:
            found[partition] = await end.ask()
        finally:
            await end.stop()
    return found


async def _read_once(follower: Follower) -> None:
    await follower.start()
    await follower.stop()
