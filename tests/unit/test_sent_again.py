"""Deliveries that are sent again: how each is numbered, what is left alone, and how far one request looks."""

from itertools import count
from types import SimpleNamespace

import pytest

from services.admin import delivery_commands
from services.admin.audit import Chains, chained
from services.admin.changes import Unchanged
from services.admin.delivery_commands import DeliveryCommands
from services.admin.kept_deliveries import Kept
from services.admin.tokens import Caller
from services.history import query
from services.history.store import Store
from streams import codec
from streams.records import Delivery
from tests.breaking import make_result
from tests.histories import DELIVERED, EXHAUSTED, put, reader_of
from tests.records import make_delivery, make_integration

ANNA = Caller("anna", "operator", b"hash")
ALL_EXHAUSTED = {"outcome": "exhausted"}


class Stood:
    """The log, the history and the chain of changes of one process, without a broker."""

    def __init__(self, store: Store) -> None:
        self.store = store
        #: By id, what stands on `deliveries`.
        self.deliveries: dict[str, Delivery] = {}
        self.chains = Chains()
        self.integrations = {"int_1": make_integration()}
        self._ids = count(1)
        self.commands = DeliveryCommands(
            connection=None, log=self, changes=self, commands=None, history=self,
            now_ms=lambda: 0, new_id=lambda: f"run_{next(self._ids)}",
        )  # fmt: skip

    # As the history.

    def check_read(self):
        pass

    async def page(self, wanted, *, limit, cursor=None):
        with reader_of(self.store) as file:
            return query.page(file, wanted, limit=limit, cursor=cursor)

    async def delivery(self, app, id_):
        with reader_of(self.store) as file:
            return query.delivery(file, app, id_)

    # As the configuration and its changes.

    def next_offset(self):
        return 7

    async def make(self, app, caller, decide):
        decided = decide()
        if isinstance(decided, Unchanged):
            return decided.result
        record = chained(
            id="rec", app=app, at_ms=0, who=caller.name, ip=None, action=decided.action, target=decided.target,
            allowed=True, details=decided.details, previous_hash=b"",
        )  # fmt: skip
        self.chains.apply(None, codec.encode(record), 0)
        for write in decided.writes:
            made = codec.decode_as(Delivery, write.value)
            self.deliveries[made.delivery_id] = made
        return decided.result

    # As the log.

    async def kept(self, connection, results):
        wanted = [each.delivery_id for each in results]
        return {each: Kept(self.deliveries[each], None) for each in wanted if each in self.deliveries}

    # What happens.

    def exhausted(self, number: int, **changes) -> str:
        """A live delivery that has failed three times; its id."""
        result = make_result(number, attempt=3, **EXHAUSTED | changes)
        put(self.store, result)
        self.deliveries[result.delivery_id] = make_delivery(
            delivery_id=result.delivery_id, integration=result.integration, record_id=result.record_id
        )
        return result.delivery_id

    def ends(self, id_: str, number: int = 50, **outcome) -> None:
        """One that was sent again, or replayed, has a result."""
        made = self.deliveries[id_]
        put(
            self.store,
            make_result(
                number, delivery_id=id_, integration=made.integration, record_id=made.record_id, cause=made.cause,
                of=made.of, attempt=made.attempt, **outcome or EXHAUSTED,
            ),
        )  # fmt: skip

    async def again(self, id_: str) -> SimpleNamespace:
        return SimpleNamespace(**await self.commands.retry("demo", id_, ANNA))

    async def all_again(self, **body) -> SimpleNamespace:
        return SimpleNamespace(**await self.commands.retry_many("demo", ALL_EXHAUSTED | body, ANNA))

    def replayed(self, first: str) -> str:
        """The id of a replay of it, that has no result yet."""
        made = make_delivery(
            delivery_id=f"{first}_replayed", record_id=self.deliveries[first].record_id, cause="replay", of=first
        )
        self.deliveries[made.delivery_id] = made
        return made.delivery_id


