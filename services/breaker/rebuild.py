"""
The breaker's states computed anew from the log, and held against what is published.

A state says up to which result it goes, so it is compared with the fold of exactly those results, also while the
breaker runs. Where older results have fallen out of retention the count may have begun before what is kept: from the
first success or the beginning of an epoch on it is exact again, and until then only the rest is compared.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.breaker.fold import fold, rules_of, state_of
from streams import codec, topics
from streams.connection import Connection
from streams.ends import EndOffset
from streams.follower import Follower
from streams.records import BreakerRow, IntegrationConfig, IntegrationState, Result
from streams.states import States
from streams.topics import Partitions
from streams.views import Integrations

#: `unpublished`: there are results, and no state. `partial`: equal as far as what is kept can tell.
Verdict = Literal["equal", "partial", "differs", "unpublished"]

#: What depends on the count, and with it on results that may not be kept any more.
_COUNT: Final = frozenset(
    {"state", "reason", "consecutive_failures", "since_ms", "armed_from"}
    | {"tripped_by_delivery", "tripped_by_attempt", "tripped_by_offset"}
)

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
    #: Whether the count can be told from what is kept.
    is_whole: bool

    @property
    def differences(self) -> list[str]:
        """What the published state says otherwise, a sentence each."""
        if self.published is None:
            return [] if self.state is None else ["nothing is published"]
        if self.state is None:
            return ["no result of it is kept"] if self.is_whole else []
        skipped = frozenset() if self.is_whole else _COUNT
        return [
            f"{name} is {getattr(self.published, name)!r}, and the results say {getattr(self.state, name)!r}"
            for name in IntegrationState.__struct_fields__
            if name not in skipped and getattr(self.published, name) != getattr(self.state, name)
        ]

    @property
    def verdict(self) -> Verdict:
        """Whether it is as published."""
        if self.published is None and self.state is not None:
            return "unpublished"
        if self.differences:
            return "differs"
        return "equal" if self.is_whole else "partial"


class _Counting:
    """The fold of one integration up to what is published of it."""

    def __init__(self, config: IntegrationConfig, published: IntegrationState | None, *, starts_whole: bool) -> None:
        self.config = config
        self.published = published
        self.row: BreakerRow | None = None
        self.behind = 0
        self.is_whole = starts_whole

    def see(self, result: Result, offset: int) -> None:
        if self.published is not None and offset > self.published.applied_offset:
            self.behind += 1
            return
        is_newer = self.row is not None and result.epoch > self.row.epoch
        self.row = fold(self.row, result, offset, replace(rules_of(self.config), auto_pause=self._is_armed(offset)))
        if is_newer or (result.outcome == "delivered" and result.epoch == self.row.epoch):
            self.is_whole = True

    def _is_armed(self, offset: int) -> bool:
        """Whether `autoPause` was on: the state remembers since which result, a person may have turned it."""
        if self.published is None:
            return self.config.auto_pause
        return self.published.armed_from is not None and offset >= self.published.armed_from

    def rebuilt(self) -> Rebuilt:
        state = None if self.row is None else state_of(self.row, self.config)
        return Rebuilt(self.config.id, self.config.app, state, self.published, self.behind, self.is_whole)


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
        counting: dict[str, _Counting] = {}
        todo = sum(ends[each] - beginnings[each] for each in all_)
        done = 0
        open_ones = {each for each in all_ if beginnings[each] < ends[each]}
        while open_ones:
            for partition, records in (await reader.getmany(*open_ones, timeout_ms=200)).items():
                for record in records:
                    if record.offset < ends[partition]:
                        _see(counting, integrations, states, record.value, record.offset, beginnings[partition] == 0)
                done += len(records)
            progress(min(done, todo), todo)
            for partition in list(open_ones):
                if await reader.position(partition) >= ends[partition]:
                    open_ones.discard(partition)
                    reader.pause(partition)
    finally:
        await reader.stop()
    is_all_kept = not any(beginnings.values())
    found = [each.rebuilt() for each in counting.values()]
    for state in states.all():
        if state.integration not in counting:
            # Of a deleted integration nothing may be left; of another one the results may be too old to be kept.
            is_whole = is_all_kept or integrations.get(state.integration) is None
            found.append(Rebuilt(state.integration, state.app, None, state, 0, is_whole))
    return sorted(found, key=lambda each: each.integration)


def _see(
    counting: dict[str, _Counting],
    integrations: Integrations,
    states: States,
    value: bytes | None,
    offset: int,
    starts_whole: bool,
) -> None:
    try:
        result = codec.decode(value)
    except codec.Unreadable:
        return  # the breaker passes it over too
    if not isinstance(result, Result):
        return
    config = integrations.get(result.integration)
    if config is None:
        return
    each = counting.get(config.id)
    if each is None:
        each = counting[config.id] = _Counting(config, states.get(config.id), starts_whole=starts_whole)
    each.see(result, offset)


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