@pytest.fixture
def stood(tmp_path, monkeypatch):
    found = Stood(Store(tmp_path / "history"))
    monkeypatch.setattr(delivery_commands, "kept_deliveries", found.kept)
    yield found
    found.store.close()


@pytest.mark.parametrize("have_results", [True, False])
async def test_each_gets_the_next_number_also_where_what_went_before_has_no_result_yet(stood, have_results):
    first = stood.exhausted(1)
    made = []
    for _ in range(3):
        made.append(await stood.again(first))
        if have_results:
            stood.ends(made[-1].id)

    assert [each.attempt for each in made] == [4, 5, 6]


async def test_one_that_repeats_another_is_numbered_with_all_that_repeat_it(stood):
    first = stood.exhausted(1)
    one = await stood.again(first)
    stood.ends(one.id)
    two = await stood.again(first)

    three = await stood.again(one.id)

    assert [(each.of, each.attempt) for each in (one, two, three)] == [(first, 4), (first, 5), (first, 6)]
    newest = next(iter(stood.chains.newest_first("demo")))
    assert (newest.target, newest.details["deliveries"]) == (one.id, first)


async def test_one_whose_first_is_no_longer_in_the_history_goes_on_from_itself(stood):
    first = stood.exhausted(1)
    one = await stood.again(first)
    stood.store.close()
    stood.store = Store(stood.store.path.parent / "anew")
    stood.ends(one.id)

    assert (await stood.again(one.id)).attempt > one.attempt


async def test_what_is_on_its_way_is_left_alone_however_it_was_repeated_before(stood):
    first = stood.exhausted(1)
    one = await stood.again(first)
    stood.ends(one.id)
    two = await stood.again(one.id)
    assert (await stood.all_again()).items == [], "the repeat of a repeat is on its way"
    stood.ends(two.id)
    stood.ends(stood.replayed(first))

    three = await stood.all_again()
    meanwhile = await stood.all_again()
    stood.ends(three.items[0]["id"], **DELIVERED)

    assert [each["attempt"] for each in three.items] == [6]
    assert (meanwhile.items, (await stood.all_again()).items) == ([], [])


async def followed(stood, **body):
    """The answers of one request after the other, to the last one."""
    found = [await stood.all_again(**body)]
    while found[-1].next is not None:
        found.append(await stood.all_again(**body, cursor=found[-1].next))
    return found


async def test_what_cannot_be_sent_counts_towards_the_limit(stood):
    ids = [stood.exhausted(number, integration="int_gone") for number in range(3)]

    one, *rest = await followed(stood, limit=1)

    assert (one.items, one.refused, one.more) == ([], [{"of": ids[2], "code": "integration_deleted"}], True)
    assert [each.refused[0]["of"] for each in rest] == [ids[1], ids[0]]
    assert not rest[-1].more


@pytest.mark.parametrize("body", [{}, {"since": "2026-01-01T00:00:00Z"}])
async def test_each_is_sent_once_from_one_request_to_the_next(stood, body):
    ids = [stood.exhausted(number) for number in range(9)]
    sent = [await stood.again(ids[number]) for number in (8, 5, 2)]

    answers = await followed(stood, limit=2, **body)

    assert [[each["of"] for each in answer.items] for answer in answers] == [
        [ids[7], ids[6]], [ids[4], ids[3]], [ids[1], ids[0]],
    ]  # fmt: skip
    assert len(stood.deliveries) == 9 + len(sent) + 6


async def test_one_request_looks_at_so_many_at_most(stood, monkeypatch):
    monkeypatch.setattr(delivery_commands, "_LOOKED_AT_ONCE", 2)
    monkeypatch.setattr(delivery_commands, "_MOST_PAGES", 3)
    ids = [stood.exhausted(number) for number in range(10)]
    for id_ in ids[1:]:
        await stood.again(id_)

    none, one = await followed(stood)

    assert (none.items, none.more, one.more) == ([], True, False)
    assert [each["of"] for each in one.items] == ids[:1]
